//! Nodes under pressure: what is given back, and which pods leave, whoever asks and how often.

use std::time::Duration;

use kubeleet::model::{EventFilter, NodeState, Phase, PodId};
use kubeleet::store::{
    Beat, BeatOutcome, MoveMode, MoveOutcome, MoveRules, MoveWish, NodeSnapshot, PodUse,
    ReturnOutcome, Strain, Taken,
};

use crate::cluster::{Cluster, LEASE, MIB, asking, beat, pod, service, spec};
use crate::support::all_events;

const REST: Duration = Duration::from_secs(600);
const WHY: &str = "memory 55 %, its limit is 40 %";

async fn give_back(cluster: &Cluster, epoch: u64, pods: &[&PodId]) -> Vec<bool> {
    let pending = cluster.store.pending();
    match pending.give_back("n", epoch, WHY, pods).await {
        Ok(ReturnOutcome::Returned(back)) => back,
        other => panic!("{other:?}"),
    }
}

async fn events(cluster: &Cluster, kind: &str) -> Vec<(String, String)> {
    let filter = EventFilter {
        kind: Some(kind.to_owned()),
        ..EventFilter::default()
    };
    let events = all_events(&cluster.store, &filter).await.into_iter();
    let told = events.map(|event| {
        let pod = event.pod.map(|pod| pod.to_string());
        (pod.unwrap_or_default(), event.reason)
    });
    told.collect()
}

#[tokio::test]
async fn what_has_not_started_is_given_back_to_the_front_of_its_queue() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.submit(&asking("web", 4, 100, 64 * MIB)).await;
    let ids = cluster.place("n").await;
    let late = cluster.submit(&spec("late", 1)).await;
    cluster.take("n", epoch, &[&ids[1], &ids[2]]).await;
    cluster.report("n", epoch, &ids[2], Phase::Running).await;
    let all: Vec<&PodId> = ids.iter().collect();
    let back = give_back(&cluster, epoch, &all).await;
    assert_eq!(back, [true, true, false, true], "running ones stay");
    let served = [&ids[0], &ids[1], &ids[3], &late[0]].map(ToString::to_string);
    assert_eq!(cluster.served("sq").await, served, "in their order");
    assert_eq!(cluster.taken_room("n").await, (1, 100, 64 * MIB));
    let there: Vec<String> = cluster.ask("SMEMBERS @cs:n").await;
    assert_eq!(there, [ids[2].to_string()]);
    let key = format!("pod:{}", ids[1]);
    let reason = format!("given back by node n, which is above its pressure limit: {WHY}");
    assert_eq!(cluster.field(&key, "reason").await, reason);
    assert_eq!(cluster.field(&key, "avoid").await, "n");
    assert!(matches!(
        cluster.take("n", epoch, &[&ids[1]]).await[0],
        Taken::Stale
    ));
    let told = events(&cluster, "waiting").await;
    assert!(told.contains(&(ids[0].to_string(), reason)), "{told:?}");
    // Once more: nothing is there to be given back.
    assert_eq!(give_back(&cluster, epoch, &all).await, [false; 4]);
    assert_eq!(cluster.served("sq").await, served);
    // Elsewhere it starts as any other.
    let other = cluster.register("m", &beat(10)).await;
    cluster.place("m").await;
    assert!(matches!(
        cluster.take("m", other, &[&ids[1]]).await[0],
        Taken::Run(_)
    ));
    assert_eq!(cluster.token(&ids[1]).await.attempt, 2);
}

