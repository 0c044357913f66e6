//! Sessions with agents, as requests of users need them: how many there are, and how they are opened.
//!
//! Each user's request that listens has a seat here, which is a connection to Redis of its own. What
//! runs for it is ended with the API, and ends its sessions whatever ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use super::problem::{Kind, Problem};
use crate::model::NodeRequest;
use crate::store::{Listener, OpenOutcome, SessionId, Store, StoreError};
use crate::telemetry;

/// Most requests that listen at once, each with a connection to Redis.
const SEATS_MAX: usize = 256;
/// Longest time for an agent to take a request in hand.
pub(super) const TAKE_LIMIT: Duration = Duration::from_secs(5);
/// Longest time to end sessions; else they run out by themselves.
const END_LIMIT: Duration = Duration::from_secs(2);
/// What is said where Redis was lost while a session was open.
pub(super) const STORE_LOST: &str = "Redis was lost on the way: ask again";

/// What is said of an error of Redis in the middle of a session.
pub(super) fn lost(error: &StoreError) -> &'static str {
    if error.is_full() {
        return "Redis has reached its memory limit: delete services, or raise maxmemory";
    }
    STORE_LOST
}

/// What is said where the API ends while a session is open.
pub(super) const API_ENDS: &str = "the API is ending: ask again";

/// Seats for requests that listen.
#[derive(Clone)]
pub(super) struct Seats {
    free: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) ends: CancellationToken,
}

/// A seat, given back on drop.
pub(super) struct Seat(#[expect(dead_code, reason = "held, not used")] OwnedSemaphorePermit);

impl Seats {
    pub(super) fn new(ends: CancellationToken) -> Seats {
        Seats {
            free: Arc::new(Semaphore::new(SEATS_MAX)),
            tasks: TaskTracker::new(),
            ends,
        }
    }

    /// Waits until all that listened has ended its sessions.
    pub(super) async fn drain(&self) {
        self.tasks.close();
        // What is left runs out by itself.
        let _ = tokio::time::timeout(END_LIMIT, self.tasks.wait()).await;
    }

    /// A seat, if one is free.
    pub(super) fn take(&self) -> Result<Seat, Problem> {
        let taken = self.free.clone().try_acquire_owned().map(Seat);
        taken.map_err(|_| {
            let detail = format!("{SEATS_MAX} requests for logs, commands and stats are open here, which is the most: try again later, or ask another API");
            Problem::new(Kind::TooManyReaders, detail)
        })
    }
}

/// The ear of a request.
pub(super) async fn listen(app: &App, longest: Duration) -> Result<Listener, Problem> {
    app.store.sessions().listen(longest).await.map_err(|error| {
        tracing::warn!(
            error = telemetry::chain(&error),
            "no connection to listen by"
        );
        let detail = "Redis is away or failing over; try again";
        Problem::new(Kind::StoreUnavailable, detail)
    })
}

/// What became of asking an agent.
pub(super) enum Asked {
    /// It is asked, in this session.
    Opened(SessionId),
    /// It cannot be asked, and this is why.
    Refused(String),
}

/// Asks the agent of a node.
pub(super) async fn ask(app: &App, node: &str, request: &NodeRequest) -> Result<Asked, StoreError> {
    let session = SessionId::with(node);
    let sessions = app.store.sessions();
    let refused = match sessions.open(&session, node, request, app.lease).await? {
        OpenOutcome::Opened => return Ok(Asked::Opened(session)),
        OpenOutcome::Unknown => format!("node {node} is gone"),
        OpenOutcome::Lost { age } => {
            format!("node {node} is down: not heard for {}s", age.as_secs())
        }
        OpenOutcome::EngineDown => {
            format!("the engine of node {node} does not answer, or its agent has ended")
        }
        OpenOutcome::Busy { sessions_max } => {
            format!(
                "node {node} has {sessions_max} open sessions, which is the most: try again later"
            )
        }
    };
    Ok(Asked::Refused(refused))
}

/// What is said of a node whose agent took nothing in hand.
pub(super) fn not_taken(node: &str) -> String {
    format!("node {node} did not answer within {TAKE_LIMIT:?}")
}

/// What is said of a node that was heard no more while a session was open.
pub(super) fn silent(node: &str) -> String {
    format!("node {node} is not heard any more")
}

/// Ends sessions, in bounded time.
pub(super) async fn end(store: &Store, sessions: &[SessionId]) {
    if sessions.is_empty() {
        return;
    }
    let port = store.sessions();
    match tokio::time::timeout(END_LIMIT, port.end(sessions)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                error = telemetry::chain(&error),
                "sessions end by themselves"
            );
        }
        Err(_) => tracing::warn!("sessions end by themselves: Redis does not answer"),
    }
}
