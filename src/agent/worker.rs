//! Workers: one for each pod that needs a look, which takes it in hand and brings it to its state.
//!
//! `table` holds what the engine is known to have; it may be old, since every engine call is
//! idempotent and the comparison corrects it. `steps` speaks to the engine, `reports` leaves word
//! for Redis. A pod has at most one worker at a time: who finds one at work leaves word to look
//! again.
//!
//! A look begins with what the node can do by itself: a container of a placement that stands is
//! started again, unpaused or stopped for being unhealthy whether Redis answers or not. Only then,
//! and only where something new may be wanted, Redis is asked.

mod bring;
mod health;
mod here;
mod reports;
mod steps;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::calls::{self, Calls};
use super::devices::Devices;
use super::images::Images;
use super::knowledge::Knowledge;
use super::lease::{Lease, LeaseFile};
use super::pressure::container::ContainerPressure;
use super::requests::KeptContainers;
use super::users::Users;
use crate::container::{Container, Runtime, RuntimeError};
use crate::model::{PodId, Pressure, Token};
use crate::settings::AgentSettings;
use crate::signing::Trust;
use crate::store::Store;
use crate::store::backoff::Backoff;
use crate::telemetry::chain;
pub(super) use health::{Kind, Probing};
pub(super) use table::Entry;
use table::{Look, Table};

/// Containers whose stop begins or that are removed at once; who waits for a grace holds no place.
const STOPS_MAX: usize = 32;
/// Containers in their grace at once: each is a connection to the engine.
const GRACES_MAX: usize = 512;
/// Containers inspected at once: after the engine was away all want it.
const INSPECTIONS_MAX: usize = 16;
/// Probes under way at once, on the whole node: each is a connection, or a program in a container.
const PROBES_MAX: usize = 64;
/// Pause before a pod is asked for again while Redis recovers.
const HOLD_PAUSE: Duration = Duration::from_secs(1);

/// What an agent works with.
pub(super) struct Parts {
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) store: Store,
    pub(super) runtime: Runtime,
    pub(super) settings: AgentSettings,
    pub(super) devices: Devices,
    pub(super) trust: Trust,
    pub(super) cgroup_dir: PathBuf,
    pub(super) lease_file: LeaseFile,
    pub(super) ends: CancellationToken,
}

/// The pods of one node, in hand and not.
pub(super) struct Workers {
    parts: Parts,
    pub(super) lease: Lease,
    epoch: AtomicU64,
    calls: Calls,
    /// What is known of the wishes behind this node's pods.
    pub(super) knowledge: Knowledge,
    table: Table,
    starts: Semaphore,
    stops: Semaphore,
    kept: KeptContainers,
    graces: Semaphore,
    inspections: Semaphore,
    pub(super) probes: Semaphore,
    pub(super) images: Images,
    tasks: TaskTracker,
    superseded: CancellationToken,
    /// Wakes the comparison with Redis.
    pub(super) compare: Notify,
    /// Wakes the comparison with the engine.
    pub(super) list: Notify,
    /// The next comparison with the engine is to inspect each container.
    pub(super) inspect_all: AtomicBool,
    /// Set once everything was compared: before that, nobody knows what the engine has.
    pub(super) compared: CancellationToken,
    /// Told when a call to the engine found no answer.
    pub(super) engine_trouble: Notify,
    /// Whether the engine answers.
    pub(super) engine_up: watch::Sender<bool>,
    /// What is above the node's pressure limit, in words.
    pressed: watch::Sender<Option<String>>,
    container_pressure: ContainerPressure,
    /// Which pods use most.
    pub(super) users: Users,
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
    /// It can never be done here: the pod's failure.
    Pod(String),
    /// The engine said no: to be tried again after a pause.
    Refused(String),
    /// Redis is to be asked before it may be done.
    Ask,
    /// Look again from the start.
    Again,
    Trouble(Trouble),
}

