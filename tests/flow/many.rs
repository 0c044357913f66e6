//! Many of everything: each pod is assigned once and runs once, whoever dies on the way.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use kubeleet::model::Phase;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::process::Daemon;

const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
const NODES: usize = 100;
const PODS: u32 = 10_000;
const SCHEDULERS: usize = 4;
/// Time between two kills.
const KILL_INTERVAL: Duration = Duration::from_secs(1);
/// A development build on two busy cores takes well under half of this.
const LIMIT: Duration = Duration::from_secs(150);

#[tokio::test]
async fn ten_thousand_pods_are_assigned_once_while_schedulers_are_killed() {
    let mut cluster = Cluster::empty().await;
    // A hundred agents share this process: none may be lost for being slow.
    cluster.settings.heartbeat.interval = Duration::from_secs(2);
    cluster.settings.heartbeat.lease = Duration::from_secs(60);
    cluster.settings.scheduler.batch = 100;
    cluster.settings.simulated.start_time = Duration::ZERO;
    cluster.settings.redis.pool_size = 2;
    cluster.add_nodes(NODES).await;
    let mut schedulers: Vec<Daemon> = (0..SCHEDULERS)
        .map(|_| cluster.daemon(SCHEDULER, &[]))
        .collect();
    let service = cluster.submit("web", PODS).await;

    let mut kills = 0;
    let mut last_kill = Instant::now();
    eventually(LIMIT, "all run", async || {
        if last_kill.elapsed() >= KILL_INTERVAL {
            schedulers[kills % SCHEDULERS] = cluster.daemon(SCHEDULER, &[]);
            kills += 1;
            last_kill = Instant::now();
        }
        let (_, running) = cluster.service(&service).await.unwrap();
        if running == PODS {
            Ok(())
        } else {
            Err(format!("{running} run after {kills} kills"))
        }
    })
    .await;
    assert!(kills >= 1, "nobody was killed");

    let pods = cluster
        .all_in(&service, Phase::Running, PODS as usize)
        .await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "assigned twice");
    let live = cluster.live();
    let ids: HashSet<_> = live.iter().map(|(_, it)| &it.pod).collect();
    assert_eq!((live.len(), ids.len()), (PODS as usize, PODS as usize));
    cluster.assert_exactly_once(&pods);
    for (node, count) in cluster.live_by_node() {
        assert_eq!(
            cluster.engine(&node).counts().creates,
            count as u64,
            "{node}"
        );
    }
    cluster.end().await;
}
