//! Places that depend on where other pods are: affinity, spread, most on a node.

use super::*;

/// A cluster of nodes with labels, in which pods of services are where `there` says: `db@a db@b`.
fn with(nodes: &[(&str, &str)], there: &str, rules: &Rules) -> Cluster {
    let nodes = nodes.iter().map(|(name, labels)| labelled(name, labels));
    let mut cluster = cluster(&nodes.collect::<Vec<_>>(), 1_000);
    for peer in rules.peers() {
        count(&mut cluster, peer, there);
    }
    cluster
}

fn count(cluster: &mut Cluster, peer: Peer, there: &str) {
    let mut counts: HashMap<String, u32> = HashMap::new();
    let there = there.split_whitespace();
    for (service, node) in there.filter_map(|it| it.split_once('@')) {
        if peer.service == format!("default/{service}") {
            *counts.entry(node.to_owned()).or_default() += 1;
        }
    }
    let counts: Vec<(String, u32)> = counts.into_iter().collect();
    cluster.count(peer, "0".to_owned(), &counts);
}

const ZONES: [(&str, &str); 6] = [
    ("a1", "zone=a"),
    ("a2", "zone=a"),
    ("a3", "zone=a"),
    ("b1", "zone=b"),
    ("b2", "zone=b"),
    ("c1", "zone=c"),
];

