//! All that a plan depends on in the copy of the nodes, to be put down and built up again.

use super::{Cluster, Peer};
use crate::model::Strategy;
use crate::settings::Weights;
use crate::store::NodeSnapshot;

/// What plans depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What counts how much.
    pub weights: Weights,
    /// Strategy of pods that say none.
    pub strategy: Strategy,
    /// How long a node is trusted after a heartbeat.
    pub lease_ms: u64,
    /// Redis's clock.
    pub now_ms: u64,
    /// The node that had its turn last.
    pub round_robin: String,
    /// The nodes.
    pub nodes: Vec<KnownNode>,
    /// Where pods of services are.
    pub peers: Vec<(Peer, Vec<(String, u32)>)>,
}

/// A node, and what the scheduler itself knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownNode {
    /// As it was read.
    pub node: NodeSnapshot,
    /// Pods placed there since its last heartbeat.
    pub placed: u32,
    /// It is left out until it is heard again.
    pub doubted: bool,
}

impl Cluster {
    /// What plans depend on now, with where the pods of `peers` are; `nodes` tells whether with the
    /// nodes.
    pub fn state(&self, peers: impl IntoIterator<Item = Peer>, nodes: bool) -> State {
        let entries = self.nodes.iter().filter(|_| nodes);
        let known = entries.map(|entry| KnownNode {
            node: entry.node.clone(),
            placed: entry.placed,
            doubted: entry.doubted,
        });
        let counted = peers.into_iter().filter_map(|peer| {
            let counts = self.peers.counts(&peer)?.into_iter();
            let counts = counts.map(|(at, count)| (self.name(at).to_owned(), count));
            Some((peer, counts.collect()))
        });
        State {
            weights: self.weights,
            strategy: self.strategy,
            lease_ms: self.lease_ms,
            now_ms: self.now_ms,
            round_robin: self.round_robin.0.clone(),
            nodes: known.collect(),
            peers: counted.collect(),
        }
    }

    /// A copy of the nodes for which the same holds.
    pub fn of(state: &State) -> Cluster {
        let mut cluster = Cluster::new(state.weights, state.strategy, state.lease_ms);
        let nodes = state.nodes.iter().map(|known| known.node.clone());
        cluster.hear(state.now_ms, nodes.collect());
        for (entry, known) in cluster.nodes.iter_mut().zip(&state.nodes) {
            entry.placed = known.placed;
            entry.doubted = known.doubted;
        }
        cluster.set_round_robin(state.round_robin.clone());
        for (peer, counts) in &state.peers {
            cluster.count(peer.clone(), String::new(), counts);
        }
        cluster
    }
}
