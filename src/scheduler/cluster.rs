//! The scheduler's copy of the nodes, and which of them is the best for a pod.
//!
//! Fed by deltas: nodes heard since the last look, and what an assign call said of the nodes it
//! touched. Pure: it reads no clock, `now_ms` is Redis's and comes from outside.

mod judge;
mod state;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::peers::{Peer, Peers, Unmet, View};
use super::ranking::{Alike, Journal, Ranking, Rankings};
use super::rules::{Like, Rules, Unsuited};
use super::score::Terms;
use super::stock::{self, Lack};
use super::strategy::Key;
use crate::model::node::{NAME_LABEL, read_labels};
use crate::model::{Amounts, EngineState, Strategy};
use crate::settings::Weights;
use crate::store::{Guard, NodeSnapshot, RoomOn, WaitingPod};
pub use judge::Judged;
pub use state::{KnownNode, State};

/// Nodes that are compared for one pod that looks at other pods: of larger clusters a part, which
/// begins anywhere.
pub(super) const COMPARED_MAX: usize = 8192;

/// A waiting pod with its rules, if it has any.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The pod.
    pub pod: &'a WaitingPod,
    /// What it wishes of its node.
    pub rules: Option<Arc<Rules>>,
}

/// All nodes that were heard.
#[derive(Debug)]
pub struct Cluster {
    weights: Weights,
    strategy: Strategy,
    lease_ms: u64,
    now_ms: u64,
    nodes: Vec<Entry>,
    by_name: HashMap<Arc<str>, usize>,
    /// Positions in the order of names; empty if nodes came since.
    by_order: Vec<usize>,
    /// Grows as any node's labels change.
    labels_turn: u64,
    journal: Journal,
    rankings: Rankings,
    peers: Peers,
    view: Option<View>,
    /// The node that had its turn last: as known when the batch began, and now.
    round_robin: (String, String),
    /// What chance is drawn from.
    seed: String,
    nothing: Arc<Like>,
}

/// One node.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) node: NodeSnapshot,
    pub(super) labels: BTreeMap<String, String>,
    /// How often its labels changed here.
    pub(super) marks: u32,
    /// Pods we placed there since its last heartbeat.
    pub(super) placed: u32,
    /// Its place in the order of names.
    pub(super) order: u32,
    /// An assign call found its lease over: left out until it is heard again.
    doubted: bool,
}

/// Why a node cannot take a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// It does not suit by itself.
    Unsuited(Unsuited),
    /// It does not suit in view of other pods.
    Unmet(Unmet),
    /// A port is taken: this one of those that are wanted.
    Port(usize),
    /// Too little memory is free; so much is.
    Memory(u64),
    /// Too little cpu is free; so much is.
    Cpu(u64),
    /// Too little of something else is free.
    Asks(Lack),
    /// It has as many pods as it may.
    Pods,
    /// A user said that it gets no pods.
    Cordoned,
    /// It is above its pressure limit.
    Pressed,
    /// Its engine does not answer.
    EngineDown,
    /// Its lease is over.
    Lost,
}

/// An amount of room: what a pod misses on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Places for pods.
    pub pods: u32,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Fixed ports.
    pub host_ports: Vec<String>,
    /// Disk, pids and devices by kind.
    pub asks: Amounts,
}

impl Entry {
    /// Why it takes no pods at all; whether its lease is over is another question.
    fn shut(&self) -> Option<Refusal> {
        let node = &self.node;
        if node.lost || self.doubted {
            Some(Refusal::Lost)
        } else if node.engine == EngineState::Down {
            Some(Refusal::EngineDown)
        } else if node.cordoned {
            Some(Refusal::Cordoned)
        } else if !node.pressed.is_empty() {
            Some(Refusal::Pressed)
        } else {
            None
        }
    }

    /// Whether it takes no pods at all.
    pub(super) fn is_shut(&self) -> bool {
        self.shut().is_some()
    }

