//! One row for each thing that is wrong with an otherwise sound set.

use super::*;
use crate::store::survey::{
    ClusterFacts, ReplicaLink, Sentinel, SentinelFacts, Server, ServerFacts,
};

/// A set of three with Sentinels, as `redis.conf` and `sentinel.conf` make it.
fn sound() -> Facts {
    let address = |number: usize| format!("10.0.0.{number}:6379");
    let server = |number: usize| {
        let is_master = number == 1;
        let replica = |number| ReplicaLink {
            address: address(number),
            state: "online".to_owned(),
            offset: 100,
            lag_s: 1,
        };
        Server {
            address: address(number),
            tls: true,
            is_open: Some(false),
            is_refused: false,
            error: None,
            facts: Some(ServerFacts {
                software: "Redis".to_owned(),
                version: "7.0.15".to_owned(),
                role: if is_master { "master" } else { "slave" }.to_owned(),
                memory_used_bytes: 10,
                memory_max_bytes: 100,
                memory_policy: "noeviction".to_owned(),
                aof: true,
                aof_ok: true,
                appendfsync: Some("everysec".to_owned()),
                offset: 100,
                replicas: if is_master {
                    vec![replica(2), replica(3)]
                } else {
                    Vec::new()
                },
                link_up: (!is_master).then_some(true),
                read_only: (!is_master).then_some(true),
                min_replicas: Some(1),
                min_replicas_max_lag_s: Some(3),
                tcp_keepalive_s: Some(15),
                busy_reply_threshold_ms: Some(1000),
                bind: Some("10.0.0.1".to_owned()),
                ..ServerFacts::default()
            }),
        }
    };
    let sentinel = |number: usize| Sentinel {
        address: format!("10.0.0.{number}:26379"),
        error: None,
        facts: Some(SentinelFacts {
            master: address(1),
            flags: "master".to_owned(),
            quorum: 2,
            others: vec!["a".to_owned(), "b".to_owned()],
            replicas: vec![address(2), address(3)],
            down_after_ms: 3000,
            failover_timeout_ms: 15_000,
            parallel_syncs: 1,
        }),
    };
    Facts {
        by_sentinel: true,
        master_name: "kubeleet".to_owned(),
        master: Some(address(1)),
        servers: (1..=3).map(server).collect(),
        sentinels: (1..=3).map(sentinel).collect(),
        cluster: Some(ClusterFacts {
            functions: Some(7),
            functions_here: 7,
            ..ClusterFacts::default()
        }),
    }
}

/// A single server by URL on loopback, as `leet dev` and the first look have it.
fn single() -> Facts {
    let mut facts = sound();
    facts.by_sentinel = false;
    facts.sentinels.clear();
    facts.servers.truncate(1);
    facts.master = Some("127.0.0.1:6379".to_owned());
    facts.servers[0].address = "127.0.0.1:6379".to_owned();
    facts.servers[0].tls = false;
    facts.servers[0].is_open = Some(true);
    let told = facts.servers[0].facts.as_mut().unwrap();
    told.replicas.clear();
    told.min_replicas = Some(0);
    told.bind = Some("127.0.0.1 -::1".to_owned());
    facts
}

/// The server `number`, counted from 0.
fn told(facts: &mut Facts, number: usize) -> &mut ServerFacts {
    facts.servers[number].facts.as_mut().unwrap()
}

fn each(facts: &mut Facts, change: impl Fn(&mut SentinelFacts)) {
    for sentinel in &mut facts.sentinels {
        change(sentinel.facts.as_mut().unwrap());
    }
}

#[test]
fn a_sound_set_and_a_sound_server_have_no_findings() {
    assert_eq!(sound().findings(), []);
    assert_eq!(single().findings(), []);
}

type Change = fn(&mut Facts);

