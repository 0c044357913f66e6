//! `/v1/pods/{id}/exec`: a command in a pod's container, over a `WebSocket`.
//!
//! The client says first what to run; then frames go both ways until the command ends, the client
//! goes, or the node or Redis is lost. Whichever it is, the session is ended, and the agent ends a
//! command that still runs.

mod session;

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::App;
use super::attempt::{Effect, attempt};
use super::pods::{absent, pod_id};
use super::problem::{Kind, Problem};
use super::schema::{AbsentProblem, ConflictProblem, Problems, UpgradeProblems};
use super::sessions::listen;
use crate::model::{ExecFrame, ExecWish, NodeRequest};
use session::{Client, WAIT, run};

/// Most bytes of a client's message: a piece of input, or the command.
const MESSAGE_MAX: usize = 64 * 1024;
/// Longest time for the client to say what to run.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for the client to read the last frames.
const FAREWELL: Duration = Duration::from_secs(5);
/// Messages that may wait for the client.
const MESSAGES_MAX: usize = 4;

/// Run a command in a pod's container
///
/// A `WebSocket`. The first message is a text: the command, as JSON (`ExecRequest`). All others are
/// binary: a byte that tells the kind, then the data. To the API 0 is input, 3 the end of input, 4
/// another size of the terminal as JSON (`{"columns": 80, "rows": 24}`). From the API 1 is output, 2
/// error output, and the last is 5, the exit code as text, or 6, why the command was not run or was
/// cut off. The command is ended when the client goes.
#[utoipa::path(
    get,
    path = "/v1/pods/{id}/exec",
    tag = "pods",
    params(("id" = String, Path, description = "The pod")),
    request_body(content = ExecWish, description = "The first message"),
    responses(
        (status = 101, description = "The command may be told"),
        Problems, AbsentProblem, ConflictProblem, UpgradeProblems,
    ),
)]
pub(super) async fn exec(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let id = pod_id(&id, &uri)?;
    let upgrade = upgrade.map_err(|rejection| {
        let detail = format!("{rejection}: connect by WebSocket, as `leet exec` does");
        Problem::new(Kind::UpgradeRequired, detail)
    })?;
    check_origin(&headers)?;
    let get = async || app.store.pods().get(&id).await;
    let Some(pod) = attempt(Effect::Reads, get).await?.value else {
        return Err(absent(&id));
    };
    let node = pod.node.filter(|_| pod.phase.runs()).ok_or_else(|| {
        let detail = format!(
            "pod {id} is {}: commands can be run while it runs",
            pod.phase
        );
        Problem::new(Kind::PodNotRunning, detail)
    })?;
    let seat = app.seats.take()?;
    let listener = listen(&app, WAIT).await?;
    let tasks = app.seats.tasks.clone();
    let upgrade = upgrade
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX);
    Ok(upgrade.on_upgrade(move |socket| {
        let served = async move {
            let app = &app;
            let run = async move |client, wish| {
                let request = NodeRequest::Exec { pod: id, wish };
                run(app, listener, client, &node, &request).await
            };
            Box::pin(serve(socket, run)).await;
            drop(seat);
        };
        tasks.track_future(served.in_current_span())
    }))
}

/// A page of another site must not run commands through its visitor's browser: unlike other
/// requests, browsers let any page open a `WebSocket`.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let site = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if site.is_some_and(|(_, site)| Some(site) == host) {
        return Ok(());
    }
    let detail = "the header Origin names another site than the header Host";
    Err(Problem::new(Kind::OriginRefused, detail))
}

/// Serves one client to its end.
async fn serve(socket: WebSocket, run: impl AsyncFnOnce(Client, ExecWish) -> Option<ExecFrame>) {
    let (mut sink, mut stream) = socket.split();
    let (messages, mut outgoing) = mpsc::channel::<Message>(MESSAGES_MAX);
    // Ends when a client is gone, and with it the channel: that ends the talk.
    let write = async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.close().await;
    };
    let talk = async {
        let started = tokio::time::timeout(START_LIMIT, stream.next()).await;
        let last = match started {
            Ok(Some(Ok(Message::Text(text)))) => match read_wish(&text) {
                Ok(wish) => {
                    let client = Client {
                        incoming: stream,
                        outgoing: messages.clone(),
                    };
                    run(client, wish).await
                }
                Err(why) => Some(ExecFrame::Error(why)),
            },
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => None,
            Ok(Some(Ok(_))) | Err(_) => {
                let why = "the first message has to tell the command, as a text of JSON";
                Some(ExecFrame::Error(why.to_owned()))
            }
        };
        if let Some(last) = last {
            let told = messages.send(Message::Binary(last.to_bytes().into()));
            let _ = tokio::time::timeout(FAREWELL, told).await;
        }
        drop(messages);
    };
    tokio::pin!(write, talk);
    tokio::select! {
        () = &mut talk => {
            let _ = tokio::time::timeout(FAREWELL, write).await;
        }
        () = &mut write => talk.await,
    }
}

fn read_wish(text: &str) -> Result<ExecWish, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let wish: ExecWish = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| format!("the command is not understood: {error}"))?;
    match wish.violation() {
        None => Ok(wish),
        Some(violation) => Err(violation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused() {
        let allowed = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            if !origin.is_empty() {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            headers.insert(HOST, host.parse().unwrap());
            check_origin(&headers).is_ok()
        };
        assert!(allowed("", "127.0.0.1:8080"));
        assert!(allowed("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(!allowed("http://evil.example", "127.0.0.1:8080"));
        assert!(!allowed("http://127.0.0.1:9090", "127.0.0.1:8080"));
        assert!(!allowed("null", "127.0.0.1:8080"));
    }

    #[test]
    fn wishes_are_read_strictly() {
        let wish = read_wish(r#"{"command": ["ls"], "tty": true}"#).unwrap();
        assert!(wish.tty && !wish.stdin);
        for (bad, why) in [
            ("", "not understood"),
            (r#"{"command": []}"#, "empty"),
            (r#"{"command": ["a"], "shell": 1}"#, "shell"),
        ] {
            let error = read_wish(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn fuzz_wishes() {
        let seeds =
            [r#"{"command":["ls","-l"],"tty":true,"stdin":true,"size":{"columns":80,"rows":24}}"#];
        crate::fuzz::text("exec wishes", &seeds, |text| {
            if let Ok(wish) = read_wish(text) {
                let again = serde_json::to_string(&wish).unwrap();
                assert_eq!(read_wish(&again), Ok(wish));
            }
        });
    }
}
