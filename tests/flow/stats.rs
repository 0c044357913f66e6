//! What pods use, asked through Redis.

use kubeleet::client::ClientError;
use kubeleet::model::{NodeState, Phase, PodStats};
use serde::Deserialize;

use crate::seeing::Seeing;
use crate::support::cluster::Cluster;

#[derive(Deserialize)]
struct List {
    items: Vec<PodStats>,
}

#[tokio::test]
async fn use_is_told_by_the_nodes_and_a_node_that_is_down_is_named() {
    let mut cluster = Cluster::start(2).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 4).await;
    let other = cluster.submit_once("other", 1).await;
    let pods = cluster.all_in(&service, Phase::Running, 4).await;
    cluster.all_in(&other, Phase::Running, 1).await;
    let list = async |query: &str| {
        let list: List = api.client.get(&format!("/v1/stats{query}")).await.unwrap();
        list.items
    };
    let stats: PodStats = api
        .client
        .get(&format!("/v1/pods/{}/stats", pods[0].id))
        .await
        .unwrap();
    let usage = stats.usage.unwrap();
    assert_eq!(
        (stats.pod, stats.node),
        (pods[0].id.clone(), pods[0].node.clone())
    );
    assert!((usage.cpu_cores - 0.5).abs() < 0.01, "{usage:?}");
    assert_eq!(
        (usage.memory_bytes, usage.memory_limit_bytes, usage.pids),
        (16 << 20, 64 << 20, 1)
    );

    let all = list("").await;
    assert_eq!(all.len(), 5);
    assert!(
        all.iter()
            .all(|stats| stats.usage.is_some() && stats.error.is_none()),
        "{all:?}"
    );
    let of_service = list("?service=web").await;
    assert_eq!(of_service.len(), 4);
    assert!(
        of_service
            .iter()
            .all(|stats| stats.service.as_deref() == Some("default/web"))
    );
    let of_node = list("?node=worker1&namespace=default").await;
    assert!(!of_node.is_empty() && of_node.len() < 5);
    assert!(
        of_node
            .iter()
            .all(|stats| stats.node.as_deref() == Some("worker1"))
    );
    assert_eq!(list("?service=none").await, []);
    assert_eq!(list("?namespace=none").await, []);

    // An engine that is away is told of by its agent or by its node's state, whichever is first.
    cluster.engine("worker1").set_down(true);
    for stats in list("?node=worker1").await {
        let why = stats.error.unwrap();
        assert!(why.contains("engine"), "{why}");
    }
    cluster.engine("worker1").set_down(false);
    cluster.ready("worker1").await;

    let on = |node: &str| {
        pods.iter()
            .find(|pod| pod.node.as_deref() == Some(node))
            .unwrap()
    };
    let lost = on("worker1").id.clone();
    cluster.stop_schedulers().await;
    cluster.take_agent("worker1").kill();
    cluster.in_state("worker1", NodeState::Lost).await;
    for stats in list("").await {
        match stats.node.as_deref() {
            Some("worker1") => assert!(stats.error.unwrap().contains("node worker1 is down")),
            _ => assert!(stats.usage.is_some(), "{stats:?}"),
        }
    }
    match api
        .client
        .get::<PodStats>(&format!("/v1/pods/{lost}/stats"))
        .await
    {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(
                (problem.status, problem.r#type.as_str()),
                (503, "/problems/node-unavailable")
            );
            assert!(problem.detail.contains("worker1"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
    let running = &on("worker2").id;
    cluster.engine("worker2").end_pod(running, 0, None);
    cluster.pod_in(running, Phase::Succeeded).await;
    match api
        .client
        .get::<PodStats>(&format!("/v1/pods/{running}/stats"))
        .await
    {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.r#type, "/problems/pod-not-running")
        }
        other => panic!("{other:?}"),
    }
    cluster
        .no_session_is_left(crate::support::cluster::SOON)
        .await;
}
