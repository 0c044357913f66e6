//! I6: each pod is in one phase that there is, in the one place that goes with it.

use std::collections::BTreeMap;

use super::running::shown;
use super::{Broken, Facts};

/// Every phase, and whether a pod in it is on a node.
const PHASES: [(&str, bool); 9] = [
    ("waiting", false),
    ("scheduled", true),
    ("starting", true),
    ("running", true),
    ("unhealthy", true),
    ("crash-loop", true),
    ("succeeded", false),
    ("failed", false),
    ("stopped", false),
];

/// I6.
pub(super) fn one_place(facts: &Facts) -> Option<Broken> {
    let snapshot = &facts.snapshot;
    let mut sets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, ids) in &snapshot.assigned {
        for id in ids {
            sets.entry(id).or_default().push(node);
        }
    }
    for id in snapshot.pods.keys() {
        let phase = snapshot.pod(id, "phase");
        let known = PHASES.iter().find(|(word, _)| *word == phase);
        let queues = snapshot.places(id);
        let nodes = sets.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let node = snapshot.pod(id, "node");
        let fault = match known {
            None => Some(format!("is in the phase {phase:?}, which there is not")),
            Some(_) if nodes.len() > 1 => Some(format!("is in the sets of {nodes:?}")),
            Some((_, true)) if nodes != [node] => Some(format!(
                "is {phase} on {node:?} and in the sets of {nodes:?}"
            )),
            Some((_, true)) if !queues.is_empty() => {
                Some(format!("is {phase} and waits in {queues:?}"))
            }
            Some(("waiting", _)) if queues.len() != 1 => Some(format!("waits in {queues:?}")),
            Some(("waiting", _)) if !nodes.is_empty() => {
                Some(format!("waits and is in the set of {nodes:?}"))
            }
            Some(_) => None,
        };
        if let Some(fault) = fault {
            let broken = Broken::of("I6", facts.now_ns, format!("{id} {fault}"));
            return Some(broken.with([shown(facts, id)]));
        }
    }
    two_holders(facts)
}

/// A pod of two services, or in an index without a record.
fn two_holders(facts: &Facts) -> Option<Broken> {
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for (service, ids) in &facts.snapshot.indexes {
        for id in ids {
            let before = holders.insert(id, service);
            let fault = match before {
                Some(other) => format!("{id} is a pod of {service} and of {other}"),
                None if !facts.snapshot.pods.contains_key(id) => {
                    format!("{service} lists {id}, of which there is no record")
                }
                None => continue,
            };
            return Some(Broken::of("I6", facts.now_ns, fault));
        }
    }
    None
}