impl Workers {
    /// Starts the tasks that make the workers' calls.
    pub(super) fn start(parts: Parts) -> Arc<Workers> {
        let (calls, requests) = calls::channel();
        let workers = Arc::new(Workers {
            lease: Lease::new(parts.lease_file.clone()),
            epoch: AtomicU64::new(0),
            calls,
            knowledge: Knowledge::default(),
            table: Table::default(),
            starts: Semaphore::new(parts.settings.concurrency),
            stops: Semaphore::new(STOPS_MAX),
            kept: KeptContainers::default(),
            graces: Semaphore::new(GRACES_MAX),
            inspections: Semaphore::new(INSPECTIONS_MAX),
            probes: Semaphore::new(PROBES_MAX),
            images: Images::new(
                parts.runtime.clone(),
                parts.settings.clone(),
                parts.ends.clone(),
            ),
            tasks: TaskTracker::new(),
            superseded: CancellationToken::new(),
            compare: Notify::new(),
            list: Notify::new(),
            inspect_all: AtomicBool::new(false),
            compared: CancellationToken::new(),
            engine_trouble: Notify::new(),
            engine_up: watch::Sender::new(true),
            pressed: watch::Sender::default(),
            container_pressure: ContainerPressure::new(&parts.cgroup_dir),
            users: Users::default(),
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

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(super) fn settings(&self) -> &AgentSettings {
        &self.parts.settings
    }

    pub(super) fn trust(&self) -> &Trust {
        &self.parts.trust
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

    /// Waits for the workers, and for what they left to be told, at most `longest`.
    pub(super) async fn drain(&self, longest: Duration) {
        self.tasks.close();
        let all = async {
            self.tasks.wait().await;
            tokio::select! {
                () = self.calls.outbox.emptied() => {}
                () = self.superseded() => {} // nobody listens any more
            }
        };
        if tokio::time::timeout(longest, all).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "work in hand is left for the next start"
            );
        }
    }

    /// Has everything compared: with the engine, and with Redis.
    pub(super) fn compare_all(&self) {
        self.list.notify_one();
        self.compare.notify_one();
    }

    /// Notes what is above the node's pressure limit; what has not started is given back from then on.
    pub(super) fn set_pressed(&self, pressed: Option<String>) {
        let begins = pressed.is_some() && self.pressed.borrow().is_none();
        if begins {
            tracing::warn!(
                node.id = self.node(),
                why = pressed,
                "above the pressure limit: no pod is started"
            );
        }
        self.pressed.send_replace(pressed);
        if begins {
            self.compare.notify_one(); // has each pod looked at that has no container yet
        }
    }

    /// What is above the node's pressure limit.
    pub(super) fn pressed(&self) -> Option<String> {
        self.pressed.borrow().clone()
    }

    /// Whether a pod is to be given back before it is taken in hand: the node is above its limit, and
    /// nothing of it ran here.
    pub(super) fn may_give_back(&self, pod: &PodId) -> bool {
        self.pressed.borrow().is_some() && self.table.may_give_back(pod)
    }

    /// Notes that a placement was not given back, and stays in spite of the pressure.
    pub(super) fn stays(&self, pod: &PodId, token: &Token) {
        self.table
            .with(pod, |slot| slot.stays = Some(token.clone()));
    }

    /// Whether a placement is not to be started now, but first to be given back.
    fn is_given_back_first(&self, pod: &PodId, token: &Token) -> bool {
        if self.pressed.borrow().is_none() {
            return false;
        }
        self.table.with(pod, |slot| {
            slot.stays.take_if(|stays| stays != token); // what was said of an earlier placement
        });
        self.table.may_give_back(pod)
    }

    /// How hard a container is pressed, where the kernel tells it.
    pub(super) fn pressure_of(&self, container: &str) -> Option<Pressure> {
        self.container_pressure.read(container)
    }

    /// A pod's container, if it has one.
    pub(super) fn container(&self, pod: &PodId) -> Option<Container> {
        self.table.container(pod)
    }

    /// Redis lost what it was told: all of it is told again.
    pub(super) fn tell_again(&self) {
        self.table.forget_told();
    }

    /// Pods that have a container here, or are remembered.
    pub(super) fn known_pods(&self) -> Vec<PodId> {
        self.table.known()
    }

    /// Compares with what the engine listed; `all` has each container inspected.
    pub(super) fn know(self: &Arc<Self>, listed: Vec<Container>, all: bool) {
        let differences = self.table.compare(listed, all);
        for pod in differences.changed {
            self.look_at(pod, Look::Container);
        }
        for copy in differences.copies {
            let workers = self.clone();
            self.tasks
                .spawn(async move { workers.remove_copy(copy).await });
        }
    }

    /// The engine told of a change to a pod's container.
    pub(super) fn changed(self: &Arc<Self>, pod: PodId) {
        self.look_at(pod, Look::Container);
    }

    /// Has a pod looked at; `entry` is dropped when it is done.
    pub(super) fn look(self: &Arc<Self>, pod: PodId, entry: Option<Entry>) {
        self.look_at(pod, Look::Wish(entry));
    }

    fn look_at(self: &Arc<Self>, pod: PodId, look: Look) {
        if !self.table.wants_worker(&pod, look) {
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
                    // One asks the engine whether it is back; not every pod.
                    let back = self.engine_answers();
                    self.parts.ends.run_until_cancelled(back).await;
                    continue;
                }
            }
            if self.table.let_go(&pod) {
                return;
            }
        }
    }

    /// Waits until the engine is known to answer. Cancel-safe.
    pub(super) async fn engine_answers(&self) {
        let mut up = self.engine_up.subscribe();
        // The sender lives as long as the workers.
        let _ = up.wait_for(|up| *up).await;
    }
}
