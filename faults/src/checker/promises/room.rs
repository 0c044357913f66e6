//! I7: what a node's pods ask for never exceeds what it has.

use super::super::lives::Life;
use super::{Broken, Facts};

/// I7, in Redis and among the containers that run.
pub(super) fn not_exceeded(facts: &Facts) -> Option<Broken> {
    let snapshot = &facts.snapshot;
    snapshot.nodes.iter().find_map(|(name, node)| {
        let has = |field: &str| node.get(field).and_then(|value| value.parse::<u64>().ok());
        let ids = snapshot
            .assigned
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let on_node = ids.iter().filter(|id| {
            let phase = snapshot.pod(id, "phase");
            snapshot.pod(id, "node") == name
                && matches!(
                    phase,
                    "scheduled" | "starting" | "running" | "unhealthy" | "crash-loop"
                )
        });
        let ids: Vec<&String> = on_node.collect();
        let sum = |field: &str| -> u64 {
            let asked = ids
                .iter()
                .map(|id| snapshot.pod(id, field).parse::<u64>().unwrap_or(0));
            asked.sum()
        };
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let sums = [
            ("pods", "pods", count, "pods_max"),
            ("cpu", "cpu_requested", sum("cpu"), "cpu"),
            ("memory", "memory_requested", sum("memory"), "memory"),
        ];
        for (what, told, is, most) in sums {
            let (told, most) = (has(told).unwrap_or(0), has(most).unwrap_or(0));
            if is > most {
                let says = format!("{name} has {most} of {what}, and {is} are asked of it");
                return Some(Broken::of("I7", facts.now_ns, says).with(ids));
            }
            if is != told {
                let says =
                    format!("{name} says that {told} of its {what} are in use, and {is} are");
                return Some(Broken::of("I7", facts.now_ns, says).with(ids));
            }
        }
        truly(facts, name, has("pods_max").unwrap_or(0))
    })
}

/// More containers run on a node than it takes pods.
fn truly(facts: &Facts, name: &str, most: u64) -> Option<Broken> {
    let running = facts
        .lives
        .iter()
        .filter(|life| life.node == name && life.to_ns.is_none());
    let running: Vec<&Life> = running.collect();
    let count = u64::try_from(running.len()).unwrap_or(u64::MAX);
    (count > most).then(|| {
        let says = format!("{name} takes {most} pods, and {count} containers run there");
        Broken::of("I7", facts.now_ns, says).with(running)
    })
}