    /// What it lacks of room for such a pod.
    pub(super) fn lacks(&self, alike: &Alike) -> Option<Refusal> {
        let node = &self.node;
        let cpu_free = node.capacity.cpu_millis.saturating_sub(node.cpu_requested);
        let memory = node.capacity.memory_bytes;
        let memory_free = memory.saturating_sub(node.memory_requested);
        let taken = |port: &String| node.ports.split(',').any(|used| used == port);
        if let Some(port) = alike.like.host_ports().iter().position(taken) {
            Some(Refusal::Port(port))
        } else if node.pods >= node.capacity.pods_max {
            Some(Refusal::Pods)
        } else if alike.cpu_millis > cpu_free {
            Some(Refusal::Cpu(cpu_free))
        } else if alike.memory_bytes > memory_free {
            Some(Refusal::Memory(memory_free))
        } else {
            stock::lacking(&node.stock, alike.like.asks()).map(Refusal::Asks)
        }
    }
}

impl Cluster {
    /// An empty copy; `strategy` is of pods that say none.
    pub fn new(weights: Weights, strategy: Strategy, lease_ms: u64) -> Cluster {
        Cluster {
            weights,
            strategy,
            lease_ms,
            now_ms: 0,
            nodes: Vec::new(),
            by_name: HashMap::new(),
            by_order: Vec::new(),
            labels_turn: 0,
            journal: Journal::default(),
            rankings: Rankings::default(),
            peers: Peers::default(),
            view: None,
            round_robin: (String::new(), String::new()),
            seed: String::new(),
            nothing: Arc::new(Like::nothing()),
        }
    }

    /// Takes over nodes that were heard, and Redis's clock.
    pub fn hear(&mut self, now_ms: u64, heard: Vec<NodeSnapshot>) {
        self.now_ms = now_ms; // also backwards: a fail-over may lead to a host whose clock is behind
        for node in heard {
            match self.by_name.get(node.name.as_str()) {
                Some(at) => self.hear_again(*at, node),
                None => self.hear_first(node),
            }
        }
    }

    fn hear_first(&mut self, node: NodeSnapshot) {
        let name: Arc<str> = node.name.as_str().into();
        self.by_name.insert(name.clone(), self.nodes.len());
        self.nodes.push(Entry {
            labels: labels_of(&node),
            name,
            node,
            marks: 0,
            placed: 0,
            order: 0,
            doubted: false,
        });
        self.by_order.clear();
    }

    fn hear_again(&mut self, at: usize, node: NodeSnapshot) {
        let entry = &mut self.nodes[at];
        if node.heartbeat_ms != entry.node.heartbeat_ms {
            entry.placed = 0;
            entry.doubted = false;
        }
        let relabelled = node.labels != entry.node.labels || node.platform != entry.node.platform;
        entry.node = node;
        if relabelled {
            self.relabel(at);
        }
        self.note(at);
    }

    fn relabel(&mut self, at: usize) {
        let entry = &mut self.nodes[at];
        entry.labels = labels_of(&entry.node);
        entry.marks += 1;
        self.labels_turn += 1;
    }

    fn note(&mut self, at: usize) {
        self.journal.note(at, self.nodes.len());
    }

    /// Forgets nodes that are `known` no more. Such are few: what is counted anew for it, the pods
    /// placed since the last heartbeats, soon comes with the next ones.
    pub fn keep(&mut self, known: impl Fn(&str) -> bool) {
        let entries = self.nodes.iter();
        let kept = entries.filter(|entry| known(&entry.name));
        let kept: Vec<NodeSnapshot> = kept.map(|entry| entry.node.clone()).collect();
        if kept.len() < self.nodes.len() {
            let now_ms = self.now_ms;
            *self = Cluster::new(self.weights, self.strategy, self.lease_ms);
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
            if let Some((asked, used)) = &room.stock {
                node.stock.asked.clone_from(asked);
                node.stock.devices_used.clone_from(used);
            }
            if let Some(suits) = &room.suits {
                node.turn = suits.turn;
                node.ports.clone_from(&suits.ports);
                if node.labels != suits.labels {
                    node.labels.clone_from(&suits.labels);
                    self.relabel(at);
                }
            }
            self.note(at);
        }
    }

    /// Leaves a node out until it is heard again.
    pub fn doubt(&mut self, name: &str) {
        if let Some(&at) = self.by_name.get(name) {
            self.nodes[at].doubted = true;
            self.note(at);
        }
    }

    /// Takes over where the pods of a service are.
    pub fn count(&mut self, peer: Peer, placed: String, counts: &[(String, u32)]) {
        let at = |(name, count): &(String, u32)| Some((*self.by_name.get(name.as_str())?, *count));
        let by_node = counts.iter().filter_map(at).collect();
        self.peers.count(peer, placed, by_node);
    }

