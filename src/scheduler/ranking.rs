//! Nodes in the order in which pods that are alike would take them, kept as nodes change.
//!
//! A ranking is of all pods that ask for the same: it holds only nodes that take such a pod, so that
//! the best is at hand whatever else the cluster holds. Nodes that changed are noted in a journal,
//! which each ranking reads on when it is used next; nothing is sorted anew. Pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::cluster::Entry;
use super::rules::{Like, Unsuited};
use super::strategy::{Key, Orderer};
use crate::model::Strategy;
use crate::settings::Weights;

/// Rankings kept at once, if the nodes are few.
const RANKINGS_MAX: usize = 64;
/// Places in all rankings together beyond which fewer are kept: about 100 MB.
const PLACES_MAX: usize = 2_000_000;
/// Rankings kept whatever their size.
const RANKINGS_MIN: usize = 4;

/// What is alike in pods that share a ranking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alike {
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
    pub(super) like: Arc<Like>,
}

/// Positions of nodes that changed, in the order of the changes.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// How many changes came before those that are kept.
    dropped: u64,
    changes: Vec<u32>,
}

/// All rankings in use.
#[derive(Debug, Default)]
pub(super) struct Rankings {
    rankings: Vec<Ranking>,
    current: usize,
    uses: u64,
}

/// One ranking.
#[derive(Debug)]
pub(super) struct Ranking {
    alike: Alike,
    orderer: Orderer,
    heap: BinaryHeap<Reverse<(Key, u32)>>,
    /// Each node's place; none where it takes no such pod. What differs in the heap is outdated.
    places: Vec<Option<Key>>,
    /// Whether each node suits by itself, and for which of its label changes that was found.
    suits: Vec<(u32, Result<u32, Unsuited>)>,
    /// How many nodes have a place.
    open: usize,
    read_to: u64,
    used: u64,
}

impl Journal {
    /// Notes that a node changed.
    pub(super) fn note(&mut self, at: usize, nodes: usize) {
        // What no ranking will read on from is not worth more than reading all nodes.
        if self.changes.len() > nodes * 4 + 1024 {
            self.dropped += self.changes.len() as u64;
            self.changes.clear();
        }
        self.changes.push(u32::try_from(at).unwrap_or(u32::MAX));
    }

    fn end(&self) -> u64 {
        self.dropped + self.changes.len() as u64
    }

    fn since(&self, read_to: u64) -> Option<&[u32]> {
        let from = usize::try_from(read_to.checked_sub(self.dropped)?).ok()?;
        self.changes.get(from..)
    }
}

impl Rankings {
    /// Forgets all: the order of names changed.
    pub(super) fn clear(&mut self) {
        self.rankings.clear();
        self.current = 0;
    }

    /// The ranking of pods like this, up to date.
    pub(super) fn of(
        &mut self,
        alike: &Alike,
        nodes: &[Entry],
        journal: &Journal,
        weights: &Weights,
        default: Strategy,
    ) -> &mut Ranking {
        self.uses += 1;
        let is_it = |ranking: &Ranking| ranking.alike.is(alike);
        if !self.rankings.get(self.current).is_some_and(is_it) {
            self.current = match self.rankings.iter().position(is_it) {
                Some(at) => at,
                None => {
                    let kept = (PLACES_MAX / nodes.len().max(1)).clamp(RANKINGS_MIN, RANKINGS_MAX);
                    while self.rankings.len() >= kept {
                        let used = |at: &usize| self.rankings[*at].used;
                        let oldest = (0..self.rankings.len()).min_by_key(used).unwrap_or(0);
                        self.rankings.swap_remove(oldest);
                    }
                    self.rankings
                        .push(Ranking::new(alike.clone(), weights, default));
                    self.rankings.len() - 1
                }
            };
        }
        let ranking = &mut self.rankings[self.current];
        ranking.used = self.uses;
        ranking.read_on(nodes, journal);
        ranking
    }
}

impl Alike {
    fn is(&self, other: &Alike) -> bool {
        self.cpu_millis == other.cpu_millis
            && self.memory_bytes == other.memory_bytes
            && (Arc::ptr_eq(&self.like, &other.like) || self.like == other.like)
    }
}

