//! A node is frozen and comes back: its pods run elsewhere, and never twice for long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kubeleet::model::{Phase, Pod, PodId};
use serde_json::Value;

use crate::harness::{CalmMachine, Cluster, Timing, build_images, show};
use crate::support::{RedisServer, eventually};

/// Most time after the lease for a node to be given its last pod.
const LAST_POD: Duration = Duration::from_secs(1);
/// Most time after the lease until all pods run elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(10);
/// Most time after its return until the superseded containers are gone.
const GONE: Duration = Duration::from_secs(10);
/// Replicas of the service.
const REPLICAS: usize = 6;
/// Pods submitted with each missed heartbeat.
const WAVE: u32 = 3;

#[tokio::test]
async fn a_frozen_node_is_replaced_and_cleaned_up_in_quick_time() {
    a_frozen_node_is_replaced_and_cleaned_up(Timing::QUICK).await;
}

#[tokio::test]
async fn a_frozen_node_is_replaced_and_cleaned_up_in_real_time() {
    a_frozen_node_is_replaced_and_cleaned_up(Timing::REAL).await;
}

async fn a_frozen_node_is_replaced_and_cleaned_up(timing: Timing) {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, timing).await;
    // A busy machine would have them all on whichever node read its pressure at a better moment.
    let calm = CalmMachine::new();
    let frozen = cluster.agent("frozen", &[calm.variable()]).await;
    let _other = cluster.agent("other", &[calm.variable()]).await;
    let _scheduler = cluster.scheduler();
    cluster
        .submit("web", u32::try_from(REPLICAS).expect("a few"))
        .await;
    let pods = cluster.all_run(REPLICAS, ELSEWHERE).await;
    assert_eq!(on(&pods, "frozen"), REPLICAS / 2, "{pods:?}");

    frozen.signal("STOP");
    let stopped = Instant::now();
    let mut watch = Watch::default();
    // The last of them come when the lease is over.
    let waves_max = timing.lease.as_secs() / timing.interval.as_secs() + 2;
    let mut waves = 0;
    let elsewhere = eventually(timing.lease + ELSEWHERE, "all run elsewhere", async || {
        // New pods come all the time: as many as the frozen node would soon get its share of.
        let due = stopped.elapsed().as_secs() / timing.interval.as_secs();
        if waves < usize::try_from(due.min(waves_max)).expect("a few") {
            waves += 1;
            cluster.submit(&format!("late-{waves}"), WAVE).await;
        }
        let pods = cluster.pods().await;
        watch.see(&pods, stopped);
        let running = |pod: &&Pod| pod.phase == Phase::Running;
        let all = pods.iter().filter(running).count() == total(waves);
        let lost = stopped.elapsed() > timing.lease;
        if lost && all && on(&pods, "frozen") == 0 {
            Ok(stopped.elapsed())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    let total = total(waves);
    show(format_args!(
        "lease {:?}: last pod given to the frozen node after {:?}, all elsewhere after {elsewhere:?}",
        timing.lease, watch.last
    ));
    assert!(watch.last <= timing.lease + LAST_POD, "{:?}", watch.last);
    let doubled = cluster.containers.running().await;
    assert!(doubled.len() > total, "what the frozen node runs goes on");

    eventually(timing.lease * 4, "three leases are over", async || {
        let pods = cluster.pods().await;
        watch.see(&pods, stopped);
        assert_eq!(
            on(&pods, "frozen"),
            0,
            "a frozen node was given a pod: {pods:?}"
        );
        let age = stopped.elapsed();
        if age >= timing.lease * 3 {
            Ok(())
        } else {
            Err(format!("{age:?}"))
        }
    })
    .await;
    let kept = runs(&cluster, "other").await;
    frozen.signal("CONT");
    let resumed = Instant::now();
    eventually(GONE, "the superseded containers are gone", async || {
        let left = runs(&cluster, "frozen").await;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    show(format_args!(
        "lease {:?}: gone {:?} after its return",
        timing.lease,
        resumed.elapsed()
    ));
    cluster.all_run(total, GONE).await;
    let containers = cluster.containers.settle(total, GONE).await;
    assert_eq!(containers.len(), total);
    assert_eq!(
        runs(&cluster, "other").await,
        kept,
        "the new ones were left alone"
    );
    cluster.ready("frozen").await;
}

/// When which placement was first seen on the frozen node.
#[derive(Default)]
struct Watch {
    seen: HashMap<(PodId, u64), Duration>,
    last: Duration,
}

impl Watch {
    fn see(&mut self, pods: &[Pod], stopped: Instant) {
        for pod in pods
            .iter()
            .filter(|pod| pod.node.as_deref() == Some("frozen"))
        {
            let placement = (pod.id.clone(), pod.attempt);
            let first = self
                .seen
                .entry(placement)
                .or_insert_with(|| stopped.elapsed());
            self.last = self.last.max(*first);
        }
    }
}

fn total(waves: usize) -> usize {
    REPLICAS + waves * usize::try_from(WAVE).expect("a few")
}

fn on(pods: &[Pod], node: &str) -> usize {
    let on = |pod: &&Pod| pod.node.as_deref() == Some(node);
    pods.iter().filter(on).count()
}

/// Ids of all containers of a node, in order.
async fn runs(cluster: &Cluster, node: &str) -> Vec<String> {
    let all = cluster.containers.all().await;
    let ours = |one: &&Value| one["Config"]["Labels"]["kubeleet.node"] == node;
    all.iter()
        .filter(ours)
        .map(|one| one["Id"].to_string())
        .collect()
}
