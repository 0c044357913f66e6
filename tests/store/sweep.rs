//! The sweep of lost nodes: who is swept and when, and that no pod is lost or doubled by it.

use std::collections::BTreeSet;
use std::time::Duration;

use kubeleet::model::service::OnNodeLoss;
use kubeleet::model::{NodeState, Phase, PodId, RawPod};
use kubeleet::store::{Adopt, AdoptOutcome, BeatOutcome, From, ReportOutcome, SweepOutcome, Taken};

use crate::cluster::{Cluster, LEASE, LONG, asking, beat, service, spec};
use crate::nodes::heartbeat;

async fn sweep(cluster: &Cluster, pods_max: usize) -> SweepOutcome {
    cluster
        .store
        .nodes()
        .sweep(LEASE, pods_max)
        .await
        .expect("an answer")
}

fn swept(node: &str, pods: u64, done: bool) -> SweepOutcome {
    SweepOutcome::Swept {
        node: node.into(),
        pods,
        done,
    }
}

#[tokio::test]
async fn only_overdue_nodes_are_swept_in_bounded_steps_and_nothing_twice() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("lost", &beat(10)).await;
    cluster.end_grace().await;
    let ids = cluster.submit(&asking("web", 5, 100, 10 << 20)).await;
    cluster.place("lost").await;
    cluster.register("well", &beat(10)).await;
    cluster.submit(&spec("other", 1)).await;
    cluster.place("well").await;
    let last = cluster.submit(&spec("last", 1)).await;
    assert_eq!(sweep(&cluster, 2).await, SweepOutcome::None);
    cluster.age("lost", 20_001).await;
    cluster.age("well", 10_000).await;
    assert_eq!(sweep(&cluster, 2).await, swept("lost", 2, false));
    assert_eq!(cluster.taken_room("lost").await, (3, 300, 30 << 20));
    assert_eq!(sweep(&cluster, 2).await, swept("lost", 2, false));
    assert_eq!(sweep(&cluster, 2).await, swept("lost", 1, true));
    assert_eq!(sweep(&cluster, 2).await, SweepOutcome::None);
    assert_eq!(cluster.taken_room("lost").await, (0, 0, 0));
    assert_eq!(cluster.taken_room("well").await, (1, 0, 0));
    let queue = cluster.served("sq").await;
    assert_eq!(
        queue[5..],
        [last[0].as_str()],
        "those of the lost node are served first"
    );
    assert_eq!(
        BTreeSet::from_iter(&queue[..5]),
        BTreeSet::from_iter(&ids.iter().map(PodId::to_string).collect::<Vec<_>>())
    );
    let pod = cluster.store.pods().get(&ids[0]).await.unwrap().unwrap();
    assert_eq!(
        (pod.phase, pod.node, pod.attempt),
        (Phase::Waiting, None, 1)
    );
    assert_eq!(pod.reason.as_deref(), Some("node lost was lost"));
    let all = cluster.store.nodes().list(LEASE).await.unwrap();
    let states: Vec<(&str, NodeState)> = all
        .iter()
        .map(|node| (node.name.as_str(), node.state))
        .collect();
    assert_eq!(
        states,
        [("lost", NodeState::Lost), ("well", NodeState::Ready)]
    );

    // What its agent says of them no longer counts; that it is back does.
    let report = cluster.report("lost", epoch, &ids[0], Phase::Running).await;
    assert_eq!(report, ReportOutcome::Stale);
    assert_eq!(
        cluster.take("lost", epoch, &[&ids[0]]).await,
        [Taken::Stale]
    );
    let back = heartbeat(&cluster, "lost", epoch).await;
    assert!(
        matches!(back, BeatOutcome::Renewed { returned: true, .. }),
        "{back:?}"
    );
    let beat = heartbeat(&cluster, "lost", epoch).await;
    assert!(
        matches!(
            beat,
            BeatOutcome::Renewed {
                returned: false,
                ..
            }
        ),
        "{beat:?}"
    );
    let lost: u64 = cluster.ask("ZCARD @nodes:lost").await;
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn a_node_that_returns_in_the_midst_of_its_sweep_has_the_room_of_what_was_moved() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    cluster.submit(&asking("web", 5, 100, 10 << 20)).await;
    cluster.place("n").await;
    cluster.age("n", LONG).await;
    assert_eq!(sweep(&cluster, 2).await, swept("n", 2, false));
    heartbeat(&cluster, "n", epoch).await;
    assert_eq!(sweep(&cluster, 2).await, SweepOutcome::None);
    assert_eq!(cluster.taken_room("n").await, (3, 300, 30 << 20));
    cluster.place("n").await;
    assert_eq!(cluster.taken_room("n").await, (5, 500, 50 << 20));
}

