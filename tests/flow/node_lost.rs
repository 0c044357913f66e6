//! Nodes and schedulers that vanish, freeze and return: one owner, no doubles, nothing lost.

use std::time::{Duration, Instant};

use kubeleet::agent::AgentError;
use kubeleet::container::Simulated;
use kubeleet::model::{NodeState, Phase, Pod, ServiceKey};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;
use crate::support::process::Daemon;

const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
/// Longest time from a lease's end until its pods run elsewhere.
const MOVE_LIMIT: Duration = Duration::from_secs(2);
/// Longest time from a node's return until its superseded containers are gone.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

fn on<'a>(pods: &'a [Pod], node: &str) -> Vec<&'a Pod> {
    let there = |pod: &&Pod| pod.node.as_deref() == Some(node);
    pods.iter().filter(there).collect()
}

/// Waits until none of the pods is on `node` and all run, within the lease and [`MOVE_LIMIT`].
async fn moved(cluster: &Cluster, all: usize, node: &str, since: Instant) -> Vec<Pod> {
    let pods = eventually(SOON, "its pods run elsewhere", async || {
        let pods = cluster.pods(None).await;
        let running = pods
            .iter()
            .filter(|pod| pod.phase == Phase::Running)
            .count();
        if running == all && on(&pods, node).is_empty() {
            return Ok(pods);
        }
        Err(format!(
            "{running} run, {} still there",
            on(&pods, node).len()
        ))
    })
    .await;
    let limit = cluster.settings.heartbeat.lease + MOVE_LIMIT;
    assert!(since.elapsed() < limit, "moved after {:?}", since.elapsed());
    pods
}

#[tokio::test]
async fn pods_of_a_vanished_node_run_elsewhere_and_its_return_leaves_no_double() {
    let mut cluster = Cluster::start(3).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 30).await;
    let before = cluster.all_in(&service, Phase::Running, 30).await;
    assert_eq!(on(&before, "worker2").len(), 10);

    cluster.take_agent("worker2").kill();
    let vanished = Instant::now();
    // More arrive all the time, and beyond the lease's end.
    let lease = cluster.settings.heartbeat.lease;
    for tenth in 1..=12 {
        eventually(SOON, "time passes", async || {
            let age = cluster.node("worker2").await.unwrap().heartbeat_age_ms;
            let age = Duration::from_millis(age);
            if age > lease * tenth / 10 {
                Ok(())
            } else {
                Err(format!("{age:?}"))
            }
        })
        .await;
        cluster.submit(&format!("more-{tenth}"), 3).await;
    }
    let after = moved(&cluster, 30 + 12 * 3, "worker2", vanished).await;
    let last_beat: u64 = cluster
        .redis(&["HGET", &cluster.key("node:worker2"), "heartbeat_ms"])
        .await;
    let lease_ms = u64::try_from(lease.as_millis()).unwrap();
    let placed = cluster.placed_on("worker2").await;
    assert!(placed.len() > 10, "it got some while its lease held");
    for (at_ms, pod) in placed {
        assert!(at_ms <= last_beat + lease_ms, "{pod} came after the lease");
    }
    for pod in &before {
        let attempt = if pod.node.as_deref() == Some("worker2") {
            2
        } else {
            1
        };
        let now = after.iter().find(|it| it.id == pod.id).unwrap();
        assert_eq!(now.attempt, attempt, "{now:?}");
    }
    assert_eq!(
        cluster.node("worker2").await.unwrap().state,
        NodeState::Lost
    );
    assert_eq!(
        cluster.engine("worker2").live().len(),
        10,
        "nobody stopped them"
    );

    let returned = Instant::now();
    cluster.start_agent("worker2");
    eventually(
        RETURN_LIMIT,
        "its superseded containers are gone",
        async || {
            let left = cluster.engine("worker2").containers().len();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} left"))
            }
        },
    )
    .await;
    assert!(returned.elapsed() < RETURN_LIMIT);
    cluster.ready("worker2").await;
    let last = cluster.pods(None).await;
    assert_eq!(last, after, "its return moves nothing");
    cluster.assert_exactly_once(&last);
    cluster.end().await;
}

