//! Seeded random operations against the real functions and against the oracle.
//!
//! `WALK_SEED=<number>` walks that seed alone; a failing walk prints its own. Invariant: within one
//! attempt a phase only moves forward, a waiting pod is in one place, capacity is never exceeded.

use std::collections::BTreeSet;
use std::time::Duration;

use kubeleet::model::{Phase, Port, Priority, RawPod, Resources, ServiceKey, ServiceSpec};
use kubeleet::store::{
    Adopt, AdoptOutcome, AssignOutcome, Assignment, Claim, From, Mark, Parked, Submit,
    SubmitOutcome,
};

use crate::cluster::{CLAIM, Cluster, LEASE, LONG, spec};
use crate::oracle::Oracle;
use crate::support::dice::Dice;
use crate::walk_checks::{Seen, check};
use crate::walk_events::Told;

/// Some that failed once, and some more.
const SEEDS: [u64; 8] = [108, 111, 1, 2, 3, 4, 5, 6];
const STEPS: u64 = 450;
/// Steps between two looks at everything.
const CHECK_EVERY: u64 = 5;
/// Fewer than four: whether many losses at once are waited for is tested elsewhere.
const NODES: [&str; 3] = ["a", "b", "c"];
const MEMORY: u64 = 100 << 20;

/// Says how to walk again, should the walk fail.
struct Named(u64);

impl Drop for Named {
    #[expect(
        clippy::print_stderr,
        reason = "the seed of a failed walk must be seen"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("walk it again with WALK_SEED={}", self.0);
        }
    }
}

pub(crate) struct Walk {
    pub(crate) cluster: Cluster,
    pub(crate) oracle: Oracle,
    pub(crate) dice: Dice,
    pub(crate) step: u64,
    claims: Vec<Claim>,
    lost_claims: Vec<Claim>,
    /// Pods with more entries in the queue than they should have.
    pub(crate) doubled: BTreeSet<String>,
}

#[expect(clippy::disallowed_methods, reason = "a seed is no setting")]
fn seeds() -> Vec<u64> {
    match std::env::var("WALK_SEED") {
        Ok(seed) => vec![seed.parse().expect("WALK_SEED is a number")],
        Err(_) => SEEDS.to_vec(),
    }
}

#[tokio::test]
async fn whatever_happens_the_functions_do_as_the_oracle_says() {
    for seed in seeds() {
        let _named = Named(seed);
        let mut walk = Walk {
            cluster: Cluster::new().await,
            oracle: Oracle::default(),
            dice: Dice(seed),
            step: 0,
            claims: Vec::new(),
            lost_claims: Vec::new(),
            doubled: BTreeSet::new(),
        };
        let mut seen = Seen::default();
        let mut told = Told::default();
        walk.cluster.end_grace().await;
        for node in NODES {
            walk.register(node).await;
        }
        for step in 1..=STEPS {
            walk.step = step;
            walk.go().await;
            if step % CHECK_EVERY == 0 {
                check(&walk.cluster, &walk.oracle, &mut seen, &walk.doubled).await;
                told.check(&walk.cluster, &walk.oracle).await;
            }
        }
    }
}

impl Walk {
    async fn go(&mut self) {
        let node = NODES[usize::try_from(self.dice.roll(3)).expect("few")];
        match self.dice.roll(110) {
            0..8 => self.submit().await,
            8..14 => self.scale().await,
            14..17 => self.delete().await,
            17..32 => self.claim().await,
            32..47 => self.assign().await,
            47..50 => self.lose_a_claim().await,
            50..58 => self.take(node).await,
            58..78 => self.report().await,
            78..80 => self.stop().await,
            80..82 => self.register(node).await,
            82..87 => self.heartbeat(node).await,
            87..89 if self.oracle.nodes[node].living => {
                self.cluster.age(node, LONG).await;
                self.oracle
                    .nodes
                    .get_mut(node)
                    .expect("it is there")
                    .overdue = true;
            }
            89..93 => self.sweep().await,
            93..95 => self.release().await,
            95..101 => self.push_raw(node).await,
            101..102 => self.control().await,
            102..104 => self.push_again(node).await,
            _ => self.mark(node).await,
        }
    }

