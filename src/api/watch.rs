//! `/v1/watch`: services, pods and nodes as they are, then each as it changes.
//!
//! An event only says what to look at: what is sent is the object as it stands then, so a burst of
//! events of one object is one message. The position is taken before the snapshot is read, so nothing
//! that changes meanwhile is missed.

mod changes;
mod snapshot;

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::App;
use super::answer::Reset;
use super::events::last_event_id;
use super::problem::Problem;
use super::query::Parameters;
use super::schema::{Problems, StreamMessage};
use super::sse::{self, BEAT, Frames, Gone, Out, patiently};
use super::tail::{Followed, Follower};
use crate::model::{Position, ServiceKey};
use changes::{changes, touched};

/// Objects read at once.
const OBJECTS_PER_READ: usize = 100;

/// What a watcher wants to see. An object that has not what is asked for, such as a service where a
/// node is named, is not wanted.
struct Wanted {
    kinds: Kinds,
    namespace: Option<String>,
    service: Option<ServiceKey>,
    node: Option<String>,
}

/// The kinds of objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kinds {
    services: bool,
    pods: bool,
    nodes: bool,
}

impl Kinds {
    const RULE: &str = "one or more of services, pods, nodes, with commas between";

    fn parse(text: &str) -> Option<Kinds> {
        let mut kinds = Kinds {
            services: false,
            pods: false,
            nodes: false,
        };
        for word in text.split(',') {
            match word {
                "services" => kinds.services = true,
                "pods" => kinds.pods = true,
                "nodes" => kinds.nodes = true,
                _ => return None,
            }
        }
        Some(kinds)
    }
}

/// Watch services, pods and nodes
///
/// First `snapshot` events, each with some `items` of a `kind`, and `synced`; then `service`, `pod` and
/// `node` with what changed as it is now, and `deleted`. Who comes back with `Last-Event-ID` gets
/// only what changed since; where Redis does not know that position any more, `reset` says so and a
/// new snapshot follows.
#[utoipa::path(
    get,
    path = "/v1/watch",
    tag = "events",
    params(
        ("kind" = Option<String>, Query, description = "Only these: one or more of `services`, `pods` and `nodes`, with commas between"),
        ("service" = Option<String>, Query, description = "Only this service and its pods: its name, or `<namespace>/<name>`"),
        ("namespace" = Option<String>, Query, description = "Only services and pods of this namespace; for `service`, `default` where none is said"),
        ("node" = Option<String>, Query, description = "Only this node and pods on it"),
        ("Last-Event-ID" = Option<String>, Header, description = "The position to go on from"),
    ),
    responses(
        (status = 200, description = "A stream that goes on", body = StreamMessage, content_type = "text/event-stream"),
        Problems,
    ),
)]
pub(super) async fn watch(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["kind", "service", "namespace", "node"]);
    let kinds = parameters.get("kind", Kinds::RULE, Kinds::parse);
    let namespace = parameters.namespace();
    let wanted = Wanted {
        kinds: kinds.unwrap_or(Kinds {
            services: true,
            pods: true,
            nodes: true,
        }),
        service: parameters.service(namespace.as_deref()),
        namespace,
        node: parameters.node(),
    };
    let from = last_event_id(&headers, &mut parameters);
    parameters.check()?;
    let slot = app.tail.slot()?;
    let follower = app.tail.follow(slot, from.unwrap_or(Position::START));
    let shutdown = app.tail.shutdown();
    let produce = move |out| run(out, app, wanted, follower, from.is_none());
    Ok(sse::answer(shutdown, produce))
}

async fn run(
    out: Out,
    app: App,
    wanted: Wanted,
    mut follower: Follower,
    is_new: bool,
) -> Result<(), Gone> {
    let mut frames = Frames::default();
    if is_new {
        follower.go_to(snapshot::send(&out, &app, &wanted).await?);
    }
    loop {
        out.send(&mut frames).await?;
        match tokio::time::timeout(BEAT, follower.next()).await {
            Err(_) => frames.beat(follower.position()),
            Ok(Followed::Lost(lost)) => {
                // Without an id: whoever is cut off before `synced` needs the snapshot again.
                frames.event("reset", None, &Reset::from(lost));
                out.send(&mut frames).await?;
                follower.go_to(snapshot::send(&out, &app, &wanted).await?);
            }
            Ok(Followed::Events(events)) => {
                let touched = touched(&wanted, &events);
                for objects in touched.chunks(OBJECTS_PER_READ) {
                    let read = async || changes(&app, &wanted, objects).await;
                    frames = patiently(&out, read).await?;
                    out.send(&mut frames).await?;
                }
            }
        }
    }
}
