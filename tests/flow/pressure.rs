//! Nodes above their pressure limit give back what has not started, and pods leave nodes that have been
//! under pressure for long.

use std::time::Duration;

use kubeleet::model::{EventFilter, NodeState, Phase, PodId, ServiceKey};
use kubeleet::settings::{RebalanceMode, Settings};

use crate::support::cluster::{Cluster, SOON};
use crate::support::proc_dir::Pressed;
use crate::support::{eventually, shared_redis};

/// Above every limit and threshold.
const PERCENT: u32 = 70;

async fn events_of_kind(cluster: &Cluster, kind: &str) -> Vec<(Option<PodId>, String)> {
    let filter = EventFilter {
        kind: Some(kind.to_owned()),
        ..EventFilter::default()
    };
    let events = cluster.events(&filter).await.into_iter();
    events.map(|event| (event.pod, event.reason)).collect()
}

async fn calm_again(cluster: &Cluster, node: &str) {
    cluster.calm(node);
    cluster.ready(node).await;
}

#[tokio::test]
async fn a_pressed_node_gives_back_what_it_has_not_started_and_others_take_it() {
    let mut cluster = Cluster::empty().await;
    cluster.add_node("worker1").await;
    cluster.add_scheduler();
    let before = cluster.submit("before", 3).await;
    let running = cluster.all_in(&before, Phase::Running, 3).await;
    // Its pods are taken, and wait for their image.
    let engine = cluster.engine("worker1").clone();
    engine.hold_pulls();
    let image = "an/image:1";
    let pulling = |spec: &mut kubeleet::model::ServiceSpec| image.clone_into(&mut spec.image);
    let service = cluster.submit_spec("web", 20, pulling).await;
    cluster.all_in(&service, Phase::Starting, 20).await;

    cluster.press("worker1", Pressed::Memory, PERCENT).await;
    cluster.in_state("worker1", NodeState::Pressed).await;
    let reason = "0 of 1 nodes: 1 are above their pressure limit";
    cluster.waits_because(&service, reason).await;
    cluster.all_in(&service, Phase::Waiting, 20).await;
    let node = cluster.node("worker1").await.expect("the node");
    assert_eq!(node.pods, 3, "{node:?}");
    let why = "memory 70 %, its limit is 40 %";
    assert_eq!(node.pressed.as_deref(), Some(why));
    let told = events_of_kind(&cluster, "waiting").await;
    let back = format!("given back by node worker1, which is above its pressure limit: {why}");
    assert_eq!(
        told.iter().filter(|(_, reason)| *reason == back).count(),
        20
    );

    // Others take them, and each goes there once.
    cluster.add_machine("worker2");
    cluster.engine("worker2").add_image(image);
    cluster.start_agent("worker2");
    let pods = cluster.all_in(&service, Phase::Running, 20).await;
    for pod in &pods {
        assert_eq!((pod.node.as_deref(), pod.attempt), (Some("worker2"), 2));
    }
    assert_eq!(cluster.pods(Some(&before)).await, running, "they ran on");
    // What is stopped there is stopped, pressed or not.
    cluster.scale(&before, 1).await;
    cluster.all_in(&before, Phase::Running, 1).await;
    engine.release_pulls();

    calm_again(&cluster, "worker1").await;
    let last = cluster.submit("last", 30).await;
    let last = cluster.all_in(&last, Phase::Running, 30).await;
    assert!(
        last.iter()
            .any(|pod| pod.node.as_deref() == Some("worker1"))
    );
    cluster.end().await;
}

