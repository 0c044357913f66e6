//! Nodes in Redis: registration, heartbeats, the schedulers' snapshot, the sweep of lost ones.

mod marks;
pub(super) mod record;
pub(super) mod strain;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call::command;
use super::queue::millis;
use super::{ClusterSeen, Store, StoreError};
use crate::model::node::labels_text;
use crate::model::{Amounts, Capacity, EngineState, Node, Pressure};
use crate::remedies;
pub use marks::{EvictOutcome, LabelOutcome, Mark, RemoveOutcome};
use record::{describe, read_snapshot, snapshot_of, write_pressure};
use strain::write_users;
pub use strain::{Culprit, MoveMode, MoveOutcome, MoveRules, MoveWish, PodUse, Strain};

/// Nodes read by one call of a snapshot.
const SNAPSHOT_STEP: usize = 500;

/// The port of nodes.
pub struct Nodes<'a>(pub(super) &'a Store);

/// What an agent says of its node with each heartbeat.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beat {
    /// Whether the engine answers.
    pub engine: EngineState,
    /// What the node offers.
    pub capacity: Capacity,
    /// Share of its cpu time in use, 0 to 1.
    pub cpu_used: f64,
    /// Bytes of its memory in use.
    pub memory_used_bytes: u64,
    /// How hard its kernel is pressed.
    pub pressure: Pressure,
    /// What is above its pressure limit, in words, so that it takes no pods; empty if nothing is.
    pub pressed: String,
    /// Which of its pods use most, while it is under pressure; see [`PodUse`].
    pub users: Vec<PodUse>,
    /// While Redis recovers: after which of its losses (0: none) this node told what it holds.
    pub told: Option<u64>,
    /// Labels of its settings; told at its registration alone.
    pub labels: BTreeMap<String, String>,
    /// Its platform, such as `linux/amd64`; told at its registration alone.
    pub platform: String,
    /// Disk and pids that it offers, likewise.
    pub offers: Amounts,
    /// Names of its devices, such as `gpu/0`, likewise.
    pub devices: Vec<String>,
}

/// What became of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisterOutcome {
    /// This agent is the node's now.
    Registered {
        /// Grows with each registration; the agent shows it with every call.
        epoch: u64,
        /// What is told of the cluster.
        cluster: ClusterSeen,
    },
    /// The agent of another engine holds this name's lease.
    Taken {
        /// What is left of it.
        left: Duration,
    },
}

/// What became of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BeatOutcome {
    /// The lease is renewed.
    Renewed {
        /// What is told of the cluster.
        cluster: ClusterSeen,
        /// The node had been lost meanwhile: all must be compared.
        returned: bool,
        /// What users said of the node, to be given back should Redis lose it; none if what stands
        /// there is older than what was known.
        said: Option<String>,
    },
    /// Redis does not know the node: register again.
    Unknown,
    /// Another agent registered for this node.
    Superseded,
}

/// What a sweep found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SweepOutcome {
    /// No lease is over.
    None,
    /// Redis restarted or failed over: every lease has this much grace left.
    Grace(Duration),
    /// So many leases are over at once that one more term is waited.
    Mass {
        /// Leases that are over.
        overdue: u64,
        /// All nodes.
        all: u64,
    },
    /// Pods of a lost node went back to the queue.
    Swept {
        /// The node.
        node: String,
        /// Pods moved by this call.
        pods: u64,
        /// Whether none is left on it.
        done: bool,
    },
}

/// A node as the schedulers see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)] // an older record of a decision lacks what is newer
pub struct NodeSnapshot {
    /// Its name.
    pub name: String,
    /// Its last heartbeat, by Redis's clock.
    pub heartbeat_ms: u64,
    /// It was swept, and not heard since.
    pub lost: bool,
    /// Whether its engine answers.
    pub engine: EngineState,
    /// What it offers.
    pub capacity: Capacity,
    /// Pods assigned to it.
    pub pods: u32,
    /// Thousandths of a core they ask for.
    pub cpu_requested: u64,
    /// Bytes they ask for.
    pub memory_requested: u64,
    /// Share of its cpu time in use, 0 to 1.
    pub cpu_used: f64,
    /// Bytes of its memory in use.
    pub memory_used_bytes: u64,
    /// How hard its kernel is pressed.
    pub pressure: Pressure,
    /// How often its agent has registered.
    pub epoch: u64,
    /// Version of its agent.
    pub version: String,
    /// Its labels, as they are stored.
    pub labels: String,
    /// Fixed ports in use, as they are stored: `,8080/tcp,53/udp,`.
    pub ports: String,
    /// Grows whenever its labels change.
    pub turn: u64,
    /// Its platform, such as `linux/amd64`.
    pub platform: String,
    /// What it offers beside cpu and memory, and its pods ask for, as they are stored.
    pub stock: Stock,
    /// It gets no new pods.
    pub cordoned: bool,
    /// Nor is it to keep those it has.
    pub draining: bool,
    /// What is above its pressure limit, so that it takes no pods; empty if nothing is.
    pub pressed: String,
}

