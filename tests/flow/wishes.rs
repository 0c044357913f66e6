//! What services wish of their nodes, with several schedulers at work: labels, affinity, spread,
//! most on a node, strategies.

use std::collections::BTreeMap;

use kubeleet::model::{Phase, Placement, Pod, Priority, ServiceKey, ServiceSpec};

use crate::support::cluster::Cluster;

/// Six nodes in three zones, with as many schedulers.
async fn zones(schedulers: usize) -> Cluster {
    let mut cluster = Cluster::empty().await;
    cluster.settings.scheduler.batch = 7; // so that they meet
    for (number, zone) in ["a", "a", "a", "b", "b", "c"].into_iter().enumerate() {
        cluster.settings.node.labels = vec![
            format!("zone={zone}"),
            format!("rank={number}"),
            format!("price=0.{}", 9 - number),
        ];
        cluster.add_node(&format!("n{number}")).await;
    }
    for _ in 0..schedulers {
        cluster.add_scheduler();
    }
    cluster
}

async fn submit(cluster: &Cluster, name: &str, replicas: u32, placement: &str) -> ServiceKey {
    let placement: Placement = serde_json::from_str(placement).expect("a placement");
    let service = cluster.submit_spec(name, replicas, |spec| spec.placement = placement);
    service.await
}

fn by(pods: &[Pod], label: impl Fn(&str) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in pods.iter().filter_map(|pod| pod.node.as_deref()) {
        *counts.entry(label(node)).or_default() += 1;
    }
    counts
}

fn node(name: &str) -> String {
    name.to_owned()
}

fn zone(name: &str) -> String {
    match name {
        "n0" | "n1" | "n2" => "a",
        "n3" | "n4" => "b",
        _ => "c",
    }
    .to_owned()
}

