//! Stops: each container has its grace, and none waits for another's.

use std::time::{Duration, Instant};

use kubeleet::container::ContainerState;
use kubeleet::model::{Phase, ServiceSpec, Span};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

fn grace(time: Duration) -> impl FnOnce(&mut ServiceSpec) {
    move |spec| spec.stop.grace = Some(Span(time))
}

#[tokio::test]
async fn long_graces_delay_no_other_stop() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.node.pods_max = 500;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let engine = cluster.engine("worker1").clone();
    let slow = cluster
        .submit_spec("slow", 200, grace(Duration::from_secs(30)))
        .await;
    cluster.all_in(&slow, Phase::Running, 200).await;
    engine.set_end_time(Duration::from_secs(5));
    let asked = Instant::now();
    cluster.store.services().delete(&slow, None).await.unwrap();
    eventually(SOON, "all are asked to end", async || {
        match engine.counts().stops_begun {
            200 => Ok(()),
            begun => Err(format!("{begun}")),
        }
    })
    .await;
    let begun = asked.elapsed();
    assert!(begun < Duration::from_secs(5), "the last after {begun:?}");
    cluster.gone(&slow).await;
    cluster.containers_are(0).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_container_is_killed_after_its_grace_and_not_before() {
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine("worker1").clone();
    let service = cluster
        .submit_spec("deaf", 2, grace(Duration::from_secs(2)))
        .await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;
    engine.set_end_time(Duration::from_secs(3600));
    let asked = Instant::now();
    cluster.scale(&service, 1).await;
    let of_it = |container: &kubeleet::container::Container| container.pod == pods[1].id;
    eventually(SOON, "it has ended", async || {
        let live = engine.live();
        if live.iter().any(of_it) {
            Err(format!("{:?}", asked.elapsed()))
        } else {
            Ok(())
        }
    })
    .await;
    let ended = asked.elapsed();
    assert!(ended >= Duration::from_secs(2), "killed after {ended:?}");
    assert!(ended < Duration::from_secs(4), "killed after {ended:?}");
    cluster.containers_are(1).await;
    cluster.end().await;
}

#[tokio::test]
async fn an_agent_restarted_in_the_midst_of_a_stop_goes_on_gracefully() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.stop_grace = Duration::ZERO; // the spec says otherwise
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let engine = cluster.engine("worker1").clone();
    let service = cluster
        .submit_spec("web", 1, grace(Duration::from_secs(30)))
        .await;
    cluster.all_in(&service, Phase::Running, 1).await;
    engine.set_end_time(Duration::from_secs(2));
    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    let begun = async |count: u64| {
        eventually(SOON, "it is asked to end", async || {
            match engine.counts().stops_begun {
                stops if stops >= count => Ok(()),
                stops => Err(format!("{stops}")),
            }
        })
        .await;
    };
    begun(1).await;
    cluster.take_agent("worker1").kill();
    cluster.start_agent("worker1");
    begun(2).await;
    let asked_again = Instant::now();
    let running = || {
        let all = engine.containers();
        all.first()
            .is_some_and(|it| it.state == ContainerState::Running)
    };
    assert!(running(), "nobody killed it");
    cluster.gone(&service).await;
    assert!(asked_again.elapsed() > Duration::from_secs(1));
    cluster.end().await;
}
