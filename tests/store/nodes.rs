//! Nodes: registration, heartbeats, the snapshot's pages, and the sweep of lost ones.

use std::collections::BTreeSet;

use kubeleet::model::{EngineState, NodeState};
use kubeleet::store::{Beat, BeatOutcome, ClusterSeen, RegisterOutcome};

use crate::cluster::{Cluster, LEASE, LONG, beat};

pub(crate) async fn heartbeat(cluster: &Cluster, node: &str, epoch: u64) -> BeatOutcome {
    let outcome = cluster
        .store
        .nodes()
        .heartbeat(node, epoch, &beat(10))
        .await;
    outcome.expect("an answer")
}

#[tokio::test]
async fn an_epoch_grows_with_each_registration_and_ends_the_one_before() {
    let cluster = Cluster::new().await;
    let id = cluster.store.open().await.unwrap();
    let seen = ClusterSeen {
        id,
        ..ClusterSeen::default()
    };
    assert_eq!(heartbeat(&cluster, "n", 1).await, BeatOutcome::Unknown);
    assert_eq!(cluster.register("n", &beat(10)).await, 1);
    let renewed = BeatOutcome::Renewed {
        cluster: seen.clone(),
        returned: false,
        said: Some("ready ".to_owned()),
    };
    assert_eq!(heartbeat(&cluster, "n", 1).await, renewed);
    let registered = cluster
        .store
        .nodes()
        .register("n", "n", LEASE, &beat(10))
        .await;
    assert_eq!(
        registered.unwrap(),
        RegisterOutcome::Registered {
            epoch: 2,
            cluster: seen
        }
    );
    assert_eq!(heartbeat(&cluster, "n", 1).await, BeatOutcome::Superseded);
    assert_eq!(heartbeat(&cluster, "n", 2).await, renewed);
    // Who is superseded cannot leave for the other.
    cluster.store.nodes().leave("n", 1).await.unwrap();
    assert_eq!(cluster.field("node:n", "engine").await, "up");
    cluster.store.nodes().leave("n", 2).await.unwrap();
    assert_eq!(cluster.field("node:n", "engine").await, "down");
}

#[tokio::test]
async fn a_name_is_taken_by_another_engine_only_while_its_lease_lives() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let other = async || {
        let registered = cluster
            .store
            .nodes()
            .register("n", "other", LEASE, &beat(10))
            .await;
        registered.unwrap()
    };
    let RegisterOutcome::Taken { left } = other().await else {
        panic!("its lease lives");
    };
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    assert_eq!(cluster.number("node:n", "epoch").await, 1);
    cluster.age("n", 20_001).await;
    assert!(matches!(
        other().await,
        RegisterOutcome::Registered { epoch: 2, .. }
    ));
}

#[tokio::test]
async fn a_node_reads_back_as_it_said_of_itself() {
    let cluster = Cluster::new().await;
    let said = Beat {
        cpu_used: 0.25,
        memory_used_bytes: 7 << 40,
        ..beat(10)
    };
    cluster.register("n", &said).await;
    let node = cluster
        .store
        .nodes()
        .get("n", LEASE)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (node.capacity, node.state),
        (said.capacity, NodeState::Ready)
    );
    assert_eq!((node.memory_used_bytes, node.epoch), (7 << 40, 1));
    assert!((node.cpu_used - 0.25).abs() < 0.001);
    let down = Beat {
        engine: EngineState::Down,
        ..said
    };
    cluster
        .store
        .nodes()
        .heartbeat("n", 1, &down)
        .await
        .unwrap();
    let state = async || {
        cluster
            .store
            .nodes()
            .get("n", LEASE)
            .await
            .unwrap()
            .unwrap()
            .state
    };
    assert_eq!(state().await, NodeState::EngineDown);
    cluster.age("n", LONG).await;
    assert_eq!(state().await, NodeState::Lost);
    assert!(
        cluster
            .store
            .nodes()
            .get("none", LEASE)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_snapshot_of_many_nodes_is_whole_though_many_beat_in_one_millisecond() {
    let cluster = Cluster::new().await;
    let names: BTreeSet<String> = (0..1301).map(|number| format!("n{number:04}")).collect();
    for name in &names {
        cluster.register(name, &beat(1)).await;
    }
    let mut scores = format!("ZADD {}nodes", cluster.prefix);
    for (number, name) in names.iter().enumerate() {
        scores += &format!(" {} {name}", 1000 + number / 700);
    }
    let _: u64 = cluster.ask(&scores).await;
    let seen = cluster.store.nodes().seen_since(0).await.unwrap();
    let seen_names: Vec<String> = seen.nodes.iter().map(|node| node.name.clone()).collect();
    assert_eq!(seen_names.len(), names.len());
    assert_eq!(BTreeSet::from_iter(seen_names), names);
    let later = cluster.store.nodes().seen_since(1001).await.unwrap();
    assert_eq!(later.nodes.len(), 601);
    assert!(later.now_ms >= seen.now_ms);
    let none = cluster.store.nodes().seen_since(1002).await.unwrap();
    assert!(none.nodes.is_empty() && none.now_ms >= later.now_ms);
}

#[tokio::test]
async fn a_snapshot_is_whole_though_nodes_beat_between_its_pages() {
    let cluster = Cluster::new().await;
    let names: BTreeSet<String> = (0..1301).map(|number| format!("n{number:04}")).collect();
    for name in &names {
        cluster.register(name, &beat(1)).await;
    }
    let (store, beating) = (cluster.store.clone(), names.clone());
    let beats = tokio::spawn(async move {
        for name in beating.iter().cycle() {
            store.nodes().heartbeat(name, 1, &beat(1)).await.unwrap();
        }
    });
    for _ in 0..20 {
        let seen = cluster.store.nodes().seen_since(0).await.unwrap();
        let seen_names: BTreeSet<String> =
            seen.nodes.iter().map(|node| node.name.clone()).collect();
        let missing: Vec<&String> = names.difference(&seen_names).collect();
        assert!(missing.is_empty(), "not seen: {missing:?}");
        assert_eq!(seen.nodes.len(), names.len(), "each once");
    }
    beats.abort();
}
