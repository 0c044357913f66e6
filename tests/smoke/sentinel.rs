//! kill -9 of the Redis master under load: service resumes by itself, and nothing accepted is lost.

use std::time::{Duration, Instant};

use kubeleet::model::{EventFilter, Phase};
use kubeleet::settings::{RedisSettings, Secret};
use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, LEET, Process, SOON, Timing, send, show};
use crate::support::{SentinelSet, all_events, eventually};

/// Clients that submit at the same time.
const CLIENTS: usize = 4;
/// Time between two submits of a client.
const PACE: Duration = Duration::from_millis(100);
/// Longest time without service.
const OUTAGE_MAX: Duration = Duration::from_secs(15);
/// Services accepted before the master is killed, and after.
const ENOUGH: usize = 40;
/// Replicas of each service.
const REPLICAS: u32 = 2;

/// What a client was told.
struct Accepted {
    name: String,
    when: Instant,
}

#[tokio::test]
async fn a_killed_master_costs_seconds_and_nothing_accepted() {
    let mut set = SentinelSet::start().await;
    let addresses = set.addresses();
    let settings = RedisSettings {
        sentinels: addresses.iter().cloned().map(Secret).collect(),
        ..RedisSettings::default()
    };
    let variables = vec![
        ("KUBELEET_REDIS__SENTINELS", addresses.join(",")),
        ("KUBELEET_REDIS__DURABILITY", "one".to_owned()),
        ("KUBELEET_NODE__RUNTIME", "simulated".to_owned()),
        ("KUBELEET_NODE__PODS_MAX", "100000".to_owned()),
    ];
    let cluster = Cluster::open(&settings, Timing::REAL, variables).await;
    let _agents = [
        cluster.agent("worker1", &[]).await,
        cluster.agent("worker2", &[]).await,
    ];
    let _schedulers = [cluster.scheduler(), cluster.scheduler()];
    let apis = [cluster.api().await, cluster.api().await];

    let variables = [("KUBELEET_API", apis[0].1.as_str())];
    let line = ["events", "-f", "--tail", "1000", "-o", "json"];
    let follow = Process::start(LEET, &line, &variables);

    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let api = apis[client % apis.len()].1.clone();
            tokio::spawn(submit_for_ever(client, api, tell.clone()))
        })
        .collect();
    let mut accepted: Vec<Accepted> = Vec::new();
    while accepted.len() < ENOUGH {
        accepted.push(told.recv().await.expect("the clients go on"));
    }
    set.kill_master().await;
    let killed = Instant::now();
    let mut after = 0;
    let mut last = accepted.last().expect("some").when;
    let mut outage = Duration::ZERO;
    while after < ENOUGH {
        let next = tokio::time::timeout(OUTAGE_MAX * 2, told.recv()).await;
        let next = next.expect("service resumes").expect("the clients go on");
        outage = outage.max(next.when.saturating_duration_since(last));
        last = last.max(next.when);
        after += usize::from(next.when > killed + Duration::from_secs(1));
        accepted.push(next);
    }
    for client in clients {
        client.abort();
    }
    show(format_args!(
        "{} services accepted, outage {outage:?}",
        accepted.len()
    ));
    assert!(outage <= OUTAGE_MAX, "no service for {outage:?}");

    eventually(SOON, "all that was accepted runs", async || {
        let pods = cluster.pods().await;
        let mut running = std::collections::HashMap::new();
        for pod in pods.iter().filter(|pod| pod.phase == Phase::Running) {
            *running.entry(pod.name.as_str()).or_insert(0) += 1;
        }
        let lacking = |one: &&Accepted| running.get(one.name.as_str()) != Some(&REPLICAS);
        let lacking: Vec<&str> = accepted
            .iter()
            .filter(lacking)
            .map(|one| one.name.as_str())
            .collect();
        if lacking.is_empty() {
            Ok(())
        } else {
            Err(format!("{lacking:?} of {}", accepted.len()))
        }
    })
    .await;
    for one in &accepted {
        let path = format!("/v1/services/{}", one.name);
        let answer = send(&apis[0].1, "GET", &path, None)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["running"], REPLICAS, "{answer:?}");
    }
    // Who followed has every event that is kept once and in order. Where the dead master told what
    // nobody else knew, all that is kept came again after a word of it.
    let kept = all_events(&cluster.store, &EventFilter::default()).await;
    let kept: Vec<String> = kept.iter().map(|one| json!(one).to_string()).collect();
    eventually(SOON, "all that is kept was followed", async || {
        let out = follow.out();
        let followed: Vec<String> = out.lines().map(in_order).collect();
        let came_again = follow.err().contains("are missing");
        if followed == kept || (came_again && followed.ends_with(&kept)) {
            Ok(())
        } else {
            Err(format!("{} of {}; {follow}", followed.len(), kept.len()))
        }
    })
    .await;
}

/// A line of JSON, with its fields in the order of a value.
fn in_order(line: &str) -> String {
    let event: Value = serde_json::from_str(line).expect("an event");
    event.to_string()
}

/// Submits one service after another; what is not answered by a yes is asked again.
async fn submit_for_ever(
    client: usize,
    api: String,
    tell: tokio::sync::mpsc::UnboundedSender<Accepted>,
) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        let name = format!("web-{client}-{number}");
        let body = json!({"name": name, "image": IMAGE, "replicas": REPLICAS});
        loop {
            pace.tick().await;
            match send(&api, "POST", "/service", Some(&body)).await {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                Ok(answer) if answer.status == 503 => {}
                other => panic!("neither yes nor later: {other:?}"),
            }
        }
        let when = Instant::now();
        if tell.send(Accepted { name, when }).is_err() {
            return;
        }
    }
}
