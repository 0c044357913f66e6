//! What nodes tell after the store was lost: which of two tales counts.

use kubeleet::model::{Phase, PodId, ServiceSpec, Token};
use kubeleet::store::{Beat, BeatOutcome, RestoredPod, RestoredService};

use crate::cluster::{Cluster, LEASE, beat, pod, service, spec};

/// A service `web` as a node tells it.
fn told(uid: &str, wish: u64, revision: u64, image: &str) -> RestoredService {
    RestoredService {
        service: service("web"),
        uid: uid.to_owned(),
        wish,
        replicas: 1,
        deleted: false,
        revision,
        spec: ServiceSpec::new("web", image),
        whole: true,
        pod: None,
    }
}

/// A running pod of it.
fn held(id: &str, uid: &str) -> RestoredPod {
    RestoredPod {
        id: pod(id),
        token: Token {
            attempt: 1,
            nonce: "n".into(),
        },
        phase: Phase::Running,
        replica: 0,
        service: Some(service("web")),
        uid: uid.to_owned(),
        revision: 1,
        spec: ServiceSpec::new("web", "an/image"),
        devices: Vec::new(),
        container: format!("container of {id}"),
        exit_code: None,
    }
}

async fn tell(cluster: &Cluster, service: &RestoredService) -> bool {
    let told = cluster.store.recovery().service(service).await;
    told.expect("Redis answers")
}

async fn tell_pods(cluster: &Cluster, node: &str, epoch: u64, pods: &[RestoredPod]) {
    let told = cluster.store.recovery().pods(node, epoch, pods).await;
    assert!(told.expect("Redis answers"), "{node} is known");
}

async fn pods_of_web(cluster: &Cluster) -> Vec<String> {
    cluster.ask("ZRANGE @service:default/web:pods 0 -1").await
}

async fn image_of_web(cluster: &Cluster) -> (u64, String) {
    let web = cluster.store.services().get(&service("web")).await;
    let (web, _) = web.expect("Redis answers").expect("it stands");
    (web.revision, web.spec.image)
}

#[tokio::test]
async fn pods_of_an_older_service_of_a_name_are_not_the_newer_ones() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    assert!(tell(&cluster, &told("a", 10, 1, "older")).await);
    tell_pods(&cluster, "n", epoch, &[held("a-0", "a")]).await;
    // One that ended stands in the index alone.
    let _: u64 = cluster
        .ask("HSET @pod:a-1 owner service:default/web phase failed desired run replica 1")
        .await;
    let _: u64 = cluster.ask("ZADD @service:default/web:pods 1 a-1").await;

    assert!(tell(&cluster, &told("b", 20, 1, "newer")).await);
    assert!(pods_of_web(&cluster).await.is_empty());
    assert_eq!(cluster.field("pod:a-0", "desired").await, "stop");
    assert_eq!(cluster.phase(&pod("a-1")).await, "stopped");
    // Its node may tell of the older one's pods only now.
    tell_pods(&cluster, "n", epoch, &[held("a-2", "a"), held("b-0", "b")]).await;
    assert_eq!(pods_of_web(&cluster).await, ["b-0"]);
    assert_eq!(cluster.phase(&pod("a-2")).await, "stopped");
    assert!(!tell(&cluster, &told("a", 10, 1, "older")).await);
    assert_eq!(image_of_web(&cluster).await, (1, "newer".to_owned()));
}

#[tokio::test]
async fn the_spec_that_runs_by_the_newest_wish_counts_where_a_number_was_given_twice() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    assert!(tell(&cluster, &told("a", 10, 2, "of the copy")).await);
    assert!(tell(&cluster, &told("a", 20, 1, "the first")).await);
    let labels = RestoredService {
        whole: false,
        ..told("a", 20, 2, "of labels")
    };
    assert!(tell(&cluster, &labels).await);
    assert_eq!(image_of_web(&cluster).await, (2, "of the copy".to_owned()));
    assert!(tell(&cluster, &told("a", 20, 2, "what runs")).await);
    assert_eq!(image_of_web(&cluster).await, (2, "what runs".to_owned()));
    assert!(tell(&cluster, &told("a", 10, 2, "of the copy")).await);
    assert_eq!(image_of_web(&cluster).await, (2, "what runs".to_owned()));
}

#[tokio::test]
async fn more_replicas_after_a_loss_are_no_second_pods_of_those_that_run() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let two = RestoredService {
        replicas: 2,
        ..told("a", 10, 1, "an/image")
    };
    assert!(tell(&cluster, &two).await);
    // What is left of four.
    let third = RestoredPod {
        replica: 2,
        ..held("a-2", "a")
    };
    tell_pods(&cluster, "n", epoch, &[held("a-0", "a"), third]).await;
    assert_eq!(pods_of_web(&cluster).await, ["a-0", "a-2"]);
    let services = cluster.store.services();
    let scaled = services.scale(&service("web"), 3, "b", None).await;
    assert!(scaled.is_ok(), "{scaled:?}");
    // The controller makes the one that is free.
    assert_eq!(pods_of_web(&cluster).await, ["a-0", "a-2"]);
}

#[tokio::test]
async fn a_recovery_waits_for_living_nodes_to_tell_but_not_for_ever() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let now = cluster.now_ms().await;
    let lost_ms = now - 18_000;
    let recovers = async |told, lost_ms: u64| {
        let until = now + 2_000;
        let guards = format!("lost_ms {lost_ms} recovery_ms 20000 recover_until_ms {until}");
        let _: u64 = cluster.ask(&format!("HSET @cluster {guards}")).await;
        let beat = Beat { told, ..beat(10) };
        match cluster.store.nodes().heartbeat("n", epoch, &beat).await {
            Ok(BeatOutcome::Renewed { cluster, .. }) => cluster.recovering.as_secs(),
            other => panic!("{other:?}"),
        }
    };
    assert!(recovers(Some(lost_ms), lost_ms).await <= 2, "it has told");
    assert!(
        recovers(None, lost_ms).await <= 2,
        "an older agent says nothing"
    );
    assert!(
        recovers(Some(0), lost_ms).await >= 8,
        "half a recovery more"
    );
    let long_ago = now - 57_000;
    assert!(
        recovers(Some(0), long_ago).await <= 3,
        "three recoveries are enough"
    );
}

#[tokio::test]
async fn the_newest_deletion_counts() {
    let cluster = Cluster::new().await;
    for wish in [20, 10] {
        let deleted = RestoredService {
            deleted: true,
            ..told("b", wish, 1, "")
        };
        assert!(!tell(&cluster, &deleted).await);
    }
    assert!(!tell(&cluster, &told("b", 15, 1, "an/image")).await);
    let web = cluster.store.services().get(&service("web")).await;
    assert_eq!(web.unwrap(), None);
}

#[tokio::test]
async fn a_service_out_of_the_list_is_back_when_its_last_pod_leaves_its_node() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let ids: Vec<PodId> = cluster.submit(&spec("web", 1)).await;
    cluster.place("n").await;
    cluster.control().await;
    let _: u64 = cluster.ask("ZREM @services default/web").await;
    cluster.end_grace().await;
    cluster.age("n", crate::cluster::LONG).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await;
    swept.expect("a sweep");
    assert_eq!(cluster.phase(&ids[0]).await, "waiting");
    let listed: Vec<String> = cluster.ask("ZRANGE @services 0 -1").await;
    assert_eq!(listed, ["default/web"]);
}