#[tokio::test]
async fn a_frozen_agent_starts_nothing_that_others_have_by_then() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.simulated.start_time = Duration::from_millis(50);
    cluster.settings.agent.concurrency = 1;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 40).await;
    cluster.progress("worker1", 2).await;
    let frozen = cluster.agent("worker1").freeze().await;
    let since = Instant::now();
    // Most of its pods are in its hands, some created and not started, one perhaps being started.
    cluster.in_state("worker1", NodeState::Lost).await;
    let pods = eventually(SOON, "all run on the other", async || {
        let pods = cluster.pods(Some(&service)).await;
        let there = on(&pods, "worker2");
        let running = there
            .iter()
            .filter(|pod| pod.phase == Phase::Running)
            .count();
        if running == 40 {
            Ok(pods)
        } else {
            Err(format!("{running} of 40"))
        }
    })
    .await;
    assert!(since.elapsed() >= cluster.settings.heartbeat.lease / 2);
    let started = cluster.engine("worker1").counts().starts;

    drop(frozen);
    cluster.ready("worker1").await;
    eventually(RETURN_LIMIT, "its containers are gone", async || {
        let left = cluster.engine("worker1").containers();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{} left", left.len()))
        }
    })
    .await;
    // One start may have been under way at the engine itself when it froze.
    let late = cluster.engine("worker1").counts().starts - started;
    assert!(late <= 1, "{late} started after its lease");
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

#[tokio::test]
async fn an_agents_restart_within_its_lease_keeps_its_containers() {
    let mut cluster = Cluster::start(2).await;
    let service = cluster.submit("web", 10).await;
    let before = cluster.all_in(&service, Phase::Running, 10).await;
    let live = cluster.live_ids();

    let ended = cluster.take_agent("worker1").stop().await;
    assert!(matches!(ended, Ok(())), "{ended:?}");
    cluster.in_state("worker1", NodeState::EngineDown).await;
    // In the meantime it gets nothing new.
    let more = cluster.submit("more", 4).await;
    let placed = cluster.all_in(&more, Phase::Running, 4).await;
    assert!(on(&placed, "worker1").is_empty());
    cluster.start_agent("worker1");
    cluster.ready("worker1").await;
    cluster.take_agent("worker2").kill();
    cluster.start_agent("worker2");
    cluster.settled().await;
    assert_eq!(cluster.pods(Some(&service)).await, before);
    let now = cluster.live_ids();
    assert!(live.is_subset(&now), "{live:?} {now:?}");
    assert_eq!(now.len(), 14);
    cluster.end().await;
}

