//! The scheduler's copy of the nodes, kept in the order of their scores.
//!
//! Fed by deltas: nodes heard since the last look, and what an assign call said of the nodes it
//! touched. Pure: it reads no clock, `now_ms` is Redis's and comes from outside.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::score::{Score, Terms};
use crate::model::EngineState;
use crate::model::node::NAME_LABEL;
use crate::settings::Weights;
use crate::store::{NodeSnapshot, RoomOn, WaitingPod, Wants};

/// All nodes that were heard, and an index of those that can take a pod at all.
#[derive(Debug)]
pub struct Cluster {
    weights: Weights,
    lease_ms: u64,
    now_ms: u64,
    nodes: Vec<Entry>,
    by_name: HashMap<Arc<str>, usize>,
    /// Nodes with a living lease, an engine and a free place, best first, names breaking ties.
    index: BTreeSet<(Score, Arc<str>, usize)>,
}

#[derive(Debug)]
struct Entry {
    name: Arc<str>,
    node: NodeSnapshot,
    /// Pods we placed there since its last heartbeat.
    placed: u32,
    /// An assign call found its lease over: left out until it is heard again.
    doubted: bool,
    /// Its place in the index, if it is there.
    score: Option<Score>,
}

/// Why a node cannot take a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Its lease is over.
    Lost,
    /// Its engine does not answer.
    EngineDown,
    /// A user said that it gets no pods.
    Cordoned,
    /// It is above its pressure limit.
    Pressed,
    /// It lacks a label: this one of those that are wanted.
    Label(usize),
    /// A port is taken: this one of those that are wanted.
    Port(usize),
    /// It has as many pods as it may.
    Pods,
    /// Too little cpu is free; so much is.
    Cpu(u64),
    /// Too little memory is free; so much is.
    Memory(u64),
}

impl Cluster {
    /// An empty copy.
    pub fn new(weights: Weights, lease_ms: u64) -> Cluster {
        Cluster {
            weights,
            lease_ms,
            now_ms: 0,
            nodes: Vec::new(),
            by_name: HashMap::new(),
            index: BTreeSet::new(),
        }
    }

    /// Takes over nodes that were heard, and Redis's clock.
    pub fn hear(&mut self, now_ms: u64, heard: Vec<NodeSnapshot>) {
        self.now_ms = now_ms; // also backwards: a fail-over may lead to a host whose clock is behind
        for node in heard {
            let at = match self.by_name.get(node.name.as_str()) {
                Some(at) => *at,
                None => {
                    let name: Arc<str> = node.name.as_str().into();
                    self.nodes.push(Entry {
                        name: name.clone(),
                        node: node.clone(),
                        placed: 0,
                        doubted: false,
                        score: None,
                    });
                    self.by_name.insert(name, self.nodes.len() - 1);
                    self.nodes.len() - 1
                }
            };
            let entry = &mut self.nodes[at];
            if node.heartbeat_ms != entry.node.heartbeat_ms {
                entry.placed = 0;
                entry.doubted = false;
            }
            entry.node = node;
            self.rank(at);
        }
    }

    /// Forgets nodes that are `known` no more. Such are few: what is counted anew for it, the pods
    /// placed since the last heartbeats, soon comes with the next ones.
    pub fn keep(&mut self, known: impl Fn(&str) -> bool) {
        let entries = self.nodes.iter();
        let kept = entries.filter(|entry| known(&entry.name));
        let kept: Vec<NodeSnapshot> = kept.map(|entry| entry.node.clone()).collect();
        if kept.len() < self.nodes.len() {
            let now_ms = self.now_ms;
            *self = Cluster::new(self.weights, self.lease_ms);
            self.hear(now_ms, kept);
        }
    }

