//! Every notice may be lost, and anything may be done behind the agent's back: comparing is enough.

use std::time::Duration;

use kubeleet::container::Runtime;
use kubeleet::model::{Phase, PodId};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

/// A cluster whose agents compare often.
async fn comparing(nodes: usize) -> Cluster {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.resync_interval = Duration::from_millis(300);
    cluster.settings.heartbeat.lease = Duration::from_secs(30);
    cluster.add_nodes(nodes).await;
    cluster.add_scheduler();
    cluster
}

/// Loses the inbox of a frozen agent.
async fn lose_inbox(cluster: &Cluster, node: &str) {
    for list in ["pq", "rq"] {
        let key = cluster.key(&format!("{list}:{node}"));
        let _: u64 = cluster.redis(&["DEL", &key]).await;
    }
}

#[tokio::test]
async fn lost_notices_of_new_and_unwanted_pods_are_made_up_for() {
    let cluster = comparing(1).await;
    let frozen = cluster.agent("worker1").freeze().await;
    let service = cluster.submit("web", 10).await;
    // The frozen agent's connection may still draw one entry.
    eventually(SOON, "all are assigned", async || {
        let pods = cluster.pods(Some(&service)).await;
        let assigned = pods
            .iter()
            .filter(|pod| pod.phase == Phase::Scheduled)
            .count();
        if assigned == 10 {
            Ok(())
        } else {
            Err(format!("{assigned}"))
        }
    })
    .await;
    lose_inbox(&cluster, "worker1").await;
    drop(frozen);
    let pods = cluster.all_in(&service, Phase::Running, 10).await;
    cluster.assert_exactly_once(&pods);

    let frozen = cluster.agent("worker1").freeze().await;
    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    lose_inbox(&cluster, "worker1").await;
    drop(frozen);
    cluster.gone(&service).await;
    cluster.containers_are(0).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_container_removed_by_hand_is_made_again() {
    let cluster = comparing(1).await;
    let service = cluster.submit("web", 3).await;
    cluster.all_in(&service, Phase::Running, 3).await;
    let engine = cluster.engine("worker1").clone();
    let victim = engine.live().remove(0);
    Runtime::Simulated(engine).remove(&victim.id).await.unwrap();
    eventually(SOON, "another runs, and Redis names it", async || {
        let pod = cluster.pod(&victim.pod).await.unwrap();
        let live = cluster.live();
        let now = live
            .iter()
            .find(|(_, container)| container.pod == victim.pod);
        match now {
            Some((_, now)) if pod.container.as_deref() == Some(&now.id) => Ok(()),
            other => Err(format!("{pod:?} {other:?}")),
        }
    })
    .await;
    cluster.assert_exactly_once(&cluster.pods(None).await);
    cluster.end().await;
}

#[tokio::test]
async fn what_is_changed_by_hand_is_put_right() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.drift_interval = Duration::from_millis(200);
    cluster.settings.agent.restart_backoff = Duration::from_millis(50);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 4).await;
    let pods = cluster.all_in(&service, Phase::Running, 4).await;
    let engine = cluster.engine("worker1").clone();
    engine.pause(&pods[0].id);
    engine.drift(&pods[1].id);
    // As `docker stop` does it.
    assert!(engine.end_pod(&pods[2].id, 143, None));
    eventually(SOON, "all are as they were made", async || {
        let live = engine.live();
        if live.len() == 4 && live.iter().all(|it| !it.drifted) {
            Ok(())
        } else {
            Err(format!("{live:?}"))
        }
    })
    .await;
    let again = |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == 1;
    cluster.pod_is(&pods[2].id, "running again", again).await;
    assert_eq!(engine.counts().creates, 4, "the same containers");
    cluster.end().await;
}

