//! Plans for pods that ask for disk, pids and devices.

use super::*;
use crate::model::Amounts;
use crate::store::Stock;

fn offering(name: &str, disk: u64, devices: &[&str]) -> NodeSnapshot {
    NodeSnapshot {
        stock: Stock {
            offers: format!("disk={disk}"),
            devices: format!(",{},", devices.join(",")),
            ..Stock::default()
        },
        ..calm(name)
    }
}

/// Pods that ask for this, alone or among others.
fn asking(asks: &str, count: usize) -> Vec<Waiting> {
    let key = ServiceKey::parse("default/train");
    let namespace = "default".to_owned();
    let rules = Rules::of(key, 1, namespace, Vec::new(), Placement::default());
    of(&Arc::new(rules.asking(Amounts::parse(asks))), count)
}

#[test]
fn who_finds_no_device_is_told_how_many_are_free() {
    let nodes = [
        offering("a", 1 << 30, &["gpu/0"]),
        offering("b", 1 << 30, &["gpu/0", "gpu/1"]),
        offering("c", 0, &["gpu/0", "gpu/1", "gpu/2"]),
        offering("d", 1 << 30, &["fpga/0"]),
    ];
    let mut cluster = cluster(&nodes, 1_000);
    let plan = plan(&asking("disk=1048576,gpu=2", 2), &mut cluster);
    assert_eq!(counts(&plan, &cluster), HashMap::from([("b".into(), 1)]));
    assert_eq!(
        plan.parked[0].1,
        "0 of 4 nodes: 1 lack disk (1 MiB needed, at most 0 KiB free), \
         3 lack gpu (2 needed, at most 1 free)"
    );
}

proptest! {
    #[test]
    fn sums_never_exceed_and_nobody_waits_for_what_is_free(
        nodes in prop::collection::vec((0..6_u64, 0..5_usize), 0..6),
        wishes in prop::collection::vec((0..3_u64, 0..4_u64), 0..40),
    ) {
        let all = ["gpu/0", "gpu/1", "gpu/2", "gpu/3"];
        let snapshots: Vec<NodeSnapshot> = nodes
            .iter()
            .enumerate()
            .map(|(index, (disk, gpus))| offering(&format!("n{index}"), *disk, &all[..*gpus]))
            .collect();
        let batch: Vec<Waiting> = wishes
            .iter()
            .flat_map(|(disk, gpus)| asking(&format!("disk={disk},gpu={gpus}"), 1))
            .collect();
        let mut cluster = cluster(&snapshots, 1_000);
        let plan = plan(&batch, &mut cluster);
        prop_assert_eq!(plan.placed.len() + plan.parked.len(), batch.len());
        let placed: HashMap<usize, usize> = plan.placed.iter().copied().collect();
        let mut free: HashMap<String, (u64, u64)> = snapshots
            .iter()
            .zip(&nodes)
            .map(|(node, (disk, gpus))| (node.name.clone(), (*disk, *gpus as u64)))
            .collect();
        for (position, (disk, gpus)) in wishes.iter().enumerate() {
            match placed.get(&position) {
                Some(at) => {
                    let left = free.get_mut(cluster.name(*at)).unwrap();
                    prop_assert!(left.0 >= *disk && left.1 >= *gpus, "{left:?} {disk} {gpus}");
                    *left = (left.0 - disk, left.1 - gpus);
                }
                None => {
                    let fits = |left: &(u64, u64)| left.0 >= *disk && left.1 >= *gpus;
                    prop_assert!(!free.values().any(fits), "{free:?} {disk} {gpus}");
                }
            }
        }
    }
}
