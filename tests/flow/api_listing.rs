//! Listings and their pages, nodes, the queue, and pods without an owner.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use kubeleet::model::{Capacity, EngineState, RawPod};
use kubeleet::store::{Adopt, AdoptOutcome, AssignOutcome, Assignment, Beat, From};

use crate::api::TestApi;
use crate::support::shared_redis;

const LEASE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn pages_show_250_services_and_1200_pods_once_each() {
    let api = TestApi::start("pages").await;
    // 250 services, 200 of five pods and 50 of four.
    let posts = (0..250).map(|number| {
        let replicas = if number < 200 { 5 } else { 4 };
        let namespace = ["default", "other"][number % 2];
        let body = format!(
            r#"{{"name":"s{number}","image":"a","replicas":{replicas},"namespace":"{namespace}"}}"#
        );
        let api = &api;
        async move { api.post("/service", body).await.status }
    });
    let statuses: Vec<u16> = futures_util::stream::iter(posts)
        .buffer_unordered(16)
        .collect()
        .await;
    assert!(statuses.iter().all(|status| *status == 201));

    for (path, limit, count, pages) in [
        ("/v1/services", 100, 250, 3),
        ("/v1/services", 50, 250, 5),
        ("/v1/services", 1000, 250, 1),
        ("/v1/services?namespace=other", 50, 125, 3),
        ("/v1/services?namespace=none", 50, 0, 1),
    ] {
        let (items, seen) = api.all(path, limit).await;
        let names: Vec<(String, String)> = items
            .iter()
            .map(|item| {
                let text = |field: &str| item[field].as_str().unwrap().to_owned();
                (text("namespace"), text("name"))
            })
            .collect();
        assert_eq!(names.len(), count, "{path}");
        assert!(names.is_sorted(), "{path}");
        assert_eq!(BTreeSet::from_iter(&names).len(), count, "{path}");
        assert_eq!(seen, pages, "{path} by {limit}");
        assert!(items.iter().all(|item| item["running"] == 0));
    }
    for (path, limit, count) in [
        ("/v1/pods", 100, 1200),
        ("/v1/pods", 7, 1200),
        ("/v1/pods", 1000, 1200),
        ("/v1/pods?namespace=other", 64, 600),
        ("/v1/pods?phase=waiting", 333, 1200),
        ("/v1/pods?phase=running", 100, 0),
        ("/v1/pods?service=s10", 2, 5),
        ("/v1/pods?service=other/s11", 2, 5),
        ("/v1/pods?service=s11&namespace=other", 100, 5),
        ("/v1/pods?service=s11", 100, 0),
        ("/v1/pods?node=none", 100, 0),
    ] {
        let (items, _) = api.all(path, limit).await;
        let ids: BTreeSet<&str> = items
            .iter()
            .map(|pod| pod["id"].as_str().unwrap())
            .collect();
        assert_eq!(items.len(), count, "{path} by {limit}");
        assert_eq!(ids.len(), count, "{path} by {limit}");
    }
}

#[tokio::test]
async fn nodes_are_shown_with_their_state() {
    let api = TestApi::start("nodes").await;
    assert_eq!(
        api.get("/v1/nodes").await.body["items"],
        serde_json::json!([])
    );
    let beat = Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max: 10,
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
        },
        ..Beat::default()
    };
    for number in 0..7 {
        let name = format!("node{number}");
        let nodes = api.store.nodes();
        nodes.register(&name, &name, LEASE, &beat).await.unwrap();
    }
    let (nodes, pages) = api.all("/v1/nodes", 3).await;
    let names: Vec<&str> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "node0", "node1", "node2", "node3", "node4", "node5", "node6"
        ]
    );
    assert_eq!(pages, 3);
    let node = api.get("/v1/nodes/node3").await;
    assert_eq!(node.status, 200);
    assert_eq!(node.body["state"], "ready");
    assert_eq!(node.body["capacity"]["cpu_millis"], 4000);
    assert_eq!(node.body["epoch"], 1);
}

