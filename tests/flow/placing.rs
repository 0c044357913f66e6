//! Where pods go: evenly over idle nodes, away from pressed ones, and nowhere where there is no room.

use std::time::Duration;

use kubeleet::model::{NodeState, Phase, Pod, ServiceSpec};

use crate::support::cluster::Cluster;
use crate::support::proc_dir::Pressed;

#[tokio::test]
async fn equal_pods_spread_evenly_over_idle_nodes() {
    let cluster = Cluster::start(3).await;
    let service = cluster.submit("web", 90).await;
    let pods = cluster.all_in(&service, Phase::Running, 90).await;
    cluster.assert_exactly_once(&pods);
    for (node, count) in cluster.live_by_node() {
        assert!((28..=32).contains(&count), "{node} has {count} of 90");
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_node_under_memory_pressure_is_spared() {
    a_pressed_node_is_spared(Pressed::Memory).await;
}

#[tokio::test]
async fn a_node_under_io_pressure_is_spared() {
    a_pressed_node_is_spared(Pressed::Io).await;
}

#[tokio::test]
async fn a_node_under_cpu_pressure_is_spared() {
    a_pressed_node_is_spared(Pressed::Cpu).await;
}

async fn a_pressed_node_is_spared(pressed: Pressed) {
    let cluster = Cluster::start(3).await;
    let before = cluster.submit("before", 30).await;
    cluster.all_in(&before, Phase::Running, 30).await;
    cluster.press("worker2", pressed, 40).await;
    let service = cluster.submit("web", 100).await;
    let pods = cluster.all_in(&service, Phase::Running, 100).await;
    let there = |pod: &&Pod| pod.node.as_deref() == Some("worker2");
    let spared = 100 - pods.iter().filter(there).count();
    assert!(spared >= 95, "only {spared} of 100 went elsewhere");
    cluster.end().await;
}

#[tokio::test]
async fn cpu_pressure_without_cpu_use_does_not_count() {
    let cluster = Cluster::start(2).await;
    cluster.press("worker2", Pressed::IdleCpu, 80).await;
    let service = cluster.submit("web", 40).await;
    cluster.all_in(&service, Phase::Running, 40).await;
    let there = cluster.live_by_node()["worker2"];
    assert!((18..=22).contains(&there), "{there} of 40");
    cluster.end().await;
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_runs_when_a_node_joins() {
    let mut cluster = Cluster::start(0).await;
    let service = cluster.submit("early", 1).await;
    cluster
        .waits_because(&service, "no node has registered yet")
        .await;

    cluster.add_node("worker1").await;
    cluster.all_in(&service, Phase::Running, 1).await;

    let large = |spec: &mut ServiceSpec| {
        spec.resources.memory_bytes = 300 << 30;
    };
    let huge = cluster.submit_spec("huge", 2, large).await;
    let needed = "1 lack memory (307200 MiB needed, at most 262144 MiB free)";
    cluster.waits_because(&huge, needed).await;
    // Those that fit are not held up by those that do not.
    let small = cluster.submit("small", 5).await;
    cluster.all_in(&small, Phase::Running, 5).await;

    cluster.add_machine("worker2");
    cluster.engine("worker2").set_capacity(4_000, 512 << 30);
    cluster.start_agent("worker2");
    let placed = |pods: &[Pod]| {
        let there = pods
            .iter()
            .filter(|pod| pod.node.as_deref() == Some("worker2"));
        there.count()
    };
    cluster.some_in(&huge, Phase::Running, 1).await;
    let pods = cluster.pods(Some(&huge)).await;
    assert_eq!(placed(&pods), 1, "512 GiB hold one of 300 GiB");
    cluster.waits_because(&huge, "2 lack memory").await;
    cluster.scale(&huge, 0).await;
    cluster.containers_are(6).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_parked_pod_runs_when_room_appears() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.node.pods_max = 3;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let first = cluster.submit("first", 3).await;
    cluster.all_in(&first, Phase::Running, 3).await;
    let second = cluster.submit("second", 2).await;
    cluster
        .waits_because(&second, "0 of 1 nodes: 1 have all the pods they may")
        .await;
    assert_eq!(cluster.live().len(), 3);

    cluster.scale(&first, 1).await;
    let pods = cluster.all_in(&second, Phase::Running, 2).await;
    assert!(pods.iter().all(|pod| pod.reason.is_none()), "{pods:?}");
    assert_eq!(cluster.live().len(), 3, "never more than it may");
    cluster.end().await;
}

/// Freed room moves no heartbeat, so a scheduler that only reads who beat would not see it.
#[tokio::test]
async fn freed_room_is_seen_between_two_heartbeats() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.node.pods_max = 3;
    cluster.settings.heartbeat.interval = Duration::from_secs(30);
    cluster.settings.heartbeat.lease = Duration::from_secs(120);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let first = cluster.submit("first", 3).await;
    cluster.all_in(&first, Phase::Running, 3).await;
    let second = cluster.submit("second", 1).await;
    cluster
        .waits_because(&second, "0 of 1 nodes: 1 have all the pods they may")
        .await;
    cluster.scale(&first, 2).await;
    cluster
        .all_in_within(Duration::from_secs(10), &second, Phase::Running, 1)
        .await;
    cluster.end().await;
}

#[tokio::test]
async fn a_node_whose_engine_is_away_gets_nothing() {
    let cluster = Cluster::start(2).await;
    let before = cluster.submit("before", 4).await;
    let running = cluster.all_in(&before, Phase::Running, 4).await;
    cluster.engine("worker1").set_down(true);
    cluster.in_state("worker1", NodeState::EngineDown).await;
    let service = cluster.submit("web", 10).await;
    let pods = cluster.all_in(&service, Phase::Running, 10).await;
    assert!(
        pods.iter()
            .all(|pod| pod.node.as_deref() == Some("worker2"))
    );

    cluster.engine("worker1").set_down(false);
    cluster.ready("worker1").await;
    assert_eq!(cluster.pods(Some(&before)).await, running, "they ran on");
    let mut all = running;
    all.extend(pods);
    cluster.assert_exactly_once(&all);
    cluster.end().await;
}
