//! Records of decisions: planned again from their JSON they come to the same, bit for bit.

use super::*;
use crate::model::decision::{CANDIDATES_MAX, NODES_MAX, PODS_MAX};
use crate::model::{Amounts, Decision};
use crate::scheduler::record::{Input, Place, Record};

/// Placements of all sorts; one score gives no number for some nodes.
const PLACEMENTS: [&str; 16] = [
    "{}",
    r#"{"strategy":"pressure"}"#,
    r#"{"strategy":"spread"}"#,
    r#"{"strategy":"binpack"}"#,
    r#"{"strategy":"round-robin"}"#,
    r#"{"strategy":"random"}"#,
    r#"{"strategy":"first-fit"}"#,
    r#"{"strategy":"worst-fit"}"#,
    r#"{"strategy":"cheapest"}"#,
    r#"{"score":"10 * pressure_io + pods + placed"}"#,
    r#"{"score":"1 / (node_pods - 3)"}"#,
    r#"{"labels":{"disk":"ssd"}}"#,
    r#"{"spread":[{"over":"disk"}],"max_per_node":3}"#,
    r#"{"strategy":"random","max_per_node":2}"#,
    r#"{"affinity":[{"apart":{"service":"s1"}},{"near":{"service":"s2"},"per":"disk","weight":3}]}"#,
    r#"{"labels":{"node":"n1"}}"#,
];

/// A decision as it is kept, its plan's places, and what is read from its JSON.
fn recorded(seed: &str, batch: &[Waiting], cluster: &mut Cluster) -> (Decision, Vec<Place>, Input) {
    let asks = batch.iter().map(|waiting| Ask {
        pod: &waiting.pod,
        rules: waiting.rules.clone(),
    });
    let asks: Vec<Ask<'_>> = asks.collect();
    let mut record = Record::take(seed, &asks, cluster);
    let plan = super::super::plan(seed, &asks, cluster);
    record.decide(&plan, cluster);
    let mut places: Vec<Place> = vec![Err(String::new()); batch.len()];
    for (pod, at) in &plan.placed {
        places[*pod] = Ok(cluster.name(*at).to_owned());
    }
    for (pod, reason) in plan.parked {
        places[pod] = Err(reason);
    }
    places.truncate(PODS_MAX);
    let json = record.into_decision("nonce".to_owned(), 0).to_json();
    let decision: Decision = serde_json::from_str(&json).unwrap();
    let (input, told) = Input::of(&decision).unwrap();
    assert_eq!(told, places);
    (decision, places, input)
}

