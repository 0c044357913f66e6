//! Containers that end are started again on their node, by their rule, whoever else is away.

use std::time::{Duration, Instant};

use kubeleet::model::service::{Restart, RestartPolicy};
use kubeleet::model::{NodeState, Phase, ServiceSpec};

use crate::support::cluster::{Cluster, SOON};
use crate::support::{RedisServer, eventually};

/// A cluster of one node whose containers are started again after so long.
async fn restarting_after(pause: Duration) -> Cluster {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.restart_backoff = pause;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    cluster
}

fn on_failure(max: Option<u32>) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| {
        spec.restart = Restart {
            policy: RestartPolicy::OnFailure,
            max,
        };
    }
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_after_growing_pauses() {
    let cluster = restarting_after(Duration::from_millis(300)).await;
    let service = cluster.submit("web", 1).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    assert!(pod.ready && pod.restarts == 0, "{pod:?}");
    let engine = cluster.engine("worker1");
    let mut pauses = Vec::new();
    for restarts in 1..=3 {
        assert!(engine.end_pod(&pod.id, 7, None));
        let ended = Instant::now();
        let looping = cluster.pod_in(&pod.id, Phase::CrashLoop).await;
        assert_eq!(
            (looping.exit_code, looping.restarts),
            (Some(7), restarts - 1)
        );
        assert!(!looping.ready);
        let words = format!("exited with code 7; restart {restarts} in ");
        let reason = looping.reason.unwrap_or_default();
        assert!(reason.starts_with(&words), "{reason}");
        assert_eq!(cluster.service(&service).await.unwrap().1, 0, "none runs");
        let again = cluster.pod_in(&pod.id, Phase::Running).await;
        pauses.push(ended.elapsed());
        assert_eq!((again.restarts, again.exit_code), (restarts, Some(7)));
        assert_eq!(again.container, pod.container, "the same, with its logs");
        assert_eq!(again.attempt, 1);
    }
    for (pause, least) in pauses.iter().zip([240, 480, 960]) {
        let least = Duration::from_millis(least);
        assert!(*pause >= least, "{pauses:?}");
    }
    assert_eq!(engine.counts().creates, 1);
    assert_eq!(cluster.events_of(&pod.id, "crash-loop").await.len(), 3);
    cluster.end().await;
}

#[tokio::test]
async fn the_rule_says_what_follows_an_end() {
    let cluster = restarting_after(Duration::from_millis(10)).await;
    let done = cluster.submit_spec("done", 1, on_failure(None)).await;
    let twice = cluster.submit_spec("twice", 1, on_failure(Some(2))).await;
    let done = cluster.all_in(&done, Phase::Running, 1).await.remove(0);
    let twice = cluster.all_in(&twice, Phase::Running, 1).await.remove(0);
    let engine = cluster.engine("worker1");

    assert!(engine.end_pod(&done.id, 0, None));
    let pod = cluster.pod_in(&done.id, Phase::Succeeded).await;
    assert_eq!((pod.restarts, pod.exit_code), (0, Some(0)));

    for restarts in 1..=2 {
        assert!(engine.end_pod(&twice.id, 1, None));
        let again =
            |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == restarts;
        cluster.pod_is(&twice.id, "running again", again).await;
    }
    assert!(engine.end_pod(&twice.id, 1, None));
    let pod = cluster.pod_in(&twice.id, Phase::Failed).await;
    assert_eq!((pod.restarts, pod.exit_code), (2, Some(1)));
    assert_eq!(pod.reason.as_deref(), Some("exited with code 1"));
    cluster.end().await;
}

#[tokio::test]
async fn an_agents_restart_keeps_the_count_and_the_pause() {
    let mut cluster = restarting_after(Duration::from_millis(200)).await;
    let service = cluster.submit("web", 1).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    for restarts in 1..=2 {
        assert!(cluster.engine("worker1").end_pod(&pod.id, 1, None));
        let again =
            |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == restarts;
        cluster.pod_is(&pod.id, "running again", again).await;
    }
    assert!(cluster.engine("worker1").end_pod(&pod.id, 1, None));
    cluster.pod_in(&pod.id, Phase::CrashLoop).await;
    cluster.take_agent("worker1").kill();
    let begun = Instant::now();
    cluster.start_agent("worker1");
    let again = |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == 3;
    cluster.pod_is(&pod.id, "running again", again).await;
    let third = Duration::from_millis(200 * 4).mul_f64(0.8);
    assert!(begun.elapsed() >= third, "{:?}", begun.elapsed());
    cluster.end().await;
}

