//! Probes: what they find out is told within a second, and what is not alive is started anew.

use std::time::{Duration, Instant};

use kubeleet::container::HealthState;
use kubeleet::model::service::{Health, RestartPolicy};
use kubeleet::model::{Phase, Pod, ServiceSpec};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

/// From the change to its being told, beyond the probe's own time.
const TOLD_LIMIT: Duration = Duration::from_secs(1);
/// Time between two probes here.
const INTERVAL: Duration = Duration::from_millis(100);

async fn cluster() -> Cluster {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.restart_backoff = Duration::from_millis(50);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    cluster
}

/// A spec's `health`, with the times of these tests.
fn health(mut given: serde_json::Value) -> Health {
    for kind in ["liveness", "readiness"] {
        if let Some(probe) = given.get_mut(kind).and_then(|it| it.as_object_mut()) {
            probe.entry("interval").or_insert(json!("100ms"));
            probe.entry("timeout").or_insert(json!("200ms"));
            probe.entry("failures").or_insert(json!(2));
        }
    }
    serde_json::from_value(given).expect("a health")
}

async fn one_pod(cluster: &Cluster, given: serde_json::Value) -> Pod {
    let with = |spec: &mut ServiceSpec| spec.health = Some(health(given));
    let service = cluster.submit_spec("web", 1, with).await;
    cluster.all_in(&service, Phase::Running, 1).await.remove(0)
}

#[tokio::test]
async fn readiness_turns_without_a_restart() {
    let cluster = cluster().await;
    let pod = one_pod(&cluster, json!({"readiness": {"exec": ["ok"]}})).await;
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    let engine = cluster.engine("worker1");

    engine.set_probe(&pod.id, 3, "no database");
    let changed = Instant::now();
    let unready = cluster.pod_is(&pod.id, "not ready", |pod| !pod.ready).await;
    let told_after = changed.elapsed();
    assert!(told_after < 2 * INTERVAL + TOLD_LIMIT, "{told_after:?}");
    let words = "not ready: its command exited with code 3: no database";
    assert_eq!(unready.reason.as_deref(), Some(words));
    assert_eq!(unready.phase, Phase::Running);
    engine.set_probe(&pod.id, 0, "");
    let ready = cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    assert_eq!((ready.reason, ready.restarts), (None, 0));
    assert_eq!(engine.counts().starts, 1);
    assert_eq!(cluster.events_of(&pod.id, "unready").await, [words]);
    assert_eq!(cluster.events_of(&pod.id, "ready").await.len(), 2);
    cluster.end().await;
}

#[tokio::test]
async fn what_is_not_alive_is_unhealthy_and_started_anew() {
    let cluster = cluster().await;
    let pod = one_pod(&cluster, json!({"liveness": {"exec": ["ok"]}})).await;
    assert!(pod.ready, "no readiness probe: what runs is ready");
    let engine = cluster.engine("worker1");
    engine.set_probe(&pod.id, 1, "stuck");
    cluster.pod_in(&pod.id, Phase::CrashLoop).await;
    engine.set_probe(&pod.id, 0, "");
    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    let again = cluster.pod_is(&pod.id, "running again", again).await;
    assert_eq!(again.container, pod.container);
    let words = "unhealthy: its command exited with code 1: stuck";
    assert_eq!(cluster.events_of(&pod.id, "unhealthy").await[0], words);
    let looping = cluster.events_of(&pod.id, "crash-loop").await.remove(0);
    assert_eq!(looping, format!("{words}; restart 1 in 1s"));
    assert_eq!(engine.counts().stops, 1);
    cluster.end().await;
}

#[tokio::test]
async fn what_is_not_alive_and_must_not_be_started_again_fails() {
    let cluster = cluster().await;
    let with = |spec: &mut ServiceSpec| {
        spec.health = Some(health(json!({"liveness": {"exec": ["ok"]}})));
        spec.restart.policy = RestartPolicy::Never;
    };
    let service = cluster.submit_spec("web", 1, with).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    cluster.engine("worker1").set_probe(&pod.id, 1, "stuck");
    let pod = cluster.pod_in(&pod.id, Phase::Failed).await;
    let words = "unhealthy: its command exited with code 1: stuck";
    assert_eq!(pod.reason.as_deref(), Some(words));
    assert_eq!(cluster.live(), []);
    cluster.end().await;
}