#[test]
fn each_thing_that_is_wrong_is_found_and_nothing_else() {
    use Severity::{Refused, Unsafe, Warning};
    let table: &[(&str, Severity, Change)] = &[
        ("eviction", Refused, |all| {
            told(all, 0).memory_policy = "allkeys-lru".into()
        }),
        ("eviction", Refused, |all| {
            told(all, 1).memory_policy = "volatile-ttl".into()
        }),
        ("old-version", Refused, |all| {
            told(all, 0).version = "6.2.14".into()
        }),
        ("no-aof", Unsafe, |all| told(all, 0).aof = false),
        ("no-aof", Unsafe, |all| told(all, 2).aof = false),
        ("aof-error", Unsafe, |all| told(all, 0).aof_ok = false),
        ("no-fsync", Unsafe, |all| {
            told(all, 0).appendfsync = Some("no".into())
        }),
        ("no-maxmemory", Warning, |all| {
            told(all, 0).memory_max_bytes = 0
        }),
        ("memory", Warning, |all| told(all, 0).memory_used_bytes = 75),
        ("memory", Unsafe, |all| told(all, 0).memory_used_bytes = 95),
        ("no-min-replicas", Unsafe, |all| {
            told(all, 0).min_replicas = Some(0)
        }),
        ("min-replicas-lag", Warning, |all| {
            told(all, 0).min_replicas_max_lag_s = Some(10)
        }),
        ("lag", Warning, |all| told(all, 0).replicas[1].lag_s = 20),
        ("lag", Warning, |all| {
            told(all, 0).replicas[1].state = "wait_bgsave".into()
        }),
        ("tcp-keepalive", Warning, |all| {
            told(all, 0).tcp_keepalive_s = Some(300)
        }),
        ("tcp-keepalive", Warning, |all| {
            told(all, 0).tcp_keepalive_s = Some(0)
        }),
        ("busy-reply-threshold", Warning, |all| {
            told(all, 0).busy_reply_threshold_ms = Some(5000);
        }),
        ("second-master", Unsafe, |all| {
            told(all, 1).role = "master".into()
        }),
        ("replica-writable", Unsafe, |all| {
            told(all, 1).read_only = Some(false)
        }),
        ("link-down", Warning, |all| {
            told(all, 1).link_up = Some(false)
        }),
        ("no-master", Unsafe, |all| {
            told(all, 0).role = "slave".into()
        }),
        ("unreachable", Unsafe, |all| {
            (all.servers[0].facts, all.servers[0].error) = (None, Some("gone".into()));
        }),
        ("unreachable", Warning, |all| {
            (all.servers[2].facts, all.servers[2].error) = (None, Some("gone".into()));
        }),
        ("open", Unsafe, |all| all.servers[0].is_open = Some(true)),
        ("no-tls", Warning, |all| all.servers[0].tls = false),
        ("down-after", Warning, |all| {
            all.sentinels[0].facts.as_mut().unwrap().down_after_ms = 30_000
        }),
        ("down-after", Warning, |all| {
            all.sentinels[0].facts.as_mut().unwrap().down_after_ms = 500
        }),
        ("failover-timeout", Warning, |all| {
            all.sentinels[0].facts.as_mut().unwrap().failover_timeout_ms = 180_000;
        }),
        ("parallel-syncs", Warning, |all| {
            all.sentinels[0].facts.as_mut().unwrap().parallel_syncs = 2;
        }),
        ("quorum", Unsafe, |all| each(all, |told| told.quorum = 4)),
        ("quorum", Warning, |all| each(all, |told| told.quorum = 1)),
        ("sentinel-disagrees", Warning, |all| {
            all.sentinels[0].facts.as_mut().unwrap().master = "10.0.0.9:6379".into();
        }),
        ("sentinel-unreachable", Warning, |all| {
            (all.sentinels[1].facts, all.sentinels[1].error) = (None, Some("gone".into()));
        }),
        ("sentinels-together", Warning, |all| {
            all.sentinels[1].address = "10.0.0.1:26380".into()
        }),
        ("sentinels-listed", Warning, |all| {
            all.sentinels.truncate(1);
        }),
        ("few-sentinels", Unsafe, |all| {
            all.sentinels.truncate(2);
            each(all, |told| told.others.truncate(1));
        }),
        ("even-sentinels", Warning, |all| {
            let mut fourth = all.sentinels[0].clone();
            fourth.address = "10.0.0.4:26379".into();
            all.sentinels.push(fourth);
            each(all, |told| told.others.push("c".into()));
        }),
        ("no-majority", Unsafe, |all| {
            (all.master, all.cluster) = (None, None);
            all.servers.clear();
        }),
        ("newer-functions", Warning, |all| {
            all.cluster.as_mut().unwrap().functions = Some(8)
        }),
    ];
    for (code, severity, change) in table {
        let mut facts = sound();
        change(&mut facts);
        let found = facts.findings();
        let short: Vec<_> = found.iter().map(|one| (one.code, one.severity)).collect();
        assert_eq!(short, [(*code, *severity)], "{found:?}");
        assert!(!found[0].what.is_empty() && !found[0].remedy.is_empty());
    }
}

#[test]
fn a_single_server_is_judged_as_one() {
    let table: &[(&str, Change)] = &[
        ("min-replicas-alone", |all| {
            told(all, 0).min_replicas = Some(1)
        }),
        ("open", |all| told(all, 0).bind = Some("* -::*".into())),
        ("open", |all| told(all, 0).bind = Some(String::new())),
    ];
    for (code, change) in table {
        let mut facts = single();
        change(&mut facts);
        let found: Vec<_> = facts.findings().iter().map(|one| one.code).collect();
        assert_eq!(found, [*code]);
    }
    let mut facts = single();
    facts.by_sentinel = true;
    let found: Vec<_> = facts.findings().iter().map(|one| one.code).collect();
    assert_eq!(found, ["no-successor", "few-sentinels"]);
}

#[test]
fn of_what_is_unknown_nothing_is_said() {
    let mut facts = sound();
    for server in &mut facts.servers {
        server.is_open = None;
        let told = server.facts.as_mut().unwrap();
        (told.appendfsync, told.min_replicas, told.bind) = (None, None, None);
        (told.tcp_keepalive_s, told.busy_reply_threshold_ms) = (None, None);
    }
    facts.cluster = None;
    assert_eq!(facts.findings(), []);
}

#[test]
fn the_worst_is_first() {
    let mut facts = sound();
    told(&mut facts, 0).tcp_keepalive_s = Some(0);
    told(&mut facts, 0).aof = false;
    told(&mut facts, 0).version = "6.0.0".into();
    let found: Vec<_> = facts.findings().iter().map(|one| one.code).collect();
    assert_eq!(found, ["old-version", "no-aof", "tcp-keepalive"]);
}

#[test]
fn loopback_is_told_from_the_network() {
    for local in [
        "127.0.0.1:6379",
        "localhost:1",
        "[::1]:1",
        "::1:6379",
        "/run/redis.sock",
    ] {
        assert!(is_loopback(local), "{local}");
    }
    for remote in [
        "10.0.0.1:6379",
        "redis-1:6379",
        "[2001:db8::1]:1",
        "0.0.0.0:1",
    ] {
        assert!(!is_loopback(remote), "{remote}");
    }
}