    /// Forgets where pods are.
    pub fn forget_peers(&mut self) {
        self.peers.clear();
        self.view = None;
    }

    /// Whether it is known where the pods of a service are.
    pub fn counts(&self, peer: &Peer) -> bool {
        self.peers.placed(peer).is_some()
    }

    /// Counts that an assign call placed pods of a service once more.
    pub fn was_placed(&mut self, service: &str) {
        self.peers.was_placed(service);
    }

    /// Says which node had its turn last.
    pub fn set_round_robin(&mut self, node: String) {
        self.round_robin = (node.clone(), node);
    }

    /// Begins a batch; `seed` is what chance is drawn from.
    pub fn begin(&mut self, seed: &str) {
        seed.clone_into(&mut self.seed);
        self.view = None;
        self.rankings.try_own_scores_again();
        self.round_robin.1.clone_from(&self.round_robin.0);
        if self.by_order.len() != self.nodes.len() {
            let mut by_order: Vec<usize> = (0..self.nodes.len()).collect();
            by_order
                .sort_unstable_by(|one, other| self.nodes[*one].name.cmp(&self.nodes[*other].name));
            for (order, at) in by_order.iter().enumerate() {
                self.nodes[*at].order = u32::try_from(order).unwrap_or(u32::MAX);
            }
            self.by_order = by_order;
            self.rankings.clear();
            self.peers.forget_domains();
        }
    }

