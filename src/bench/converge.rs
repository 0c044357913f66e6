//! How fast changed services converge: real stations, with simulated engines.
//!
//! The applies go to Redis as the API's do, without HTTP. All else is what runs in a cluster: one
//! controller that plans each replacement, one scheduler, and agents whose engines start and stop
//! in no time.

use std::time::{Duration, Instant};

use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde::Serialize;

use super::fleet::{Fleet, IMAGE};
use super::machine::own_cpu_s;
use super::mix::{self, AT_ONCE};
use super::{Bench, Machine, Measured, figure, per};
use crate::model::{Phase, ServiceKey, ServiceSpec};
use crate::settings::{RuntimeKind, Settings};

/// What converges.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ConvergeWish {
    /// Services of one pod each.
    pub services: u32,
    /// Simulated nodes.
    pub nodes: u32,
}

/// How fast.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ConvergeFigures {
    /// What converged.
    #[serde(flatten)]
    pub wish: ConvergeWish,
    /// Seconds from the first submit of new services until all their pods run.
    pub created_s: f64,
    /// Seconds in which all changes were applied.
    pub applied_s: f64,
    /// Seconds from the first change until every service has one pod, which runs the new revision.
    pub converged_s: f64,
    /// Services a second, by that.
    pub services_per_second: f64,
    /// Commands of Redis for each changed service, those within functions too.
    pub redis_commands_per_service: f64,
    /// Round trips for each changed service.
    pub round_trips_per_service: f64,
    /// Share of the time in which Redis, which has one core, was at work.
    pub redis_busy: f64,
    /// Cores that all stations in this process used.
    pub stations_cores: f64,
}

/// Measures it.
///
/// # Errors
/// Redis failed, or it took too long.
pub async fn converge(wish: ConvergeWish) -> anyhow::Result<Measured<ConvergeFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let mut settings = Settings::default();
    settings.node.runtime = RuntimeKind::Simulated;
    // While all are replaced each service may have two pods.
    settings.node.pods_max = (wish.services.div_ceil(wish.nodes) * 4).max(250);
    settings.simulated.start_time = Duration::ZERO;
    settings.simulated.stop_time = Duration::ZERO;
    let mut fleet = Fleet::new(&mut bench, settings, 1).await?;
    fleet.start_agents(wish.nodes).await?;
    let figures = measure(&fleet, wish).await;
    fleet.stop().await;
    bench.stop().await;
    Ok(Measured {
        figures: figures?,
        machine,
    })
}

async fn measure(fleet: &Fleet, wish: ConvergeWish) -> anyhow::Result<ConvergeFigures> {
    let mut specs: Vec<ServiceSpec> = (0..wish.services)
        .map(|number| ServiceSpec::new(format!("bench-{number}"), IMAGE))
        .collect();
    let keys: Vec<ServiceKey> = specs.iter().map(ServiceSpec::key).collect();
    let began = Instant::now();
    apply(fleet, &specs).await?;
    fleet.until_running(&keys, wish.services).await?;
    let created = began.elapsed();

    for spec in &mut specs {
        spec.env.insert("CHANGED".to_owned(), "yes".to_owned());
    }
    let (before, own_before) = (fleet.store.load().await?, own_cpu_s());
    let began = Instant::now();
    apply(fleet, &specs).await?;
    let applied = began.elapsed();
    // The engines are in this process: looking at them costs Redis nothing.
    let services = u64::from(wish.services);
    fleet
        .until(async || Ok(fleet.starts() >= 2 * services && fleet.live() == services))
        .await?;
    let took = began.elapsed();
    let (after, own_after) = (fleet.store.load().await?, own_cpu_s());
    fleet
        .until(async || all_converged(fleet, &keys).await)
        .await?;

    let (created_s, applied_s, converged_s) = (
        created.as_secs_f64(),
        applied.as_secs_f64(),
        took.as_secs_f64(),
    );
    Ok(ConvergeFigures {
        wish,
        created_s: figure(created_s),
        applied_s: figure(applied_s),
        converged_s: figure(converged_s),
        services_per_second: (f64::from(wish.services) / converged_s).round(),
        redis_commands_per_service: figure(per(after.commands - before.commands, wish.services)),
        round_trips_per_service: figure(per(after.calls - before.calls, wish.services)),
        redis_busy: figure((after.cpu_s - before.cpu_s) / converged_s),
        stations_cores: figure((own_after - own_before) / converged_s),
    })
}

async fn apply(fleet: &Fleet, specs: &[ServiceSpec]) -> anyhow::Result<()> {
    let applies = specs.iter().map(|spec| mix::submit(&fleet.store, spec));
    iter(applies).buffer_unordered(AT_ONCE).try_collect().await
}

/// Whether Redis says the same: each service has one pod, which runs its second revision.
async fn all_converged(fleet: &Fleet, services: &[ServiceKey]) -> anyhow::Result<bool> {
    let is_converged = |service| async move {
        let view = fleet.store.wishes().view(service).await?;
        let pods = view.map(|view| view.pods).unwrap_or_default();
        let runs = |phase| phase == Some(Phase::Running);
        anyhow::Ok(matches!(&*pods, [pod] if pod.revision == 2 && runs(pod.phase)))
    };
    let looks = iter(services.iter().map(is_converged)).buffer_unordered(AT_ONCE);
    looks.try_all(async |is_so| is_so).await
}