#[tokio::test]
async fn changes_are_found_without_news_of_the_engine() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.drift_interval = Duration::from_millis(200);
    cluster.settings.agent.restart_backoff = Duration::from_millis(50);
    cluster.settings.agent.resync_interval = Duration::from_secs(3600);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 3).await;
    let pods = cluster.all_in(&service, Phase::Running, 3).await;
    let engine = cluster.engine("worker1").clone();
    engine.mute_news();
    engine.pause(&pods[0].id);
    assert!(engine.end_pod(&pods[1].id, 1, None));
    let victim = pods[2].container.clone().unwrap();
    Runtime::Simulated(engine.clone())
        .remove(&victim)
        .await
        .unwrap();
    eventually(SOON, "all run", async || match engine.live().len() {
        3 => Ok(()),
        live => Err(format!("{live} live")),
    })
    .await;
    let again = |pod: &kubeleet::model::Pod| pod.container.as_ref() != Some(&victim);
    cluster.pod_is(&pods[2].id, "made again", again).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_nodes_set_of_pods_that_was_deleted_is_filled_again() {
    let cluster = comparing(1).await;
    let service = cluster.submit("web", 5).await;
    cluster.all_in(&service, Phase::Running, 5).await;
    let set = cluster.key("cs:worker1");
    let _: u64 = cluster.redis(&["DEL", &set]).await;
    eventually(SOON, "its pods are found again", async || {
        match cluster.redis::<u64>(&["SCARD", &set]).await {
            5 => Ok(()),
            count => Err(format!("{count}")),
        }
    })
    .await;
    assert_eq!(cluster.engine("worker1").counts().starts, 5);
    cluster.end().await;
}

#[tokio::test]
async fn an_engine_that_lost_everything_gets_it_all_again() {
    let mut cluster = comparing(1).await;
    let service = cluster.submit("web", 5).await;
    let before = cluster.all_in(&service, Phase::Running, 5).await;
    cluster.take_agent("worker1").kill();
    let engine = cluster.engine("worker1").clone();
    for container in engine.containers() {
        let runtime = Runtime::Simulated(engine.clone());
        runtime.remove(&container.id).await.unwrap();
    }
    cluster.start_agent("worker1");
    eventually(SOON, "all run again, and Redis names them", async || {
        let pods = cluster.pods(Some(&service)).await;
        let live = cluster.live_ids();
        let node = || "worker1".to_owned();
        let named = |pod: &kubeleet::model::Pod| {
            let container = pod.container.clone().unwrap_or_default();
            live.contains(&(node(), container))
        };
        if live.len() == 5 && pods.iter().all(named) {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    let after = cluster.pods(Some(&service)).await;
    assert!(after.iter().all(|pod| pod.attempt == 1), "{after:?}");
    assert_eq!(after.len(), before.len());
    cluster.end().await;
}

#[tokio::test]
async fn containers_that_nobody_knows_are_left_alone() {
    let cluster = comparing(1).await;
    let service = cluster.submit("web", 2).await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;
    let engine = cluster.engine("worker1");
    let stranger = engine.add_stranger("web-0-mine");
    // Redis forgets one of the pods altogether: absence is no order to stop it.
    let forgotten = &pods[0].id;
    let _: u64 = cluster
        .redis(&["DEL", &cluster.key(&format!("pod:{forgotten}"))])
        .await;
    let _: u64 = cluster
        .redis(&["SREM", &cluster.key("cs:worker1"), forgotten.as_str()])
        .await;
    // The end of a container pushed later shows that comparisons have passed.
    let later = PodId::parse("later").unwrap();
    let entry = r#"{"uuid":"later","name":"a","image":"spaster/alpine-sleep"}"#;
    cluster.push("pq:worker1", entry).await;
    cluster.pod_in(&later, Phase::Running).await;
    lose_inbox(&cluster, "worker1").await;
    cluster.store.pods().stop(&later).await.unwrap();
    eventually(SOON, "it is stopped", async || match cluster.live().len() {
        2 => Ok(()),
        live => Err(format!("{live} live")),
    })
    .await;
    assert!(
        engine
            .live()
            .iter()
            .any(|container| container.pod == *forgotten)
    );
    assert_eq!(engine.strangers(), [stranger]);
    assert_eq!(engine.counts().stops, 1);
    cluster.end().await;
}

#[tokio::test]
async fn waiting_pods_whose_queue_was_deleted_are_found_again() {
    let mut cluster = Cluster::empty().await;
    let lost = cluster.submit("lost", 700).await; // two pages, and no node yet
    let _: u64 = cluster.redis(&["DEL", &cluster.key("sq")]).await;
    let kept = cluster.submit("kept", 1).await;
    cluster.settings.node.pods_max = 1_000;
    cluster.add_nodes(1).await;
    // A scheduler searches when it starts, and every 30 s.
    cluster.add_scheduler();
    let mut pods = cluster.all_in(&lost, Phase::Running, 700).await;
    pods.extend(cluster.all_in(&kept, Phase::Running, 1).await);
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}
