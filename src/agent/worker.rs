//! Workers: one for each pod that needs a look, which takes it in hand and brings it to its state.
//!
//! The table holds what the engine is known to have; it may be old, since every engine call is
//! idempotent and the comparison corrects it. A pod has at most one worker at a time: who finds
//! one at work leaves word to look again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::calls::{self, Calls};
use super::lease::Lease;
use super::reconcile::{SUPERSEDED_GRACE, Step, next_step};
use crate::container::{Container, ContainerSpec, ContainerState, Runtime, RuntimeError};
use crate::model::{Owner, Phase, PodId, ServiceSpec, Token};
use crate::process::failpoint;
use crate::settings::AgentSettings;
use crate::store::backoff::Backoff;
use crate::store::{From, Report, ReportOutcome, Store, Taken, ToRun};
use crate::telemetry::chain;

/// Containers stopped at once: a stop is mostly waiting for its grace.
const STOPS_MAX: usize = 32;
/// Tries of a pull whose failure may pass.
const PULL_TRIES: usize = 3;

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
    table: Mutex<HashMap<PodId, Slot>>,
    starts: Semaphore,
    stops: Semaphore,
    pulls: Mutex<HashMap<String, Pull>>,
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

/// A pull under way: its result, for all pods that wait for it.
type Pull = Arc<OnceCell<Result<(), Arc<RuntimeError>>>>;

/// What is known of one pod.
#[derive(Default)]
struct Slot {
    container: Option<Container>,
    /// The engine told of a change: the container is to be inspected.
    changed: bool,
    /// A worker has the pod in hand.
    busy: bool,
    /// Someone wants another look when that worker is done.
    again: bool,
    entries: Vec<Entry>,
}

