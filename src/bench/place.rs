//! Placements per second: real claims, plans and assignments over nodes that only exist in Redis.
//!
//! Beside it the floor: the same claim and assign calls with a constant node instead of a plan.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::machine::own_cpu_s;
use super::mix::{self, Constraints};
use super::{Bench, LOOK, Machine, Measured, PATIENCE, figure, milliseconds, per, percentile};
use crate::model::{PodId, ServiceKey, ServiceSpec};
use crate::scheduler::place::{self, Placer};
use crate::settings::SchedulerSettings;
use crate::store::{Assignment, PAGE_MAX, PodFilter, Store, StoreLoad};

/// Rounds of each kind; the middle one counts.
const ROUNDS: usize = 3;
/// Longer than any round: nobody beats here.
const LEASE: Duration = Duration::from_secs(3600);

/// What is placed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PlaceWish {
    /// Nodes.
    pub nodes: u32,
    /// Pods placed in each round.
    pub pods: u32,
    /// Services that they are of.
    pub services: u32,
    /// Schedulers that place them, side by side.
    pub schedulers: u32,
    /// What the pods ask of their nodes.
    pub constraints: Constraints,
}

/// Placements per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PlaceFigures {
    /// What was placed.
    #[serde(flatten)]
    pub wish: PlaceWish,
    /// Pods assigned per second with a plan, out of a full queue.
    pub pods_per_second: f64,
    /// Pods without constraints assigned per second with a constant node instead of a plan.
    pub floor_pods_per_second: f64,
    /// The first over the second.
    pub ratio: f64,
    /// Milliseconds of new schedulers' first look at all nodes, before any pod; later ones read
    /// only what changed, and are part of the rate.
    pub first_look_ms: f64,
    /// Commands of Redis for each pod, those within functions too.
    pub redis_commands_per_pod: f64,
    /// Round trips for each pod.
    pub round_trips_per_pod: f64,
    /// Microseconds of Redis's cpu for each pod.
    pub redis_cpu_us_per_pod: f64,
    /// Likewise, in the floor.
    pub floor_redis_cpu_us_per_pod: f64,
    /// Microseconds of the schedulers' cpu for each pod.
    pub scheduler_cpu_us_per_pod: f64,
    /// Share of the time in which Redis, which has one core, was at work.
    pub redis_busy: f64,
    /// Pods that fit nowhere.
    pub parked: u64,
    /// Pods per second from the submit's begin to the last assignment, both at once.
    pub submitted_pods_per_second: f64,
    /// Milliseconds from the begin of a service's submit to a pod's assignment, all submitted at once.
    pub submit_to_assigned_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub submit_to_assigned_p99_ms: f64,
}

/// What one round took.
#[derive(Clone, Copy, Default)]
struct Round {
    pods_per_second: f64,
    looked_ms: f64,
    commands: f64,
    calls: f64,
    redis_us: f64,
    own_us: f64,
    redis_busy: f64,
    parked: u64,
}

/// Measures placing `wish`.
///
/// # Errors
/// Redis did not start, or failed.
pub async fn place(wish: PlaceWish) -> anyhow::Result<Measured<PlaceFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let measured = measure(&mut bench, wish).await;
    bench.stop().await;
    Ok(Measured {
        figures: measured?,
        machine,
    })
}

async fn measure(bench: &mut Bench, wish: PlaceWish) -> anyhow::Result<PlaceFigures> {
    let specs = mix::services(wish.constraints, wish.services, wish.pods, wish.nodes);
    let plain = mix::services(Constraints::None, wish.services, wish.pods, wish.nodes);
    let (mut planned, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Taken in turns, so that what disturbs the machine disturbs both.
        let store = prepare(bench, wish.nodes, &specs).await?;
        planned.push(round(&store, wish, false).await?);
        let store = prepare(bench, wish.nodes, &plain).await?;
        floor.push(round(&store, wish, true).await?);
    }
    let flow = measure_flow(bench, wish, &specs).await?;
    let (planned, floor) = (middle(planned), middle(floor));
    Ok(PlaceFigures {
        wish,
        pods_per_second: planned.pods_per_second.round(),
        floor_pods_per_second: floor.pods_per_second.round(),
        ratio: figure(planned.pods_per_second / floor.pods_per_second),
        first_look_ms: planned.looked_ms,
        redis_commands_per_pod: figure(planned.commands),
        round_trips_per_pod: figure(planned.calls),
        redis_cpu_us_per_pod: figure(planned.redis_us),
        floor_redis_cpu_us_per_pod: figure(floor.redis_us),
        scheduler_cpu_us_per_pod: figure(planned.own_us),
        redis_busy: figure(planned.redis_busy),
        parked: planned.parked,
        submitted_pods_per_second: flow.0,
        submit_to_assigned_p50_ms: flow.1,
        submit_to_assigned_p99_ms: flow.2,
    })
}

/// Registers the nodes and submits the services.
async fn prepare(bench: &mut Bench, nodes: u32, specs: &[ServiceSpec]) -> anyhow::Result<Store> {
    let store = bench.fresh_cluster().await?;
    mix::register(&store, 0..nodes, nodes, LEASE, mix::PODS_MAX).await?;
    for spec in specs {
        mix::submit(&store, spec).await?;
    }
    Ok(store)
}

