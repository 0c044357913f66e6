//! Workers: one for each pod that needs a look, which takes it in hand and brings it to its state.
//!
//! `table` holds what the engine is known to have; it may be old, since every engine call is
//! idempotent and the comparison corrects it. `steps` speaks to the engine, `reports` to Redis. A
//! pod has at most one worker at a time: who finds one at work leaves word to look again.

mod reports;
mod steps;
mod table;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::calls::{self, Calls};
use super::lease::Lease;
use super::reconcile::{Step, next_step};
use super::requests::KeptContainers;
use crate::container::{Container, Runtime, RuntimeError};
use crate::model::{Phase, PodId};
use crate::process::failpoint;
use crate::settings::AgentSettings;
use crate::store::backoff::Backoff;
use crate::store::{ReportOutcome, Store, Taken};
use crate::telemetry::chain;
use steps::Pull;
pub(super) use table::Entry;
use table::Table;

/// Containers stopped at once: a stop is mostly waiting for its grace.
const STOPS_MAX: usize = 32;
/// What an agent works with.
pub(super) struct Parts {
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) store: Store,
    pub(super) runtime: Runtime,
    pub(super) settings: AgentSettings,
    pub(super) ends: CancellationToken,
}

/// The pods of one node, in hand and not.
pub(super) struct Workers {
    parts: Parts,
    pub(super) lease: Lease,
    epoch: AtomicU64,
    calls: Calls,
    table: Table,
    starts: Semaphore,
    stops: Semaphore,
    pulls: Arc<Mutex<HashMap<String, Pull>>>,
    kept: KeptContainers,
    tasks: TaskTracker,
    superseded: CancellationToken,
    /// Wakes the comparison.
    pub(super) compare: Notify,
    /// Set once everything was compared: before that, nobody knows what the engine has.
    pub(super) compared: CancellationToken,
    /// Told when a call to the engine found no answer.
    pub(super) engine_trouble: Notify,
    /// Whether the engine answers.
    pub(super) engine_up: watch::Sender<bool>,
}

/// Why a pod could not be brought to its state now.
enum Trouble {
    /// The engine does not answer.
    Engine(RuntimeError),
    /// The agent ends.
    Ends,
}

/// What a failed step means.
enum Failed {
    /// The engine said no: the pod's failure.
    Pod(String),
    /// Look again from the start.
    Again,
    Trouble(Trouble),
}

impl Workers {
    /// Starts the tasks that make the workers' calls.
    pub(super) fn start(parts: Parts) -> Arc<Workers> {
        let (calls, requests) = calls::channel();
        let workers = Arc::new(Workers {
            lease: Lease::new(),
            epoch: AtomicU64::new(0),
            calls,
            table: Table::default(),
            starts: Semaphore::new(parts.settings.concurrency),
            stops: Semaphore::new(STOPS_MAX),
            pulls: Arc::default(),
            kept: KeptContainers::default(),
            tasks: TaskTracker::new(),
            superseded: CancellationToken::new(),
            compare: Notify::new(),
            compared: CancellationToken::new(),
            engine_trouble: Notify::new(),
            engine_up: watch::Sender::new(true),
            parts,
        });
        calls::serve(&workers, requests);
        workers
    }

    pub(super) fn node(&self) -> &str {
        &self.parts.node
    }

    pub(super) fn cluster(&self) -> &str {
        &self.parts.cluster
    }

    pub(super) fn store(&self) -> &Store {
        &self.parts.store
    }

    pub(super) fn ends(&self) -> &CancellationToken {
        &self.parts.ends
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.parts.runtime
    }

    pub(super) fn settings(&self) -> &AgentSettings {
        &self.parts.settings
    }

