//! The queue in Redis: waiting for arrivals, claiming batches, assigning them, taking claims back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::call::{Reply, command};
use super::connection::Connection;
use super::{Store, StoreError};
use crate::model::node::read_labels;
use crate::model::{Amounts, PodId, Priority};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPod {
    /// Its id.
    pub id: PodId,
    /// Thousandths of a core it asks for.
    pub cpu_millis: u64,
    /// Bytes it asks for.
    pub memory_bytes: u64,
    /// What it wants of its node, where it wants anything.
    pub wants: Option<Box<Wants>>,
}

/// What a pod wants of its node, beside room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wants {
    /// Ports of the node that no other pod has, such as `8080/tcp`.
    pub host_ports: Vec<String>,
    /// Labels that the node must have.
    pub selector: BTreeMap<String, String>,
    /// Nodes that are taken only where no other fits.
    pub avoid: Vec<String>,
    /// What it asks for beside cpu and memory: disk, pids and devices by kind.
    pub asks: Amounts,
}

/// Which node each pod of a claim is given, and which pods fit nowhere.
#[derive(Debug, Clone, Default)]
pub struct Assignment<'a> {
    /// Names of the nodes that `pods` point to.
    pub nodes: Vec<&'a str>,
    /// Pods, each with the position of its node.
    pub pods: Vec<(&'a PodId, usize)>,
    /// Pods that fit nowhere now.
    pub parked: Vec<Parked<'a>>,
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
    /// Fixed ports in use and labels, as they are stored; told where pods with wishes were meant
    /// for it.
    pub suits: Option<(String, String)>,
    /// Amounts asked for and devices in use, as they are stored; told where any were asked of it.
    pub stock: Option<(String, String)>,
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
                read_asks(&mut reply.list()?, &mut pods)?;
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
        for node in &assignment.nodes {
            command.arg(*node);
        }
        command.arg(assignment.pods.len());
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
                    let suits = (suiting.text_by_hand()?, suiting.text_by_hand()?);
                    if let Some(on) = nodes.find(|on| on.node == name) {
                        on.suits = Some(suits);
                    }
                }
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
                })
            }
            _ => Err(reply.unknown(word)),
        }
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
            Err(source) => Err(self
                .store
                .failed(self.connection.generation(), "BLMOVE", source)),
        }
    }
}

/// Gives the pods of a claim what they want; the list names them in the pods' order.
fn read_wants(flat: &mut Reply, pods: &mut [WaitingPod]) -> Result<(), StoreError> {
    let words = |text: String| -> Vec<String> {
        let words = text.split(',').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let mut from = 0;
    while !flat.is_empty() {
        let id = flat.bytes()?;
        let wants = Wants {
            host_ports: words(flat.text_by_hand()?),
            selector: read_labels(&flat.text_by_hand()?),
            avoid: words(flat.text_by_hand()?),
            asks: Amounts::default(),
        };
        let is_it = |pod: &WaitingPod| pod.id.as_str().as_bytes() == id;
        if let Some(at) = pods[from..].iter().position(is_it) {
            pods[from + at].wants = Some(Box::new(wants));
            from += at + 1;
        }
    }
    Ok(())
}

/// Adds what they ask for; the list names them in the pods' order.
fn read_asks(flat: &mut Reply, pods: &mut [WaitingPod]) -> Result<(), StoreError> {
    let mut pods = pods.iter_mut();
    while !flat.is_empty() {
        let id = flat.bytes()?;
        let asks = Amounts::parse(&flat.text_by_hand()?);
        let it = pods.find(|pod| pod.id.as_str().as_bytes() == id);
        if let Some(wants) = it.and_then(|pod| pod.wants.as_mut()) {
            wants.asks = asks;
        }
    }
    Ok(())
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
