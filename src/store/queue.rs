//! The queue in Redis: waiting for arrivals, claiming batches, assigning them, taking claims back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call::{Reply, command};
use super::connection::Connection;
use super::{Store, StoreError};
use crate::model::{Amounts, PodId, Priority, ServiceKey};

/// Most services that the labels of one affinity mean.
const SERVICES_WITH_MAX: usize = 1000;
/// Pods counted by one call.
const COUNTED_STEP: usize = 500;

/// The port of the queue.
pub struct Queue<'a>(pub(super) &'a Store);

/// A batch that this scheduler holds for a short lease.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Its random name.
    pub batch: String,
    /// Waiting pods.
    pub pods: Vec<WaitingPod>,
    /// Entries that are the id of no pod: descriptions pushed by hand, or rubbish.
    pub raw: Vec<Vec<u8>>,
}

/// What a plan needs to know of a waiting pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPod {
    /// Its id.
    pub id: PodId,
    /// Thousandths of a core it asks for.
    pub cpu_millis: u64,
    /// Bytes it asks for.
    pub memory_bytes: u64,
    /// What it wants of its node, where it wants anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wants: Option<Box<Wants>>,
}

/// What a pod wants of its node, beside room; what its placement wishes stands in its spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Wants {
    /// Its owner, as it is stored; empty if it has none.
    pub owner: String,
    /// The revision of its service that it is of.
    pub revision: u64,
    /// Ports of the node that no other pod has, such as `8080/tcp`.
    pub host_ports: Vec<String>,
    /// Nodes that are taken only where no other fits.
    pub avoid: Vec<String>,
    /// What it asks for beside cpu and memory: disk, pids and devices by kind.
    pub asks: Amounts,
}

/// Which node each pod of a claim is given, and which pods fit nowhere.
#[derive(Debug, Clone, Default)]
pub struct Assignment<'a> {
    /// Names of the nodes that `pods` point to, and their turns as the plan knew them.
    pub nodes: Vec<(&'a str, u64)>,
    /// Pods, each with the position of its node.
    pub pods: Vec<(&'a PodId, usize)>,
    /// So many of the pods, at the end, are placed only if the guards hold.
    pub bound: usize,
    /// What the places of those stand on.
    pub guards: Vec<Guard>,
    /// Pods that fit nowhere now.
    pub parked: Vec<Parked<'a>>,
}

/// Something that others may have changed since a plan looked, and that its bound pods stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// How often pods of a service were placed.
    Placed {
        /// The service, `namespace/name`.
        service: String,
        /// How often, as known.
        known: String,
    },
    /// Which node had its turn last.
    RoundRobin {
        /// The node, as known.
        known: String,
        /// The node that has it now.
        next: String,
    },
}

/// A pod that fits nowhere now.
#[derive(Debug, Clone)]
pub struct Parked<'a> {
    /// The pod.
    pub pod: &'a PodId,
    /// When it is tried again.
    pub delay: Duration,
    /// What is missing where.
    pub reason: String,
}

/// What became of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignOutcome {
    /// It was carried out as far as it still held.
    Assigned {
        /// Pods that have their node now.
        count: usize,
        /// Entries that went back to the front of the queue.
        given_back: usize,
        /// What the nodes named hold now.
        room: Vec<RoomOn>,
        /// A guard did not hold: the bound pods went back.
        broken: bool,
    },
    /// The claim's lease was over: others have its pods.
    Lapsed,
}

/// What a node holds after an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomOn {
    /// The node.
    pub node: String,
    /// Its pods.
    pub pods: u32,
    /// Thousandths of a core they ask for.
    pub cpu_requested: u64,
    /// Bytes they ask for.
    pub memory_requested: u64,
    /// What else is asked of it; told where pods with wishes were meant for it.
    pub suits: Option<Suits>,
    /// Amounts asked for and devices in use, as they are stored; told where any were asked of it.
    pub stock: Option<(String, String)>,
}

/// What a node is asked for beside room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suits {
    /// Grows whenever its labels change.
    pub turn: u64,
    /// Fixed ports in use, as they are stored.
    pub ports: String,
    /// Its labels, as they are stored.
    pub labels: String,
}

/// A pod that may make room for one that stands higher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lower {
    /// Its id.
    pub id: String,
    /// Where it stands: by priority, and by rank within.
    pub standing: u32,
    /// Thousandths of a core that it gives back.
    pub cpu_millis: u64,
    /// Bytes that it gives back.
    pub memory_bytes: u64,
    /// Fixed ports that it gives back.
    pub host_ports: Vec<String>,
    /// Disk, pids and devices by kind that it gives back.
    pub asks: Amounts,
}

