//! `/v1/events`: what happened, as a page or as a stream that goes on.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{EventPage, Reset, answer};
use super::attempt::{Effect, attempt};
use super::problem::Problem;
use super::query::Parameters;
use super::schema::{Problems, StreamMessage};
use super::sse::{self, BEAT, Frames, Gone, Out, patiently};
use super::tail::{Followed, Follower};
use crate::model::name::POD_ID_RULE;
use crate::model::{Event, EventFilter, PodId, Position, Violation};
use crate::store::{ReadOutcome, StoreError};

/// The header by which a client that comes back says how far it was.
pub(super) const LAST_EVENT_ID: &str = "last-event-id";
/// Longest kind that is asked for.
const KIND_MAX: usize = 40;
/// Bytes of frames sent at once.
const FRAMES_MAX: usize = 64 * 1024;

/// Read events, or follow them
///
/// A page holds the newest events, those up to `until`, or those behind `after`. With `Accept: text/event-stream` the
/// answer is a stream: an `event` for each that comes, from `Last-Event-ID` or `after` on, else only
/// new ones. Where Redis does not have what lay behind that position any more, `reset` says so, and
/// all goes on with the oldest that is kept. All filters that are given must hold.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(
        ("service" = Option<String>, Query, description = "Only those of this service and its pods: its name, or `<namespace>/<name>`"),
        ("namespace" = Option<String>, Query, description = "Only those of services of this namespace and their pods; for `service`, `default` where none is said"),
        ("pod" = Option<String>, Query, description = "Only those of this pod"),
        ("node" = Option<String>, Query, description = "Only those of this node and of pods on it"),
        ("kind" = Option<String>, Query, description = "Only those of this kind, such as `failed` or `node-lost`"),
        ("after" = Option<String>, Query, description = "Only those behind this position"),
        ("until" = Option<String>, Query, description = "Only those up to this position: the newest of them"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items on a page, 100 where none is said"),
        ("tail" = Option<u32>, Query, minimum = 0, maximum = 1000, description = "A stream without a position begins with so many of the last events"),
        ("Last-Event-ID" = Option<String>, Header, description = "A stream's position; goes before `after` and `tail`"),
    ),
    responses(
        (status = 200, description = "Events", content(
            (EventPage = "application/json"), (StreamMessage = "text/event-stream"),
        )),
        Problems,
    ),
)]
pub(super) async fn list_events(
    State(app): State<App>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let streams = sse::is_wanted(&headers);
    let mut known = vec!["service", "namespace", "pod", "node", "kind", "after"];
    known.extend(match streams {
        true => &["tail"][..],
        false => &["limit", "until"][..],
    });
    let mut parameters = Parameters::read(&uri, &known);
    let namespace = parameters.namespace();
    let filter = EventFilter {
        service: parameters.service(namespace.as_deref()),
        namespace,
        pod: parameters.get("pod", POD_ID_RULE, PodId::parse),
        node: parameters.node(),
        kind: parameters.get("kind", "a word such as failed or node-lost", kind),
    };
    let after = parameters.get("after", Position::RULE, Position::parse);
    // Where it is of no use it is judged all the same: rubbish is never taken for nothing.
    let came_back = last_event_id(&headers, &mut parameters);
    if streams {
        let tail = parameters.count("tail", 0).unwrap_or(0);
        parameters.check()?;
        return stream(app, filter, came_back.or(after), tail).await;
    }
    let limit = parameters.limit();
    let until = parameters.get("until", Position::RULE, Position::parse);
    if let (Some(until), true) = (until, after.is_some()) {
        parameters.refuse(Violation::new("until", until, "not together with after"));
    }
    parameters.check()?;
    let read = async || match after {
        Some(after) => page(&app, &filter, after, limit).await,
        None => last(&app, &filter, until, limit).await,
    };
    let page = attempt(Effect::Reads, read).await?.value;
    Ok(answer(StatusCode::OK, page))
}

