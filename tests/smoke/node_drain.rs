//! A machine is emptied by one command, which waits; containers end in their own time.

use std::time::{SystemTime, UNIX_EPOCH};

use kubeleet::model::Phase;
use serde_json::json;

use crate::harness::{
    CalmMachine, Cluster, IMAGE, LEET, Process, SOON, Timing, build_images, docker, post,
};
use crate::support::{RedisServer, eventually};

/// Ends three seconds after it is asked to, with a code of its own: later than a container that is
/// nobody's any more would be given.
const SLOW: &str = "trap 'sleep 3; exit 7' TERM; while :; do sleep 0.1; done";

#[expect(
    clippy::disallowed_methods,
    reason = "the engine is asked for events by the clock on the wall"
)]
fn seconds() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970").as_secs().to_string()
}

#[tokio::test]
async fn a_drain_that_is_waited_for_leaves_an_empty_node() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::QUICK).await;
    let calm = CalmMachine::new();
    let labels = ("KUBELEET_NODE__LABELS", "disk=ssd,zone=eu");
    let first = cluster.agent("first", &[calm.variable(), labels]).await;
    let _second = cluster.agent("second", &[calm.variable(), labels]).await;
    let _scheduler = cluster.scheduler();
    let (_api, api) = cluster.api().await;
    let leet = async |line: &str| {
        let mut words = vec!["--api", api.as_str()];
        words.extend(line.split(' '));
        Process::run(LEET, &words, &[]).await
    };
    let web = json!({"name": "web", "image": IMAGE, "replicas": 4, "placement": {"labels": {"disk": "ssd"}}});
    assert_eq!(post(&api, "/service", &web).await.status, 201);
    let slow =
        json!({"name": "slow", "uuid": "slow", "image": IMAGE, "command": ["sh", "-c", SLOW]});
    redis.must(&["LPUSH", "pq:first", &slow.to_string()]).await;
    cluster.all_run(5, SOON).await;

    let since = seconds();
    let drained = leet("node drain first --wait --timeout 60s").await;
    assert_eq!(drained.code, Some(0), "{drained:?}");
    assert!(
        drained.err.ends_with("node first (drained): 0 pods left\n"),
        "{drained:?}"
    );
    let pods = cluster.all_run(5, SOON).await;
    assert!(
        pods.iter().all(|pod| pod.node.as_deref() == Some("second")),
        "{pods:?}"
    );
    let running = cluster.containers.settle(5, SOON).await;
    let of_first = running
        .iter()
        .filter(|one| one["Config"]["Labels"]["kubeleet.node"] == "first");
    assert_eq!(of_first.count(), 0);
    // It was asked to stop, and had the time it took.
    let label = cluster.containers.label();
    let until = format!("{}.999999999", seconds()); // of this second too
    let died = docker(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        &format!("label={label}"),
        "--filter",
        "label=kubeleet.pod=slow",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    assert_eq!(died, "7");
    assert_eq!(cluster.pod_in("slow", Phase::Running).await.attempt, 2);

    let shown = leet("nodes").await.out;
    let line = shown.lines().find(|line| line.starts_with("first"));
    let line = line.unwrap_or_else(|| panic!("{shown}"));
    assert!(
        line.contains("drained") && line.ends_with("disk=ssd,zone=eu"),
        "{line}"
    );
    // Its agent ends in order, so it need not be waited for.
    let refused = leet("node rm first").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("end its agent first"), "{refused:?}");
    first.signal("TERM");
    eventually(SOON, "the node is forgotten", async || {
        let removed = leet("node rm first").await;
        match removed.code {
            Some(0) => Ok(()),
            _ => Err(removed.err),
        }
    })
    .await;
    assert!(!leet("nodes").await.out.contains("first"));
}
