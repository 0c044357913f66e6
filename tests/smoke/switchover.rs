//! A planned switchover and a killed master under load: nothing accepted is lost, and clients that retry
//! see no error.

use std::time::{Duration, Instant};

use kubeleet::settings::{RedisSettings, Secret};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::{Cluster, LEET, Process, Timing, send, show};
use crate::support::SentinelSet;

/// Time between two submits of a client.
const PACE: Duration = Duration::from_millis(40);
/// Services accepted before the fault, and after.
const ENOUGH: usize = 200;
/// Longest time without an accepted service. On a calm machine a switchover takes about 1 s, and a
/// killed master 2 s above its down-after.
const GAP_MAX: Duration = Duration::from_secs(6);

/// A client was answered yes.
struct Accepted {
    name: String,
    when: Instant,
    /// Answers of 503 before.
    again: u32,
}

/// Clients that submit to two APIs on a set of three.
struct Load {
    _cluster: Cluster,
    _apis: Vec<Process>,
    clients: Vec<JoinHandle<()>>,
    told: mpsc::UnboundedReceiver<Accepted>,
    accepted: Vec<Accepted>,
    rate: f64,
}

impl Load {
    /// Starts so many clients, and waits until enough was accepted.
    async fn start(set: &SentinelSet, clients: usize) -> Load {
        let addresses = set.addresses();
        let settings = RedisSettings {
            sentinels: addresses.iter().cloned().map(Secret).collect(),
            ..RedisSettings::default()
        };
        let variables = vec![("KUBELEET_REDIS__SENTINELS", addresses.join(","))];
        let cluster = Cluster::open(&settings, Timing::REAL, variables).await;
        let addresses = [free_address(), free_address()];
        let mut apis = Vec::new();
        for address in &addresses {
            apis.push(cluster.quiet_api_at(address).await);
        }
        let (tell, told) = mpsc::unbounded_channel();
        let client = |client: usize| {
            let api = addresses[client % addresses.len()].clone();
            tokio::spawn(submit_for_ever(client, api, tell.clone()))
        };
        let mut load = Load {
            _cluster: cluster,
            _apis: apis,
            clients: (0..clients).map(client).collect(),
            told,
            accepted: Vec::new(),
            rate: 0.0,
        };
        let began = Instant::now();
        load.more_since(began).await;
        let accepted = u32::try_from(load.accepted.len()).expect("a count");
        load.rate = f64::from(accepted) / began.elapsed().as_secs_f64();
        load
    }

    /// Waits until enough was accepted after `since`.
    async fn more_since(&mut self, since: Instant) {
        let mut after = 0;
        while after < ENOUGH {
            let next = tokio::time::timeout(Duration::from_secs(60), self.told.recv()).await;
            let next = next.expect("service resumes").expect("the clients go on");
            after += usize::from(next.when > since);
            self.accepted.push(next);
        }
    }

    /// Ends the clients; all that was accepted must be on the master. The longest time without.
    async fn end(mut self, set: &mut SentinelSet, what: &str) {
        for client in &self.clients {
            client.abort();
        }
        while let Ok(last) = self.told.try_recv() {
            self.accepted.push(last);
        }
        self.accepted.sort_by_key(|one| one.when);
        let again: u32 = self.accepted.iter().map(|one| one.again).sum();
        let pairs = self.accepted.windows(2);
        let gap = pairs.map(|two| two[1].when - two[0].when).max();
        let gap = gap.expect("more than one");
        let (all, rate) = (self.accepted.len(), self.rate);
        let master = set.master().await;
        let mut lost = Vec::new();
        for one in &self.accepted {
            let key = format!("service:default/{}", one.name);
            if master.must(&["EXISTS", &key]).await != redis::Value::Int(1) {
                lost.push(&one.name);
            }
        }
        show(format_args!(
            "{what}: {all} accepted at {rate:.0}/s, {} lost, gap of clients {gap:?}, {again} asked again",
            lost.len()
        ));
        assert!(lost.is_empty(), "accepted and lost: {lost:?}");
        assert!(gap < GAP_MAX, "nothing was accepted for {gap:?}");
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", crate::support::free_port())
}

#[tokio::test]
async fn a_switchover_loses_nothing_and_clients_that_retry_see_no_error() {
    let mut set = SentinelSet::start().await;
    // Sentinels ask their servers every 10 s; this test need not wait for that.
    for sentinel in &set.sentinels {
        let faster = ["SENTINEL", "DEBUG", "INFO-PERIOD", "1000"];
        sentinel.must(&faster).await;
    }
    let mut load = Load::start(&set, 12).await;

    let before = set.master_addr().await;
    let addresses = set.addresses();
    let mut line = vec!["redis", "switchover", "-o", "json"];
    for address in &addresses {
        line.extend(["--sentinel", address]);
    }
    let mut switching = Process::start(LEET, &line, &[]);
    let status = switching.ended(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0), "{switching}");
    load.more_since(Instant::now()).await;
    let done: Value = serde_json::from_str(&switching.out()).expect("JSON");
    assert_eq!(
        (&done["from"], &done["old_follows"]),
        (&json!(before), &json!(true))
    );
    assert_eq!(done["to"], json!(set.master_addr().await));
    assert_ne!(done["to"], done["from"]);
    load.end(&mut set, &format!("switchover {done}")).await;
    let priority = set.master().await;
    let priority = priority.must(&["CONFIG", "GET", "replica-priority"]).await;
    let priority: (String, String) = redis::from_redis_value(priority).expect("a pair");
    assert_eq!(priority.1, "100", "it is what it was");
}

#[tokio::test]
async fn a_killed_master_at_a_high_rate_loses_nothing_accepted() {
    let mut set = SentinelSet::start().await;
    let mut load = Load::start(&set, 40).await;
    set.kill_master().await;
    load.more_since(Instant::now() + Duration::from_secs(1))
        .await;
    load.end(&mut set, "kill -9, down-after 1 s").await;
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
