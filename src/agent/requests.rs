//! Requests: what the API asks of this node's containers (logs, commands, use), answered in sessions.
//!
//! The agent listens on no port: one connection waits in Redis for requests and for all that is said
//! in open sessions. Each session has a task, which ends when it is done, when the API ends it, when
//! the API is silent, or when Redis is lost; a session never survives its connection.

mod exec;
mod kept;
mod logs;
mod stats;
mod talk;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::worker::Workers;
use crate::model::NodeRequest;
use crate::store::backoff::Backoff;
use crate::store::{
    Frame, Heard, Kept, SESSION_KEEP, SessionId, SessionTakeOutcome, Side, StoreError,
};
use crate::telemetry::chain;
pub(super) use kept::KeptContainers;
pub(super) use stats::Samples;
use talk::{Ear, Mouth, Other, Over, talk};

/// Longest wait of one question. Reading takes nothing away, so unlike the inbox's pop it may be
/// long: an idle agent asks six times a minute.
const WAIT: Duration = Duration::from_secs(10);
/// Longest wait for sessions to end with the agent: commands are told to.
const DRAIN: Duration = Duration::from_secs(3);

/// The sessions that are open.
#[derive(Default)]
struct Open(Mutex<HashMap<SessionId, Other>>);

impl Open {
    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Other>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, session: &SessionId) {
        if let Some(other) = self.sessions().get(session) {
            other.end();
        }
    }

    fn end_all(&self) {
        for other in self.sessions().values() {
            other.end();
        }
    }
}

/// Answers requests until `ends`.
pub(super) async fn run(workers: &Arc<Workers>, ends: &CancellationToken) {
    // Before that nobody knows which pods have a container here.
    tokio::select! {
        () = workers.compared.cancelled() => {}
        () = ends.cancelled() => return,
    }
    let open = Arc::new(Open::default());
    let samples = Arc::new(Samples::default());
    let tasks = TaskTracker::new();
    let mut backoff = Backoff::new();
    while !ends.is_cancelled() {
        let served = tokio::select! {
            served = serve(workers, &open, &samples, &tasks, &mut backoff) => served,
            never = keep(workers, &open) => match never {},
            () = ends.cancelled() => break,
        };
        open.end_all();
        if let Err(error) = served {
            tracing::warn!(
                error = chain(&error),
                "reading requests failed, trying again"
            );
            backoff.wait(ends).await;
        }
    }
    open.end_all();
    tasks.close();
    // What is left is cut off with the agent.
    let _ = tokio::time::timeout(DRAIN, tasks.wait()).await;
}

/// Hears requests and what is said in sessions, until the connection fails.
async fn serve(
    workers: &Arc<Workers>,
    open: &Arc<Open>,
    samples: &Arc<Samples>,
    tasks: &TaskTracker,
    backoff: &mut Backoff,
) -> Result<(), StoreError> {
    let sessions = workers.store().sessions();
    let mut listener = sessions.listen_at(workers.node(), WAIT).await?;
    loop {
        {
            let open = open.sessions();
            listener.retain(|id| open.contains_key(id));
        }
        let heard = listener.hear(WAIT).await?;
        backoff.reset();
        for heard in heard {
            match heard {
                Heard::Request(id, request) => {
                    listener.add(id.clone());
                    let (other, ear, mut mouth) = talk(workers.store(), &id, workers.ends());
                    open.sessions().insert(id.clone(), other);
                    let (workers, open, samples) = (workers.clone(), open.clone(), samples.clone());
                    tasks.spawn(async move {
                        Box::pin(answer(&workers, &samples, &id, request, ear, &mut mouth)).await;
                        open.sessions().remove(&id);
                    });
                }
                Heard::Over(id) => open.end(&id),
                Heard::Said(id, entry, frame) => {
                    if let Some(other) = open.sessions().get(&id) {
                        other.pass(entry, frame);
                    }
                }
            }
        }
    }
}

/// Renews the sessions, and ends those that the API left. Cancel-safe.
async fn keep(workers: &Arc<Workers>, open: &Open) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(SESSION_KEEP).await;
        let ids: Vec<SessionId> = open.sessions().keys().cloned().collect();
        if ids.is_empty() {
            continue;
        }
        match workers.store().sessions().keep(Side::Agent, &ids).await {
            Ok(found) => {
                let pairs = ids.iter().zip(found);
                for (id, _) in pairs.filter(|(_, kept)| *kept != Kept::Ok) {
                    open.end(id);
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "renewing sessions failed"),
        }
    }
}

/// Takes a session and answers it.
async fn answer(
    workers: &Arc<Workers>,
    samples: &Samples,
    id: &SessionId,
    request: Option<NodeRequest>,
    ear: Ear,
    mouth: &mut Mouth,
) {
    match workers.store().sessions().take(id, workers.node()).await {
        Ok(SessionTakeOutcome::Taken) => {}
        Ok(SessionTakeOutcome::Gone | SessionTakeOutcome::Stale) => return,
        Err(error) => {
            tracing::warn!(session = %id, error = chain(&error), "taking a request failed");
            return;
        }
    }
    let done = match request {
        Some(NodeRequest::Logs {
            pod,
            wish,
            unread_max,
        }) => {
            tracing::info!(session = %id, pod.id = %pod, "log is read");
            mouth.keep_unread_below(unread_max);
            logs::answer(workers, ear, mouth, &pod, wish).await
        }
        // Nothing says who asks: whoever can write to Redis could run anything that way.
        Some(NodeRequest::Exec { .. }) if workers.trust().is_required() => {
            let node = workers.node();
            let why = format!(
                "node {node} runs no commands in containers: it starts only what is signed (agent.require_signed), and a command is not"
            );
            Ok(Frame::Error(why))
        }
        Some(NodeRequest::Exec { pod, wish }) => {
            tracing::info!(session = %id, pod.id = %pod, "command is run");
            exec::answer(workers, ear, mouth, &pod, wish).await
        }
        Some(NodeRequest::Stats { pods }) => stats::answer(workers, samples, mouth, pods).await,
        None => {
            let version = env!("CARGO_PKG_VERSION");
            let why = format!(
                "its agent is of version {version}, which does not know this request: upgrade it"
            );
            Ok(Frame::Error(why))
        }
    };
    let ended = match done {
        Ok(last) => mouth.say(last).await,
        Err(over) => Err(over),
    };
    if let Err(Over) = ended {
        tracing::debug!(session = %id, "session ended early");
    }
}
