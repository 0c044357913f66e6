//! What must stand in Redis after each call, as the reference says.

use std::collections::BTreeMap;

use kubeleet::model::{Phase, PodId};

use crate::mirror::{Mirror, NODES, SERVICES, key_of, name};
use crate::reference::{Due, Pod, PodKey};

/// Compares all that the reference knows with what stands in Redis.
pub(crate) async fn look(mirror: &mut Mirror, after: &str) {
    pods(mirror, after).await;
    services(mirror, after).await;
    nodes(mirror, after).await;
    mirror.store.queue = same(mirror, "sq", &mirror.store.queue, after).await;
    for number in 0..NODES {
        let (name, node) = (name(number), usize::from(number));
        let inbox = &mirror.store.nodes[node].inbox;
        mirror.store.nodes[node].inbox = same(mirror, &format!("pq:{name}"), inbox, after).await;
    }
    let claims: u64 = mirror.cluster.ask("ZCARD @sq:claims").await;
    let wanted = u64::try_from(mirror.store.claims.len()).expect("few");
    assert_eq!(claims, wanted, "claims after {after}");
}

/// A list as it stands in Redis, which must hold the same: how pods of one replica index, or of one swept node,
/// follow one another is Redis's choice.
async fn same(mirror: &Mirror, list: &str, wanted: &[PodKey], after: &str) -> Vec<PodKey> {
    let served = mirror.cluster.served(list).await;
    let served = served
        .iter()
        .map(|id| PodId::parse(id).expect("the id of a pod"));
    let served: Vec<PodKey> = served.map(|id| mirror.key(&id)).collect();
    let (mut real, mut wanted) = (served.clone(), wanted.to_vec());
    real.sort();
    wanted.sort();
    assert_eq!(real, wanted, "{list} after {after}");
    served
}

fn ids(mirror: &Mirror, keys: &[PodKey]) -> Vec<String> {
    keys.iter().map(|key| mirror.ids[key].to_string()).collect()
}

async fn pods(mirror: &Mirror, after: &str) {
    for pod in &mirror.store.pods {
        let id: &PodId = &mirror.ids[&pod.key];
        let found: BTreeMap<String, String> =
            mirror.cluster.ask(&format!("HGETALL @pod:{id}")).await;
        let field = |name: &str| found.get(name).map_or("", String::as_str);
        assert_eq!(
            Phase::parse(field("phase")),
            Some(pod.phase),
            "{id} after {after}"
        );
        assert_eq!(field("desired") == "run", pod.run, "{id} after {after}");
        assert_eq!(field("owner").is_empty(), pod.gone, "{id} after {after}");
        let node = pod.node.map(name).unwrap_or_default();
        assert_eq!(field("node"), node, "{id} after {after}");
        let token = (pod.token.attempt, pod.token.nonce);
        let attempt = field("attempt").parse().unwrap_or(0);
        let nonce = field("nonce").trim_start_matches('n').parse().unwrap_or(0);
        assert_eq!((attempt, nonce), token, "{id} after {after}");
    }
}

async fn services(mirror: &Mirror, after: &str) {
    let now = mirror.cluster.now_ms().await;
    for number in 0..SERVICES {
        let named = &mirror.store.services[usize::from(number)];
        let key = key_of(number);
        let due: Option<f64> = mirror
            .cluster
            .ask(&format!("ZSCORE @services:changed {key}"))
            .await;
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds since 1970 are exact"
        )]
        let is_now = due.map(|due| due <= now as f64);
        let wanted = named.due.map(|due| due == Due::Now);
        assert_eq!(is_now, wanted, "{key} is due after {after}");
        let found: BTreeMap<String, String> =
            mirror.cluster.ask(&format!("HGETALL @service:{key}")).await;
        let Some(record) = &named.record else {
            assert!(found.is_empty(), "{key} is gone after {after}: {found:?}");
            continue;
        };
        let field = |name: &str| found.get(name).map_or(0, |text| text.parse().unwrap_or(0));
        let real = [
            field("replicas"),
            field("split"),
            field("turn"),
            field("deleting"),
        ];
        let wanted = [
            record.replicas,
            record.split,
            record.turn,
            u8::from(record.deleting),
        ];
        assert_eq!(real, wanted, "{key} after {after}");
        let pods = mirror.store.pods_of(number).into_iter();
        let mut wanted: Vec<String> = pods.map(|pod| mirror.ids[&pod].to_string()).collect();
        let mut index: Vec<String> = mirror
            .cluster
            .ask(&format!("ZRANGE @service:{key}:pods 0 -1"))
            .await;
        index.sort();
        wanted.sort();
        assert_eq!(index, wanted, "pods of {key} after {after}");
    }
}

async fn nodes(mirror: &Mirror, after: &str) {
    for number in 0..NODES {
        let (name, wanted) = (name(number), mirror.store.node(number));
        let cluster = &mirror.cluster;
        let key = format!("node:{name}");
        let epoch = cluster.number(&key, "epoch").await;
        assert_eq!(
            epoch,
            u64::from(wanted.epoch),
            "epoch of {name} after {after}"
        );
        let lost = cluster.field(&key, "state").await == "lost";
        assert_eq!(lost, wanted.lost, "{name} is lost after {after}");
        let living: Option<f64> = cluster.ask(&format!("ZSCORE @nodes {name}")).await;
        assert_eq!(
            living.is_some(),
            wanted.living,
            "{name} lives after {after}"
        );
        let taken = cluster.number(&key, "cpu_requested").await / 1000;
        let here = |pod: &&Pod| pod.node == Some(number) && pod.phase.is_on_node();
        let pods = mirror.store.pods.iter().filter(here);
        let sum: u64 = pods.map(|pod| u64::from(pod.asks)).sum();
        assert_eq!(taken, sum, "what is taken of {name} after {after}");
        assert!(
            sum <= u64::from(wanted.capacity),
            "{name} is full after {after}"
        );
        let mut here: Vec<String> = cluster.ask(&format!("SMEMBERS @cs:{name}")).await;
        let mut all = ids(mirror, &wanted.here);
        here.sort();
        all.sort();
        assert_eq!(here, all, "pods of {name} after {after}");
        let handling = cluster.served(&format!("rq:{name}")).await;
        assert_eq!(
            handling,
            ids(mirror, &wanted.handling),
            "rq of {name} after {after}"
        );
    }
}
