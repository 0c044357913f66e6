//! Where each strategy puts nine pods on five nodes: the table says it all.

use std::collections::BTreeSet;

use super::*;

/// Five nodes: `a` is small, `b` busy, `c` pressed, `d` large and dear, `e` cheap.
fn five() -> Vec<NodeSnapshot> {
    let node = |name: &str, cores: u64, pods: u32, price: &str| {
        let mut node = labelled(name, &format!("price={price}"));
        node.capacity.cpu_millis = cores * 1000;
        node.capacity.pods_max = 10;
        node.pods = pods;
        node.cpu_requested = u64::from(pods) * 500;
        node
    };
    let mut pressed = node("c", 8, 0, "0.30");
    pressed.pressure.memory_avg10 = 50.0;
    vec![
        node("a", 2, 0, "0.10"),
        node("b", 8, 8, "0.30"),
        pressed,
        node("d", 32, 2, "1.20"),
        node("e", 8, 1, "0.05"),
    ]
}

#[test]
fn each_strategy_has_its_order() {
    for (placement, expected) in [
        (r#"{}"#, "a e d e d a d e d"),
        (r#"{"strategy":"pressure"}"#, "a e d e d a d e d"),
        (r#"{"strategy":"spread"}"#, "a c e a c d e a c"),
        (r#"{"strategy":"binpack"}"#, "b b d d d d d d d"),
        (r#"{"strategy":"round-robin"}"#, "c d e a b c d e a"),
        (r#"{"strategy":"first-fit"}"#, "a a a a b b c c c"),
        (r#"{"strategy":"worst-fit"}"#, "a c e c d e c d a"),
        (r#"{"strategy":"cheapest"}"#, "e e e e e e e e e"),
        (r#"{"score":"price + 10 * pods"}"#, "a c e a c e a c e"),
        (r#"{"score":"-label_price"}"#, "d d d d d d d d b"),
        // No number for `e`, so the cluster's default.
        (r#"{"score":"1 / (node_pods - 1)"}"#, "a e d e d a d e d"),
    ] {
        let mut cluster = cluster(&five(), 1_000);
        cluster.set_round_robin("b".to_owned());
        let mut nine = of(&rules("web", placement), 9);
        for waiting in &mut nine {
            waiting.pod.cpu_millis = 500;
        }
        let plan = plan(&nine, &mut cluster);
        assert_eq!(places(&plan, &cluster).join(" "), expected, "{placement}");
    }
}

#[test]
fn chance_is_drawn_from_the_batch() {
    let place = |seed: &str| {
        let mut cluster = cluster(&five(), 1_000);
        let batch = of(&rules("web", r#"{"strategy":"random"}"#), 20);
        let asks = batch.iter().map(|waiting| Ask {
            pod: &waiting.pod,
            rules: waiting.rules.clone(),
        });
        let plan = super::super::plan(seed, &asks.collect::<Vec<_>>(), &mut cluster);
        places(&plan, &cluster)
    };
    assert_eq!(place("one"), place("one"));
    assert_ne!(place("one"), place("other"));
    let all: BTreeSet<String> = place("one").into_iter().collect();
    assert_eq!(all.len(), 5, "{all:?}");
}

#[test]
fn turns_go_on_where_the_last_batch_ended() {
    let mut cluster = cluster(&[calm("n1"), calm("n2"), calm("n3")], 1_000);
    let rules = rules("web", r#"{"strategy":"round-robin"}"#);
    let mut all = Vec::new();
    for _ in 0..3 {
        let plan = plan(&of(&rules, 2), &mut cluster);
        all.extend(places(&plan, &cluster));
        cluster.set_round_robin(all.last().unwrap().clone());
    }
    assert_eq!(all, ["n1", "n2", "n3", "n1", "n2", "n3"]);
}
