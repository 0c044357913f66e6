//! The function library: names, versions and tables on both sides, loading, and key prefixes.

use std::collections::BTreeSet;

use kubeleet::model::Phase;
use kubeleet::store::{FUNCTIONS, StoreError};
use redis::Value;

use crate::cluster::{Cluster, beat, spec};
use crate::support::{RedisOptions, RedisServer, eventually};

const LUA: &str = include_str!("../../redis/kubeleet.lua");

/// Text between two marks of the Lua file.
fn between(first: &str, last: &str) -> &'static str {
    let rest = LUA.split_once(first).expect(first).1;
    rest.split_once(last).expect(last).0
}

/// Names and least numbers of arguments, as `define` gets them.
fn defined() -> Vec<(&'static str, usize)> {
    let calls = LUA.split("\ndefine").filter_map(|part| {
        part.strip_prefix("_on_whole('")
            .or_else(|| part.strip_prefix("('"))
    });
    calls
        .map(|call| {
            let (name, rest) = call.split_once("', ").expect("a name");
            let arity = rest.split(',').next().expect("an arity");
            (name, arity.parse().expect("a number"))
        })
        .collect()
}

#[tokio::test]
async fn names_are_the_same_in_lua_in_rust_and_in_redis() {
    let names: Vec<&str> = defined().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, FUNCTIONS);
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    // Replies of FUNCTION LIST are nested maps; names are what is looked for.
    let listed: Value = cluster.ask("FUNCTION LIST LIBRARYNAME kubeleet").await;
    let listed = format!("{listed:?}");
    let listed: BTreeSet<&str> = listed
        .split('\'')
        .flat_map(|text| text.split('"'))
        .filter(|text| text.starts_with("kl_"))
        .collect();
    assert_eq!(listed, BTreeSet::from(FUNCTIONS));
}

#[tokio::test]
async fn the_version_is_the_same_in_lua_and_in_rust() {
    let rust = include_str!("../../src/store/library.rs");
    let (_, rust) = rust.split_once("const VERSION: u64 = ").unwrap();
    let (rust, _) = rust.split_once(';').unwrap();
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    let loaded: u64 = cluster.ask("FCALL_RO kl_library_version 1 @cluster").await;
    assert_eq!(rust, loaded.to_string());
    assert_eq!(rust, between("local VERSION = ", " "));
}

#[test]
fn fields_of_a_node_are_the_same_in_lua_and_in_rust() {
    let quoted = |text: &'static str, quote: char| -> Vec<&str> {
        text.split(quote).skip(1).step_by(2).collect()
    };
    let rust = include_str!("../../src/store/nodes/record.rs");
    let (_, rust) = rust.split_once("NODE_FIELDS: [&str; ").unwrap();
    let (rust, _) = rust.split_once("];").unwrap_or_default();
    let (_, rust) = rust.split_once('[').unwrap_or_default();
    let lua = quoted(between("local NODE_FIELDS = {", "}"), '\'');
    assert!(!lua.is_empty());
    assert_eq!(lua, quoted(rust, '"'));
}

#[test]
fn ranks_of_phases_are_the_same_in_lua_and_in_rust() {
    let lines = between("local RANK = {", "}").lines().map(str::trim);
    let ranks: BTreeSet<(String, u8)> = lines
        .filter_map(|line| line.trim_end_matches(',').split_once(" = "))
        .map(|(phase, rank)| {
            let phase = phase.trim_matches(|c| "[']".contains(c));
            (phase.to_owned(), rank.parse().unwrap())
        })
        .collect();
    let rust = Phase::ALL.map(|phase| (phase.as_str().to_owned(), phase.rank()));
    assert_eq!(ranks, BTreeSet::from(rust));
}

#[tokio::test]
async fn too_few_arguments_and_wrong_keys_are_the_callers_bug() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    cluster.store.open().await.unwrap();
    let before: u64 = cluster.ask("DBSIZE").await;
    for (name, arity) in defined() {
        let arguments = vec!["1"; arity];
        let mut wrong = vec![
            [&["FCALL", name, "1", "kluster"], &arguments[..]].concat(),
            [&["FCALL", name, "2", "cluster", "cluster"], &arguments[..]].concat(),
            [&["FCALL", name, "0"], &arguments[..]].concat(),
        ];
        if arity > 0 {
            wrong.push([&["FCALL", name, "1", "cluster"], &arguments[1..]].concat());
        }
        for words in wrong {
            let error = server.command(&words).await.unwrap_err();
            assert_eq!(error.code(), Some("KLBADARG"), "{words:?}: {error}");
        }
    }
    let after: u64 = cluster.ask("DBSIZE").await;
    assert_eq!(before, after, "nothing was written");
}

