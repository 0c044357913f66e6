//! The users that `leet redis acl` makes, on a real server: what an agent's may do, and what not.

use std::io::Write as _;

use kubeleet::store::survey::Facts;
use kubeleet::store::users::{Users, Wanted};
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::configuration::{must, refused};
use crate::connection::{connect, ping, send, settings};
use crate::support::{RedisOptions, RedisServer};

/// A server with users for the agents of n1 and n2, and the passwords.
struct Guarded {
    server: RedisServer,
    users: Users,
    _file: tempfile::NamedTempFile,
}

impl Guarded {
    async fn start(prefix: &str) -> Guarded {
        let wanted = Wanted {
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            prefix: prefix.to_owned(),
            rotate: false,
        };
        let users = Users::make(&wanted, "", |bytes| rand::fill(bytes)).expect("names");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(users.file().as_bytes())
            .expect("it is written");
        let server = RedisOptions::default()
            .line(format!("aclfile {}", file.path().display()))
            .start()
            .await;
        Guarded {
            server,
            users,
            _file: file,
        }
    }

    fn url(&self, user: &str) -> String {
        let password = &self.users.passwords[user];
        format!("redis://{user}:{password}@127.0.0.1:{}", self.server.port())
    }

    async fn user(&self, user: &str) -> MultiplexedConnection {
        let client = redis::Client::open(self.url(user)).expect("an address");
        let connection = client.get_multiplexed_async_connection().await;
        connection.expect("a connection")
    }
}

/// Calls a function of the cluster `prod:` and answers the first word.
async fn call(connection: &mut MultiplexedConnection, words: &[&str]) -> String {
    let line = [&["FCALL", words[0], "1", "prod:cluster"], &words[1..]].concat();
    match must(connection, &line).await {
        Value::Array(reply) => redis::from_redis_value_ref(&reply[0]).expect("a word"),
        other => panic!("{words:?}: {other:?}"),
    }
}

/// A cluster with both nodes, a session of each, and a pod that waits.
async fn fill(guarded: &Guarded) {
    let mut api = guarded.user("api").await;
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/redis/kubeleet.lua");
    let library = std::fs::read_to_string(library).expect("the library");
    must(&mut api, &["FUNCTION", "LOAD", "REPLACE", &library]).await;
    call(&mut api, &["kl_cluster_open", "id"]).await;
    for node in ["n1", "n2"] {
        let mut agent = guarded.user(&format!("agent-{node}")).await;
        let register = [
            "kl_node_register",
            node,
            "engine",
            "20000",
            "pods_max",
            "10",
            "engine",
            "up",
        ];
        assert_eq!(call(&mut agent, &register).await, "registered");
        let beat = ["kl_node_heartbeat", node, "1"];
        assert_eq!(call(&mut agent, &beat).await, "beat");
        let session = format!("{node}:s");
        let open = ["kl_session_open", &session, node, "{}", "20000", "15000"];
        assert_eq!(call(&mut api, &open).await, "opened");
    }
    let write = [
        "kl_session_write",
        "n2:s",
        "in",
        "16",
        "15000",
        "0",
        "kind",
        "secret",
    ];
    assert_eq!(call(&mut api, &write).await, "written");
}