    /// Moves Redis's clock on.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Takes over what an assign call said the nodes hold now.
    pub fn set_room(&mut self, room: &RoomOn) {
        if let Some(&at) = self.by_name.get(room.node.as_str()) {
            let node = &mut self.nodes[at].node;
            node.pods = room.pods;
            node.cpu_requested = room.cpu_requested;
            node.memory_requested = room.memory_requested;
            if let Some((ports, labels)) = &room.suits {
                node.ports.clone_from(ports);
                node.labels.clone_from(labels);
            }
            self.rank(at);
        }
    }

    /// Leaves a node out until it is heard again.
    pub fn doubt(&mut self, name: &str) {
        if let Some(&at) = self.by_name.get(name) {
            self.nodes[at].doubted = true;
            self.rank(at);
        }
    }

    /// The best node that has room for `pod`, as a position for [`Cluster::name`].
    ///
    /// Nodes without room for it leave the index and are added to `passed_over`, so that a run of
    /// equal pods looks at each of them once; [`Cluster::restore`] brings them back.
    pub fn best_for(&mut self, pod: &WaitingPod, passed_over: &mut Vec<usize>) -> Option<usize> {
        if let Some(wants) = &pod.wants {
            self.restore(passed_over);
            return self.best_wanted(pod, wants);
        }
        loop {
            let (_, _, at) = self.index.first()?;
            let at = *at;
            match self.refusal(at, pod) {
                None => return Some(at),
                Some(_) => {
                    self.unrank(at);
                    passed_over.push(at);
                }
            }
        }
    }

    /// The same for a pod that wants something of its node. The index stays as it is: such pods
    /// differ from one to the next, and to take out and put back all that does not suit each would
    /// cost more than to look past it.
    fn best_wanted(&self, pod: &WaitingPod, wants: &Wants) -> Option<usize> {
        if let Some(name) = wants.selector.get(NAME_LABEL) {
            let at = *self.by_name.get(name.as_str())?;
            return self.refusal(at, pod).is_none().then_some(at);
        }
        let mut avoided = None;
        for (_, name, at) in &self.index {
            if self.refusal(*at, pod).is_some() {
                continue;
            }
            if !wants.avoid.iter().any(|avoid| **avoid == **name) {
                return Some(*at);
            }
            avoided = avoided.or(Some(*at));
        }
        avoided
    }

    /// Brings nodes back that had no room for an earlier pod.
    pub fn restore(&mut self, passed_over: &mut Vec<usize>) {
        for at in passed_over.drain(..) {
            self.rank(at);
        }
    }

    /// Counts a pod as placed.
    pub fn place(&mut self, at: usize, pod: &WaitingPod) {
        let entry = &mut self.nodes[at];
        entry.placed += 1;
        entry.node.pods += 1;
        entry.node.cpu_requested += pod.cpu_millis;
        entry.node.memory_requested += pod.memory_bytes;
        for port in pod.wants.iter().flat_map(|wants| &wants.host_ports) {
            entry.node.ports.push(',');
            entry.node.ports.push_str(port);
        }
        self.rank(at);
    }

    /// Name of the node at a position.
    pub fn name(&self, at: usize) -> &str {
        &self.nodes[at].name
    }

    /// Why each node cannot take `pod`; those that can are left out.
    pub fn refusals(&self, pod: &WaitingPod) -> Vec<Refusal> {
        (0..self.nodes.len())
            .filter_map(|at| self.refusal(at, pod))
            .collect()
    }

