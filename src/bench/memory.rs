//! Bytes of Redis's memory for each running pod.
//!
//! The pods are run by real agents with simulated engines, whose container ids and digests are as
//! long as Docker's, so the records are what a cluster's are. All pods of a service share its spec.

use serde::Serialize;

use super::fleet::{Fleet, IMAGE};
use super::mix::{self, Constraints};
use super::{Bench, Machine, Measured, figure, per};
use crate::model::{PodId, ServiceKey, ServiceSpec};
use crate::settings::{RuntimeKind, Settings};

/// Nodes that run them.
const NODES: u32 = 20;
/// Pods whose records are looked at.
const SAMPLES: usize = 1000;
/// What is told of the largest clusters.
const MILLION: f64 = 1e6;

/// What runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemoryWish {
    /// Pods.
    pub pods: u32,
    /// Services that they are of.
    pub services: u32,
}

/// What that takes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MemoryFigures {
    /// What runs.
    #[serde(flatten)]
    pub wish: MemoryWish,
    /// Bytes for each running pod, of all that Redis holds but the events.
    pub bytes_per_pod: f64,
    /// Of it the pod's own record, by Redis's estimate.
    pub record_bytes_per_pod: f64,
    /// Of it the service's index of its pods.
    pub service_index_bytes_per_pod: f64,
    /// Of it the node's set of its pods.
    pub node_set_bytes_per_pod: f64,
    /// MiB of the stream of events, which is bounded by its number of entries.
    pub events_mib: f64,
    /// GiB that a million such pods take, with the events.
    pub million_pods_gib: f64,
}

/// Measures it.
///
/// # Errors
/// Redis failed, or it took too long.
pub async fn memory(wish: MemoryWish) -> anyhow::Result<Measured<MemoryFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let mut settings = Settings::default();
    settings.node.runtime = RuntimeKind::Simulated;
    settings.node.pods_max = wish.pods;
    settings.simulated.start_time = std::time::Duration::ZERO;
    let mut fleet = Fleet::new(&mut bench, settings, 1).await?;
    fleet.start_agents(NODES).await?;
    let figures = measure(&fleet, wish).await;
    fleet.stop().await;
    bench.stop().await;
    Ok(Measured {
        figures: figures?,
        machine,
    })
}

async fn measure(fleet: &Fleet, wish: MemoryWish) -> anyhow::Result<MemoryFigures> {
    let store = &fleet.store;
    let mut specs = mix::services(Constraints::None, wish.services, wish.pods, NODES);
    for spec in &mut specs {
        IMAGE.clone_into(&mut spec.image);
    }
    let services: Vec<ServiceKey> = specs.iter().map(ServiceSpec::key).collect();
    let before = store.load().await?.memory_bytes;
    for spec in &specs {
        mix::submit(store, spec).await?;
    }
    fleet.until_running(&services, wish.pods).await?;
    // Nothing is in hand any more.
    fleet
        .until(async || {
            for number in 0..NODES {
                let node = mix::node(number);
                if !store.pending().handling(&node).await?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
    let after = store.load().await?.memory_bytes;
    let nodes: Vec<String> = (0..NODES).map(mix::node).collect();
    let ids = store.pods().ids_of(&services).await?;
    let every = ids.len().div_ceil(SAMPLES).max(1);
    let sampled: Vec<PodId> = ids.into_iter().step_by(every).collect();
    let shares = store.memory_shares(&sampled, &services, &nodes).await?;
    let bytes_per_pod = per(after.saturating_sub(before + shares.events), wish.pods);
    let gib = f64::from(1 << 30);
    Ok(MemoryFigures {
        wish,
        bytes_per_pod: bytes_per_pod.round(),
        record_bytes_per_pod: per(shares.pods, u32::try_from(sampled.len())?).round(),
        service_index_bytes_per_pod: per(shares.services, wish.pods).round(),
        node_set_bytes_per_pod: per(shares.nodes, wish.pods).round(),
        events_mib: figure(per(shares.events, 1 << 20)),
        million_pods_gib: figure((bytes_per_pod * MILLION + per(shares.events, 1)) / gib),
    })
}
