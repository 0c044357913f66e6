//! An agent ends and comes back; its containers do not notice.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Process, SOON, Timing, build_images, docker};
use crate::support::{RedisServer, eventually};

/// A node, and the service `web` of so many replicas running on it.
struct Bench {
    // Dropped in this order: nothing may be made again after the containers are removed.
    agent: Process,
    _scheduler: Process,
    cluster: Cluster,
    _redis: RedisServer,
}

impl Bench {
    async fn start(replicas: usize, variables: &[(&str, &str)]) -> Bench {
        build_images().await;
        let redis = RedisServer::start().await;
        let cluster = Cluster::on(&redis, Timing::REAL).await;
        let bench = Bench {
            agent: cluster.agent("worker1", variables).await,
            _scheduler: cluster.scheduler(),
            cluster,
            _redis: redis,
        };
        let count = u32::try_from(replicas).expect("a few");
        bench.cluster.submit("web", count).await;
        bench.cluster.all_run(replicas, SOON).await;
        bench
    }

    async fn restart(&mut self) {
        self.agent = self.cluster.agent("worker1", &[]).await;
    }

    /// Id and start time of each running container.
    async fn runs(&self) -> BTreeMap<String, String> {
        let running = self.cluster.containers.running().await;
        let run = |one: &Value| (one["Id"].to_string(), one["State"]["StartedAt"].to_string());
        running.iter().map(run).collect()
    }
}

#[tokio::test]
async fn kill_9_leaves_containers_and_what_was_deleted_meanwhile_is_stopped() {
    let mut bench = Bench::start(3, &[]).await;
    let kept = bench.runs().await;
    assert_eq!(kept.len(), 3);
    let unwanted = bench.cluster.submit("unwanted", 2).await;
    bench.cluster.all_run(5, SOON).await;

    bench.agent.kill9();
    let deleted = bench.cluster.store.services().delete(&unwanted, None).await;
    deleted.expect("it is deleted");
    assert_eq!(bench.runs().await.len(), 5, "nobody is there to stop them");
    bench.restart().await;
    bench.cluster.containers.settle(3, SOON).await;
    assert_eq!(bench.runs().await, kept, "the same, never restarted");
}

#[tokio::test]
async fn sigterm_ends_the_agent_in_order_and_containers_go_on() {
    let mut bench = Bench::start(2, &[]).await;
    let kept = bench.runs().await;
    bench.agent.end_by("TERM").await;
    assert_eq!(bench.runs().await, kept);
    // What is submitted meanwhile waits: a node that has left is given nothing.
    let late = bench.cluster.submit("late", 1).await;
    bench.restart().await;
    bench.cluster.all_run(3, SOON).await;
    bench
        .cluster
        .store
        .services()
        .delete(&late, None)
        .await
        .expect("it is deleted");
    bench.cluster.containers.settle(2, SOON).await;
    assert_eq!(bench.runs().await, kept, "the same, never restarted");
}

#[tokio::test]
async fn a_container_removed_behind_its_back_is_made_again() {
    let bench = Bench::start(2, &[]).await;
    let before = bench.runs().await;
    let removed = before.keys().next().expect("a container").trim_matches('"');
    docker(&["rm", "-f", removed]);
    eventually(Duration::from_secs(15), "it is made again", async || {
        let now = bench.runs().await;
        let has_it = now.keys().any(|id| id.contains(removed));
        if now.len() == 2 && !has_it {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    bench.cluster.all_run(2, SOON).await;
}
