//! What must never run twice ends with its node's lease, whoever is left to stop it.

use std::time::{Duration, Instant};

use kubeleet::model::service::OnNodeLoss;
use kubeleet::model::{Phase, ServiceKey};

use crate::harness::{CalmMachine, Cluster, Timing, build_images, docker};
use crate::support::{RedisServer, eventually};

/// Half of the real one: a busy machine must not miss a quarter of it.
const TIMING: Timing = Timing {
    interval: Duration::from_secs(2),
    lease: Duration::from_secs(10),
};
/// Longest wait for what follows the end of a lease.
const LIMIT: Duration = Duration::from_secs(20);

async fn running_in(cluster: &Cluster, container: &str) -> bool {
    let running = cluster.containers.running().await;
    running.iter().any(|it| it["Id"] == container)
}

/// What happens to an agent before it can stop anything itself.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Held,
    Killed,
}

async fn the_watchdog_fences(fate: Fate) {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, TIMING).await;
    let calm = CalmMachine::new();
    let run_dir = tempfile::tempdir().expect("a folder");
    let run = run_dir.path().display().to_string();
    let variables = [calm.variable(), ("KUBELEET_NODE__RUN_DIR", run.as_str())];
    let mut agent = cluster.agent("worker1", &variables).await;
    let _scheduler = cluster.scheduler();
    let fenced = submit(&cluster, "fenced", OnNodeLoss::StopThenReplace).await;
    let free = submit(&cluster, "free", OnNodeLoss::Replace).await;
    eventually(
        LIMIT,
        "the watchdog is there",
        async || match std::fs::read_to_string(run_dir.path().join("worker1.watchdog.log")) {
            Ok(log) if log.contains("watchdog is ready") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    )
    .await;
    let env = docker(&["inspect", "-f", "{{.Config.Env}}", &fenced]);
    assert!(env.contains("KUBELEET_FENCE="), "{env}");

    let since = Instant::now();
    match fate {
        Fate::Held => agent.signal("STOP"),
        Fate::Killed => agent.kill9(),
    }
    eventually(LIMIT, "it is stopped", async || {
        match running_in(&cluster, &fenced).await {
            true => Err("it runs".to_owned()),
            false => Ok(()),
        }
    })
    .await;
    assert!(
        since.elapsed() < TIMING.lease,
        "after {:?}",
        since.elapsed()
    );
    assert!(running_in(&cluster, &free).await, "nobody stops the others");

    // Back, it is started again on the same node: there is no other.
    let _next = match fate {
        Fate::Held => {
            agent.signal("CONT");
            None
        }
        Fate::Killed => Some(cluster.agent("worker1", &variables).await),
    };
    eventually(LIMIT, "both run", async || {
        let pods = cluster.pods().await;
        let running = pods.iter().filter(|pod| pod.phase == Phase::Running);
        let containers = cluster.containers.running().await.len();
        if running.count() == 2 && containers == 2 {
            Ok(())
        } else {
            Err(format!("{containers} run, {pods:?}"))
        }
    })
    .await;
    if fate == Fate::Killed {
        assert!(
            running_in(&cluster, &free).await,
            "the next agent took it up"
        );
    }
}

/// Submits a service of one pod; the id of its container.
async fn submit(cluster: &Cluster, name: &str, what: OnNodeLoss) -> String {
    let service: ServiceKey = cluster
        .submit_spec(name, |spec| spec.on_node_loss = what)
        .await;
    eventually(LIMIT, "it runs", async || {
        let pods = cluster.pods().await;
        let of = pods.iter().find(|pod| {
            pod.phase == Phase::Running && pod.service.as_deref() == Some(&service.to_string())
        });
        of.and_then(|pod| pod.container.clone())
            .ok_or_else(|| format!("{pods:?}"))
    })
    .await
}

#[tokio::test]
async fn a_watchdog_fences_for_an_agent_that_is_held() {
    the_watchdog_fences(Fate::Held).await;
}

#[tokio::test]
async fn a_watchdog_fences_for_an_agent_that_was_killed_and_the_next_one_goes_on() {
    the_watchdog_fences(Fate::Killed).await;
}
