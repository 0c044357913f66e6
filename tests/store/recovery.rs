//! What was lost with a fail-over, wrongly written by hand, or asked twice: the rest goes on.

use std::time::Duration;

use kubeleet::store::{
    BeatOutcome, Comparison, Idempotency, ScaleOutcome, SubmitOutcome, TakeOutcome, Taken,
};

use crate::cluster::{Cluster, MIB, asking, beat, service, spec};
use crate::services::try_submit;
use crate::support::RedisServer;

#[tokio::test]
async fn an_agent_whose_registration_was_lost_is_asked_to_register_again() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let epoch = cluster.register("n", &beat(10)).await;
    let _: u64 = cluster.ask("HSET @node:n epoch 1").await; // the new master had not heard of it
    let nodes = cluster.store.nodes();
    let beaten = nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    assert_eq!(beaten, BeatOutcome::Unknown);
    let taken = cluster.store.pending().take("n", epoch, &[]).await.unwrap();
    assert_eq!(taken, TakeOutcome::Unknown);
    let again = cluster.register("n", &beat(10)).await;
    let beaten = nodes.heartbeat("n", again, &beat(10)).await.unwrap();
    assert!(matches!(beaten, BeatOutcome::Renewed { .. }), "{beaten:?}");
}

#[tokio::test]
async fn a_full_redis_lets_large_services_go_and_shrink() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    cluster.store.open().await.unwrap();
    cluster.submit(&spec("goes", 1_200)).await;
    cluster.submit(&spec("shrinks", 1_200)).await;
    let _: String = cluster.ask("CONFIG SET maxmemory 1").await;
    let services = cluster.store.services();
    let deleted = services.delete(&service("goes"), None).await.unwrap();
    assert_eq!(deleted, ScaleOutcome::Done);
    assert_eq!(services.get(&service("goes")).await.unwrap(), None);
    let grown = services
        .scale(&service("shrinks"), 1_201, "more", None)
        .await;
    assert!(grown.unwrap_err().is_full());
    let shrunk = services
        .scale(&service("shrinks"), 10, "fewer", None)
        .await
        .unwrap();
    assert_eq!(shrunk, ScaleOutcome::Done);
    cluster.control().await;
    let left: u64 = cluster.ask("ZCARD @service:default/shrinks:pods").await;
    assert_eq!(left, 10);
}

#[tokio::test]
async fn a_scale_that_is_repeated_after_a_later_one_makes_new_pods() {
    let cluster = Cluster::new().await;
    cluster.submit(&spec("web", 1)).await;
    let services = cluster.store.services();
    for (replicas, submission) in [(3, "a"), (1, "b"), (3, "a")] {
        let scaled = services
            .scale(&service("web"), replicas, submission, None)
            .await;
        assert_eq!(scaled.unwrap(), ScaleOutcome::Done);
    }
    let pods = crate::services::index(&cluster, "web").await;
    assert_eq!(pods.len(), 3);
    for pod in pods {
        let left: i64 = cluster.ask(&format!("TTL @pod:{pod}")).await;
        assert_eq!(left, -1, "{pod} is no tombstone");
    }
}

#[tokio::test]
async fn a_key_used_for_a_wish_that_stood_is_remembered_too() {
    let cluster = Cluster::new().await;
    let web = spec("web", 1);
    let key = |request: &str| {
        Some(Idempotency {
            key: "k".into(),
            request: request.into(),
            ttl: Duration::from_secs(60),
        })
    };
    try_submit(&cluster, &web, "first", None).await;
    let stood = try_submit(&cluster, &web, "second", key("hash")).await;
    assert!(matches!(stood, SubmitOutcome::Exists { .. }), "{stood:?}");
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    let repeated = try_submit(&cluster, &web, "third", key("hash")).await;
    assert_eq!(repeated, stood, "a repeat makes nothing new");
    let reused = try_submit(&cluster, &web, "fourth", key("another")).await;
    assert_eq!(reused, SubmitOutcome::KeyReused);
}

