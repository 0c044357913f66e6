//! The copy of the nodes follows what is told, and the best of it is the best of a naive full scan.

use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::*;
use crate::model::Strategy;
use crate::model::{Capacity, PodId, Pressure};
use crate::scheduler::strategy::Orderer;
use crate::store::Stock;

/// A node that offers much and is not pressed.
pub(crate) fn calm(name: &str) -> NodeSnapshot {
    NodeSnapshot {
        name: name.to_owned(),
        heartbeat_ms: 1_000,
        lost: false,
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max: 250,
            cpu_millis: 8_000,
            memory_bytes: 16 << 30,
        },
        pods: 0,
        cpu_requested: 0,
        memory_requested: 0,
        cpu_used: 0.0,
        memory_used_bytes: 0,
        pressure: Pressure {
            known: true,
            ..Pressure::default()
        },
        epoch: 1,
        version: String::new(),
        labels: String::new(),
        ports: String::new(),
        stock: Stock::default(),
        turn: 0,
        platform: "linux/amd64".to_owned(),
        cordoned: false,
        draining: false,
        pressed: String::new(),
    }
}

fn best(cluster: &mut Cluster) -> Option<String> {
    let pod = WaitingPod {
        id: PodId::of_submission("pod", 0),
        cpu_millis: 0,
        memory_bytes: 0,
        wants: None,
    };
    cluster.begin("seed");
    let ask = Ask {
        pod: &pod,
        rules: None,
    };
    let at = cluster.best_for(&ask)?;
    Some(cluster.name(at).to_owned())
}

#[test]
fn a_node_that_is_heard_again_is_no_longer_doubted() {
    let mut cluster = Cluster::new(Weights::default(), Strategy::Pressure, 20_000);
    cluster.hear(1_000, vec![calm("a")]);
    cluster.doubt("a");
    assert_eq!(best(&mut cluster), None);
    let mut later = calm("a");
    later.heartbeat_ms = 2_000;
    cluster.hear(2_000, vec![later]);
    assert_eq!(best(&mut cluster), Some("a".to_owned()));
}

#[test]
fn a_node_that_is_forgotten_is_counted_no_more() {
    let mut cluster = Cluster::new(Weights::default(), Strategy::Pressure, 20_000);
    cluster.hear(1_000, vec![calm("a"), calm("b"), calm("c")]);
    cluster.keep(|name| name == "c");
    assert_eq!(cluster.len(), 1);
    assert_eq!(best(&mut cluster), Some("c".to_owned()));
    cluster.hear(1_000, vec![calm("b")]);
    assert_eq!(cluster.len(), 2);
    assert_eq!(best(&mut cluster), Some("b".to_owned()));
}

#[test]
fn a_node_whose_lease_ends_between_two_looks_is_left_out() {
    let mut cluster = Cluster::new(Weights::default(), Strategy::Pressure, 20_000);
    cluster.hear(1_000, vec![calm("a")]);
    assert_eq!(best(&mut cluster), Some("a".to_owned()));
    cluster.tick(30_000);
    assert_eq!(best(&mut cluster), None);
    let mut again = calm("a");
    again.heartbeat_ms = 30_000;
    cluster.hear(30_000, vec![again]);
    assert_eq!(best(&mut cluster), Some("a".to_owned()));
}

/// The best of all nodes by the key that the strategy gives each, looked at one by one.
fn naive(cluster: &mut Cluster, ask: &Ask<'_>) -> Option<usize> {
    let alike = cluster.alike(ask);
    let mut orderer = Orderer::of(&alike, &cluster.weights, cluster.strategy);
    let takers: Vec<usize> = (0..cluster.len())
        .filter(|at| cluster.refusal(*at, ask).is_none())
        .collect();
    let mut keys = |at: usize| {
        let entry = &cluster.nodes[at];
        let soft = alike.like.suits(&entry.labels).unwrap_or(0);
        orderer.key(soft, entry)
    };
    takers.into_iter().min_by_key(|at| keys(*at))
}

/// What happens between two pods.
#[derive(Debug, Clone)]
enum Change {
    /// A node is heard: which, its io pressure, how many pods it holds, its labels.
    Heard(usize, f64, u32, usize),
    /// An assign call said so many pods are on it.
    Room(usize, u32),
    Doubted(usize),
    /// So much time passes.
    Time(u64),
    Nothing,
}

fn change() -> impl proptest::strategy::Strategy<Value = Change> {
    prop_oneof![
        (0..7usize, 0.0..60.0f64, 0..8u32, 0..3usize)
            .prop_map(|(node, io, pods, labels)| Change::Heard(node, io, pods, labels)),
        (0..7usize, 0..8u32).prop_map(|(node, pods)| Change::Room(node, pods)),
        (0..7usize).prop_map(Change::Doubted),
        (0..12_000u64).prop_map(Change::Time),
        Just(Change::Nothing),
        Just(Change::Nothing),
    ]
}

const LABELS: [&str; 3] = [
    "",
    "disk=ssd,price=0.5",
    "taint-soft/old=,disk=ssd,price=0.1",
];
const PLACEMENTS: [&str; 7] = [
    "{}",
    r#"{"strategy":"spread"}"#,
    r#"{"strategy":"binpack","labels":{"disk":"ssd"}}"#,
    r#"{"strategy":"worst-fit"}"#,
    r#"{"strategy":"first-fit","constraints":["price<0.3"]}"#,
    r#"{"strategy":"cheapest"}"#,
    r#"{"score":"pods + pressure_io"}"#,
];

proptest! {
    /// Rankings follow every change: each pod gets the node that a naive full scan would choose.
    #[test]
    fn no_place_is_worse_than_the_full_scans(
        steps in prop::collection::vec((change(), 0..PLACEMENTS.len(), 0..3u64), 1..80),
    ) {
        let mut cluster = Cluster::new(Weights::default(), Strategy::Pressure, 20_000);
        let rules: Vec<Arc<Rules>> = PLACEMENTS.iter().map(|placement| {
            let placement = serde_json::from_str(placement).unwrap();
            let namespace = "default".to_owned();
            Arc::new(Rules::of(None, 1, namespace, Vec::new(), placement))
        }).collect();
        let mut now_ms = 100_000;
        for (change, placement, cpu) in steps {
            match change {
                Change::Heard(node, io, pods, labels) => {
                    let mut node = calm(&format!("n{node}"));
                    node.heartbeat_ms = now_ms;
                    node.capacity.pods_max = 8;
                    node.pods = pods;
                    node.pressure.io_avg10 = io;
                    LABELS[labels].clone_into(&mut node.labels);
                    cluster.hear(now_ms, vec![node]);
                }
                Change::Room(node, pods) => cluster.set_room(&RoomOn {
                    node: format!("n{node}"), pods, cpu_requested: u64::from(pods) * 500,
                    memory_requested: 0, suits: None, stock: None,
                }),
                Change::Doubted(node) => cluster.doubt(&format!("n{node}")),
                Change::Time(passed) => {
                    now_ms += passed;
                    cluster.tick(now_ms);
                }
                Change::Nothing => {}
            }
            let pod = WaitingPod {
                id: PodId::of_submission("pod", 0), cpu_millis: cpu * 500, memory_bytes: 0, wants: None,
            };
            let ask = Ask { pod: &pod, rules: Some(rules[placement].clone()) };
            cluster.begin("seed");
            let expected = naive(&mut cluster, &ask);
            let found = cluster.best_for(&ask);
            prop_assert_eq!(found, expected, "{}", PLACEMENTS[placement]);
            if let Some(at) = found {
                cluster.place(at, &ask);
            }
        }
    }
}
