//! Processes that die between any two steps: after a restart every accepted pod runs exactly once.
//!
//! The agent's failpoints are walked against Docker (`tests/smoke/faults.rs`): a simulated engine
//! dies with its process.

use std::time::Duration;

use kubeleet::model::{Phase, PodId};
use kubeleet::process::FAILPOINTS;

use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::http::post;
use crate::support::process::Daemon;

const API: &str = env!("CARGO_BIN_EXE_kubeleet-api");
const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
/// Pods of the service that is on its way when the process dies.
const REPLICAS: u32 = 5;

fn failpoints_of(station: &str) -> Vec<&'static str> {
    let of = |name: &&str| name.split('.').next() == Some(station);
    FAILPOINTS.into_iter().filter(of).collect()
}

#[test]
fn every_failpoint_is_walked() {
    // Each walk takes all failpoints of its station; so no station may be without a walk.
    let walked = ["scheduler", "agent", "api"].map(failpoints_of);
    assert!(walked.iter().all(|points| !points.is_empty()));
    assert_eq!(walked.concat().len(), FAILPOINTS.len());
}

#[tokio::test]
async fn an_api_killed_at_any_step_loses_and_doubles_nothing() {
    for failpoint in failpoints_of("api") {
        let cluster = Cluster::start(2).await;
        let body = format!(r#"{{"name":"web","image":"{IMAGE}","replicas":{REPLICAS}}}"#);
        let variables = [("KUBELEET_FAILPOINT", failpoint)];
        let (mut doomed, address) = Daemon::api(API, &cluster.settings, &variables).await;
        let cut_off = post(&address, "/service", "once", &body).await;
        assert!(cut_off.is_err(), "{failpoint}: {cut_off:?}");
        doomed.aborted(SOON).await;
        // Whoever got no answer asks again, of any API.
        let (_heir, address) = Daemon::api(API, &cluster.settings, &[]).await;
        let first = post(&address, "/service", "once", &body).await.unwrap();
        let second = post(&address, "/service", "once", &body).await.unwrap();
        assert_eq!(first.0, 201, "{failpoint}: {first:?}");
        assert_eq!(first, second, "{failpoint}");
        let pods = cluster.all_running(SOON).await;
        assert_eq!(pods.len(), REPLICAS as usize, "{failpoint}");
        assert!(
            pods.iter().all(|pod| first.1.contains(pod.id.as_str())),
            "{first:?}"
        );
        cluster.assert_exactly_once(&pods);
        cluster.end().await;
    }
}

#[tokio::test]
async fn a_scheduler_killed_at_any_step_loses_and_doubles_nothing() {
    for failpoint in failpoints_of("scheduler") {
        let mut cluster = Cluster::empty().await;
        cluster.add_nodes(2).await;
        let service = cluster.submit("web", REPLICAS).await;
        let by_hand = PodId::parse("by-hand").unwrap();
        let entry = r#"{"uuid":"by-hand","name":"a","image":"spaster/alpine-sleep"}"#;
        cluster.push("sq", entry).await;

        let mut doomed = cluster.daemon(SCHEDULER, &[("KUBELEET_FAILPOINT", failpoint)]);
        doomed.aborted(SOON).await;
        let heir = cluster.daemon(SCHEDULER, &[]);
        let mut pods = cluster
            .all_in(&service, Phase::Running, REPLICAS as usize)
            .await;
        pods.push(cluster.pod_in(&by_hand, Phase::Running).await);
        cluster.assert_exactly_once(&pods);
        for pod in &pods {
            assert_eq!(pod.attempt, 1, "{failpoint}: {pod:?}");
        }
        cluster.settled().await;
        drop(heir);
    }
}

#[tokio::test]
async fn schedulers_killed_one_after_the_other_lose_nothing() {
    let mut cluster = Cluster::empty().await;
    cluster.add_nodes(2).await;
    let service = cluster.submit("web", REPLICAS).await;
    // The claim is taken back and dies with the next one, many times.
    for _ in 0..3 {
        let mut doomed = cluster.daemon(
            SCHEDULER,
            &[("KUBELEET_FAILPOINT", "scheduler.before_assign")],
        );
        doomed.aborted(SOON).await;
    }
    cluster.add_scheduler();
    let pods = cluster
        .all_in(&service, Phase::Running, REPLICAS as usize)
        .await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

#[tokio::test]
async fn a_submit_that_was_cut_off_is_carried_on_by_a_scheduler() {
    let cluster = Cluster::start(1).await;
    let service = cluster.submit("large", 200).await;
    cluster.all_in(&service, Phase::Running, 200).await;
    // As an API that died after a step of a large submit leaves it: 240 wanted, 200 made.
    let key = cluster.key("service:default/large");
    let _: u64 = cluster.redis(&["HSET", &key, "replicas", "240"]).await;
    let (seconds, _): (u64, u64) = cluster.redis(&["TIME"]).await;
    let then = ((seconds - 60) * 1000).to_string();
    let splitting = cluster.key("services:changed");
    let _: u64 = cluster
        .redis(&["ZADD", &splitting, &then, "default/large"])
        .await;
    let limit = SOON + Duration::from_secs(5);
    let pods = cluster
        .all_in_within(limit, &service, Phase::Running, 240)
        .await;
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_loses_and_doubles_nothing() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.simulated.start_time = Duration::from_millis(10);
    cluster.settings.node.pods_max = 1000;
    // Restarts here are quicker than any lease is over.
    cluster.settings.heartbeat.lease = Duration::from_secs(30);
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 400).await;
    for round in 0..12 {
        let name = if round % 2 == 0 { "worker1" } else { "worker2" };
        cluster.progress(name, 15 * (round / 2 + 1)).await;
        cluster.take_agent(name).kill();
        cluster.start_agent(name);
    }
    let pods = cluster.all_in(&service, Phase::Running, 400).await;
    assert!(pods.iter().all(|pod| pod.attempt == 1), "no node was lost");
    cluster.assert_exactly_once(&pods);
    for name in ["worker1", "worker2"] {
        let counts = cluster.engine(name).counts();
        assert_eq!(
            (counts.creates, counts.starts),
            (200, 200),
            "{name}: {counts:?}"
        );
    }
    cluster.end().await;
}
