//! The socket by which engines are broken, mended and looked at.
//!
//! * `POST /fault {"node": "n1" or "*", "kind": "timeout", "seconds": 3.5, "ms": 200, "code": 137}`
//! * `POST /heal {"node": "n1" or "*"}`: everything but `restart` is over at once
//! * `GET /containers`: `{"n1": [{"id", "name", "state", "labels"}]}`

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, json_answer, refused};
use super::faults::Kind;
use super::machine::Machine;
use super::{containers, look, serve};

/// Most bytes of a request.
const BODY_MAX: usize = 64 << 10;
/// How slow `slow` is if nobody says so.
const SLOW_MS: u64 = 300;

type Machines = Arc<[Arc<Machine>]>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    node: String,
    kind: Option<Kind>,
    #[serde(default)]
    seconds: f64,
    ms: Option<u64>,
    code: Option<i64>,
}

/// Serves the socket for ever.
pub(super) async fn serve(place: &Path, machines: Machines) -> anyhow::Result<()> {
    let listener = serve::bind(place)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let machines = machines.clone();
        tokio::spawn(async move {
            let calls = service_fn(|request: Request<Incoming>| {
                let machines = machines.clone();
                async move {
                    let answer = answer(&machines, request).await;
                    let answer = answer.unwrap_or_else(|error| refused(400, error.to_string()));
                    Ok::<_, Infallible>(answer)
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), calls).await;
        });
    }
}

async fn answer(machines: &Machines, request: Request<Incoming>) -> anyhow::Result<Answer> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
    match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/containers") => Ok(json_answer(200, &dump(machines))),
        (&Method::POST, path @ ("/fault" | "/heal")) => {
            let order: Order = serde_json::from_slice(&body)?;
            let all = order.node == "*";
            let meant = machines
                .iter()
                .filter(|machine| all || machine.node == order.node);
            let mut done = Map::new();
            for machine in meant {
                let said = if path == "/heal" {
                    machine.inner().faults.heal();
                    Value::Null
                } else {
                    fault(machine, &order)?
                };
                done.insert(machine.node.clone(), said);
            }
            anyhow::ensure!(!done.is_empty(), "no node is called {}", order.node);
            Ok(json_answer(200, &Value::Object(done)))
        }
        _ => Ok(refused(404, "POST /fault, POST /heal or GET /containers")),
    }
}

/// Breaks one engine; what there is to say about it.
fn fault(machine: &Arc<Machine>, order: &Order) -> anyhow::Result<Value> {
    let kind = order
        .kind
        .ok_or_else(|| anyhow::anyhow!("`kind` is missing"))?;
    let time = Duration::try_from_secs_f64(order.seconds)?;
    match kind {
        Kind::Exit => {
            let ended = containers::exit(machine, order.code.unwrap_or(137))?;
            return Ok(json!(ended));
        }
        Kind::Restart | Kind::RestartLost => {
            let mut inner = machine.inner();
            // Under the lock: an order that has not had its effect by now has none.
            machine.away.send_replace(true);
            if kind == Kind::RestartLost {
                inner.end_all(137)?;
            }
            // An engine remembers no event of an earlier life.
            inner.events.clear();
            inner.listeners.clear();
            drop(inner);
            let machine = machine.clone();
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                machine.away.send_replace(false);
            });
        }
        other => {
            let ms = order.ms.unwrap_or(SLOW_MS);
            machine.inner().faults.begin(other, time, ms);
        }
    }
    Ok(Value::Null)
}

/// All containers of all nodes.
fn dump(machines: &Machines) -> Value {
    let nodes = machines.iter().map(|machine| {
        let inner = machine.inner();
        let shown = inner.containers.values().map(|made| {
            let state = look::summary(made)["State"].clone();
            json!({"id": made.id, "name": made.name, "state": state, "labels": made.labels()})
        });
        (machine.node.clone(), shown.collect())
    });
    Value::Object(nodes.collect())
}
