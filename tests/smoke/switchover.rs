//! `leet redis switchover` under load: nothing accepted is lost, and clients that retry see no error.

use std::time::{Duration, Instant};

use kubeleet::settings::{RedisSettings, Secret};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Cluster, LEET, Process, Timing, send, show};
use crate::support::SentinelSet;

/// Clients that submit at the same time.
const CLIENTS: usize = 12;
/// Time between two submits of a client: 300 a second together, if the machine keeps up.
const PACE: Duration = Duration::from_millis(40);
/// Services accepted before the switchover, and after.
const ENOUGH: usize = 200;
/// Longest time without an accepted service. On a calm machine it is about 1.5 s.
const GAP_MAX: Duration = Duration::from_secs(4);

/// A client was answered yes.
struct Accepted {
    name: String,
    when: Instant,
    /// Answers of 503 before.
    again: u32,
}

#[tokio::test]
async fn a_switchover_loses_nothing_and_clients_that_retry_see_no_error() {
    let mut set = SentinelSet::start().await;
    let addresses = set.addresses();
    let settings = RedisSettings {
        sentinels: addresses.iter().cloned().map(Secret).collect(),
        ..RedisSettings::default()
    };
    let variables = vec![("KUBELEET_REDIS__SENTINELS", addresses.join(","))];
    let cluster = Cluster::open(&settings, Timing::REAL, variables).await;
    let apis = [cluster.api().await, cluster.api().await];
    // Sentinels ask their servers every 10 s; this test need not wait for that.
    for sentinel in &set.sentinels {
        let faster = ["SENTINEL", "DEBUG", "INFO-PERIOD", "1000"];
        sentinel.must(&faster).await;
    }

    let (tell, mut told) = mpsc::unbounded_channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let api = apis[client % apis.len()].1.clone();
            tokio::spawn(submit_for_ever(client, api, tell.clone()))
        })
        .collect();
    let mut accepted: Vec<Accepted> = Vec::new();
    let began = Instant::now();
    while accepted.len() < ENOUGH {
        accepted.push(told.recv().await.expect("the clients go on"));
    }
    let rate = ENOUGH as f64 / began.elapsed().as_secs_f64();

    let before = set.master_addr().await;
    let mut line = vec!["redis", "switchover", "-o", "json"];
    for address in &addresses {
        line.extend(["--sentinel", address]);
    }
    let mut switching = Process::start(LEET, &line, &[]);
    let status = switching.ended(Duration::from_secs(60)).await;
    let ended = Instant::now();
    assert_eq!(status.code(), Some(0), "{switching}");
    let done: Value = serde_json::from_str(&switching.out()).expect("JSON");
    assert_eq!(
        (&done["from"], &done["old_follows"]),
        (&json!(before), &json!(true))
    );
    assert_eq!(done["to"], json!(set.master_addr().await));
    assert_ne!(done["to"], done["from"]);

    let mut after = 0;
    while after < ENOUGH {
        let next = tokio::time::timeout(Duration::from_secs(30), told.recv()).await;
        let next = next.expect("service resumes").expect("the clients go on");
        after += usize::from(next.when > ended);
        accepted.push(next);
    }
    for client in clients {
        client.abort();
    }
    let again: u32 = accepted.iter().map(|one| one.again).sum();
    let gap = accepted
        .windows(2)
        .map(|two| two[1].when.saturating_duration_since(two[0].when))
        .max()
        .expect("more than one");
    show(format_args!(
        "{} accepted at {rate:.0}/s, gap of clients {gap:?}, {again} asked again; {done}",
        accepted.len()
    ));
    assert!(gap < GAP_MAX, "nothing was accepted for {gap:?}");

    // All that was accepted is on the new master, and on the old one, which follows it.
    let master = set.master().await;
    for one in &accepted {
        let key = format!("service:default/{}", one.name);
        let there = master.must(&["EXISTS", &key]).await;
        assert_eq!(there, redis::Value::Int(1), "{} is lost", one.name);
    }
    let priority = master.must(&["CONFIG", "GET", "replica-priority"]).await;
    let priority: (String, String) = redis::from_redis_value(priority).expect("a pair");
    assert_eq!(priority.1, "100", "it is what it was");
}

/// Submits one service after another; what is answered by "later" is asked again, all else is an error.
async fn submit_for_ever(client: usize, api: String, tell: mpsc::UnboundedSender<Accepted>) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        let name = format!("web-{client}-{number}");
        let body = json!({"name": name, "image": "sample", "replicas": 1});
        let mut again = 0;
        loop {
            pace.tick().await;
            match send(&api, "POST", "/service", Some(&body)).await {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                Ok(answer) if answer.status == 503 => again += 1,
                other => panic!("neither yes nor later: {other:?}"),
            }
        }
        let when = Instant::now();
        if tell.send(Accepted { name, when, again }).is_err() {
            return;
        }
    }
}
