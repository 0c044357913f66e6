//! How all nodes look to one pod, for records: the planning itself looks no further than it must.

use super::{Ask, Cluster, Key, is_alive, turn};

/// The nodes that take a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// By what they are ordered.
    pub by: &'static str,
    /// How many there are.
    pub takes: usize,
    /// The best of them, the best first.
    pub best: Vec<Taker>,
}

/// A node that takes a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taker {
    /// Its position, as for [`Cluster::name`].
    pub at: usize,
    /// It is to be taken only where no other can be.
    pub avoided: bool,
    /// Wishes that are no must and that it does not meet.
    pub unmet: u32,
    /// What the strategy compares.
    pub measure: Option<f64>,
}

impl Cluster {
    /// The nodes that take a pod, the best first, of which at most `max` are told.
    pub fn judge(&mut self, ask: &Ask<'_>, max: usize) -> Judged {
        let alike = self.alike(ask);
        let (now_ms, lease_ms) = (self.now_ms, self.lease_ms);
        let nodes = &self.nodes;
        let ranking = self
            .rankings
            .of(&alike, nodes, &self.journal, &self.weights, self.strategy);
        let rules = ask.rules.as_ref();
        let view = rules
            .filter(|rules| rules.placement.looks_at_pods())
            .map(|rules| self.peers.view(rules, nodes, self.labels_turn, ranking));
        let avoid = ask.pod.wants.iter().flat_map(|wants| &wants.avoid);
        let avoid: Vec<&String> = avoid.collect();
        let (last, seed) = (&self.round_robin.1, &self.seed);
        let from = turn(ranking, nodes, &self.by_order, last, seed, ask);
        // Where nodes take turns, who is next counts, and nothing else.
        let count = nodes.len().max(1);
        let waits = |order: u32| {
            let waits = (order as usize + count - from.min(count)) % count;
            if ranking.is_cyclic() { waits } else { 0 }
        };
        let mut takers: Vec<(bool, u32, usize, Key, usize)> = Vec::new();
        for (at, entry) in nodes.iter().enumerate() {
            let Some(key) = ranking.place(at) else {
                continue;
            };
            let judged = view.as_ref().map_or(Ok(0), |view| view.judge(at));
            if let Ok(unmet) = judged
                && is_alive(entry, now_ms, lease_ms)
            {
                let avoided = avoid.iter().any(|name| **name == *entry.name);
                let unmet = unmet.saturating_add(key.unmet);
                let counts = if ranking.is_cyclic() { 0 } else { unmet };
                takers.push((avoided, counts, waits(entry.order), key, at));
            }
        }
        let takes = takers.len();
        if takes > max {
            takers.select_nth_unstable(max);
            takers.truncate(max);
        }
        takers.sort_unstable();
        let best = takers
            .into_iter()
            .map(|(avoided, unmet, _, key, at)| Taker {
                at,
                avoided,
                unmet,
                measure: ranking.measure(key),
            });
        Judged {
            by: ranking.by(),
            takes,
            best: best.collect(),
        }
    }
}