    fn service(&mut self) -> (ServiceSpec, String) {
        let number = self.dice.roll(5);
        let name = format!("s{number}");
        // The same wish each time, so that only the number of replicas makes a conflict.
        let spec = ServiceSpec {
            priority: Priority::ALL[usize::try_from(number % 3).expect("few")],
            resources: Resources {
                cpu_millis: number * 300,
                memory_bytes: (number % 2) * MEMORY,
                ..Resources::default()
            },
            ports: match number {
                2 => vec![Port::parse("1:1").expect("a port")],
                _ => Vec::new(),
            },
            replicas: 1 + u32::try_from(self.dice.roll(6)).expect("few"),
            ..spec(&name, 1)
        };
        (spec, format!("default/{name}"))
    }

    async fn submit(&mut self) {
        let (spec, key) = self.service();
        let submission = format!("w{}", self.step);
        let submit = Submit {
            spec: &spec,
            submission: &submission,
            idempotency: None,
            mode: kubeleet::store::SubmitMode::Create,
        };
        let outcome = self
            .cluster
            .store
            .services()
            .submit(&submit)
            .await
            .expect("an answer");
        let word = match outcome {
            SubmitOutcome::Created { .. } => "created",
            SubmitOutcome::Exists { .. } => "exists",
            SubmitOutcome::Conflict => "conflict",
            SubmitOutcome::Deleting => "deleting",
            other => panic!("{other:?}"),
        };
        let wanted = self.oracle.submit(&key, &spec, &submission);
        assert_eq!(word, wanted, "submit of {key}");
    }

    async fn scale(&mut self) {
        let (spec, key) = self.service();
        let replicas = spec.replicas - 1;
        let submission = format!("w{}", self.step);
        let service = ServiceKey::parse(&key).expect("an answer");
        let outcome = self
            .cluster
            .store
            .services()
            .scale(&service, replicas, &submission, None)
            .await;
        assert_eq!(
            outcome.expect("an answer"),
            self.oracle.scale(&key, replicas, &submission)
        );
    }

    /// Lets a controller work; which pods it makes and stops is its plan's to decide, how many of
    /// them are left is checked here.
    async fn control(&mut self) {
        self.cluster.control().await;
        let services: Vec<(String, u32)> = self
            .oracle
            .services
            .iter()
            .filter(|(_, service)| !service.deleting)
            .map(|(name, service)| (name.clone(), service.replicas))
            .collect();
        for (name, replicas) in services {
            let before: Vec<String> = self
                .oracle
                .pods_of(&name)
                .map(|(id, _)| id.clone())
                .collect();
            for id in &before {
                let desired = self.cluster.field(&format!("pod:{id}"), "desired").await;
                if desired == "stop" {
                    self.oracle.stop(id);
                }
            }
            let index: Vec<(String, u32)> = self
                .cluster
                .ask(&format!("ZRANGE @service:{name}:pods 0 -1 WITHSCORES"))
                .await;
            for (id, replica) in index {
                if !self.oracle.pods.contains_key(&id) {
                    self.oracle.add(&id, &name, replica);
                }
            }
            let pods: Vec<_> = self
                .oracle
                .pods_of(&name)
                .filter(|(_, pod)| pod.run)
                .collect();
            let live = pods.iter().filter(|(_, pod)| !pod.phase.is_ended());
            let slots: BTreeSet<u32> = live.clone().map(|(_, pod)| pod.replica).collect();
            let wanted = usize::try_from(replicas).expect("few");
            // Beside one on a draining node there may be another that is not ready yet.
            let drains = |node: &String| self.oracle.nodes[node].mark == Mark::Drain;
            let stay = live
                .clone()
                .filter(|(_, pod)| !pod.node.as_ref().is_some_and(drains));
            let stay: Vec<u32> = stay.map(|(_, pod)| pod.replica).collect();
            let distinct: BTreeSet<u32> = stay.iter().copied().collect();
            assert_eq!(stay.len(), distinct.len(), "one pod a slot in {name}");
            assert!(slots.len() <= wanted, "{name}: {slots:?} of {wanted}");
            // A slot whose pod still holds a fixed port waits for it.
            let any_port = !self.oracle.services[&name].ports.is_empty();
            if live.count() == pods.len() && !any_port {
                assert_eq!(
                    slots.len(),
                    wanted,
                    "none ended in {name}, so none is missing"
                );
            }
        }
    }

    async fn delete(&mut self) {
        let (_, key) = self.service();
        let service = ServiceKey::parse(&key).expect("an answer");
        let outcome = self
            .cluster
            .store
            .services()
            .delete(&service, None)
            .await
            .expect("an answer");
        assert_eq!(outcome, self.oracle.delete(&key), "delete of {key}");
    }

