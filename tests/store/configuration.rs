//! The files under `redis/` load, and say what they are meant to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};

use crate::connection::{connect, send, settings};
use crate::support::{RedisOptions, RedisServer};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("redis")
        .join(name)
}

#[tokio::test]
async fn redis_conf_loads() {
    let server = RedisOptions::default()
        .include(&file("redis.conf"))
        .start()
        .await;
    for (key, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
        ("tcp-keepalive", "15"),
        ("repl-backlog-size", "67108864"),
        ("busy-reply-threshold", "1000"),
        ("hash-max-listpack-value", "256"),
    ] {
        let set = server.must(&["CONFIG", "GET", key]).await;
        let (_, set): (String, String) = redis::from_redis_value(set).unwrap();
        assert_eq!(set, value, "{key}");
    }
}

#[tokio::test]
async fn sentinel_conf_loads() {
    let master = RedisServer::start().await;
    // Only the master's address is the site's own.
    let text = std::fs::read_to_string(file("sentinel.conf")).unwrap();
    let here = format!("sentinel monitor kubeleet 127.0.0.1 {} 2", master.port());
    let text = text.replace("sentinel monitor kubeleet redis-1 6379 2", &here);
    assert!(text.contains(&here));
    let sentinel = RedisOptions::default().sentinel().line(text).start().await;
    let known = sentinel.must(&["SENTINEL", "MASTER", "kubeleet"]).await;
    let known: std::collections::HashMap<String, String> = redis::from_redis_value(known).unwrap();
    for (key, value) in [
        ("quorum", "2"),
        ("down-after-milliseconds", "3000"),
        ("failover-timeout", "15000"),
        ("parallel-syncs", "1"),
    ] {
        assert_eq!(known[key], value, "{key}");
    }
}

async fn guarded() -> RedisServer {
    let users = format!("aclfile {}", file("users.acl").display());
    RedisOptions::default()
        .include(&file("redis.conf"))
        .line(users)
        .start()
        .await
}

/// A connection of one of the users, past the code under test.
async fn user(server: &RedisServer, name: &str) -> MultiplexedConnection {
    let url = format!(
        "redis://{name}:change-me-{name}@127.0.0.1:{}",
        server.port()
    );
    let client = redis::Client::open(url).expect("an address");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("a connection")
}

