//! The queue over time: claims whose lease is over, parked pods, waiting for arrivals.

use std::time::Duration;

use kubeleet::model::{Phase, Priority};
use kubeleet::store::{AssignOutcome, Assignment};

use crate::cluster::{CLAIM, Cluster, beat, service, spec};
use crate::connection::LIMIT;
use crate::queue::{named, shown};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn parked_pods_say_why_and_are_tried_again_after_a_doubling_delay() {
    let cluster = Cluster::new().await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    for seconds in [1, 2, 4, 8, 16, 16] {
        let batch = cluster.claim(10).await.batch;
        let before = cluster.now_ms().await;
        cluster.park(&batch, &id, "no node has room").await;
        let next: f64 = cluster.ask(&format!("ZSCORE @sq:parked {id}")).await;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970")]
        let delay = next - before as f64;
        let wanted = f64::from(seconds) * 1000.0;
        assert!(
            (wanted..wanted + 5000.0).contains(&delay),
            "{delay} of {wanted}"
        );
        let pod = shown(&cluster, &id).await;
        assert_eq!(pod.phase, Phase::Waiting);
        assert_eq!(pod.reason.as_deref(), Some("no node has room"));
        // Not before its time.
        assert_eq!(cluster.store.queue().release_parked(10).await.unwrap(), 0);
        assert!(cluster.claim(10).await.pods.is_empty());
        let _: u64 = cluster.ask(&format!("ZADD @sq:parked 1 {id}")).await;
        assert_eq!(cluster.store.queue().release_parked(10).await.unwrap(), 1);
    }
    assert_eq!(cluster.served("sq").await, [id.as_str()]);
}

#[tokio::test]
async fn parked_pods_are_released_when_room_appears() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(1)).await;
    let first = cluster.submit(&spec("first", 1)).await.remove(0);
    cluster.place("n").await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    let park = async || {
        let batch = cluster.claim(10).await.batch;
        cluster.park(&batch, &id, "full").await;
        assert!(cluster.served("sq").await.is_empty());
    };
    park().await;
    cluster.register("other", &beat(0)).await;
    assert_eq!(
        cluster.served("sq").await,
        [id.as_str()],
        "a node registered"
    );
    park().await;
    cluster.report("n", epoch, &first, Phase::Running).await;
    assert!(cluster.served("sq").await.is_empty());
    cluster.report("n", epoch, &first, Phase::Failed).await;
    assert_eq!(cluster.served("sq").await, [id.as_str()], "a pod ended");
    park().await;
    cluster.store.nodes().leave("n", epoch).await.unwrap();
    cluster
        .store
        .nodes()
        .heartbeat("n", epoch, &beat(1))
        .await
        .unwrap();
    assert_eq!(
        cluster.served("sq").await,
        [id.as_str()],
        "an engine came up"
    );
    park().await;
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    let parked: u64 = cluster.ask("ZCARD @sq:parked").await;
    assert_eq!(parked, 0, "a stopped pod is parked no more");
}

#[tokio::test]
async fn a_claim_whose_lease_is_over_goes_back_to_the_front_and_is_refused() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let first = cluster.submit(&spec("first", 3)).await;
    cluster.push("sq", b"raw entry").await;
    let claim = cluster.claim(4).await;
    let later = cluster.submit(&spec("later", 1)).await;
    assert_eq!(cluster.store.queue().expire_claims(10).await.unwrap(), 0);
    let _: u64 = cluster
        .ask(&format!("ZADD @sq:claims 1 {}", claim.batch))
        .await;
    assert_eq!(cluster.store.queue().expire_claims(10).await.unwrap(), 4);
    let order = [named(&first), vec!["raw entry"], named(&later)].concat();
    assert_eq!(cluster.served("sq").await, order);
    let assignment = Assignment {
        nodes: vec![("n", 0)],
        pods: vec![(&first[0], 0)],
        ..Assignment::default()
    };
    let late = cluster.store.queue();
    let late = late
        .assign(&claim.batch, "late", CLAIM, &assignment)
        .await
        .unwrap();
    assert_eq!(late, AssignOutcome::Lapsed);
    assert_eq!(cluster.phase(&first[0]).await, "waiting");
    let left: u64 = cluster
        .ask(&format!("EXISTS @sq:claim:{} @sq:claims", claim.batch))
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn waiting_for_arrivals_wakes_every_watcher_and_takes_nothing() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    let longest = Duration::from_secs(20);
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = cluster
            .store
            .queue()
            .arrivals(Priority::Normal, longest)
            .await
            .unwrap();
        watches.push(tokio::spawn(async move { watch.wait().await }));
    }
    eventually(LIMIT, "five wait", async || {
        let info: String = cluster.ask("INFO clients").await;
        if info.contains("blocked_clients:5") {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    assert!(watches.iter().all(|watch| !watch.is_finished()));
    let ids = cluster.submit(&spec("web", 3)).await;
    for watch in watches {
        assert!(watch.await.unwrap().unwrap());
    }
    assert_eq!(cluster.served("sq").await, named(&ids));
    let empty = cluster.store.queue();
    let mut empty = empty
        .arrivals(Priority::Low, Duration::from_millis(10))
        .await
        .unwrap();
    assert!(!empty.wait().await.unwrap(), "nothing came in time");
}