#[tokio::test]
async fn several_sweepers_at_once_put_every_pod_back_exactly_once() {
    let cluster = Cluster::new().await;
    for node in ["a", "b"] {
        cluster.register(node, &beat(200)).await;
        cluster.submit(&spec(node, 150)).await;
        cluster.place(node).await;
    }
    cluster.end_grace().await;
    for node in ["a", "b"] {
        cluster.age(node, LONG).await;
    }
    let mut sweepers = Vec::new();
    for _ in 0..8 {
        let store = cluster.store.clone();
        sweepers.push(tokio::spawn(async move {
            let mut moved = 0;
            while let SweepOutcome::Swept { pods, .. } =
                store.nodes().sweep(LEASE, 7).await.unwrap()
            {
                moved += pods;
            }
            moved
        }));
    }
    let mut moved = 0;
    for sweeper in sweepers {
        moved += sweeper.await.unwrap();
    }
    assert_eq!(moved, 300);
    let queue = cluster.served("sq").await;
    assert_eq!(queue.len(), 300);
    assert_eq!(BTreeSet::from_iter(queue).len(), 300);
}

#[tokio::test]
async fn ended_pods_stay_ended_and_stopping_ones_are_gone_when_their_node_is_lost() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    let ended = cluster.submit(&spec("ended", 1)).await.remove(0);
    let stopping = cluster.submit(&spec("stopping", 1)).await.remove(0);
    cluster.place("n").await;
    cluster.report("n", epoch, &ended, Phase::Failed).await;
    cluster.report("n", epoch, &stopping, Phase::Running).await;
    cluster
        .store
        .services()
        .delete(&service("stopping"), None)
        .await
        .unwrap();
    cluster.age("n", LONG).await;
    assert_eq!(sweep(&cluster, 10).await, swept("n", 0, true));
    assert_eq!(cluster.phase(&ended).await, "failed");
    assert_eq!(cluster.phase(&stopping).await, "stopped");
    assert!(cluster.store.pods().get(&stopping).await.unwrap().is_none());
    assert!(
        cluster
            .store
            .services()
            .get(&service("stopping"))
            .await
            .unwrap()
            .is_none()
    );
    assert!(cluster.served("sq").await.is_empty());
    // Its node is gone: no agent is waited for.
    cluster
        .store
        .services()
        .delete(&service("ended"), None)
        .await
        .unwrap();
    assert!(
        cluster
            .store
            .services()
            .get(&service("ended"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn one_that_was_to_stop_is_held_too_until_its_lost_node_is_heard() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    let mut held = spec("held", 1);
    held.on_node_loss = OnNodeLoss::Hold;
    let pod = cluster.submit(&held).await.remove(0);
    cluster.place("n").await;
    cluster.report("n", epoch, &pod, Phase::Running).await;
    let services = cluster.store.services();
    services.delete(&service("held"), None).await.unwrap();
    cluster.age("n", LONG).await;
    assert_eq!(sweep(&cluster, 10).await, swept("n", 0, true));
    // Nobody knows whether its container runs: a successor of it would be a second one.
    let kept = cluster.store.pods().get(&pod).await.unwrap();
    assert_eq!(kept.expect("it is kept").phase, Phase::Running);
    let removed = cluster.store.nodes().remove("n", LEASE, true).await;
    assert!(removed.is_ok(), "{removed:?}");
    assert!(cluster.store.pods().get(&pod).await.unwrap().is_none());
}

#[tokio::test]
async fn every_lease_gets_a_full_term_after_redis_changed() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    cluster.age("n", LONG).await;
    assert_eq!(
        sweep(&cluster, 10).await,
        SweepOutcome::Grace(LEASE),
        "a new cluster"
    );
    let SweepOutcome::Grace(left) = sweep(&cluster, 10).await else {
        panic!("the grace is not over");
    };
    assert!(left <= LEASE && left > LEASE / 2, "{left:?}");
    let _: u64 = cluster
        .ask("HSET @cluster grace_until_ms 0 run_id another")
        .await;
    assert_eq!(
        sweep(&cluster, 10).await,
        SweepOutcome::Grace(LEASE),
        "a fail-over"
    );
    assert_eq!(cluster.field("node:n", "state").await, "ready");
    let _: u64 = cluster.ask("HSET @cluster grace_until_ms 0").await;
    assert_eq!(sweep(&cluster, 10).await, swept("n", 0, true));
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::None);
}

#[tokio::test]
async fn more_than_half_of_at_least_four_nodes_are_not_swept_before_one_more_term() {
    let cluster = Cluster::new().await;
    for node in ["a", "b", "c", "d"] {
        cluster.register(node, &beat(10)).await;
    }
    cluster.end_grace().await;
    let mass = SweepOutcome::Mass { overdue: 3, all: 4 };
    for node in ["a", "b", "c"] {
        cluster.age(node, LONG).await;
    }
    for _ in 0..2 {
        assert_eq!(sweep(&cluster, 10).await, mass);
    }
    // They come back: the next such loss waits anew.
    for node in ["a", "b", "c"] {
        heartbeat(&cluster, node, 1).await;
    }
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::None);
    for (node, more) in [("a", 3), ("b", 2), ("c", 1)] {
        cluster.age(node, LONG + more).await;
    }
    assert_eq!(sweep(&cluster, 10).await, mass);
    let until = cluster.number("cluster", "mass_until_ms").await - cluster.now_ms().await;
    assert!(
        until > 10_000 && Duration::from_millis(until) <= LEASE,
        "{until}"
    );
    let _: u64 = cluster.ask("HSET @cluster mass_until_ms 1").await;
    for node in ["a", "b", "c"] {
        assert_eq!(sweep(&cluster, 10).await, swept(node, 0, true));
    }
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::None);
}