/// One round: all schedulers look at the nodes, then empty the queue side by side.
async fn round(store: &Store, wish: PlaceWish, is_floor: bool) -> anyhow::Result<Round> {
    let ready = Arc::new(Barrier::new(wish.schedulers as usize + 1));
    let mut schedulers = JoinSet::new();
    for _ in 0..wish.schedulers {
        let (store, ready) = (store.clone(), ready.clone());
        schedulers.spawn(async move {
            let settings = SchedulerSettings::default();
            let mut placer = Placer::new(&store, &settings, LEASE);
            let began = Instant::now();
            if !is_floor {
                placer.look().await?;
            }
            let looked = began.elapsed();
            ready.wait().await;
            ready.wait().await; // for what Redis has done until now to be noted
            if is_floor {
                drain_to_one_node(&store, &settings).await?;
            } else {
                placer.drain(&CancellationToken::new()).await?;
            }
            anyhow::Ok(looked)
        });
    }
    ready.wait().await;
    let (before, own_before) = (store.load().await?, own_cpu_s());
    let began = Instant::now();
    ready.wait().await;
    let mut looked = Duration::ZERO;
    while let Some(done) = schedulers.join_next().await {
        looked = looked.max(done??);
    }
    let took = began.elapsed();
    let (after, own_after) = (store.load().await?, own_cpu_s());
    let depths = store.queue().depths().await?;
    anyhow::ensure!(
        depths.normal == 0 && depths.claims == 0,
        "all pods are placed: {depths:?}"
    );
    let pods = f64::from(wish.pods);
    let of = |count: fn(&StoreLoad) -> u64| per(count(&after) - count(&before), wish.pods);
    Ok(Round {
        pods_per_second: pods / took.as_secs_f64(),
        looked_ms: milliseconds(looked),
        commands: of(|load| load.commands),
        calls: of(|load| load.calls),
        redis_us: (after.cpu_s - before.cpu_s) * 1e6 / pods,
        own_us: (own_after - own_before) * 1e6 / pods,
        redis_busy: (after.cpu_s - before.cpu_s) / took.as_secs_f64(),
        parked: depths.parked,
    })
}

/// The same calls with a constant node instead of a plan.
async fn drain_to_one_node(store: &Store, settings: &SchedulerSettings) -> anyhow::Result<()> {
    let claim = || async {
        let queue = store.queue();
        queue.claim(settings.claim_lease, settings.batch).await
    };
    let mut current = claim().await?;
    while !current.batch.is_empty() {
        let assignment = Assignment {
            nodes: vec![("node0", 0)],
            pods: current.pods.iter().map(|pod| (&pod.id, 0)).collect(),
            ..Assignment::default()
        };
        let nonce = PodId::new_submission();
        let queue = store.queue();
        let assign = queue.assign(&current.batch, &nonce, LEASE, &assignment);
        let (assigned, next) = tokio::join!(assign, claim());
        assigned?;
        current = next?;
    }
    Ok(())
}

/// Submits while whole schedulers place; pods a second, and the middle and late times of all pods.
async fn measure_flow(
    bench: &mut Bench,
    wish: PlaceWish,
    specs: &[ServiceSpec],
) -> anyhow::Result<(f64, f64, f64)> {
    let store = bench.fresh_cluster().await?;
    mix::register(&store, 0..wish.nodes, wish.nodes, LEASE, mix::PODS_MAX).await?;
    let ends = CancellationToken::new();
    let mut schedulers = JoinSet::new();
    for _ in 0..wish.schedulers {
        let (store, ends) = (store.clone(), ends.clone());
        schedulers.spawn(async move {
            place::run(&store, &SchedulerSettings::default(), LEASE, &ends).await;
        });
    }
    // The first pod has the schedulers look at all nodes, and does not count.
    let warm = ServiceSpec::new("bench-warm", "bench");
    mix::submit(&store, &warm).await?;
    assigned(&store).await?;
    let mut begun = Vec::new();
    let began = Instant::now();
    for spec in specs {
        begun.push(store.clock_ms().await?);
        mix::submit(&store, spec).await?;
    }
    assigned(&store).await?;
    let took = began.elapsed();
    ends.cancel();
    while schedulers.join_next().await.is_some() {}
    let mut times = Vec::new();
    for (spec, begun_ms) in specs.iter().zip(begun) {
        times.extend(placed_since(&store, &spec.key(), begun_ms).await?);
    }
    times.sort();
    Ok((
        (f64::from(wish.pods) / took.as_secs_f64()).round(),
        milliseconds(percentile(&times, 0.5)),
        milliseconds(percentile(&times, 0.99)),
    ))
}

/// Times from `begun_ms`, by Redis's clock, to the assignment of each of a service's pods.
pub(super) async fn placed_since(
    store: &Store,
    service: &ServiceKey,
    begun_ms: u64,
) -> anyhow::Result<Vec<Duration>> {
    let filter = PodFilter {
        service: Some(service.clone()),
        ..PodFilter::default()
    };
    let mut times = Vec::new();
    let mut cursor = None;
    loop {
        let pods = store.pods();
        let page = pods.list(&filter, cursor.as_deref(), PAGE_MAX).await?;
        let placed = page.pods.iter().filter(|pod| pod.node.is_some());
        let since = placed.map(|pod| pod.changed_ms.saturating_sub(begun_ms));
        times.extend(since.map(Duration::from_millis));
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(times);
        }
    }
}

/// Waits until nothing waits.
pub(super) async fn assigned(store: &Store) -> anyhow::Result<()> {
    let empty = async {
        loop {
            let depths = store.queue().depths().await?;
            if depths.normal == 0 && depths.claims == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, empty).await?
}

/// The round of middle speed.
fn middle(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|one, other| one.pods_per_second.total_cmp(&other.pods_per_second));
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}