fn mixed(services: &[Arc<Rules>], asks: &[((u64, u64), Wish, usize)]) -> Vec<Waiting> {
    let plain: Vec<(u64, u64)> = asks.iter().map(|(ask, ..)| *ask).collect();
    let mut batch = batch(&plain);
    for (waiting, (_, (_, _, avoid), service)) in batch.iter_mut().zip(asks) {
        waiting.rules = services.get(*service).cloned();
        let avoid = avoid.clone();
        waiting.pod.wants = Some(Box::new(Wants {
            avoid,
            ..Wants::default()
        }));
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_input_gives_the_same_plan(
        nodes in prop::collection::vec(node(), 0..9).prop_map(named),
        before in prop::collection::vec((waiting(), wish(), 0..18usize), 0..40),
        asks in prop::collection::vec((waiting(), wish(), 0..18usize), 1..60),
        default in 0..8usize, doubted in 0..20usize, weight in 0.0..3.0f64,
    ) {
        let services: Vec<Arc<Rules>> = PLACEMENTS.iter().enumerate().map(|(index, json)| {
            let ports = if index % 5 == 1 { vec!["1/tcp".to_owned()] } else { Vec::new() };
            let placement = serde_json::from_str(json).unwrap();
            let key = ServiceKey::parse(&format!("default/s{index}"));
            let rules = Rules::of(key, 1, "default".to_owned(), ports, placement);
            let asks = ["", "disk=3", "", "disk=1,gpu=1"][index % 4];
            Arc::new(rules.asking(Amounts::parse(asks)))
        }).collect();
        let weights = Weights { cpu: weight, pressure_io: weight / 3.0, ..Weights::default() };
        let mut cluster = Cluster::new(weights, Strategy::ALL[default], LEASE_MS);
        let with_stock = nodes.into_iter().enumerate().map(|(index, mut node)| {
            node.stock.offers = format!("disk={}", index * 4);
            node.stock.devices = [",gpu/0,gpu/1,", ""][index % 2].to_owned();
            node
        });
        cluster.hear(100_000, with_stock.collect());
        for peer in services.iter().flat_map(|rules| rules.peers()) {
            cluster.count(peer, "0".to_owned(), &[("n0".to_owned(), 1), ("n3".to_owned(), 2)]);
        }
        // What a scheduler did before shows in its copy: pods placed, a node doubted, rankings kept.
        plan(&mixed(&services, &before), &mut cluster);
        cluster.doubt(&format!("n{doubted}"));
        cluster.set_round_robin("n2".to_owned());
        let (decision, places, input) =
            recorded("batch", &mixed(&services, &asks), &mut cluster);
        prop_assert!(decision.whole);
        prop_assert_eq!(input.plan(), places.clone());
        // The best candidate at a pod's turn is the one it was given; who waits has none.
        for (position, place) in places.iter().enumerate().step_by(5) {
            let kind = input.kind_at(position).unwrap();
            let refused: u64 = kind.refused.iter().map(|refused| refused.nodes).sum();
            prop_assert_eq!(kind.takes + refused, decision.nodes_all);
            let best = kind.candidates.first().map(|best| best.node.clone());
            prop_assert_eq!(best, place.clone().ok(), "{}: {:?}", position, kind);
        }
    }
}

#[test]
fn a_record_tells_how_the_nodes_looked() {
    let mut small = calm("a");
    small.capacity.memory_bytes = 1 << 30;
    let mut busy = calm("b");
    busy.pods = 50;
    let mut cluster = cluster(&[small, busy, calm("c")], 1_000);
    let mut batch = pods(2, 500, 2 << 30);
    batch.extend(pods(1, 0, 64 << 30));
    let (decision, ..) = recorded("batch", &batch, &mut cluster);
    let nodes: Vec<Option<&str>> = decision
        .pods
        .iter()
        .map(|pod| pod.node.as_deref())
        .collect();
    assert_eq!(nodes, [Some("c"), Some("c"), None]);
    let kinds: Vec<Option<usize>> = decision.pods.iter().map(|pod| pod.kind).collect();
    assert_eq!(kinds, [Some(0), Some(0), Some(1)]);
    let (first, second) = (&decision.kinds[0], &decision.kinds[1]);
    assert_eq!(
        (first.pods, first.takes, first.by.as_str()),
        (2, 2, "pressure")
    );
    let told: Vec<(&str, u64, f64)> = first
        .candidates
        .iter()
        .map(|it| (it.node.as_str(), it.chosen, it.terms["pods"]))
        .collect();
    assert_eq!(told, [("c", 2, 0.0), ("b", 0, 0.2)]);
    assert_eq!(first.candidates[1].measure, Some(first.candidates[1].score));
    let why = "lack memory (2048 MiB needed, at most 1024 MiB free)";
    assert_eq!(
        (first.refused[0].nodes, first.refused[0].why.as_str()),
        (1, why)
    );
    assert_eq!((second.takes, second.candidates.len()), (0, 0));
    let reason = decision.pods[2].reason.as_deref();
    assert!(reason.unwrap().starts_with("0 of 3 nodes: 3 lack memory"));
}

#[test]
fn of_many_pods_and_nodes_a_part_is_told() {
    let nodes = NODES_MAX + 50;
    let nodes: Vec<NodeSnapshot> = (0..nodes).map(|it| calm(&format!("n{it:03}"))).collect();
    let mut cluster = cluster(&nodes[..NODES_MAX], 1_000);
    let batch = pods(PODS_MAX + 20, 100, 0);
    let (decision, places, input) = recorded("batch", &batch, &mut cluster);
    assert!(decision.whole && decision.nodes.len() == NODES_MAX);
    assert_eq!((decision.pods_all, decision.pods.len()), (120, PODS_MAX));
    assert_eq!(input.plan(), places, "no later pod has a say in the first");

    let mut cluster = super::cluster(&nodes, 1_000);
    let (decision, ..) = recorded("batch", &batch, &mut cluster);
    assert!(!decision.whole && decision.nodes.is_empty());
    assert_eq!(decision.nodes_all, 150);
    let kind = &decision.kinds[0];
    assert_eq!((kind.takes, kind.candidates.len()), (150, CANDIDATES_MAX));
    assert_eq!(kind.candidates[0].node, "n000");
    assert_eq!(kind.candidates[0].chosen, 1);
}

/// What nodes were like earlier decides nothing: a score that failed once is tried again.
#[test]
fn a_score_that_failed_is_tried_again() {
    let rules = rules("web", r#"{"score":"-label_size / node_pods"}"#);
    let node = |name: &str, pods: u32, size: &str| {
        let mut node = labelled(name, &format!("size={size}"));
        node.pods = pods;
        node
    };
    let mut cluster = cluster(&[node("a", 0, "0"), node("b", 5, "9")], 1_000);
    let first = plan(&of(&rules, 1), &mut cluster);
    assert_eq!(
        places(&first, &cluster),
        ["a"],
        "0 / 0 is no number: by default"
    );
    let mut later = node("a", 5, "1");
    later.heartbeat_ms = 2_000;
    cluster.hear(2_000, vec![later]);
    let second = plan(&of(&rules, 1), &mut cluster);
    assert_eq!(places(&second, &cluster), ["b"], "its own score again");
}
