//! How long the pods of lost nodes wait: one node with very many, and a tenth of all nodes at once.
//!
//! Nodes exist only in Redis and beat; those that are lost fall silent together. Placing and
//! sweeping are the real ones.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::beating::Beating;
use super::place::assigned;
use super::{Bench, LOOK, Machine, Measured, PATIENCE, figure, mix};
use crate::model::ServiceSpec;
use crate::scheduler::{self, sweep};
use crate::settings::Settings;
use crate::store::Store;

/// Heartbeats in a lease.
const BEATS: u32 = 3;
/// Living nodes beside the one that is lost.
const OTHERS: u32 = 9;
/// Calls from this on are noted.
const NOTED: Duration = Duration::from_millis(1);
/// No call may hold Redis up for longer.
const SLOW: Duration = Duration::from_millis(10);

/// What is lost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LossWish {
    /// Pods of the one node that is lost first.
    pub one_node_pods: u32,
    /// Nodes of the larger cluster.
    pub nodes: u32,
    /// How many of them are lost at once.
    pub lost: u32,
    /// Pods on these.
    pub pods: u32,
    /// Seconds of a lease: what follows its end is the same for any.
    pub lease_seconds: u32,
}

impl LossWish {
    fn lease(self) -> Duration {
        Duration::from_secs(u64::from(self.lease_seconds))
    }
}

/// How long it took.
#[derive(Debug, Clone, Serialize)]
pub struct LossFigures {
    /// What was lost.
    #[serde(flatten)]
    pub wish: LossWish,
    /// Seconds from the end of the one node's lease until all its pods are in the queue.
    pub one_node_queued_s: f64,
    /// Seconds from the end of the last lease until all pods of the lost nodes are on others.
    pub reassigned_s: f64,
    /// Longest time that one call held Redis up meanwhile.
    pub slowest_call_ms: f64,
    /// Which call that was.
    pub slowest_call: String,
    /// Calls that held it up for longer than ten milliseconds.
    pub calls_over_10_ms: usize,
}

/// Measures it.
///
/// # Errors
/// Redis failed, or it took too long.
pub async fn loss(wish: LossWish) -> anyhow::Result<Measured<LossFigures>> {
    anyhow::ensure!(
        wish.lost * 2 < wish.nodes,
        "fewer than half of all nodes may be lost at once: more wait for another lease"
    );
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let store = bench.fresh_cluster().await?;
    let one = lose_one(&store, wish).await?;
    let store = bench.fresh_cluster().await?;
    let many = lose_many(&store, wish).await;
    let slow = store.slow_calls().await?;
    bench.stop().await;
    let figures = LossFigures {
        wish,
        one_node_queued_s: figure(one.as_secs_f64()),
        reassigned_s: figure(many?.as_secs_f64()),
        slowest_call_ms: slow
            .first()
            .map_or(0.0, |call| super::milliseconds(call.took)),
        slowest_call: slow
            .first()
            .map(|call| call.name.clone())
            .unwrap_or_default(),
        calls_over_10_ms: slow.iter().filter(|call| call.took > SLOW).count(),
    };
    Ok(Measured { figures, machine })
}

/// One node with all pods is lost, and nobody places them.
async fn lose_one(store: &Store, wish: LossWish) -> anyhow::Result<Duration> {
    let pods_max = wish.one_node_pods;
    let nodes = 1 + OTHERS;
    let (lease, interval) = (wish.lease(), wish.lease() / BEATS);
    let victim = mix::register(store, 0..1, nodes, lease, pods_max).await?;
    let beating = Beating::start(store, 0, &victim, interval, pods_max);
    place(store, wish.one_node_pods, lease).await?;
    let others = mix::register(store, 1..nodes, nodes, lease, pods_max).await?;
    let living = Beating::start(store, 1, &others, interval, pods_max);
    let ends = CancellationToken::new();
    let sweeping = {
        let (store, ends) = (store.clone(), ends.clone());
        let settings = Settings::default().scheduler;
        tokio::spawn(async move { sweep::run(&store, &settings, lease, &ends).await })
    };
    // The first sweep gives every node one lease of grace.
    tokio::time::sleep(lease).await;
    beating.stop().await?;
    let over = last_beat(store, 0, &victim, pods_max).await? + lease;
    tokio::time::sleep_until(over.into()).await;
    let all = u64::from(wish.one_node_pods);
    until(async || Ok(store.queue().depths().await?.normal >= all)).await?;
    let took = over.elapsed();
    ends.cancel();
    sweeping.await?;
    living.stop().await?;
    Ok(took)
}

/// Some nodes are lost at once, with all pods, while a whole scheduler is at work.
async fn lose_many(store: &Store, wish: LossWish) -> anyhow::Result<Duration> {
    let (lost, nodes) = (wish.lost, wish.nodes);
    let pods_max = wish.pods;
    let (lease, interval) = (wish.lease(), wish.lease() / BEATS);
    let victims = mix::register(store, 0..lost, nodes, lease, pods_max).await?;
    let beating = Beating::start(store, 0, &victims, interval, pods_max);
    place(store, wish.pods, lease).await?;
    let others = mix::register(store, lost..nodes, nodes, lease, pods_max).await?;
    let living = Beating::start(store, lost, &others, interval, pods_max);
    let ends = CancellationToken::new();
    let scheduling = {
        let (store, ends) = (store.clone(), ends.clone());
        let mut settings = Settings::default();
        settings.heartbeat.lease = lease;
        tokio::spawn(async move { scheduler::run(store, &settings, ends).await })
    };
    tokio::time::sleep(lease).await;
    beating.stop().await?;
    store.watch_slow_calls(NOTED).await?;
    let over = last_beat(store, 0, &victims, pods_max).await? + lease;
    tokio::time::sleep_until(over.into()).await;
    until(async || {
        let swept = store.nodes().lost().await?.len();
        let depths = store.queue().depths().await?;
        let waiting = depths.normal + depths.claims + depths.parked;
        Ok(swept == lost as usize && waiting == 0)
    })
    .await?;
    let took = over.elapsed();
    ends.cancel();
    scheduling.await?;
    living.stop().await?;
    Ok(took)
}

/// Places pods on the nodes that are there.
async fn place(store: &Store, pods: u32, lease: Duration) -> anyhow::Result<()> {
    let mut spec = ServiceSpec::new("bench", "bench");
    spec.replicas = pods;
    let ends = CancellationToken::new();
    let placing = {
        let (store, ends) = (store.clone(), ends.clone());
        let settings = Settings::default().scheduler;
        tokio::spawn(async move {
            scheduler::place::run(&store, &settings, lease, &ends).await;
        })
    };
    mix::submit(store, &spec).await?;
    assigned(store).await?;
    ends.cancel();
    placing.await?;
    Ok(())
}

/// Has all these nodes beat once more; when the last one did.
async fn last_beat(
    store: &Store,
    first: u32,
    epochs: &[u64],
    pods_max: u32,
) -> anyhow::Result<Instant> {
    let beat = mix::beat(pods_max);
    for (number, epoch) in (first..).zip(epochs) {
        let nodes = store.nodes();
        nodes.heartbeat(&mix::node(number), *epoch, &beat).await?;
    }
    Ok(Instant::now())
}

async fn until(mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let looking = async {
        while !is_so().await? {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, looking).await?
}