    /// What the places of bound pods stand on.
    pub fn guards<'a>(
        &self,
        rules: impl Iterator<Item = &'a Arc<Rules>>,
        takes_turns: bool,
    ) -> Vec<Guard> {
        let mut guards: Vec<Guard> = Vec::new();
        let mut add = |guard: Guard| {
            if !guards.contains(&guard) {
                guards.push(guard);
            }
        };
        let mut seen: Option<*const Rules> = None;
        let mut takes_turns = takes_turns;
        for rules in rules {
            if seen.replace(Arc::as_ptr(rules)) == Some(Arc::as_ptr(rules)) {
                continue;
            }
            takes_turns |= rules.like.strategy(self.strategy) == Strategy::RoundRobin;
            for peer in rules.peers() {
                let known = self.peers.placed(&peer).unwrap_or_default().to_owned();
                let service = peer.service;
                add(Guard::Placed { service, known });
            }
        }
        if takes_turns {
            let (known, next) = self.round_robin.clone();
            add(Guard::RoundRobin { known, next });
        }
        guards
    }

    /// The best node that takes a pod, as a position for [`Cluster::name`].
    pub fn best_for(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let alike = self.alike(ask);
        if let Some(name) = alike.like.pinned() {
            let at = *self.by_name.get(name)?;
            return self.refusal(at, ask).is_none().then_some(at);
        }
        let (now_ms, lease_ms) = (self.now_ms, self.lease_ms);
        let nodes = &self.nodes;
        let alive = |at: usize| is_alive(&nodes[at], now_ms, lease_ms);
        let wants = ask.pod.wants.as_deref();
        let avoid = wants
            .map(|wants| wants.avoid.as_slice())
            .unwrap_or_default();
        let avoided = |at: usize| avoid.iter().any(|name| **name == *nodes[at].name);
        let rankings = &mut self.rankings;
        let ranking = rankings.of(&alike, nodes, &self.journal, &self.weights, self.strategy);
        let rules = ask.rules.as_ref();
        let Some(rules) = rules.filter(|rules| rules.placement.looks_at_pods()) else {
            return if ranking.is_cyclic() {
                let from = turn(
                    ranking,
                    nodes,
                    &self.by_order,
                    &self.round_robin.1,
                    &self.seed,
                    ask,
                );
                let takes = |at: &usize| ranking.place(*at).is_some() && alive(*at);
                best_in_turn(&self.by_order, from, takes, avoided)
            } else {
                ranking.best(alive, avoided)
            };
        };
        if !self.view.as_ref().is_some_and(|view| view.is_of(rules)) {
            let view = self.peers.view(rules, nodes, self.labels_turn, ranking);
            self.view = Some(view);
        }
        let view = self.view.as_ref()?;
        let from = turn(
            ranking,
            nodes,
            &self.by_order,
            &self.round_robin.1,
            &self.seed,
            ask,
        );
        if ranking.is_cyclic() {
            let takes =
                |at: &usize| ranking.place(*at).is_some() && view.judge(*at).is_ok() && alive(*at);
            return best_in_turn(&self.by_order, from, takes, avoided);
        }
        compare(ranking, view, &self.by_order, from, alive, avoided)
    }

    /// Counts a pod as placed.
    pub fn place(&mut self, at: usize, ask: &Ask<'_>) {
        let entry = &mut self.nodes[at];
        entry.placed += 1;
        entry.node.pods += 1;
        entry.node.cpu_requested += ask.pod.cpu_millis;
        entry.node.memory_requested += ask.pod.memory_bytes;
        if let Some(rules) = &ask.rules {
            for port in &rules.host_ports {
                entry.node.ports.push(',');
                entry.node.ports.push_str(port);
            }
            stock::take(&mut entry.node.stock, rules.like.asks());
            self.peers.place(rules, at);
            if let Some(view) = self.view.as_mut().filter(|view| view.is_of(rules)) {
                view.place(at);
            } else {
                self.view = None; // another service's counts may stand in it
            }
            if rules.like.strategy(self.strategy) == Strategy::RoundRobin {
                self.round_robin.1 = entry.name.to_string();
            }
        } else if self.strategy == Strategy::RoundRobin {
            self.round_robin.1 = entry.name.to_string();
        }
        self.note(at);
    }

    /// Name of the node at a position.
    pub fn name(&self, at: usize) -> &str {
        &self.nodes[at].name
    }

    /// The turn of the node at a position: it grows as its labels change.
    pub fn turn(&self, at: usize) -> u64 {
        self.nodes[at].node.turn
    }

    /// What the score of the node at a position is made of.
    pub fn terms(&self, at: usize) -> Terms {
        let entry = &self.nodes[at];
        Terms::of(&entry.node, entry.placed)
    }

    /// What counts how much in a score.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Strategy of pods that say none.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Why each node cannot take a pod; those that can are left out.
    pub fn refusals(&mut self, ask: &Ask<'_>) -> Vec<Refusal> {
        (0..self.nodes.len())
            .filter_map(|at| self.refusal(at, ask))
            .collect()
    }

    /// Nodes on which a pod misses only room that others have, and how much of it: at most `max`, those
    /// first that would be the best by pressure.
    pub fn crowded(&mut self, ask: &Ask<'_>, max: usize) -> Vec<(usize, Room)> {
        let mut found = Vec::new();
        let asks = ask.rules.as_ref().map(|rules| rules.like.asks());
        for at in 0..self.nodes.len() {
            let short = match self.refusal(at, ask) {
                Some(
                    Refusal::Port(_)
                    | Refusal::Memory(_)
                    | Refusal::Cpu(_)
                    | Refusal::Asks(_)
                    | Refusal::Pods,
                ) => true,
                Some(_) | None => false,
            };
            let entry = &self.nodes[at];
            let capacity = &entry.node.capacity;
            let large = ask.pod.cpu_millis <= capacity.cpu_millis
                && ask.pod.memory_bytes <= capacity.memory_bytes
                && capacity.pods_max > 0
                && asks.is_none_or(|asks| stock::could_hold(&entry.node.stock, asks));
            if short && large {
                let score = Terms::of(&entry.node, entry.placed).score(&self.weights);
                found.push((score, entry.order, at));
            }
        }
        found.sort_unstable();
        let missing = |at: usize| {
            let node = &self.nodes[at].node;
            let capacity = &node.capacity;
            let taken = |port: &&String| node.ports.split(',').any(|used| used == *port);
            let ports = ask.rules.iter().flat_map(|rules| &rules.host_ports);
            Room {
                pods: (node.pods + 1).saturating_sub(capacity.pods_max),
                cpu_millis: (node.cpu_requested + ask.pod.cpu_millis)
                    .saturating_sub(capacity.cpu_millis),
                memory_bytes: (node.memory_requested + ask.pod.memory_bytes)
                    .saturating_sub(capacity.memory_bytes),
                host_ports: ports.filter(taken).cloned().collect(),
                asks: asks.map_or_else(Amounts::default, |asks| stock::missing(&node.stock, asks)),
            }
        };
        found.truncate(max);
        found
            .into_iter()
            .map(|(_, _, at)| (at, missing(at)))
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

    fn alike(&self, ask: &Ask<'_>) -> Alike {
        Alike {
            cpu_millis: ask.pod.cpu_millis,
            memory_bytes: ask.pod.memory_bytes,
            like: match &ask.rules {
                Some(rules) => rules.like.clone(),
                None => self.nothing.clone(),
            },
        }
    }

    fn refusal(&mut self, at: usize, ask: &Ask<'_>) -> Option<Refusal> {
        let alike = self.alike(ask);
        let entry = &self.nodes[at];
        if !is_alive(entry, self.now_ms, self.lease_ms) {
            return Some(Refusal::Lost);
        } else if let Some(shut) = entry.shut() {
            return Some(shut);
        } else if let Err(unsuited) = alike.like.suits(&entry.labels) {
            return Some(Refusal::Unsuited(unsuited));
        } else if let Some(lacks) = entry.lacks(&alike) {
            return Some(lacks);
        }
        let rules = ask.rules.as_ref()?;
        if !rules.placement.looks_at_pods() {
            return None;
        }
        if !self.view.as_ref().is_some_and(|view| view.is_of(rules)) {
            let nodes = &self.nodes;
            let rankings = &mut self.rankings;
            let ranking = rankings.of(&alike, nodes, &self.journal, &self.weights, self.strategy);
            self.view = Some(self.peers.view(rules, nodes, self.labels_turn, ranking));
        }
        let judged = self.view.as_ref()?.judge(at);
        judged.err().map(Refusal::Unmet)
    }
}