#[tokio::test]
async fn whoever_holds_an_agents_password_cannot_touch_another_node() {
    let guarded = Guarded::start("prod:").await;
    fill(&guarded).await;
    let mut agent = guarded.user("agent-n1").await;

    // Its own it may.
    let asked = ["XREAD", "BLOCK", "1", "STREAMS", "prod:nq:n1", "0-0"];
    assert_ne!(must(&mut agent, &asked).await, Value::Nil);
    let take = ["kl_session_take", "n1:s", "n1", "10000", "15000"];
    assert_eq!(call(&mut agent, &take).await, "taken");
    let inbox = [
        "BLMOVE",
        "prod:pq:n1",
        "prod:rq:n1",
        "RIGHT",
        "LEFT",
        "0.01",
    ];
    must(&mut agent, &inbox).await;

    let attacks: Vec<Vec<&str>> = vec![
        // Another node's inbox, record, set, requests and sessions.
        vec!["LPUSH", "prod:pq:n2", "{\"image\":\"evil\"}"],
        vec!["LRANGE", "prod:pq:n2", "0", "-1"],
        vec!["BLMOVE", "prod:pq:n2", "prod:rq:n1", "RIGHT", "LEFT", "1"],
        vec!["LMOVE", "prod:pq:n1", "prod:pq:n2", "LEFT", "LEFT"],
        vec!["LPUSH", "prod:rq:n2", "x"],
        vec!["HSET", "prod:node:n2", "cordoned", "1"],
        vec!["HGETALL", "prod:node:n2"],
        vec!["DEL", "prod:node:n2"],
        vec!["SADD", "prod:cs:n2", "p-0"],
        vec!["SMEMBERS", "prod:cs:n2"],
        vec!["XREAD", "STREAMS", "prod:nq:n2", "0-0"],
        vec!["XADD", "prod:nq:n2", "*", "session", "x", "request", "{}"],
        vec!["HGETALL", "prod:session:n2:s"],
        vec!["XREAD", "STREAMS", "prod:session:n2:s:in", "0-0"],
        vec![
            "XADD",
            "prod:session:n2:s:out",
            "*",
            "kind",
            "x",
            "data",
            "x",
        ],
        vec!["ZADD", "prod:sessions:n2", "0", "x"],
        // What others hold, and what nobody but the server's owner may.
        vec!["LRANGE", "prod:sq", "0", "-1"],
        vec!["LTRIM", "prod:sq:claims", "0", "0"],
        vec!["HGETALL", "prod:logs:p-0"],
        vec!["XRANGE", "prod:events", "-", "+"],
        vec!["HGETALL", "prod:idempotency:default:k"],
        vec!["GET", "prod:decision:x"],
        vec!["HGETALL", "other:pod:p-0"],
        vec!["SET", "prod:pod:p-0", "x"],
        vec!["FUNCTION", "LOAD", "REPLACE", "#!lua name=kubeleet\n"],
        vec!["FUNCTION", "DELETE", "kubeleet"],
        vec!["FUNCTION", "FLUSH"],
        vec!["EVAL", "return 1", "0"],
        vec!["SCRIPT", "FLUSH"],
        vec!["FLUSHALL"],
        vec!["FLUSHDB"],
        vec!["CONFIG", "GET", "*"],
        vec!["CONFIG", "SET", "maxmemory", "1"],
        vec!["KEYS", "*"],
        vec!["SCAN", "0"],
        vec!["RENAME", "prod:pq:n2", "prod:pq:n1"],
        vec!["RENAME", "prod:pod:p-0", "prod:pq:n2"],
        vec!["ACL", "LIST"],
        vec!["ACL", "SETUSER", "agent-n1", "+@all"],
        vec!["CLIENT", "PAUSE", "10000"],
        vec!["CLIENT", "KILL", "TYPE", "normal"],
        vec!["REPLICAOF", "127.0.0.1", "1"],
        vec!["DEBUG", "SLEEP", "1"],
        vec!["MONITOR"],
        vec!["SHUTDOWN", "NOSAVE"],
        vec!["PUBLISH", "__sentinel__:hello", "x"],
    ];
    for attack in &attacks {
        refused(&mut agent, attack).await;
    }

    // The same by functions, which run with their caller's rights. Some read past what they may not, and
    // then know nothing of the node.
    let mut api = guarded.user("api").await;
    let mut record = async || must(&mut api, &["HGETALL", "prod:node:n2"]).await;
    let before = record().await;
    let attacks: &[&[&str]] = &[
        &["kl_node_heartbeat", "n2", "1"],
        &[
            "kl_node_register",
            "n2",
            "engine",
            "20000",
            "pods_max",
            "1",
            "engine",
            "up",
        ],
        &["kl_node_leave", "n2", "1"],
        &["kl_node_mark", "n2", "drain"],
        &["kl_node_label", "n2", "64", "1", "disk", "ssd"],
        &["kl_node_remove", "n2", "0", "1", "10"],
        &["kl_node_compare", "n2"],
        &["kl_pod_take", "n2", "1", "p-0"],
        &["kl_inbox_mend", "n2"],
        &["kl_session_take", "n2:s", "n2", "10000", "15000"],
        &[
            "kl_session_write",
            "n2:s",
            "out",
            "16",
            "15000",
            "0",
            "kind",
            "data",
        ],
        &["kl_session_end", "n2:s"],
    ];
    for attack in attacks {
        let line = [&["FCALL", attack[0], "1", "prod:cluster"], &attack[1..]].concat();
        match send::<Value>(&mut agent, &line).await {
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains("The user executing the script can't"),
                    "{attack:?}: {text}"
                );
            }
            Ok(Value::Array(reply)) => {
                let word: String = redis::from_redis_value_ref(&reply[0]).expect("a word");
                let nothing = ["absent", "unknown", "gone", "over", "mended"];
                assert!(nothing.contains(&word.as_str()), "{attack:?}: {reply:?}");
            }
            Ok(other) => panic!("{attack:?}: {other:?}"),
        }
    }
    // Nothing came of it.
    assert_eq!(record().await, before);
    let mut readonly = guarded.user("operator").await;
    let facts = settings(guarded.url("operator"));
    let facts = Facts::read(&facts, "prod:", std::time::Duration::from_secs(20)).await;
    let cluster = facts.unwrap().cluster.expect("it answers");
    assert_eq!((cluster.agents, cluster.agents_silent), (2, 0));
    let inbox: u64 = send(&mut readonly, &["EXISTS", "prod:pq:n2"])
        .await
        .unwrap_or(0);
    assert_eq!(inbox, 0);
}