pub(crate) async fn must(connection: &mut MultiplexedConnection, words: &[&str]) -> Value {
    let answer: RedisResult<Value> = send(connection, words).await;
    answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub(crate) async fn refused(connection: &mut MultiplexedConnection, words: &[&str]) {
    let answer: RedisResult<Value> = send(connection, words).await;
    let error = answer.expect_err(&words.join(" "));
    let text = error.to_string();
    assert!(
        error.code() == Some("NOPERM")
            || text.contains("ACL")
            || text.contains("The user executing the script can't"),
        "{words:?}: {text}"
    );
}

/// Calls a function and answers its reply's first word.
async fn call(
    connection: &mut MultiplexedConnection,
    function: &str,
    arguments: &[&str],
) -> String {
    let words = [&["FCALL", function, "1", "cluster"], arguments].concat();
    match must(connection, &words).await {
        Value::Array(reply) => redis::from_redis_value_ref(&reply[0]).expect("a word"),
        other => panic!("{function}: {other:?}"),
    }
}

#[tokio::test]
async fn every_user_may_do_its_work_and_no_more() {
    let server = guarded().await;
    let nobody = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    let mut nobody = nobody.get_multiplexed_async_connection().await.unwrap();
    assert!(send::<Value>(&mut nobody, &["GET", "a"]).await.is_err());

    let library = std::fs::read_to_string(file("kubeleet.lua")).unwrap();
    let load = ["FUNCTION", "LOAD", "REPLACE", &library];
    let mut agent = user(&server, "agent").await;
    refused(&mut agent, &load).await;
    let mut api = user(&server, "api").await;
    must(&mut api, &load).await;

    assert_eq!(call(&mut api, "kl_cluster_open", &["id"]).await, "opened");
    let service = [
        "default/web",
        "{}",
        "1",
        "sub",
        "0",
        "0",
        "normal",
        "10",
        "default:k",
        "hash",
        "60000",
        "",
        "",
        "",
        "create",
        "",
    ];
    assert_eq!(
        call(&mut api, "kl_service_submit", &service).await,
        "created"
    );
    let node = [
        "worker1", "engine", "20000", "pods_max", "10", "engine", "up",
    ];
    assert_eq!(
        call(&mut agent, "kl_node_register", &node).await,
        "registered"
    );
    assert_eq!(
        call(&mut agent, "kl_node_heartbeat", &["worker1", "1"]).await,
        "beat"
    );

    let mut scheduler = user(&server, "scheduler").await;
    let claim = ["batch", "10000", "10"];
    assert_eq!(
        call(&mut scheduler, "kl_pod_claim", &claim).await,
        "claimed"
    );
    let pods = must(&mut api, &["ZRANGE", "service:default/web:pods", "0", "-1"]).await;
    let pods: Vec<String> = redis::from_redis_value(pods).unwrap();
    let settle = [
        "batch", "nonce", "20000", "1", "worker1", "0", "0", "1", "0", &pods[0], "1",
    ];
    assert_eq!(
        call(&mut scheduler, "kl_pod_assign", &settle).await,
        "assigned"
    );

    let nodes = ["default/web", "", "0", "10"];
    let counted = call(&mut scheduler, "kl_service_nodes", &nodes).await;
    assert_eq!(counted, "nodes");
    let with = ["ZINTER", "1", "services:with:default/app=shop"];
    must(&mut scheduler, &with).await;

    let keep = ["nonce", "{}", "10", "1000", "60", &pods[0]];
    let kept = call(&mut scheduler, "kl_decision_keep", &keep).await;
    assert_eq!(kept, "kept");
    must(&mut api, &["ZRANGE", "decisions", "0", "-1", "REV"]).await;
    must(&mut api, &["GET", "decision:nonce"]).await;

    let moved = must(
        &mut agent,
        &["BLMOVE", "pq:worker1", "rq:worker1", "RIGHT", "LEFT", "1"],
    )
    .await;
    assert_eq!(redis::from_redis_value::<String>(moved).unwrap(), pods[0]);
    let take = ["worker1", "1", &pods[0]];
    assert_eq!(call(&mut agent, "kl_pod_take", &take).await, "taken");
    let compared = call(&mut agent, "kl_node_compare", &["worker1"]).await;
    assert_eq!(compared, "compared");
    let nothing: [&str; 0] = [];
    let mended = call(&mut scheduler, "kl_cluster_mend", &nothing).await;
    assert_eq!(mended, "mended");
    let compare = ["", "0", "100", "1000", "5", "0", "0", "0"];
    let compared = call(&mut scheduler, "kl_service_compare", &compare).await;
    assert_eq!(compared, "compared");
    let report = [
        "worker1",
        "1",
        &pods[0],
        "1",
        "nonce",
        "running",
        "",
        "",
        "container",
        &pods[0],
        "1",
        "0",
        "",
        "",
    ];
    assert_eq!(call(&mut agent, "kl_pod_report", &report).await, "reported");
    assert_eq!(
        call(&mut api, "kl_service_delete", &["default/web", "10", ""]).await,
        "deleting"
    );
    let report = [
        "worker1", "1", &pods[0], "1", "nonce", "stopped", "", "", "", &pods[0], "", "", "", "",
    ];
    assert_eq!(call(&mut agent, "kl_pod_report", &report).await, "reported");
    let left: u64 = send(&mut api, &["EXISTS", "service:default/web"])
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(
        call(&mut scheduler, "kl_node_sweep", &["20000", "10", "20000"]).await,
        "grace"
    );

    // Pressure: who gives back, and who moves.
    let users = ["worker1", "1", "pressed", "io", "users", "x:1:1:1"];
    assert_eq!(call(&mut agent, "kl_node_heartbeat", &users).await, "beat");
    let give_back = ["worker1", "1", "io", "none"];
    let back = call(&mut agent, "kl_pod_return", &give_back).await;
    assert_eq!(back, "returned");
    must(&mut scheduler, &["ZRANGE", "nodes:strained", "0", "9"]).await;
    must(&mut scheduler, &["HGETALL", "node:worker1"]).await;
    let strain = ["worker1", "1", "1", "1000"];
    let strained = call(&mut scheduler, "kl_node_strain", &strain).await;
    assert_eq!(strained, "strained");
    let culprits = ["worker1", "1000", "none"];
    let found = call(&mut scheduler, "kl_node_culprits", &culprits).await;
    assert_eq!(found, "culprits");
    let leaves = ["on", "none", "worker1", "1", "", "1", "1000"];
    assert_eq!(call(&mut scheduler, "kl_pod_move", &leaves).await, "gone");
    must(
        &mut scheduler,
        &["ZREVRANGEBYSCORE", "moves", "+inf", "0", "LIMIT", "0", "1"],
    )
    .await;
    let expired = call(&mut scheduler, "kl_move_expire", &["1000", "10"]).await;
    assert_eq!(expired, "expired");
    let calm = ["worker1", "1", "pressed", "", "users", ""];
    assert_eq!(call(&mut agent, "kl_node_heartbeat", &calm).await, "beat");

    // A pod pushed by hand is moved off a draining node, which is then removed.
    let raw = "{\"uuid\":\"u\"}";
    must(&mut api, &["LPUSH", "rq:worker1", raw]).await;
    let adopt = [
        "inbox", "worker1", raw, "u", "0", "{}", "0", "0", "normal", "nonce", "", "80/tcp", "a=b",
    ];
    assert_eq!(call(&mut agent, "kl_pod_adopt", &adopt).await, "adopted");
    let label = ["worker1", "64", "1", "disk", "ssd"];
    assert_eq!(call(&mut api, "kl_node_label", &label).await, "labelled");
    let drain = ["worker1", "drain"];
    assert_eq!(call(&mut api, "kl_node_mark", &drain).await, "marked");
    let none: [&str; 0] = [];
    let draining = call(&mut scheduler, "kl_node_draining", &none).await;
    assert_eq!(draining, "nodes");
    let evict = ["worker1", "0", "10", "1"];
    assert_eq!(
        call(&mut scheduler, "kl_node_evict", &evict).await,
        "moving"
    );
    let report = [
        "worker1", "1", "u", "1", "nonce", "stopped", "", "", "", "u", "", "", "", "",
    ];
    assert_eq!(call(&mut agent, "kl_pod_report", &report).await, "reported");
    assert_eq!(
        call(&mut scheduler, "kl_pod_claim", &["next", "10000", "10"]).await,
        "claimed"
    );
    both_sides_of_a_session_may_talk(&mut api, &mut agent).await;
    let remove = ["worker1", "20000", "1", "10"];
    assert_eq!(call(&mut api, "kl_node_remove", &remove).await, "removed");
    // Who reads events does so past the library.
    for words in [
        &["XRANGE", "events", "-", "+"][..],
        &["XREVRANGE", "events", "+", "-"],
        &["XINFO", "STREAM", "events"],
        &["XREAD", "BLOCK", "1", "STREAMS", "events", "0-0"],
    ] {
        must(&mut api, words).await;
    }

    refused(&mut api, &["SET", "foreign", "x"]).await;
    refused(&mut api, &["FLUSHALL"]).await;
    refused(&mut scheduler, &["CONFIG", "GET", "*"]).await;
    refused(&mut agent, &["KEYS", "*"]).await;
    refused(&mut agent, &["HGETALL", "idempotency:default:k"]).await;
    let mut readonly = user(&server, "readonly").await;
    must(&mut readonly, &["HGETALL", "pod:u"]).await;
    must(&mut readonly, &["INFO"]).await;
    refused(&mut readonly, &["DEL", "node:worker1"]).await;
    let mut sentinel = user(&server, "sentinel").await;
    must(&mut sentinel, &["ROLE"]).await;
    refused(&mut sentinel, &["GET", "sq"]).await;

    // What every new connection is asked is granted too.
    for name in ["api", "scheduler", "agent"] {
        let url = format!(
            "redis://{name}:change-me-{name}@127.0.0.1:{}",
            server.port()
        );
        connect(&settings(url)).get().await.unwrap();
    }
}

async fn both_sides_of_a_session_may_talk(
    api: &mut MultiplexedConnection,
    agent: &mut MultiplexedConnection,
) {
    let open = ["s", "worker1", "{}", "20000", "15000"];
    assert_eq!(call(api, "kl_session_open", &open).await, "opened");
    let asked = ["XREAD", "BLOCK", "1", "STREAMS", "nq:worker1", "0-0"];
    assert_ne!(must(agent, &asked).await, Value::Nil);
    let take = ["s", "worker1", "10000", "15000"];
    assert_eq!(call(agent, "kl_session_take", &take).await, "taken");
    for (side, name, to) in [(&mut *api, "api", "in"), (&mut *agent, "agent", "out")] {
        let write = ["s", to, "16", "15000", "0", "kind", "data"];
        assert_eq!(call(side, "kl_session_write", &write).await, "written");
        let keep = [name, "15000", "s"];
        assert_eq!(call(side, "kl_session_keep", &keep).await, "kept");
    }
    for (side, from) in [(&mut *api, "out"), (&mut *agent, "in")] {
        let stream = format!("session:s:{from}");
        assert_ne!(
            must(side, &["XREAD", "STREAMS", &stream, "0-0"]).await,
            Value::Nil
        );
        let read = [from, "15000", "s", "9999999999999-0"];
        assert_eq!(call(side, "kl_session_read", &read).await, "read");
    }
    assert_eq!(call(api, "kl_session_end", &["s"]).await, "ended");
    let keep = ["p-0", "worker1", "lines", "0", "60"];
    assert_eq!(call(agent, "kl_logs_keep", &keep).await, "kept");
    must(api, &["HMGET", "logs:p-0", "node", "lines"]).await;
}

/// A function runs with its caller's rights, so what it calls must be granted.
#[test]
fn every_command_of_the_library_is_granted_to_the_scheduler() {
    let library = std::fs::read_to_string(file("kubeleet.lua")).unwrap();
    let called: BTreeSet<String> = ["redis.call('", "redis.pcall('", "write_over(p, '"]
        .iter()
        .flat_map(|call| library.split(call).skip(1))
        .filter_map(|rest| rest.split_once('\''))
        .map(|(command, _)| format!("+{}", command.to_lowercase()))
        .collect();
    let users = std::fs::read_to_string(file("users.acl")).unwrap();
    let scheduler = users
        .lines()
        .find(|line| line.starts_with("user scheduler"))
        .unwrap();
    let granted: BTreeSet<String> = scheduler.split(' ').map(str::to_owned).collect();
    let missing: Vec<_> = called.difference(&granted).collect();
    assert!(missing.is_empty(), "not granted: {missing:?}");
}
