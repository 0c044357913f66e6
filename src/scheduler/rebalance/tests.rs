//! Which pod leaves, which does not, and that moves come to an end.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::service::Mount;
use crate::model::{PodId, ServiceKey};
use crate::scheduler::cluster::tests::calm;

const GIB: u64 = 1 << 30;

fn node(name: &str, cpu_used: f64) -> NodeSnapshot {
    NodeSnapshot {
        cpu_used,
        memory_used_bytes: 8 * GIB,
        ..calm(name)
    }
}

fn candidate(pod: &str, cpu_millis: u64, memory_bytes: u64) -> Candidate {
    let pod = PodId::parse(pod).unwrap();
    Candidate {
        culprit: Culprit {
            pod: pod.clone(),
            attempt: 1,
            service: ServiceKey::parse("default/web").unwrap(),
            cpu_millis: 0,
            memory_bytes: 0,
            priority: Priority::Normal,
            replicas: 2,
            rests: false,
            spec: Some(Box::new(ServiceSpec::new("web", "nginx"))),
        },
        used: PodUse {
            pod,
            cpu_millis,
            memory_bytes,
            io_bytes: 0,
        },
    }
}

const CPU: Pressed = Pressed {
    scarce: Scarce::Cpu,
    percent: 90.0,
};

fn chosen(candidates: &[Candidate], others: &[NodeSnapshot]) -> Option<String> {
    let from = node("a", 1.0);
    let choice = choose(&from, CPU, candidates, others, &Thresholds::default());
    choice.map(|choice| choice.candidate.culprit.pod.to_string())
}

#[test]
fn pressure_counts_that_lasts_and_is_still_there() {
    let thresholds = Thresholds::default();
    let mut one = node("a", 1.0);
    one.pressure.memory_avg60 = 50.0;
    assert_eq!(pressed(&one, &thresholds), None, "it is over");
    one.pressure.memory_avg10 = 30.0;
    one.pressure.io_avg10 = 41.0;
    one.pressure.io_avg60 = 41.0;
    let found = pressed(&one, &thresholds).unwrap();
    assert_eq!((found.scarce, found.percent), (Scarce::Memory, 30.0));
    one.pressure.known = false;
    assert_eq!(pressed(&one, &thresholds), None);
    let mut throttled = node("a", 0.3);
    throttled.pressure.cpu_avg10 = 99.0;
    throttled.pressure.cpu_avg60 = 99.0;
    assert_eq!(pressed(&throttled, &thresholds), None);
    throttled.cpu_used = 1.0;
    assert_eq!(
        pressed(&throttled, &thresholds).unwrap().scarce,
        Scarce::Cpu
    );
    let off = Thresholds {
        cpu: 0.0,
        ..thresholds
    };
    assert_eq!(pressed(&throttled, &off), None);
}

#[test]
fn who_uses_most_leaves_unless_another_is_cheaper() {
    let others = [node("b", 0.1)];
    let big = candidate("big", 3000, GIB);
    let small = candidate("small", 2000, GIB);
    assert_eq!(
        chosen(&[small.clone(), big.clone()], &others).unwrap(),
        "big"
    );
    let mut low = small.clone();
    low.culprit.priority = Priority::Low;
    assert_eq!(chosen(&[low, big.clone()], &others).unwrap(), "small");
    let mut alone = big.clone();
    alone.culprit.replicas = 1;
    assert_eq!(chosen(&[small.clone(), alone], &others).unwrap(), "small");
    let large = candidate("large", 3000, 12 * GIB);
    assert_eq!(chosen(&[large, small], &[node("b", 0.1)]).unwrap(), "small");
    // Equal ones: the first by name.
    let twin = candidate("a-twin", 3000, GIB);
    assert_eq!(chosen(&[big, twin], &others).unwrap(), "a-twin");
    assert_eq!(chosen(&[candidate("tiny", 700, GIB)], &others), None);
}

