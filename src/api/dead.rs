//! `/v1/dead`: entries that nobody could understand or run; they are looked at, pushed again, or dropped.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{DeadPage, Requeued, answer};
use super::attempt::{Effect, attempt};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::schema::{AbsentProblem, ConflictProblem, FullProblem, Problems};
use crate::model::{EntryId, Violation};
use crate::store::{DeadLetter, RequeueOutcome};

/// Most dead letters there are.
const DEAD_MAX: usize = 1000;
const ID_RULE: &str = "the id of a dead letter, such as 1795160000000-7";

/// List dead letters
///
/// Newest first. The newest 1,000 are kept; `dropped` says how many gave way. Entries are shortened to 4 KiB and
/// shown without secrets.
#[utoipa::path(
    get,
    path = "/v1/dead",
    tag = "queue",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items, 100 where none is said"),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses((status = 200, description = "A page of dead letters", body = DeadPage), Problems),
)]
pub(super) async fn list_dead(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["limit", "cursor"]);
    let limit = parameters.limit();
    let after = parameters.cursor(|text| is_id(text).then(|| text.to_owned()));
    parameters.check()?;
    let most = if after.is_some() { DEAD_MAX } else { limit + 1 };
    let read = async || app.store.dead(most).await;
    let dead = attempt(Effect::Reads, read).await?.value;
    let mut letters = dead.letters;
    if let Some(after) = after {
        // Letters that came meanwhile stand before it; should it be gone, the older ones are those below its number.
        let number = number_of(&after);
        letters.retain(|letter| number_of(&letter.id) < number);
    }
    let more = letters.len() > limit;
    letters.truncate(limit);
    let last = letters.last().filter(|last| more && !last.id.is_empty());
    let page = DeadPage {
        cursor: last.map(|last| last.id.clone()),
        items: letters,
        count: dead.count,
        dropped: dead.dropped,
    };
    Ok(answer(StatusCode::OK, page))
}

/// Read a dead letter
#[utoipa::path(
    get,
    path = "/v1/dead/{id}",
    tag = "queue",
    params(("id" = String, Path, description = "The dead letter")),
    responses((status = 200, description = "The letter", body = DeadLetter), Problems, AbsentProblem),
)]
pub(super) async fn get_dead(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    check(&id, &uri)?;
    let letter = read(&app, &id).await?.ok_or_else(|| absent(&id))?;
    Ok(answer(StatusCode::OK, letter))
}

/// Push the entry of a dead letter again
///
/// Once more, as it was, where it came from: the queue, or a node's list. The letter is forgotten; should the entry
/// still be wrong, another one tells so.
#[utoipa::path(
    post,
    path = "/v1/dead/{id}/requeue",
    tag = "queue",
    params(("id" = String, Path, description = "The dead letter")),
    responses((status = 200, description = "Where its entry lies now", body = Requeued), Problems, AbsentProblem, ConflictProblem, FullProblem),
)]
pub(super) async fn requeue_dead(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    check(&id, &uri)?;
    if !app.memory.has_room() {
        return Err(app.memory.problem());
    }
    let requeue = async || app.store.requeue_dead(&id).await;
    let done = attempt(Effect::Changes, requeue).await?;
    let cut = |why: &str| Err(Problem::new(Kind::DeadLetterCut, format!("{id}: {why}")));
    let r#where = match done.value {
        RequeueOutcome::Requeued(list) => Some(list),
        // Absent after a first try that got no answer: that try did it.
        RequeueOutcome::Gone if done.repeated => None,
        RequeueOutcome::Gone => return Err(absent(&id)),
        RequeueOutcome::Cut => {
            return cut(
                "its entry was longer than 16 KiB, which is not kept: push it again yourself",
            );
        }
        RequeueOutcome::OfKey => {
            return cut(
                "it tells of a key that was moved away, and has no entry: look at that key, or drop it",
            );
        }
        RequeueOutcome::Nowhere(node) => {
            return cut(&format!("it was pushed to node {node}, which is no more"));
        }
    };
    tracing::info!(letter = id, "dead letter pushed again by a user");
    Ok(answer(StatusCode::OK, Requeued { id, r#where }))
}

/// Drop a dead letter
///
/// It is forgotten, and so is the key that it tells of, if it does.
#[utoipa::path(
    delete,
    path = "/v1/dead/{id}",
    tag = "queue",
    params(("id" = String, Path, description = "The dead letter")),
    responses((status = 200, description = "The letter as it was", body = DeadLetter), Problems, AbsentProblem),
)]
pub(super) async fn drop_dead(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    check(&id, &uri)?;
    let letter = read(&app, &id).await?.ok_or_else(|| absent(&id))?;
    let drop = async || app.store.drop_dead(&id).await;
    attempt(Effect::Changes, drop).await?;
    tracing::info!(letter = id, "dead letter dropped by a user");
    Ok(answer(StatusCode::OK, letter))
}

async fn read(app: &App, id: &str) -> Result<Option<DeadLetter>, Problem> {
    let read = async || app.store.dead_letters(DEAD_MAX).await;
    let letters = attempt(Effect::Reads, read).await?.value;
    Ok(letters.into_iter().find(|letter| letter.id == id))
}

fn check(id: &str, uri: &Uri) -> Result<(), Problem> {
    let mut parameters = Parameters::read(uri, &[]);
    if !is_id(id) {
        parameters.refuse(Violation::new("id", id, ID_RULE));
    }
    parameters.check()
}

/// Ids are a time and a number that grows, as those of Redis's streams.
fn is_id(text: &str) -> bool {
    EntryId::parse(text).is_some()
}

fn number_of(id: &str) -> u64 {
    EntryId::parse(id).map_or(0, |id| id.seq)
}

fn absent(id: &str) -> Problem {
    let detail = format!("there is no dead letter {id}; GET /v1/dead lists them");
    Problem::new(Kind::DeadLetterNotFound, detail)
}
