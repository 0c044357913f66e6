//! `/v1/pods/{id}/logs` and `/v1/services/{name}/logs`: lines as they are and as they come.
//!
//! A request's task asks the agents, merges what they say and writes it into the answer's body; it
//! ends with the client, with the API, or when nothing more can come.

mod follow;
mod render;
mod source;

use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use humantime_serde::re::humantime::{format_rfc3339_nanos, parse_duration, parse_rfc3339};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::App;
use super::attempt::{Effect, attempt};
use super::pods::{absent, pod_id_of};
use super::problem::Problem;
use super::query::{Parameters, service_key_of};
use super::schema::{AbsentProblem, Problems};
use super::services;
use super::sessions::listen;
use crate::model::{LogItem, LogWish, ServiceKey, Since};
use follow::{Follower, Target, WAIT};
use render::Render;

/// Most lines of each pod that can be asked for.
const TAIL_MAX: u32 = 1_000_000;
/// Longest way back that can be asked for: longer than any log is kept.
const SINCE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// What is allowed for `since`.
const SINCE_RULE: &str = "a duration such as 10m or 2h, or a time such as 2026-11-20T10:00:00Z";
/// Pieces of the body that may wait for the client.
const PIECES_MAX: usize = 2;
/// The type of lines of JSON.
const NDJSON: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";

/// Read a pod's log
///
/// One line of JSON for each line of the log, oldest first; with `Accept: text/plain` the lines as
/// they were written. What keeps a log from being read is told in a line of its own. The last lines
/// of a container stay for a day after it and its node are gone.
#[utoipa::path(
    get,
    path = "/v1/pods/{id}/logs",
    tag = "pods",
    params(
        ("id" = String, Path, description = "The pod"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines, until the pod has ended"),
        ("tail" = Option<u32>, Query, minimum = 0, maximum = 1_000_000, description = "Only the last lines; all where none is said"),
        ("since" = Option<String>, Query, description = "Only lines that are no older: a duration such as `10m`, or a time such as `2026-11-20T10:00:00Z`"),
        ("timestamps" = Option<bool>, Query, description = "As text: begin each line with its time"),
    ),
    responses(
        (status = 200, description = "The lines", content((LogItem = "application/x-ndjson"), (String = "text/plain"))),
        Problems, AbsentProblem,
    ),
)]
pub(super) async fn pod_logs(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["follow", "tail", "since", "timestamps"]);
    let query = Query::read(&mut parameters, &headers, false);
    let id = pod_id_of(&id, parameters)?;
    let get = async || app.store.pods().get(&id).await;
    if attempt(Effect::Reads, get).await?.value.is_none() {
        let kept = async || app.store.kept_logs(&id).await;
        if attempt(Effect::Reads, kept).await?.value.is_none() {
            return Err(absent(&id));
        }
    }
    answer(app, Target::Pod(id), query).await
}

/// Read the logs of a service's pods
///
/// Lines of all its pods, each with its pod: what is there in the order of time, then as they come.
/// Pods that appear meanwhile join.
#[utoipa::path(
    get,
    path = "/v1/services/{name}/logs",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
        ("follow" = Option<bool>, Query, description = "Go on with new lines, until the service is deleted"),
        ("tail" = Option<u32>, Query, minimum = 0, maximum = 1_000_000, description = "Only the last lines of each pod; all where none is said"),
        ("since" = Option<String>, Query, description = "Only lines that are no older: a duration such as `10m`, or a time such as `2026-11-20T10:00:00Z`"),
        ("timestamps" = Option<bool>, Query, description = "As text: begin each line with its time"),
    ),
    responses(
        (status = 200, description = "The lines", content((LogItem = "application/x-ndjson"), (String = "text/plain"))),
        Problems, AbsentProblem,
    ),
)]
pub(super) async fn service_logs(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let known = ["namespace", "follow", "tail", "since", "timestamps"];
    let mut parameters = Parameters::read(&uri, &known);
    let query = Query::read(&mut parameters, &headers, true);
    let key: ServiceKey = service_key_of(&name, parameters)?;
    services::must_be_there(&app, &key).await?;
    answer(app, Target::Service(key), query).await
}

/// What is wanted of the logs, and how.
struct Query {
    wish: LogWish,
    render: Render,
}

impl Query {
    fn read(parameters: &mut Parameters, headers: &HeaderMap, shows_pods: bool) -> Query {
        let follow = parameters.flag("follow");
        let rule = format!("a whole number from 0 to {TAIL_MAX}");
        let tail = parameters.get("tail", &rule, |text| {
            text.parse().ok().filter(|tail| *tail <= TAIL_MAX)
        });
        let since = parameters.get("since", SINCE_RULE, since);
        let timestamps = parameters.flag("timestamps");
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let is_text = accept.is_some_and(|accept| accept.trim_start().starts_with("text/plain"));
        let render = match (is_text, shows_pods) {
            (false, _) => Render::Json,
            (true, shows_pods) => Render::Text {
                shows_pods,
                timestamps,
            },
        };
        let wish = LogWish {
            follow,
            tail,
            since,
        };
        Query { wish, render }
    }
}

fn since(text: &str) -> Option<Since> {
    if let Ok(ago) = parse_duration(text) {
        let ms = u64::try_from(ago.as_millis()).ok();
        return ms.filter(|_| ago <= SINCE_MAX).map(Since::AgoMs);
    }
    let time: SystemTime = parse_rfc3339(text).ok()?;
    // Behind the moment before it: the time itself is wanted.
    let before = time.checked_sub(Duration::from_nanos(1))?;
    before.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Since::After(format_rfc3339_nanos(before).to_string()))
}

/// An answer whose body a task writes.
async fn answer(app: App, target: Target, query: Query) -> Result<Response, Problem> {
    let seat = app.seats.take()?;
    let listener = listen(&app, WAIT).await?;
    let (pieces, receiver) = mpsc::channel::<Bytes>(PIECES_MAX);
    let content_type = match query.render {
        Render::Json => NDJSON,
        Render::Text { .. } => TEXT,
    };
    let follower = Follower::new(
        app.clone(),
        target,
        query.wish,
        query.render,
        listener,
        pieces,
    );
    let task = async move {
        Box::pin(follower.run()).await;
        drop(seat);
    };
    app.seats.tasks.spawn(task.in_current_span());
    let body = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), receiver))
    });
    let mut response = Body::from_stream(body).into_response();
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(since("10m"), Some(Since::AgoMs(600_000)));
        assert_eq!(since("0s"), Some(Since::AgoMs(0)));
        let before = "2026-11-20T09:59:59.999999999Z".to_owned();
        assert_eq!(since("2026-11-20T10:00:00Z"), Some(Since::After(before)));
        for bad in [
            "",
            "yesterday",
            "10",
            "-5m",
            "11years",
            "1960-01-01T00:00:00Z",
        ] {
            assert_eq!(since(bad), None, "{bad}");
        }
    }
}