    /// How many nodes were heard and are not forgotten.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True if no node was ever heard.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn refusal(&self, at: usize, pod: &WaitingPod) -> Option<Refusal> {
        let entry = &self.nodes[at];
        let node = &entry.node;
        let cpu_free = node.capacity.cpu_millis.saturating_sub(node.cpu_requested);
        let memory_free = node
            .capacity
            .memory_bytes
            .saturating_sub(node.memory_requested);
        if node.lost
            || entry.doubted
            || self.now_ms.saturating_sub(node.heartbeat_ms) > self.lease_ms
        {
            Some(Refusal::Lost)
        } else if node.engine == EngineState::Down {
            Some(Refusal::EngineDown)
        } else if node.cordoned {
            Some(Refusal::Cordoned)
        } else if !node.pressed.is_empty() {
            Some(Refusal::Pressed)
        } else if let Some(refusal) = pod.wants.as_ref().and_then(|wants| unwanted(node, wants)) {
            Some(refusal)
        } else if node.pods >= node.capacity.pods_max {
            Some(Refusal::Pods)
        } else if pod.cpu_millis > cpu_free {
            Some(Refusal::Cpu(cpu_free))
        } else if pod.memory_bytes > memory_free {
            Some(Refusal::Memory(memory_free))
        } else {
            None
        }
    }

    /// Puts a node where it belongs in the index, or takes it out.
    fn rank(&mut self, at: usize) {
        self.unrank(at);
        let entry = &mut self.nodes[at];
        let node = &entry.node;
        let open = !node.lost
            && !entry.doubted
            && node.engine == EngineState::Up
            && !node.cordoned
            && node.pressed.is_empty()
            && node.pods < node.capacity.pods_max;
        if open {
            let score = Terms::of(node, entry.placed).score(&self.weights);
            entry.score = Some(score);
            self.index.insert((score, entry.name.clone(), at));
        }
    }

    fn unrank(&mut self, at: usize) {
        let entry = &mut self.nodes[at];
        if let Some(score) = entry.score.take() {
            self.index.remove(&(score, entry.name.clone(), at));
        }
    }
}

/// What a node lacks of what a pod wants.
fn unwanted(node: &NodeSnapshot, wants: &Wants) -> Option<Refusal> {
    let lacks = |(key, value): (&String, &String)| {
        if key == NAME_LABEL {
            return *value != node.name;
        }
        let has = |pair: &str| pair.split_once('=') == Some((key, value));
        !node.labels.split(',').any(has)
    };
    if let Some(label) = wants.selector.iter().position(lacks) {
        return Some(Refusal::Label(label));
    }
    let taken = |port: &String| node.ports.split(',').any(|used| used == port);
    wants.host_ports.iter().position(taken).map(Refusal::Port)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::{Capacity, Pressure};

    /// A node that offers much and is not pressed.
    pub(crate) fn calm(name: &str) -> NodeSnapshot {
        NodeSnapshot {
            name: name.to_owned(),
            heartbeat_ms: 1_000,
            lost: false,
            engine: EngineState::Up,
            capacity: Capacity {
                pods_max: 250,
                cpu_millis: 8_000,
                memory_bytes: 16 << 30,
            },
            pods: 0,
            cpu_requested: 0,
            memory_requested: 0,
            cpu_used: 0.0,
            memory_used_bytes: 0,
            pressure: Pressure {
                known: true,
                ..Pressure::default()
            },
            epoch: 1,
            version: String::new(),
            labels: String::new(),
            ports: String::new(),
            cordoned: false,
            draining: false,
            pressed: String::new(),
        }
    }

    #[test]
    fn a_node_that_is_heard_again_is_no_longer_doubted() {
        let mut cluster = Cluster::new(Weights::default(), 20_000);
        cluster.hear(1_000, vec![calm("a")]);
        cluster.doubt("a");
        assert!(cluster.index.is_empty());
        let mut later = calm("a");
        later.heartbeat_ms = 2_000;
        cluster.hear(2_000, vec![later]);
        assert_eq!(cluster.index.len(), 1);
    }

    #[test]
    fn a_node_that_is_forgotten_is_counted_no_more() {
        let mut cluster = Cluster::new(Weights::default(), 20_000);
        cluster.hear(1_000, vec![calm("a"), calm("b"), calm("c")]);
        cluster.keep(|name| name != "b");
        assert_eq!((cluster.len(), cluster.index.len()), (2, 2));
        assert_eq!((cluster.name(0), cluster.name(1)), ("a", "c"));
        cluster.hear(1_000, vec![calm("b")]);
        assert_eq!((cluster.len(), cluster.index.len()), (3, 3));
    }
}