#[tokio::test]
async fn what_can_go_nowhere_else_waits_until_its_node_is_calm() {
    let mut cluster = Cluster::start(2).await;
    cluster.press("worker1", Pressed::Io, PERCENT).await;
    let pinned = cluster
        .submit_spec("pinned", 2, |spec| {
            let labels = &mut spec.placement.labels;
            labels.insert("node".into(), "worker1".into());
        })
        .await;
    let reason = "1 are above their pressure limit";
    cluster.waits_because(&pinned, reason).await;
    // A person's own word counts more than the limit.
    let by_hand = "{\"name\":\"by-hand\",\"uuid\":\"byhand\",\"image\":\"spaster/alpine-sleep\"}";
    cluster.push("pq:worker1", by_hand).await;
    let id = PodId::parse("byhand").expect("an id");
    let pod = cluster.pod_in(&id, Phase::Running).await;
    assert_eq!((pod.node.as_deref(), pod.attempt), (Some("worker1"), 1));
    // A new agent knows it from its first look.
    cluster.take_agent("worker1").kill();
    cluster.start_agent("worker1");
    cluster.in_state("worker1", NodeState::Pressed).await;
    let waiting = cluster.all_in(&pinned, Phase::Waiting, 2).await;
    assert!(waiting.iter().all(|pod| pod.attempt == 0), "{waiting:?}");
    calm_again(&cluster, "worker1").await;
    cluster.all_in(&pinned, Phase::Running, 2).await;
    cluster.end().await;
}

/// A cluster that rebalances at the pace of a test.
async fn rebalancing(mode: RebalanceMode) -> Cluster {
    let change = |settings: &mut Settings| {
        let rebalance = &mut settings.scheduler.rebalance;
        rebalance.mode = mode;
        rebalance.lasting = Duration::from_millis(700);
        settings.agent.pressure_limit.memory = 0.0;
    };
    Cluster::on(&shared_redis().await.url(), change).await
}

/// A node with pods of three services, one of which uses most of the memory.
async fn with_a_culprit(cluster: &mut Cluster) -> (ServiceKey, PodId) {
    cluster.add_node("worker1").await;
    cluster.add_scheduler();
    cluster.add_scheduler(); // they agree
    for name in ["small", "other"] {
        let service = cluster.submit(name, 2).await;
        cluster.all_in(&service, Phase::Running, 2).await;
    }
    let service = cluster.submit("big", 2).await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;
    let engine = cluster.engine("worker1");
    // The figures of the machine's own memory are in a fixture: 1000 kB, of which 100 are in use.
    for pod in cluster.pods(None).await {
        engine.set_use(&pod.id, 10, 1_000);
    }
    let culprit = pods[0].id.clone();
    engine.set_use(&culprit, 10, 80_000);
    cluster.add_node("worker2").await;
    cluster.add_node("worker3").await;
    (service, culprit)
}

#[tokio::test]
async fn a_suggestion_names_the_culprit_and_moves_nothing() {
    let mut cluster = rebalancing(RebalanceMode::Suggest).await;
    let (_, culprit) = with_a_culprit(&mut cluster).await;
    let before = cluster.live_ids();
    cluster.press("worker1", Pressed::Memory, PERCENT).await;
    let told = eventually(SOON, "it is suggested", async || {
        let told = events_of_kind(&cluster, "rebalance-suggested").await;
        if told.is_empty() {
            Err(String::new())
        } else {
            Ok(told)
        }
    })
    .await;
    assert_eq!(told[0].0.as_ref(), Some(&culprit));
    assert!(
        told[0].1.starts_with(
            "node worker1 waits for memory 70 % of the time, and this pod uses 78 % of what is used there"
        ),
        "{told:?}"
    );
    let node = cluster.node("worker1").await.expect("the node");
    let suggestion = node.suggestion.expect("a suggestion");
    assert!(suggestion.starts_with(&format!("pod {culprit} of default/big: ")));
    cluster
        .while_time_passes(Duration::from_millis(1500), || {
            assert_eq!(cluster.live_ids(), before);
        })
        .await;
    let told = events_of_kind(&cluster, "rebalance-suggested").await;
    assert_eq!(told.len(), 1, "once in a while");
    cluster.calm("worker1");
    eventually(SOON, "it is forgotten", async || {
        match cluster
            .node("worker1")
            .await
            .and_then(|node| node.suggestion)
        {
            None => Ok(()),
            Some(suggestion) => Err(suggestion),
        }
    })
    .await;
    cluster.end().await;
}

