//! Hostile Redis: whatever a person or a broken program writes there, the stations go on. After each wound a
//! canary service runs, what ran before still does, and no container was started twice.
//!
//! Single entries of common kinds are in `poison`; keys of wrong types call by call in `tests/store/wrong_types`.

use std::time::{Duration, Instant};

use kubeleet::model::{NodeState, Phase, PodId, ServiceKey, ServiceSpec};
use kubeleet::store::{Submit, SubmitMode, SubmitOutcome};

use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::{RedisOptions, RedisServer, eventually};

/// Entries for a list, as bytes, and words of the reason each is given.
fn rubbish() -> Vec<(Vec<u8>, &'static str)> {
    let neither = "neither the id of a pod nor a JSON description";
    let of = |text: &str| text.as_bytes().to_vec();
    let pod = |more: &str| {
        format!(r#"{{"uuid":"rubbish-1","name":"a","image":"{IMAGE}",{more}}}"#).into_bytes()
    };
    vec![
        (of("null"), ""), // a word that could be an id
        (of("\"x\""), neither),
        (of("{}"), "uuid: is missing"),
        (b"\0".to_vec(), neither),
        (b"\0\0\xff\xfe binary \r\n".to_vec(), neither),
        (b"{\"uuid\":\"\xc3\x28\"}".to_vec(), neither),
        (of(&"[".repeat(2000)), neither),
        (
            of(&format!("{}1{}", r#"{"a":"#.repeat(1001), "}".repeat(1001))),
            neither,
        ),
        (of(&"x".repeat((1 << 20) + 1)), "allowed are 1048576"),
        (vec![0; 8 << 20], "allowed are 1048576"),
        (pod(r#""replica":NaN"#), neither),
        (pod(r#""replica":9007199254740993"#), "replica"),
        (pod(r#""version":99"#), "version"),
        (pod(r#""node":"worker1""#), "node"),
        (pod(r#""attempt":7,"nonce":"x""#), "attempt"),
        (pod(r#""phase":"running""#), "phase"),
        (pod(r#""resources":{"cpu":1e400}"#), neither),
        (
            pod(&format!(
                r#""placement":{{"score":"1{}"}}"#,
                "*1".repeat(101)
            )),
            "operators",
        ),
        (
            of(&format!(
                r#"{{"uuid":"../x","name":"a","image":"{IMAGE}"}}"#
            )),
            "uuid",
        ),
        (
            of(&format!(r#"{{"uuid":"a b","name":"a","image":"{IMAGE}"}}"#)),
            "uuid",
        ),
        (of(&"a".repeat(81)), neither),
        (of("nobody-knows-me"), ""),
    ]
}

async fn push_bytes(cluster: &Cluster, list: &str, entry: &[u8]) {
    let client = redis::Client::open(cluster.settings.redis.url.0.as_str()).unwrap();
    let limit = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
    let connection = client.get_multiplexed_async_connection_with_config(&limit);
    let mut connection = connection.await.unwrap();
    let mut command = redis::Cmd::new();
    command.arg("LPUSH").arg(cluster.key(list)).arg(entry);
    let _: u64 = command.query_async(&mut connection).await.unwrap();
}

fn good(id: &str) -> String {
    format!(r#"{{"uuid":"{id}","name":"a","image":"{IMAGE}"}}"#)
}

#[tokio::test]
async fn rubbish_of_all_kinds_is_buried_beside_good_entries_on_the_queue() {
    rubbish_beside_good("sq").await;
}

#[tokio::test]
async fn rubbish_of_all_kinds_is_buried_beside_good_entries_on_an_inbox() {
    rubbish_beside_good("pq:worker1").await;
}

async fn rubbish_beside_good(list: &str) {
    let cluster = Cluster::start(1).await;
    let rubbish = rubbish();
    for (number, (entry, _)) in rubbish.iter().enumerate() {
        push_bytes(&cluster, list, entry).await;
        cluster.push(list, &good(&format!("good-{number}"))).await;
    }
    // One pod, however often it is pushed, by its description or its id.
    let often = (0..50).map(|_| good("good-often"));
    cluster.push_all(list, often).await;
    let id = PodId::parse("good-often").unwrap();
    cluster.pod_in(&id, Phase::Running).await;
    let often = (0..1000).map(|_| "good-often".to_owned());
    cluster.push_all(list, often).await;
    for number in 0..rubbish.len() {
        let id = PodId::parse(&format!("good-{number}")).unwrap();
        cluster.pod_in(&id, Phase::Running).await;
    }
    let letters = cluster.dead_are(rubbish.len()).await;
    for (entry, words) in &rubbish {
        let start = String::from_utf8_lossy(entry);
        let start: String = start.chars().take(200).collect();
        let letter = letters
            .iter()
            .find(|it| it.entry.starts_with(&start) && it.why.contains(words));
        assert!(letter.is_some(), "{words}: {start}");
    }
    let pods = cluster.all_running(SOON).await;
    assert_eq!(pods.len(), rubbish.len() + 1);
    cluster.assert_exactly_once(&pods);
    cluster.settled_but_dead().await;
}

/// What only a person with Redis's password can ask for: the node's settings have the last word.
#[tokio::test]
async fn a_description_that_the_node_does_not_allow_is_not_run() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.allow.privileged = false;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    for list in ["sq", "pq:worker1"] {
        let id = format!("root-{}", list.len());
        let entry = format!(r#"{{"uuid":"{id}","name":"a","image":"{IMAGE}","privileged":true}}"#);
        cluster.push(list, &entry).await;
        let pod = cluster
            .pod_in(&PodId::parse(&id).unwrap(), Phase::Failed)
            .await;
        assert!(pod.reason.unwrap_or_default().contains("privileged"));
    }
    assert_eq!(cluster.live(), []);
}

/// An entry only says "look at this pod"; what is run is what its record says, and whose it is.
#[tokio::test]
async fn entries_of_pods_that_are_elsewhere_ended_or_gone_start_nothing() {
    let cluster = Cluster::start(2).await;
    let web = cluster.submit("web", 4).await;
    let pods = cluster.all_in(&web, Phase::Running, 4).await;
    let gone = cluster.submit("gone", 1).await;
    let gone_pod = cluster.all_in(&gone, Phase::Running, 1).await.remove(0);
    cluster.store.services().delete(&gone, None).await.unwrap();
    cluster.gone(&gone).await;
    for pod in &pods {
        for list in ["sq", "pq:worker1", "pq:worker2", "rq:worker1", "rq:worker2"] {
            for _ in 0..20 {
                cluster.push(list, pod.id.as_str()).await;
            }
        }
    }
    for list in ["sq", "pq:worker1", "pq:worker2"] {
        cluster.push(list, gone_pod.id.as_str()).await;
    }
    let canary = cluster.submit("canary", 4).await;
    cluster.all_in(&canary, Phase::Running, 4).await;
    cluster.containers_are(8).await;
    let after = cluster.all_in(&web, Phase::Running, 4).await;
    for (pod, after) in pods.iter().zip(&after) {
        assert_eq!(
            (&pod.id, pod.attempt, &pod.container),
            (&after.id, after.attempt, &after.container)
        );
    }
    let all = cluster.all_running(SOON).await;
    cluster.assert_exactly_once(&all);
}

/// A wound: commands, where `@` is the prefix, `$` a running pod and `%` its node.
const WOUNDS: [&[&str]; 75] = [
    // Keys of which there is one, of another type.
    &["DEL @sq", "SET @sq x"],
    &["DEL @sq:high", "HSET @sq:high a b"],
    &["DEL @sq:low", "XADD @sq:low * a b"],
    &["DEL @sq:parked", "SADD @sq:parked a"],
    &["DEL @sq:claims", "SET @sq:claims x"],
    &["DEL @sq:ranked", "SET @sq:ranked x"],
    &["DEL @services:changed", "SET @services:changed x"],
    &["DEL @services:wake", "SET @services:wake x"],
    &["DEL @services", "SET @services x"],
    &["DEL @pods", "LPUSH @pods x"],
    &["DEL @nodes", "SET @nodes x"],
    &["DEL @nodes:lost", "SET @nodes:lost x"],
    &["DEL @nodes:draining", "SET @nodes:draining x"],
    &["DEL @nodes:strained", "SET @nodes:strained x"],
    &["DEL @events", "SET @events x"],
    &["DEL @dead", "SET @dead x"],
    &["DEL @dead:entries", "SET @dead:entries x"],
    &["DEL @dead:totals", "SET @dead:totals x"],
    &["DEL @quarantine", "SET @quarantine x"],
    &["DEL @moves", "SET @moves x"],
    &["DEL @decisions", "SET @decisions x"],
    &["DEL @logs", "SET @logs x"],
    // Keys of a node, a pod, a service.
    &["DEL @pq:%", "HSET @pq:% a b"],
    &["DEL @rq:%", "XADD @rq:% * a b"],
    &["DEL @cs:%", "SET @cs:% x"],
    &["DEL @nq:%", "SET @nq:% x"],
    &["DEL @sessions:%", "SET @sessions:% x"],
    &["DEL @node:%", "SET @node:% x"],
    &["DEL @pod:$", "SET @pod:$ x"],
    &[
        "DEL @service:default/base:pods",
        "SET @service:default/base:pods x",
    ],
    // Taken away, renamed, about to expire.
    &["DEL @sq @sq:high @sq:low @sq:parked @sq:claims"],
    &["RENAME @nodes @elsewhere"],
    &["DEL @node:%"],
    &["DEL @cs:%"],
    &["DEL @pod:$"],
    &["DEL @services @services:changed @services:wake"],
    &["DEL @service:default/base:pods"],
    &["DEL @pods @events @dead"],
    &["PEXPIRE @nodes 1"],
    &["PEXPIRE @pod:$ 1"],
    &["PEXPIRE @node:% 1"],
    &["PERSIST @cs:%"],
    // Fields that nobody would write.
    &["HSET @pod:$ phase foo"],
    &["HSET @pod:$ phase running attempt -1"],
    &["HSET @pod:$ attempt 9007199254740993"],
    &["HSET @pod:$ nonce other"],
    &["HSET @pod:$ desired dance"],
    &["HSET @pod:$ node ../x"],
    &["HSET @pod:$ node nobody"],
    &["HSET @pod:$ owner service:none/none"],
    &["HSET @pod:$ owner rubbish cpu nan memory -1 replica x revision x"],
    &["HDEL @pod:$ phase"],
    &["HDEL @pod:$ owner desired attempt nonce"],
    &["HSET @pod:$ extra field"],
    &["HSET @node:% cpu -1 memory -1 pods_max -1"],
    &["HSET @node:% cpu 1e18 memory 99999999999999999999 pods_max 18446744073709551615"],
    &[
        "HSET @node:% cpu_requested 18446744073709551615 memory_requested 18446744073709551615 pods 4294967295",
    ],
    &["HSET @node:% pods many cpu_requested nan memory_requested inf"],
    &[
        "HSET @node:% heartbeat_ms 99999999999999 ",
        "ZADD @nodes 99999999999999 %",
    ],
    &["HSET @node:% heartbeat_ms -5 ", "ZADD @nodes -5 %"],
    &["HSET @node:% heartbeat_ms abc"],
    &[
        "HSET @node:% labels =,=,, ports x offers disk=1e400 devices /,/ asked x devices_used x pressure cpu=nan/inf cpu_used inf",
    ],
    &["HSET @service:default/base replicas abc turn x wish -1 running some"],
    &["HSET @service:default/base revision 99"],
    // Members that lead nowhere.
    &[
        "ZADD @services 0 rubbish 0 a/b/c 0 none/none",
        "ZADD @services:changed 0 nobody/none 0 x",
    ],
    &[
        "ZADD @pods 0 nobody",
        "ZADD @sq:parked 0 nobody",
        "ZADD @sq:claims 0 nobatch",
        "ZADD @sq:ranked 5 nobody",
    ],
    &[
        "ZADD @nodes 1 ghost",
        "SADD @nodes:draining ghost",
        "SADD @cs:% ghost",
        "ZADD @nodes:strained 1 ghost",
    ],
    &[
        "LPUSH @dead rubbish {} null",
        "LPUSH @services:wake a b c",
        "XADD @events * rubbish x",
        "XADD @events * kind x",
    ],
    // The server itself.
    &["FUNCTION FLUSH"],
    &["FUNCTION DELETE kubeleet"],
    &["CLIENT KILL TYPE normal SKIPME yes"],
    &["CLIENT PAUSE 700 ALL"],
    &["DEBUG SLEEP 1.5"],
    &["REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"],
    &["CONFIG SET maxmemory 1mb", "CONFIG SET maxmemory 0"],
];

/// Submits until it is accepted, and waits until it runs: a wound may take a moment to close.
async fn canary(cluster: &Cluster, name: &str) -> ServiceKey {
    let mut spec = ServiceSpec::new(name, IMAGE);
    spec.replicas = 2;
    let submission = PodId::new_submission();
    let submit = Submit {
        spec: &spec,
        submission: &submission,
        idempotency: None,
        mode: SubmitMode::Create,
    };
    eventually(SOON, "the canary is accepted", async || {
        match cluster.store.services().submit(&submit).await {
            Ok(
                SubmitOutcome::Created { .. }
                | SubmitOutcome::Exists { .. }
                | SubmitOutcome::Repeated { .. },
            ) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    cluster.all_in(&spec.key(), Phase::Running, 2).await;
    spec.key()
}

#[tokio::test]
async fn wounds_of_the_first_third_heal() {
    wounds_heal(&WOUNDS[..25]).await;
}

#[tokio::test]
async fn wounds_of_the_second_third_heal() {
    wounds_heal(&WOUNDS[25..50]).await;
}

#[tokio::test]
async fn wounds_of_the_last_third_heal() {
    wounds_heal(&WOUNDS[50..]).await;
}

async fn wounds_heal(wounds: &[&[&str]]) {
    let server = RedisOptions::default()
        .line("enable-debug-command yes")
        .start()
        .await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.redis.recovery_time = Duration::from_millis(200);
        settings.agent.resync_interval = Duration::from_millis(500);
        settings.scheduler.compare_interval = Duration::from_millis(500);
    })
    .await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let base = cluster.submit("base", 3).await;
    cluster.all_in(&base, Phase::Running, 3).await;
    for (number, wound) in wounds.iter().enumerate() {
        let pod = cluster.all_in(&base, Phase::Running, 3).await.remove(0);
        let node = pod.node.clone().unwrap();
        for command in *wound {
            let words: Vec<String> = command
                .split_whitespace()
                .map(|word| {
                    word.replace('@', &cluster.settings.key_prefix)
                        .replace('$', pod.id.as_str())
                        .replace('%', &node)
                })
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _: redis::Value = cluster.redis(&words).await;
        }
        let canary = canary(&cluster, &format!("canary{number}")).await;
        cluster.all_in(&base, Phase::Running, 3).await;
        cluster
            .store
            .services()
            .delete(&canary, None)
            .await
            .unwrap();
    }
    // All of it is whole again: both nodes are there, all runs once, and nothing is left over.
    for node in ["worker1", "worker2"] {
        cluster.in_state(node, NodeState::Ready).await;
    }
    cluster.containers_are(3).await;
    let mut pods = cluster.pods(None).await;
    // What a person gave to a service that is not there has ended, and runs nowhere.
    pods.retain(|pod| !pod.phase.is_ended());
    assert_eq!(pods.len(), 3, "{pods:?}");
    assert!(pods.iter().all(|pod| pod.phase == Phase::Running));
    cluster.assert_exactly_once(&pods);
    cluster.settled_but_dead().await;
    drop(server);
}

#[tokio::test]
async fn an_older_library_and_a_script_that_does_not_end_hold_up_nobody_for_long() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |_| {}).await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let older = "#!lua name=kubeleet\nredis.register_function{function_name='kl_library_version', callback=function() return 1 end, flags={'no-writes'}}";
    let _: redis::Value = cluster.redis(&["FUNCTION", "LOAD", "REPLACE", older]).await;
    canary(&cluster, "older").await;
    let busy = "local t = redis.call('TIME') while true do local n = redis.call('TIME') if n[1] - t[1] > 2 then return 1 end end";
    let _: redis::Value = cluster.redis(&["EVAL", busy, "0"]).await;
    canary(&cluster, "busy").await;
}

/// How many hostile entries of the flood; the figure of the design is 100,000 (`FLOOD=100000`).
fn flood() -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "not a setting: the size of a test"
    )]
    let given = std::env::var("FLOOD");
    given
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(5_000)
}

#[tokio::test]
async fn a_flood_on_the_queue_delays_good_entries_by_less_than_a_second() {
    flood_of("sq").await;
}

#[tokio::test]
async fn a_flood_on_an_inbox_delays_good_entries_by_less_than_a_second() {
    flood_of("pq:worker1").await;
}

/// Good entries in the flood and behind it: each runs, and every hostile one is a letter or is counted.
#[expect(
    clippy::print_stderr,
    reason = "a figure, for whoever asks by --nocapture"
)]
async fn flood_of(list: &str) {
    const GOOD: usize = 20;
    let cluster = Cluster::start(1).await;
    let kinds: Vec<Vec<u8>> = rubbish()
        .into_iter()
        .map(|(entry, _)| entry)
        .filter(|entry| entry.len() < 4096)
        .collect();
    let client = redis::Client::open(cluster.settings.redis.url.0.as_str()).unwrap();
    let limit = redis::AsyncConnectionConfig::new().set_response_timeout(Some(SOON));
    let connection = client.get_multiplexed_async_connection_with_config(&limit);
    let mut connection = connection.await.unwrap();
    let count = flood();
    let began = Instant::now();
    for (batch, first) in (0..count).step_by(500).enumerate() {
        let mut push = redis::Cmd::new();
        push.arg("LPUSH").arg(cluster.key(list));
        for number in first..(first + 500).min(count) {
            push.arg(kinds[number % kinds.len()].as_slice());
        }
        if batch % (count / 500 / GOOD).max(1) == 0 && batch / (count / 500 / GOOD).max(1) < GOOD {
            push.arg(good(&format!("flood-{batch}")));
        }
        let _: u64 = push.query_async(&mut connection).await.unwrap();
    }
    let pushed = Instant::now();
    cluster.push(list, &good("flood-last")).await;
    cluster
        .pod_in(&PodId::parse("flood-last").unwrap(), Phase::Running)
        .await;
    let last = pushed.elapsed();
    eventually(SOON, "all is accounted for", async || {
        let dead = cluster.store.dead(1).await.unwrap();
        match usize::try_from(dead.count + dead.dropped).unwrap() {
            all if all == count => Ok(()),
            all => Err(format!("{all} of {count}")),
        }
    })
    .await;
    eprintln!(
        "{list}: {count} pushed within {:?}; the one behind them ran {last:?} after the last",
        pushed - began
    );
    let pods = cluster.all_running(SOON).await;
    assert!(pods.len() > GOOD / 2, "{}", pods.len());
    cluster.assert_exactly_once(&pods);
    // The machines of tests are slow and shared: the figure of a calm one is 1 s.
    assert!(last < Duration::from_secs(5), "{last:?}");
    cluster.settled_but_dead().await;
}