#[tokio::test]
async fn a_node_whose_record_was_lost_is_counted_anew() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    cluster.submit(&asking("web", 3, 100, MIB)).await;
    cluster.place("n").await;
    let before = cluster.taken_room("n").await;
    let _: u64 = cluster.ask("DEL @node:n").await;
    cluster.register("n", &beat(3)).await;
    assert_eq!(cluster.taken_room("n").await, before);
}

#[tokio::test]
async fn sums_below_zero_are_answered_as_nothing() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    let _: u64 = cluster
        .ask("HSET @node:n pods -5 cpu_requested -1e15")
        .await;
    let ids = cluster.submit(&spec("web", 1)).await;
    let claim = cluster.claim(10).await;
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (1, 0));
}

#[tokio::test]
async fn one_damaged_record_holds_up_no_other_pod_of_its_node() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    let _: u64 = cluster
        .ask(&format!("HSET @pod:{} replica 5000000000", ids[0]))
        .await;
    let taken = cluster.take("n", epoch, &[&ids[0], &ids[1]]).await;
    assert_eq!(taken[0], Taken::Absent);
    assert!(matches!(&taken[1], Taken::Run(_)), "{taken:?}");
}

#[tokio::test]
async fn lists_of_a_wrong_type_are_cleared_for_the_inbox() {
    let cluster = Cluster::new().await;
    let _: String = cluster.ask("SET @rq:n x").await;
    cluster.push("pq:n", b"entry").await;
    cluster.store.pending().mend("n").await.unwrap();
    let mut inbox = cluster
        .store
        .pending()
        .inbox("n", Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(inbox.pop(0).await.unwrap(), [b"entry".to_vec()]);
}

#[tokio::test]
async fn a_node_lost_for_longer_than_any_tombstone_is_forgotten() {
    let cluster = Cluster::new().await;
    cluster.register("old", &beat(10)).await;
    cluster.end_grace().await;
    cluster.age("old", 1_000_000).await;
    let lease = crate::cluster::LEASE;
    let nodes = cluster.store.nodes();
    nodes.sweep(lease, 100).await.unwrap();
    nodes.sweep(lease, 100).await.unwrap();
    assert!(
        nodes.get("old", lease).await.unwrap().is_some(),
        "lost a moment ago"
    );
    let _: u64 = cluster.ask("ZADD @nodes:lost 1 old").await;
    nodes.sweep(lease, 100).await.unwrap();
    assert_eq!(nodes.get("old", lease).await.unwrap(), None);
}

#[tokio::test]
async fn pods_that_lie_nowhere_are_put_back_only_while_nothing_is_queued_or_claimed() {
    let cluster = Cluster::new().await;
    let wishes = cluster.store.wishes();
    let parked = cluster.submit(&spec("parked", 1)).await;
    let claim = cluster.claim(10).await;
    cluster.park(&claim.batch, &parked[0], "no room").await;
    cluster.submit(&spec("web", 3)).await;
    let keep = Duration::from_secs(60);
    let begin = Comparison::default();
    let queued = wishes.compare(&begin, 100, keep).await.unwrap();
    assert!(queued.busy && queued.put_back == 0 && queued.done);
    let claim = cluster.claim(1).await;
    let _: u64 = cluster.ask("DEL @sq").await;
    let claimed = wishes.compare(&begin, 100, keep).await.unwrap();
    assert!(claimed.busy && claimed.put_back == 0);
    let _: u64 = cluster.ask(&format!("DEL @sq:claim:{}", claim.batch)).await;
    let _: u64 = cluster.ask("DEL @sq:claims").await;

    let found = wishes.compare(&begin, 100, keep).await.unwrap();
    assert_eq!(found.put_back, 3, "a parked pod lies somewhere");
    assert_eq!(cluster.served("sq").await.len(), 3);
}