/// In a recovery an agent tells of pods that Redis has elsewhere; the other node finds out by comparing.
#[tokio::test]
async fn an_agent_tells_of_pods_that_redis_has_on_a_node_it_may_not_reach() {
    let guarded = Guarded::start("prod:").await;
    fill(&guarded).await;
    let mut api = guarded.user("api").await;
    let elsewhere = [
        "owner",
        "",
        "phase",
        "scheduled",
        "desired",
        "run",
        "node",
        "n2",
        "attempt",
        "1",
    ];
    for pod in ["prod:pod:newer", "prod:pod:ended"] {
        must(
            &mut api,
            &[&["HSET", pod, "nonce", "old"], &elsewhere[..]].concat(),
        )
        .await;
    }
    let mut agent = guarded.user("agent-n1").await;
    let told = |pod: &'static str, phase: &'static str| {
        let head = ["FCALL", "kl_pod_restore", "1", "prod:cluster", "n1", "1"];
        let pod = [pod, "2", "nonce", phase, "0", "", "1", "{}", "0", "0"];
        let rest = ["normal", "", "", "container", "", "", "", ""];
        [&head[..], &pod, &rest].concat()
    };
    for (pod, phase) in [("newer", "running"), ("ended", "stopped")] {
        let reply = must(&mut agent, &told(pod, phase)).await;
        let words: Vec<String> = redis::from_redis_value(reply).expect("words");
        assert_eq!(words, ["restored", "ok"], "{pod}");
    }
    let mut field = async |pod: &str, name: &str| -> String {
        let value = must(&mut api, &["HGET", pod, name]).await;
        redis::from_redis_value(value).expect("text")
    };
    assert_eq!(field("prod:pod:newer", "node").await, "n1");
    assert_eq!(field("prod:pod:ended", "desired").await, "stop");
}

/// What `docs/redis.md` says of an agent's password; whoever narrows this says so there.
#[tokio::test]
async fn what_an_agents_password_is_good_for_still_is_known() {
    let guarded = Guarded::start("prod:").await;
    fill(&guarded).await;
    let mut agent = guarded.user("agent-n1").await;
    for words in [
        &["LPUSH", "prod:sq", "{\"image\":\"any\"}"][..],
        &["HSET", "prod:pod:p-0", "phase", "failed"],
        &["HGETALL", "prod:pod:p-0"],
        &["HSET", "prod:service:default/web", "replicas", "0"],
        &["HGETALL", "prod:service:default/web"],
        &["ZREM", "prod:nodes", "n2"],
        &["XADD", "prod:events", "*", "kind", "forged"],
        &["HSET", "prod:logs:p-0", "lines", "forged"],
        &["HSET", "prod:cluster", "lost_ms", "1"],
    ] {
        must(&mut agent, words).await;
    }
}

#[tokio::test]
async fn every_station_connects_as_its_user_and_the_operator_sees_all() {
    let guarded = Guarded::start("").await;
    for name in ["api", "scheduler", "agent-n1", "operator"] {
        let redis = connect(&settings(guarded.url(name)));
        assert_eq!(ping(&mut redis.get().await.unwrap()).await.unwrap(), "PONG");
    }
    let facts = Facts::read(
        &settings(guarded.url("operator")),
        "",
        std::time::Duration::ZERO,
    )
    .await;
    let facts = facts.unwrap();
    let told = facts.master().expect("it answers");
    assert_eq!(told.appendfsync.as_deref(), Some("everysec"));
    assert_eq!(facts.servers[0].is_open, Some(false));
    let mut operator = guarded.user("operator").await;
    for words in [
        &["CLIENT", "PAUSE", "1", "WRITE"][..],
        &["CLIENT", "UNPAUSE"],
    ] {
        must(&mut operator, words).await;
    }
    refused(&mut operator, &["LPUSH", "sq", "x"]).await;
    refused(&mut operator, &["FLUSHALL"]).await;
}