async fn loads(cluster: &Cluster) -> u64 {
    let stats: String = cluster.ask("INFO commandstats").await;
    let load = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_function|load"));
    let calls = load.and_then(|line| line.split(['=', ',']).nth(1));
    calls.map_or(0, |calls| calls.parse().expect("an answer"))
}

#[tokio::test]
async fn an_absent_library_is_loaded_by_the_first_call_and_again_after_a_flush() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    let id = cluster.store.open().await.unwrap();
    assert_eq!(loads(&cluster).await, 1);
    assert_eq!(cluster.store.open().await.unwrap(), id);
    assert_eq!(loads(&cluster).await, 1);

    let _: String = cluster.ask("FUNCTION FLUSH").await;
    // A committed call and a plain one.
    cluster.submit(&spec("web", 1)).await;
    cluster.register("n", &beat(1)).await;
    assert_eq!(loads(&cluster).await, 2);
    let _: String = cluster.ask("FUNCTION FLUSH").await;
    assert_eq!(cluster.claim(10).await.pods.len(), 1);
    assert_eq!(loads(&cluster).await, 3);
}

/// The library as another version, which serves processes from version `serves` on.
fn another(version: u64, serves: u64) -> String {
    let mut text = LUA.to_owned();
    for (name, number) in [("VERSION", version), ("SERVES", serves)] {
        let (before, rest) = text
            .split_once(&format!("local {name} = "))
            .expect("a number");
        let (_, after) = rest.split_once(' ').expect("a comment");
        text = format!("{before}local {name} = {number} {after}");
    }
    // Something is added with each.
    text + "\ndefine('kl_library_new', 0, READS, function() return { 'new' } end)\n"
}

fn ours() -> u64 {
    let number = between("local VERSION = ", " ");
    number.parse().expect("a number")
}

#[tokio::test]
async fn a_newer_library_that_serves_no_older_process_is_refused_in_words() {
    let server = RedisServer::start().await;
    let newer = another(999, 999);
    server.must(&["FUNCTION", "LOAD", "REPLACE", &newer]).await;
    let cluster = Cluster::on(&server, "").await;
    let error = cluster.store.open().await.unwrap_err();
    let is_newer = matches!(
        error,
        StoreError::Newer {
            what: "library",
            theirs: 999,
            ..
        }
    );
    assert!(is_newer, "{error:?}");
    assert!(!error.is_retryable());
    let text = error.to_string();
    for words in ["999", "upgrade", "docs/upgrade.md"] {
        assert!(text.contains(words), "it says what to do: {text}");
    }
}

#[tokio::test]
async fn an_older_library_is_replaced() {
    let server = RedisServer::start().await;
    let older = another(ours() - 1, ours() - 1);
    server.must(&["FUNCTION", "LOAD", "REPLACE", &older]).await;
    let cluster = Cluster::on(&server, "").await;
    cluster.store.open().await.unwrap();
    let version: u64 = cluster.ask("FCALL_RO kl_library_version 1 cluster").await;
    assert_eq!(version, ours());
}

