//! Images from a registry: pulled, missing, and one that never comes.

use std::time::{Duration, Instant};

use kubeleet::model::Phase;
use tokio::net::TcpListener;

use crate::by_hand::Worker;
use crate::harness::{IMAGE, Registry, SOON, show};
use crate::support::eventually;

#[tokio::test]
async fn an_image_is_pulled_and_one_that_is_not_there_is_named() {
    let worker = Worker::start().await;
    let registry = Registry::start().await;
    let image = registry.push(IMAGE, "sample:1");

    let missing = format!("{}/nobody-made-this:1", registry.address);
    worker.push_pod("missing", &missing, &[]).await;
    worker
        .push_pod("pulled", &image.0, &["sleep", "1000"])
        .await;
    worker.cluster.pod_in("pulled", Phase::Running).await;
    let failed = worker.cluster.pod_in("missing", Phase::Failed).await;
    let reason = failed.reason.unwrap_or_default();
    assert!(reason.contains(&missing), "{reason}");
    let containers = worker.cluster.containers.settle(1, SOON).await;
    assert_eq!(containers[0]["Config"]["Image"], image.0);
    drop(worker); // the container holds the image
}

#[tokio::test]
async fn a_pull_that_hangs_delays_no_other_pod() {
    // Accepts by its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let image = format!("{}/x", silent.local_addr().expect("its address"));
    let worker = Worker::start().await;
    for number in 0..8 {
        worker
            .push_pod(&format!("hanging-{number}"), &image, &[])
            .await;
    }
    let reason = format!("pulling image {image}");
    eventually(SOON, "all wait for the image", async || {
        let pods = worker.cluster.pods().await;
        let waiting = |pod: &&kubeleet::model::Pod| pod.reason.as_deref() == Some(&reason);
        match pods.iter().filter(waiting).count() {
            8 => Ok(()),
            _ => Err(format!("{pods:?}")),
        }
    })
    .await;
    let pushed = Instant::now();
    worker.push_pod("next", IMAGE, &[]).await;
    worker.cluster.pod_in("next", Phase::Running).await;
    let took = pushed.elapsed();
    show(format_args!(
        "beside eight pulls that hang, from LPUSH to told running: {took:?}"
    ));
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}
