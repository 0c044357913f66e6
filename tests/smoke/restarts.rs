//! Containers that end are started again on their node, also while Redis is away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kubeleet::model::Phase;
use serde_json::{Value, json};

use crate::by_hand::Worker;
use crate::harness::{Cluster, SOON, Timing, build_images, docker, run};
use crate::support::{RedisOptions, eventually};

#[tokio::test]
async fn a_crash_loop_shows_its_count_and_its_last_exit_and_its_pauses_grow() {
    let worker = Worker::start().await;
    worker
        .push_with("looping", json!({"command": ["sh", "-c", "exit 3"]}))
        .await;
    let pods = &worker.cluster;
    let mut seen = Vec::new();
    for restarts in 0..3 {
        let waits =
            |pod: &kubeleet::model::Pod| pod.phase == Phase::CrashLoop && pod.restarts == restarts;
        let pod = pods.pod_is("looping", "waiting", waits).await;
        seen.push(Instant::now());
        assert_eq!(pod.exit_code, Some(3));
        let pause = 1 << restarts;
        let words = format!("exited with code 3; restart {} in {pause}s", restarts + 1);
        assert_eq!(pod.reason, Some(words));
    }
    let (first, second) = (seen[1] - seen[0], seen[2] - seen[1]);
    assert!(first >= Duration::from_millis(800), "{first:?}");
    assert!(second >= Duration::from_millis(1600), "{second:?}");
    let all = pods.containers.all().await;
    assert_eq!(all.len(), 1, "one container, with the logs of all its runs");
}

/// Id and start time of each running container.
async fn runs(cluster: &Cluster) -> BTreeMap<String, String> {
    let running = cluster.containers.running().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let run = |one: &Value| (text(&one["Id"]), text(&one["State"]["StartedAt"]));
    running.iter().map(run).collect()
}

#[tokio::test]
async fn what_crashes_while_redis_is_away_is_started_again_and_nothing_else_is() {
    /// How long Redis is away.
    const AWAY: Duration = Duration::from_secs(10);
    build_images().await;
    let mut redis = RedisOptions::default().appendonly().start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let _agent = cluster.agent("worker1", &[]).await;
    let _scheduler = cluster.scheduler();
    cluster.submit("web", 3).await;
    let pods = cluster.all_run(3, SOON).await;
    let before = runs(&cluster).await;

    redis.kill9();
    let away_since = Instant::now();
    let crashed = pods[0].container.clone().expect("its container");
    docker(&["kill", &crashed]);
    let after_crash = eventually(SOON, "it runs again", async || {
        let now = runs(&cluster).await;
        match now.get(&crashed) {
            Some(started) if started != &before[&crashed] => Ok(now),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(after_crash.len(), 3);
    eventually(SOON, "time passes", async || {
        if away_since.elapsed() > AWAY {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    assert_eq!(runs(&cluster).await, after_crash, "they ran on");
    redis.restart().await;
    let told = |pod: &kubeleet::model::Pod| {
        pod.phase == Phase::Running && pod.restarts == 1 && pod.exit_code == Some(137)
    };
    cluster.pod_is(pods[0].id.as_str(), "told of", told).await;
    // Another pod shows that the agent is at work again, with both comparisons behind it.
    cluster.submit("later", 1).await;
    cluster.all_run(4, SOON).await;
    let mut now = runs(&cluster).await;
    now.retain(|id, _| before.contains_key(id));
    assert_eq!(now, after_crash, "nothing was started again");
    let pods = cluster.pods().await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
}

#[tokio::test]
async fn leet_tells_why_a_pod_does_not_run() {
    let worker = Worker::start().await;
    let (_api, address) = worker.cluster.api().await;
    let command = ["sh", "-c", "exit 9"];
    worker
        .push_with("looping", json!({"command": command}))
        .await;
    worker.cluster.pod_in("looping", Phase::CrashLoop).await;
    let url = format!("http://{address}");
    eventually(SOON, "leet ps shows it", async || {
        let mut leet = std::process::Command::new(crate::harness::LEET);
        let shown = run(leet.args(["--api", &url, "ps"]));
        if shown.contains("crash-loop") && shown.contains("exited with code 9; restart ") {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
}
