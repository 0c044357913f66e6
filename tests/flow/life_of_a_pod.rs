//! The life of a pod, from its submit or its push by hand to its end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kubeleet::container::ContainerState;
use kubeleet::model::service::RestartPolicy;
use kubeleet::model::{Phase, PodId, ServiceSpec};
use kubeleet::store::ScaleOutcome;

use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::eventually;

/// The line of DESIGN.md, section 4, as the shell hands it to redis-cli.
const BY_HAND: &str = "{\"name\":\"test\",\"uuid\":\"djkfghsdjkfhjksdghfjksdjkfhsd\",\"image\":\"spaster/alpine-sleep\",\"replica\":3}";
const BY_HAND_ID: &str = "djkfghsdjkfhjksdghfjksdjkfhsd";
/// Longest time from that line to its container.
const BY_HAND_LIMIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_service_becomes_running_containers() {
    let cluster = Cluster::start(2).await;
    let service = cluster.submit("web", 3).await;
    let pods = cluster.all_in(&service, Phase::Running, 3).await;
    cluster.assert_exactly_once(&pods);
    let replicas: BTreeSet<u32> = pods.iter().map(|pod| pod.replica).collect();
    assert_eq!(replicas, BTreeSet::from([0, 1, 2]));
    for pod in &pods {
        assert_eq!((pod.attempt, pod.revision), (1, 1));
        assert_eq!(pod.exit_code, None);
    }
    for (_, container) in cluster.live() {
        let pod = pods.iter().find(|pod| pod.id == container.pod).unwrap();
        let name = format!("web-{}-{}", pod.replica, pod.id.short());
        assert_eq!((container.name, container.image), (name, IMAGE.to_owned()));
    }
    let (stored, running) = cluster.service(&service).await.unwrap();
    assert_eq!((stored.replicas, running), (3, 3));
    cluster.end().await;
}

#[tokio::test]
async fn a_pod_pushed_on_a_nodes_list_runs_there() {
    let cluster = Cluster::start(2).await;
    let begun = Instant::now();
    cluster.push("pq:worker1", BY_HAND).await;
    let id = PodId::parse(BY_HAND_ID).unwrap();
    let pod = cluster.pod_in(&id, Phase::Running).await;
    assert!(begun.elapsed() < BY_HAND_LIMIT, "{:?}", begun.elapsed());
    assert_eq!(pod.node.as_deref(), Some("worker1"));
    assert_eq!((pod.replica, pod.name.as_str()), (3, "test"));
    let live = cluster.engine("worker1").live();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].name, "test-3-djkfghsd");
    assert_eq!(live[0].image, IMAGE);

    // The same line again is the same pod.
    cluster.push("pq:worker1", BY_HAND).await;
    cluster.settled().await;
    assert_eq!(cluster.live().len(), 1);
    assert_eq!(cluster.node("worker1").await.unwrap().pods, 1);
    cluster.end().await;
}

#[tokio::test]
async fn a_pod_pushed_on_the_queue_is_placed() {
    let cluster = Cluster::start(2).await;
    let begun = Instant::now();
    cluster.push("sq", BY_HAND).await;
    let id = PodId::parse(BY_HAND_ID).unwrap();
    let pod = cluster.pod_in(&id, Phase::Running).await;
    assert!(begun.elapsed() < BY_HAND_LIMIT, "{:?}", begun.elapsed());
    cluster.assert_exactly_once(&[pod]);

    cluster.push("sq", BY_HAND).await;
    cluster.settled().await;
    assert_eq!(cluster.live().len(), 1);
    cluster.end().await;
}

#[tokio::test]
async fn scaling_down_stops_the_highest_replicas() {
    let cluster = Cluster::start(2).await;
    let service = cluster.submit("web", 6).await;
    let before = cluster.all_in(&service, Phase::Running, 6).await;
    cluster.scale(&service, 2).await;
    let after = cluster.all_in(&service, Phase::Running, 2).await;
    let kept: Vec<_> = before.into_iter().filter(|pod| pod.replica < 2).collect();
    assert_eq!(after, kept, "what stays is left alone");
    cluster.containers_are(2).await;
    cluster.assert_exactly_once(&after);

    cluster.scale(&service, 5).await;
    let grown = cluster.all_in(&service, Phase::Running, 5).await;
    cluster.assert_exactly_once(&grown);
    cluster.end().await;
}

