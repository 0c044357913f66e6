//! Which node each waiting pod is given: a pure function of the pods and the copy of the nodes.
//!
//! Same input, same plan: scores are whole numbers and node names break ties.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::cluster::{Ask, Cluster, Refusal};
use super::peers::Unmet;
use super::rules::{Rules, Unsuited};
use super::stock::Lack;
use crate::model::amounts::DISK;
use crate::model::node::labels_text;

/// What was decided for a batch; nothing is done yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Position of the pod in the batch, and of its node in the cluster.
    pub placed: Vec<(usize, usize)>,
    /// Position of the pod in the batch, and why no node takes it.
    pub parked: Vec<(usize, String)>,
}

/// Gives each pod the best node that takes it. `cluster` counts the pods as placed; `seed` is what
/// chance is drawn from, where a service wants chance to decide.
pub fn plan(seed: &str, asks: &[Ask<'_>], cluster: &mut Cluster) -> Plan {
    let mut plan = Plan::default();
    // Equal pods wait for equal reasons: counted once.
    let mut reasons: HashMap<(u64, u64, Option<*const Rules>), String> = HashMap::new();
    cluster.begin(seed);
    for (position, ask) in asks.iter().enumerate() {
        match cluster.best_for(ask) {
            Some(at) => {
                cluster.place(at, ask);
                plan.placed.push((position, at));
            }
            None => {
                let rules = ask.rules.as_ref().map(Arc::as_ptr);
                let alike = (ask.pod.cpu_millis, ask.pod.memory_bytes, rules);
                let reason = reasons
                    .entry(alike)
                    .or_insert_with(|| explain(ask, cluster));
                plan.parked.push((position, reason.clone()));
            }
        }
    }
    plan
}

/// Why no node takes a pod: `0 of 12 nodes: 7 lack memory (2.0 GiB needed, at most 1.2 GiB free), 5 are lost`.
pub fn explain(ask: &Ask<'_>, cluster: &mut Cluster) -> String {
    if cluster.is_empty() {
        return "no node has registered yet".to_owned();
    }
    let words: Vec<String> = refused(ask, cluster)
        .into_iter()
        .map(|(count, why)| format!("{count} {why}"))
        .collect();
    format!("0 of {} nodes: {}", cluster.len(), words.join(", "))
}

/// How many nodes do not take a pod, by why; those that do are left out.
pub fn refused(ask: &Ask<'_>, cluster: &mut Cluster) -> Vec<(usize, String)> {
    // Counted by kind, with the most that is free; the order of the kinds is the order of the words.
    let mut counts: BTreeMap<Refusal, (usize, u64)> = BTreeMap::new();
    for refusal in cluster.refusals(ask) {
        let (kind, free) = match refusal {
            Refusal::Memory(free) => (Refusal::Memory(0), free),
            Refusal::Cpu(free) => (Refusal::Cpu(0), free),
            Refusal::Asks(lack) => (Refusal::Asks(Lack { free: 0, ..lack }), lack.free),
            other => (other, 0),
        };
        let counted = counts.entry(kind).or_default();
        counted.0 += 1;
        counted.1 = counted.1.max(free);
    }
    counts
        .into_iter()
        .map(|(refusal, (count, free))| (count, lacking(ask, refusal, free)))
        .collect()
}

/// What nodes lack for a pod, behind their number.
fn lacking(ask: &Ask<'_>, refusal: Refusal, free: u64) -> String {
    let placement = ask.rules.as_ref().map(|rules| &rules.placement);
    let near = |which: usize| {
        let affinity = placement.and_then(|placement| placement.affinity.get(which));
        let target = affinity.and_then(|affinity| affinity.target());
        let per = affinity.map_or("", |affinity| affinity.per.as_str());
        let named = target.and_then(|target| target.service.clone());
        let labels = target
            .map(|target| labels_text(&target.labels))
            .unwrap_or_default();
        (named.unwrap_or(labels), per)
    };
    match refusal {
        Refusal::Unsuited(Unsuited::Label(which)) => {
            let label = placement.and_then(|placement| placement.labels.iter().nth(which));
            let (key, value) = label.map_or(("", ""), |(key, value)| (key, value));
            format!("lack the label {key}={value}")
        }
        Refusal::Unsuited(Unsuited::Constraint(which)) => {
            let constraint = placement.and_then(|placement| placement.constraints.get(which));
            let constraint = constraint.map(ToString::to_string).unwrap_or_default();
            format!("do not meet {constraint}")
        }
        Refusal::Unsuited(Unsuited::Platform) => {
            let platform = placement.and_then(|placement| placement.platform.as_deref());
            format!("are not {}", platform.unwrap_or_default())
        }
        Refusal::Unsuited(Unsuited::Taint) => "have a taint that is not tolerated".to_owned(),
        Refusal::Unmet(Unmet::Near(which)) => {
            let (target, per) = near(which);
            format!("are not near {target} (per {per})")
        }
        Refusal::Unmet(Unmet::Apart(which)) => {
            let (target, per) = near(which);
            format!("are not apart from {target} (per {per})")
        }
        Refusal::Unmet(Unmet::Spread(which)) => {
            let spread = placement.and_then(|placement| placement.spread.get(which));
            let (over, skew) = spread.map_or(("", 0), |spread| (&spread.over, spread.max_skew));
            format!("would make the spread over {over} uneven by more than {skew}")
        }
        Refusal::Unmet(Unmet::PerNode) => {
            let max = placement.and_then(|placement| placement.max_per_node);
            format!(
                "have {} of the service, which is the most",
                max.unwrap_or_default()
            )
        }
        Refusal::Port(which) => {
            let ports = ask.rules.as_ref().map(|rules| rules.host_ports.as_slice());
            let port = ports.and_then(|ports| ports.get(which));
            format!("have port {} taken", port.map_or("", String::as_str))
        }
        Refusal::Memory(_) => format!(
            "lack memory ({} needed, at most {} free)",
            mebibytes(ask.pod.memory_bytes),
            mebibytes(free)
        ),
        Refusal::Cpu(_) => format!(
            "lack cpu ({} needed, at most {} free)",
            cores(ask.pod.cpu_millis),
            cores(free)
        ),
        Refusal::Asks(lack) => {
            let asks = ask.rules.as_ref().map(|rules| rules.like.asks());
            let asked = asks.and_then(|asks| asks.iter().nth(lack.which));
            let (word, needed) = asked.unwrap_or_default();
            let (needed, free) = (amount(word, needed), amount(word, free));
            format!("lack {word} ({needed} needed, at most {free} free)")
        }
        Refusal::Pods => "have all the pods they may".to_owned(),
        Refusal::Cordoned => "are cordoned".to_owned(),
        Refusal::Pressed => "are above their pressure limit".to_owned(),
        Refusal::EngineDown => "have an engine that does not answer".to_owned(),
        Refusal::Lost => "are lost".to_owned(),
    }
}

/// So much of a word that is asked for.
fn amount(word: &str, amount: u64) -> String {
    match word {
        DISK if amount >= 1 << 20 => mebibytes(amount),
        DISK => format!("{} KiB", amount >> 10),
        _ => amount.to_string(),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn cores(millis: u64) -> String {
    format!("{}.{:03} cores", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests;
