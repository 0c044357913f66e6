//! `/v1/queue`: how much waits where, and what could not be understood.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{QueueStatus, answer};
use super::attempt::{Effect, attempt};
use super::problem::Problem;
use super::query::Parameters;
use super::schema::Problems;
use crate::store::StoreError;

/// Dead letters shown: enough to see what goes wrong, at most 4 KiB each.
const DEAD_LETTERS_SHOWN: usize = 20;

/// Look at the queue
///
/// Depths by priority, claims of schedulers, parked pods, and the newest dead letters.
#[utoipa::path(
    get,
    path = "/v1/queue",
    tag = "queue",
    responses((status = 200, description = "The queue", body = QueueStatus), Problems),
)]
pub(super) async fn get_queue(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    Parameters::read(&uri, &[]).check()?;
    let read = async || -> Result<QueueStatus, StoreError> {
        let dead = app.store.dead(DEAD_LETTERS_SHOWN).await?;
        Ok(QueueStatus {
            depths: app.store.queue().depths().await?,
            dead_dropped: dead.dropped,
            dead_letters: dead.letters,
        })
    };
    let status = attempt(Effect::Reads, read).await?.value;
    Ok(answer(StatusCode::OK, status))
}