    async fn claim(&mut self) {
        let max = 1 + usize::try_from(self.dice.roll(8)).expect("few");
        let claim = self
            .cluster
            .store
            .queue()
            .claim(CLAIM, max)
            .await
            .expect("an answer");
        for waiting in &claim.pods {
            let pod = &self.oracle.pods[waiting.id.as_str()];
            assert!(
                pod.phase == Phase::Waiting && pod.run,
                "{waiting:?}: {pod:?}"
            );
            let asks = Resources {
                cpu_millis: waiting.cpu_millis,
                memory_bytes: waiting.memory_bytes,
                ..Resources::default()
            };
            assert_eq!(asks, pod.asks, "{waiting:?}");
            let ports = waiting.wants.as_ref().map(|wants| &wants.host_ports);
            assert_eq!(ports.cloned().unwrap_or_default(), pod.ports, "{waiting:?}");
        }
        if claim.batch.is_empty() {
            return;
        }
        for entry in &claim.raw {
            self.read_raw(From::Claim(&claim.batch), entry).await;
        }
        self.claims.push(claim);
    }

    /// As a scheduler or an agent does with what is no pod.
    pub(crate) async fn read_raw(&mut self, from: From<'_>, entry: &[u8]) {
        let store = &self.cluster.store;
        let Ok(raw) = RawPod::parse(entry) else {
            return store.bury(from, entry, "rubbish").await.expect("an answer");
        };
        let nonce = format!("h{}", self.step);
        let adopt = Adopt {
            from,
            entry,
            raw: &raw,
            nonce: &nonce,
        };
        let outcome = store.pending().adopt(adopt).await.expect("an answer");
        let node = match from {
            From::Claim(_) => None,
            From::Inbox(node) => Some((node, nonce.as_str())),
        };
        let ports = raw.spec.host_ports();
        let wanted = self
            .oracle
            .adopt(raw.id.as_str(), raw.spec.resources, ports, node);
        assert_eq!(outcome, wanted, "{} by hand", raw.id);
        if matches!(outcome, AdoptOutcome::Stopped | AdoptOutcome::Full(_)) {
            store.bury(from, entry, "refused").await.expect("an answer");
        }
    }

    async fn assign(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let at = self.dice.roll(self.claims.len().try_into().expect("few"));
        let claim = self.claims.swap_remove(at.try_into().expect("few"));
        let mut assignment = Assignment {
            nodes: NODES.iter().map(|node| (*node, 0)).collect(),
            ..Assignment::default()
        };
        assignment.nodes.push(("nowhere", 0));
        let mut pairs = Vec::new();
        for waiting in &claim.pods {
            match self.dice.roll(12) {
                0 | 1 => assignment.parked.push(Parked {
                    pod: &waiting.id,
                    delay: Duration::from_secs(1),
                    reason: "parked".to_owned(),
                }),
                2 => {}
                _ => {
                    let node = usize::try_from(self.dice.roll(100) % 4).expect("few");
                    assignment.pods.push((&waiting.id, node));
                    pairs.push((waiting.id.to_string(), assignment.nodes[node].0.to_owned()));
                }
            }
        }
        let nonce = format!("n{}", self.step);
        let outcome = self.cluster.store.queue();
        let outcome = outcome
            .assign(&claim.batch, &nonce, LEASE, &assignment)
            .await;
        let AssignOutcome::Assigned { count, .. } = outcome.expect("an answer") else {
            panic!("claim {} lapsed", claim.batch);
        };
        assert_eq!(count, self.oracle.assign(&pairs, &nonce), "{pairs:?}");
    }

    /// A claim's lease ends; now and then its scheduler comes too late with its plan.
    async fn lose_a_claim(&mut self) {
        if let Some(claim) = self.claims.pop() {
            let line = format!("ZADD @sq:claims 1 {}", claim.batch);
            let _: u64 = self.cluster.ask(&line).await;
            self.cluster
                .store
                .queue()
                .expire_claims(10)
                .await
                .expect("an answer");
            self.lost_claims.push(claim);
        }
        if let Some(late) = self.dice.of(&self.lost_claims) {
            let pods = late.pods.iter().map(|waiting| (&waiting.id, 0)).collect();
            let assignment = Assignment {
                nodes: vec![("a", 0)],
                pods,
                ..Assignment::default()
            };
            let outcome = self.cluster.store.queue();
            let outcome = outcome
                .assign(&late.batch, "late", LEASE, &assignment)
                .await;
            assert_eq!(outcome.expect("an answer"), AssignOutcome::Lapsed);
        }
    }
}