/// An inbox entry, to be dropped when the pod is done; holds its place among those in hand.
pub(super) struct Entry {
    pub(super) bytes: Vec<u8>,
    pub(super) _place: Option<OwnedSemaphorePermit>,
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
            table: Mutex::default(),
            starts: Semaphore::new(parts.settings.concurrency),
            stops: Semaphore::new(STOPS_MAX),
            pulls: Mutex::default(),
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
        let table = self.table();
        let with = table.iter().filter(|(_, slot)| slot.container.is_some());
        with.map(|(pod, _)| pod.clone()).collect()
    }

    /// Takes over what the engine listed: for pods that no worker has in hand, it is the truth.
    pub(super) fn know(&self, containers: Vec<Container>) {
        let mut table = self.table();
        for slot in table.values_mut().filter(|slot| !slot.busy) {
            slot.container = None;
        }
        for container in containers {
            let slot = table.entry(container.pod.clone()).or_default();
            if !slot.busy {
                slot.container = Some(container);
            }
        }
        table.retain(|_, slot| slot.busy || slot.container.is_some());
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
        let mut table = self.table();
        let slot = table.entry(pod.clone()).or_default();
        slot.entries.extend(entry);
        slot.changed |= changed;
        if slot.busy {
            slot.again = true;
            return;
        }
        slot.busy = true;
        drop(table);
        let workers = self.clone();
        self.tasks.spawn(async move { workers.work(pod).await });
    }

    fn table(&self) -> MutexGuard<'_, HashMap<PodId, Slot>> {
        self.table
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
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
            let mut table = self.table();
            let Some(slot) = table.get_mut(&pod) else {
                return;
            };
            if std::mem::take(&mut slot.again) {
                continue;
            }
            slot.busy = false;
            if slot.container.is_none() {
                table.remove(&pod);
            }
            return;
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
                    tracing::warn!(pod.id = %pod, reason, "pod failed");
                    if let Taken::Run(run) = &wanted {
                        self.report(pod, run.token.clone(), Some(Phase::Failed), reason, None)
                            .await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn inspect_changed(&self, pod: &PodId) -> Result<(), Trouble> {
        let known = {
            let mut table = self.table();
            let slot = table.entry(pod.clone()).or_default();
            match (std::mem::take(&mut slot.changed), &slot.container) {
                (true, Some(container)) => container.id.clone(),
                _ => return Ok(()),
            }
        };
        let container = self
            .runtime()
            .inspect(&known)
            .await
            .map_err(Trouble::Engine)?;
        self.set_container(pod, container);
        Ok(())
    }

    async fn steps(&self, pod: &PodId, wanted: &Taken, term: u64) -> Result<(), Failed> {
        loop {
            let container = self.container(pod);
            let step = next_step(wanted, container.as_ref());
            let span = container
                .as_ref()
                .map_or("", |container| container.id.as_str());
            tracing::debug!(pod.id = %pod, container.id = span, ?step, "next step");
            match (step, wanted, container) {
                (Step::Create, Taken::Run(run), _) => self.create(pod, run).await?,
                (Step::Start, _, Some(container)) => {
                    self.start_container(pod, container, term).await?;
                }
                (Step::Stop { superseded }, _, Some(container)) => {
                    let grace = if superseded {
                        SUPERSEDED_GRACE
                    } else {
                        self.parts.settings.stop_grace
                    };
                    let _permit = self.stops.acquire().await;
                    tracing::info!(pod.id = %pod, container.id = container.id, superseded, "stopping container");
                    self.runtime()
                        .stop(&container.id, grace)
                        .await
                        .map_err(failed)?;
                    let now = self
                        .runtime()
                        .inspect(&container.id)
                        .await
                        .map_err(failed)?;
                    self.set_container(pod, now);
                }
                (Step::Remove, _, Some(container)) => {
                    let _permit = self.stops.acquire().await;
                    self.runtime().remove(&container.id).await.map_err(failed)?;
                    self.set_container(pod, None);
                }
                (
                    Step::Report {
                        token,
                        phase,
                        reason,
                        exit_code,
                    },
                    ..,
                ) => {
                    tracing::info!(pod.id = %pod, phase = phase.as_str(), reason, "pod is {phase}");
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

    async fn create(&self, pod: &PodId, run: &ToRun) -> Result<(), Failed> {
        let spec: ServiceSpec = serde_json::from_str(&run.spec)
            .map_err(|error| Failed::Pod(format!("its stored spec cannot be read: {error}")))?;
        let service = match Owner::parse(&run.owner) {
            Some(Owner::Service(key)) => Some(key.to_string()),
            _ => None,
        };
        let image = spec.image.clone();
        let spec = ContainerSpec {
            node: self.node().to_owned(),
            cluster: self.cluster().to_owned(),
            pod: pod.clone(),
            token: run.token.clone(),
            replica: run.replica,
            spec,
            revision: run.revision,
            service,
        };
        let permit = self.starts.acquire().await;
        failpoint("agent.before_create");
        let created = self.runtime().create(&spec).await;
        match created {
            Ok(id) => {
                failpoint("agent.after_create");
                // Adopted ones may run already, or have ended.
                let container = self.runtime().inspect(&id).await.map_err(failed)?;
                self.set_container(pod, container);
                Ok(())
            }
            Err(RuntimeError::ImageMissing { .. }) => {
                drop(permit); // a pull must not delay other pods
                self.pull(pod, run, &image).await?;
                Err(Failed::Again) // a pull takes long: ask again whether the placement stands
            }
            Err(RuntimeError::Superseded { id, .. }) => {
                let older = self.runtime().inspect(&id).await.map_err(failed)?;
                self.set_container(pod, older);
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn start_container(
        &self,
        pod: &PodId,
        container: Container,
        term: u64,
    ) -> Result<(), Failed> {
        let _permit = self.starts.acquire().await;
        failpoint("agent.before_start");
        if !self.lease.is_held_since(term) {
            tracing::warn!(pod.id = %pod, "the node's lease ran out: asking again before the start");
            self.lease.held().await;
            return Err(Failed::Again); // the pod may be someone else's by now
        }
        match self.runtime().start(&container.id).await {
            Ok(()) => {}
            Err(RuntimeError::ContainerMissing { .. }) => {
                self.set_container(pod, None);
                return Err(Failed::Again);
            }
            Err(error) => return Err(failed(error)),
        }
        failpoint("agent.after_start");
        tracing::info!(pod.id = %pod, container.id = container.id, "container started");
        let state = ContainerState::Running;
        self.set_container(pod, Some(Container { state, ..container }));
        Ok(())
    }

    /// Pulls an image, once however many pods wait for it.
    async fn pull(&self, pod: &PodId, run: &ToRun, image: &str) -> Result<(), Failed> {
        let reason = format!("pulling image {image}");
        self.report_reason(pod, run.token.clone(), reason)
            .await
            .map_err(Failed::Trouble)?;
        let cell = {
            let mut pulls = self
                .pulls
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            pulls.entry(image.to_owned()).or_default().clone()
        };
        let result = cell
            .get_or_init(|| self.pull_with_patience(image))
            .await
            .clone();
        let mut pulls = self
            .pulls
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // Only this round's cell: a later pull of the same image is a new one.
        if pulls
            .get(image)
            .is_some_and(|current| Arc::ptr_eq(current, &cell))
        {
            pulls.remove(image);
        }
        drop(pulls);
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_unreachable() => {
                self.engine_trouble.notify_one();
                Err(Failed::Again)
            }
            Err(error) => Err(Failed::Pod(chain(&*error))),
        }
    }

    async fn pull_with_patience(&self, image: &str) -> Result<(), Arc<RuntimeError>> {
        let mut backoff = Backoff::new();
        let mut tries = 1;
        loop {
            match self.runtime().pull(image).await {
                Ok(()) => return Ok(()),
                Err(
                    error @ (RuntimeError::ImageMissing { .. } | RuntimeError::ImageDenied { .. }),
                ) => {
                    return Err(Arc::new(error));
                }
                Err(error) if tries == PULL_TRIES => return Err(Arc::new(error)),
                Err(error) => {
                    tracing::warn!(image, error = chain(&error), "pull failed, trying again");
                    tries += 1;
                    backoff.wait(&self.parts.ends).await;
                }
            }
        }
    }

    fn container(&self, pod: &PodId) -> Option<Container> {
        self.table()
            .get(pod)
            .and_then(|slot| slot.container.clone())
    }

    fn set_container(&self, pod: &PodId, container: Option<Container>) {
        self.table().entry(pod.clone()).or_default().container = container;
    }

    /// Reports a phase, and drops the pod's inbox entries with it.
    async fn report(
        &self,
        pod: &PodId,
        token: Token,
        phase: Option<Phase>,
        reason: String,
        exit_code: Option<i64>,
    ) -> Result<ReportOutcome, Trouble> {
        let container = self
            .container(pod)
            .map(|container| container.id)
            .unwrap_or_default();
        let mut entries = self.take_entries(pod).into_iter();
        let report = Report {
            pod: pod.clone(),
            token,
            phase,
            reason,
            exit_code,
            container,
            entry: entries.next().map(|entry| entry.bytes),
        };
        failpoint("agent.before_report");
        let outcome = self.calls.report(report).await.ok_or(Trouble::Ends)?;
        failpoint("agent.after_report");
        for entry in entries {
            self.drop_entry(pod, entry).await?;
        }
        Ok(outcome)
    }

    /// Says why a pod is not further yet, and keeps its entries.
    async fn report_reason(
        &self,
        pod: &PodId,
        token: Token,
        reason: String,
    ) -> Result<(), Trouble> {
        let report = Report {
            pod: pod.clone(),
            token,
            phase: None,
            reason,
            exit_code: None,
            container: String::new(),
            entry: None,
        };
        self.calls
            .report(report)
            .await
            .ok_or(Trouble::Ends)
            .map(drop)
    }

    async fn drop_entries(&self, pod: &PodId) -> Result<(), Trouble> {
        for entry in self.take_entries(pod) {
            self.drop_entry(pod, entry).await?;
        }
        Ok(())
    }

    async fn drop_entry(&self, pod: &PodId, entry: Entry) -> Result<(), Trouble> {
        let report = Report {
            pod: pod.clone(),
            token: Token::default(),
            phase: None,
            reason: String::new(),
            exit_code: None,
            container: String::new(),
            entry: Some(entry.bytes),
        };
        self.calls
            .report(report)
            .await
            .ok_or(Trouble::Ends)
            .map(drop)
    }

    /// The entries name no pod and nothing runs under that id: nobody can make sense of them.
    async fn bury_entries(&self, pod: &PodId) -> Result<(), Trouble> {
        for entry in self.take_entries(pod) {
            let from = From::Inbox(self.node());
            let mut backoff = Backoff::new();
            while let Err(error) = self
                .store()
                .bury(from, &entry.bytes, "no pod has this id")
                .await
            {
                tracing::warn!(
                    error = chain(&error),
                    "burying an entry failed, trying again"
                );
                backoff.wait(&self.parts.ends).await;
            }
        }
        Ok(())
    }

    fn take_entries(&self, pod: &PodId) -> Vec<Entry> {
        let mut table = self.table();
        table
            .get_mut(pod)
            .map(|slot| std::mem::take(&mut slot.entries))
            .unwrap_or_default()
    }
}

fn failed(error: RuntimeError) -> Failed {
    if error.is_unreachable() {
        Failed::Trouble(Trouble::Engine(error))
    } else {
        Failed::Pod(chain(&error))
    }
}