#[tokio::test]
async fn a_start_period_is_waited_out_and_a_new_container_is_asked_often() {
    let cluster = cluster().await;
    let given = json!({
        "liveness": {"exec": ["ok"], "start_period": "1h"},
        "readiness": {"exec": ["ok"], "interval": "1h"},
    });
    let service = cluster
        .submit_spec("web", 1, |spec| spec.health = Some(health(given)))
        .await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    // Its interval is an hour, but until it is ready once it is asked each second.
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    let engine = cluster.engine("worker1");
    engine.set_probe(&pod.id, 1, "slow");
    let asked = engine.counts().probes;
    eventually(SOON, "it failed often", async || {
        match engine.counts().probes - asked {
            more if more >= 5 => Ok(()),
            more => Err(format!("{more}")),
        }
    })
    .await;
    assert_eq!(cluster.pod(&pod.id).await.unwrap().restarts, 0);
    assert_eq!(engine.counts().stops_begun, 0);
    cluster.end().await;
}

#[tokio::test]
async fn a_probe_that_hangs_fails_and_is_not_asked_twice() {
    let cluster = cluster().await;
    let pod = one_pod(&cluster, json!({"readiness": {"exec": ["ok"]}})).await;
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    let engine = cluster.engine("worker1");
    engine.hang_probe(&pod.id);
    let unready = cluster.pod_is(&pod.id, "not ready", |pod| !pod.ready).await;
    let words = "not ready: no answer within 200ms";
    assert_eq!(unready.reason.as_deref(), Some(words));
    let asked = engine.counts().probes;
    let once = || assert_eq!(engine.counts().probes, asked, "it hangs once");
    cluster.while_time_passes(5 * INTERVAL, once).await;
    cluster.end().await;
}

#[tokio::test]
async fn http_and_tcp_probes_ask_the_container() {
    let cluster = cluster().await;
    // Who listens on this machine plays the simulated container.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (status, answers) = tokio::sync::watch::channel("200 OK");
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let is_asked = request[..length].starts_with(b"GET /ready?x=1 HTTP/1.1\r\n");
            let status = if is_asked {
                *answers.borrow()
            } else {
                "400 No"
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let pod = one_pod(
        &cluster,
        json!({
            "readiness": {"http": {"port": port, "path": "/ready?x=1"}},
            "liveness": {"tcp": {"port": port}},
        }),
    )
    .await;
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    status.send_replace("503 Later");
    let unready = cluster.pod_is(&pod.id, "not ready", |pod| !pod.ready).await;
    let words = "not ready: GET /ready?x=1 answered 503";
    assert_eq!(unready.reason.as_deref(), Some(words));
    assert_eq!(unready.restarts, 0, "it can be connected to");
    server.abort();
    cluster
        .pod_is(&pod.id, "restarted", |pod| pod.restarts > 0)
        .await;
    let told = cluster.events_of(&pod.id, "unhealthy").await.remove(0);
    let words = format!("unhealthy: port {port}: Connection refused");
    assert!(told.starts_with(&words), "{told}");
    cluster.end().await;
}

#[tokio::test]
async fn the_images_own_check_is_heeded() {
    let cluster = cluster().await;
    let service = cluster.submit("web", 1).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    let engine = cluster.engine("worker1");
    engine.set_health(&pod.id, HealthState::Starting, "");
    cluster.pod_is(&pod.id, "not ready", |pod| !pod.ready).await;
    engine.set_health(&pod.id, HealthState::Healthy, "");
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    engine.set_health(&pod.id, HealthState::Unhealthy, "no answer");
    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    let again = cluster.pod_is(&pod.id, "started anew", again).await;
    assert!(!again.ready, "its check has not been good yet");
    let told = cluster.events_of(&pod.id, "unhealthy").await;
    assert_eq!(told, ["unhealthy: no answer"]);
    engine.set_health(&pod.id, HealthState::Healthy, "");
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    cluster.end().await;
}

#[tokio::test]
async fn an_agents_restart_does_not_make_a_ready_pod_unready() {
    let mut cluster = cluster().await;
    let pod = one_pod(&cluster, json!({"readiness": {"exec": ["ok"]}})).await;
    cluster.pod_is(&pod.id, "ready", |pod| pod.ready).await;
    cluster.take_agent("worker1").kill();
    let asked = cluster.engine("worker1").counts().probes;
    cluster.start_agent("worker1");
    eventually(SOON, "it is asked again", async || {
        match cluster.engine("worker1").counts().probes - asked {
            more if more >= 3 => Ok(()),
            more => Err(format!("{more}")),
        }
    })
    .await;
    assert!(cluster.pod(&pod.id).await.unwrap().ready);
    assert_eq!(cluster.events_of(&pod.id, "unready").await, [""; 0]);
    assert_eq!(cluster.events_of(&pod.id, "ready").await.len(), 1);
    cluster.end().await;
}
