//! What is done to containers behind the agent's back is put right within 15 seconds.

use std::time::{Duration, Instant};

use kubeleet::model::{Phase, Pod};
use serde_json::{Value, json};

use crate::by_hand::Worker;
use crate::harness::{IMAGE, docker};
use crate::support::eventually;

/// Longest time until it is put right.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn what_is_done_behind_its_back_is_put_right() {
    let worker = Worker::start().await;
    let foreign = docker(&["run", "-d", "--label", "kubeleet.pod=removed", IMAGE]);
    let stays = scopeguard(foreign.clone());
    let limits = json!({"resources": {"cpu": 0.25, "memory": "64Mi"}});
    for id in ["removed", "stopped", "killed", "paused", "updated"] {
        worker.push_with(id, limits.clone()).await;
    }
    worker.cluster.all_run(5, LIMIT).await;
    let mut before = std::collections::BTreeMap::new();
    for pod in worker.cluster.pods().await {
        let container = pod.container.clone().expect("its container");
        before.insert(pod.name.clone(), container);
    }
    let begun = Instant::now();
    docker(&["rm", "-f", &before["removed"]]);
    docker(&["stop", &before["stopped"]]);
    docker(&["kill", &before["killed"]]);
    docker(&["pause", &before["paused"]]);
    let (id, more) = (&before["updated"], "128m");
    docker(&[
        "update",
        "--cpus=1",
        "--memory",
        more,
        "--memory-swap",
        more,
        "--restart=always",
        id,
    ]);

    // A copy of one of them, labels and all.
    let copied = copy(&worker.cluster.containers.all().await, &before["paused"]);

    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    for id in ["stopped", "killed"] {
        let pod = worker.cluster.pod_is(id, "running again", again).await;
        assert_eq!(pod.container.as_ref(), Some(&before[id]));
    }
    let new = |pod: &Pod| pod.container.as_ref() != Some(&before["removed"]);
    worker.cluster.pod_is("removed", "made again", new).await;
    eventually(LIMIT, "all are as they were made", async || {
        let mut all = worker.cluster.containers.all().await;
        all.retain(|one| one["Id"] != copied.as_str());
        let wrong: Vec<&Value> = all.iter().filter(|one| !is_as_made(one)).collect();
        if all.len() == 5 && wrong.is_empty() {
            Ok(())
        } else {
            let seen = |one: &&Value| format!("{} {}", one["State"], one["HostConfig"]["Memory"]);
            let wrong: Vec<String> = wrong.iter().map(seen).collect();
            Err(format!("{} containers, {wrong:?}", all.len()))
        }
    })
    .await;
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    worker.cluster.containers.settle(5, LIMIT).await; // nobody wants the copy
    let running = docker(&["inspect", "--format", "{{.State.Running}}", &foreign]);
    assert_eq!(running, "true", "it was not ours");
    drop(stays);
}

/// Runs another container with the labels of this one.
fn copy(all: &[Value], original: &str) -> String {
    let original = all.iter().find(|one| one["Id"] == original);
    let labels = &original.expect("it is there")["Config"]["Labels"];
    let mut words = vec!["run".to_owned(), "-d".to_owned()];
    for (key, value) in labels.as_object().expect("labels") {
        let label = format!("{key}={}", value.as_str().unwrap_or_default());
        words.extend(["--label".to_owned(), label]);
    }
    words.push(IMAGE.to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    docker(&words)
}

fn is_as_made(container: &Value) -> bool {
    let host = &container["HostConfig"];
    container["State"]["Running"] == true
        && container["State"]["Paused"] == false
        && host["NanoCpus"] == 250_000_000
        && host["Memory"] == 64 << 20
        && host["MemorySwap"] == 64 << 20
        && host["RestartPolicy"]["Name"] == "no"
}

/// Removes a container on drop.
struct Removed(String);

fn scopeguard(container: String) -> Removed {
    Removed(container)
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker")
            .args(["rm", "-f", &self.0])
            .output();
    }
}
