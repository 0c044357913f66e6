//! Nodes under lasting pressure: what they tell of their pods, and moves off them.

use std::collections::HashMap;
use std::time::Duration;

use super::record::{read_snapshot, snapshot_of};
use super::{NodeSnapshot, Nodes, Seen};
use crate::model::{PodId, Priority, ServiceKey, ServiceSpec};
use crate::store::StoreError;
use crate::store::call::command;
use crate::store::queue::millis;

/// Nodes under pressure that are looked at in one round; others follow as these are calm again.
const STRAINED_STEP: usize = 100;
/// Moves looked at in one round.
const MOVES_STEP: usize = 1000;

/// What a pod uses of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUse {
    /// The pod.
    pub pod: PodId,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes read from disks and written to them, each second.
    pub io_bytes: u64,
}

/// How long a node has been under pressure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strain {
    /// In so many heartbeats in a row.
    pub beats: u64,
    /// From the first of them to the last.
    pub lasts: Duration,
}

/// A running pod of a service on a node under pressure.
#[derive(Debug, Clone, PartialEq)]
pub struct Culprit {
    /// The pod.
    pub pod: PodId,
    /// Its placement.
    pub attempt: u64,
    /// Its service.
    pub service: ServiceKey,
    /// Thousandths of a core it asks for.
    pub cpu_millis: u64,
    /// Bytes it asks for.
    pub memory_bytes: u64,
    /// Its priority.
    pub priority: Priority,
    /// How many pods its service wants.
    pub replicas: u32,
    /// Its service changes, is not whole, or was moved lately: nothing of it is moved now.
    pub rests: bool,
    /// What it runs; `None` if the record is damaged.
    pub spec: Option<Box<ServiceSpec>>,
}

/// Whether a pod is moved, or that is only suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveMode {
    /// An event says so.
    Suggest,
    /// It is moved.
    On,
}

/// A pod to move off its node.
#[derive(Debug, Clone)]
pub struct MoveWish<'a> {
    /// The pod.
    pub pod: &'a PodId,
    /// Its node.
    pub node: &'a str,
    /// Its placement.
    pub attempt: u64,
    /// Why, in words.
    pub why: &'a str,
}

/// What holds for all moves, whichever scheduler makes them.
#[derive(Debug, Clone, Copy)]
pub struct MoveRules {
    /// Whether they are made.
    pub mode: MoveMode,
    /// Most of them within a minute.
    pub per_minute: u32,
    /// How long a service is left alone after one.
    pub rest: Duration,
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// Its service is told: another pod is made first.
    Moving,
    /// It was only suggested.
    Suggested,
    /// It is not there as planned.
    Gone,
    /// Its service changes, or another pod leaves the node.
    Busy,
    /// Its service, or a node of which a move was suggested, is left alone for so long.
    Resting(Duration),
    /// There were enough moves in the last minute; again in so long.
    Full(Duration),
}