#[tokio::test]
async fn pods_of_a_node_are_listed_and_hold_a_deletion_up() {
    let api = TestApi::start("placed").await;
    let beat = Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max: 100,
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
        },
        ..Beat::default()
    };
    let nodes = api.store.nodes();
    nodes
        .register("node1", "engine", LEASE, &beat)
        .await
        .unwrap();
    let body = r#"{"name":"web","image":"a","replicas":30}"#;
    assert_eq!(api.post("/service", body).await.status, 201);
    let claim = api.store.queue().claim(LEASE, 25).await.unwrap();
    let assignment = Assignment {
        nodes: vec![("node1", 0)],
        pods: claim.pods.iter().map(|pod| (&pod.id, 0)).collect(),
        ..Assignment::default()
    };
    let queue = api.store.queue();
    let assigned = queue.assign(&claim.batch, "nonce", LEASE, &assignment);
    assert!(matches!(
        assigned.await.unwrap(),
        AssignOutcome::Assigned { count: 25, .. }
    ));
    for (path, limit, count, pages) in [
        ("/v1/pods?node=node1", 10, 25, 3),
        ("/v1/pods?node=node1&service=web", 25, 25, 1),
        ("/v1/pods?node=node1&namespace=other", 10, 0, 1),
        ("/v1/pods?phase=scheduled", 10, 25, 3),
        ("/v1/pods?phase=waiting", 10, 5, 1),
    ] {
        let (items, seen) = api.all(path, limit).await;
        let ids: BTreeSet<&str> = items
            .iter()
            .map(|pod| pod["id"].as_str().unwrap())
            .collect();
        assert_eq!(
            (items.len(), ids.len(), seen),
            (count, count, pages),
            "{path}"
        );
    }
    assert_eq!(api.get("/v1/nodes/node1").await.body["pods"], 25);

    // Its agent has to stop them first.
    assert_eq!(api.delete("/v1/services/web").await.status, 202);
    let read = api.get("/v1/services/web").await;
    assert_eq!(read.body["deleting"], true);
    let again = api.post("/service", body).await;
    again.assert_problem(409, "service-deleting");
    assert_eq!(again.header("retry-after"), "1");
    let scaled = api
        .post("/v1/services/web/scale", r#"{"replicas":3}"#)
        .await;
    scaled.assert_problem(409, "service-deleting");
    assert_eq!(api.delete("/v1/services/web").await.status, 202);
    let (stopping, _) = api.all("/v1/pods?service=web", 100).await;
    assert_eq!(stopping.len(), 25);
    assert!(stopping.iter().all(|pod| pod["desired"] == "stop"));
}

#[tokio::test]
async fn the_queue_shows_depths_and_dead_letters() {
    let api = TestApi::start("queue").await;
    for (name, priority, replicas) in [("a", "high", 1), ("b", "normal", 2), ("c", "low", 3)] {
        let body = format!(
            r#"{{"name":"{name}","image":"x","priority":"{priority}","replicas":{replicas}}}"#
        );
        assert_eq!(api.post("/service", body).await.status, 201);
    }
    shared_redis()
        .await
        .must(&["LPUSH", "{queue}:sq", "rubbish"])
        .await;
    let claim = api.store.queue().claim(LEASE, 10).await.unwrap();
    let entry = &claim.raw[0];
    let from = From::Claim(&claim.batch);
    api.store.bury(from, entry, "not understood").await.unwrap();
    let queue = api.get("/v1/queue").await;
    assert_eq!(queue.status, 200);
    for (field, count) in [
        ("high", 0),
        ("normal", 0),
        ("low", 0),
        ("claims", 1),
        ("parked", 0),
        ("dead", 1),
    ] {
        assert_eq!(queue.body[field], count, "{field}: {queue:?}");
    }
    let letter = &queue.body["dead_letters"][0];
    assert_eq!(letter["entry"], "rubbish");
    assert_eq!(letter["where"], "sq");
    assert_eq!(letter["why"], "not understood");
    assert!(letter["when_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn a_pod_pushed_by_hand_is_shown_and_can_be_stopped() {
    let api = TestApi::start("hand").await;
    api.store.open().await.unwrap();
    let entry = r#"{"name":"test","uuid":"byhand","image":"spaster/alpine-sleep","replica":3}"#;
    shared_redis()
        .await
        .must(&["LPUSH", "{hand}:sq", entry])
        .await;
    let claim = api.store.queue().claim(LEASE, 10).await.unwrap();
    let raw = RawPod::parse(&claim.raw[0]).unwrap();
    let adopt = Adopt {
        from: From::Claim(&claim.batch),
        entry: &claim.raw[0],
        raw: &raw,
        nonce: "",
    };
    let adopted = api.store.pending().adopt(adopt).await.unwrap();
    assert_eq!(adopted, AdoptOutcome::Adopted);
    let (pods, _) = api.all("/v1/pods", 10).await;
    assert_eq!(pods[0]["id"], "byhand");
    assert_eq!(pods[0]["name"], "test");
    assert!(pods[0].get("service").is_none());
    let stopped = api.delete("/v1/pods/byhand").await;
    assert_eq!(stopped.status, 202, "{stopped:?}");
    assert_eq!(stopped.body["desired"], "stop");
    api.delete("/v1/pods/byhand")
        .await
        .assert_problem(404, "pod-not-found");
    assert_eq!(api.all("/v1/pods", 10).await.0.len(), 0);
}