#[tokio::test]
async fn a_pause_holds_nothing_and_a_stop_ends_it_at_once() {
    let cluster = restarting_after(Duration::from_secs(3600)).await;
    let service = cluster.submit("web", 20).await;
    let pods = cluster.all_in(&service, Phase::Running, 20).await;
    let engine = cluster.engine("worker1");
    for pod in &pods {
        assert!(engine.end_pod(&pod.id, 1, None));
    }
    cluster.all_in(&service, Phase::CrashLoop, 20).await;
    cluster.settled().await;
    // There is room for others among the starts.
    let more = cluster.submit("more", 20).await;
    cluster.all_in(&more, Phase::Running, 20).await;
    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    cluster.gone(&service).await;
    cluster.containers_are(20).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_node_restarts_by_itself_while_redis_is_away() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.heartbeat.lease = Duration::from_secs(60);
        settings.agent.restart_backoff = Duration::from_millis(50);
    })
    .await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 10).await;
    let pods = cluster.all_in(&service, Phase::Running, 10).await;
    cluster.settled().await;
    let engine = cluster.engine("worker1").clone();
    server.pause();
    for round in 1..=3 {
        for pod in &pods[..5] {
            assert!(engine.end_pod(&pod.id, round, None));
        }
        eventually(SOON, "all run again", async || match engine.live().len() {
            10 => Ok(()),
            live => Err(format!("{live} live")),
        })
        .await;
    }
    let starts = engine.counts().starts;
    assert_eq!(starts, 10 + 3 * 5);
    server.resume();
    for (number, pod) in pods.iter().enumerate() {
        let (restarts, code) = if number < 5 { (3, Some(3)) } else { (0, None) };
        let told = |pod: &kubeleet::model::Pod| {
            pod.phase == Phase::Running && pod.ready && pod.restarts == restarts
        };
        let now = cluster.pod_is(&pod.id, "told of", told).await;
        assert_eq!((now.exit_code, &now.container), (code, &pod.container));
        assert_eq!(now.attempt, 1);
    }
    // Both comparisons once more: nothing is left to put right.
    cluster.settled().await;
    assert_eq!(engine.counts().starts, starts, "nothing was started again");
    cluster.end().await;
}

#[tokio::test]
async fn what_ended_while_the_engine_was_away_is_started_again_when_it_is_back() {
    let cluster = restarting_after(Duration::from_millis(50)).await;
    let service = cluster.submit("web", 6).await;
    let pods = cluster.all_in(&service, Phase::Running, 6).await;
    let engine = cluster.engine("worker1");
    engine.set_down(true);
    cluster.in_state("worker1", NodeState::EngineDown).await;
    for pod in &pods[..3] {
        assert!(engine.end_pod(&pod.id, 137, None));
    }
    // A node whose engine is away is given nothing.
    let waits = cluster.submit("waits", 1).await;
    cluster.waits_because(&waits, "").await;
    let live = engine.live().len();
    assert_eq!(live, 3, "the others run on");
    engine.set_down(false);
    cluster.ready("worker1").await;
    for (number, pod) in pods.iter().enumerate() {
        let restarts = u32::from(number < 3);
        let again =
            |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == restarts;
        cluster.pod_is(&pod.id, "running again", again).await;
    }
    cluster.all_in(&waits, Phase::Running, 1).await;
    assert_eq!(engine.counts().starts, 6 + 3 + 1);
    cluster.end().await;
}

#[tokio::test]
async fn an_agent_that_does_not_speak_for_its_node_starts_nothing() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.agent.restart_backoff = Duration::from_millis(10);
        settings.agent.drift_interval = Duration::from_millis(100);
    })
    .await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 3).await;
    let pods = cluster.all_in(&service, Phase::Running, 3).await;
    let engine = cluster.engine("worker1").clone();
    let starts = engine.counts().starts;
    let ours: String = cluster
        .redis(&["HGET", &cluster.key("cluster"), "id"])
        .await;
    // Another cluster takes the place of ours, and ours comes back after a while.
    let (key, id) = (cluster.key("cluster"), "foreign");
    let _: u64 = cluster.redis(&["HSET", &key, "id", id]).await;
    let beat = cluster.settings.heartbeat.interval;
    cluster.while_time_passes(beat * 3, || {}).await;
    for pod in &pods {
        assert!(engine.end_pod(&pod.id, 1, None));
    }
    let frozen = || assert_eq!(engine.counts().starts, starts, "it starts nothing");
    cluster
        .while_time_passes(Duration::from_secs(1), frozen)
        .await;
    let _: u64 = cluster.redis(&["HSET", &key, "id", &ours]).await;
    for pod in &pods {
        let again = |pod: &kubeleet::model::Pod| pod.phase == Phase::Running && pod.restarts == 1;
        cluster.pod_is(&pod.id, "running again", again).await;
    }
    cluster.end().await;
}

#[tokio::test]
async fn what_the_nodes_settings_forbid_by_now_is_not_started_again() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.allow.privileged = true;
    cluster.settings.agent.restart_backoff = Duration::from_millis(500);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let privileged = |spec: &mut ServiceSpec| {
        spec.privileged = true;
        spec.restart.policy = RestartPolicy::OnFailure;
        spec.restart.max = Some(1);
    };
    let service = cluster.submit_spec("root", 1, privileged).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    cluster.take_agent("worker1").kill();
    assert!(cluster.engine("worker1").end_pod(&pod.id, 1, None));
    cluster.settings.agent.allow.privileged = false;
    cluster.start_agent("worker1");
    let pod = cluster.pod_in(&pod.id, Phase::Failed).await;
    let reason = pod.reason.unwrap_or_default();
    assert!(reason.contains("agent.allow.privileged"), "{reason}");
    assert_eq!(cluster.live(), []);
}
