//! Stops of real containers: the signal, the grace, and only then the kill.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kubeleet::model::{PodId, ServiceSpec, Span};
use kubeleet::store::{Submit, SubmitMode};

use crate::harness::{Cluster, IMAGE, LEET, SOON, Timing, build_images, run};
use crate::support::{RedisServer, eventually};

/// The grace of what ends by itself after [`ENDS_AFTER`].
const LONG: Duration = Duration::from_secs(6);
const ENDS_AFTER: Duration = Duration::from_secs(3);
/// The grace of what does not listen.
const SHORT: Duration = Duration::from_secs(2);

/// Submits a service of one pod that runs a script.
async fn submit(cluster: &Cluster, name: &str, script: &str, grace: Duration) {
    let mut spec = ServiceSpec::new(name, IMAGE);
    spec.command = ["sh", "-c", script].map(str::to_owned).to_vec();
    spec.stop.grace = Some(Span(grace));
    let submission = PodId::new_submission();
    let submit = Submit {
        spec: &spec,
        submission: &submission,
        idempotency: None,
        mode: SubmitMode::Create,
    };
    let submitted = cluster.store.services().submit(&submit).await;
    submitted.expect("it is submitted");
}

/// How a container ends: `docker wait` prints its exit code.
async fn end_of(container: &str) -> (Duration, String) {
    let begun = Instant::now();
    let words = ["-c", "docker wait \"$0\" 2>&1", container];
    let waiting = Command::new("sh")
        .args(words)
        .stdout(Stdio::piped())
        .spawn();
    let waiting = waiting.expect("a shell");
    let ended = tokio::task::spawn_blocking(move || -> Output {
        waiting.wait_with_output().expect("it ends")
    });
    let output = ended.await.expect("no panic");
    let code = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (begun.elapsed(), code)
}

#[tokio::test]
async fn leet_rm_lets_containers_end_within_their_grace() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let _agent = cluster.agent("worker1", &[]).await;
    let _scheduler = cluster.scheduler();
    let (_api, address) = cluster.api().await;
    let slow = format!(
        "trap 'sleep {}; exit 5' TERM; while :; do sleep 0.1; done",
        ENDS_AFTER.as_secs()
    );
    submit(&cluster, "slow", &slow, LONG).await;
    submit(
        &cluster,
        "deaf",
        "trap '' TERM; while :; do sleep 1; done",
        SHORT,
    )
    .await;
    let pods = cluster.all_run(2, SOON).await;
    let container = |name: &str| {
        let pod = pods.iter().find(|pod| pod.name == name).expect("its pod");
        pod.container.clone().expect("its container")
    };
    let (slow, deaf) = (container("slow"), container("deaf"));
    let url = format!("http://{address}");
    let remove = async {
        // Whoever waits for the ends is there by then.
        tokio::task::yield_now().await;
        for name in ["slow", "deaf"] {
            run(Command::new(LEET).args(["--api", &url, "rm", name]));
        }
    };
    let (slow, deaf, ()) = tokio::join!(end_of(&slow), end_of(&deaf), remove);
    assert_eq!(slow.1, "5", "it ended by itself, {:?}", slow.0);
    assert!(
        slow.0 >= ENDS_AFTER && slow.0 < LONG + SHORT,
        "{:?}",
        slow.0
    );
    assert_eq!(deaf.1, "137", "it was killed, {:?}", deaf.0);
    assert!(deaf.0 >= SHORT && deaf.0 < SHORT + LONG, "{:?}", deaf.0);
    cluster.containers.settle(0, SOON).await;
    eventually(SOON, "nothing is left", async || {
        match cluster.pods().await.len() {
            0 => Ok(()),
            left => Err(format!("{left} pods")),
        }
    })
    .await;
}