#[tokio::test]
async fn a_deleted_service_leaves_nothing_but_tombstones() {
    let cluster = Cluster::start(2).await;
    let service = cluster.submit("web", 4).await;
    let pods = cluster.all_in(&service, Phase::Running, 4).await;
    let deleted = cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    assert_eq!(deleted, ScaleOutcome::Done);
    cluster.containers_are(0).await;
    eventually(SOON, "only tombstones are left", async || {
        let mut left = cluster.keys().await;
        let nodes = ["node:worker1", "node:worker2"];
        left.retain(|key| {
            let of_the_cluster = ["cluster", "events", "nodes"].contains(&key.as_str());
            let of_decisions = key.starts_with("decision");
            !of_the_cluster && !of_decisions && !nodes.contains(&key.as_str())
        });
        let mut tombs: Vec<String> = pods.iter().map(|pod| format!("pod:{}", pod.id)).collect();
        tombs.push("service:default/web:gone".to_owned());
        tombs.sort();
        if left == tombs {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    for pod in &pods {
        let tombstone = cluster.key(&format!("pod:{}", pod.id));
        let left: i64 = cluster.redis(&["TTL", &tombstone]).await;
        assert!(left > 0, "a tombstone goes away by itself");
        assert_eq!(cluster.pod(&pod.id).await, None);
    }
    for name in ["worker1", "worker2"] {
        assert_eq!(cluster.node(name).await.unwrap().pods, 0, "{name}");
    }
    cluster.end().await;
}

/// A container that ends is not started again.
fn once(spec: &mut ServiceSpec) {
    spec.restart.policy = RestartPolicy::Never;
}

#[tokio::test]
async fn a_container_that_ends_tells_its_code() {
    let cluster = Cluster::start(1).await;
    let service = cluster.submit_spec("job", 3, once).await;
    let pods = cluster.all_in(&service, Phase::Running, 3).await;
    let engine = cluster.engine("worker1");
    let ends = [
        (0, None, Phase::Succeeded, "exited with code 0"),
        (3, None, Phase::Failed, "exited with code 3"),
        (
            137,
            Some("out of memory"),
            Phase::Failed,
            "exited with code 137: out of memory",
        ),
    ];
    for (pod, (code, why, phase, reason)) in pods.iter().zip(ends) {
        assert!(engine.end_pod(&pod.id, code, why));
        let ended = cluster.pod_in(&pod.id, phase).await;
        assert_eq!(ended.exit_code, Some(code));
        assert_eq!(ended.reason.as_deref(), Some(reason));
    }
    assert_eq!(
        cluster.node("worker1").await.unwrap().pods,
        0,
        "its room is free"
    );
    assert_eq!(cluster.service(&service).await.unwrap().1, 0);
    // What is left of them is kept to be looked at, until they are not wanted any more.
    let kept = engine.containers();
    assert!(
        kept.iter()
            .all(|it| matches!(it.state, ContainerState::Exited { .. }))
    );
    assert_eq!(kept.len(), 3);
    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    cluster.containers_are(0).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_container_that_ends_while_its_agent_is_away_is_told_of_later() {
    let mut cluster = Cluster::start(1).await;
    let service = cluster.submit_spec("job", 1, once).await;
    let pods = cluster.all_in(&service, Phase::Running, 1).await;
    cluster.take_agent("worker1").kill();
    assert!(cluster.engine("worker1").end_pod(&pods[0].id, 4, None));
    cluster.start_agent("worker1");
    let ended = cluster.pod_in(&pods[0].id, Phase::Failed).await;
    assert_eq!(ended.exit_code, Some(4));
    cluster.end().await;
}