#[test]
fn what_rests_or_keeps_data_on_its_node_stays() {
    let others = [node("b", 0.1)];
    let mut rests = candidate("p", 3000, GIB);
    rests.culprit.rests = true;
    assert_eq!(chosen(&[rests], &others), None);
    for (kind, moves) in [
        (MountKind::Volume, false),
        (MountKind::Bind, false),
        (MountKind::Tmpfs, true),
    ] {
        let mut stateful = candidate("p", 3000, GIB);
        let mut spec = ServiceSpec::new("web", "nginx");
        spec.mounts.push(Mount {
            kind,
            source: None,
            target: "/data".to_owned(),
            read_only: false,
            size: None,
        });
        stateful.culprit.spec = Some(Box::new(spec));
        assert_eq!(chosen(&[stateful], &others).is_some(), moves, "{kind:?}");
    }
    let mut damaged = candidate("p", 3000, GIB);
    damaged.culprit.spec = None;
    assert_eq!(chosen(&[damaged], &others), None);
}

#[test]
fn a_target_is_clearly_calmer_and_stays_so() {
    let pod = [candidate("p", 3000, GIB)];
    let good = node("b", 0.1);
    assert!(chosen(&pod, std::slice::from_ref(&good)).is_some());
    let changes: [fn(&mut NodeSnapshot); 9] = [
        |node| node.name = "a".to_owned(),
        |node| node.pressure.memory_avg60 = 11.0,
        |node| node.pressure.io_avg10 = 21.0,
        |node| node.cpu_used = 0.6,
        |node| node.memory_used_bytes = 13 * GIB,
        |node| node.cordoned = true,
        |node| node.pressed = "io".to_owned(),
        |node| node.engine = EngineState::Down,
        |node| node.pods = node.capacity.pods_max,
    ];
    for (position, change) in changes.into_iter().enumerate() {
        let mut worse = good.clone();
        change(&mut worse);
        assert_eq!(chosen(&pod, &[worse]), None, "{position}");
    }
    let mut wants = pod[0].clone();
    let mut spec = ServiceSpec::new("web", "nginx");
    spec.placement.labels.insert("disk".into(), "ssd".into());
    wants.culprit.spec = Some(Box::new(spec));
    assert_eq!(chosen(&[wants.clone()], std::slice::from_ref(&good)), None);
    let labels = "disk=ssd,zone=eu".to_owned();
    let labelled = NodeSnapshot { labels, ..good };
    assert!(chosen(&[wants], &[labelled]).is_some());
}

/// A cluster in which pods use what they use wherever they are, and a kernel that makes them wait.
#[derive(Debug, Clone)]
struct Model {
    capacity: Vec<u64>,
    /// Node, service, thousandths of a core in use.
    pods: Vec<(usize, u8, u64)>,
    now_min: u64,
    /// When a service was moved last.
    moved_min: BTreeMap<u8, u64>,
    /// Nodes that each pod has left.
    left: Vec<BTreeSet<usize>>,
}

const REST_MIN: u64 = 5;
const PER_MINUTE: usize = 2;

impl Model {
    fn snapshots(&self) -> Vec<NodeSnapshot> {
        let snapshot = |(at, capacity): (usize, &u64)| {
            let here = self.pods.iter().filter(|(node, ..)| *node == at);
            let used: u64 = here.map(|(.., cpu)| cpu).sum();
            let share = f64::from(u32::try_from(used).unwrap())
                / f64::from(u32::try_from(*capacity).unwrap());
            let waits = ((share - 0.7) * 300.0).clamp(0.0, 100.0);
            let mut node = node(&format!("n{at}"), share.min(1.0));
            node.capacity.cpu_millis = *capacity;
            node.pressure.cpu_avg10 = waits;
            node.pressure.cpu_avg60 = waits;
            node
        };
        self.capacity.iter().enumerate().map(snapshot).collect()
    }

