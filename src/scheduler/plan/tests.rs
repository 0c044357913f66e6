//! Plans: room, pressure, what pods want of nodes, and the reasons of those that fit nowhere.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::model::node::read_labels;
use crate::model::{EngineState, Placement, PodId, ServiceKey, Strategy};
use crate::scheduler::cluster::tests::calm;
use crate::scheduler::peers::Peer;
use crate::settings::Weights;
use crate::store::{NodeSnapshot, WaitingPod, Wants};

mod golden;
mod peers;

const LEASE_MS: u64 = 20_000;

/// A waiting pod and its rules.
#[derive(Debug, Clone)]
struct Waiting {
    pod: WaitingPod,
    rules: Option<Arc<Rules>>,
}

/// Plans a batch of such.
fn plan(batch: &[Waiting], cluster: &mut Cluster) -> Plan {
    let asks = batch.iter().map(|waiting| Ask {
        pod: &waiting.pod,
        rules: waiting.rules.clone(),
    });
    super::plan("seed", &asks.collect::<Vec<_>>(), cluster)
}

fn pods(count: usize, cpu_millis: u64, memory_bytes: u64) -> Vec<Waiting> {
    batch(&vec![(cpu_millis, memory_bytes); count])
}

/// Rules of a service in `default`, with this placement as JSON.
fn rules(service: &str, placement: &str) -> Arc<Rules> {
    let placement: Placement = serde_json::from_str(placement).unwrap();
    rules_with(service, placement, Vec::new())
}

fn rules_with(service: &str, placement: Placement, host_ports: Vec<String>) -> Arc<Rules> {
    let key = ServiceKey::parse(&format!("default/{service}"));
    let namespace = "default".to_owned();
    Arc::new(Rules::of(key, 1, namespace, host_ports, placement))
}

/// Pods of a service with this placement as JSON.
fn of(rules: &Arc<Rules>, count: usize) -> Vec<Waiting> {
    let mut pods = pods(count, 0, 0);
    for waiting in &mut pods {
        waiting.rules = Some(rules.clone());
    }
    pods
}

