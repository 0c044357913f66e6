//! Submitting, scaling and deleting services.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

use crate::api::{TestApi, content, texts};
use crate::support::{RedisServer, shared_redis};

#[tokio::test]
async fn a_service_becomes_pods_in_the_queue() {
    let api = TestApi::start("submit").await;
    let body = r#"{"name":"web","image":"nginx:1.27","replica":3,"env":{"A":"b"},"ports":["8080:80"],
        "resources":{"cpu":"500m","memory":"64Mi"},"args":["-x"],"labels":{"l":"m"},"priority":"high"}"#;
    let created = api.post("/service", body).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(
        created.header("location"),
        "/v1/services/web?namespace=default"
    );
    let service = &created.body;
    assert_eq!(service["name"], "web");
    assert_eq!(service["namespace"], "default");
    assert_eq!(service["revision"], 1);
    assert_eq!(service["replicas"], 3);
    assert_eq!(service["running"], 0);
    assert_eq!(service["deleting"], false);
    assert_eq!(service["spec"]["resources"]["cpu"], 0.5);
    let pods = created.texts("pods", "");
    assert_eq!(pods.len(), 3);

    let queued = shared_redis().await;
    let queued = queued
        .must(&["LRANGE", "{submit}:sq:high", "0", "-1"])
        .await;
    let mut queued = texts(queued);
    queued.sort();
    assert_eq!(queued, pods);

    let read = api.get("/v1/services/web").await;
    assert_eq!(read.status, 200);
    for field in ["name", "revision", "replicas", "spec", "created_ms"] {
        assert_eq!(read.body[field], service[field], "{field}");
    }
    let pod = api.get(&format!("/v1/pods/{}", pods[1])).await;
    assert_eq!(pod.status, 200);
    assert_eq!(pod.body["phase"], "waiting");
    assert_eq!(pod.body["replica"], 1);
    assert_eq!(pod.body["service"], "default/web");
    assert_eq!(pod.body["image"], "nginx:1.27");
    assert_eq!(pod.body["reason"], "in the queue");

    // The same wish by its other address and name makes nothing new.
    let again = api
        .post("/v1/services", body.replace("\"replica\"", "\"replicas\""))
        .await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.body, created.body);
}

#[tokio::test]
async fn name_and_image_are_enough_and_curls_own_type_is_taken() {
    let api = TestApi::start("curl").await;
    let body = r#"{"name":"one","image":"a"}"#;
    for headers in [
        vec![("content-type", "application/x-www-form-urlencoded")],
        vec![],
        vec![("content-type", "application/json; charset=utf-8")],
    ] {
        let answer = api.send(Method::POST, "/service", &headers, body).await;
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.body["replicas"], 1);
    }
}

#[tokio::test]
async fn another_wish_under_the_name_is_refused_and_says_what_differs() {
    let api = TestApi::start("conflict").await;
    let first = api
        .post("/service", r#"{"name":"web","image":"a:1","replicas":2}"#)
        .await;
    assert_eq!(first.status, 201);
    let image = api
        .post("/service", r#"{"name":"web","image":"a:2","replicas":2}"#)
        .await;
    image.assert_problem(409, "service-exists");
    assert_eq!(image.body["field"], "image");
    assert_eq!(image.body["given"], "a:2");
    assert_eq!(image.body["allowed"], "a:1, as it stands");
    let count = api
        .post("/service", r#"{"name":"web","image":"a:1","replicas":3}"#)
        .await;
    count.assert_problem(409, "service-exists");
    let detail = count.body["detail"].as_str().unwrap();
    assert!(detail.contains("/v1/services/web/scale"), "{detail}");
}

#[tokio::test]
async fn namespaces_are_borders() {
    let api = TestApi::start("namespaces").await;
    let body = r#"{"name":"web","image":"a"}"#;
    for namespace in ["one", "two"] {
        let path = format!("/service?namespace={namespace}");
        let made = api.post(&path, body).await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(made.body["namespace"], namespace);
        assert_eq!(made.body["spec"]["namespace"], namespace);
    }
    let both = r#"{"name":"web","image":"a","namespace":"one"}"#;
    assert_eq!(api.post("/service?namespace=one", both).await.status, 200);
    let differing = api.post("/service?namespace=two", both).await;
    differing.assert_problem(400, "invalid-request");
    assert_eq!(differing.body["field"], "namespace");
    api.get("/v1/services/web")
        .await
        .assert_problem(404, "service-not-found");
    assert_eq!(api.get("/v1/services/web?namespace=one").await.status, 200);
    let gone = api.delete("/v1/services/web?namespace=one").await;
    assert_eq!(gone.status, 202);
    assert_eq!(api.get("/v1/services/web?namespace=two").await.status, 200);
}

#[tokio::test]
async fn one_idempotency_key_makes_one_service_from_50_requests() {
    let api = TestApi::start("idempotent").await;
    let body = r#"{"name":"web","image":"a","replicas":4}"#;
    let key = [
        ("idempotency-key", "order-7"),
        ("content-type", "application/json"),
    ];
    let posts = (0..50).map(|_| api.send(Method::POST, "/service", &key, body));
    let answers = join_all(posts).await;
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.bytes, answers[0].bytes);
    }
    let (services, _) = api.all("/v1/services", 100).await;
    assert_eq!(services.len(), 1);
    let (pods, _) = api.all("/v1/pods", 100).await;
    assert_eq!(pods.len(), 4);

    // Even after it was scaled, and even deleted, the first answer stands.
    let scale = json!({"replicas": 1}).to_string();
    assert_eq!(api.post("/v1/services/web/scale", scale).await.status, 200);
    assert_eq!(api.delete("/v1/services/web").await.status, 202);
    let late = api.send(Method::POST, "/service", &key, body).await;
    assert_eq!(late.status, 201);
    assert_eq!(late.bytes, answers[0].bytes);

    let other = r#"{"name":"web","image":"b","replicas":4}"#;
    let other = api.send(Method::POST, "/service", &key, other).await;
    other.assert_problem(422, "idempotency-key-reused");
    // A key belongs to a namespace.
    let path = "/service?namespace=other";
    let elsewhere = api.send(Method::POST, path, &key, body).await;
    assert_eq!(elsewhere.status, 201);
    assert_ne!(elsewhere.bytes, answers[0].bytes);
}

#[tokio::test]
async fn fifty_posts_without_a_key_make_one_service_too() {
    let api = TestApi::start("parallel").await;
    let body = r#"{"name":"web","image":"a","replicas":4}"#;
    let answers = join_all((0..50).map(|_| api.post("/service", body))).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    for answer in &answers {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.texts("pods", ""), answers[0].texts("pods", ""));
    }
    assert_eq!(api.all("/v1/pods", 100).await.0.len(), 4);
}

