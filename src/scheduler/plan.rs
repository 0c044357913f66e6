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
            Refusal::EngineDown => ((6, 0), 0),
            Refusal::Lost => ((7, 0), 0),
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
            6 => format!("{count} have an engine that does not answer"),
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
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{EngineState, PodId};
    use crate::scheduler::cluster::tests::calm;
    use crate::settings::Weights;
    use crate::store::NodeSnapshot;

    const LEASE_MS: u64 = 20_000;

    fn pods(count: usize, cpu_millis: u64, memory_bytes: u64) -> Vec<WaitingPod> {
        (0..count)
            .map(|replica| WaitingPod {
                id: PodId::of_submission("pod", u32::try_from(replica).unwrap()),
                cpu_millis,
                memory_bytes,
                wants: None,
            })
            .collect()
    }

    fn cluster(nodes: &[NodeSnapshot], now_ms: u64) -> Cluster {
        let mut cluster = Cluster::new(Weights::default(), LEASE_MS);
        cluster.hear(now_ms, nodes.to_vec());
        cluster
    }

    fn counts(plan: &Plan, cluster: &Cluster) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for (_, at) in &plan.placed {
            *counts.entry(cluster.name(*at).to_owned()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn equal_pods_spread_evenly_over_idle_nodes() {
        let mut cluster = cluster(&[calm("a"), calm("b"), calm("c")], 1_000);
        let plan = plan(&pods(90, 0, 0), &mut cluster);
        let counts = counts(&plan, &cluster);
        assert_eq!(
            counts,
            HashMap::from([("a".into(), 30), ("b".into(), 30), ("c".into(), 30)])
        );
    }

    #[test]
    fn a_pressed_node_is_left_alone() {
        for (kind, avg) in [("memory", 20.0), ("io", 25.0), ("cpu", 40.0)] {
            let mut pressed = calm("a");
            pressed.cpu_used = 1.0;
            match kind {
                "memory" => pressed.pressure.memory_avg10 = avg,
                "io" => pressed.pressure.io_avg10 = avg,
                _ => pressed.pressure.cpu_avg10 = avg,
            }
            let mut cluster = cluster(&[pressed, calm("b"), calm("c")], 1_000);
            let plan = plan(&pods(100, 0, 0), &mut cluster);
            let counts = counts(&plan, &cluster);
            assert!(
                counts.get("a").copied().unwrap_or(0) <= 5,
                "{kind}: {counts:?}"
            );
        }
    }

    #[test]
    fn reasons_are_counted() {
        let mut small = calm("a");
        small.capacity.memory_bytes = 1 << 30;
        let mut down = calm("b");
        down.engine = EngineState::Down;
        let mut full = calm("c");
        full.pods = 250;
        let mut busy = calm("d");
        busy.cpu_requested = 7_500;
        let mut stale = calm("e");
        stale.heartbeat_ms = 1;
        let nodes: Vec<NodeSnapshot> = [small, down, full, busy, stale]
            .into_iter()
            .map(|mut node| {
                if node.name != "e" {
                    node.heartbeat_ms = 30_000;
                }
                node
            })
            .collect();
        let mut cluster = cluster(&nodes, 30_000);
        let plan = plan(&pods(2, 1_000, 2 << 30), &mut cluster);
        assert!(plan.placed.is_empty());
        assert_eq!(
            plan.parked[1].1,
            "0 of 5 nodes: 1 lack memory (2048 MiB needed, at most 1024 MiB free), \
             1 lack cpu (1.000 cores needed, at most 0.500 cores free), 1 have all the pods they may, \
             1 have an engine that does not answer, 1 are lost"
        );
    }

    #[test]
    fn without_nodes_the_reason_says_so() {
        let mut cluster = cluster(&[], 1_000);
        let plan = plan(&pods(1, 0, 0), &mut cluster);
        assert_eq!(plan.parked, [(0, "no node has registered yet".to_owned())]);
    }

    prop_compose! {
        fn node()(
            pods_max in 0..20u32, pods in 0..20u32, cpu in 0..4_000u64, used in 0..4_000u64,
            memory in 0..8u64, taken in 0..8u64, up in any::<bool>(), age_ms in 0..30_000u64,
            avg in 0.0..100.0f64, busy in 0.0..1.0f64,
        ) -> NodeSnapshot {
            let mut node = calm("");
            node.heartbeat_ms = 100_000 - age_ms;
            node.capacity.pods_max = pods_max;
            node.pods = pods;
            node.capacity.cpu_millis = cpu;
            node.cpu_requested = used;
            node.capacity.memory_bytes = memory << 30;
            node.memory_requested = taken << 30;
            node.engine = if up { EngineState::Up } else { EngineState::Down };
            node.pressure.io_avg10 = avg;
            node.cpu_used = busy;
            node
        }
    }

    prop_compose! {
        fn waiting()(cpu in 0..3u64, memory in 0..3u64) -> (u64, u64) { (cpu * 500, memory << 30) }
    }

    fn named(mut nodes: Vec<NodeSnapshot>) -> Vec<NodeSnapshot> {
        for (index, node) in nodes.iter_mut().enumerate() {
            node.name = format!("n{index}");
        }
        nodes
    }

    fn batch(asks: &[(u64, u64)]) -> Vec<WaitingPod> {
        let mut batch = Vec::new();
        for (replica, (cpu_millis, memory_bytes)) in asks.iter().enumerate() {
            batch.push(WaitingPod {
                id: PodId::of_submission("pod", u32::try_from(replica).unwrap()),
                cpu_millis: *cpu_millis,
                memory_bytes: *memory_bytes,
                wants: None,
            });
        }
        batch
    }

    proptest! {
        #[test]
        fn capacity_is_never_exceeded_and_every_pod_is_decided(
            nodes in prop::collection::vec(node(), 0..8).prop_map(named),
            asks in prop::collection::vec(waiting(), 0..60),
        ) {
            let batch = batch(&asks);
            let mut cluster = cluster(&nodes, 100_000);
            let plan = plan(&batch, &mut cluster);
            prop_assert_eq!(plan.placed.len() + plan.parked.len(), batch.len());
            let mut after = nodes.clone();
            for (position, at) in &plan.placed {
                let node = after.iter_mut().find(|node| node.name == cluster.name(*at)).unwrap();
                node.pods += 1;
                node.cpu_requested += batch[*position].cpu_millis;
                node.memory_requested += batch[*position].memory_bytes;
                prop_assert!(node.pods <= node.capacity.pods_max);
                prop_assert!(batch[*position].cpu_millis == 0 || node.cpu_requested <= node.capacity.cpu_millis);
                prop_assert!(batch[*position].memory_bytes == 0 || node.memory_requested <= node.capacity.memory_bytes);
                prop_assert!(node.engine == EngineState::Up);
                prop_assert!(100_000 - node.heartbeat_ms <= LEASE_MS);
            }
        }

        #[test]
        fn same_input_same_plan(
            nodes in prop::collection::vec(node(), 1..8).prop_map(named),
            asks in prop::collection::vec(waiting(), 1..60),
        ) {
            let batch = batch(&asks);
            let mut one = cluster(&nodes, 100_000);
            // Heard in another order, as another scheduler would.
            let backwards: Vec<NodeSnapshot> = nodes.iter().rev().cloned().collect();
            let mut other = cluster(&backwards, 100_000);
            let names = |plan: &Plan, cluster: &Cluster| -> Vec<(usize, String)> {
                plan.placed.iter().map(|(pod, at)| (*pod, cluster.name(*at).to_owned())).collect()
            };
            let (first, second) = (plan(&batch, &mut one), plan(&batch, &mut other));
            prop_assert_eq!(names(&first, &one), names(&second, &other));
            prop_assert_eq!(first.parked, second.parked);
        }
    }
}