/// What a node offers beside cpu and memory, and what its pods ask for of that: the texts of its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stock {
    /// Amounts that it offers: `disk=4096,pids=9`.
    pub offers: String,
    /// Those that its pods ask for.
    pub asked: String,
    /// Its devices: `,gpu/0,gpu/1,`.
    pub devices: String,
    /// Those that its pods were given.
    pub devices_used: String,
}

/// Nodes heard since a time, and Redis's clock when they were read.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Redis's clock.
    pub now_ms: u64,
    /// The nodes, by last heartbeat.
    pub nodes: Vec<NodeSnapshot>,
}

impl Nodes<'_> {
    /// Registers a node's agent. `engine_id` is the stable id of its engine.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn register(
        &self,
        node: &str,
        engine_id: &str,
        lease: Duration,
        beat: &Beat,
    ) -> Result<RegisterOutcome, StoreError> {
        let call = self.0.function("kl_node_register");
        let call = beat_args(call.arg(node).arg(engine_id).arg(millis(lease)), beat);
        let call = call.arg("labels_agent").arg(labels_text(&beat.labels));
        let call = call.arg("platform").arg(&beat.platform);
        let call = call.arg("offers").arg(beat.offers.to_string());
        let call = call.arg("devices").arg(list_text(&beat.devices));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "registered" => {
                let epoch = reply.number()?;
                let cluster = ClusterSeen::read(&mut reply)?;
                self.0.compare_memory(&cluster).await?;
                Ok(RegisterOutcome::Registered { epoch, cluster })
            }
            "taken" => Ok(RegisterOutcome::Taken {
                left: Duration::from_millis(reply.number()?),
            }),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Renews a node's lease.
    ///
    /// # Errors
    /// Redis cannot be reached; the lease runs on.
    pub async fn heartbeat(
        &self,
        node: &str,
        epoch: u64,
        beat: &Beat,
    ) -> Result<BeatOutcome, StoreError> {
        let call = self.0.function("kl_node_heartbeat").arg(node).arg(epoch);
        let mut reply = self.0.call(beat_args(call, beat)).await?;
        let word = reply.text()?;
        match word.as_str() {
            "beat" | "returned" => {
                let cluster = ClusterSeen::read(&mut reply)?;
                let said = reply.text_by_hand()?;
                let is_new = self.0.compare_memory(&cluster).await?;
                let returned = word == "returned";
                Ok(BeatOutcome::Renewed {
                    cluster,
                    returned,
                    said: Some(said).filter(|_| is_new),
                })
            }
            "unknown" => Ok(BeatOutcome::Unknown),
            "superseded" => Ok(BeatOutcome::Superseded),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Says that the agent ends in order: its containers run on, it gets no new pods.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn leave(&self, node: &str, epoch: u64) -> Result<(), StoreError> {
        self.0
            .call(self.0.function("kl_node_leave").arg(node).arg(epoch))
            .await?;
        Ok(())
    }

    /// Nodes that hold a place among the living and were heard at or after `since_ms`.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn seen_since(&self, since_ms: u64) -> Result<Seen, StoreError> {
        let mut seen = Seen::default();
        let mut page = (since_ms.to_string(), 0_usize);
        loop {
            let call = self.0.function("kl_node_snapshot");
            let call = call.arg(&page.0).arg(page.1).arg(SNAPSHOT_STEP);
            let mut reply = self.0.call(call).await?;
            reply.expect_word("nodes")?;
            // The first page's clock: a node that beats while later pages are read is read again
            // next time, rather than missed.
            let now_ms = reply.number()?;
            if seen.nodes.is_empty() {
                seen.now_ms = now_ms;
            }
            page = (reply.text()?, reply.number()?);
            let count = reply.left();
            let is_first = seen.nodes.is_empty();
            while !reply.is_empty() {
                seen.nodes.push(read_snapshot(&mut reply.list()?)?);
            }
            if count < SNAPSHOT_STEP {
                if !is_first {
                    keep_newest(&mut seen.nodes);
                }
                return Ok(seen);
            }
        }
    }

    /// Sweeps one lost node, at most `pods_max` of its pods; call again while something is swept.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn sweep(
        &self,
        lease: Duration,
        pods_max: usize,
    ) -> Result<SweepOutcome, StoreError> {
        let grace = if remedies::holds("grace") {
            lease
        } else {
            Duration::ZERO
        };
        let call = self
            .0
            .function("kl_node_sweep")
            .arg(millis(lease))
            .arg(pods_max)
            .arg(millis(grace));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "none" => Ok(SweepOutcome::None),
            "grace" => Ok(SweepOutcome::Grace(Duration::from_millis(reply.number()?))),
            "mass" => Ok(SweepOutcome::Mass {
                overdue: reply.number()?,
                all: reply.number()?,
            }),
            "swept" => Ok(SweepOutcome::Swept {
                node: reply.text()?,
                pods: reply.number()?,
                done: reply.text()? == "1",
            }),
            _ => Err(reply.unknown(word)),
        }
    }

    /// All nodes, living and lost, by name. `lease` tells which are lost but not swept yet.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn list(&self, lease: Duration) -> Result<Vec<Node>, StoreError> {
        let Seen { now_ms, nodes } = self.seen_since(0).await?;
        let mut all: Vec<Node> = nodes
            .into_iter()
            .map(|node| describe(node, now_ms, lease))
            .collect();
        for name in self.lost().await? {
            all.extend(self.get(&name, lease).await?);
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.dedup_by(|one, other| one.name == other.name);
        Ok(all)
    }

    /// Names of the nodes that were swept and are not forgotten yet.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn lost(&self) -> Result<Vec<String>, StoreError> {
        let mut range = command("ZRANGE");
        range.arg(self.0.keys.nodes_lost()).arg(0).arg(-1);
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (lost,) = self.0.read("ZRANGE", &pipeline).await?;
        Ok(lost)
    }

    /// One node, living or lost.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn get(&self, name: &str, lease: Duration) -> Result<Option<Node>, StoreError> {
        let mut get = command("HGETALL");
        get.arg(self.0.keys.node(name));
        let mut pipeline = redis::pipe();
        pipeline.add_command(command("TIME")).add_command(get);
        let ((seconds, micros), hash): ((u64, u64), HashMap<String, String>) =
            self.0.read("HGETALL", &pipeline).await?;
        if !hash.contains_key("heartbeat_ms") {
            return Ok(None);
        }
        let node = snapshot_of(name.to_owned(), |field| hash.get(field).map(String::as_str));
        let node = describe(node, seconds * 1000 + micros / 1000, lease);
        let suggestion = hash.get("suggestion").cloned();
        Ok(Some(Node { suggestion, ..node }))
    }
}