/// During an upgrade: processes of this version beside those of the next.
#[tokio::test]
async fn a_newer_library_that_serves_this_version_is_gone_on_with_and_left_alone() {
    let server = RedisServer::start().await;
    let newer = another(ours() + 1, ours());
    server.must(&["FUNCTION", "LOAD", "REPLACE", &newer]).await;
    let cluster = Cluster::on(&server, "").await;
    let before = loads(&cluster).await;
    let epoch = cluster.register("n", &beat(3)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    assert_eq!(cluster.place("n").await.len(), 2);
    for id in &ids {
        cluster.take("n", epoch, &[id]).await;
        let reported = cluster.report("n", epoch, id, Phase::Running).await;
        assert_eq!(reported, kubeleet::store::ReportOutcome::Ok);
    }
    cluster.control().await;
    cluster.end_grace().await;
    let version: u64 = cluster.ask("FCALL_RO kl_library_version 1 cluster").await;
    assert_eq!(version, ours() + 1);
    let _: Vec<String> = cluster.ask("FCALL_RO kl_library_new 1 cluster").await;
    assert_eq!(
        loads(&cluster).await,
        before,
        "the older one is not loaded over it"
    );
}

/// An agent's user may load none: it waits for whoever may, and says so.
#[tokio::test]
async fn who_may_not_load_a_library_waits_for_whoever_may() {
    let server = RedisServer::start().await;
    let whole = Cluster::on(&server, "").await;
    let older = another(ours() - 1, ours() - 1);
    server.must(&["FUNCTION", "LOAD", "REPLACE", &older]).await;
    let rules = ["on", ">secret", "~*", "&*", "+@all", "-function|load"];
    let mut words = vec!["ACL", "SETUSER", "agent"];
    words.extend(rules);
    server.must(&words).await;
    let url = server.url().replace("://", "://agent:secret@");
    let settings = kubeleet::settings::RedisSettings {
        response_timeout: crate::connection::LIMIT,
        connect_timeout: crate::connection::LIMIT,
        ..crate::connection::settings(url)
    };
    let agent = kubeleet::store::Store::new(crate::connection::connect(&settings), "");
    let error = agent.open().await.unwrap_err();
    assert!(matches!(error, StoreError::Older { .. }), "{error:?}");
    assert!(
        error.is_retryable() && error.to_string().contains("scheduler"),
        "{error}"
    );
    let newcomer = Cluster::on(&server, "").await;
    newcomer.store.open().await.unwrap();
    agent.open().await.unwrap();
    drop(whole);
}

/// A commit that waits for replicas is a pipeline, whose errors come in another form.
#[tokio::test]
async fn a_flushed_library_is_loaded_again_by_a_commit_too() {
    let server = RedisServer::start().await;
    let options = RedisOptions::default().replica_of(server.port());
    let _replica = options.start().await;
    let cluster = Cluster::on(&server, "").await;
    eventually(
        crate::connection::LIMIT,
        "the replica is in step",
        async || match cluster.ask::<u64>("WAIT 1 100").await {
            1 => Ok(()),
            count => Err(format!("{count} replicas")),
        },
    )
    .await;
    cluster.submit(&spec("first", 1)).await;
    let _: String = cluster.ask("FUNCTION FLUSH").await;
    cluster.submit(&spec("second", 1)).await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    cluster.store.open().await.unwrap();
    let _: u64 = cluster.ask("HSET @cluster schema 7").await;
    let error = cluster.store.open().await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Newer {
                what: "schema",
                theirs: 7,
                ..
            }
        ),
        "{error:?}"
    );
    // Whoever comes anew is refused whatever it asks, not only the opening.
    let newcomer = Cluster::on(&server, "").await;
    let claim = newcomer
        .store
        .queue()
        .claim(crate::connection::LIMIT, 1)
        .await;
    assert!(matches!(claim, Err(StoreError::Newer { .. })), "{claim:?}");
}

#[tokio::test]
async fn clusters_side_by_side_do_not_see_each_other() {
    let server = RedisServer::start().await;
    let mut clusters = Vec::new();
    for prefix in ["", "{one}:", "two:"] {
        clusters.push(Cluster::on(&server, prefix).await);
    }
    let mut opened = BTreeSet::new();
    for cluster in &clusters {
        assert!(opened.insert(cluster.store.open().await.unwrap()));
        let id = cluster.submit(&spec("web", 2)).await.remove(0);
        assert_eq!(cluster.register("n", &beat(2)).await, 1);
        assert_eq!(cluster.claim(10).await.pods[0].id, id);
        assert!(cluster.claim(10).await.pods.is_empty());
        assert_eq!(
            cluster
                .store
                .nodes()
                .seen_since(0)
                .await
                .unwrap()
                .nodes
                .len(),
            1
        );
    }
    // The node of the first is lost; the others' are not.
    clusters[0].end_grace().await;
    clusters[0].age("n", crate::cluster::LONG).await;
    let sweep = clusters[0].store.nodes();
    sweep.sweep(crate::cluster::LEASE, 10).await.unwrap();
    for cluster in &clusters[1..] {
        assert_eq!(cluster.field("node:n", "state").await, "ready");
    }
    let keys: Vec<String> = clusters[0].ask("KEYS *").await;
    let foreign = keys.iter().filter(|key| {
        let rest = key
            .strip_prefix("{one}:")
            .or_else(|| key.strip_prefix("two:"));
        rest.is_none() && key.contains(['{', '}'])
    });
    assert_eq!(foreign.count(), 0, "{keys:?}");
    let one: Vec<&String> = keys
        .iter()
        .filter(|key| key.starts_with("{one}:"))
        .collect();
    let two: Vec<&String> = keys.iter().filter(|key| key.starts_with("two:")).collect();
    assert_eq!(one.len(), two.len());
    assert!(one.len() > 5, "{one:?}");
}