/// On which nodes the pods of a service are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceNodes {
    /// How often pods of it were placed, for a [`Guard`].
    pub placed: String,
    /// Nodes, each with how many of them.
    pub counts: Vec<(String, u32)>,
}

/// How much waits where.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
pub struct QueueDepths {
    /// Entries of high priority.
    pub high: u64,
    /// Entries of normal priority.
    pub normal: u64,
    /// Entries of low priority.
    pub low: u64,
    /// Batches that schedulers hold now.
    pub claims: u64,
    /// Pods that fit nowhere and are tried again later.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
}

impl Queue<'_> {
    /// A watch of one priority's queue, on a connection of its own.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn arrivals(
        &self,
        priority: Priority,
        longest: Duration,
    ) -> Result<Arrivals, StoreError> {
        Arrivals::of(self.0, self.0.keys.queue(priority), longest).await
    }

    /// Claims up to `max` entries for `lease`.
    ///
    /// # Errors
    /// If the answer was lost, the claim is taken back after its lease.
    pub async fn claim(&self, lease: Duration, max: usize) -> Result<Claim, StoreError> {
        let batch = PodId::new_submission();
        let call = self.0.function("kl_pod_claim");
        let call = call.arg(&batch).arg(millis(lease)).arg(max);
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "empty" => Ok(Claim::default()),
            "claimed" => {
                let (pods, raw) = read_claim(&mut reply)?;
                Ok(Claim { batch, pods, raw })
            }
            _ => Err(reply.unknown(word)),
        }
    }

    /// Assigns a claimed batch in one atomic call. `nonce` is random, one per call.
    ///
    /// # Errors
    /// If the answer was lost, what was assigned is assigned, and nothing is lost.
    pub async fn assign(
        &self,
        batch: &str,
        nonce: &str,
        node_lease: Duration,
        assignment: &Assignment<'_>,
    ) -> Result<AssignOutcome, StoreError> {
        let mut call = self.0.function("kl_pod_assign");
        let command = &mut call.command;
        command.arg(batch).arg(nonce).arg(millis(node_lease));
        command.arg(assignment.nodes.len());
        for (node, turn) in &assignment.nodes {
            command.arg(*node).arg(turn);
        }
        command.arg(assignment.guards.len());
        for guard in &assignment.guards {
            match guard {
                Guard::Placed { service, known } => command.arg(service).arg(known).arg(""),
                Guard::RoundRobin { known, next } => {
                    command.arg("round-robin").arg(known).arg(next)
                }
            };
        }
        command.arg(assignment.pods.len()).arg(assignment.bound);
        for (pod, node) in &assignment.pods {
            command.arg(pod.as_str()).arg(node + 1);
        }
        for parked in &assignment.parked {
            command
                .arg(parked.pod.as_str())
                .arg(millis(parked.delay))
                .arg(&parked.reason);
        }
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "lapsed" => Ok(AssignOutcome::Lapsed),
            "assigned" => {
                let count = reply.number()?;
                let given_back = reply.number()?;
                let mut flat = reply.list()?;
                let mut room = Vec::with_capacity(flat.left() / 4);
                while !flat.is_empty() {
                    room.push(RoomOn {
                        node: flat.text()?,
                        pods: flat.number()?,
                        cpu_requested: flat.number()?,
                        memory_requested: flat.number()?,
                        suits: None,
                        stock: None,
                    });
                }
                let mut suiting = reply.list()?;
                let mut nodes = room.iter_mut(); // told in the same order
                while !suiting.is_empty() {
                    let name = suiting.text()?;
                    let suits = Suits {
                        turn: suiting.number()?,
                        ports: suiting.text_by_hand()?,
                        labels: suiting.text_by_hand()?,
                    };
                    if let Some(on) = nodes.find(|on| on.node == name) {
                        on.suits = Some(suits);
                    }
                }
                let broken = reply.text()? == "1";
                let mut stocks = reply.list()?;
                let mut nodes = room.iter_mut(); // likewise
                while !stocks.is_empty() {
                    let name = stocks.text()?;
                    let stock = (stocks.text_by_hand()?, stocks.text_by_hand()?);
                    if let Some(on) = nodes.find(|on| on.node == name) {
                        on.stock = Some(stock);
                    }
                }
                Ok(AssignOutcome::Assigned {
                    count,
                    given_back,
                    room,
                    broken,
                })
            }
            _ => Err(reply.unknown(word)),
        }
    }

    /// Pods of a node that stand lower and may make room; of very many a part.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn lower(&self, node: &str, standing: u32) -> Result<Vec<Lower>, StoreError> {
        let call = self.0.function("kl_node_lower").arg(node).arg(standing);
        let mut reply = self.0.call(call.arg(COUNTED_STEP)).await?;
        reply.expect_word("pods")?;
        let mut lower = Vec::new();
        while !reply.is_empty() {
            let mut pod = reply.list()?;
            lower.push(Lower {
                id: pod.text_by_hand()?,
                standing: pod.number()?,
                cpu_millis: pod.number()?,
                memory_bytes: pod.number()?,
                host_ports: words_of(&pod.text_by_hand()?),
                asks: Amounts::parse(&pod.text_by_hand()?),
            });
        }
        Ok(lower)
    }

    /// Has pods of a node make room for a waiting one; false if that is no longer what it was, or others
    /// make room for it already.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn preempt(
        &self,
        pod: &PodId,
        standing: u32,
        node: &str,
        victims: &[&Lower],
    ) -> Result<bool, StoreError> {
        let call = self.0.function("kl_pod_preempt").arg(pod.as_str());
        let mut call = call.arg(standing).arg(node);
        for victim in victims {
            call = call.arg(&victim.id);
        }
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "preempted" => Ok(true),
            "late" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }

    /// On which nodes a service's pods are: all, or those of one revision.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn service_nodes(
        &self,
        service: &str,
        revision: Option<u64>,
    ) -> Result<ServiceNodes, StoreError> {
        let mut found = ServiceNodes::default();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let revision = revision.map(|revision| revision.to_string());
        let mut offset: i64 = 0;
        while offset >= 0 {
            let call = self.0.function("kl_service_nodes").arg(service);
            let call = call.arg(revision.as_deref().unwrap_or_default());
            let mut reply = self.0.call(call.arg(offset).arg(COUNTED_STEP)).await?;
            reply.expect_word("nodes")?;
            let placed = reply.text()?;
            if offset == 0 {
                found.placed = placed; // if more were placed between two parts, no guard holds
            }
            offset = reply.number()?;
            let mut flat = reply.list()?;
            while !flat.is_empty() {
                let node = flat.text_by_hand()?;
                *counts.entry(node).or_default() += flat.number::<u32>()?;
            }
        }
        found.counts = counts.into_iter().collect();
        Ok(found)
    }

    /// The stored specs of pods that want something, in their order; empty where there is none.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn specs(&self, pods: &[(&PodId, &Wants)]) -> Result<Vec<String>, StoreError> {
        let keys = &self.0.keys;
        let mut pipeline = redis::pipe();
        for (pod, wants) in pods {
            let mut get = command("HGET");
            match wants
                .owner
                .strip_prefix("service:")
                .and_then(ServiceKey::parse)
            {
                Some(service) => get
                    .arg(keys.service(&service))
                    .arg(format!("spec:{}", wants.revision)),
                None => get.arg(keys.pod(pod)).arg("spec"),
            };
            pipeline.add_command(get);
        }
        let specs: Vec<Option<String>> = self.0.read("HGET", &pipeline).await?;
        Ok(specs.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Services of a namespace that have all these labels, `namespace/name`, a bounded number of them.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn services_with(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, StoreError> {
        let mut both = command("ZINTER");
        both.arg(labels.len());
        for (key, value) in labels {
            both.arg(self.0.keys.services_with(namespace, key, value));
        }
        let mut pipeline = redis::pipe();
        pipeline.add_command(both);
        let (mut services,): (Vec<String>,) = self.0.read("ZINTER", &pipeline).await?;
        services.truncate(SERVICES_WITH_MAX);
        Ok(services)
    }

    /// The node that had its turn last, where pods are placed round robin.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn round_robin(&self) -> Result<String, StoreError> {
        let mut get = command("HGET");
        get.arg(self.0.keys.cluster()).arg("round_robin");
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        let (last,): (Option<String>,) = self.0.read("HGET", &pipeline).await?;
        Ok(last.unwrap_or_default())
    }

    /// Takes back claims whose lease is over, at most `max`; answers how many entries that were.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn expire_claims(&self, max: usize) -> Result<u64, StoreError> {
        let mut reply = self
            .0
            .call(self.0.function("kl_claim_expire").arg(max))
            .await?;
        reply.expect_word("expired")?;
        reply.number::<u64>()?;
        reply.number()
    }

    /// Puts parked pods whose time has come back in the queue; answers how many.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn release_parked(&self, max: usize) -> Result<u64, StoreError> {
        let mut reply = self
            .0
            .call(self.0.function("kl_parked_release").arg(max))
            .await?;
        reply.expect_word("released")?;
        reply.number()
    }

    /// How much waits where.
    ///
    /// # Errors
    /// Redis cannot be reached, or a key was given a wrong type by hand.
    pub async fn depths(&self) -> Result<QueueDepths, StoreError> {
        let keys = &self.0.keys;
        let mut pipeline = redis::pipe();
        for (name, key) in [
            ("LLEN", keys.queue(Priority::High)),
            ("LLEN", keys.queue(Priority::Normal)),
            ("LLEN", keys.queue(Priority::Low)),
            ("ZCARD", keys.claims()),
            ("ZCARD", keys.parked()),
            ("LLEN", keys.dead()),
        ] {
            let mut count = command(name);
            count.arg(key);
            pipeline.add_command(count);
        }
        let (high, normal, low, claims, parked, dead) = self.0.read("LLEN", &pipeline).await?;
        Ok(QueueDepths {
            high,
            normal,
            low,
            claims,
            parked,
            dead,
        })
    }
}

