//! The store may be lost: seeing that Redis lost writes, and putting back what the nodes hold.
//!
//! A process remembers the cluster's id and how far its tick was confirmed; on each new connection,
//! and whenever a heartbeat shows less, it has Redis check that against what stands there.
//! `redis/kubeleet.lua` says what follows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::call::Reply;
use super::connection::Connection;
use super::queue::millis;
use super::services::rank_text;
use super::{Store, StoreError};
use crate::model::{Phase, PodId, ServiceKey, ServiceSpec, Token};

/// The port of recovery.
pub struct Recovery<'a>(pub(super) &'a Store);

/// What this process knows of the cluster, whatever Redis says.
#[derive(Debug, Default)]
pub(super) struct Memory {
    id: Mutex<String>,
    /// The highest tick that replicas confirmed.
    tick: AtomicU64,
}

impl Memory {
    pub(super) fn id(&self) -> Option<String> {
        let id = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        Some(id.clone()).filter(|id| !id.is_empty())
    }

    /// The first id counts: a process belongs to the cluster it was started in.
    pub(super) fn learn_id(&self, id: &str) {
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            id.clone_into(&mut known);
        }
    }

    fn learn_tick(&self, tick: u64) {
        self.tick.fetch_max(tick, Ordering::AcqRel);
    }
}

/// What an agent is told of the cluster with each heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterSeen {
    /// Its id; empty if Redis was emptied.
    pub id: String,
    /// The tick that is known to be confirmed.
    pub confirmed: u64,
    /// When it was last seen that Redis lost writes, by its clock; 0 for never.
    pub lost_ms: u64,
    /// What is left of a recovery; zero for none.
    pub recovering: Duration,
}

impl ClusterSeen {
    pub(super) fn read(reply: &mut Reply) -> Result<ClusterSeen, StoreError> {
        Ok(ClusterSeen {
            id: reply.text()?,
            confirmed: reply.number()?,
            lost_ms: reply.number()?,
            recovering: Duration::from_millis(reply.number()?),
        })
    }
}

/// A service as a node knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredService {
    /// The service.
    pub service: ServiceKey,
    /// Name of the submission that made it.
    pub uid: String,
    /// Number of its newest known wish.
    pub wish: u64,
    /// How many pods that wants.
    pub replicas: u32,
    /// That wish is its deletion.
    pub deleted: bool,
    /// A revision that pods run.
    pub revision: u64,
    /// What they run.
    pub spec: ServiceSpec,
    /// Nothing of the spec is missing; a container's labels lack what is secret.
    pub whole: bool,
    /// One of them.
    pub pod: Option<PodId>,
}

/// A pod as its node holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredPod {
    /// The pod.
    pub id: PodId,
    /// Its placement.
    pub token: Token,
    /// Where it is; [`Phase::Stopped`] if it is known to be gone.
    pub phase: Phase,
    /// Its replica index.
    pub replica: u32,
    /// Its service, if it has one.
    pub service: Option<ServiceKey>,
    /// Name of the submission that made that; empty if it is not known.
    pub uid: String,
    /// The revision it runs.
    pub revision: u64,
    /// What it runs.
    pub spec: ServiceSpec,
    /// Devices that its container was given, such as `gpu/0`.
    pub devices: Vec<String>,
    /// The engine's id of its container.
    pub container: String,
    /// How that ended.
    pub exit_code: Option<i64>,
}

impl Store {
    /// Has Redis checked on a new connection: it may be another one, or an older copy.
    pub(super) async fn check_memory(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let Some(call) = self.check_call(false) else {
            return Ok(());
        };
        let value = self.run_on(connection, &call).await?;
        let mut reply = Reply::of(call.function, value)?;
        self.read_check(&mut reply).map(drop)
    }

    fn check_call(&self, moves: bool) -> Option<super::call::Call> {
        let id = self.memory.id()?;
        let call = self.function("kl_cluster_check");
        let call = call.arg(id).arg(self.memory.tick.load(Ordering::Acquire));
        let recovery = millis(self.redis.recovery_time());
        Some(call.arg(recovery).arg(u8::from(moves)))
    }

