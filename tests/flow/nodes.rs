//! Nodes as users shape them: labels, fixed ports, cordon, drain and removal, with all stations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kubeleet::model::{NodeState, Phase, PodId, Port, ServiceKey};
use kubeleet::store::{LabelOutcome, Mark, RemoveOutcome};

use crate::support::cluster::{Cluster, SOON};
use crate::support::{eventually, shared_redis};

async fn label(cluster: &Cluster, node: &str, key: &str, value: Option<&str>) {
    let labels = BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
    let labelled = cluster.store.nodes().label(node, &labels).await;
    assert_eq!(labelled.unwrap(), LabelOutcome::Labelled);
}

async fn mark(cluster: &Cluster, node: &str, mark: Mark) {
    assert!(cluster.store.nodes().mark(node, mark).await.unwrap());
}

async fn on_nodes(cluster: &Cluster, service: &ServiceKey, count: usize) -> Vec<String> {
    let pods = cluster.some_in(service, Phase::Running, count).await;
    let nodes = pods.into_iter().filter_map(|pod| pod.node);
    nodes.collect()
}

#[tokio::test]
async fn a_pod_that_wants_a_label_starts_as_soon_as_a_node_has_it() {
    let cluster = Cluster::start(2).await;
    let service = cluster
        .submit_spec("web", 3, |spec| {
            spec.placement.labels.insert("disk".into(), "ssd".into());
        })
        .await;
    let reason = "0 of 2 nodes: 2 lack the label disk=ssd";
    cluster.waits_because(&service, reason).await;
    // Long enough for the pauses between tries to have grown.
    eventually(SOON, "it was tried several times", async || {
        let pods = cluster.pods(Some(&service)).await;
        let key = cluster.key(&format!("pod:{}", pods[0].id));
        let tries: Option<u64> = cluster.redis(&["HGET", &key, "tries"]).await;
        if tries >= Some(3) {
            return Ok(());
        }
        let _: u64 = cluster
            .redis(&[
                "ZADD",
                &cluster.key("sq:parked"),
                "XX",
                "1",
                pods[0].id.as_str(),
            ])
            .await;
        Err(format!("{tries:?}"))
    })
    .await;
    label(&cluster, "worker1", "disk", Some("hdd")).await;
    let begun = Instant::now();
    label(&cluster, "worker2", "disk", Some("ssd")).await;
    let nodes = on_nodes(&cluster, &service, 3).await;
    assert_eq!(nodes, ["worker2"; 3]);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    // A label that is taken away moves nobody.
    label(&cluster, "worker2", "disk", None).await;
    cluster.scale(&service, 4).await;
    cluster
        .waits_because(&service, "2 lack the label disk=ssd")
        .await;
    assert_eq!(on_nodes(&cluster, &service, 3).await, ["worker2"; 3]);
    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    cluster.gone(&service).await;
    cluster.end().await;
}

