//! The only door to Redis: connections, keys, the function library, and one port per station.
//!
//! A port has one typed method per Lua function. Ports carry data: they decide nothing and never
//! retry; whoever calls does, by activating again. Must never hold Lua text or change state by
//! more than one call.
//!
//! Invariant: the functions named here are those of the library (`tests/store/library.rs`).

pub mod backoff;
mod call;
pub mod connection;
mod dead;
mod decisions;
mod error;
mod events;
mod keys;
mod kept_logs;
mod library;
mod load;
mod memory;
mod nodes;
mod pending;
mod pods;
mod queue;
mod recovery;
mod services;
mod sessions;
pub mod survey;
pub mod switchover;
pub mod users;
mod wishes;

#[cfg(test)]
mod fuzz;

use std::sync::Arc;

pub use dead::{BURIED_MAX, Burial, DeadLetter, DeadLetters, From, RequeueOutcome};
pub use decisions::{Decisions, PodDecision};
pub use error::StoreError;
pub use events::{
    ENTRIES_PER_CALL, EarlierPage, EventArrivals, EventPage, Events, Lost, ReadOutcome,
};
pub use kept_logs::KeptLogs;
pub use library::FUNCTIONS;
pub use load::{MemoryShares, SlowCall, StoreLoad};
pub use memory::{FILLING_PERCENT, MemoryState, NEARLY_FULL_PERCENT, StoreMemory};
pub use nodes::{
    Beat, BeatOutcome, Culprit, EvictOutcome, LabelOutcome, Mark, MoveMode, MoveOutcome, MoveRules,
    MoveWish, NodeSnapshot, Nodes, PodUse, RegisterOutcome, RemoveOutcome, Seen, Stock, Strain,
    SweepOutcome,
};
pub use pending::{
    Adopt, AdoptOutcome, Inbox, PODS_PER_CALL, Pending, Report, ReportOutcome, ReturnOutcome,
    TakeOutcome, Taken, ToRun, Wish,
};
pub use pods::{PAGE_MAX, PodFilter, PodPage, PodStopOutcome, Pods};
pub use queue::{
    Arrivals, AssignOutcome, Assignment, Claim, Guard, Lower, Parked, Queue, QueueDepths, RoomOn,
    ServiceNodes, Suits, WaitingPod, Wants,
};
pub use recovery::{ClusterSeen, Recovery, RestoredPod, RestoredService};
pub use services::{
    Idempotency, Revision, ScaleOutcome, Services, Submit, SubmitMode, SubmitOutcome,
};
pub use sessions::{
    Frame, Heard, Kept, Listener, OpenOutcome, SESSION_KEEP, SessionId, SessionTakeOutcome,
    Sessions, Side, UNREAD_MAX, WriteOutcome,
};
pub use wishes::{
    Comparison, Due, NewPod, PodView, STEP_PODS_MAX, ServiceStep, StepOutcome, View, Wishes,
};

use connection::Redis;
use keys::Keys;

/// The door to one cluster's Redis; cheap to clone.
#[derive(Clone)]
pub struct Store {
    redis: Redis,
    keys: Arc<Keys>,
    library: Arc<library::Library>,
    memory: Arc<recovery::Memory>,
}

impl Store {
    /// The cluster whose keys begin with `prefix`.
    pub fn new(redis: Redis, prefix: &str) -> Store {
        Store {
            redis,
            keys: Arc::new(Keys::new(prefix)),
            library: Arc::default(),
            memory: Arc::default(),
        }
    }

    /// Services: wishes and their split into pods.
    pub fn services(&self) -> Services<'_> {
        Services(self)
    }

    /// Wishes, as controllers see them.
    pub fn wishes(&self) -> Wishes<'_> {
        Wishes(self)
    }

    /// The queue: claims and assignments.
    pub fn queue(&self) -> Queue<'_> {
        Queue(self)
    }

    /// Pending lists: what agents take and report.
    pub fn pending(&self) -> Pending<'_> {
        Pending(self)
    }

    /// Pods, as users see them.
    pub fn pods(&self) -> Pods<'_> {
        Pods(self)
    }

    /// Nodes: registration, heartbeats, the sweep.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes(self)
    }

    /// Sessions between the API and agents: logs, exec, stats.
    pub fn sessions(&self) -> Sessions<'_> {
        Sessions(self)
    }

    /// Decisions: why pods are where they are.
    pub fn decisions(&self) -> Decisions<'_> {
        Decisions(self)
    }

    /// Events: what happened.
    pub fn events(&self) -> Events<'_> {
        Events(self)
    }

    /// What is done when Redis lost writes.
    pub fn recovery(&self) -> Recovery<'_> {
        Recovery(self)
    }

    /// Opens the cluster, making it if it is not there, and answers its id.
    ///
    /// # Errors
    /// Redis cannot be reached, or holds a newer schema or library than this process knows.
    pub async fn open(&self) -> Result<String, StoreError> {
        self.open_as(None).await
    }

    /// The same; a cluster that is not there is made with the id that this process knew it by, or
    /// else with `id`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_as(&self, id: Option<String>) -> Result<String, StoreError> {
        let random = || format!("{:016x}", rand::random::<u64>());
        let candidate = self.memory.id().or(id).unwrap_or_else(random);
        let mut reply = self
            .call(self.function("kl_cluster_open").arg(candidate))
            .await?;
        reply.expect_word("opened")?;
        let schema = reply.number::<u64>()?;
        if schema > library::SCHEMA {
            return Err(StoreError::Newer {
                what: "schema",
                theirs: schema,
                ours: library::SCHEMA,
            });
        }
        let id = reply.text()?;
        self.memory.learn_id(&id);
        Ok(id)
    }
}