#[tokio::test]
async fn a_mass_loss_waits_for_its_term_though_some_are_heard_by_then() {
    let cluster = Cluster::new().await;
    for node in ["a", "b", "c", "d"] {
        cluster.register(node, &beat(10)).await;
    }
    cluster.end_grace().await;
    for node in ["a", "b", "c", "d"] {
        cluster.age(node, LONG).await;
    }
    let mass = |overdue| SweepOutcome::Mass { overdue, all: 4 };
    assert_eq!(sweep(&cluster, 10).await, mass(4));
    for node in ["a", "b"] {
        heartbeat(&cluster, node, 1).await;
    }
    assert_eq!(sweep(&cluster, 10).await, mass(2));
    for node in ["c", "d"] {
        heartbeat(&cluster, node, 1).await;
    }
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::None);
}

#[tokio::test]
async fn a_jump_of_the_clock_moves_nothing_and_leaves_nothing_in_a_future_that_is_gone() {
    let hour = 3_600_000;
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::None);
    // An hour on: all was heard an hour ago, the last sweep too.
    cluster.age("n", hour).await;
    let swept_ms = cluster.number("cluster", "swept_ms").await - hour;
    let _: u64 = cluster
        .ask(&format!("HSET @cluster swept_ms {swept_ms}"))
        .await;
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::Grace(LEASE));
    assert_eq!(cluster.field("node:n", "state").await, "ready");
    let _: u64 = cluster.ask("HSET @cluster grace_until_ms 0").await;
    assert_eq!(
        sweep(&cluster, 10).await,
        swept("n", 0, true),
        "it is dead after all"
    );

    // And an hour back.
    let epoch = cluster.register("n", &beat(10)).await;
    let ahead = cluster.now_ms().await + hour;
    let _: u64 = cluster.ask(&format!("ZADD @nodes {ahead} n")).await;
    let _: u64 = cluster.ask(&format!("ZADD @sq:parked {ahead} pod")).await;
    let _: u64 = cluster.ask(&format!("ZADD @sq:claims {ahead} batch")).await;
    let guards =
        format!("HSET @cluster swept_ms {ahead} grace_until_ms {ahead} mass_until_ms {ahead}");
    let _: u64 = cluster.ask(&guards).await;
    assert_eq!(sweep(&cluster, 10).await, SweepOutcome::Grace(LEASE));
    let now = cluster.now_ms().await;
    for (key, member) in [("nodes", "n"), ("sq:parked", "pod"), ("sq:claims", "batch")] {
        let score: u64 = cluster.ask(&format!("ZSCORE @{key} {member}")).await;
        assert!(score <= now, "{key}");
    }
    let until = cluster.number("cluster", "grace_until_ms").await;
    assert!(until <= now + u64::try_from(LEASE.as_millis()).unwrap());
    assert_eq!(cluster.field("cluster", "mass_until_ms").await, "");
    heartbeat(&cluster, "n", epoch).await;
    let _: u64 = cluster.ask("DEL @sq:parked @sq:claims").await;
}

#[tokio::test]
async fn half_of_four_nodes_and_all_of_three_are_swept_at_once() {
    for (all, overdue) in [(4, 2), (3, 3)] {
        let cluster = Cluster::new().await;
        let names = ["a", "b", "c", "d"];
        for node in &names[..all] {
            cluster.register(node, &beat(10)).await;
        }
        cluster.end_grace().await;
        for node in &names[..overdue] {
            cluster.age(node, LONG).await;
        }
        for node in &names[..overdue] {
            assert_eq!(sweep(&cluster, 10).await, swept(node, 0, true));
        }
    }
}

#[tokio::test]
async fn a_pod_adopted_by_a_node_that_was_swept_goes_back_to_the_queue() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    cluster.age("n", LONG).await;
    assert_eq!(sweep(&cluster, 10).await, swept("n", 0, true));
    // Its agent was only slow, finds an entry, and dies before its next heartbeat.
    let entry = br#"{"uuid":"u","name":"web","image":"i"}"#;
    cluster.push("rq:n", entry).await;
    let raw = RawPod::parse(entry).unwrap();
    let adopt = Adopt {
        from: From::Inbox("n"),
        entry,
        raw: &raw,
        nonce: "word",
    };
    let adopted = cluster.store.pending().adopt(adopt).await.unwrap();
    assert_eq!(adopted, AdoptOutcome::Adopted);
    assert_eq!(sweep(&cluster, 10).await, swept("n", 1, true));
    assert_eq!(cluster.served("sq").await, ["u"]);
    let all = cluster.store.nodes().list(LEASE).await.unwrap();
    assert_eq!(all.len(), 1);
}
