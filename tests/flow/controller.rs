//! The controller with the other stations: changes roll, scaling down picks well, ended pods are
//! replaced, and what was lost or taken away by hand comes right by the comparison alone.

use std::collections::BTreeSet;

use kubeleet::model::{Phase, ServiceKey};
use kubeleet::store::SubmitOutcome;

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

/// Waits until all pods of a service are of one revision and run.
async fn all_of(cluster: &Cluster, service: &ServiceKey, revision: u64, count: usize) {
    eventually(SOON, "all pods are of the revision", async || {
        let pods = cluster.pods(Some(service)).await;
        let good = pods
            .iter()
            .filter(|pod| pod.revision == revision && pod.phase == Phase::Running);
        if good.count() == count && pods.len() == count {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_replaces_all_pods_and_some_always_run() {
    let cluster = Cluster::start(3).await;
    let web = cluster.submit("web", 6).await;
    cluster.all_in(&web, Phase::Running, 6).await;
    let changed = cluster
        .apply("web", |spec| spec.args = vec!["2".into()])
        .await;
    assert!(matches!(
        changed,
        SubmitOutcome::Changed { revision: 2, .. }
    ));
    let least = async {
        let mut least = usize::MAX;
        loop {
            let pods = cluster.pods(Some(&web)).await;
            let running = pods.iter().filter(|pod| pod.phase == Phase::Running);
            least = least.min(running.count());
            if pods.iter().all(|pod| pod.revision == 2) {
                return least;
            }
        }
    };
    let least = tokio::time::timeout(SOON, least).await.expect("it ends");
    assert!(least >= 6, "{least} of 6 ran");
    all_of(&cluster, &web, 2, 6).await;
    let service = cluster.service(&web).await.expect("it stands").0;
    assert_eq!((service.revision, service.replicas), (2, 6));
    cluster.end().await;
}

#[tokio::test]
async fn a_broken_revision_stops_after_one_pod_and_the_next_one_mends_it() {
    let cluster = Cluster::start(2).await;
    let web = cluster.submit("web", 4).await;
    cluster.all_in(&web, Phase::Running, 4).await;
    cluster.engine("worker1").deny_image("broken:1");
    cluster.engine("worker2").deny_image("broken:1");
    cluster
        .apply("web", |spec| spec.image = "broken:1".into())
        .await;
    eventually(SOON, "one pod of it failed", async || {
        let pods = cluster.pods(Some(&web)).await;
        match pods.iter().any(|pod| pod.phase == Phase::Failed) {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    })
    .await;
    let pods = cluster.pods(Some(&web)).await;
    let old: Vec<_> = pods.iter().filter(|pod| pod.revision == 1).collect();
    assert_eq!(old.len(), 4, "{pods:?}");
    assert!(old.iter().all(|pod| pod.phase == Phase::Running));
    cluster
        .apply("web", |spec| spec.args = vec!["good".into()])
        .await;
    eventually(SOON, "all are of the next revision", async || {
        let pods = cluster.pods(Some(&web)).await;
        let live = pods.iter().filter(|pod| !pod.phase.is_ended());
        let live: Vec<_> = live.collect();
        match live.len() == 4 && live.iter().all(|pod| pod.revision == 3 && pod.ready) {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    })
    .await;
    cluster.end().await;
}

#[tokio::test]
async fn scaling_down_and_up_again_fills_the_gaps() {
    let cluster = Cluster::start(2).await;
    let web = cluster.submit("web", 6).await;
    cluster.all_in(&web, Phase::Running, 6).await;
    cluster.scale(&web, 2).await;
    eventually(SOON, "two are left", async || {
        let pods = cluster.pods(Some(&web)).await;
        if pods.len() == 2 {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    cluster.scale(&web, 8).await;
    let pods = cluster.all_in(&web, Phase::Running, 8).await;
    let replicas: BTreeSet<u32> = pods.iter().map(|pod| pod.replica).collect();
    assert_eq!(replicas.len(), 8);
    cluster.scale(&web, 0).await;
    cluster.containers_are(0).await;
    cluster.end().await;
}

#[tokio::test]
async fn what_is_taken_away_by_hand_is_made_again_by_comparing() {
    let cluster = Cluster::start(2).await;
    let web = cluster.submit("web", 4).await;
    let pods = cluster.all_in(&web, Phase::Running, 4).await;
    // A record, an index entry, and all notices.
    let lost = cluster.key(&format!("pod:{}", pods[0].id));
    let index = cluster.key("service:default/web:pods");
    let _: u64 = cluster.redis(&["DEL", &lost]).await;
    let _: u64 = cluster.redis(&["ZREM", &index, pods[1].id.as_str()]).await;
    let running = cluster.key("service:default/web");
    let _: u64 = cluster.redis(&["HSET", &running, "running", "77"]).await;
    kubeleet::controller::compare(&cluster.store)
        .await
        .expect("a comparison");
    eventually(SOON, "four run again", async || {
        let pods = cluster.pods(Some(&web)).await;
        let running = pods
            .iter()
            .filter(|pod| pod.phase == Phase::Running)
            .count();
        if running == 4 && pods.len() == 4 {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    kubeleet::controller::compare(&cluster.store)
        .await
        .expect("a comparison");
    let (_, running) = cluster.service(&web).await.expect("it stands");
    assert_eq!(running, 4, "the count was set right");
}

#[tokio::test]
async fn two_controllers_make_no_double() {
    let mut cluster = Cluster::start(3).await;
    cluster.add_scheduler();
    cluster.add_scheduler();
    for number in 0..10 {
        cluster.submit(&format!("s{number}"), 3).await;
    }
    cluster.all_running(SOON).await;
    for round in 2..5_u64 {
        for number in 0..10 {
            let name = format!("s{number}");
            cluster
                .apply(&name, |spec| spec.args = vec![round.to_string()])
                .await;
        }
        for number in 0..10 {
            let service = ServiceKey::parse(&format!("default/s{number}")).unwrap();
            all_of(&cluster, &service, round, 3).await;
        }
    }
    cluster.containers_are(30).await;
    cluster.end().await;
}