fn kind(text: &str) -> Option<String> {
    let sound = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    (sound && (1..=KIND_MAX).contains(&text.len())).then(|| text.to_owned())
}

/// The position a client comes back with.
pub(super) fn last_event_id(headers: &HeaderMap, parameters: &mut Parameters) -> Option<Position> {
    let given = headers.get(LAST_EVENT_ID)?;
    let text = given.to_str().unwrap_or_default();
    let position = Position::parse(text);
    if position.is_none() && !given.is_empty() {
        parameters.refuse(Violation::new("Last-Event-ID", text, Position::RULE));
    }
    position
}

/// The newest events up to a position.
async fn last(
    app: &App,
    filter: &EventFilter,
    until: Option<Position>,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let events = app.store.events();
    let position = match until {
        Some(until) => until,
        None => events.newest().await?,
    };
    let page = events.last(filter, position, limit).await?;
    Ok(EventPage {
        items: page.events,
        position,
        more: until.is_some(),
        earlier: page.earlier,
        reset: None,
    })
}

/// The events behind a position.
async fn page(
    app: &App,
    filter: &EventFilter,
    after: Position,
    limit: usize,
) -> Result<EventPage, StoreError> {
    let events = app.store.events();
    let (mut from, mut reset) = (after, None);
    loop {
        match events.page(filter, from, limit).await? {
            ReadOutcome::Read(page) => {
                return Ok(EventPage {
                    items: page.events,
                    position: page.position,
                    more: page.more,
                    earlier: None,
                    reset,
                });
            }
            ReadOutcome::Lost(lost) => {
                from = lost.oldest;
                reset = Some(Reset::from(lost));
            }
        }
    }
}

async fn stream(
    app: App,
    filter: EventFilter,
    from: Option<Position>,
    tail: usize,
) -> Result<Response, Problem> {
    let slot = app.tail.slot()?;
    let newest = async || app.store.events().newest().await;
    let (from, tail) = match from {
        Some(from) => (from, 0),
        None => (attempt(Effect::Reads, newest).await?.value, tail),
    };
    let follower = app.tail.follow(slot, from);
    let shutdown = app.tail.shutdown();
    let produce = async move |out: Out| {
        let mut frames = Frames::default();
        for event in last_of_all(&out, &app, &filter, from, tail).await? {
            frames.event("event", Some(event.id), &event);
        }
        frames.beat(from);
        follow(out, frames, follower, filter).await
    };
    Ok(sse::answer(shutdown, produce))
}

/// The last events, however far back they are.
async fn last_of_all(
    out: &Out,
    app: &App,
    filter: &EventFilter,
    from: Position,
    count: usize,
) -> Result<Vec<Event>, Gone> {
    let mut found: Vec<Event> = Vec::new();
    let mut until = Some(from);
    while let Some(position) = until
        && found.len() < count
    {
        let left = count - found.len();
        let events = app.store.events();
        let read = async || events.last(filter, position, left).await;
        let page = patiently(out, read).await?;
        found.splice(..0, page.events);
        until = page.earlier;
    }
    Ok(found)
}

async fn follow(
    out: Out,
    mut frames: Frames,
    mut follower: Follower,
    filter: EventFilter,
) -> Result<(), Gone> {
    loop {
        out.send(&mut frames).await?;
        match tokio::time::timeout(BEAT, follower.next()).await {
            Err(_) => frames.beat(follower.position()),
            Ok(Followed::Lost(lost)) => {
                let oldest = lost.oldest;
                frames.event("reset", Some(oldest), &Reset::from(lost));
            }
            Ok(Followed::Events(events)) => {
                for event in events.iter().filter(|event| filter.matches(event)) {
                    frames.event("event", Some(event.id), event);
                    if frames.len() > FRAMES_MAX {
                        out.send(&mut frames).await?;
                    }
                }
            }
        }
    }
}