#[tokio::test]
async fn only_the_nodes_own_agent_gives_back_and_only_what_is_to_run_there() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.register("m", &beat(10)).await;
    let web = cluster.submit(&spec("web", 2)).await;
    let claim = cluster.claim(10).await;
    cluster.assign(&claim, "m", &web[..1]).await;
    cluster.place("n").await;
    let pending = cluster.store.pending();
    let old = pending.give_back("n", epoch - 1, WHY, &[&web[1]]).await;
    assert_eq!(old.unwrap(), ReturnOutcome::Superseded);
    let none = pending.give_back("none", 1, WHY, &[&web[1]]).await;
    assert_eq!(none.unwrap(), ReturnOutcome::Unknown);
    let none = pod("none");
    let back = give_back(&cluster, epoch, &[&web[0], &none]).await;
    assert_eq!(back, [false, false], "another node's, and nobody's");
    // One that is to stop is not to wait.
    let deleted = cluster.store.services().delete(&service("web"), None).await;
    deleted.unwrap();
    assert_eq!(give_back(&cluster, epoch, &[&web[1]]).await, [false]);
}

#[tokio::test]
async fn what_a_person_pushed_on_the_list_of_a_node_stays_there() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let raw = b"{\"uuid\":\"u\",\"name\":\"by-hand\",\"image\":\"an/image\"}";
    cluster.push("rq:n", raw).await;
    let raw_pod = kubeleet::model::RawPod::parse(raw).unwrap();
    let adopt = kubeleet::store::Adopt {
        from: kubeleet::store::From::Inbox("n"),
        entry: raw,
        raw: &raw_pod,
        nonce: "nonce",
    };
    cluster.store.pending().adopt(adopt).await.unwrap();
    assert_eq!(cluster.phase(&pod("u")).await, "scheduled");
    assert_eq!(give_back(&cluster, epoch, &[&pod("u")]).await, [false]);
}

#[tokio::test]
async fn a_pod_avoids_the_last_nodes_that_gave_it_back() {
    let cluster = Cluster::new().await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    for number in 0..7 {
        let name = format!("n{number}");
        let epoch = cluster.register(&name, &beat(10)).await;
        cluster.place(&name).await;
        let pending = cluster.store.pending();
        let back = pending.give_back(&name, epoch, WHY, &[&id]).await.unwrap();
        assert_eq!(back, ReturnOutcome::Returned(vec![true]));
    }
    let avoid = cluster.field(&format!("pod:{id}"), "avoid").await;
    assert_eq!(avoid, "n2,n3,n4,n5,n6");
}

#[tokio::test]
async fn a_pressed_node_is_given_nothing_until_it_is_calm() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let pressed = Beat {
        pressed: WHY.to_owned(),
        ..beat(10)
    };
    let nodes = cluster.store.nodes();
    for _ in 0..2 {
        let beaten = nodes.heartbeat("n", epoch, &pressed).await.unwrap();
        assert!(matches!(beaten, BeatOutcome::Renewed { .. }));
    }
    let node = nodes.get("n", LEASE).await.unwrap().unwrap();
    assert_eq!(
        (node.state, node.pressed.as_deref()),
        (NodeState::Pressed, Some(WHY))
    );
    assert_eq!(
        nodes.list(LEASE).await.unwrap()[0].state,
        NodeState::Pressed
    );
    let ids = cluster.submit(&spec("web", 1)).await;
    let claim = cluster.claim(10).await;
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (0, 1), "refused");
    let claim = cluster.claim(10).await;
    cluster.park(&claim.batch, &ids[0], "no room").await;
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    assert_eq!(
        cluster.served("sq").await,
        [ids[0].to_string()],
        "tried at once"
    );
    let told: Vec<String> = {
        let mut told = events(&cluster, "node-pressed").await;
        told.extend(events(&cluster, "node-calm").await);
        told.into_iter().map(|(_, reason)| reason).collect()
    };
    let began = format!("{WHY}: it takes no new pods");
    assert_eq!(told, [began, "it takes pods again".to_owned()], "each once");
}

fn used(id: &PodId) -> PodUse {
    PodUse {
        pod: id.clone(),
        cpu_millis: 10,
        memory_bytes: MIB,
        io_bytes: 0,
    }
}

