//! An agent that dies between any two steps, on Docker: after a restart every pod runs exactly once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kubeleet::model::{Phase, PodId};
use kubeleet::process::FAILPOINTS;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::process::Daemon;

const AGENT: &str = env!("CARGO_BIN_EXE_kubeleet");
const IMAGE: &str = "kubeleet/sample:smoke";
const REPLICAS: usize = 3;
/// Longest wait for what takes Docker about a second.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_agent_killed_at_any_step_loses_and_doubles_nothing() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-sample-image.sh");
    run(Command::new(script).arg(IMAGE));
    let mut walked = BTreeSet::new();
    let of_the_agent = |name: &&str| name.starts_with("agent.");
    for failpoint in FAILPOINTS.into_iter().filter(of_the_agent) {
        let mut cluster = Cluster::empty().await;
        // The agent is back long before its lease is over: what follows is all its own doing.
        cluster.settings.heartbeat.lease = Duration::from_secs(60);
        cluster.add_scheduler();
        let id: String = cluster
            .redis(&["HGET", &cluster.key("cluster"), "id"])
            .await;
        let containers = Containers(id);
        let node = format!("worker-{}", PodId::new_submission());

        let mut doomed = agent(&cluster, &node, &[("KUBELEET_FAILPOINT", failpoint)]);
        let image = |spec: &mut kubeleet::model::ServiceSpec| spec.image = IMAGE.into();
        let service = cluster.submit_spec("web", 3, image).await;
        let by_hand = format!(r#"{{"uuid":"by-hand","name":"a","image":"{IMAGE}"}}"#);
        cluster.push(&format!("pq:{node}"), &by_hand).await;
        doomed.aborted(LIMIT).await;
        let mut heir = agent(&cluster, &node, &[]);
        let pods = cluster.all_in_within(LIMIT, &service, Phase::Running, REPLICAS);
        let mut pods = pods.await;
        pods.push(
            cluster
                .pod_in(&PodId::parse("by-hand").unwrap(), Phase::Running)
                .await,
        );
        assert!(
            pods.iter().all(|pod| pod.attempt == 1),
            "{failpoint}: {pods:?}"
        );
        cluster.settled().await;
        assert_eq!(containers.pods(), names(&pods), "{failpoint}: each once");
        let lists = cluster.keys().await;
        let left = |key: &&String| key.starts_with("rq:") || key.starts_with("pq:");
        assert_eq!(lists.iter().find(left), None, "{failpoint}");

        // Containers outlive their agent's orderly end too, and go when they are not wanted.
        if failpoint == "agent.after_start" {
            heir.signal("TERM");
            let asked = Instant::now();
            assert!(heir.ended(LIMIT).await.success(), "{}", heir.log());
            assert!(asked.elapsed() < Duration::from_secs(10));
            assert_eq!(containers.pods(), names(&pods));
            let _heir = agent(&cluster, &node, &[]);
            cluster
                .store
                .services()
                .delete(&service, None)
                .await
                .unwrap();
            eventually(LIMIT, "only the one pushed by hand is left", async || {
                let left = containers.pods();
                if left == ["by-hand"] {
                    Ok(())
                } else {
                    Err(format!("{left:?}"))
                }
            })
            .await;
        }
        walked.insert(failpoint);
    }
    assert!(walked.len() >= 8, "{walked:?}");
}

fn agent(cluster: &Cluster, node: &str, more: &[(&str, &str)]) -> Daemon {
    let mut variables = vec![("KUBELEET_NODE__NAME", node)];
    variables.extend(more);
    cluster.daemon(AGENT, &variables)
}

fn names(pods: &[kubeleet::model::Pod]) -> Vec<String> {
    let mut names: Vec<String> = pods.iter().map(|pod| pod.id.to_string()).collect();
    names.sort();
    names
}

/// Docker's containers of one cluster, by its id; removed on drop.
struct Containers(String);

impl Containers {
    /// The pods of those that run, each as often as it has one.
    fn pods(&self) -> Vec<String> {
        let said = self.ps(&["--format", "{{.Label \"kubeleet.pod\"}}"]);
        let mut pods: Vec<String> = said.lines().map(str::to_owned).collect();
        pods.sort();
        pods
    }

    fn ps(&self, more: &[&str]) -> String {
        let label = format!("label=kubeleet.cluster={}", self.0);
        let arguments = ["ps", "--filter", &label];
        run(Command::new("docker").args(arguments).args(more))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for id in self.ps(&["-aq"]).lines() {
            // The engine may still be at the order of an agent that is gone: that is as good.
            let _ = Command::new("docker").args(["rm", "-f", "-v", id]).output();
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the program can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
