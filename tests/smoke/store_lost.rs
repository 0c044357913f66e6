//! FLUSHALL with sixty real containers: the same containers afterwards, and all services back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Timing, build_images};
use crate::support::{RedisServer, eventually};

const CONTAINERS: usize = 60;
/// Starting sixty containers on a busy machine.
const STARTED: Duration = Duration::from_secs(90);
/// What the design promises after a loss.
const BACK: Duration = Duration::from_secs(30);

/// Id and start time of each running container.
async fn runs(cluster: &Cluster) -> BTreeMap<String, String> {
    let running = cluster.containers.running().await;
    let run = |one: &Value| (one["Id"].to_string(), one["State"]["StartedAt"].to_string());
    running.iter().map(run).collect()
}

#[tokio::test]
async fn an_emptied_redis_gets_sixty_containers_back_as_they_are() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let _agent = cluster.agent("worker1", &[]).await;
    let _scheduler = cluster.scheduler();
    let mut services = Vec::new();
    for number in 0..6 {
        services.push(cluster.submit(&format!("s{number}"), 10).await);
    }
    cluster.all_run(CONTAINERS, STARTED).await;
    // Where a busy engine made the node late, the container of an earlier placement may still go.
    cluster.containers.settle(CONTAINERS, STARTED).await;
    let before = cluster.all_run(CONTAINERS, STARTED).await;
    let kept = runs(&cluster).await;
    assert_eq!(kept.len(), CONTAINERS);

    redis.must(&["FLUSHALL"]).await;
    let after = cluster.all_run(CONTAINERS, BACK).await;
    assert_eq!(runs(&cluster).await, kept, "the same, never restarted");
    let place = |pods: &[kubeleet::model::Pod]| -> BTreeMap<String, (Option<String>, u64)> {
        let places = pods.iter();
        places
            .map(|pod| (pod.id.to_string(), (pod.container.clone(), pod.attempt)))
            .collect()
    };
    assert_eq!(place(&after), place(&before));
    for service in &services {
        let standing = cluster.store.services().get(service).await;
        let (standing, running) = standing.expect("Redis answers").expect("it stands");
        assert_eq!((standing.replicas, running), (10, 10));
    }
    // And it goes on.
    eventually(BACK, "a service is scaled", async || {
        let services_port = cluster.store.services();
        let scaled = services_port.scale(&services[0], 5, "fewer", None).await;
        scaled.map(drop).map_err(|error| error.to_string())
    })
    .await;
    cluster.containers.settle(CONTAINERS - 5, BACK).await;
    let now = runs(&cluster).await;
    assert!(
        now.iter()
            .all(|(id, started)| kept.get(id) == Some(started))
    );
}