/// A node of which the agent tells who uses most.
async fn strained(cluster: &Cluster, epoch: u64, users: &[&PodId]) -> NodeSnapshot {
    let told = Beat {
        users: users.iter().map(|id| used(id)).collect(),
        ..beat(10)
    };
    let nodes = cluster.store.nodes();
    let beaten = nodes.heartbeat("n", epoch, &told).await;
    assert!(
        matches!(beaten, Ok(BeatOutcome::Renewed { .. })),
        "{beaten:?}"
    );
    let mut found = nodes.strained().await.expect("Redis answers");
    assert_eq!(found.len(), 1);
    let (node, shown) = found.remove(0);
    assert_eq!(shown, told.users);
    node
}

#[tokio::test]
async fn how_long_a_node_is_strained_is_counted_once_whoever_looks() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let id = pod("u");
    let nodes = cluster.store.nodes();
    let count = async |node: &NodeSnapshot, above| nodes.strain(node, above, LEASE).await.unwrap();
    let mut node = strained(&cluster, epoch, &[&id]).await;
    let strain = |beats, ms| {
        Some(Strain {
            beats,
            lasts: Duration::from_millis(ms),
        })
    };
    for (later, beats, lasts) in [(0, 1, 0), (0, 1, 0), (5_000, 2, 5_000), (5_000, 3, 10_000)] {
        node.heartbeat_ms += later;
        assert_eq!(count(&node, true).await, strain(beats, lasts));
    }
    // A scheduler whose copy is older changes nothing.
    let mut older = node.clone();
    older.heartbeat_ms -= 5_000;
    assert_eq!(count(&older, true).await, strain(3, 10_000));
    // After a gap nobody knows what was in between.
    node.heartbeat_ms += 21_000;
    assert_eq!(count(&node, true).await, strain(1, 0));
    assert_eq!(count(&node, false).await, None);
    node.heartbeat_ms += 1_000;
    assert_eq!(count(&node, true).await, strain(1, 0));
    // A calm node tells nothing, and is looked at no more.
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    assert!(nodes.strained().await.unwrap().is_empty());
    assert_eq!(cluster.field("node:n", "strained_ms").await, "");
    // One that is gone is forgotten.
    strained(&cluster, epoch, &[&id]).await;
    let _: u64 = cluster.ask("DEL @node:n").await;
    assert_eq!(count(&node, true).await, None);
    assert!(nodes.strained().await.unwrap().is_empty());
}

/// A service of running pods on node `n`.
async fn running(cluster: &Cluster, epoch: u64, name: &str, count: u32) -> Vec<PodId> {
    let ids = cluster.submit(&spec(name, count)).await;
    cluster.place("n").await;
    for id in &ids {
        cluster.take("n", epoch, &[id]).await;
        cluster.report("n", epoch, id, Phase::Running).await;
    }
    cluster.control().await;
    ids
}

async fn move_pod(cluster: &Cluster, id: &PodId, mode: MoveMode, per_minute: u32) -> MoveOutcome {
    let wish = MoveWish {
        pod: id,
        node: "n",
        attempt: 1,
        why: "it uses most",
    };
    let rules = MoveRules {
        mode,
        per_minute,
        rest: REST,
    };
    let moved = cluster.store.nodes().move_pod(&wish, &rules).await;
    moved.expect("Redis answers")
}

