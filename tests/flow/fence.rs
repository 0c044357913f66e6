//! `on_node_loss`: what must never run twice ends with its node's lease, and what is held stays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kubeleet::model::service::OnNodeLoss;
use kubeleet::model::{NodeState, Phase, PodId, ServiceKey};
use kubeleet::settings::Secret;

use crate::support::cluster::{Cluster, SOON};
use crate::support::{eventually, shared_redis};

/// A way to Redis that one node alone uses, and that can be cut.
struct Way(String);

impl Way {
    async fn new() -> Way {
        let way = Way(format!("way-{}", PodId::new_submission()));
        way.set("on").await;
        way
    }

    async fn set(&self, state: &str) {
        let words = [
            "ACL", "SETUSER", &self.0, state, "nopass", "~*", "&*", "+@all",
        ];
        shared_redis().await.must(&words).await;
    }

    async fn url(&self) -> Secret {
        let port = shared_redis().await.port();
        Secret(format!("redis://{}:x@127.0.0.1:{port}", self.0))
    }

    async fn cut(&self) {
        self.set("off").await;
        let kill = ["CLIENT", "KILL", "USER", &self.0];
        shared_redis().await.must(&kill).await;
    }
}

/// `worker1` behind a way of its own, `worker2`, and a scheduler.
async fn cluster() -> (Cluster, Way) {
    let mut cluster = Cluster::empty().await;
    cluster.settings.scheduler.compare_interval = Duration::from_millis(500);
    let way = Way::new().await;
    let url = std::mem::replace(&mut cluster.settings.redis.url, way.url().await);
    cluster.add_node("worker1").await;
    cluster.settings.redis.url = url;
    cluster.add_scheduler();
    (cluster, way)
}

async fn service(cluster: &Cluster, name: &str, what: OnNodeLoss) -> (ServiceKey, PodId) {
    let service = cluster
        .submit_spec(name, 1, |spec| spec.on_node_loss = what)
        .await;
    let pods = cluster.all_in(&service, Phase::Running, 1).await;
    (service, pods[0].id.clone())
}

/// The pods of those containers of a node that run.
fn live(cluster: &Cluster, node: &str) -> BTreeSet<PodId> {
    let live = cluster.engine(node).live();
    live.into_iter().map(|container| container.pod).collect()
}

#[tokio::test]
async fn each_service_says_what_the_loss_of_its_node_means() {
    let (mut cluster, way) = cluster().await;
    let (_, replaced) = service(&cluster, "replaced", OnNodeLoss::Replace).await;
    let (fenced_service, fenced) = service(&cluster, "fenced", OnNodeLoss::StopThenReplace).await;
    let (held_service, held) = service(&cluster, "held", OnNodeLoss::Hold).await;
    cluster.add_node("worker2").await;
    let container_of = |cluster: &Cluster, pod: &PodId| {
        let live = cluster.engine("worker1").live();
        let found = live.into_iter().find(|container| container.pod == *pod);
        found.map(|container| container.id)
    };
    let held_container = container_of(&cluster, &held).expect("it runs");

    way.cut().await;
    let cut = Instant::now();
    let lease = cluster.settings.heartbeat.lease;
    let mut stopped_after = None;
    eventually(SOON, "two of them run elsewhere", async || {
        let (here, there) = (live(&cluster, "worker1"), live(&cluster, "worker2"));
        assert!(
            !(here.contains(&fenced) && there.contains(&fenced)),
            "two at once"
        );
        if !here.contains(&fenced) {
            stopped_after.get_or_insert_with(|| cut.elapsed());
        }
        if there == BTreeSet::from([fenced.clone(), replaced.clone()]) {
            return Ok(());
        }
        Err(format!("{here:?} {there:?}"))
    })
    .await;
    let stopped_after = stopped_after.expect("it was stopped");
    assert!(
        stopped_after < lease,
        "the node itself stopped it, after {stopped_after:?}"
    );
    assert_eq!(
        live(&cluster, "worker1"),
        BTreeSet::from([replaced.clone(), held.clone()]),
        "nobody stopped the others"
    );
    cluster.in_state("worker1", NodeState::Lost).await;
    let pod = cluster.pod(&held).await.expect("it is there");
    assert_eq!(
        (pod.phase, pod.node.as_deref(), pod.ready),
        (Phase::Running, Some("worker1"), false)
    );
    let reason = pod.reason.unwrap_or_default();
    assert!(reason.contains("worker1 was lost: held"), "{reason}");
    // A wish for it waits too: nobody knows whether it runs.
    cluster
        .apply("held", |spec| {
            spec.on_node_loss = OnNodeLoss::Hold;
            spec.env.insert("A".into(), "2".into());
        })
        .await;
    cluster
        .while_time_passes(lease / 2, || {
            let there = live(&cluster, "worker2");
            let expected = BTreeSet::from([fenced.clone(), replaced.clone()]);
            assert_eq!(there, expected, "held means held");
        })
        .await;

    way.set("on").await;
    cluster.ready("worker1").await;
    eventually(SOON, "the older double is gone", async || {
        match live(&cluster, "worker1").contains(&replaced) {
            true => Err("it runs on".to_owned()),
            false => Ok(()),
        }
    })
    .await;
    let pods = cluster.all_in(&fenced_service, Phase::Running, 1).await;
    assert_eq!(
        (pods[0].node.as_deref(), pods[0].attempt),
        (Some("worker2"), 2)
    );
    // Only now the new revision takes its place.
    eventually(SOON, "the held one is replaced in order", async || {
        let pods = cluster.pods(Some(&held_service)).await;
        match &pods[..] {
            [pod] if pod.id != held && pod.phase == Phase::Running => Ok(()),
            pods => Err(format!("{pods:?}")),
        }
    })
    .await;
    assert_ne!(container_of(&cluster, &held), Some(held_container));
    cluster.end().await;
}

