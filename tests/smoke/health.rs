//! Probes of real containers: each kind, and the image's own HEALTHCHECK.

use std::time::{Duration, Instant};

use kubeleet::model::{Phase, Pod};
use serde_json::{Value, json};

use crate::by_hand::Worker;
use crate::harness::{IMAGE, docker};

/// From a change in the container to its being told: the probe's own time and a second.
const TOLD_LIMIT: Duration = Duration::from_millis(2 * 300 + 1000);

/// A probe that is made often.
fn often(mut probe: Value) -> Value {
    probe["interval"] = json!("300ms");
    probe["failures"] = json!(2);
    probe
}

/// Runs a command in the container of a pod.
fn inside(pod: &Pod, command: &[&str]) {
    let mut words = vec!["exec", pod.container.as_deref().expect("its container")];
    words.extend(command);
    docker(&words);
}

#[tokio::test]
async fn each_kind_of_probe_is_heeded() {
    let worker = Worker::start().await;
    let serve = "mkdir -p /www; touch /www/well /tmp/well; httpd -p 80 -h /www; exec sleep 1000";
    let with = |health: Value| json!({"command": ["sh", "-c", serve], "health": health});
    let http = often(json!({"http": {"port": 80, "path": "/well"}}));
    let exec = often(json!({"exec": ["test", "-e", "/tmp/well"]}));
    let tcp = often(json!({"tcp": {"port": 80}}));
    worker
        .push_with("http", with(json!({"readiness": http})))
        .await;
    worker
        .push_with("exec", with(json!({"readiness": exec})))
        .await;
    worker
        .push_with("tcp", with(json!({"liveness": tcp})))
        .await;

    for (kind, file, said) in [
        ("http", "/www/well", "GET /well answered 404"),
        ("exec", "/tmp/well", "its command exited with code 1"),
    ] {
        let pod = worker.cluster.pod_is(kind, "ready", |pod| pod.ready).await;
        inside(&pod, &["rm", file]);
        let changed = Instant::now();
        let unready = |pod: &Pod| !pod.ready && pod.phase == Phase::Running;
        let pod = worker.cluster.pod_is(kind, "not ready", unready).await;
        let told_after = changed.elapsed();
        assert!(told_after < TOLD_LIMIT, "{kind}: told after {told_after:?}");
        assert_eq!(pod.reason, Some(format!("not ready: {said}")));
        inside(&pod, &["touch", file]);
        let pod = worker.cluster.pod_is(kind, "ready", |pod| pod.ready).await;
        assert_eq!((pod.restarts, pod.reason), (0, None));
    }

    let pod = worker.cluster.pod_in("tcp", Phase::Running).await;
    inside(&pod, &["killall", "httpd"]);
    let killed = Instant::now();
    let waits = |pod: &Pod| pod.phase == Phase::CrashLoop;
    let looping = worker.cluster.pod_is("tcp", "stopped", waits).await;
    assert!(killed.elapsed() < TOLD_LIMIT + Duration::from_secs(2));
    let reason = looping.reason.unwrap_or_default();
    let words = "unhealthy: port 80: Connection refused";
    assert!(reason.starts_with(words), "{reason}");
    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    let again = worker.cluster.pod_is("tcp", "running again", again).await;
    assert_eq!(again.container, pod.container);
}

#[tokio::test]
async fn the_images_own_healthcheck_is_heeded() {
    const CHECKED: &str = "kubeleet/checked:smoke";
    let worker = Worker::start().await;
    let base = docker(&["create", IMAGE]);
    let check = "HEALTHCHECK --interval=500ms --timeout=2s --retries=2 CMD test -e /tmp/well";
    docker(&["commit", "--change", check, &base, CHECKED]);
    docker(&["rm", &base]);
    let fields =
        json!({"image": CHECKED, "command": ["sh", "-c", "touch /tmp/well; exec sleep 1000"]});
    worker.push_with("checked", fields).await;
    let fields = json!({"image": CHECKED, "health": {"engine": false}});
    worker.push_with("unheeded", fields).await;

    let pod = worker.cluster.pod_in("checked", Phase::Running).await;
    assert!(!pod.ready, "its check was not made yet");
    let pod = worker
        .cluster
        .pod_is("checked", "ready", |pod| pod.ready)
        .await;
    inside(&pod, &["rm", "/tmp/well"]);
    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    worker
        .cluster
        .pod_is("checked", "started anew", again)
        .await;
    worker
        .cluster
        .pod_is("checked", "ready", |pod| pod.ready)
        .await;
    let unheeded = worker.cluster.pod_in("unheeded", Phase::Running).await;
    assert!(unheeded.ready && unheeded.restarts == 0, "{unheeded:?}");
}