#[tokio::test]
async fn replicas_with_a_fixed_port_run_on_nodes_of_their_own() {
    let mut cluster = Cluster::start(3).await;
    cluster.add_scheduler();
    let service = cluster
        .submit_spec("web", 4, |spec| {
            spec.ports = vec![Port::parse("8080:80").unwrap()]
        })
        .await;
    let nodes: BTreeSet<String> = on_nodes(&cluster, &service, 3).await.into_iter().collect();
    assert_eq!(nodes.len(), 3);
    let reason = "0 of 3 nodes: 3 have port 8080/tcp taken";
    cluster.waits_because(&service, reason).await;
    cluster.add_node("worker4").await;
    cluster.all_in(&service, Phase::Running, 4).await;
    // A pod of another service gets the port when one of them is gone.
    let other = cluster
        .submit_spec("other", 1, |spec| {
            spec.ports = vec![Port::parse("8080:80").unwrap()]
        })
        .await;
    cluster
        .waits_because(&other, "0 of 4 nodes: 4 have port 8080/tcp taken")
        .await;
    cluster.scale(&service, 3).await;
    cluster.all_in(&other, Phase::Running, 1).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_cordoned_node_keeps_its_pods_and_gets_no_more() {
    let cluster = Cluster::start(2).await;
    let first = cluster.submit("first", 4).await;
    let before = cluster.all_in(&first, Phase::Running, 4).await;
    mark(&cluster, "worker1", Mark::Cordon).await;
    cluster.in_state("worker1", NodeState::Cordoned).await;
    let second = cluster.submit("second", 6).await;
    cluster.all_in(&second, Phase::Running, 6).await;
    assert_eq!(on_nodes(&cluster, &second, 6).await, ["worker2"; 6]);
    assert_eq!(cluster.pods(Some(&first)).await, before, "nobody moved");
    mark(&cluster, "worker2", Mark::Cordon).await;
    let third = cluster.submit("third", 1).await;
    cluster
        .waits_because(&third, "0 of 2 nodes: 2 are cordoned")
        .await;
    mark(&cluster, "worker1", Mark::Open).await;
    assert_eq!(on_nodes(&cluster, &third, 1).await, ["worker1"]);
    cluster.end().await;
}

/// Two nodes whose containers take their time to stop.
async fn slow_to_stop() -> Cluster {
    let url = shared_redis().await.url();
    let mut cluster = Cluster::on(&url, |settings| {
        settings.simulated.stop_time = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    cluster
}

#[tokio::test]
async fn pods_without_an_owner_leave_a_draining_node_and_never_run_twice() {
    let cluster = slow_to_stop().await;
    let ids: Vec<PodId> = (0..6)
        .map(|number| PodId::parse(&format!("hand{number}")).unwrap())
        .collect();
    let describe =
        |id: &PodId| format!(r#"{{"uuid":"{id}","name":"hand","image":"spaster/alpine-sleep"}}"#);
    for id in &ids {
        cluster.push("pq:worker1", &describe(id)).await;
    }
    for id in &ids {
        cluster.pod_in(id, Phase::Running).await;
    }
    mark(&cluster, "worker1", Mark::Drain).await;
    eventually(SOON, "all run on worker2", async || {
        let live = cluster.live();
        let pods: BTreeSet<&PodId> = live.iter().map(|(_, container)| &container.pod).collect();
        assert_eq!(pods.len(), live.len(), "one runs twice: {live:?}");
        let there = live.iter().filter(|(node, _)| node == "worker2").count();
        if there == ids.len() {
            Ok(())
        } else {
            Err(format!("{there}"))
        }
    })
    .await;
    cluster.in_state("worker1", NodeState::Drained).await;
    let pods = cluster.all_running(SOON).await;
    assert!(pods.iter().all(|pod| pod.attempt == 2), "{pods:?}");
    cluster.assert_exactly_once(&pods);
    // What is pushed to the drained node by hand runs elsewhere too.
    let late = PodId::parse("late").unwrap();
    cluster.push("pq:worker1", &describe(&late)).await;
    let late = cluster.pod_in(&late, Phase::Running).await;
    assert_eq!(late.node.as_deref(), Some("worker2"));
    assert!(cluster.engine("worker1").containers().is_empty());
    cluster.end().await;
}

#[tokio::test]
async fn a_drain_moves_services_one_pod_at_a_time_without_a_gap() {
    let mut cluster = slow_to_stop().await;
    cluster.add_node("worker3").await;
    let web = cluster.submit("web", 6).await;
    // Its pods can go to one other node only, for the port.
    let port = cluster
        .submit_spec("port", 2, |spec| {
            spec.ports = vec![Port::parse("8080:80").unwrap()]
        })
        .await;
    cluster.all_in(&web, Phase::Running, 6).await;
    let before = cluster.all_in(&port, Phase::Running, 2).await;
    let node = before[0].node.clone().unwrap();
    let on_it = cluster.node(&node).await.unwrap().pods;
    assert!(on_it >= 2, "{on_it}");
    mark(&cluster, &node, Mark::Drain).await;
    eventually(SOON, "the node is drained", async || {
        for (service, count) in [(&web, 6), (&port, 2)] {
            let pods = cluster.pods(Some(service)).await;
            let ready = pods.iter().filter(|pod| pod.ready).count();
            assert!(ready >= count, "{ready} of {count} are ready: {pods:?}");
            let wanted = pods
                .iter()
                .filter(|pod| pod.desired == kubeleet::model::Desired::Run);
            assert!(wanted.count() <= count + 1, "one at a time: {pods:?}");
        }
        let shown = cluster.node(&node).await.unwrap();
        match shown.state {
            NodeState::Drained => Ok(()),
            _ => Err(format!("{shown:?}")),
        }
    })
    .await;
    let (pods, port) = (
        cluster.all_in(&web, Phase::Running, 6).await,
        cluster.all_in(&port, Phase::Running, 2).await,
    );
    cluster.assert_exactly_once(&[pods, port].concat());
    assert!(cluster.engine(&node).containers().is_empty());
    cluster.end().await;
}

#[tokio::test]
async fn a_node_that_is_removed_by_force_comes_back_as_a_new_one() {
    let mut cluster = Cluster::start(2).await;
    let web = cluster.submit("web", 4).await;
    cluster.all_in(&web, Phase::Running, 4).await;
    label(&cluster, "worker1", "disk", Some("ssd")).await;
    mark(&cluster, "worker2", Mark::Cordon).await;
    let lease = cluster.settings.heartbeat.lease;
    let store = cluster.store.clone();
    let nodes = store.nodes();
    let refused = nodes.remove("worker1", lease, false).await.unwrap();
    assert!(matches!(refused, RemoveOutcome::Heard(_)), "{refused:?}");
    let removed = nodes.remove("worker1", lease, true).await.unwrap();
    assert_eq!(removed, RemoveOutcome::Removed { pods: 2 });
    // Its agent is alive: it registers again, and its pods are placed anew.
    cluster.ready("worker1").await;
    let pods = cluster.all_in(&web, Phase::Running, 4).await;
    cluster.containers_are(4).await;
    cluster.assert_exactly_once(&pods);
    let node = cluster.node("worker1").await.unwrap();
    assert_eq!((node.epoch, node.labels.len(), node.pods), (1, 0, 2));
    // One that does not come back is spoken of no more.
    cluster.take_agent("worker1").kill();
    let removed = nodes.remove("worker1", lease, true).await.unwrap();
    assert_eq!(removed, RemoveOutcome::Removed { pods: 2 });
    cluster
        .waits_because(&web, "0 of 1 nodes: 1 are cordoned")
        .await;
    mark(&cluster, "worker2", Mark::Open).await;
    eventually(SOON, "all run on worker2", async || {
        match on_nodes(&cluster, &web, 4).await {
            nodes if nodes == ["worker2"; 4] => Ok(()),
            nodes => Err(format!("{nodes:?}")),
        }
    })
    .await;
    cluster.end().await;
}