#[tokio::test]
async fn what_is_held_is_given_up_by_whoever_removes_its_node() {
    let (mut cluster, way) = cluster().await;
    let (held_service, held) = service(&cluster, "held", OnNodeLoss::Hold).await;
    let (gone_service, _) = service(&cluster, "gone", OnNodeLoss::Hold).await;
    cluster.add_node("worker2").await;
    way.cut().await;
    cluster.in_state("worker1", NodeState::Lost).await;
    let deleted = cluster.store.services().delete(&gone_service, None).await;
    assert!(deleted.is_ok(), "{deleted:?}");
    let stopping = cluster.pods(Some(&gone_service)).await;
    assert_eq!(stopping.len(), 1, "nobody knows whether it runs");
    cluster.take_agent("worker1").kill();

    let lease = cluster.settings.heartbeat.lease;
    let removed = cluster.store.nodes().remove("worker1", lease, true).await;
    assert!(removed.is_ok(), "{removed:?}");
    let pods = cluster.all_in(&held_service, Phase::Running, 1).await;
    assert_eq!(
        (&pods[0].id, pods[0].node.as_deref()),
        (&held, Some("worker2"))
    );
    cluster.gone(&gone_service).await;
}

#[tokio::test]
async fn without_redis_only_what_must_never_run_twice_stops_and_it_comes_back() {
    let (mut cluster, way) = cluster().await;
    let (_, replaced) = service(&cluster, "replaced", OnNodeLoss::Replace).await;
    let (fenced_service, fenced) = service(&cluster, "fenced", OnNodeLoss::StopThenReplace).await;
    // Nobody sweeps: as if Redis itself were away.
    cluster.stop_schedulers().await;
    way.cut().await;
    eventually(SOON, "it stops", async || match live(&cluster, "worker1") {
        live if live == BTreeSet::from([replaced.clone()]) => Ok(()),
        live => Err(format!("{live:?}")),
    })
    .await;
    way.set("on").await;
    let pods = eventually(SOON, "it runs again", async || {
        match live(&cluster, "worker1").contains(&fenced) {
            true => Ok(cluster.pods(Some(&fenced_service)).await),
            false => Err("it does not".to_owned()),
        }
    })
    .await;
    assert_eq!((pods[0].attempt, pods[0].restarts), (1, 0), "{pods:?}");
    let starts = cluster.engine("worker1").counts().starts;
    assert_eq!(starts, 3, "the other was not touched");
    cluster.add_scheduler();
    cluster.end().await;
}

#[tokio::test]
async fn each_placement_is_told_a_higher_fence() {
    let (mut cluster, way) = cluster().await;
    let (service, pod) = service(&cluster, "web", OnNodeLoss::Replace).await;
    let fence = async |cluster: &Cluster| -> u64 {
        let key = cluster.key(&format!("pod:{pod}"));
        cluster.redis(&["HGET", &key, "fence"]).await
    };
    let first = fence(&cluster).await;
    cluster.add_node("worker2").await;
    way.cut().await;
    eventually(SOON, "it runs elsewhere", async || {
        match live(&cluster, "worker2").contains(&pod) {
            true => Ok(()),
            false => Err("not yet".to_owned()),
        }
    })
    .await;
    assert!(fence(&cluster).await > first);
    way.set("on").await;
    cluster.all_in(&service, Phase::Running, 1).await;
    cluster.end().await;
}
