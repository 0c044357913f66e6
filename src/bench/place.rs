//! Placements per second: real claims, plans and assignments over nodes that only exist in Redis.
//!
//! Beside it the floor: the same claim and assign calls with a constant node instead of a plan.

use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Bench, milliseconds};
use crate::model::{Capacity, EngineState, PodId, Pressure, ServiceSpec};
use crate::scheduler::place::Placer;
use crate::settings::SchedulerSettings;
use crate::store::{Assignment, Beat, Store, Submit, SubmitMode};

/// Rounds of each kind; the middle one counts.
const ROUNDS: usize = 3;
/// Nodes that register at once.
const REGISTRATIONS: usize = 64;
/// Longer than any round: nobody beats here.
const LEASE: Duration = Duration::from_secs(3600);
/// Room on each node: one node takes all in a floor's round.
const PODS_MAX: u32 = 100_000_000;

/// Placements per second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PlaceFigures {
    /// Nodes.
    pub nodes: u32,
    /// Pods placed in each round.
    pub pods: u32,
    /// Pods assigned per second with a plan.
    pub pods_per_second: f64,
    /// Pods assigned per second with a constant node instead of a plan.
    pub floor_pods_per_second: f64,
    /// The first over the second.
    pub ratio: f64,
    /// Milliseconds of a new scheduler's first look at all nodes, before any pod; later ones read
    /// only what changed, and are part of the rate.
    pub first_look_ms: f64,
}

/// Measures placing `pods` equal pods on `nodes` idle nodes by one scheduler.
///
/// # Errors
/// Redis did not start, or failed.
pub async fn place(nodes: u32, pods: u32) -> anyhow::Result<PlaceFigures> {
    let mut bench = Bench::new().await?;
    let (mut looks, mut planned, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Taken in turns, so that what disturbs the machine disturbs both.
        let store = prepare(&mut bench, nodes, pods).await?;
        let (looked, took) = measure_plan(&store).await?;
        looks.push(milliseconds(looked));
        planned.push(rate(pods, took));
        let store = prepare(&mut bench, nodes, pods).await?;
        floor.push(rate(pods, measure_floor(&store).await?));
    }
    bench.stop().await;
    let (pods_per_second, floor_pods_per_second) = (middle(planned), middle(floor));
    Ok(PlaceFigures {
        nodes,
        pods,
        pods_per_second: pods_per_second.round(),
        floor_pods_per_second: floor_pods_per_second.round(),
        ratio: (pods_per_second / floor_pods_per_second * 1000.0).round() / 1000.0,
        first_look_ms: middle(looks),
    })
}

/// Registers the nodes and submits the pods.
async fn prepare(bench: &mut Bench, nodes: u32, pods: u32) -> anyhow::Result<Store> {
    let store = bench.fresh_cluster().await?;
    let beat = Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max: PODS_MAX,
            cpu_millis: 64_000,
            memory_bytes: 256 << 30,
        },
        pressure: Pressure {
            known: true,
            ..Pressure::default()
        },
        ..Beat::default()
    };
    let register = |number: u32| {
        let (store, beat) = (&store, &beat);
        async move {
            let name = format!("node{number}");
            store.nodes().register(&name, &name, LEASE, beat).await
        }
    };
    let all: Vec<_> = iter(0..nodes)
        .map(register)
        .buffer_unordered(REGISTRATIONS)
        .try_collect()
        .await?;
    anyhow::ensure!(all.len() == nodes as usize, "all nodes register");
    let spec = ServiceSpec {
        replicas: pods,
        ..ServiceSpec::new("bench", "bench")
    };
    let submission = PodId::new_submission();
    let submit = Submit {
        spec: &spec,
        submission: &submission,
        idempotency: None,
        mode: SubmitMode::Create,
    };
    store.services().submit(&submit).await?;
    Ok(store)
}

/// Times of the first look at all nodes, and of placing all pods after it.
async fn measure_plan(store: &Store) -> anyhow::Result<(Duration, Duration)> {
    let settings = SchedulerSettings::default();
    let mut placer = Placer::new(store, &settings, LEASE);
    let began = Instant::now();
    placer.look().await?;
    let looked = began.elapsed();
    let began = Instant::now();
    placer.drain(&CancellationToken::new()).await?;
    let took = began.elapsed();
    let depths = store.queue().depths().await?;
    anyhow::ensure!(
        depths.normal == 0 && depths.parked == 0,
        "all pods are placed: {depths:?}"
    );
    Ok((looked, took))
}

async fn measure_floor(store: &Store) -> anyhow::Result<Duration> {
    let settings = SchedulerSettings::default();
    let claim = || async {
        store
            .queue()
            .claim(settings.claim_lease, settings.batch)
            .await
    };
    let began = Instant::now();
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
    Ok(began.elapsed())
}

fn rate(pods: u32, took: Duration) -> f64 {
    f64::from(pods) / took.as_secs_f64()
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
