//! Calls of schedulers, of the functions and of the reference.

use kubeleet::model::{Phase, PodId};
use kubeleet::store::{AssignOutcome, Assignment};

use crate::cluster::{CLAIM, LEASE};
use crate::mirror::{Mirror, NODES, name};
use crate::reference::{Call, PodKey, Reply};

impl Mirror {
    /// A scheduler claims what waits, or assigns a batch that it, or another, holds.
    pub(crate) async fn place(&mut self) -> String {
        if self.batches.is_empty() || self.few(3) == 0 {
            let max = [2, 1000][usize::from(self.few(2))];
            let claim = self.cluster.store.queue().claim(CLAIM, max).await;
            let claim = claim.expect("an answer");
            let mut pods: Vec<PodKey> = claim.pods.iter().map(|pod| self.key(&pod.id)).collect();
            let call = Call::PodClaim {
                batch: self.step,
                max,
            };
            let Reply::Pods(mut wanted) = self.apply(&call) else {
                panic!("{call:?}");
            };
            pods.sort();
            wanted.sort();
            assert_eq!(pods, wanted, "{call:?}");
            if !pods.is_empty() {
                self.batches.insert(self.step, claim.batch);
            }
            return format!("{call:?}");
        }
        let numbers: Vec<u8> = self.batches.keys().copied().collect();
        let batch = *self.dice.of(&numbers).expect("there are some");
        let name_of_batch = self.batches[&batch].clone();
        if self.few(8) > 0 {
            self.batches.remove(&batch); // else it is assigned once more, too late
        }
        let known: Vec<PodKey> = self.store.pods.iter().map(|pod| pod.key).collect();
        let mut pairs: Vec<(PodKey, u8)> = Vec::new();
        for key in known {
            let waits = self
                .store
                .pod(key)
                .is_some_and(|it| it.phase == Phase::Waiting);
            if self.few(8) > if waits { 1 } else { 6 } {
                pairs.push((key, self.few(NODES)));
            }
        }
        let names: Vec<String> = (0..NODES).map(name).collect();
        let ids: Vec<(PodId, usize)> = pairs
            .iter()
            .map(|(key, node)| (self.id(*key), usize::from(*node)))
            .collect();
        let assignment = Assignment {
            nodes: names.iter().map(|node| (node.as_str(), 0)).collect(),
            pods: ids.iter().map(|(id, node)| (id, *node)).collect(),
            ..Assignment::default()
        };
        let nonce = format!("n{}", self.step);
        let queue = self.cluster.store.queue();
        let outcome = queue.assign(&name_of_batch, &nonce, LEASE, &assignment);
        let real = match outcome.await.expect("an answer") {
            AssignOutcome::Assigned {
                count, given_back, ..
            } => Reply::Assigned(count, given_back),
            AssignOutcome::Lapsed => Reply::Word("lapsed"),
        };
        let call = Call::PodAssign {
            batch,
            nonce: self.step,
            pairs,
        };
        assert_eq!(self.apply(&call), real, "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn expire(&mut self) -> String {
        let numbers: Vec<u8> = self.store.claims.iter().map(|it| it.number).collect();
        if let Some(batch) = self.dice.of(&numbers).copied() {
            self.store.claim_ends(batch);
            let line = format!("ZADD @sq:claims 1 {}", self.batches[&batch]);
            let _: u64 = self.cluster.ask(&line).await;
        }
        let expired = self.cluster.store.queue().expire_claims(10).await;
        expired.expect("an answer");
        self.apply(&Call::ClaimExpire);
        format!("{:?}", Call::ClaimExpire)
    }

    /// Every entry of the queue is lost, which a comparison finds once nothing is claimed.
    pub(crate) async fn lose(&mut self) -> String {
        while !self.store.claims.is_empty() {
            self.expire().await;
        }
        self.store.queue.clear();
        let _: u64 = self.cluster.ask("DEL @sq").await;
        self.compare().await
    }
}
