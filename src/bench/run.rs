//! From one submit to running containers, agents included: simulated machines, or one with Docker.
//!
//! All agents are in this process and are the real ones; a simulated engine starts a container in
//! no time. The submit goes to Redis as the API's does, without HTTP.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::fleet::{Fleet, IMAGE};
use super::machine::{own_cpu_s, own_memory};
use super::mix::{self, Constraints};
use super::{Bench, Machine, Measured, figure, per};
use crate::container::{Docker, Runtime};
use crate::model::{ServiceKey, ServiceSpec};
use crate::settings::{RuntimeKind, Settings};

/// Name of the node with Docker.
const NODE: &str = "bench-node";

/// What is run.
#[derive(Debug, Clone, Serialize)]
pub struct RunWish {
    /// Nodes.
    pub nodes: u32,
    /// Pods.
    pub pods: u32,
    /// Services that they are of.
    pub services: u32,
    /// Schedulers, side by side.
    pub schedulers: u32,
    /// Seconds that all is watched at rest after that.
    pub rest_seconds: u32,
    /// Image that is run with Docker on one node; simulated where there is none.
    pub docker: Option<String>,
}

/// How fast, and what it takes.
#[derive(Debug, Clone, Serialize)]
pub struct RunFigures {
    /// What was run.
    #[serde(flatten)]
    pub wish: RunWish,
    /// Seconds until all agents were registered.
    pub agents_s: f64,
    /// Seconds until the submits were answered.
    pub submitted_s: f64,
    /// Seconds from the first submit until Redis says of all pods that they run.
    pub running_s: f64,
    /// Pods a second, by that.
    pub pods_per_second: f64,
    /// Commands of Redis for each pod until then, those within functions too.
    pub redis_commands_per_pod: f64,
    /// Calls of functions for each pod until then.
    pub calls_per_pod: f64,
    /// Share of that time in which Redis, which has one core, was at work.
    pub redis_busy: f64,
    /// Cores that this process used meanwhile: agents, scheduler and controller.
    pub stations_cores: f64,
    /// The most memory that this process held, in MiB.
    pub process_mib_max: f64,
    /// KiB of it for each agent before there were pods.
    pub kib_per_agent: f64,
    /// Memory of Redis with all pods running and the connections of all agents, in MiB.
    pub redis_mib: f64,
    /// Share of a core that Redis takes with all pods at rest.
    pub rest_redis_busy: f64,
    /// Cores that this process takes with all pods at rest.
    pub rest_stations_cores: f64,
}

/// Measures it.
///
/// # Errors
/// Redis or the engine failed, or it took too long.
pub async fn run(wish: RunWish) -> anyhow::Result<Measured<RunFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let mut settings = Settings::default();
    settings.node.pods_max = (wish.pods.div_ceil(wish.nodes) * 4).max(250);
    settings.simulated.start_time = Duration::ZERO;
    if wish.docker.is_none() {
        settings.node.runtime = RuntimeKind::Simulated;
    }
    let docker = Runtime::Docker(Docker::new(&settings.node.docker_socket));
    let mut fleet = Fleet::new(&mut bench, settings, wish.schedulers).await?;
    let figures = measure(&mut fleet, &wish, &docker).await;
    let cluster = fleet.store.open().await?;
    fleet.stop().await;
    if wish.docker.is_some() {
        for container in docker.list(NODE, &cluster).await? {
            docker.remove(&container.id).await?;
        }
    }
    bench.stop().await;
    Ok(Measured {
        figures: figures?,
        machine,
    })
}

async fn measure(
    fleet: &mut Fleet,
    wish: &RunWish,
    docker: &Runtime,
) -> anyhow::Result<RunFigures> {
    let (empty, _) = own_memory();
    let began = Instant::now();
    match wish.docker {
        Some(_) => fleet.start_agent(fleet.store.clone(), NODE.to_owned(), docker.clone()),
        None => fleet.start_agents(wish.nodes).await?,
    }
    fleet.until_registered(wish.nodes).await?;
    let agents = began.elapsed();
    let (with_agents, _) = own_memory();

    let image = wish.docker.as_deref().unwrap_or(IMAGE);
    let mut specs = mix::services(Constraints::None, wish.services, wish.pods, wish.nodes);
    for spec in &mut specs {
        image.clone_into(&mut spec.image);
    }
    let keys: Vec<ServiceKey> = specs.iter().map(ServiceSpec::key).collect();
    let (before, own_before) = (fleet.store.load().await?, own_cpu_s());
    let began = Instant::now();
    for spec in &specs {
        mix::submit(&fleet.store, spec).await?;
    }
    let submitted = began.elapsed();
    fleet.until_running(&keys, wish.pods).await?;
    let running_s = began.elapsed().as_secs_f64();
    let (after, own_after) = (fleet.store.load().await?, own_cpu_s());

    let watched = Duration::from_secs(u64::from(wish.rest_seconds));
    tokio::time::sleep(watched).await;
    let (rested, own_rested) = (fleet.store.load().await?, own_cpu_s());
    let (_, most) = own_memory();
    let mib = |bytes: u64| figure(per(bytes, 1 << 20));
    Ok(RunFigures {
        wish: wish.clone(),
        agents_s: figure(agents.as_secs_f64()),
        submitted_s: figure(submitted.as_secs_f64()),
        running_s: figure(running_s),
        pods_per_second: (f64::from(wish.pods) / running_s).round(),
        redis_commands_per_pod: figure(per(after.commands - before.commands, wish.pods)),
        calls_per_pod: figure(per(after.calls - before.calls, wish.pods)),
        redis_busy: figure((after.cpu_s - before.cpu_s) / running_s),
        stations_cores: figure((own_after - own_before) / running_s),
        process_mib_max: mib(most),
        kib_per_agent: figure(per(with_agents.saturating_sub(empty), wish.nodes) / 1024.0),
        redis_mib: mib(rested.memory_bytes),
        rest_redis_busy: figure((rested.cpu_s - after.cpu_s) / watched.as_secs_f64()),
        rest_stations_cores: figure((own_rested - own_after) / watched.as_secs_f64()),
    })
}