fn is_alive(entry: &Entry, now_ms: u64, lease_ms: u64) -> bool {
    now_ms.saturating_sub(entry.node.heartbeat_ms) <= lease_ms
}

pub(super) fn labels_of(node: &NodeSnapshot) -> BTreeMap<String, String> {
    let mut labels = read_labels(&node.labels);
    labels.insert(NAME_LABEL.to_owned(), node.name.clone());
    if let Some((os, arch)) = node.platform.split_once('/') {
        for (key, value) in [("os", os), ("arch", arch)] {
            labels
                .entry(key.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    labels
}

/// Where in the order of names the next look begins: behind the node that had its turn last, or, where
/// chance decides or a part is compared, anywhere.
fn turn(
    ranking: &Ranking,
    nodes: &[Entry],
    by_order: &[usize],
    last: &str,
    seed: &str,
    ask: &Ask<'_>,
) -> usize {
    if ranking.strategy() == Strategy::RoundRobin {
        return by_order.partition_point(|at| *nodes[*at].name <= *last);
    }
    // FNV-1a (Fowler, Noll, Vo): the same everywhere, in every version.
    let bytes = seed.bytes().chain(ask.pod.id.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let chance = (hash >> 16) % (by_order.len().max(1) as u64);
    usize::try_from(chance).unwrap_or_default()
}

/// The first, from a place in the order of names on, that takes it; of those to be avoided only if
/// there is no other.
fn best_in_turn(
    by_order: &[usize],
    from: usize,
    takes: impl Fn(&usize) -> bool,
    avoided: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (before, behind) = by_order.split_at(from.min(by_order.len()));
    let mut second = None;
    for at in behind.iter().chain(before).filter(|at| takes(at)) {
        if !avoided(*at) {
            return Some(*at);
        }
        second = second.or(Some(*at));
    }
    second
}

/// The best in view of other pods: of all, or of a part of so many that are open.
fn compare(
    ranking: &Ranking,
    view: &View,
    by_order: &[usize],
    from: usize,
    alive: impl Fn(usize) -> bool,
    avoided: impl Fn(usize) -> bool,
) -> Option<usize> {
    let from = if by_order.len() > COMPARED_MAX {
        from
    } else {
        0
    };
    let (before, behind) = by_order.split_at(from.min(by_order.len()));
    let mut best: Option<(bool, u32, Key, usize)> = None;
    let mut compared = 0;
    for at in behind.iter().chain(before) {
        let Some(key) = ranking.place(*at) else {
            continue;
        };
        let Ok(unmet) = view.judge(*at) else { continue };
        let place = (avoided(*at), unmet.saturating_add(key.unmet), key, *at);
        if best.is_none_or(|best| place < best) && alive(*at) {
            best = Some(place);
        }
        compared += 1;
        if compared == COMPARED_MAX {
            break;
        }
    }
    best.map(|(.., at)| at)
}

#[cfg(test)]
pub(crate) mod tests;
