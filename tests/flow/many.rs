//! Many of everything: each pod is assigned once and runs once, whoever dies on the way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::http::post;
use crate::support::process::Daemon;
use crate::support::{RedisServer, eventually};

const API: &str = env!("CARGO_BIN_EXE_kubeleet-api");
const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
const NODES: usize = 100;
const SERVICES: usize = 25;
const REPLICAS: usize = 400;
const PODS: usize = SERVICES * REPLICAS;
const APIS: usize = 3;
const SCHEDULERS: usize = 4;
/// Time between two kills: often enough for many kills before all is placed.
const KILL_INTERVAL: Duration = Duration::from_millis(250);
/// Pods of one claim: small, so that most kills fall between a claim and its assign.
const BATCH: usize = 20;
/// A development build on two busy cores takes well under half of this.
const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test]
async fn ten_thousand_pods_are_assigned_once_while_schedulers_are_killed() {
    // A Redis of its own: other tests look at times while this one keeps it busy.
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |_| {}).await;
    // A hundred agents share this process: none may be lost for being slow.
    cluster.settings.heartbeat.interval = Duration::from_secs(2);
    cluster.settings.heartbeat.lease = Duration::from_secs(60);
    cluster.settings.scheduler.batch = BATCH;
    cluster.settings.simulated.start_time = Duration::ZERO;
    cluster.settings.redis.pool_size = 2;
    cluster.add_nodes(NODES).await;
    let mut schedulers: Vec<Daemon> = (0..SCHEDULERS)
        .map(|_| cluster.daemon(SCHEDULER, &[]))
        .collect();
    let mut apis = Vec::new();
    for _ in 0..APIS {
        apis.push(Daemon::api(API, &cluster.settings, &[]).await);
    }
    let posts = async {
        for number in 0..SERVICES {
            let body =
                format!(r#"{{"name":"web-{number}","image":"{IMAGE}","replicas":{REPLICAS}}}"#);
            let (_, address) = &apis[number % APIS];
            let answer = post(address, "/service", "", &body).await;
            assert!(matches!(answer, Ok((201, _))), "{answer:?}");
        }
    };
    let mut kills = 0;
    let mut last_kill = Instant::now();
    let kill_until_all_run = eventually(LIMIT, "all run", async || {
        if last_kill.elapsed() >= KILL_INTERVAL {
            // What is replaced is killed by -9.
            schedulers[kills % SCHEDULERS] = cluster.daemon(SCHEDULER, &[]);
            kills += 1;
            last_kill = Instant::now();
        }
        let live: usize = cluster.live_by_node().values().sum();
        if live == PODS {
            Ok(())
        } else {
            Err(format!("{live} run after {kills} kills"))
        }
    });
    tokio::join!(posts, kill_until_all_run);
    assert!(kills >= 5, "only {kills} were killed");

    let pods = cluster.all_running(SOON).await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "assigned twice");
    let live = cluster.live();
    let ids: HashSet<_> = live.iter().map(|(_, it)| &it.pod).collect();
    assert_eq!((pods.len(), live.len(), ids.len()), (PODS, PODS, PODS));
    cluster.assert_exactly_once(&pods);
    for (node, count) in cluster.live_by_node() {
        let creates = cluster.engine(&node).counts().creates;
        assert_eq!(creates, count as u64, "{node}");
    }
    cluster.end().await;
}
