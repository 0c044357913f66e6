//! The queue: its order, claims and their leases, what an assignment checks, parked pods.

use kubeleet::model::{EngineState, Phase, Pod, PodId, Priority, ServiceSpec};
use kubeleet::store::{AssignOutcome, Assignment, Beat, Claim};

use crate::cluster::{Cluster, LEASE, MIB, asking, beat, service, spec};

fn ids(claim: &Claim) -> Vec<&str> {
    claim.pods.iter().map(|pod| pod.id.as_str()).collect()
}

pub(crate) fn named(pods: &[PodId]) -> Vec<&str> {
    pods.iter().map(PodId::as_str).collect()
}

fn with_priority(name: &str, priority: Priority) -> ServiceSpec {
    ServiceSpec {
        priority,
        ..spec(name, 2)
    }
}

pub(crate) async fn shown(cluster: &Cluster, id: &PodId) -> Pod {
    cluster
        .store
        .pods()
        .get(id)
        .await
        .expect("an answer")
        .expect("a pod")
}

#[tokio::test]
async fn pods_are_served_by_priority_and_then_in_the_order_they_came() {
    let cluster = Cluster::new().await;
    let low = cluster.submit(&with_priority("l", Priority::Low)).await;
    let first = cluster.submit(&with_priority("a", Priority::Normal)).await;
    let high = cluster.submit(&with_priority("h", Priority::High)).await;
    let second = cluster.submit(&with_priority("b", Priority::Normal)).await;
    let order = [high, first, second, low].concat();
    let claim = cluster.claim(3).await;
    assert_eq!(ids(&claim), named(&order[..3]));
    let rest = cluster.claim(100).await;
    assert_eq!(ids(&rest), named(&order[3..]));
    assert!(cluster.claim(100).await.pods.is_empty());
    // Given back, each lies in the queue of its own priority.
    cluster.assign(&rest, "n", &[]).await;
    cluster.assign(&claim, "n", &[]).await;
    let depths = cluster.store.queue().depths().await.unwrap();
    assert_eq!((depths.high, depths.normal, depths.low), (2, 4, 2));
    assert_eq!(ids(&cluster.claim(100).await), named(&order));
}

#[tokio::test]
async fn a_claim_shows_what_pods_ask_for_and_drops_what_does_not_wait() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let on_node = cluster.submit(&spec("placed", 1)).await.remove(0);
    cluster.place("n").await;
    let stopped = cluster.submit(&spec("stopped", 1)).await.remove(0);
    cluster
        .store
        .services()
        .delete(&service("stopped"), None)
        .await
        .unwrap();
    let waiting = cluster.submit(&asking("web", 1, 250, 64 * MIB)).await;
    cluster.push("sq", on_node.as_str().as_bytes()).await;
    let raw: [&[u8]; 3] = [b"{\"uuid\":\"u\"}", b"no such pod", b"\xff\x00\n"];
    for entry in raw {
        cluster.push("sq", entry).await;
    }
    let claim = cluster.claim(100).await;
    assert_eq!(ids(&claim), named(&waiting));
    assert_eq!(
        (claim.pods[0].cpu_millis, claim.pods[0].memory_bytes),
        (250, 64 * MIB)
    );
    assert_eq!(claim.raw, raw, "all that is no pod is shown, bytes and all");
    assert_eq!(cluster.phase(&stopped).await, "stopped");
    cluster.report("n", epoch, &on_node, Phase::Running).await;
    assert_eq!(cluster.phase(&on_node).await, "running");
}

#[tokio::test]
async fn an_assignment_gives_node_attempt_nonce_and_an_inbox_entry() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&asking("web", 2, 100, 6 * MIB)).await;
    let claim = cluster.claim(10).await;
    let assignment = Assignment {
        nodes: vec![("n", 0)],
        pods: ids.iter().map(|id| (id, 0)).collect(),
        ..Assignment::default()
    };
    let assigned = cluster.store.queue();
    let assigned = assigned
        .assign(&claim.batch, "xyz", LEASE, &assignment)
        .await
        .unwrap();
    let AssignOutcome::Assigned {
        count,
        given_back,
        room,
        ..
    } = assigned
    else {
        panic!("{assigned:?}");
    };
    assert_eq!((count, given_back), (2, 0));
    assert_eq!(room[0].node, "n");
    assert_eq!(
        (
            room[0].pods,
            room[0].cpu_requested,
            room[0].memory_requested
        ),
        (2, 200, 12 * MIB)
    );
    for id in &ids {
        let pod = shown(&cluster, id).await;
        assert_eq!(
            (pod.phase, pod.attempt, pod.node.as_deref()),
            (Phase::Scheduled, 1, Some("n"))
        );
        assert_eq!(cluster.token(id).await.nonce, "xyz");
    }
    assert_eq!(cluster.served("pq:n").await, named(&ids));
    assert_eq!(cluster.taken_room("n").await, (2, 200, 12 * MIB));
    // The claim has ended with it.
    let again = cluster.store.queue();
    let again = again
        .assign(&claim.batch, "xyz", LEASE, &assignment)
        .await
        .unwrap();
    assert_eq!(again, AssignOutcome::Lapsed);
    let claims: u64 = cluster.ask("EXISTS @sq:claims").await;
    assert_eq!(claims, 0);
}