/// A watch of one queue: tells when something lies there, and takes nothing.
pub struct Arrivals {
    store: Store,
    connection: Connection,
    queue: String,
    longest: Duration,
}

impl Arrivals {
    pub(super) async fn of(
        store: &Store,
        queue: String,
        longest: Duration,
    ) -> Result<Arrivals, StoreError> {
        let dedicated = store.redis.dedicated(longest).await;
        let connection = dedicated.map_err(StoreError::Unreachable)?;
        Ok(Arrivals {
            store: store.clone(),
            connection,
            queue,
            longest,
        })
    }

    /// Waits until the queue holds something, at most the time given at the start; answers
    /// whether it does.
    ///
    /// It moves the queue's last entry onto itself, which blocks while there is none, wakes every
    /// scheduler that waits, and leaves the queue as it was: nothing can be lost on the way.
    ///
    /// # Errors
    /// The connection is of no use any more; make another watch. Cancel-safe likewise: after a
    /// cancelled wait the watch must be dropped.
    pub async fn wait(&mut self) -> Result<bool, StoreError> {
        let mut turn = command("BLMOVE");
        turn.arg(&self.queue)
            .arg(&self.queue)
            .arg("RIGHT")
            .arg("RIGHT")
            .arg(self.longest.as_secs_f64());
        let moved: Result<Option<redis::Value>, _> = turn.query_async(&mut self.connection).await;
        match moved {
            Ok(entry) => Ok(entry.is_some()),
            Err(source) => {
                let generation = self.connection.generation();
                let keys = [self.queue.as_str()];
                let failed = self.store.failed_at(&keys, generation, "BLMOVE", source);
                Err(failed.await)
            }
        }
    }
}

