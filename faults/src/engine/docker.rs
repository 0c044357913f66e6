//! Which call of Docker's API is which order, and what faults do to it.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Answer, decoded, empty, is_set, json_answer, refused, streamed, words};
use super::clock::rfc3339;
use super::faults::Kind;
use super::machine::Machine;
use super::{containers, events, images, look};

/// Most bytes of a request; an archive of files is the largest.
const BODY_MAX: usize = 16 << 20;
/// The version of the API that is played.
const API_VERSION: &str = "1.47";

/// Answers a call. What it orders is carried out even if the caller goes away.
pub(super) async fn answer(machine: &Arc<Machine>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refused(400, error.to_string()),
    };
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let machine = machine.clone();
    let order = tokio::spawn(async move {
        if let Some(broken) = broken(&machine, &path).await {
            return broken;
        }
        let call = Call {
            method: &parts.method,
            query: &query,
            body: &body,
        };
        let done = call.carry_out(&machine, &path).await;
        done.unwrap_or_else(|error| refused(500, error.to_string()))
    });
    order
        .await
        .unwrap_or_else(|error| refused(500, error.to_string()))
}

/// What the faults of the moment answer in place of the engine.
async fn broken(machine: &Machine, path: &str) -> Option<Answer> {
    let (slow, hangs_until) = {
        let inner = machine.inner();
        (inner.faults.slow(), inner.faults.until(Kind::Timeout))
    };
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    if let Some(until) = hangs_until {
        tokio::time::sleep_until(until).await;
    }
    let about_containers = path.contains("/containers") || path.contains("/images");
    let fails = about_containers && machine.inner().faults.fails();
    fails.then(|| refused(500, "something went wrong inside the engine"))
}

struct Call<'a> {
    method: &'a Method,
    query: &'a str,
    body: &'a Bytes,
}

impl Call<'_> {
    async fn carry_out(&self, machine: &Arc<Machine>, path: &str) -> anyhow::Result<Answer> {
        // A machine whose engine is away does nothing, even of what it has begun.
        if *machine.away.borrow() {
            return Ok(refused(503, "the engine is going away"));
        }
        let words_of_path: Vec<String> = path.split('/').skip(1).map(decoded).collect();
        let mut parts: Vec<&str> = words_of_path.iter().map(String::as_str).collect();
        if parts[0].starts_with('v') && parts[0].contains('.') {
            parts.remove(0);
        }
        match parts.as_slice() {
            ["containers", "json"] => Ok(containers::list(machine, self.query)),
            ["containers", "create"] => containers::create(machine, self.query, self.json()?).await,
            ["containers", id] => containers::remove(machine, id, self.query),
            ["containers", id, verb] => self.container(machine, id, verb).await,
            ["images", "json"] => Ok(images::list(machine)),
            ["images", "create"] => Ok(images::pull(machine, self.query)),
            ["images", name @ .., "json"] => Ok(images::inspect(machine, &name.join("/"))),
            ["images", name @ ..] if *self.method == Method::DELETE => {
                images::remove(machine, &name.join("/"))
            }
            _ => Ok(self.whole(machine, &parts)),
        }
    }

    async fn container(
        &self,
        machine: &Arc<Machine>,
        id: &str,
        verb: &str,
    ) -> anyhow::Result<Answer> {
        match verb {
            "json" => Ok(containers::inspect(machine, id)),
            "start" => containers::start(machine, id).await,
            "stop" => containers::stop(machine, id, self.query).await,
            "kill" => containers::kill(machine, id),
            "pause" => containers::pause(machine, id, true),
            "unpause" => containers::pause(machine, id, false),
            "update" => containers::update(machine, id, &self.json()?),
            "stats" => Ok(containers::stats(machine, id)),
            "logs" => Ok(self.logs(machine, id)),
            // What is put into a container that is only played goes nowhere.
            "archive" if *self.method == Method::PUT => {
                let is_there = machine.inner().find(id).is_some();
                let no_such = || refused(404, format!("No such container: {id}"));
                Ok(if is_there { empty(200) } else { no_such() })
            }
            other => Ok(refused(501, format!("{other} is not played"))),
        }
    }

    /// Calls about the engine as a whole.
    fn whole(&self, machine: &Arc<Machine>, parts: &[&str]) -> Answer {
        match parts {
            ["_ping"] => words(200, "OK"),
            ["version"] => json_answer(
                200,
                &json!({"Version": "played", "ApiVersion": API_VERSION, "MinAPIVersion": "1.24",
                        "Os": "linux", "Arch": "x86_64"}),
            ),
            ["info"] => json_answer(200, &look::info(machine)),
            ["events"] => events::subscribe(machine, self.query),
            ["system", "df"] => json_answer(
                200,
                &json!({"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [],
                        "BuildCache": []}),
            ),
            _ => refused(501, format!("/{} is not played", parts.join("/"))),
        }
    }

    /// The log: one line, and with `follow` nothing more until the container ends.
    fn logs(&self, machine: &Arc<Machine>, id: &str) -> Answer {
        let Some(made) = machine.inner().find(id).cloned() else {
            return refused(404, format!("No such container: {id}"));
        };
        let (out, pieces) = mpsc::unbounded_channel();
        let line = format!("{} played on {}\n", rfc3339(made.started_ns), machine.node);
        let size = u32::try_from(line.len()).unwrap_or(0).to_be_bytes();
        let piece = [&[1, 0, 0, 0], size.as_slice(), line.as_bytes()].concat();
        let _ = out.send(Bytes::from(piece));
        if is_set(self.query, "follow") && made.lives() {
            let machine = machine.clone();
            tokio::spawn(async move {
                let (sender, mut changes) = mpsc::unbounded_channel();
                machine.inner().listeners.push(sender);
                let lives = || {
                    machine
                        .inner()
                        .containers
                        .get(&made.id)
                        .is_some_and(|it| it.lives())
                };
                while lives() && !out.is_closed() {
                    tokio::select! {
                        change = changes.recv() => if change.is_none() { return },
                        () = out.closed() => return,
                    }
                }
            });
        }
        streamed("application/vnd.docker.multiplexed-stream", pieces)
    }

    fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(self.body)?)
    }
}
