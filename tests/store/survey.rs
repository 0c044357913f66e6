//! What is read of real servers and Sentinels, and what is found in it.

use std::time::Duration;

use kubeleet::settings::{RedisSettings, Secret};
use kubeleet::store::Store;
use kubeleet::store::survey::{Facts, Severity};

use crate::connection::{connect, settings};
use crate::support::{RedisOptions, RedisServer, SentinelSet, eventually, free_port};

const LEASE: Duration = Duration::from_secs(20);

async fn read(settings: &RedisSettings) -> Facts {
    let read = Facts::read(settings, "", LEASE).await;
    read.expect("the settings lead somewhere")
}

/// Codes of what was found, once each.
fn codes(facts: &Facts) -> Vec<&'static str> {
    let mut codes: Vec<_> = facts.findings().iter().map(|one| one.code).collect();
    codes.dedup();
    codes
}

#[tokio::test]
async fn a_single_server_tells_what_it_lacks() {
    let server = RedisServer::start().await;
    let settings = settings(server.url());
    let facts = read(&settings).await;
    assert_eq!(codes(&facts), ["no-aof", "no-maxmemory"]);
    let told = facts.master().expect("it answers");
    assert_eq!((told.role.as_str(), told.min_replicas), ("master", Some(0)));
    assert_eq!(facts.servers[0].is_open, Some(true));
    let cluster = facts.cluster.as_ref().expect("it answers");
    assert_eq!((&cluster.id, cluster.functions), (&None, None));

    for (key, value) in [
        ("appendonly", "yes"),
        ("maxmemory", "100mb"),
        ("maxmemory-policy", "allkeys-lru"),
        ("appendfsync", "no"),
        ("min-replicas-to-write", "1"),
    ] {
        server.must(&["CONFIG", "SET", key, value]).await;
    }
    let facts = read(&settings).await;
    let expected = ["eviction", "no-fsync", "min-replicas-alone"];
    assert_eq!(codes(&facts), expected);
    assert_eq!(facts.findings()[0].severity, Severity::Refused);
}

#[tokio::test]
async fn reading_changes_nothing_and_a_cluster_is_described() {
    let server = RedisServer::start().await;
    let settings = settings(server.url());
    read(&settings).await;
    assert_eq!(server.must(&["DBSIZE"]).await, redis::Value::Int(0));
    let functions = server.must(&["FUNCTION", "LIST"]).await;
    assert_eq!(functions, redis::Value::Array(Vec::new()));

    let id = Store::new(connect(&settings), "").open().await.unwrap();
    let cluster = read(&settings).await.cluster.expect("it answers");
    assert_eq!(cluster.id, Some(id));
    assert_eq!(cluster.functions, Some(cluster.functions_here));
    assert_eq!((cluster.schema, cluster.agents), (Some(1), 0));
}

#[tokio::test]
async fn a_set_of_three_is_read_whole_also_when_parts_of_it_are_away() {
    let mut set = SentinelSet::start_with(Duration::from_secs(60)).await;
    let settings = RedisSettings {
        sentinels: set.addresses().into_iter().map(Secret).collect(),
        ..settings("redis://unused")
    };
    let facts = read(&settings).await;
    assert_eq!(facts.master, Some(set.master_addr().await));
    assert_eq!(facts.servers.len(), 3);
    let told = |number: usize| facts.servers[number].facts.as_ref().expect("it answers");
    assert_eq!(
        (told(0).role.as_str(), told(1).role.as_str()),
        ("master", "slave")
    );
    assert_eq!((told(1).link_up, told(1).aof), (Some(true), true));
    assert_eq!(told(0).replicas.len(), 2);
    let sentinel = facts.sentinels[0].facts.as_ref().expect("it answers");
    assert_eq!((sentinel.quorum, sentinel.down_after_ms), (2, 60_000));
    let warnings = ["no-maxmemory", "busy-reply-threshold"];
    let found = codes(&facts);
    assert!(
        warnings.iter().all(|code| found.contains(code)),
        "{found:?}"
    );
    assert!(found.contains(&"down-after") && found.contains(&"sentinels-together"));
    assert!(
        facts.findings().iter().all(|one| !one.is_unsafe()),
        "{found:?}"
    );

    // A replica and a Sentinel away are warnings, the master is worse, and so is no majority.
    set.sentinels[0].kill9();
    set.servers[1].kill9();
    let facts = read(&settings).await;
    let found = codes(&facts);
    assert!(found.contains(&"unreachable") && found.contains(&"sentinel-unreachable"));
    assert!(
        facts.findings().iter().all(|one| !one.is_unsafe()),
        "{found:?}"
    );
    set.servers[0].kill9();
    assert!(codes(&read(&settings).await).contains(&"unreachable"));
    set.sentinels[1].kill9();
    let facts = read(&settings).await;
    assert_eq!(facts.master, None);
    assert!(codes(&facts).contains(&"no-majority"));
}

#[tokio::test]
async fn what_a_user_may_not_read_is_unknown_and_info_is_enough_for_the_worst() {
    let users = format!("aclfile {}/redis/users.acl", env!("CARGO_MANIFEST_DIR"));
    let server = RedisOptions::default()
        .line(users)
        .line("maxmemory 100mb")
        .line("maxmemory-policy volatile-lru")
        .start()
        .await;
    let url = format!(
        "redis://scheduler:change-me-scheduler@127.0.0.1:{}",
        server.port()
    );
    let facts = read(&settings(url)).await;
    assert_eq!(codes(&facts), ["eviction", "no-aof"]);
    let told = facts.master().expect("INFO is granted");
    assert_eq!((&told.appendfsync, told.min_replicas), (&None, None));
    assert_eq!(facts.servers[0].is_open, Some(false));
}

#[tokio::test]
async fn nobody_there_is_a_finding_and_a_silent_server_takes_no_longer_than_the_time_outs() {
    let nobody = settings(format!("redis://127.0.0.1:{}", free_port()));
    assert_eq!(codes(&read(&nobody).await), ["unreachable"]);

    let server = RedisServer::start().await;
    server.pause();
    let silent = settings(server.url());
    let began = std::time::Instant::now();
    assert_eq!(codes(&read(&silent).await), ["unreachable"]);
    let longest = silent.connect_timeout + silent.response_timeout;
    assert!(
        began.elapsed() < longest + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    server.resume();
    eventually(LEASE, "it answers again", async || {
        let found = codes(&read(&silent).await);
        if found == ["no-aof", "no-maxmemory"] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}