impl Nodes<'_> {
    /// Nodes that tell which of their pods use most, as they do under pressure, with these.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn strained(&self) -> Result<Vec<(NodeSnapshot, Vec<PodUse>)>, StoreError> {
        let mut range = command("ZRANGE");
        range.arg(self.0.keys.nodes_strained());
        range.arg(0).arg(STRAINED_STEP - 1);
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (names,): (Vec<String>,) = self.0.read("ZRANGE", &pipeline).await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for name in &names {
            let mut get = command("HGETALL");
            get.arg(self.0.keys.node(name));
            pipeline.add_command(get);
        }
        let hashes: Vec<HashMap<String, String>> = self.0.read("HGETALL", &pipeline).await?;
        let nodes = names.into_iter().zip(hashes).map(|(name, hash)| {
            let field = |field: &str| hash.get(field).map(String::as_str);
            let users = read_users(field("users").unwrap_or_default());
            (snapshot_of(name, field), users)
        });
        Ok(nodes.collect())
    }

    /// Counts a heartbeat by which a node is under pressure, or says that it is not; how long it has
    /// been. After a gap longer than `gap` it begins anew.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn strain(
        &self,
        node: &NodeSnapshot,
        is_strained: bool,
        gap: Duration,
    ) -> Result<Option<Strain>, StoreError> {
        let call = self.0.function("kl_node_strain");
        let call = call.arg(&node.name).arg(node.heartbeat_ms);
        let call = call.arg(u8::from(is_strained)).arg(millis(gap));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "calm" => Ok(None),
            "strained" => Ok(Some(Strain {
                beats: reply.number()?,
                lasts: Duration::from_millis(reply.number()?),
            })),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Those of `users` that are running pods of services on the node.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn culprits(
        &self,
        node: &str,
        rest: Duration,
        users: &[PodUse],
    ) -> Result<Vec<Culprit>, StoreError> {
        let call = self.0.function("kl_node_culprits");
        let mut call = call.arg(node).arg(millis(rest));
        for user in users {
            call.command.arg(user.pod.as_str());
        }
        let mut reply = self.0.call(call).await?;
        reply.expect_word("culprits")?;
        let mut culprits = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            let mut one = reply.list()?;
            let pod = PodId::parse(&one.text_by_hand()?);
            let attempt = one.text_by_hand()?.parse().ok();
            let service = ServiceKey::parse(&one.text_by_hand()?);
            let (cpu_millis, memory_bytes) = (one.number()?, one.number()?);
            let priority = one.text_by_hand()?;
            let replicas = u32::try_from(one.number::<u64>()?).unwrap_or(u32::MAX);
            let rests = !one.text()?.is_empty();
            let spec = serde_json::from_slice(&one.bytes()?).ok().map(Box::new);
            // What a person wrote there is nothing to be moved.
            if let (Some(pod), Some(attempt), Some(service)) = (pod, attempt, service) {
                let mut known = Priority::ALL.into_iter();
                let priority = known.find(|it| it.as_str() == priority);
                culprits.push(Culprit {
                    pod,
                    attempt,
                    service,
                    cpu_millis,
                    memory_bytes,
                    priority: priority.unwrap_or_default(),
                    replicas,
                    rests,
                    spec,
                });
            }
        }
        Ok(culprits)
    }

    /// Up to `max` living nodes: those heard longest ago, so any in a cluster of many.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn some(&self, max: usize) -> Result<Seen, StoreError> {
        let call = self.0.function("kl_node_snapshot");
        let mut reply = self.0.call(call.arg(0).arg(0).arg(max)).await?;
        reply.expect_word("nodes")?;
        let now_ms = reply.number()?;
        let _next_page = (reply.text()?, reply.text()?);
        let mut nodes = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            nodes.push(read_snapshot(&mut reply.list()?)?);
        }
        Ok(Seen { now_ms, nodes })
    }

    /// Has a pod leave its node for another, or suggests it, as far as the rules allow now.
    ///
    /// # Errors
    /// Redis cannot be reached; it may have been told all the same.
    pub async fn move_pod(
        &self,
        wish: &MoveWish<'_>,
        rules: &MoveRules,
    ) -> Result<MoveOutcome, StoreError> {
        let mode = match rules.mode {
            MoveMode::Suggest => "suggest",
            MoveMode::On => "on",
        };
        let call = self.0.function("kl_pod_move").arg(mode);
        let call = call.arg(wish.pod.as_str()).arg(wish.node);
        let call = call.arg(wish.attempt).arg(wish.why);
        let call = call.arg(rules.per_minute).arg(millis(rules.rest));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "moving" => Ok(MoveOutcome::Moving),
            "suggested" => Ok(MoveOutcome::Suggested),
            "gone" => Ok(MoveOutcome::Gone),
            "busy" => Ok(MoveOutcome::Busy),
            "resting" => Ok(MoveOutcome::Resting(Duration::from_millis(reply.number()?))),
            "full" => Ok(MoveOutcome::Full(Duration::from_millis(reply.number()?))),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Has pods stay after all that were to leave their node longer than `patience` ago; how many.
    ///
    /// # Errors
    /// Redis cannot be reached; the next round goes on.
    pub async fn expire_moves(&self, patience: Duration) -> Result<u64, StoreError> {
        let call = self.0.function("kl_move_expire");
        let mut reply = self
            .0
            .call(call.arg(millis(patience)).arg(MOVES_STEP))
            .await?;
        reply.expect_word("expired")?;
        reply.number()
    }
}

/// `<pod>:<cpu millis>:<memory bytes>:<io bytes>` with commas: one field, readable in `redis-cli`.
pub(super) fn write_users(users: &[PodUse]) -> String {
    let words = users.iter().map(|user| {
        let PodUse {
            pod,
            cpu_millis,
            memory_bytes,
            io_bytes,
        } = user;
        format!("{pod}:{cpu_millis}:{memory_bytes}:{io_bytes}")
    });
    words.collect::<Vec<String>>().join(",")
}

pub(in crate::store) fn read_users(text: &str) -> Vec<PodUse> {
    let read = |word: &str| {
        let mut parts = word.split(':');
        let pod = PodId::parse(parts.next()?)?;
        let mut number = || parts.next()?.parse().ok();
        Some(PodUse {
            pod,
            cpu_millis: number()?,
            memory_bytes: number()?,
            io_bytes: number()?,
        })
    };
    text.split(',').filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_read_back_and_rubbish_is_left_out() {
        let user = |pod: &str, cpu_millis| PodUse {
            pod: PodId::parse(pod).unwrap(),
            cpu_millis,
            memory_bytes: 7,
            io_bytes: 0,
        };
        let users = vec![user("a-0", 1500), user("b-1", 0)];
        let text = write_users(&users);
        assert_eq!(read_users(&text), users);
        assert_eq!(read_users(&format!("x:1,{text},::,y:1:2:z,")), users);
        assert_eq!(read_users(""), Vec::new());
    }
}
