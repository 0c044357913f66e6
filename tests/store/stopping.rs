//! Services that shrink and end: who stops first, when a service is gone, how many pods run.

use kubeleet::model::{Phase, PodId};
use kubeleet::store::{BeatOutcome, ReportOutcome, ScaleOutcome, SubmitOutcome, SweepOutcome};

use crate::cluster::{Cluster, LEASE, LONG, beat, service, spec};
use crate::services::{index, try_submit};

async fn running(cluster: &Cluster, name: &str) -> u32 {
    let found = cluster
        .store
        .services()
        .get(&service(name))
        .await
        .expect("an answer");
    found.expect("the service is there").1
}

#[tokio::test]
async fn the_highest_replicas_stop_first_and_waiting_ones_at_once() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    let _: u64 = cluster.ask("DEL @pq:n").await;
    let services = cluster.store.services();
    assert_eq!(
        services
            .scale(&service("web"), 5, "more", None)
            .await
            .unwrap(),
        ScaleOutcome::Done
    );
    assert_eq!(cluster.served("sq").await, ["more-2", "more-3", "more-4"]);
    assert_eq!(
        services
            .scale(&service("web"), 1, "less", None)
            .await
            .unwrap(),
        ScaleOutcome::Done
    );
    cluster.control().await;
    for replica in 2..5 {
        let id = PodId::of_submission("more", replica);
        assert_eq!(cluster.phase(&id).await, "stopped", "a tombstone");
        assert!(cluster.store.pods().get(&id).await.unwrap().is_none());
        let ttl: u64 = cluster.ask(&format!("TTL @pod:{id}")).await;
        assert!((86_000..=86_400).contains(&ttl), "{ttl}");
    }
    assert_eq!(
        cluster.served("pq:n").await,
        [ids[1].as_str()],
        "on its node: told to stop"
    );
    assert_eq!(
        cluster.field(&format!("pod:{}", ids[1]), "desired").await,
        "stop"
    );
    assert_eq!(
        cluster.field(&format!("pod:{}", ids[0]), "desired").await,
        "run"
    );
    // It grows again before the old one is gone; told once is enough.
    services
        .scale(&service("web"), 2, "again", None)
        .await
        .unwrap();
    services
        .scale(&service("web"), 1, "less", None)
        .await
        .unwrap();
    cluster.control().await;
    assert_eq!(cluster.served("pq:n").await.len(), 1);
    cluster.report("n", epoch, &ids[1], Phase::Stopped).await;
    assert_eq!(index(&cluster, "web").await, [ids[0].as_str()]);
    assert_eq!(
        services
            .scale(&service("none"), 1, "x", None)
            .await
            .unwrap(),
        ScaleOutcome::Absent
    );
}

#[tokio::test]
async fn a_deleted_service_is_gone_when_its_last_pod_is_reported_stopped() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let web = spec("web", 2);
    let ids = cluster.submit(&web).await;
    cluster.place("n").await;
    let services = cluster.store.services();
    assert_eq!(
        services.delete(&web.key(), None).await.unwrap(),
        ScaleOutcome::Done
    );
    assert_eq!(
        services.delete(&web.key(), None).await.unwrap(),
        ScaleOutcome::Done
    );
    assert_eq!(
        try_submit(&cluster, &web, "new", None).await,
        SubmitOutcome::Deleting
    );
    let scaled = services.scale(&web.key(), 3, "new", None).await.unwrap();
    assert_eq!(scaled, ScaleOutcome::Deleting);
    for (id, left) in ids.iter().zip([true, false]) {
        let (shown, _) = services.get(&web.key()).await.unwrap().unwrap();
        assert!(shown.deleting);
        assert_eq!(
            cluster.report("n", epoch, id, Phase::Stopped).await,
            ReportOutcome::Ok
        );
        assert_eq!(services.get(&web.key()).await.unwrap().is_some(), left);
    }
    let left: u64 = cluster
        .ask("EXISTS @services @service:default/web @cs:n")
        .await;
    assert_eq!(left, 0);
    assert_eq!(cluster.taken_room("n").await, (0, 0, 0));
    cluster.submit(&web).await;
}

#[tokio::test]
async fn the_count_of_running_pods_is_right_through_every_transition() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    let ids = cluster.submit(&spec("web", 5)).await;
    cluster.place("n").await;
    for (replica, phase, count) in [
        (0, Phase::Starting, 0),
        (0, Phase::Running, 1),
        (0, Phase::Running, 1),
        (0, Phase::Unhealthy, 1),
        (0, Phase::Running, 1),
        (1, Phase::Unhealthy, 2),
        (2, Phase::Running, 3),
        (3, Phase::Running, 4),
        (4, Phase::Succeeded, 4),
        (1, Phase::Failed, 3),
        (1, Phase::Running, 3),
    ] {
        cluster.report("n", epoch, &ids[replica], phase).await;
        assert_eq!(running(&cluster, "web").await, count, "{replica} {phase}");
    }
    let services = cluster.store.services();
    services
        .scale(&service("web"), 2, "less", None)
        .await
        .unwrap();
    cluster.control().await;
    assert_eq!(
        running(&cluster, "web").await,
        3,
        "it runs until it is reported stopped"
    );
    cluster.report("n", epoch, &ids[3], Phase::Stopped).await;
    assert_eq!(running(&cluster, "web").await, 2);
    services
        .scale(&service("web"), 1, "fewer", None)
        .await
        .unwrap();
    cluster.control().await;
    // The node is lost: one goes back to the queue, one had to stop anyway.
    cluster.age("n", LONG).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert!(
        matches!(
            swept,
            SweepOutcome::Swept {
                pods: 1,
                done: true,
                ..
            }
        ),
        "{swept:?}"
    );
    assert_eq!(running(&cluster, "web").await, 0);
    assert_eq!(cluster.served("sq").await, [ids[0].as_str()]);
}

#[tokio::test]
async fn a_running_pod_whose_node_is_nowhere_is_no_longer_counted_when_it_stops() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    for id in &ids {
        cluster.report("n", epoch, id, Phase::Running).await;
    }
    let _: u64 = cluster.ask("ZREM @nodes n").await;
    cluster
        .store
        .services()
        .scale(&service("web"), 1, "less", None)
        .await
        .unwrap();
    cluster.control().await;
    assert_eq!(cluster.phase(&ids[1]).await, "stopped");
    assert_eq!(running(&cluster, "web").await, 1);
}

#[tokio::test]
async fn a_service_ends_although_the_node_of_its_ended_pod_was_lost_twice() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.end_grace().await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    cluster.place("n").await;
    cluster.report("n", epoch, &id, Phase::Failed).await;
    let lose = async || {
        cluster.age("n", LONG).await;
        cluster.store.nodes().sweep(LEASE, 10).await.unwrap()
    };
    lose().await;
    let back = cluster
        .store
        .nodes()
        .heartbeat("n", epoch, &beat(10))
        .await
        .unwrap();
    assert!(
        matches!(back, BeatOutcome::Renewed { returned: true, .. }),
        "{back:?}"
    );
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    assert!(
        cluster
            .store
            .services()
            .get(&service("web"))
            .await
            .unwrap()
            .is_some()
    );
    // The agent dies before it looks into its inbox.
    lose().await;
    assert!(
        cluster
            .store
            .services()
            .get(&service("web"))
            .await
            .unwrap()
            .is_none()
    );
}