#[tokio::test]
async fn what_no_longer_fits_goes_back_to_the_front_in_order() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(2)).await;
    let first = cluster.submit(&spec("first", 5)).await;
    let claim = cluster.claim(5).await;
    let later = cluster.submit(&spec("later", 2)).await;
    assert_eq!(cluster.assign(&claim, "n", &first).await, (2, 3));
    let order = [&first[2..], &later[..]].concat();
    assert_eq!(cluster.served("sq").await, named(&order));
}

/// Nothing is placed on the node that `spoil` made, and nothing is lost.
async fn refuses(what: &str, asks: &ServiceSpec, spoil: impl AsyncFnOnce(&Cluster)) {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(2)).await;
    let id = cluster.submit(asks).await;
    let claim = cluster.claim(10).await;
    spoil(&cluster).await;
    let room = cluster.taken_room("n").await;
    assert_eq!(cluster.assign(&claim, "n", &id).await, (0, 1), "{what}");
    assert_eq!(cluster.taken_room("n").await, room, "{what}");
    assert_eq!(cluster.served("sq").await, named(&id), "{what}");
    let inbox: u64 = cluster.ask("EXISTS @pq:n @cs:n").await;
    assert_eq!(inbox, 0, "{what}");
}

#[tokio::test]
async fn no_pod_is_given_to_a_node_that_cannot_have_it() {
    let one = spec("web", 1);
    refuses("stale", &one, async |c| c.age("n", 20_500).await).await;
    refuses("lost", &one, async |c| {
        let _: u64 = c.ask("HSET @node:n state lost").await;
    })
    .await;
    refuses("engine down", &one, async |c| {
        let down = Beat {
            engine: EngineState::Down,
            ..beat(2)
        };
        c.store.nodes().heartbeat("n", 1, &down).await.unwrap();
    })
    .await;
    refuses("left", &one, async |c| {
        c.store.nodes().leave("n", 1).await.unwrap()
    })
    .await;
    refuses("unknown", &one, async |c| {
        let _: u64 = c.ask("DEL @node:n").await;
    })
    .await;
    refuses("cpu", &asking("web", 1, 2001, 0), async |_| {}).await;
    refuses("memory", &asking("web", 1, 0, (2 << 30) + 1), async |_| {}).await;
    refuses("pods", &one, async |c| {
        let _: u64 = c.ask("HSET @node:n pods 2").await;
    })
    .await;
}

#[tokio::test]
async fn capacity_is_filled_to_the_last_and_never_beyond() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(4)).await;
    cluster.submit(&asking("cpu", 3, 1500, 0)).await;
    let free = cluster.submit(&spec("free", 5)).await;
    let claim = cluster.claim(10).await;
    let all: Vec<PodId> = claim.pods.iter().map(|pod| pod.id.clone()).collect();
    // Two of 1500 of 4000 thousandths, then two that ask for nothing.
    assert_eq!(cluster.assign(&claim, "n", &all).await, (4, 4));
    assert_eq!(cluster.taken_room("n").await, (4, 3000, 0));
    let back = cluster.served("sq").await;
    assert_eq!(back[1..], named(&free[2..]));
}

#[tokio::test]
async fn a_node_that_offers_less_than_it_holds_still_takes_who_asks_for_nothing() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(4)).await;
    cluster.submit(&asking("big", 1, 4000, 4 << 30)).await;
    cluster.place("n").await;
    let mut less = beat(4);
    less.capacity.cpu_millis = 1000;
    less.capacity.memory_bytes = 1 << 30;
    cluster
        .store
        .nodes()
        .heartbeat("n", 1, &less)
        .await
        .unwrap();
    cluster.submit(&spec("free", 1)).await;
    cluster.place("n").await;
}

#[tokio::test]
async fn pods_that_moved_on_are_dropped_and_double_entries_placed_once() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let gone = cluster.submit(&spec("gone", 1)).await;
    let twice = cluster.submit(&spec("twice", 1)).await;
    cluster.push("sq", twice[0].as_str().as_bytes()).await;
    let claim = cluster.claim(10).await;
    assert_eq!(claim.pods.len(), 3);
    cluster
        .store
        .services()
        .delete(&service("gone"), None)
        .await
        .unwrap();
    let all = [&gone[..], &twice[..], &twice[..]].concat();
    assert_eq!(cluster.assign(&claim, "n", &all).await, (1, 0));
    assert_eq!(cluster.served("pq:n").await, named(&twice));
    assert_eq!(cluster.taken_room("n").await.0, 1);
    assert_eq!(cluster.token(&twice[0]).await.attempt, 1);
}