/// Scenarios as users of Kubernetes know them from its documentation, as a table of ours: pods that
/// are there, the placement of `web`, and where so many pods of it go (- is parked).
const BY_THE_BOOK: [(&str, &str, &str); 26] = [
    // Near a service: on its node, or in its zone.
    (
        "db@b1",
        r#"{"affinity":[{"near":{"service":"db"}}]}"#,
        "b1 b1",
    ),
    (
        "db@b1",
        r#"{"affinity":[{"near":{"service":"db"},"per":"zone"}]}"#,
        "b1 b2 b1",
    ),
    ("", r#"{"affinity":[{"near":{"service":"db"}}]}"#, "-"),
    (
        "",
        r#"{"affinity":[{"near":{"service":"db"},"weight":1}]}"#,
        "a1 a2",
    ),
    (
        "db@c1",
        r#"{"affinity":[{"near":{"service":"db"},"weight":1}]}"#,
        "c1 c1",
    ),
    // Near its own: the first chooses, the others follow.
    (
        "",
        r#"{"affinity":[{"near":{"service":"web"},"per":"zone"}]}"#,
        "a1 a2 a3 a1",
    ),
    (
        "web@c1",
        r#"{"affinity":[{"near":{"service":"web"},"per":"zone"}]}"#,
        "c1 c1",
    ),
    // Apart from a service.
    (
        "db@a1",
        r#"{"affinity":[{"apart":{"service":"db"}}]}"#,
        "a2 a3 b1 b2 c1 a2",
    ),
    (
        "db@a1 db@b2",
        r#"{"affinity":[{"apart":{"service":"db"},"per":"zone"}]}"#,
        "c1 c1",
    ),
    (
        "db@a1 db@b2 db@c1",
        r#"{"affinity":[{"apart":{"service":"db"},"per":"zone"}]}"#,
        "-",
    ),
    // Apart from its own: one on each node, one in each zone.
    (
        "",
        r#"{"affinity":[{"apart":{"service":"web"}}]}"#,
        "a1 a2 a3 b1 b2 c1 -",
    ),
    (
        "",
        r#"{"affinity":[{"apart":{"service":"web"},"per":"zone"}]}"#,
        "a1 b1 c1 -",
    ),
    (
        "",
        r#"{"affinity":[{"apart":{"service":"web"},"per":"zone","weight":9}]}"#,
        "a1 b1 c1 a2 b2 c1 a3",
    ),
    ("", r#"{"max_per_node":1}"#, "a1 a2 a3 b1 b2 c1 -"),
    (
        "web@a1 web@a1",
        r#"{"max_per_node":2}"#,
        "a2 a3 b1 b2 c1 a2 a3 b1 b2 c1 -",
    ),
    // Spread over zones, however many nodes each has.
    (
        "",
        r#"{"spread":[{"over":"zone"}]}"#,
        "a1 b1 c1 a2 b2 c1 a3",
    ),
    (
        "web@a1 web@a1 web@b1",
        r#"{"spread":[{"over":"zone"}]}"#,
        "c1 b1",
    ),
    (
        "web@a1",
        r#"{"spread":[{"over":"zone","max_skew":3}]}"#,
        "a1 a2",
    ),
    ("", r#"{"spread":[{"over":"rack"}]}"#, "-"),
    ("", r#"{"spread":[{"over":"rack","weight":5}]}"#, "a1 a2"),
    (
        "web@a1 web@a2 web@b1",
        r#"{"spread":[{"over":"zone","weight":5}]}"#,
        "c1 b1 c1 a1",
    ),
    // Only zones whose nodes suit are compared.
    (
        "",
        r#"{"constraints":["zone in (a, b)"],"spread":[{"over":"zone"}]}"#,
        "a1 b1 a2 b2",
    ),
    // Several at once.
    (
        "db@b1",
        r#"{"affinity":[{"near":{"service":"db"},"per":"zone"},{"apart":{"service":"web"}}]}"#,
        "b1 b2 -",
    ),
    (
        "",
        r#"{"spread":[{"over":"zone"}],"max_per_node":1}"#,
        "a1 b1 c1 a2 b2 -",
    ),
    (
        "",
        r#"{"strategy":"round-robin","max_per_node":1}"#,
        "a1 a2 a3 b1 b2 c1 -",
    ),
    (
        "",
        r#"{"strategy":"first-fit","spread":[{"over":"zone"}]}"#,
        "a1 b1 c1 a1 b1 c1",
    ),
];

#[test]
fn affinity_and_spread_by_the_book() {
    for (there, placement, expected) in BY_THE_BOOK {
        let rules = rules("web", placement);
        let mut cluster = with(&ZONES, there, &rules);
        let count = expected.split(' ').count();
        let plan = plan(&of(&rules, count), &mut cluster);
        let mut found: Vec<String> = vec!["-".to_owned(); count];
        for (pod, at) in &plan.placed {
            cluster.name(*at).clone_into(&mut found[*pod]);
        }
        assert_eq!(found.join(" "), expected, "{there} {placement}");
    }
}

#[test]
fn labels_mean_all_services_that_have_them() {
    let placement = r#"{"affinity":[{"apart":{"labels":{"tier":"noisy"}}}]}"#;
    let placement: Placement = serde_json::from_str(placement).unwrap();
    let key = ServiceKey::parse("default/web");
    let mut rules = Rules::of(key, 1, "default".to_owned(), Vec::new(), placement);
    rules.targets[0] = vec!["default/batch".to_owned(), "default/build".to_owned()];
    let rules = Arc::new(rules);
    let mut cluster = with(&ZONES, "batch@a1 build@a2", &rules);
    let plan = plan(&of(&rules, 2), &mut cluster);
    assert_eq!(places(&plan, &cluster), ["a3", "b1"]);
}

#[test]
fn reasons_name_the_wish() {
    let nodes = [
        ("a", "taint/spot=,cores=8"),
        ("b", "cores=4"),
        ("c", "cores=16"),
        ("d", "cores=16"),
    ];
    let placement =
        r#"{"constraints":["cores>=8"],"affinity":[{"near":{"service":"db"}}],"max_per_node":1}"#;
    let rules = rules("web", placement);
    let mut cluster = with(&nodes, "db@b db@d web@d", &rules);
    let plan = plan(&of(&rules, 1), &mut cluster);
    let reason = "0 of 4 nodes: 1 do not meet cores>=8, 1 have a taint that is not tolerated, \
                  1 are not near db (per node), 1 have 1 of the service, which is the most";
    assert_eq!(plan.parked, [(0, reason.to_owned())]);
}

prop_compose! {
    fn zoned()(pods in 0..5u32, zone in 0..4usize, io in 0.0..100.0f64) -> NodeSnapshot {
        let mut node = labelled("", ["", "zone=a", "zone=b", "zone=c"][zone]);
        node.capacity.pods_max = 5;
        node.pods = pods;
        node.pressure.io_avg10 = io;
        node
    }
}

proptest! {
    /// Musts hold for random clusters, whatever the strategy, and no pod waits that could be placed.
    #[test]
    fn musts_hold(
        nodes in prop::collection::vec(zoned(), 0..9).prop_map(named),
        count in 0..25usize, skew in 1..4u32, per_node in 1..4u32, strategy in 0..8usize,
        wants_spread: bool, wants_apart: bool,
    ) {
        let strategy = Strategy::ALL[strategy];
        let spread = if wants_spread { format!(r#"{{"over":"zone","max_skew":{skew}}}"#) } else { String::new() };
        let apart = if wants_apart { r#"{"apart":{"service":"db"}}"# } else { "" };
        let rules = rules("web", &format!(
            r#"{{"strategy":"{strategy}","max_per_node":{per_node},"spread":[{spread}],"affinity":[{apart}]}}"#
        ));
        let mut cluster = cluster(&nodes, 1_000);
        for peer in rules.peers() {
            super::peers::count(&mut cluster, peer, "db@n0");
        }
        let decided = plan(&of(&rules, count), &mut cluster);
        let zone_of = |name: &str| {
            let node = nodes.iter().find(|node| node.name == name).unwrap();
            read_labels(&node.labels).get("zone").cloned()
        };
        let mut by_node: HashMap<String, u32> = HashMap::new();
        let mut by_zone: HashMap<String, u32> =
            nodes.iter().filter_map(|node| Some((zone_of(&node.name)?, 0))).collect();
        for (_, at) in &decided.placed {
            let name = cluster.name(*at).to_owned();
            let here = by_node.entry(name.clone()).or_default();
            *here += 1;
            prop_assert!(*here <= per_node);
            prop_assert!(!wants_apart || name != "n0");
            let node = nodes.iter().find(|node| node.name == name).unwrap();
            prop_assert!(*here + node.pods <= 5);
            match zone_of(&name) {
                Some(zone) => *by_zone.get_mut(&zone).unwrap() += 1,
                None => prop_assert!(!wants_spread),
            }
            if wants_spread {
                let (least, most) = (by_zone.values().min().unwrap(), by_zone.values().max().unwrap());
                prop_assert!(most - least <= skew, "{by_zone:?}");
            }
        }
        if !decided.parked.is_empty() {
            // One alone finds no place either: nothing was overlooked.
            let again = plan(&of(&rules, 1), &mut cluster);
            prop_assert!(again.placed.is_empty(), "{again:?}");
        }
    }
}