fn cluster(nodes: &[NodeSnapshot], now_ms: u64) -> Cluster {
    let mut cluster = Cluster::new(Weights::default(), Strategy::Pressure, LEASE_MS);
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

fn labelled(name: &str, labels: &str) -> NodeSnapshot {
    NodeSnapshot {
        labels: labels.to_owned(),
        ..calm(name)
    }
}

/// Pods that want ports, labels (as `key=value,...`) and not these nodes.
fn wanting(count: usize, ports: &[&str], selector: &str, avoid: &[&str]) -> Vec<Waiting> {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let placement = Placement {
        labels: read_labels(selector),
        ..Placement::default()
    };
    let rules = rules_with("wanting", placement, words(ports));
    let mut pods = of(&rules, count);
    for waiting in &mut pods {
        waiting.pod.wants = Some(Box::new(Wants {
            avoid: words(avoid),
            ..Wants::default()
        }));
    }
    pods
}

fn places(plan: &Plan, cluster: &Cluster) -> Vec<String> {
    let names = plan.placed.iter().map(|(_, at)| cluster.name(*at));
    names.map(str::to_owned).collect()
}

#[test]
fn pods_go_only_where_their_labels_are() {
    let nodes = [
        labelled("a", "disk=hdd,zone=eu"),
        labelled("b", "disk=ssd,zone=us"),
        labelled("c", "disk=ssd,zone=eu"),
        labelled("d", "disk=ssds,zone=eu"),
    ];
    let mut cluster = cluster(&nodes, 1_000);
    for (selector, place) in [
        ("disk=ssd,zone=eu", Some("c")),
        ("disk=hdd", Some("a")),
        ("node=b", Some("b")),
        ("node=b,zone=us", Some("b")),
        ("node=b,zone=eu", None),
        ("node=nowhere", None),
        ("disk=", None),
    ] {
        let plan = plan(&wanting(3, &[], selector, &[]), &mut cluster);
        let wanted: Vec<String> = place
            .map(|place| vec![place.to_owned(); 3])
            .unwrap_or_default();
        assert_eq!(places(&plan, &cluster), wanted, "{selector}");
    }
}

#[test]
fn a_fixed_port_is_given_once_on_each_node() {
    let taken = NodeSnapshot {
        ports: ",53/udp,8080/tcp,".to_owned(),
        ..calm("a")
    };
    let mut cluster = cluster(&[taken, calm("b"), calm("c")], 1_000);
    let batch = wanting(3, &["8080/tcp"], "", &[]);
    let first = plan(&batch, &mut cluster);
    assert_eq!(places(&first, &cluster), ["b", "c"]);
    assert_eq!(
        first.parked,
        [(2, "0 of 3 nodes: 3 have port 8080/tcp taken".to_owned())]
    );
    // Another port, and the same number of another protocol, are free.
    for port in ["8080/udp", "80/tcp"] {
        let plan = plan(&wanting(3, &[port], "", &[]), &mut cluster);
        assert_eq!(plan.placed.len(), 3, "{port}");
    }
}

#[test]
fn avoided_nodes_are_taken_where_no_other_fits() {
    let mut busy = labelled("b", "disk=ssd");
    busy.pods = 200;
    let mut cluster = cluster(&[labelled("a", "disk=ssd"), busy, calm("c")], 1_000);
    let one = |cluster: &mut Cluster, selector, avoid: &[&str]| {
        let plan = plan(&wanting(1, &[], selector, avoid), cluster);
        places(&plan, cluster)
    };
    assert_eq!(one(&mut cluster, "", &["a"]), ["c"]);
    assert_eq!(one(&mut cluster, "", &["a", "c"]), ["b"]);
    assert_eq!(one(&mut cluster, "disk=ssd", &["a"]), ["b"]);
    // The better of those that are to be avoided.
    assert_eq!(one(&mut cluster, "disk=ssd", &["a", "b"]), ["a"]);
}

#[test]
fn cordoned_nodes_get_nothing_and_reasons_name_what_is_missing() {
    let mut cordoned = labelled("a", "disk=ssd");
    cordoned.cordoned = true;
    let port_taken = NodeSnapshot {
        ports: ",8080/tcp,".to_owned(),
        ..labelled("b", "disk=ssd")
    };
    let nodes = [cordoned, port_taken, calm("c"), labelled("d", "disk=hdd")];
    let mut cluster = cluster(&nodes, 1_000);
    let batch = wanting(2, &["8080/tcp"], "disk=ssd", &[]);
    let reason =
        "0 of 4 nodes: 2 lack the label disk=ssd, 1 have port 8080/tcp taken, 1 are cordoned";
    let both = [(0, reason.to_owned()), (1, reason.to_owned())];
    assert_eq!(plan(&batch, &mut cluster).parked, both);
    let anywhere = plan(&pods(9, 0, 0), &mut cluster);
    assert!(!places(&anywhere, &cluster).contains(&"a".to_owned()));
}

#[test]
fn pods_with_and_without_wishes_share_a_batch() {
    let mut small = calm("a");
    small.capacity.cpu_millis = 1_000;
    let mut cluster = cluster(&[small, labelled("b", "disk=ssd")], 1_000);
    let mut batch = Vec::new();
    for _ in 0..4 {
        batch.extend(pods(1, 600, 0)); // only one fits on a
        batch.extend(wanting(1, &[], "node=a", &[]));
    }
    let plan = plan(&batch, &mut cluster);
    let counts = counts(&plan, &cluster);
    assert_eq!(counts, HashMap::from([("a".into(), 5), ("b".into(), 3)]));
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
        avg in 0.0..100.0f64, busy in 0.0..1.0f64, cordoned in prop::bool::weighted(0.2),
        disk in 0..3usize, port in 0..3usize,
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
        node.cordoned = cordoned;
        node.labels = ["", "disk=ssd", "disk=hdd,zone=eu"][disk].to_owned();
        node.ports = ["", ",", ",1/tcp,"][port].to_owned();
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

fn batch(asks: &[(u64, u64)]) -> Vec<Waiting> {
    let pods = asks.iter().enumerate();
    let pods = pods.map(|(replica, (cpu_millis, memory_bytes))| Waiting {
        pod: WaitingPod {
            id: PodId::of_submission("pod", u32::try_from(replica).unwrap()),
            cpu_millis: *cpu_millis,
            memory_bytes: *memory_bytes,
            wants: None,
        },
        rules: None,
    });
    pods.collect()
}

/// What is wanted beside room: a port, a selector, nodes to avoid.
type Wish = (Vec<String>, BTreeMap<String, String>, Vec<String>);

prop_compose! {
    fn wish()(port in 0..4usize, selector in 0..4usize, avoid in 0..3usize) -> Wish {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        (
            words(["", "", "1/tcp", "1/tcp 2/udp"][port]),
            read_labels(["", "", "disk=ssd", "node=n1"][selector]),
            words(["", "", "n0 n1"][avoid]),
        )
    }
}

/// Whether the node, as it stands, takes the pod.
fn takes(node: &NodeSnapshot, pod: &WaitingPod, wish: &Wish) -> bool {
    let labels = read_labels(&node.labels);
    let fits = |asked: u64, used: u64, offered: u64| asked == 0 || used + asked <= offered;
    let offered = node.capacity;
    node.engine == EngineState::Up
        && !node.cordoned
        && 100_000 - node.heartbeat_ms <= LEASE_MS
        && node.pods < offered.pods_max
        && fits(pod.cpu_millis, node.cpu_requested, offered.cpu_millis)
        && fits(
            pod.memory_bytes,
            node.memory_requested,
            offered.memory_bytes,
        )
        && wish.1.iter().all(|(key, value)| {
            labels.get(key) == Some(value) || (key == "node" && *value == node.name)
        })
        && wish
            .0
            .iter()
            .all(|port| !node.ports.split(',').any(|used| used == port))
}

proptest! {
    #[test]
    fn wishes_are_held_and_avoided_nodes_are_the_last_choice(
        nodes in prop::collection::vec(node(), 0..8).prop_map(named),
        asks in prop::collection::vec((waiting(), wish()), 0..60),
    ) {
        let plain: Vec<(u64, u64)> = asks.iter().map(|(ask, _)| *ask).collect();
        let mut batch = batch(&plain);
        for (waiting, (_, (ports, labels, avoid))) in batch.iter_mut().zip(&asks) {
            let placement = Placement { labels: labels.clone(), ..Placement::default() };
            waiting.rules = Some(rules_with("web", placement, ports.clone()));
            let avoid = avoid.clone();
            waiting.pod.wants = Some(Box::new(Wants { avoid, ..Wants::default() }));
        }
        let mut cluster = cluster(&nodes, 100_000);
        let plan = plan(&batch, &mut cluster);
        prop_assert_eq!(plan.placed.len() + plan.parked.len(), batch.len());
        let placed: HashMap<usize, usize> = plan.placed.iter().copied().collect();
        let mut after = nodes.clone();
        for (position, (waiting, (_, wish))) in batch.iter().zip(&asks).enumerate() {
            let pod = &waiting.pod;
            let takers = |after: &[NodeSnapshot]| -> Vec<String> {
                let takers = after.iter().filter(|node| takes(node, pod, wish));
                takers.map(|node| node.name.clone()).collect()
            };
            let Some(at) = placed.get(&position) else {
                prop_assert_eq!(takers(&after), Vec::<String>::new(), "{:?} is parked", pod);
                continue;
            };
            let name = cluster.name(*at).to_owned();
            let possible = takers(&after);
            prop_assert!(possible.contains(&name), "{:?} on {}", pod, name);
            let avoid = &wish.2;
            prop_assert!(!avoid.contains(&name) || possible.iter().all(|node| avoid.contains(node)));
            let node = after.iter_mut().find(|node| node.name == name).unwrap();
            node.pods += 1;
            node.cpu_requested += pod.cpu_millis;
            node.memory_requested += pod.memory_bytes;
            for port in &wish.0 {
                node.ports.push_str(&format!(",{port},"));
            }
        }
    }

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
            node.cpu_requested += batch[*position].pod.cpu_millis;
            node.memory_requested += batch[*position].pod.memory_bytes;
            prop_assert!(node.pods <= node.capacity.pods_max);
            prop_assert!(batch[*position].pod.cpu_millis == 0 || node.cpu_requested <= node.capacity.cpu_millis);
            prop_assert!(batch[*position].pod.memory_bytes == 0 || node.memory_requested <= node.capacity.memory_bytes);
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
