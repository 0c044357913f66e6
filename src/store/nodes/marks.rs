//! What users say of nodes: labels, cordon, drain, removal; and the steps by which a drain goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Nodes;
use crate::model::node::LABELS_MAX;
use crate::store::StoreError;
use crate::store::queue::millis;

/// Pods of a removed node that one call moves, as in the sweep.
const REMOVE_STEP: usize = 500;

/// What a user wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It gets pods.
    Open,
    /// It gets no new pods, and keeps those it has.
    Cordon,
    /// It gets no new pods, and those it has are moved elsewhere.
    Drain,
}

/// What became of a wish for a node's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOutcome {
    /// They stand.
    Labelled,
    /// There is no such node.
    Absent,
    /// Users would have set more than [`LABELS_MAX`].
    Full,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveOutcome {
    /// The node is forgotten; so many of its pods wait again.
    Removed {
        /// Pods that were still on it.
        pods: u64,
    },
    /// There is no such node.
    Absent,
    /// Its agent was heard so long ago, and holds its lease.
    Heard(Duration),
    /// So many pods are on it.
    Occupied(u64),
}

/// One step of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictOutcome {
    /// It was looked at some pods.
    Moving {
        /// Pods without an owner that were told to leave.
        pods: u64,
        /// Where the next step goes on; 0 after the last.
        cursor: u64,
    },
    /// The node does not drain.
    Rests,
}

impl Nodes<'_> {
    /// Sets labels, and removes those without a value. Labels of the agent's own settings are not
    /// removed by that, only those set over them.
    ///
    /// # Errors
    /// Redis cannot be reached, or too few replicas confirmed it.
    pub async fn label(
        &self,
        node: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<LabelOutcome, StoreError> {
        let set = || {
            labels
                .iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        };
        let mut call = self.0.function("kl_node_label").arg(node).arg(LABELS_MAX);
        call.command.arg(set().count());
        for (key, value) in set() {
            call.command.arg(key).arg(value);
        }
        for (key, _) in labels.iter().filter(|(_, value)| value.is_none()) {
            call.command.arg(key);
        }
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "labelled" => Ok(LabelOutcome::Labelled),
            "absent" => Ok(LabelOutcome::Absent),
            "full" => Ok(LabelOutcome::Full),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Says whether a node gets pods, and keeps those it has; answers whether there is such a node.
    ///
    /// # Errors
    /// Redis cannot be reached, or too few replicas confirmed it.
    pub async fn mark(&self, node: &str, mark: Mark) -> Result<bool, StoreError> {
        let word = match mark {
            Mark::Open => "open",
            Mark::Cordon => "cordon",
            Mark::Drain => "drain",
        };
        let call = self.0.function("kl_node_mark").arg(node).arg(word);
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "marked" => Ok(true),
            "absent" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Names of the nodes that drain.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn draining(&self) -> Result<Vec<String>, StoreError> {
        let mut reply = self.0.call(self.0.function("kl_node_draining")).await?;
        reply.expect_word("nodes")?;
        let mut names = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            names.push(reply.text_by_hand()?);
        }
        Ok(names)
    }

    /// Goes on with a drain: about `max` pods from `cursor` on, which is 0 at first. With `tell`
    /// the services that have pods there are looked at by their controller.
    ///
    /// # Errors
    /// Redis cannot be reached; the next round goes on.
    pub async fn evict(
        &self,
        node: &str,
        cursor: u64,
        max: usize,
        tell: bool,
    ) -> Result<EvictOutcome, StoreError> {
        let call = self.0.function("kl_node_evict").arg(node).arg(cursor);
        let call = call.arg(max).arg(u8::from(tell));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "moving" => Ok(EvictOutcome::Moving {
                pods: reply.number()?,
                cursor: reply.number()?,
            }),
            "rests" => Ok(EvictOutcome::Rests),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Forgets a node; by force also one that is heard or has pods, which then wait again.
    ///
    /// # Errors
    /// Redis cannot be reached; some of its pods may have moved already.
    pub async fn remove(
        &self,
        node: &str,
        lease: Duration,
        force: bool,
    ) -> Result<RemoveOutcome, StoreError> {
        let mut pods = 0;
        loop {
            let call = self.0.function("kl_node_remove").arg(node);
            let call = call.arg(millis(lease)).arg(u8::from(force));
            let mut reply = self.0.commit(call.arg(REMOVE_STEP)).await?;
            let word = reply.text()?;
            match word.as_str() {
                "removed" => {
                    pods += reply.number::<u64>()?;
                    return Ok(RemoveOutcome::Removed { pods });
                }
                "sweeping" => pods += reply.number::<u64>()?,
                "absent" => return Ok(RemoveOutcome::Absent),
                "heard" => {
                    let ago = Duration::from_millis(reply.number()?);
                    return Ok(RemoveOutcome::Heard(ago));
                }
                "occupied" => return Ok(RemoveOutcome::Occupied(reply.number()?)),
                _ => return Err(reply.unknown(word)),
            }
        }
    }
}