#[tokio::test]
async fn the_culprit_moves_once_another_is_healthy_and_then_all_is_quiet() {
    let mut cluster = rebalancing(RebalanceMode::On).await;
    let (service, culprit) = with_a_culprit(&mut cluster).await;
    let others: Vec<PodId> = cluster
        .pods(None)
        .await
        .into_iter()
        .map(|pod| pod.id)
        .collect();
    // Nothing starts elsewhere for now.
    for node in ["worker2", "worker3"] {
        cluster
            .engine(node)
            .deny_image(crate::support::cluster::IMAGE);
        cluster.engine(node).hold_pulls();
    }
    cluster.press("worker1", Pressed::Memory, PERCENT).await;
    let new = eventually(SOON, "another is made elsewhere", async || {
        let pods = cluster.pods(Some(&service)).await;
        let new = pods.iter().find(|pod| !others.contains(&pod.id));
        new.filter(|pod| pod.phase == Phase::Starting)
            .map(|pod| pod.id.clone())
            .ok_or_else(|| format!("{pods:?}"))
    })
    .await;
    let begun = cluster.live_ids().len();
    assert_eq!(begun, 6, "the old one serves until then");
    let old = cluster.pod(&culprit).await.expect("the culprit");
    assert_eq!(old.phase, Phase::Running);
    assert!(
        old.reason
            .is_some_and(|why| why.contains("waits for memory 70 %"))
    );
    for node in ["worker2", "worker3"] {
        cluster
            .engine(node)
            .allow_image(crate::support::cluster::IMAGE);
        cluster.engine(node).release_pulls();
    }
    cluster.pod_in(&new, Phase::Running).await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;
    assert!(pods.iter().all(|pod| pod.id != culprit), "{pods:?}");
    let moved = cluster.pod(&new).await.expect("the new one");
    assert_ne!(moved.node.as_deref(), Some("worker1"));
    // With the culprit its pressure is gone.
    cluster.calm("worker1");
    let after = cluster.live_ids();
    cluster
        .while_time_passes(Duration::from_millis(1500), || {
            assert_eq!(cluster.live_ids(), after);
        })
        .await;
    let told = events_of_kind(&cluster, "moving").await;
    let told: Vec<Option<PodId>> = told.into_iter().map(|(pod, _)| pod).collect();
    assert_eq!(told, [Some(culprit)], "exactly one");
    cluster.assert_exactly_once(&cluster.pods(None).await);
    cluster.end().await;
}

/// Pods that are taken, created and started while the limit is passed: each runs once.
#[tokio::test]
async fn a_node_that_gets_pressed_amid_starts_loses_and_doubles_nothing() {
    let slow = |settings: &mut Settings| {
        settings.simulated.start_time = Duration::from_millis(200);
    };
    let mut cluster = Cluster::on(&shared_redis().await.url(), slow).await;
    cluster.add_nodes(3).await;
    for _ in 0..2 {
        cluster.add_scheduler();
    }
    let service = cluster.submit("web", 120).await;
    cluster.progress("worker1", 4).await;
    cluster.press("worker1", Pressed::Io, PERCENT).await;
    let pods = cluster.all_in(&service, Phase::Running, 120).await;
    cluster.assert_exactly_once(&pods);
    let given_back = pods.iter().filter(|pod| pod.attempt > 1).count();
    assert!(given_back > 0, "it had not started all of them");
    let most = pods.iter().map(|pod| pod.attempt).max();
    assert_eq!(most, Some(2), "none came back to it");
    cluster.containers_are(120).await; // those that were made and not started are gone
    cluster.end().await;
}
