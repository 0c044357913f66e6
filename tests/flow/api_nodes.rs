//! What users say of nodes, by the API and by `leet`: labels, cordon, drain, removal.

use std::time::Duration;

use hyper::Method;
use kubeleet::model::{Capacity, EngineState};
use kubeleet::store::{Assignment, Beat};
use serde_json::json;

use crate::api::{Answer, TestApi, content};
use crate::api_cli::leet;
use crate::support::RedisServer;

const LEASE: Duration = Duration::from_secs(20);

impl TestApi {
    async fn patch(&self, path: &str, body: impl Into<hyper::body::Bytes>) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(Method::PATCH, path, &json, body).await
    }

    /// Registers a node that no agent runs.
    async fn node(&self, name: &str) -> u64 {
        let beat = Beat {
            engine: EngineState::Up,
            capacity: Capacity {
                pods_max: 10,
                cpu_millis: 4000,
                memory_bytes: 8 << 30,
            },
            labels: [("zone".to_owned(), "us".to_owned())].into(),
            ..Beat::default()
        };
        let nodes = self.store.nodes();
        nodes.register(name, name, LEASE, &beat).await.unwrap();
        self.get(&format!("/v1/nodes/{name}")).await.body["epoch"]
            .as_u64()
            .unwrap()
    }

    /// Gives all that waits to a node.
    async fn place(&self, node: &str) {
        let claim = self.store.queue().claim(LEASE, 100).await.unwrap();
        let assignment = Assignment {
            nodes: vec![(node, 0)],
            pods: claim.pods.iter().map(|pod| (&pod.id, 0)).collect(),
            ..Assignment::default()
        };
        let queue = self.store.queue();
        queue
            .assign(&claim.batch, "nonce", LEASE, &assignment)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_node_is_labelled_closed_drained_opened_and_removed() {
    let api = TestApi::start("marks").await;
    let epoch = api.node("node1").await;
    let labelled = api
        .patch(
            "/v1/nodes/node1",
            r#"{"labels":{"zone":"eu","disk":"ssd","old":null}}"#,
        )
        .await;
    assert_eq!(labelled.status, 200, "{labelled:?}");
    assert_eq!(
        labelled.body["labels"],
        json!({"zone": "eu", "disk": "ssd"})
    );
    let again = api
        .patch("/v1/nodes/node1", r#"{"labels":{"zone":null}}"#)
        .await;
    assert_eq!(
        again.body["labels"],
        json!({"zone": "us", "disk": "ssd"}),
        "the agent's own"
    );
    assert_eq!(
        api.get("/v1/nodes").await.body["items"][0]["labels"],
        again.body["labels"]
    );

    api.post("/service", r#"{"name":"web","image":"a","replicas":2}"#)
        .await;
    api.place("node1").await;
    for (verb, state, cordoned, draining) in [
        ("cordon", "cordoned", true, false),
        ("drain", "draining", true, true),
        ("drain", "draining", true, true),
        ("cordon", "cordoned", true, false),
        ("uncordon", "ready", false, false),
    ] {
        let marked = api.post(&format!("/v1/nodes/node1/{verb}"), "").await;
        assert_eq!(marked.status, 200, "{verb}: {marked:?}");
        assert_eq!(marked.body["state"], state, "{verb}");
        assert_eq!(
            (&marked.body["cordoned"], &marked.body["draining"]),
            (&json!(cordoned), &json!(draining))
        );
        assert_eq!(marked.body["pods"], 2);
    }

    let heard = api.delete("/v1/nodes/node1").await;
    heard.assert_problem(409, "node-in-use");
    let detail = heard.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("end its agent first") && detail.contains("by force"),
        "{detail}"
    );
    api.store.nodes().leave("node1", epoch).await.unwrap();
    let occupied = api.delete("/v1/nodes/node1?force=false").await;
    occupied.assert_problem(409, "node-in-use");
    let detail = occupied.body["detail"].as_str().unwrap();
    assert!(detail.contains("has 2 pods: drain it first"), "{detail}");
    let removed = api.delete("/v1/nodes/node1?force=true").await;
    assert_eq!(
        (removed.status, &removed.body),
        (200, &json!({"name": "node1", "pods": 2}))
    );
    api.get("/v1/nodes/node1")
        .await
        .assert_problem(404, "node-not-found");
    assert_eq!(
        api.get("/v1/queue").await.body["normal"],
        2,
        "its pods wait again"
    );
}

#[tokio::test]
async fn bad_words_for_nodes_are_refused_and_change_nothing() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "marks", |_| {}).await;
    api.node("node1").await;
    let before = content(&redis).await;
    let many: serde_json::Map<String, serde_json::Value> = (0..65)
        .map(|number| (format!("k{number}"), json!("v")))
        .collect();
    let (many, long) = (json!({ "labels": many }).to_string(), "a".repeat(64));
    let long = format!(r#"{{"labels":{{"{long}":"v"}}}}"#);
    for (body, field) in [
        (r#"{"labels":{"a b":"v"}}"#, "labels.a b"),
        (r#"{"labels":{"":"v"}}"#, "labels."),
        (r#"{"labels":{"a":"v,w"}}"#, "labels.a"),
        (r#"{"labels":{"a":"v=w"}}"#, "labels.a"),
        (r#"{"labels":{"a=b":null}}"#, "labels.a=b"),
        (r#"{"labels":{"node":"other"}}"#, "labels.node"),
        (r#"{"labels":{"node":null}}"#, "labels.node"),
        (r#"{"labels":{"a":1}}"#, "labels.a"),
        (r#"{"labels":["a"]}"#, "labels"),
        (r#"{"label":{"a":"b"}}"#, "label"),
        ("{}", "labels"),
        ("[]", ""),
        (many.as_str(), "labels"),
    ] {
        let answer = api.patch("/v1/nodes/node1", body.to_owned()).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], field, "{body}: {answer:?}");
    }
    let answer = api.patch("/v1/nodes/node1", long).await;
    answer.assert_problem(400, "invalid-request");
    api.patch("/v1/nodes/node1", "{")
        .await
        .assert_problem(400, "malformed-json");
    let good = r#"{"labels":{"a":"b"}}"#;
    api.patch("/v1/nodes/none", good)
        .await
        .assert_problem(404, "node-not-found");
    api.patch("/v1/nodes/a%20b", good)
        .await
        .assert_problem(400, "invalid-request");
    for verb in ["cordon", "uncordon", "drain"] {
        let path = format!("/v1/nodes/none/{verb}");
        api.post(&path, "")
            .await
            .assert_problem(404, "node-not-found");
        let path = format!("/v1/nodes/node1/{verb}?force=true");
        api.post(&path, "")
            .await
            .assert_problem(400, "invalid-request");
        let path = format!("/v1/nodes/a%2Fb/{verb}");
        api.post(&path, "")
            .await
            .assert_problem(400, "invalid-request");
    }
    api.delete("/v1/nodes/none?force=true")
        .await
        .assert_problem(404, "node-not-found");
    for query in ["force=yes", "force=", "forc=true", "force=true&force=true"] {
        let answer = api.delete(&format!("/v1/nodes/node1?{query}")).await;
        answer.assert_problem(400, "invalid-request");
    }
    api.delete("/v1/nodes/node1")
        .await
        .assert_problem(409, "node-in-use");
    assert_eq!(content(&redis).await, before);
}

#[tokio::test]
async fn nodes_are_shaped_from_the_command_line() {
    let api = TestApi::start("cli-marks").await;
    api.node("node1").await;
    api.node("node2").await;
    let done = async |line: &str| {
        let ended = leet(&api, line).await;
        assert_eq!(ended.code, 0, "{line}: {}", ended.err);
        ended.out
    };
    let refused = async |line: &str, why: &str| {
        let ended = leet(&api, line).await;
        assert_eq!(ended.code, 1, "{line}: {}", ended.out);
        assert!(ended.err.contains(why), "{line}: {}", ended.err);
        ended
    };
    assert_eq!(
        done("node label node1 disk=ssd zone=eu").await,
        "labels of node node1: disk=ssd,zone=eu\n"
    );
    let labelled = done("node label node1 disk- zone- -o json").await;
    let labelled: serde_json::Value = serde_json::from_str(&labelled).unwrap();
    assert_eq!(labelled["labels"], json!({"zone": "us"}));
    refused(
        "node label node1 node=x",
        "this one is every node's own name",
    )
    .await;
    assert_eq!(leet(&api, "node label node1 x").await.code, 2);

    assert!(
        done("node cordon node1 node2")
            .await
            .contains("node node2 is cordoned")
    );
    let shown = done("nodes").await;
    assert!(
        shown
            .lines()
            .skip(1)
            .all(|line| line.contains("cordoned") && line.ends_with("zone=us")),
        "{shown}"
    );
    done("node uncordon node2").await;
    // One that is not there does not keep the other.
    let some = refused("node uncordon none node1", "there is no node none").await;
    assert!(
        some.out.contains("node node1 gets pods again"),
        "{}",
        some.out
    );

    let waited = leet(&api, "node drain node2 --wait").await;
    assert_eq!(waited.code, 0, "{}", waited.err);
    assert!(
        waited.err.contains("node node2 (drained): 0 pods left"),
        "{}",
        waited.err
    );
    api.post("/service", r#"{"name":"web","image":"a","replicas":2}"#)
        .await;
    api.place("node1").await;
    let why = "node node1 has 2 pods left; its drain goes on: leet ps --node node1 shows them";
    let waited = refused("node drain node1 --wait --timeout 700ms", why).await;
    assert_eq!(
        waited.err.matches("2 pods left\n").count(),
        1,
        "told once: {}",
        waited.err
    );
    assert!(done("nodes").await.contains("draining"));
    assert_eq!(
        leet(&api, "node drain node1 --timeout 1s").await.code,
        2,
        "without --wait"
    );

    refused("node rm node1", "end its agent first").await;
    assert_eq!(
        done("node rm node1 node2 --force").await,
        "node node1 is forgotten\nnode node2 is forgotten\n"
    );
    assert_eq!(done("nodes -o json").await, "[]\n");
}
