//! Which node each waiting pod is given: a pure function of the pods and the copy of the nodes.
//!
//! Same input, same plan: scores are whole numbers and node names break ties.

use std::collections::{BTreeMap, HashMap};

use super::cluster::{Cluster, Refusal};
use crate::store::{WaitingPod, Wants};

/// What was decided for a batch; nothing is done yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Position of the pod in the batch, and of its node in the cluster.
    pub placed: Vec<(usize, usize)>,
    /// Position of the pod in the batch, and why no node takes it.
    pub parked: Vec<(usize, String)>,
}

/// Gives each pod the best node that has room for it. `cluster` counts the pods as placed.
pub fn plan(pods: &[WaitingPod], cluster: &mut Cluster) -> Plan {
    let mut plan = Plan::default();
    let mut passed_over = Vec::new();
    // Equal pods wait for equal reasons: counted once.
    let mut reasons: HashMap<(u64, u64, Option<&Wants>), String> = HashMap::new();
    let mut previous: Option<(u64, u64)> = None;
    for (position, pod) in pods.iter().enumerate() {
        let asks = (pod.cpu_millis, pod.memory_bytes);
        if previous != Some(asks) {
            cluster.restore(&mut passed_over);
            previous = Some(asks);
        }
        match cluster.best_for(pod, &mut passed_over) {
            Some(at) => {
                cluster.place(at, pod);
                plan.placed.push((position, at));
            }
            None => {
                let alike = (asks.0, asks.1, pod.wants.as_deref());
                let reason = reasons
                    .entry(alike)
                    .or_insert_with(|| explain(pod, cluster));
                plan.parked.push((position, reason.clone()));
            }
        }
    }
    cluster.restore(&mut passed_over);
    plan
}

/// Why no node takes `pod`: `0 of 12 nodes: 7 lack memory (2.0 GiB needed, at most 1.2 GiB free), 5 are lost`.
pub fn explain(pod: &WaitingPod, cluster: &Cluster) -> String {
    if cluster.is_empty() {
        return "no node has registered yet".to_owned();
    }
    // Counted by kind, and which of the wishes; the order of the kinds is the order of the words.
    let mut counts: BTreeMap<(u8, usize), (usize, u64)> = BTreeMap::new();
    for refusal in cluster.refusals(pod) {
        let (kind, free) = match refusal {
            Refusal::Label(which) => ((0, which), 0),
            Refusal::Port(which) => ((1, which), 0),
            Refusal::Memory(free) => ((2, 0), free),
            Refusal::Cpu(free) => ((3, 0), free),
            Refusal::Pods => ((4, 0), 0),
            Refusal::Cordoned => ((5, 0), 0),
            Refusal::Pressed => ((6, 0), 0),
            Refusal::EngineDown => ((7, 0), 0),
            Refusal::Lost => ((8, 0), 0),
        };
        let counted = counts.entry(kind).or_default();
        counted.0 += 1;
        counted.1 = counted.1.max(free);
    }
    let wants = pod.wants.as_deref();
    let label = |which| wants.and_then(|wants| wants.selector.iter().nth(which));
    let port = |which: usize| wants.and_then(|wants| wants.host_ports.get(which));
    let words: Vec<String> = counts
        .into_iter()
        .map(|((kind, which), (count, free))| match kind {
            0 => {
                let (key, value) = label(which).map_or(("", ""), |(key, value)| (key, value));
                format!("{count} lack the label {key}={value}")
            }
            1 => {
                let port = port(which).map_or("", String::as_str);
                format!("{count} have port {port} taken")
            }
            2 => format!(
                "{count} lack memory ({} needed, at most {} free)",
                mebibytes(pod.memory_bytes),
                mebibytes(free)
            ),
            3 => format!(
                "{count} lack cpu ({} needed, at most {} free)",
                cores(pod.cpu_millis),
                cores(free)
            ),
            4 => format!("{count} have all the pods they may"),
            5 => format!("{count} are cordoned"),
            6 => format!("{count} are above their pressure limit"),
            7 => format!("{count} have an engine that does not answer"),
            _ => format!("{count} are lost"),
        })
        .collect();
    format!("0 of {} nodes: {}", cluster.len(), words.join(", "))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn cores(millis: u64) -> String {
    format!("{}.{:03} cores", millis / 1000, millis % 1000)
}

#[cfg(test)]
mod tests;