    /// The tick that stands there, if it is this process's cluster.
    fn read_check(&self, reply: &mut Reply) -> Result<Option<u64>, StoreError> {
        let word = reply.text()?;
        match word.as_str() {
            "checked" => {
                let tick = reply.number()?;
                self.memory.learn_tick(reply.number()?);
                Ok(Some(tick))
            }
            "foreign" => Ok(None),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Takes in what a heartbeat was told, and checks where it is less than was known; answers
    /// whether it is no less.
    pub(super) async fn compare_memory(&self, seen: &ClusterSeen) -> Result<bool, StoreError> {
        let known = self.memory.tick.load(Ordering::Acquire);
        let other = self.memory.id().is_some_and(|id| id != seen.id);
        if seen.confirmed >= known && !other {
            self.memory.learn_tick(seen.confirmed);
            return Ok(true);
        }
        self.recovery().check().await.map(|()| false)
    }
}

impl Recovery<'_> {
    /// Checks whether Redis lost writes.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn check(&self) -> Result<(), StoreError> {
        let Some(call) = self.0.check_call(false) else {
            return Ok(());
        };
        let mut reply = self.0.call(call).await?;
        self.0.read_check(&mut reply).map(drop)
    }

    /// The same, and moves the tick; what replicas confirm of it is remembered.
    ///
    /// # Errors
    /// Redis cannot be reached, or no replica confirmed it.
    pub async fn tick(&self) -> Result<(), StoreError> {
        if self.0.memory.id().is_none() {
            self.0.open().await?; // whose tick it moves
        }
        let Some(call) = self.0.check_call(true) else {
            return Ok(());
        };
        let mut reply = self.0.commit(call).await?;
        if let Some(tick) = self.0.read_check(&mut reply)? {
            self.0.memory.learn_tick(tick);
        }
        Ok(())
    }

    /// Puts a service back; false if it is known to be deleted.
    ///
    /// # Errors
    /// May be tried again.
    pub async fn service(&self, known: &RestoredService) -> Result<bool, StoreError> {
        let spec = &known.spec;
        let registry = spec.registry.as_ref().map(serde_json::to_string);
        let call = self.0.function("kl_service_restore");
        let call = call
            .arg(known.service.to_string())
            .arg(&known.uid)
            .arg(known.wish)
            .arg(known.replicas)
            .arg(u8::from(known.deleted))
            .arg(known.revision)
            .arg(spec.to_stored())
            .arg(spec.resources.cpu_asked())
            .arg(spec.resources.memory_asked())
            .arg(spec.priority.as_str())
            .arg(spec.host_ports().join(","))
            .arg(spec.wishes())
            .arg(registry.and_then(Result::ok).unwrap_or_default())
            .arg(known.pod.as_ref().map_or("", PodId::as_str))
            .arg(spec.found_by())
            .arg(rank_text(spec))
            .arg(if spec.preemptible { "" } else { "1" })
            .arg(u8::from(known.whole))
            .arg(spec.resources.asks().to_string())
            .arg(spec.on_node_loss.held());
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "restored" | "known" => Ok(true),
            "gone" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Puts back what users said of a node, as its last heartbeat was told; false if Redis does not
    /// know this agent (any more).
    ///
    /// # Errors
    /// May be tried again.
    pub async fn node(&self, node: &str, epoch: u64, said: &str) -> Result<bool, StoreError> {
        let call = self.0.function("kl_node_restore").arg(node).arg(epoch);
        let mut reply = self.0.commit(call.arg(said)).await?;
        let word = reply.text()?;
        match word.as_str() {
            "restored" | "late" => Ok(true),
            "superseded" | "unknown" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Puts pods back, at most [`super::PODS_PER_CALL`]; false if Redis does not know this agent
    /// (any more).
    ///
    /// # Errors
    /// May be tried again.
    pub async fn pods(
        &self,
        node: &str,
        epoch: u64,
        pods: &[RestoredPod],
    ) -> Result<bool, StoreError> {
        let mut call = self.0.function("kl_pod_restore").arg(node).arg(epoch);
        for pod in pods {
            let owner = pod.service.as_ref().map(|key| format!("service:{key}"));
            let own = pod.service.is_none() && pod.phase != Phase::Stopped;
            let spec = if own {
                pod.spec.to_stored()
            } else {
                String::new()
            };
            call = call
                .arg(pod.id.as_str())
                .arg(pod.token.attempt)
                .arg(&pod.token.nonce)
                .arg(pod.phase.as_str())
                .arg(pod.replica)
                .arg(owner.unwrap_or_default())
                .arg(pod.revision)
                .arg(spec)
                .arg(pod.spec.resources.cpu_asked())
                .arg(pod.spec.resources.memory_asked())
                .arg(pod.spec.priority.as_str())
                .arg(pod.spec.host_ports().join(","))
                .arg(pod.spec.wishes())
                .arg(&pod.container)
                .arg(
                    pod.exit_code
                        .map_or_else(String::new, |code| code.to_string()),
                )
                .arg(&pod.uid)
                .arg(pod.spec.resources.asks().to_string())
                .arg(pod.devices.join(","));
        }
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "restored" => Ok(true),
            "superseded" | "unknown" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }
}