#[tokio::test]
async fn of_two_agents_with_one_name_the_newer_counts() {
    let mut cluster = Cluster::start(1).await;
    let service = cluster.submit("web", 3).await;
    cluster.all_in(&service, Phase::Running, 3).await;
    let older = cluster.take_agent("worker1");
    cluster.start_agent("worker1");
    let ended = older.ended().await;
    assert!(
        matches!(&ended, Err(AgentError::Superseded(name)) if name == "worker1"),
        "{ended:?}"
    );
    assert_eq!(cluster.node("worker1").await.unwrap().epoch, 2);
    let more = cluster.submit("more", 3).await;
    let mut pods = cluster.all_in(&more, Phase::Running, 3).await;
    pods.extend(cluster.pods(Some(&service)).await);
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

#[tokio::test]
async fn another_engine_under_the_same_name_waits_for_the_leases_end() {
    let mut cluster = Cluster::start(1).await;
    let service = cluster.submit("web", 3).await;
    let before = cluster.all_in(&service, Phase::Running, 3).await;
    let other = Simulated::new("another-engine", cluster.settings.simulated.clone());
    other.add_image(crate::support::cluster::IMAGE);
    let second = cluster.agent_of("worker1", other.clone());
    // It waits for as long as the first lives: well over a lease.
    let begun = Instant::now();
    let (more, lease) = (8, cluster.settings.heartbeat.lease);
    for number in 1..=more {
        eventually(SOON, "time passes", async || {
            let passed = begun.elapsed();
            if passed > lease * number / 6 {
                Ok(())
            } else {
                Err(format!("{passed:?}"))
            }
        })
        .await;
        let service = cluster.submit(&format!("more-{number}"), 1).await;
        cluster.all_in(&service, Phase::Running, 1).await;
    }
    assert_eq!(cluster.pods(Some(&service)).await, before);
    assert_eq!(cluster.node("worker1").await.unwrap().epoch, 1);
    assert_eq!(other.counts().creates, 0);

    cluster.take_agent("worker1").kill();
    let all = 3 + more as usize;
    eventually(SOON, "all run on the other engine", async || {
        let live = other.live().len();
        if live == all {
            Ok(())
        } else {
            Err(format!("{live} of {all}"))
        }
    })
    .await;
    assert_eq!(cluster.node("worker1").await.unwrap().epoch, 2);
    drop(second);
    cluster.end().await;
}

#[tokio::test]
async fn a_claim_of_a_dead_scheduler_comes_back_after_its_lease() {
    let mut cluster = Cluster::empty().await;
    cluster.add_nodes(1).await;
    let service = cluster.submit("web", 5).await;
    let lease = cluster.settings.scheduler.claim_lease;
    let begun = Instant::now();
    let claim = cluster.store.queue().claim(lease, 100).await.unwrap();
    assert_eq!(claim.pods.len(), 5);
    cluster.add_scheduler();
    let pods = cluster.all_in(&service, Phase::Running, 5).await;
    assert!(begun.elapsed() >= lease, "after {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < lease + MOVE_LIMIT,
        "after {:?}",
        begun.elapsed()
    );
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

#[tokio::test]
async fn a_scheduler_that_was_stopped_with_a_claim_assigns_nothing_when_it_goes_on() {
    let mut cluster = Cluster::empty().await;
    cluster.add_nodes(2).await;
    // Whatever it was waiting for when it was stopped, it goes on to its assign.
    let patient = [("KUBELEET_REDIS__RESPONSE_TIMEOUT", "60s")];
    let stopped = cluster.daemon(SCHEDULER, &patient);
    let service = stop_with_a_claim(&cluster, &stopped).await;
    cluster.add_scheduler();
    cluster.all_in(&service, Phase::Running, 100).await;
    cluster.settled().await;
    let all = cluster.all_running(SOON).await;
    stopped.signal("CONT");
    let words = "the claim's lease was over before it was assigned";
    stopped.logged(SOON, words).await;
    cluster.settled().await;
    let pods = cluster.pods(None).await;
    assert_eq!(pods, all, "it moved nothing");
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
    cluster.assert_exactly_once(&pods);
    cluster.end().await;
}

/// Stops a scheduler between a claim and its assign; gives a service of 100 whose pods it holds.
async fn stop_with_a_claim(cluster: &Cluster, scheduler: &Daemon) -> ServiceKey {
    for round in 0..20 {
        scheduler.signal("STOP");
        let service = cluster.submit(&format!("web-{round}"), 100).await;
        // Descriptions are adopted one by one before the rest is planned: time to be caught in.
        let entries = (0..150).map(|number| {
            format!(
                r#"{{"uuid":"hand-{round}-{number}","name":"a","image":"spaster/alpine-sleep"}}"#
            )
        });
        cluster.push_all("sq", entries).await;
        scheduler.signal("CONT");
        let claims = async || -> u64 { cluster.redis(&["ZCARD", &cluster.key("sq:claims")]).await };
        eventually(SOON, "it claims", async || match claims().await {
            0 if cluster.store.queue().depths().await.unwrap().normal > 0 => Err(String::new()),
            _ => Ok(()),
        })
        .await;
        scheduler.signal("STOP");
        if claims().await > 0 {
            return service;
        }
        scheduler.signal("CONT");
    }
    panic!("the scheduler was never caught with a claim");
}

/// As after a fail-over to a master that had not heard of the agent's last registration.
#[tokio::test]
async fn an_agent_whose_registration_was_lost_registers_again_and_goes_on() {
    let mut cluster = Cluster::empty().await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let before = cluster.submit("before", 2).await;
    cluster.all_in(&before, Phase::Running, 2).await;
    let containers = cluster.live_ids();
    let key = cluster.key("node:worker1");
    let _: u64 = cluster.redis(&["HSET", &key, "epoch", "0"]).await;
    let after = cluster.submit("after", 2).await;
    cluster.all_in(&after, Phase::Running, 2).await;
    assert!(
        cluster.live_ids().is_superset(&containers),
        "none was made again"
    );
    cluster.end().await;
}
