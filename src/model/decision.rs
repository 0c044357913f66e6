//! Decisions: what a scheduler decided for a batch of pods, and what it knew then.
//!
//! Plain data, as it is kept and shown. A record that holds every node holds all that its plan
//! depended on, so that it can be planned again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Amounts, Placement, PodId, Strategy};

/// Pods that a record holds: the first ones of the batch, which no later one has a say in.
pub const PODS_MAX: usize = 100;
/// Nodes that a record holds, if there are no more: else it holds the best of each kind of pods.
pub const NODES_MAX: usize = 100;
/// Nodes that are told of each kind of pods, the best first.
pub const CANDIDATES_MAX: usize = 20;
/// Kinds of pods that are told of.
pub const KINDS_MAX: usize = 8;
/// Most bytes of a record.
pub const RECORD_MAX: usize = 256 * 1024;

/// What a scheduler decided for a batch of pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// Its name: the nonce of the pods that were placed by it.
    pub id: String,
    /// When, milliseconds since 1970 by Redis's clock.
    pub time_ms: u64,
    /// The batch; chance was drawn from its name.
    pub batch: String,
    /// Strategy of pods that say none.
    pub strategy: Strategy,
    /// What counted how much in a node's score.
    pub weights: BTreeMap<String, f64>,
    /// How long a node was trusted after a heartbeat.
    pub lease_ms: u64,
    /// The node that had its turn last, where nodes take turns.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub round_robin: String,
    /// Pods of the batch.
    pub pods_all: u64,
    /// The first of them.
    pub pods: Vec<DecidedPod>,
    /// Pods that Redis gave back to the queue: the nodes were not any more as the scheduler knew them.
    #[serde(default)]
    pub given_back: u64,
    /// What is told of pods that are alike.
    pub kinds: Vec<Kind>,
    /// What pods wished of their nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<DecidedRules>,
    /// Where pods were that others looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<CountedPeer>,
    /// Nodes that the scheduler knew.
    pub nodes_all: u64,
    /// Whether it can be planned again: it holds every node.
    pub whole: bool,
    /// Those nodes, if it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<DecidedNode>,
}

/// A pod of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedPod {
    /// Its id.
    pub id: PodId,
    /// Which of `kinds` it is of, if they are told of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<usize>,
    /// The node that it was to be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why no node took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which of `rules` are its own, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<usize>,
    /// What it asked for, as the scheduler knew it.
    #[schema(value_type = Object)]
    pub asks: Value,
}

/// What the pods of a service wished of their nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedRules {
    /// The service, `namespace/name`, if it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its revision.
    pub revision: u64,
    /// The namespace of services that are named without one.
    pub namespace: String,
    /// Fixed ports of the node that each pod takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<String>,
    /// Disk, pids and devices by kind that each pod asks for.
    #[serde(default)]
    pub asks: Amounts,
    /// All that was said.
    pub placement: Placement,
    /// Services that each affinity meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Vec<String>>,
}

/// Where the pods of a service were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CountedPeer {
    /// The service, `namespace/name`.
    pub service: String,
    /// Those of one revision, or all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Nodes, each with how many there.
    pub nodes: Vec<(String, u32)>,
}

/// A node as the scheduler knew it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DecidedNode {
    /// What was known of it.
    #[schema(value_type = Object)]
    pub node: Value,
    /// Pods that this scheduler placed there since its last heartbeat.
    #[serde(default)]
    pub placed: u32,
    /// It was left out until its next heartbeat.
    #[serde(default)]
    pub doubted: bool,
}

/// How the nodes looked to pods that are alike, before the first of them was placed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Kind {
    /// Pods that are alike in what they ask for and wish.
    pub pods: u64,
    /// By what the nodes are ordered: a strategy, or `own score`.
    #[schema(example = "pressure")]
    pub by: String,
    /// Nodes that take such a pod.
    pub takes: u64,
    /// The best of them, the best first.
    pub candidates: Vec<Candidate>,
    /// Nodes that do not, by why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedNodes>,
}

/// A node that takes a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// How many of the pods were to be given to it.
    pub chosen: u64,
    /// It is to be taken only where no other can be.
    #[serde(default)]
    pub avoided: bool,
    /// Wishes that are no must and that it does not meet, by weight.
    #[serde(default)]
    pub unmet: u32,
    /// What the strategy compares, if it does; of `pressure` the score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<f64>,
    /// Its score, lower is better; it decides among equals of most other strategies.
    pub score: f64,
    /// What the score is made of, each from 0 to 1, before it is weighted.
    pub terms: BTreeMap<String, f64>,
}

/// Nodes that do not take a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RefusedNodes {
    /// How many.
    pub nodes: u64,
    /// Why.
    #[schema(example = "lack memory (2048 MiB needed, at most 1024 MiB free)")]
    pub why: String,
}

impl Decision {
    /// Its JSON, of at most [`RECORD_MAX`] bytes: where it would be longer, nodes are left out, and
    /// then pods.
    pub fn to_json(mut self) -> String {
        loop {
            // Keys are texts and numbers finite: it has a JSON form.
            let json = serde_json::to_string(&self).unwrap_or_default();
            if json.len() <= RECORD_MAX {
                return json;
            }
            if self.whole {
                self.whole = false;
                self.nodes.clear();
                self.peers.clear();
            } else if self.pods.len() > 1 {
                self.pods.truncate(self.pods.len() / 2);
                self.kinds.truncate(self.kinds.len().div_ceil(2));
                let kinds = self.kinds.len();
                for pod in &mut self.pods {
                    pod.kind = pod.kind.filter(|kind| *kind < kinds);
                }
            } else {
                self.kinds.clear();
                self.rules.clear();
                self.pods.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(pods: usize, nodes: usize, padding: usize) -> Decision {
        let pod = |replica| DecidedPod {
            id: PodId::of_submission("pod", replica),
            kind: Some(0),
            node: Some("n".to_owned()),
            reason: Some("x".repeat(padding)),
            rules: None,
            asks: Value::Null,
        };
        let node = DecidedNode {
            node: Value::String("y".repeat(padding)),
            placed: 1,
            doubted: false,
        };
        Decision {
            id: "id".to_owned(),
            time_ms: 1,
            batch: "batch".to_owned(),
            strategy: Strategy::Pressure,
            weights: BTreeMap::from([("pods".to_owned(), 0.1)]),
            lease_ms: 1,
            round_robin: String::new(),
            pods_all: 1000,
            pods: (0..100).take(pods).map(pod).collect(),
            given_back: 0,
            kinds: vec![Kind::default()],
            rules: Vec::new(),
            peers: Vec::new(),
            nodes_all: 1,
            whole: true,
            nodes: vec![node; nodes],
        }
    }

    #[test]
    fn a_record_reads_back_and_is_never_too_long() {
        let small = decision(3, 3, 10);
        let read: Decision = serde_json::from_str(&small.clone().to_json()).unwrap();
        assert_eq!(read, small);
        for (pods, nodes, padding, whole, left) in [
            (2, 100, 10_000, false, 2),
            (100, 100, 10_000, false, 25),
            (100, 1, 1_000_000, false, 0),
            (100, 100, 1_000, true, 100),
        ] {
            let json = decision(pods, nodes, padding).to_json();
            assert!(json.len() <= RECORD_MAX, "{}", json.len());
            let read: Decision = serde_json::from_str(&json).unwrap();
            assert_eq!((read.whole, read.pods.len()), (whole, left), "{padding}");
        }
    }
}