    fn candidates(&self, at: usize) -> Vec<Candidate> {
        let pods = self.pods.iter().enumerate();
        let here = pods.filter(|(_, (node, ..))| *node == at);
        here.map(|(number, (_, service, cpu))| {
            let mut made = candidate(&format!("p{number:03}"), *cpu, 0);
            let rested = self.moved_min.get(service);
            made.culprit.rests = rested.is_some_and(|at| self.now_min - at < REST_MIN);
            made
        })
        .collect()
    }

    /// One minute: each node under pressure has at most one pod leave it; `any` chooses among the
    /// nodes that could take it, as nobody knows what else counts when it is placed.
    fn minute(&mut self, any: usize) -> usize {
        let thresholds = Thresholds::default();
        let mut moves = 0;
        for at in 0..self.capacity.len() {
            let nodes = self.snapshots();
            let Some(found) = pressed(&nodes[at], &thresholds) else {
                continue;
            };
            let candidates = self.candidates(at);
            let choice = choose(&nodes[at], found, &candidates, &nodes, &thresholds);
            let Some(choice) = choice.filter(|_| moves < PER_MINUTE) else {
                continue;
            };
            let takers: Vec<usize> = (0..nodes.len())
                .filter(|to| could_take(&nodes[*to], &nodes[at], choice.candidate, &thresholds))
                .collect();
            let to = takers[any % takers.len()];
            let number: usize = choice.candidate.culprit.pod.as_str()[1..].parse().unwrap();
            assert!(!choice.candidate.culprit.rests);
            self.pods[number].0 = to;
            self.left[number].insert(at);
            assert!(!self.left[number].contains(&to), "moved back: {self:?}");
            self.moved_min.insert(self.pods[number].1, self.now_min);
            moves += 1;
        }
        self.now_min += 1;
        moves
    }
}

proptest! {
    #[test]
    fn moves_come_to_an_end_and_none_is_undone(
        capacity in prop::collection::vec(2_000..16_000u64, 2..6),
        pods in prop::collection::vec((0..6usize, 0..6u8, 1..4_000u64), 0..40),
        any in prop::collection::vec(0..6usize, 1..10),
    ) {
        let nodes = capacity.len();
        let pods: Vec<_> = pods.into_iter().map(|(at, service, cpu)| (at % nodes, service, cpu)).collect();
        let mut model = Model {
            left: vec![BTreeSet::new(); pods.len()],
            capacity,
            pods,
            now_min: REST_MIN,
            moved_min: BTreeMap::new(),
        };
        let thresholds = Thresholds::default();
        let count = |model: &Model| {
            model.snapshots().iter().filter(|node| pressed(node, &thresholds).is_some()).count()
        };
        let (mut under_pressure, mut quiet, mut all) = (count(&model), 0, 0);
        for minute in 0.. {
            prop_assert!(minute < 500, "it ends: {:?}", model);
            let moves = model.minute(any[minute % any.len()]);
            prop_assert!(moves <= PER_MINUTE);
            let now = count(&model);
            prop_assert!(now <= under_pressure, "a move put another node under pressure");
            (under_pressure, all) = (now, all + moves);
            quiet = if moves == 0 { quiet + 1 } else { 0 };
            if quiet > REST_MIN {
                break;
            }
        }
        prop_assert!(all <= model.pods.len(), "each pod moves once at most");
    }

    #[test]
    fn same_input_same_choice_in_any_order(
        uses in prop::collection::vec((1..4_000u64, 0..4u64), 1..12), turn in 0..12usize,
    ) {
        let others = [node("b", 0.1), node("c", 0.2)];
        let mut pods: Vec<Candidate> = uses.iter().enumerate()
            .map(|(number, (cpu, gib))| candidate(&format!("p{number:02}"), *cpu, gib * GIB))
            .collect();
        let first = chosen(&pods, &others);
        let turn = turn % pods.len();
        pods.rotate_left(turn);
        prop_assert_eq!(chosen(&pods, &others), first);
    }
}
