//! What must hold after every step of a random walk, read from Redis by plain commands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kubeleet::model::Phase;
use kubeleet::store::Mark;

use crate::cluster::Cluster;
use crate::oracle::Oracle;

/// Every key that may be there, by its first words; see the head of `redis/kubeleet.lua`.
const KEYS: [&str; 16] = [
    "cluster",
    "services",
    "services:changed",
    "services:wake",
    "pods",
    "sq",
    "sq:high",
    "sq:low",
    "sq:claims",
    "sq:parked",
    "nodes",
    "nodes:lost",
    "nodes:draining",
    "dead",
    "dead:entries",
    "dead:totals",
];
const PATTERNS: [&str; 8] = [
    "service:default/",
    "pod:",
    "sq:claim:",
    "node:",
    "cs:",
    "pq:",
    "rq:",
    "events",
];

/// Attempts and ranks as last seen, by pod.
#[derive(Default)]
pub(crate) struct Seen(HashMap<String, (u64, u8)>);

impl Seen {
    /// Within an attempt a rank only rises, until a sweep makes the pod wait.
    fn look(&mut self, id: &str, attempt: u64, phase: Phase) {
        let now = (attempt, phase.rank());
        let before = self.0.insert(id.to_owned(), now).unwrap_or(now);
        let grows = if before.0 == attempt {
            now.1 == 0 || before.1 > 0 && now.1 >= before.1
        } else {
            attempt > before.0
        };
        assert!(
            grows,
            "{id} went from attempt and rank {before:?} to {now:?}"
        );
    }
}

async fn list(cluster: &Cluster, line: String) -> Vec<String> {
    cluster.ask(&line).await
}

async fn hashes(cluster: &Cluster, oracle: &Oracle) -> Vec<HashMap<String, String>> {
    let mut hashes = Vec::new();
    for id in oracle.pods.keys() {
        hashes.push(cluster.ask(&format!("HGETALL @pod:{id}")).await);
    }
    hashes
}

/// In how many places each pod waits.
async fn places(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut all = list(cluster, "ZRANGE @sq:parked 0 -1".into()).await;
    for queue in ["sq:high", "sq", "sq:low"] {
        all.extend(cluster.served_lossy(queue).await);
    }
    for batch in list(cluster, "ZRANGE @sq:claims 0 -1".into()).await {
        all.extend(cluster.served_lossy(&format!("sq:claim:{batch}")).await);
    }
    let mut places = BTreeMap::new();
    for entry in all {
        *places.entry(entry).or_insert(0) += 1;
    }
    places
}

/// Compares Redis with the oracle, and each part of Redis with the others.
pub(crate) async fn check(
    cluster: &Cluster,
    oracle: &Oracle,
    seen: &mut Seen,
    doubled: &BTreeSet<String>,
) {
    let places = places(cluster).await;
    let hashes = hashes(cluster, oracle).await;
    for ((id, pod), hash) in oracle.pods.iter().zip(&hashes) {
        let field = |name: &str| hash.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(field("phase"), pod.phase.as_str(), "phase of {id}: {pod:?}");
        assert_eq!(
            field("desired"),
            if pod.run { "run" } else { "stop" },
            "{id}: {pod:?}"
        );
        assert_eq!(
            field("node"),
            pod.node.as_deref().unwrap_or_default(),
            "{id}: {pod:?}"
        );
        assert_eq!(hash.contains_key("owner"), !pod.gone, "{id}: {pod:?}");
        if pod.gone {
            continue;
        }
        assert_eq!(hash.contains_key("moving"), pod.moving, "{id}: {pod:?}");
        let attempt: u64 = field("attempt").parse().expect("an attempt");
        assert_eq!(attempt, pod.token.attempt, "{id}: {pod:?}");
        assert_eq!(field("nonce"), pod.token.nonce, "{id}: {pod:?}");
        seen.look(id, attempt, pod.phase);
        if pod.phase == Phase::Waiting {
            let count = places.get(id).copied().unwrap_or(0);
            assert!(count > 0, "{id} waits nowhere: {pod:?}");
            assert!(
                count == 1 || doubled.contains(id),
                "{id} waits {count} times"
            );
        }
    }
    check_nodes(cluster, oracle).await;
    check_services(cluster, oracle).await;
    for key in list(cluster, "KEYS @*".into()).await {
        let name = &key[cluster.prefix.len()..];
        let known =
            KEYS.contains(&name) || PATTERNS.iter().any(|pattern| name.starts_with(pattern));
        assert!(known, "{key} is no key of ours");
    }
}