#[tokio::test]
async fn services_are_scaled_up_down_and_to_nothing() {
    let api = TestApi::start("scale").await;
    let made = api
        .post("/service", r#"{"name":"web","image":"a","replicas":2}"#)
        .await;
    assert_eq!(made.status, 201);
    for (replicas, named) in [
        (5, "replicas"),
        (5, "replica"),
        (1, "replicas"),
        (0, "replicas"),
        (700, "replica"),
    ] {
        let body = format!(r#"{{"{named}":{replicas}}}"#);
        let scaled = api.post("/v1/services/web/scale", body).await;
        assert_eq!(scaled.status, 200, "{scaled:?}");
        assert_eq!(scaled.body["replicas"], replicas);
        api.control().await;
        let (pods, _) = api.all("/v1/pods?service=web", 1000).await;
        assert_eq!(pods.len(), replicas);
    }
    let absent = api
        .post("/v1/services/none/scale", r#"{"replicas":1}"#)
        .await;
    absent.assert_problem(404, "service-not-found");
}

#[tokio::test]
async fn a_deleted_service_is_forgotten_with_its_pods() {
    let api = TestApi::start("delete").await;
    let body = r#"{"name":"web","image":"a","replicas":3}"#;
    let made = api.post("/service", body).await;
    let deleted = api.delete("/v1/services/web").await;
    assert_eq!(deleted.status, 202);
    assert_eq!(deleted.body["deleting"], true);
    api.get("/v1/services/web")
        .await
        .assert_problem(404, "service-not-found");
    api.delete("/v1/services/web")
        .await
        .assert_problem(404, "service-not-found");
    for pod in made.texts("pods", "") {
        let path = format!("/v1/pods/{pod}");
        api.get(&path).await.assert_problem(404, "pod-not-found");
    }
    // The name is free again.
    let again = api.post("/service", body).await;
    assert_eq!(again.status, 201);
    assert_ne!(again.body["pods"], made.body["pods"]);
}

#[tokio::test]
async fn ten_thousand_replicas_are_all_or_nothing() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "large", |_| {}).await;
    let body = |count: u32| format!(r#"{{"name":"web","image":"a","replicas":{count}}}"#);
    let before = content(&redis).await;
    let refused = api.post("/service", body(10_001)).await;
    refused.assert_problem(400, "invalid-request");
    assert_eq!(refused.body["field"], "replicas");
    assert_eq!(content(&redis).await, before);

    let started = Instant::now();
    let made = api.post("/service", body(10_000)).await;
    assert_eq!(made.status, 201, "{:?}", made.body["detail"]);
    assert!(started.elapsed() < Duration::from_secs(5));
    let mut pods = made.texts("pods", "");
    pods.sort();
    let queued = redis.must(&["LRANGE", "{large}:sq", "0", "-1"]).await;
    let mut queued = texts(queued);
    queued.sort();
    assert_eq!(queued, pods);
    assert_eq!(queued.len(), 10_000);
    let again = api.post("/service", body(10_000)).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.body, made.body);
}
