//! Who watches by `leet` sees all that happens, whatever becomes of the API meanwhile.

use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, LEET, Process, SOON, Timing, build_images, docker, post};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn leet_follows_every_event_though_the_api_is_killed_and_describes_what_happened() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let (mut api, address) = cluster.api().await;
    let variables = [("KUBELEET_API", address.as_str())];
    let leet = async |arguments: &[&str]| Process::run(LEET, arguments, &variables).await;
    let follow = Process::start(LEET, &["events", "-f", "-o", "json"], &variables);
    let for_people = Process::start(LEET, &["events", "-f", "--service", "web"], &variables);
    let seen = async |process: &Process, kind: &str, count: usize| {
        let what = format!("{count} of {kind} are seen");
        eventually(SOON, &what, async || {
            let out = process.out();
            let found = out.lines().filter(|line| line.contains(kind)).count();
            if found == count { Ok(()) } else { Err(out) }
        })
        .await;
    };
    let _scheduler = cluster.scheduler();
    let _agent = cluster.agent("worker1", &[]).await;
    seen(&follow, "\"node-registered\"", 1).await;

    let body =
        json!({"name": "web", "image": IMAGE, "replicas": 3, "restart": {"policy": "never"}});
    assert_eq!(post(&address, "/service", &body).await.status, 201);
    seen(&follow, "\"running\"", 3).await;
    // The API dies; what happens without it is told by its successor.
    api.kill9();
    let pods = cluster.all_run(3, SOON).await;
    let container = pods[0].container.as_deref().expect("a container");
    docker(&["kill", container]);
    cluster
        .pod_in(pods[0].id.as_str(), kubeleet::model::Phase::Failed)
        .await;
    let _api = cluster.api_at(&address).await;
    seen(&follow, "\"failed\"", 1).await;
    assert_eq!(leet(&["rm", "web"]).await.code, Some(0));
    seen(&follow, "\"service-deleted\"", 1).await;

    // Each event once, in the order of Redis.
    let all = leet(&["events", "--tail", "1000", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&all.out).expect("a list");
    let followed = follow.out();
    let lines = followed.lines();
    let followed: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(Value::Array(followed), all);
    seen(&for_people, "service-deleted", 1).await;
    let people = for_people.out();
    let of_one = people
        .lines()
        .filter(|line| line.contains(pods[0].id.as_str()));
    let of_one: Vec<&str> = of_one.collect();
    let kinds = [
        "waiting",
        "scheduled",
        "starting",
        "running",
        "failed",
        "stopping",
        "stopped",
    ];
    assert_eq!(of_one.len(), kinds.len(), "{people}");
    for (line, kind) in of_one.iter().zip(kinds) {
        assert!(line.contains(&format!("  {kind} ")), "{people}");
    }
    let described = leet(&["describe", "pod", pods[0].id.as_str()]).await;
    assert_eq!(described.code, Some(1), "it is gone: {}", described.err);
    for part in ["exited with code 137", "its service was deleted"] {
        assert!(described.out.contains(part), "{}", described.out);
    }
    let node = leet(&["describe", "node", "worker1"]).await;
    assert_eq!(node.code, Some(0), "{}", node.err);
    for part in ["ready", "Pods: none", "node-registered", "stopped"] {
        assert!(node.out.contains(part), "{}", node.out);
    }
}