async fn check_nodes(cluster: &Cluster, oracle: &Oracle) {
    let mut held = BTreeSet::new();
    for (name, node) in &oracle.nodes {
        let room = cluster.taken_room(name).await;
        assert_eq!(room, oracle.room(name), "room on {name}");
        let ports = cluster.field(&format!("node:{name}"), "ports").await;
        let mut ports: Vec<&str> = ports.split(',').filter(|port| !port.is_empty()).collect();
        ports.sort_unstable();
        assert_eq!(ports, oracle.ports(name), "ports on {name}");
        assert!(
            ports.windows(2).all(|two| two[0] != two[1]),
            "{name}: {ports:?}"
        );
        let drains: bool = cluster
            .ask(&format!("SISMEMBER @nodes:draining {name}"))
            .await;
        assert!(drains || node.mark != Mark::Drain, "{name} drains unseen");
        let capacity = node.capacity;
        assert!(room.0 <= u64::from(capacity.pods_max), "{name}: {room:?}");
        assert!(room.1 <= capacity.cpu_millis, "{name}: {room:?}");
        assert!(room.2 <= capacity.memory_bytes, "{name}: {room:?}");
        for id in list(cluster, format!("SMEMBERS @cs:{name}")).await {
            assert_eq!(
                oracle.pods[&id].node.as_ref(),
                Some(name),
                "{id} in cs:{name}"
            );
            assert!(held.insert(id.clone()), "{id} is in two sets");
        }
        let living: Option<f64> = cluster.ask(&format!("ZSCORE @nodes {name}")).await;
        assert_eq!(living.is_some(), node.living, "{name}: {node:?}");
    }
    for (id, pod) in &oracle.pods {
        let must = pod.phase.is_on_node() || (!pod.run && !pod.gone);
        assert!(!must || held.contains(id), "{id} is in no set: {pod:?}");
    }
}

async fn check_services(cluster: &Cluster, oracle: &Oracle) {
    let names = list(cluster, "ZRANGE @services 0 -1".into()).await;
    let wanted: Vec<&String> = oracle.services.keys().collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), wanted);
    for (name, service) in &oracle.services {
        let index = list(cluster, format!("ZRANGE @service:{name}:pods 0 -1")).await;
        let index: BTreeSet<String> = index.into_iter().collect();
        let pods: BTreeSet<String> = oracle.pods_of(name).map(|(id, _)| id.clone()).collect();
        assert_eq!(index, pods, "index of {name}");
        let runs = |pod: &&crate::oracle::OraclePod| pod.phase.runs();
        let running = oracle.pods_of(name).filter(|(_, pod)| runs(pod)).count();
        let key = format!("service:{name}");
        let counted = cluster.field(&key, "running").await;
        let counted: usize = counted.parse().unwrap_or(0);
        assert_eq!(counted, running, "running pods of {name}");
        let replicas = cluster.number(&key, "replicas").await;
        assert_eq!(replicas, u64::from(service.replicas), "{name}");
    }
    let loose: BTreeSet<String> = list(cluster, "ZRANGE @pods 0 -1".into())
        .await
        .into_iter()
        .collect();
    let without = oracle
        .pods
        .iter()
        .filter(|(_, pod)| !pod.gone && pod.service.is_none());
    let without: BTreeSet<String> = without.map(|(id, _)| id.clone()).collect();
    assert_eq!(loose, without, "pods without an owner");
}
