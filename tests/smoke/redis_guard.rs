//! `leet redis status`, and what daemons say and do about a Redis that is not safe.

use serde_json::Value;

use crate::harness::{AGENT, API, LEET, Process, SCHEDULER};
use crate::support::{RedisOptions, RedisServer, SentinelSet, free_port};

const DAEMONS: [&str; 3] = [API, SCHEDULER, AGENT];

#[tokio::test]
async fn status_tells_people_and_scripts_and_its_exit_code_says_whether_all_is_safe() {
    let server = RedisOptions::default()
        .appendonly()
        .line("maxmemory 100mb")
        .start()
        .await;
    let url = server.url();
    let status = ["redis", "status", "--url", &url];
    // Without an API, and whatever the variables say.
    let variables = [("KUBELEET_REDIS__SENTINELS", "127.0.0.1:1")];
    let safe = Process::run(LEET, &status, &variables).await;
    assert_eq!(safe.code, Some(0), "{safe:?}");
    assert!(safe.out.contains("nothing unsafe was found"), "{safe:?}");
    assert!(safe.out.contains("SERVER") && safe.out.contains("everysec"));

    let policy = ["CONFIG", "SET", "maxmemory-policy", "allkeys-lfu"];
    server.must(&policy).await;
    let refused = Process::run(LEET, &status, &[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("not safe: 1 of 1"), "{refused:?}");
    for words in ["refused: eviction at 127.0.0.1", "remedy: CONFIG SET"] {
        assert!(refused.out.contains(words), "{refused:?}");
    }
    let json = [&status[..], &["-o", "json"]].concat();
    let told = Process::run(LEET, &json, &[]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!(told["is_safe"], false);
    assert_eq!(told["servers"][0]["facts"]["role"], "master");
    assert_eq!(told["findings"][0]["severity"], "refused");
    assert_eq!(told["findings"][0]["code"], "eviction");

    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let away = Process::run(LEET, &["redis", "status", "--url", &nobody], &[]).await;
    assert_eq!(away.code, Some(1), "{away:?}");
    assert!(away.out.contains("unsafe: unreachable"), "{away:?}");
    let wrong = Process::run(LEET, &["redis", "status", "--url", "ftp://x"], &[]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[tokio::test]
async fn status_describes_a_set_of_three() {
    let set = SentinelSet::start().await;
    let addresses = set.addresses();
    let mut line = vec!["redis", "status"];
    for address in &addresses {
        line.extend(["--sentinel", address]);
    }
    let status = Process::run(LEET, &line, &[]).await;
    assert_eq!(status.code, Some(0), "{status:?}");
    for words in [
        "as 3 of 3 Sentinels say",
        "replica",
        "warning: no-maxmemory",
    ] {
        assert!(status.out.contains(words), "{words}: {status:?}");
    }
    // No replica is left to follow: refused, and in words.
    let mut line = vec!["redis", "switchover", "--to", "127.0.0.1:1"];
    for address in &addresses {
        line.extend(["--sentinel", address]);
    }
    let refused = Process::run(LEET, &line, &[]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("127.0.0.1:1 is no replica"),
        "{refused:?}"
    );
    let url = set.servers[0].url();
    let alone = Process::run(LEET, &["redis", "switchover", "--url", &url], &[]).await;
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(alone.err.contains("needs Sentinels"), "{alone:?}");
}

#[tokio::test]
async fn daemons_refuse_a_redis_that_drops_keys_unless_told_to_accept_it() {
    let server = RedisOptions::default()
        .line("maxmemory 100mb")
        .line("maxmemory-policy allkeys-lru")
        .start()
        .await;
    let url = server.url();
    let listen = format!("127.0.0.1:{}", free_port());
    let variables = [
        ("KUBELEET_REDIS__URL", url.as_str()),
        ("KUBELEET_API__LISTEN", &listen),
        ("KUBELEET_NODE__NAME", "worker1"),
        ("KUBELEET_NODE__RUNTIME", "simulated"),
        ("KUBELEET_LOG__FORMAT", "human"),
    ];
    for program in DAEMONS {
        let refused = Process::run(program, &[], &variables).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for words in ["allkeys-lru", "redis.accept_unsafe", "appendonly yes"] {
            assert!(refused.err.contains(words), "{words}: {refused:?}");
        }
    }
    // Nothing was begun there.
    assert_eq!(server.must(&["DBSIZE"]).await, redis::Value::Int(0));
    let accepted = [&variables[..], &[("KUBELEET_REDIS__ACCEPT_UNSAFE", "true")]].concat();
    let mut agent = Process::start(AGENT, &[], &accepted);
    agent.logged("agent is ready").await;
    assert!(agent.err().contains("drops pods and services"), "{agent}");
    agent.end_by("TERM").await;
}

#[tokio::test]
async fn a_redis_that_comes_later_is_looked_at_then() {
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let mut scheduler = Process::start(SCHEDULER, &[], &[("KUBELEET_REDIS__URL", &url)]);
    let _server: RedisServer = RedisOptions::default()
        .port(port)
        .line("maxmemory 100mb")
        .line("maxmemory-policy allkeys-lru")
        .start()
        .await;
    let status = scheduler.ended(crate::harness::SOON).await;
    assert_eq!(status.code(), Some(1), "{scheduler}");
    assert!(scheduler.err().contains("is refused"), "{scheduler}");
}