fn counts(all: &[(&str, usize)]) -> BTreeMap<String, usize> {
    all.iter()
        .map(|(key, count)| ((*key).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn what_looks_at_other_pods_holds_with_three_schedulers() {
    let cluster = zones(3).await;
    let spread = submit(&cluster, "spread", 60, r#"{"spread":[{"over":"zone"}]}"#).await;
    let few = submit(&cluster, "few", 25, r#"{"max_per_node":4}"#).await;
    let one = submit(
        &cluster,
        "one",
        7,
        r#"{"affinity":[{"apart":{"service":"one"}}]}"#,
    )
    .await;

    let pods = cluster.all_in(&spread, Phase::Running, 60).await;
    assert_eq!(by(&pods, zone), counts(&[("a", 20), ("b", 20), ("c", 20)]));
    let pods = cluster.some_in(&few, Phase::Running, 24).await;
    assert_eq!(by(&pods, node).into_values().collect::<Vec<_>>(), [4; 6]);
    cluster
        .waits_because(
            &few,
            "0 of 6 nodes: 6 have 4 of the service, which is the most",
        )
        .await;
    let pods = cluster.some_in(&one, Phase::Running, 6).await;
    assert_eq!(by(&pods, node).into_values().collect::<Vec<_>>(), [1; 6]);
    cluster
        .waits_because(&one, "6 are not apart from one (per node)")
        .await;
    // Where one more may run it does, and the numbers stay even.
    cluster.scale(&spread, 66).await;
    let pods = cluster.all_in(&spread, Phase::Running, 66).await;
    assert_eq!(by(&pods, zone), counts(&[("a", 22), ("b", 22), ("c", 22)]));
    cluster.scale(&one, 6).await;
    cluster.all_in(&one, Phase::Running, 6).await;
    for service in [&spread, &few, &one] {
        cluster
            .store
            .services()
            .delete(service, None)
            .await
            .unwrap();
    }
    cluster.containers_are(0).await;
    cluster.end().await;
}

#[tokio::test]
async fn pods_follow_others_by_name_and_by_labels() {
    let cluster = zones(2).await;
    let db = cluster
        .submit_spec("db", 1, |spec| {
            spec.labels.insert("tier".into(), "data".into());
            spec.placement.labels.insert("node".into(), "n4".into());
        })
        .await;
    let near = submit(
        &cluster,
        "near",
        4,
        r#"{"affinity":[{"near":{"service":"db"}}]}"#,
    )
    .await;
    let placement = r#"{"affinity":[{"apart":{"labels":{"tier":"data"}},"per":"zone"}]}"#;
    let pods = cluster.all_in(&db, Phase::Running, 1).await;
    assert_eq!(by(&pods, node), counts(&[("n4", 1)]));
    let pods = cluster.all_in(&near, Phase::Running, 4).await;
    assert_eq!(by(&pods, node), counts(&[("n4", 4)]));
    let apart = submit(&cluster, "apart", 8, placement).await;
    let pods = cluster.all_in(&apart, Phase::Running, 8).await;
    assert!(!by(&pods, zone).contains_key("b"), "{pods:?}");
    cluster.end().await;
}

#[tokio::test]
async fn conditions_and_taints_keep_pods_away() {
    let cluster = zones(1).await;
    let taint = [("taint/for".to_owned(), Some("gpu".to_owned()))].into();
    cluster.store.nodes().label("n5", &taint).await.unwrap();
    for (name, placement, expected) in [
        (
            "high",
            r#"{"constraints":["rank>=4","os=linux"]}"#,
            counts(&[("n4", 6)]),
        ),
        (
            "gpu",
            r#"{"constraints":["rank>=4"],"tolerations":["for=gpu"],"strategy":"spread"}"#,
            counts(&[("n5", 6)]),
        ),
        (
            "not",
            r#"{"constraints":["zone not in (a, b)"],"tolerations":["*"]}"#,
            counts(&[("n5", 6)]),
        ),
    ] {
        let service = submit(&cluster, name, 6, placement).await;
        let pods = cluster.all_in(&service, Phase::Running, 6).await;
        assert_eq!(by(&pods, node), expected, "{name}");
    }
    let other = submit(&cluster, "other", 1, r#"{"platform":"windows/amd64"}"#).await;
    cluster
        .waits_because(&other, "6 are not windows/amd64")
        .await;
    let services = cluster.store.services();
    services.delete(&other, None).await.unwrap();
    cluster.end().await;
}

#[tokio::test]
async fn turns_go_round_across_schedulers_and_restarts() {
    let mut cluster = zones(3).await;
    let mut nodes = Vec::new();
    for number in 0..9 {
        if number == 4 {
            cluster.stop_schedulers().await;
            cluster.add_scheduler();
            cluster.add_scheduler();
        }
        let name = format!("turn{number}");
        let service = submit(&cluster, &name, 1, r#"{"strategy":"round-robin"}"#).await;
        let pods = cluster.all_in(&service, Phase::Running, 1).await;
        nodes.extend(pods[0].node.clone());
    }
    assert_eq!(
        nodes,
        ["n0", "n1", "n2", "n3", "n4", "n5", "n0", "n1", "n2"]
    );
    let many = submit(&cluster, "many", 60, r#"{"strategy":"round-robin"}"#).await;
    let pods = cluster.all_in(&many, Phase::Running, 60).await;
    assert_eq!(by(&pods, node).into_values().collect::<Vec<_>>(), [10; 6]);
    cluster.end().await;
}

#[tokio::test]
async fn the_cheapest_node_is_taken_and_its_price_stands_on_the_pod() {
    let cluster = zones(1).await;
    let cheap = submit(&cluster, "cheap", 3, r#"{"strategy":"cheapest"}"#).await;
    let pods = cluster.all_in(&cheap, Phase::Running, 3).await;
    assert_eq!(by(&pods, node), counts(&[("n5", 3)]));
    assert!(
        pods.iter().all(|pod| pod.price.as_deref() == Some("0.4")),
        "{pods:?}"
    );
    let dear = submit(&cluster, "dear", 3, r#"{"score":"-price + pods"}"#).await;
    let pods = cluster.all_in(&dear, Phase::Running, 3).await;
    assert_eq!(by(&pods, node), counts(&[("n0", 3)]));
    cluster.end().await;
}

#[tokio::test]
async fn an_update_puts_new_pods_where_old_ones_still_are() {
    let cluster = zones(2).await;
    let wish = r#"{"max_per_node":1}"#;
    let service = submit(&cluster, "web", 6, wish).await;
    cluster.all_in(&service, Phase::Running, 6).await;
    cluster
        .apply("web", |spec| {
            spec.replicas = 6;
            spec.placement = serde_json::from_str(wish).expect("a placement");
            spec.env.insert("NEW".into(), "1".into());
        })
        .await;
    let pods =
        crate::support::eventually(crate::support::cluster::SOON, "all are new", async || {
            let pods = cluster.pods(Some(&service)).await;
            let new = |pod: &&Pod| pod.revision == 2 && pod.phase == Phase::Running;
            match (pods.iter().filter(new).count(), pods.len()) {
                (6, 6) => Ok(pods),
                counted => Err(format!("{counted:?}")),
            }
        })
        .await;
    assert_eq!(by(&pods, node).into_values().collect::<Vec<_>>(), [1; 6]);
    cluster.end().await;
}

#[tokio::test]
async fn lower_pods_make_room_for_a_service_that_preempts() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.node.pods_max = 3;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let with = |priority: Priority, preempts: bool| {
        move |spec: &mut ServiceSpec| {
            spec.priority = priority;
            spec.preempts = preempts;
        }
    };
    let low = cluster
        .submit_spec("low", 4, with(Priority::Low, false))
        .await;
    let normal = cluster
        .submit_spec("normal", 2, with(Priority::Normal, false))
        .await;
    cluster.all_in(&low, Phase::Running, 4).await;
    cluster.all_in(&normal, Phase::Running, 2).await;
    // One that does not preempt waits.
    let modest = cluster
        .submit_spec("modest", 1, with(Priority::High, false))
        .await;
    cluster
        .waits_because(&modest, "2 have all the pods they may")
        .await;
    cluster
        .store
        .services()
        .delete(&modest, None)
        .await
        .unwrap();
    cluster.gone(&modest).await;
    let high = cluster
        .submit_spec("high", 2, with(Priority::High, true))
        .await;
    cluster.all_in(&high, Phase::Running, 2).await;
    // The lowest made room, as many as were needed, and wait themselves.
    let pods = cluster.all_in(&normal, Phase::Running, 2).await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
    cluster.some_in(&low, Phase::Running, 2).await;
    cluster
        .waits_because(&low, "2 have all the pods they may")
        .await;
    for service in [&low, &normal, &high] {
        cluster
            .store
            .services()
            .delete(service, None)
            .await
            .unwrap();
    }
    cluster.containers_are(0).await;
    cluster.end().await;
}