#[tokio::test]
async fn one_pod_leaves_at_a_time_and_its_service_rests() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(20)).await;
    let web = running(&cluster, epoch, "web", 2).await;
    let other = running(&cluster, epoch, "other", 1).await;
    let node = strained(&cluster, epoch, &[&web[0]]).await;
    let nodes = cluster.store.nodes();
    let culprits = async || {
        let users: Vec<PodUse> = web.iter().chain(&other).map(used).collect();
        let found = nodes.culprits("n", REST, &users).await.unwrap();
        let rests = found.iter().map(|it| (it.pod.clone(), it.rests));
        rests.collect::<Vec<_>>()
    };
    let free = |id: &PodId| (id.clone(), false);
    assert_eq!(
        culprits().await,
        [free(&web[0]), free(&web[1]), free(&other[0])]
    );

    assert_eq!(
        move_pod(&cluster, &web[0], MoveMode::On, 5).await,
        MoveOutcome::Moving
    );
    assert_eq!(
        move_pod(&cluster, &web[0], MoveMode::On, 5).await,
        MoveOutcome::Gone
    );
    assert_eq!(
        move_pod(&cluster, &other[0], MoveMode::On, 5).await,
        MoveOutcome::Busy,
        "one at a time"
    );
    assert_eq!(
        nodes.strain(&node, true, LEASE).await.unwrap(),
        None,
        "first it leaves"
    );
    assert_eq!(culprits().await, [(web[1].clone(), true), free(&other[0])]);
    let told = events(&cluster, "moving").await;
    assert_eq!(told, [(web[0].to_string(), "it uses most".to_owned())]);
    // Its agent goes on with it until its service has another.
    assert!(matches!(
        cluster.take("n", epoch, &[&web[0]]).await[0],
        Taken::Run(_)
    ));
    cluster.control().await;
    let epoch_m = cluster.register("m", &beat(10)).await;
    let new = cluster.place("m").await.remove(0);
    assert_eq!(cluster.field(&format!("pod:{new}"), "avoid").await, "n");
    cluster.take("m", epoch_m, &[&new]).await;
    assert_eq!(
        cluster.field(&format!("pod:{}", web[0]), "desired").await,
        "run"
    );
    cluster.report("m", epoch_m, &new, Phase::Running).await;
    cluster.control().await;
    assert_eq!(
        cluster.field(&format!("pod:{}", web[0]), "desired").await,
        "stop"
    );
    cluster.report("n", epoch, &web[0], Phase::Stopped).await;
    cluster.control().await;

    // Now another may leave, but none of that service.
    assert!(nodes.strain(&node, true, LEASE).await.unwrap().is_some());
    let resting = move_pod(&cluster, &web[1], MoveMode::On, 5).await;
    assert!(
        matches!(resting, MoveOutcome::Resting(left) if left <= REST),
        "{resting:?}"
    );
    assert_eq!(
        move_pod(&cluster, &other[0], MoveMode::On, 5).await,
        MoveOutcome::Moving
    );
}

#[tokio::test]
async fn no_more_than_so_many_a_minute_by_all_together() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(20)).await;
    for (number, expected) in [(0, true), (1, true), (2, false)] {
        let id = running(&cluster, epoch, &format!("web{number}"), 1)
            .await
            .remove(0);
        let _: u64 = cluster.ask("HDEL @node:n leaving").await;
        let outcome = move_pod(&cluster, &id, MoveMode::On, 2).await;
        match outcome {
            MoveOutcome::Moving => assert!(expected),
            MoveOutcome::Full(left) => assert!(!expected && left <= Duration::from_secs(60)),
            other => panic!("{other:?}"),
        }
    }
    // The oldest is no longer of the last minute.
    let moves: Vec<String> = cluster.ask("ZRANGE @moves 0 -1").await;
    let now = cluster.now_ms().await;
    let _: u64 = cluster
        .ask(&format!("ZADD @moves {} {}", now - 60_001, moves[0]))
        .await;
    let id = running(&cluster, epoch, "later", 1).await.remove(0);
    let _: u64 = cluster.ask("HDEL @node:n leaving").await;
    assert_eq!(
        move_pod(&cluster, &id, MoveMode::On, 2).await,
        MoveOutcome::Moving
    );
    // Whatever a person makes of it is no hindrance.
    let _: String = cluster.ask("SET @moves rubbish").await;
    let id = running(&cluster, epoch, "last", 1).await.remove(0);
    let _: u64 = cluster.ask("HDEL @node:n leaving").await;
    assert_eq!(
        move_pod(&cluster, &id, MoveMode::On, 2).await,
        MoveOutcome::Moving
    );
}