    pub(super) fn kept(&self) -> &KeptContainers {
        &self.kept
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Another agent counts now.
    pub(super) fn supersede(&self) {
        self.superseded.cancel();
    }

    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.is_cancelled()
    }

    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// Waits for the workers, at most `longest`.
    pub(super) async fn drain(&self, longest: Duration) {
        self.tasks.close();
        if tokio::time::timeout(longest, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.tasks.len(),
                "work in hand is left for the next start"
            );
        }
    }

    /// Pods that have a container.
    pub(super) fn pods_with_container(&self) -> Vec<PodId> {
        self.table.with_container()
    }

    /// A pod's container, if it has one.
    pub(super) fn container(&self, pod: &PodId) -> Option<Container> {
        self.table.container(pod)
    }

    /// Takes over what the engine listed.
    pub(super) fn know(&self, containers: Vec<Container>) {
        self.table.know(containers);
    }

    /// The engine told of a change to a pod's container.
    pub(super) fn changed(self: &Arc<Self>, pod: PodId) {
        self.look_at(pod, None, true);
    }

    /// Has a pod looked at; `entry` is dropped when it is done.
    pub(super) fn look(self: &Arc<Self>, pod: PodId, entry: Option<Entry>) {
        self.look_at(pod, entry, false);
    }

    fn look_at(self: &Arc<Self>, pod: PodId, entry: Option<Entry>, changed: bool) {
        if !self.table.wants_worker(&pod, entry, changed) {
            return;
        }
        let workers = self.clone();
        self.tasks.spawn(async move { workers.work(pod).await });
    }

    /// Works on a pod until all is as wanted and nobody wants another look.
    async fn work(self: Arc<Self>, pod: PodId) {
        let mut backoff = Backoff::new();
        loop {
            let trouble = tokio::select! {
                done = self.bring(&pod) => done.err(),
                () = self.parts.ends.cancelled() => Some(Trouble::Ends),
            };
            match trouble {
                None => {}
                Some(Trouble::Ends) => return,
                Some(Trouble::Engine(error)) => {
                    tracing::warn!(pod.id = %pod, error = chain(&error), "the engine does not answer, trying again");
                    self.engine_trouble.notify_one();
                    backoff.wait(&self.parts.ends).await;
                    continue;
                }
            }
            if self.table.let_go(&pod) {
                return;
            }
        }
    }

    /// Takes a pod in hand and steps until all is as wanted.
    async fn bring(&self, pod: &PodId) -> Result<(), Trouble> {
        loop {
            self.inspect_changed(pod).await?;
            let term = self.lease.term(); // before asking: what is answered holds in it, if it lasts
            let wanted = self.calls.take(pod).await.ok_or(Trouble::Ends)?;
            failpoint("agent.after_take");
            match self.steps(pod, &wanted, term).await {
                Ok(()) => return Ok(()),
                Err(Failed::Again) => {}
                Err(Failed::Trouble(trouble)) => return Err(trouble),
                Err(Failed::Pod(reason)) => {
                    tracing::warn!(pod.id = %pod, node.id = self.node(), reason, "pod failed");
                    if let Taken::Run(run) = &wanted {
                        self.report(pod, run.token.clone(), Some(Phase::Failed), reason, None)
                            .await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn steps(&self, pod: &PodId, wanted: &Taken, term: u64) -> Result<(), Failed> {
        loop {
            let container = self.table.container(pod);
            let step = next_step(wanted, container.as_ref());
            let id = container.as_ref().map_or("", |known| known.id.as_str());
            tracing::debug!(pod.id = %pod, container.id = id, ?step, "next step");
            match (step, wanted, container) {
                (Step::Create, Taken::Run(run), _) => Box::pin(self.create(pod, run)).await?,
                (Step::Start, _, Some(container)) => {
                    self.start_container(pod, container, term).await?;
                }
                (Step::Stop { superseded }, _, Some(container)) => {
                    self.stop(pod, &container, superseded).await?;
                }
                (Step::Remove, _, Some(container)) => self.remove(pod, &container).await?,
                (
                    Step::Report {
                        token,
                        phase,
                        reason,
                        exit_code,
                    },
                    _,
                    container,
                ) => {
                    tracing::info!(pod.id = %pod, node.id = self.node(), reason, "pod is {phase}");
                    if let Some(ended) = container.filter(|_| phase.is_ended()) {
                        self.keep_logs(pod, &ended).await;
                    }
                    let outcome = self
                        .report(pod, token, Some(phase), reason, exit_code)
                        .await;
                    return match outcome.map_err(Failed::Trouble)? {
                        ReportOutcome::Stale => Err(Failed::Again),
                        _ => Ok(()),
                    };
                }
                (Step::Done, Taken::Absent, None) => {
                    return self.bury_entries(pod).await.map_err(Failed::Trouble);
                }
                (Step::Done, ..) => return self.drop_entries(pod).await.map_err(Failed::Trouble),
                // next_step asks for a container's step only where there is one, and creates only
                // what is to run: there is nothing else.
                _ => return Ok(()),
            }
        }
    }
}
