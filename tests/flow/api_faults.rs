//! Redis away, frozen or full; slow clients; the end of the API.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::{TestApi, content};
use crate::support::{RedisOptions, RedisServer, eventually};

const BODY: &str = r#"{"name":"web","image":"a","replicas":2}"#;
/// Far below what any client waits, and above three tries.
const QUICKLY: Duration = Duration::from_secs(4);

#[tokio::test]
async fn redis_away_is_told_quickly_and_all_resumes_by_itself() {
    let mut redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "away", |_| {}).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(api.post("/service", BODY).await.status, 201);

    redis.kill9();
    for path in [
        "/v1/services",
        "/v1/services/web",
        "/v1/pods",
        "/v1/nodes",
        "/v1/queue",
        "/readyz",
    ] {
        let started = Instant::now();
        let answer = api.get(path).await;
        answer.assert_problem(503, "store-unavailable");
        assert_eq!(answer.header("retry-after"), "1", "{path}");
        assert_eq!(answer.body["request_id"], answer.header("x-request-id"));
        assert!(started.elapsed() < QUICKLY, "{path}");
    }
    let started = Instant::now();
    let post = api.post("/service", BODY).await;
    post.assert_problem(503, "store-unavailable");
    assert!(started.elapsed() < QUICKLY);
    assert_eq!(post.header("retry-after"), "1");
    // No word of Redis's address or of a library's error.
    assert!(!post.body["detail"].as_str().unwrap().contains("127.0.0.1"));
    let delete = api.delete("/v1/services/web").await;
    assert_eq!(delete.status, 503, "{delete:?}");
    assert_eq!(api.get("/healthz").await.status, 200);

    redis.restart().await;
    eventually(
        Duration::from_secs(10),
        "the API serves again",
        async || {
            let answer = api.post("/service", BODY).await;
            match answer.status {
                201 => Ok(()),
                status => Err(format!("{status}: {}", answer.body)),
            }
        },
    )
    .await;
    assert_eq!(api.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_restart_between_two_requests_is_not_seen() {
    let mut redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "restart", |_| {}).await;
    // Several at once leave several connections in the pool.
    let posts = (0..8).map(|number| {
        let body = format!(r#"{{"name":"s{number}","image":"a"}}"#);
        api.post("/service", body)
    });
    for answer in futures_util::future::join_all(posts).await {
        assert_eq!(answer.status, 201);
    }
    redis.restart().await;
    let answer = api.post("/service", BODY).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(api.get("/v1/services/web").await.status, 200);
}

#[tokio::test]
async fn a_replica_that_does_not_confirm_leaves_the_outcome_unknown() {
    let redis = RedisServer::start().await;
    let replica = RedisOptions::default()
        .replica_of(redis.port())
        .start()
        .await;
    eventually(
        Duration::from_secs(10),
        "the replica is in step",
        async || match redis.must(&["WAIT", "1", "100"]).await {
            redis::Value::Int(1) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let api = TestApi::on(&redis, "replica", |_| {}).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    // A full Redis is told as such though the call went out with a WAIT.
    redis.must(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = api.post("/service", BODY).await;
    full.assert_problem(503, "store-full");
    redis.must(&["CONFIG", "SET", "maxmemory", "0"]).await;

    replica.pause();
    let key = [("idempotency-key", "k1")];
    let started = Instant::now();
    let unknown = api.send(hyper::Method::POST, "/service", &key, BODY).await;
    unknown.assert_problem(503, "outcome-unknown");
    assert_eq!(unknown.header("retry-after"), "1");
    assert!(started.elapsed() < QUICKLY);
    replica.resume();
    let again = api.send(hyper::Method::POST, "/service", &key, BODY).await;
    assert_eq!(again.status, 201, "{again:?}");
    assert_eq!(again.texts("pods", "").len(), 2);
    let (pods, _) = api.all("/v1/pods", 10).await;
    assert_eq!(pods.len(), 2);
}

#[tokio::test]
async fn a_frozen_redis_is_answered_within_the_budget() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "frozen", |_| {}).await;
    assert_eq!(api.get("/readyz").await.status, 200);
    redis.pause();
    let started = Instant::now();
    let (read, post, ready) = tokio::join!(
        api.get("/v1/services"),
        api.post("/service", BODY),
        api.get("/readyz")
    );
    assert!(started.elapsed() < QUICKLY, "{:?}", started.elapsed());
    read.assert_problem(503, "store-unavailable");
    ready.assert_problem(503, "store-unavailable");
    // The call may lie in a buffer of Redis, and be carried out when it wakes.
    assert_eq!(post.status, 503);
    redis.resume();
    eventually(
        Duration::from_secs(10),
        "the same wish stands",
        async || {
            let answer = api.post("/service", BODY).await;
            match answer.status {
                200 | 201 => Ok(()),
                status => Err(format!("{status}: {}", answer.body)),
            }
        },
    )
    .await;
    assert_eq!(api.all("/v1/pods", 10).await.0.len(), 2);
}

#[tokio::test]
async fn a_full_redis_refuses_creations_and_allows_deletions() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "full", |_| {}).await;
    assert_eq!(api.post("/service", BODY).await.status, 201);
    redis.must(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let before = content(&redis).await;
    let other = r#"{"name":"other","image":"a"}"#;
    let refused = api.post("/service", other).await;
    refused.assert_problem(503, "store-full");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(content(&redis).await, before);
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(api.get("/v1/services/web").await.status, 200);
    assert_eq!(api.delete("/v1/services/web").await.status, 202);
    redis.must(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(api.post("/service", other).await.status, 201);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "slow", |_| {}).await;
    let mut slow = TcpStream::connect(&api.address).await.unwrap();
    let head = "POST /service HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"name\":";
    slow.write_all(head.as_bytes()).await.unwrap();
    let started = Instant::now();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(content(&redis).await.is_empty());
}

#[tokio::test]
async fn the_end_waits_for_requests_in_flight_but_not_forever() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "end", |_| {}).await;
    // An idle connection and one that never ends its header do not hold it up for long.
    let mut idle = TcpStream::connect(&api.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut open = TcpStream::connect(&api.address).await.unwrap();
    open.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();

    // A request whose body comes only after the shutdown is served.
    let mut late = TcpStream::connect(&api.address).await.unwrap();
    let head = format!(
        "POST /service HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        BODY.len()
    );
    late.write_all(head.as_bytes()).await.unwrap();
    late.write_all(&BODY.as_bytes()[..5]).await.unwrap();
    // One answered on a fresh connection shows that the earlier ones were accepted.
    // It opens the cluster too, which is no more done after the end has begun.
    assert_eq!(api.get("/readyz").await.status, 200);
    let started = Instant::now();
    let address = api.address.clone();
    let ended = tokio::spawn(api.end());
    eventually(
        Duration::from_secs(5),
        "new connections are refused",
        async || match TcpStream::connect(&address).await {
            Ok(_) => Err("still accepted".to_owned()),
            Err(_) => Ok(()),
        },
    )
    .await;
    late.write_all(&BODY.as_bytes()[5..]).await.unwrap();
    let mut answer = [0; 12];
    late.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    ended.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(8));
}
