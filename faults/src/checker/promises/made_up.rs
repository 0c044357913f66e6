//! Made-up runs: a good one, to be broken in one way at a time.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::run::Run;
use super::super::snapshot::{Fields, Snapshot};
use super::{Broken, Facts, LASTING, SETTLED};
use crate::logs::{Asked, Deed, Did, Moment};

/// Nanoseconds of a second.
const S: u64 = 1_000_000_000;

/// A run that is being made up. Times are in seconds.
pub(super) struct MadeUp {
    pub(super) run: Run,
    pub(super) redis: Snapshot,
    pub(super) policy: &'static str,
    pub(super) now: u64,
}

impl MadeUp {
    /// A service `web` of two replicas, on `n1` and `n2`, in round 1 from 10 s on, settled at 100 s.
    pub(super) fn good() -> MadeUp {
        let mut made = MadeUp {
            run: Run::default(),
            redis: Snapshot::default(),
            policy: "replace",
            now: 101,
        };
        made.asked(
            1,
            "POST",
            "/service",
            json!({"name": "web", "replicas": 2}),
            Some(201),
        );
        made.did(2, Did::Started, "n1", "c0", "a-0", 1);
        made.did(2, Did::Started, "n2", "c1", "a-1", 1);
        made.moment(10, "round", "", json!({}));
        made.moment(100, "settled", "", json!({}));
        made.stands("web", 2);
        for node in ["n1", "n2"] {
            made.node(node);
        }
        made.placed("web", "a-0", "n1", 1);
        made.placed("web", "a-1", "n2", 1);
        made
    }

    /// The same with another policy for lost nodes.
    pub(super) fn with_policy(policy: &'static str) -> MadeUp {
        let mut made = MadeUp::good();
        made.policy = policy;
        let old = std::mem::take(&mut made.run.deeds);
        for deed in old {
            let pod = deed.labels["kubeleet.pod"].clone();
            made.did(
                deed.at_ns / S,
                deed.did,
                &deed.node,
                &deed.container,
                &pod,
                1,
            );
        }
        made
    }

    pub(super) fn did(
        &mut self,
        at: u64,
        did: Did,
        node: &str,
        container: &str,
        pod: &str,
        attempt: u64,
    ) {
        let (uid, replica) = pod.split_once('-').unwrap();
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let spec = json!({"name": "web", "on_node_loss": self.policy}).to_string();
        self.run.deeds.push(Deed {
            at_ns: at * S,
            node: node.to_owned(),
            did,
            container: container.to_owned(),
            labels: BTreeMap::from([
                label("orchestrator", "kubeleet"),
                label("kubeleet.pod", pod),
                label("kubeleet.attempt", &attempt.to_string()),
                label("kubeleet.nonce", &format!("nonce{attempt}")),
                label("kubeleet.service", "default/web"),
                label("kubeleet.replica", replica),
                label("kubeleet.revision", "1"),
                label("kubeleet.wish", &format!("{uid} 1 2")),
                label("kubeleet.spec", &spec),
            ]),
            env: Vec::new(),
        });
    }

    pub(super) fn asked(
        &mut self,
        at: u64,
        method: &str,
        path: &str,
        body: Value,
        status: Option<u16>,
    ) {
        self.run.asked.push(Asked {
            sent_ns: at * S,
            done_ns: at * S + S / 2,
            method: method.to_owned(),
            path: path.to_owned(),
            key: String::new(),
            body,
            status,
            answer: Value::Null,
        });
    }

    pub(super) fn moment(&mut self, at: u64, what: &str, name: &str, detail: Value) {
        self.run.moments.push(Moment {
            at_ns: at * S,
            round: 1,
            what: what.to_owned(),
            name: name.to_owned(),
            detail,
        });
    }

    /// A fault from one second to another.
    pub(super) fn fault(&mut self, from: u64, to: u64, name: &str, detail: &Value) {
        self.moment(from, "fault", name, detail.clone());
        self.moment(to, "heal", name, detail.clone());
    }

    pub(super) fn stands(&mut self, name: &str, replicas: u64) {
        let fields = [
            ("replicas", replicas.to_string()),
            ("revision", "1".to_owned()),
        ];
        let service = format!("default/{name}");
        self.redis.services.insert(service.clone(), hash(fields));
        self.redis.indexes.insert(service, Vec::new());
    }

    fn node(&mut self, name: &str) {
        let amount = |amount: u64| amount.to_string();
        let fields = [
            ("state", "ready".to_owned()),
            ("pods_max", amount(4)),
            ("pods", amount(0)),
            ("cpu", amount(4000)),
            ("cpu_requested", amount(0)),
            ("memory", amount(1 << 30)),
            ("memory_requested", amount(0)),
        ];
        self.redis.nodes.insert(name.to_owned(), hash(fields));
        self.redis.living.push(name.to_owned());
    }

    /// A pod runs on a node.
    pub(super) fn placed(&mut self, service: &str, pod: &str, node: &str, attempt: u64) {
        self.waits(service, pod);
        self.redis.waiting.clear();
        let record = self.redis.pods.get_mut(pod).unwrap();
        let fields = [
            ("phase", "running".to_owned()),
            ("node", node.to_owned()),
            ("attempt", attempt.to_string()),
            ("nonce", format!("nonce{attempt}")),
        ];
        record.extend(hash(fields));
        let assigned = self.redis.assigned.entry(node.to_owned()).or_default();
        assigned.push(pod.to_owned());
        let record = self.redis.nodes.get_mut(node).unwrap();
        record.insert("pods".to_owned(), assigned.len().to_string());
        record.insert(
            "cpu_requested".to_owned(),
            (assigned.len() * 100).to_string(),
        );
    }

    /// A pod waits in the queue.
    pub(super) fn waits(&mut self, service: &str, pod: &str) {
        let index = self
            .redis
            .indexes
            .entry(format!("default/{service}"))
            .or_default();
        index.push(pod.to_owned());
        let fields = [
            ("phase", "waiting".to_owned()),
            ("desired", "run".to_owned()),
            ("cpu", "100".to_owned()),
            ("owner", format!("service:default/{service}")),
        ];
        self.redis.pods.insert(pod.to_owned(), hash(fields));
        let queue = self.redis.waiting.entry("sq".to_owned()).or_default();
        queue.push(pod.to_owned());
    }

    /// A field of a pod.
    pub(super) fn set(&mut self, pod: &str, field: &str, value: &str) {
        let record = self.redis.pods.get_mut(pod).unwrap();
        record.insert(field.to_owned(), value.to_owned());
    }

    /// Everything that was broken.
    pub(super) fn broken(mut self) -> Vec<Broken> {
        self.run.sort();
        let now_ns = self.now * S;
        let facts = Facts::of(self.run, self.redis, 1, now_ns, 15 * S);
        let all = LASTING.iter().chain(&SETTLED);
        all.filter_map(|promise| promise(&facts)).collect()
    }

    /// Nothing was broken.
    #[track_caller]
    pub(super) fn holds(self) {
        let broken = self.broken();
        assert!(broken.is_empty(), "{broken:?}");
    }

    /// This promise was broken, and what is said of it has these words.
    #[track_caller]
    pub(super) fn breaks(self, promise: &str, words: &str) {
        let broken = self.broken();
        let found = broken
            .iter()
            .any(|it| it.promise == promise && it.says.contains(words));
        assert!(found, "{promise} with {words:?} is not among {broken:?}");
    }
}

fn hash<const N: usize>(fields: [(&str, String); N]) -> Fields {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
