//! The queue: claim, assign, give back.

use std::collections::BTreeSet;

use kubeleet::model::Phase;
use kubeleet::model::phase::Actor;

use super::{Batch, PodKey, Reply, Store, Token};

impl Store {
    pub(super) fn claim(&mut self, batch: u8, max: usize) -> Vec<PodKey> {
        let served: Vec<PodKey> = self.queue.drain(..max.min(self.queue.len())).collect();
        let waits = |key: &PodKey| {
            self.pod(*key)
                .is_some_and(|pod| pod.phase == Phase::Waiting && pod.run)
        };
        let entries: Vec<PodKey> = served.into_iter().filter(waits).collect();
        if !entries.is_empty() {
            self.claims.push(Batch {
                number: batch,
                over: false,
                entries: entries.clone(),
            });
            self.claims.sort_by_key(|claim| claim.number);
        }
        entries
    }

    pub(super) fn assign(&mut self, batch: u8, nonce: u8, pairs: &[(PodKey, u8)]) -> Reply {
        if !self.claims.iter().any(|claim| claim.number == batch) {
            return Reply::Word("lapsed");
        }
        let mut settled = BTreeSet::new();
        let mut assigned = 0;
        for &(key, to) in pairs {
            let Some(pod) = self.pod(key) else { continue };
            if !pod.phase.may_become(Phase::Scheduled, Actor::Scheduler) || !pod.run {
                settled.insert(key);
                continue;
            }
            let node = self.node(to);
            let alive = node.epoch > 0 && !node.overdue && !node.lost;
            let fits = self.taken_room(to) + pod.asks <= node.capacity;
            if !alive || !fits || !settled.insert(key) {
                continue;
            }
            if let Some(pod) = self.pod_mut(key) {
                pod.phase = Phase::Scheduled;
                pod.node = Some(to);
                pod.token = Token {
                    attempt: pod.token.attempt + 1,
                    nonce,
                };
            }
            self.put_here(to, key);
            self.node_mut(to).inbox.push(key);
            assigned += 1;
        }
        let back = self.end_claim(batch, &settled);
        Reply::Assigned(assigned, back)
    }

    /// What of a claim is not settled goes back to the front of the queue.
    fn end_claim(&mut self, batch: u8, settled: &BTreeSet<PodKey>) -> usize {
        let Some(at) = self.claims.iter().position(|it| it.number == batch) else {
            return 0;
        };
        let mut entries = self.claims.remove(at).entries;
        entries.retain(|key| !settled.contains(key));
        let back = entries.len();
        self.queue.splice(0..0, entries);
        back
    }

    pub(super) fn expire_claims(&mut self) {
        while let Some(claim) = self.claims.iter().find(|claim| claim.over) {
            self.end_claim(claim.number, &BTreeSet::new());
        }
    }
}