#[tokio::test]
async fn a_service_that_is_not_whole_or_not_there_loses_nothing() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(20)).await;
    let web = running(&cluster, epoch, "web", 2).await;
    cluster.report("n", epoch, &web[1], Phase::CrashLoop).await;
    assert_eq!(
        move_pod(&cluster, &web[0], MoveMode::On, 5).await,
        MoveOutcome::Busy
    );
    assert_eq!(
        move_pod(&cluster, &web[1], MoveMode::On, 5).await,
        MoveOutcome::Gone
    );
    cluster.report("n", epoch, &web[1], Phase::Running).await;
    // Its revision or number changes.
    let scaled = cluster.store.services();
    let (web_key, submission) = (service("web"), PodId::new_submission());
    let scaled = scaled.scale(&web_key, 3, &submission, None);
    scaled.await.unwrap();
    assert_eq!(
        move_pod(&cluster, &web[0], MoveMode::On, 5).await,
        MoveOutcome::Busy
    );
    assert_eq!(
        move_pod(&cluster, &pod("none"), MoveMode::On, 5).await,
        MoveOutcome::Gone
    );
    let told = events(&cluster, "moving").await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_suggestion_changes_nothing_and_is_made_once_in_a_while() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(20)).await;
    let web = running(&cluster, epoch, "web", 2).await;
    let id = &web[0];
    strained(&cluster, epoch, &[id]).await;
    let before: Vec<(String, String)> = cluster.ask(&format!("HGETALL @pod:{id}")).await;
    let suggest = async || move_pod(&cluster, id, MoveMode::Suggest, 5).await;
    assert_eq!(suggest().await, MoveOutcome::Suggested);
    assert!(matches!(suggest().await, MoveOutcome::Resting(_)));
    let after: Vec<(String, String)> = cluster.ask(&format!("HGETALL @pod:{id}")).await;
    assert_eq!(before, after);
    let changed: Vec<String> = cluster.ask("ZRANGE @services:changed 0 -1").await;
    assert!(changed.is_empty(), "{changed:?}");
    let told = events(&cluster, "rebalance-suggested").await;
    assert_eq!(told, [(id.to_string(), "it uses most".to_owned())]);
    let nodes = cluster.store.nodes();
    let shown = async || nodes.get("n", LEASE).await.unwrap().unwrap().suggestion;
    let suggestion = format!("pod {id} of default/web: it uses most");
    assert_eq!(shown().await, Some(suggestion));
    nodes.heartbeat("n", epoch, &beat(20)).await.unwrap();
    assert_eq!(shown().await, None, "the node is calm");
}

#[tokio::test]
async fn a_pod_stays_after_all_if_no_other_gets_ready() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(20)).await;
    let id = running(&cluster, epoch, "web", 1).await.remove(0);
    assert_eq!(
        move_pod(&cluster, &id, MoveMode::On, 5).await,
        MoveOutcome::Moving
    );
    cluster.control().await;
    let patience = Duration::from_secs(30);
    let nodes = cluster.store.nodes();
    assert_eq!(nodes.expire_moves(patience).await.unwrap(), 0);
    let moved = cluster.now_ms().await - 31_000;
    let _: u64 = cluster.ask(&format!("ZADD @moves {moved} {id}")).await;
    assert_eq!(nodes.expire_moves(patience).await.unwrap(), 1);
    assert_eq!(nodes.expire_moves(patience).await.unwrap(), 0);
    let told = events(&cluster, "staying").await;
    assert_eq!(told.len(), 1, "{told:?}");
    cluster.control().await;
    let pods: Vec<String> = cluster.ask("ZRANGE @service:default/web:pods 0 -1").await;
    assert_eq!(pods, [id.to_string()], "the one that waited is gone");
    assert_eq!(cluster.field(&format!("pod:{id}"), "desired").await, "run");
    // It counts as a move until the minute is over.
    let count: u64 = cluster.ask("ZCARD @moves").await;
    assert_eq!(count, 1);
    let _: u64 = cluster
        .ask(&format!("ZADD @moves {} {id}", moved - 60_000))
        .await;
    nodes.expire_moves(patience).await.unwrap();
    let count: u64 = cluster.ask("EXISTS @moves").await;
    assert_eq!(count, 0);
}