impl Ranking {
    fn new(alike: Alike, weights: &Weights, default: Strategy) -> Ranking {
        Ranking {
            orderer: Orderer::of(&alike, weights, default),
            alike,
            heap: BinaryHeap::new(),
            places: Vec::new(),
            suits: Vec::new(),
            open: 0,
            read_to: u64::MAX,
            used: 0,
        }
    }

    fn read_on(&mut self, nodes: &[Entry], journal: &Journal) {
        match journal.since(self.read_to) {
            Some(changes) if self.places.len() == nodes.len() => {
                for at in changes {
                    self.put(*at, nodes);
                }
            }
            _ => self.read_all(nodes),
        }
        self.read_to = journal.end();
        // A score of the user's own that fails for one node is no order: all are ordered by default.
        if self.orderer.has_failed() {
            self.orderer.fall_back();
            self.read_all(nodes);
        }
        // What is outdated must not outgrow what is not.
        if self.heap.len() > self.open * 2 + 64 {
            let places = &self.places;
            self.heap
                .retain(|Reverse((key, at))| places[*at as usize] == Some(*key));
        }
    }

    fn read_all(&mut self, nodes: &[Entry]) {
        self.heap.clear();
        self.places.clear();
        self.places.resize(nodes.len(), None);
        self.suits.resize(nodes.len(), (u32::MAX, Ok(0)));
        self.open = 0;
        let mut all = Vec::with_capacity(nodes.len());
        for (at, entry) in nodes.iter().enumerate() {
            if let Some(key) = self.place_of(at, entry) {
                self.places[at] = Some(key);
                self.open += 1;
                all.push(Reverse((key, position(at))));
            }
        }
        if !self.is_cyclic() {
            self.heap = BinaryHeap::from(all);
        }
    }

    fn put(&mut self, at: u32, nodes: &[Entry]) {
        let index = at as usize;
        let place = self.place_of(index, &nodes[index]);
        let before = std::mem::replace(&mut self.places[index], place);
        self.open = self.open + usize::from(place.is_some()) - usize::from(before.is_some());
        if let Some(key) = place
            && before != place
            && !self.is_cyclic()
        {
            self.heap.push(Reverse((key, at)));
        }
    }

    /// Where a node stands for such a pod; nothing if it does not take it.
    fn place_of(&mut self, at: usize, entry: &Entry) -> Option<Key> {
        let suits = &mut self.suits[at];
        if suits.0 != entry.marks {
            *suits = (entry.marks, self.alike.like.suits(&entry.labels));
        }
        let soft_taints = suits.1.ok()?;
        if entry.is_shut() || entry.lacks(&self.alike).is_some() {
            return None;
        }
        Some(self.orderer.key(soft_taints, entry))
    }

    /// Whether nodes take turns here, and none is better than another.
    pub(super) fn is_cyclic(&self) -> bool {
        matches!(
            self.orderer.strategy(),
            Strategy::RoundRobin | Strategy::Random
        )
    }

    /// The strategy that orders it.
    pub(super) fn strategy(&self) -> Strategy {
        self.orderer.strategy()
    }

    /// A node's place, if it takes such a pod.
    pub(super) fn place(&self, at: usize) -> Option<Key> {
        self.places[at]
    }

    /// Whether a node suits by itself, whatever room it has.
    pub(super) fn is_suited(&self, at: usize) -> bool {
        self.suits[at].1.is_ok()
    }

    /// The best node that is `alive`; of those to be avoided only if there is no other.
    pub(super) fn best(
        &mut self,
        alive: impl Fn(usize) -> bool,
        avoided: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut passed_over = Vec::new();
        let found = loop {
            let Some(Reverse((key, at))) = self.heap.peek() else {
                break None;
            };
            let (key, at) = (*key, *at);
            let index = at as usize;
            if self.places[index] != Some(key) {
                self.heap.pop();
            } else if !alive(index) {
                self.heap.pop(); // its next heartbeat is noted in the journal
                self.places[index] = None;
                self.open -= 1;
            } else if avoided(index) {
                self.heap.pop();
                passed_over.push((key, at));
            } else {
                break Some(index);
            }
        };
        let found = found.or_else(|| passed_over.first().map(|(_, at)| *at as usize));
        self.heap.extend(passed_over.into_iter().map(Reverse));
        found
    }
}

fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