fn beat_args(call: super::call::Call, beat: &Beat) -> super::call::Call {
    let engine = match beat.engine {
        EngineState::Up => "up",
        EngineState::Down => "down",
    };
    let call = call
        .arg("engine")
        .arg(engine)
        .arg("pods_max")
        .arg(beat.capacity.pods_max)
        .arg("cpu")
        .arg(beat.capacity.cpu_millis)
        .arg("memory")
        .arg(beat.capacity.memory_bytes)
        .arg("cpu_used")
        .arg(format!("{:.3}", beat.cpu_used))
        .arg("memory_used")
        .arg(beat.memory_used_bytes)
        .arg("pressure")
        .arg(write_pressure(&beat.pressure))
        .arg("version")
        .arg(env!("CARGO_PKG_VERSION"))
        .arg("pressed")
        .arg(&beat.pressed)
        .arg("users")
        .arg(write_users(&beat.users));
    match beat.told {
        Some(loss) => call.arg("told").arg(loss),
        None => call,
    }
}

/// Names as a list is stored: `,gpu/0,gpu/1,`; empty for none.
fn list_text(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!(",{},", names.join(","))
}

/// Of a node that is on several pages keeps what was read last.
fn keep_newest(nodes: &mut Vec<NodeSnapshot>) {
    let mut known = HashSet::with_capacity(nodes.len());
    nodes.reverse();
    nodes.retain(|node| known.insert(node.name.clone()));
    nodes.reverse();
}