/// Pods of a claim, and entries of it that are none.
pub(super) fn read_claim(reply: &mut Reply) -> Result<(Vec<WaitingPod>, Vec<Vec<u8>>), StoreError> {
    let mut waiting = reply.list()?;
    let mut pods = Vec::with_capacity(waiting.left() / 3);
    let mut raw = Vec::new();
    while !waiting.is_empty() {
        let entry = waiting.bytes()?;
        let cpu_millis = waiting.number()?;
        let memory_bytes = waiting.number()?;
        let id = std::str::from_utf8(&entry).ok().and_then(PodId::parse);
        match id {
            Some(id) => pods.push(WaitingPod {
                id,
                cpu_millis,
                memory_bytes,
                wants: None,
            }),
            // A key written by hand, whose name no pod of ours can have.
            None => raw.push(entry),
        }
    }
    let mut rest = reply.list()?;
    while !rest.is_empty() {
        raw.push(rest.bytes()?);
    }
    read_wants(&mut reply.list()?, &mut pods)?;
    Ok((pods, raw))
}

/// Gives the pods of a claim what they want; the list names them in the pods' order.
fn read_wants(flat: &mut Reply, pods: &mut [WaitingPod]) -> Result<(), StoreError> {
    let mut from = 0;
    while !flat.is_empty() {
        let id = flat.bytes()?;
        let wants = Wants {
            owner: flat.text_by_hand()?,
            revision: flat.number()?,
            host_ports: words_of(&flat.text_by_hand()?),
            avoid: words_of(&flat.text_by_hand()?),
            asks: Amounts::parse(&flat.text_by_hand()?),
        };
        let is_it = |pod: &WaitingPod| pod.id.as_str().as_bytes() == id;
        if let Some(at) = pods[from..].iter().position(is_it) {
            pods[from + at].wants = Some(Box::new(wants));
            from += at + 1;
        }
    }
    Ok(())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The words of a list with commas.
fn words_of(text: &str) -> Vec<String> {
    let words = text.split(',').filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}
