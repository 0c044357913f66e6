//! What is placed, and on what: simulated nodes that exist only in Redis, and services that ask
//! for this and that.
//!
//! A new constraint of a spec's placement is one more arm of `ask`, with labels of the nodes in
//! `labels` where it needs any.
//!
//! Invariant: every pod of a mix can be placed (`a_mix_is_of_all_pods_and_every_label_it_asks_for_is_there`,
//! and `parked` among the figures of `leet bench place`).

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde::Serialize;

use crate::model::node::NAME_LABEL;
use crate::model::placement::{ANY_TAINT, Affinity, Constraint, Spread, Strategy, TAINT, Target};
use crate::model::{Capacity, EngineState, PodId, Pressure, ServiceSpec};
use crate::store::{Beat, RegisterOutcome, Store, Submit, SubmitMode};

/// Calls under way at once while a cluster is prepared.
pub(super) const AT_ONCE: usize = 64;
/// Room on each node: one node takes all in a floor's round.
pub(super) const PODS_MAX: u32 = 100_000_000;
/// Services of a mix where nobody says how many.
const SERVICES_MIXED: u32 = 20;
/// Zones, as long as there are so many nodes.
const ZONES: u32 = 10;
/// Each such node has a fast disk.
const FAST_DISK_EVERY: u32 = 4;
/// Each such node takes only what tolerates it.
const TAINT_EVERY: u32 = 20;
/// Kinds of services in a mix.
const KINDS: u32 = 10;
/// First of the fixed ports; each service that wants one has its own.
const PORT_FIRST: u32 = 10_000;

/// What pods ask of their nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Constraints {
    /// Nothing: all pods are equal.
    None,
    /// Cpu and memory, and of ten services one each: a zone, a fast disk, a fixed port, an even
    /// spread over zones, a few on a node, not beside their like, 32 cores, any taint, the emptiest
    /// node; one node in twenty is tainted.
    Mixed,
}

impl Constraints {
    /// How many services that are where nobody says.
    pub fn services(self) -> u32 {
        match self {
            Constraints::None => 1,
            Constraints::Mixed => SERVICES_MIXED,
        }
    }
}

/// `pods` pods in `services` services that can all be placed on `nodes` nodes.
pub(super) fn services(
    constraints: Constraints,
    services: u32,
    pods: u32,
    nodes: u32,
) -> Vec<ServiceSpec> {
    let mut left = pods;
    let mut all = Vec::new();
    for number in 0..services {
        let share = left / (services - number);
        let mut spec = ServiceSpec::new(format!("bench-{number}"), "bench");
        spec.replicas = share;
        if constraints == Constraints::Mixed {
            ask(&mut spec, number, nodes);
        }
        left -= spec.replicas;
        all.push(spec);
    }
    // The first service asks for nothing that only some nodes have, and takes what others could not.
    if let Some(first) = all.first_mut() {
        first.replicas += left;
    }
    all.retain(|spec| spec.replicas > 0);
    all
}

/// Has the service `number` ask for its part of the mix.
fn ask(spec: &mut ServiceSpec, number: u32, nodes: u32) {
    spec.resources.cpu_millis = u64::from(10 + number % 4 * 5);
    spec.resources.memory_bytes = u64::from(16 + number % 3 * 16) << 20;
    let placement = &mut spec.placement;
    let own = Target {
        service: Some(spec.name.clone()),
        ..Target::default()
    };
    match number % KINDS {
        1 => {
            let zone = zone(number / KINDS, nodes);
            placement.labels.insert("zone".to_owned(), zone);
        }
        2 => placement
            .constraints
            .extend(Constraint::parse("disk in (fast, nvme)")),
        3 => {
            let port = PORT_FIRST + number;
            let port = serde_json::json!([format!("{port}:{port}")]);
            spec.ports = serde_json::from_value(port).unwrap_or_default();
            // No two on one node, and some nodes to choose from.
            spec.replicas = spec.replicas.min(nodes.div_ceil(2));
        }
        4 => placement.spread.push(Spread {
            over: "zone".to_owned(),
            max_skew: 1,
            weight: None,
        }),
        5 => placement.max_per_node = Some(spec.replicas.div_ceil(nodes) * 2),
        6 => placement.affinity.push(Affinity {
            near: None,
            apart: Some(own),
            per: NAME_LABEL.to_owned(),
            weight: Some(10),
        }),
        7 => placement
            .constraints
            .extend(Constraint::parse("cores >= 32")),
        8 => placement.tolerations.push(ANY_TAINT.to_owned()),
        9 => placement.strategy = Some(Strategy::Spread),
        _ => {}
    }
}

fn zone(number: u32, nodes: u32) -> String {
    format!("z{}", number % ZONES.min(nodes))
}

/// Labels of the node `number` of `nodes`.
fn labels(number: u32, nodes: u32) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("zone".to_owned(), zone(number, nodes))]);
    labels.insert("cores".to_owned(), (16 << (number % 3)).to_string());
    if number.is_multiple_of(FAST_DISK_EVERY) {
        labels.insert("disk".to_owned(), "fast".to_owned());
    }
    if number % TAINT_EVERY == TAINT_EVERY - 1 {
        labels.insert(format!("{TAINT}batch"), "yes".to_owned());
    }
    labels
}

/// What an idle node of 64 cores tells.
pub(super) fn beat(pods_max: u32) -> Beat {
    Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max,
            cpu_millis: 64_000,
            memory_bytes: 256 << 30,
        },
        pressure: Pressure {
            known: true,
            ..Pressure::default()
        },
        ..Beat::default()
    }
}

/// Name of the node `number`.
pub(super) fn node(number: u32) -> String {
    format!("node{number}")
}

/// Registers the nodes `numbers`, of `nodes` in all, and answers the epoch of each.
pub(super) async fn register(
    store: &Store,
    numbers: std::ops::Range<u32>,
    nodes: u32,
    lease: Duration,
    pods_max: u32,
) -> anyhow::Result<Vec<u64>> {
    let register = |number: u32| async move {
        let name = node(number);
        let beat = Beat {
            labels: labels(number, nodes),
            ..beat(pods_max)
        };
        match store.nodes().register(&name, &name, lease, &beat).await? {
            RegisterOutcome::Registered { epoch, .. } => Ok(epoch),
            RegisterOutcome::Taken { .. } => anyhow::bail!("{name} is registered already"),
        }
    };
    let registered = iter(numbers).map(register).buffered(AT_ONCE);
    registered.try_collect().await
}

/// Submits a service, or changes it.
pub(super) async fn submit(store: &Store, spec: &ServiceSpec) -> anyhow::Result<()> {
    let submission = PodId::new_submission();
    let submit = Submit {
        spec,
        submission: &submission,
        idempotency: None,
        mode: SubmitMode::Apply {
            keep_replicas: false,
            expected: None,
        },
    };
    store.services().submit(&submit).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_of_all_pods_and_every_label_it_asks_for_is_there() {
        for (pods, nodes) in [(1, 3), (50, 3), (100_000, 5_000), (100_000, 100)] {
            let mix = services(Constraints::Mixed, SERVICES_MIXED, pods, nodes);
            assert_eq!(mix.iter().map(|spec| spec.replicas).sum::<u32>(), pods);
            for spec in mix {
                let asks = &spec.placement;
                let suits = |number| {
                    let has = labels(number, nodes);
                    asks.labels
                        .iter()
                        .all(|(key, value)| has.get(key) == Some(value))
                        && asks.constraints.iter().all(|it| it.holds(&has))
                };
                assert!((0..nodes).any(suits), "{spec:?} fits nowhere");
            }
        }
    }
}
