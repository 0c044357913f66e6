//! Services: submit, split in steps, scale, delete, their counters, and a Redis that is full.

use std::time::Duration;

use kubeleet::model::{Phase, PodId, ServiceSpec};
use kubeleet::store::{
    BeatOutcome, Idempotency, ReportOutcome, ScaleOutcome, Submit, SubmitOutcome,
};

use crate::cluster::{Cluster, LEASE, MIB, asking, beat, service, spec};
use crate::support::RedisServer;

pub(crate) async fn try_submit(
    cluster: &Cluster,
    spec: &ServiceSpec,
    submission: &str,
    idempotency: Option<Idempotency>,
) -> SubmitOutcome {
    let submit = Submit {
        spec,
        submission,
        idempotency,
        mode: kubeleet::store::SubmitMode::Create,
    };
    cluster
        .store
        .services()
        .submit(&submit)
        .await
        .expect("an answer")
}

async fn digest(cluster: &Cluster) -> String {
    cluster.ask("DEBUG DIGEST").await
}

/// Pods of the index, by replica.
pub(crate) async fn index(cluster: &Cluster, name: &str) -> Vec<String> {
    let key = format!("ZRANGE @service:default/{name}:pods 0 -1");
    cluster.ask(&key).await
}

#[tokio::test]
async fn a_submit_makes_pods_queue_entries_and_the_index_at_once() {
    let cluster = Cluster::new().await;
    let spec = asking("web", 3, 500, 64 * MIB);
    let outcome = try_submit(&cluster, &spec, "sub", None).await;
    let SubmitOutcome::Created {
        revision: 1,
        created_ms,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    let ids = ["sub-0", "sub-1", "sub-2"];
    assert_eq!(index(&cluster, "web").await, ids);
    assert_eq!(cluster.served("sq").await, ids);
    let key = PodId::of_submission("sub", 2);
    let pod = cluster.store.pods().get(&key).await.unwrap().unwrap();
    assert_eq!((pod.replica, pod.revision, pod.attempt), (2, 1, 0));
    assert_eq!(
        (pod.phase, pod.service.as_deref()),
        (Phase::Waiting, Some("default/web"))
    );
    assert_eq!(
        (pod.image.as_deref(), pod.created_ms),
        (Some("an/image"), created_ms)
    );
    let (shown, count) = cluster
        .store
        .services()
        .get(&spec.key())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((shown.replicas, count), (3, 0));
    // The stored spec is what pods share: their number is a wish of its own.
    assert_eq!(
        shown.spec,
        ServiceSpec {
            replicas: 1,
            ..spec
        }
    );
    let due: u64 = cluster.ask("EXISTS @services:changed").await;
    assert_eq!(due, 0, "nothing is left for a controller");
}

#[tokio::test]
async fn a_submit_again_makes_nothing_new() {
    let cluster = Cluster::new().await;
    let web = spec("web", 2);
    let first = try_submit(&cluster, &web, "sub", None).await;
    assert_eq!(
        try_submit(&cluster, &web, "sub", None).await,
        first,
        "an answer was missed"
    );
    let again = try_submit(&cluster, &web, "other", None).await;
    assert!(
        matches!(again, SubmitOutcome::Exists { revision: 1, .. }),
        "{again:?}"
    );
    let other = ServiceSpec {
        image: "another".into(),
        ..web.clone()
    };
    assert_eq!(
        try_submit(&cluster, &other, "third", None).await,
        SubmitOutcome::Conflict
    );
    assert_eq!(
        try_submit(&cluster, &spec("web", 3), "sub", None).await,
        SubmitOutcome::Conflict
    );
    assert_eq!(cluster.served("sq").await, ["sub-0", "sub-1"]);
    assert_eq!(index(&cluster, "web").await, ["sub-0", "sub-1"]);
}

#[tokio::test]
async fn an_idempotency_key_answers_as_it_did_and_stands_for_one_request() {
    let cluster = Cluster::new().await;
    let with = |key: &str, request: &str| {
        Some(Idempotency {
            key: key.into(),
            request: request.into(),
            ttl: Duration::from_secs(60),
        })
    };
    let web = spec("web", 1);
    let SubmitOutcome::Created { created_ms, .. } =
        try_submit(&cluster, &web, "sub", with("k", "hash")).await
    else {
        panic!("it is new");
    };
    let repeated = try_submit(&cluster, &web, "other", with("k", "hash")).await;
    let wanted = SubmitOutcome::Repeated {
        submission: "sub".into(),
        revision: 1,
        created_ms,
    };
    assert_eq!(repeated, wanted);
    let reused = try_submit(&cluster, &spec("db", 1), "x", with("k", "another")).await;
    assert_eq!(reused, SubmitOutcome::KeyReused);
    let left: u64 = cluster.ask("PTTL @idempotency:default:k").await;
    assert!((50_000..=60_000).contains(&left), "{left}");
    // What was refused is not remembered.
    assert_eq!(
        try_submit(&cluster, &spec("web", 2), "y", with("c", "h")).await,
        SubmitOutcome::Conflict
    );
    let remembered: u64 = cluster.ask("EXISTS @idempotency:default:c").await;
    assert_eq!(remembered, 0);
    assert_eq!(cluster.served("sq").await, ["sub-0"]);
}

/// The first call of a submit whose caller then dies.
async fn begin(cluster: &Cluster, spec: &ServiceSpec) {
    let (key, service, replicas) = (
        format!("{}cluster", cluster.prefix),
        spec.key().to_string(),
        spec.replicas.to_string(),
    );
    let stored = spec.to_stored();
    let words: [&str; 20] = [
        "FCALL",
        "kl_service_submit",
        "1",
        &key,
        &service,
        &stored,
        &replicas,
        "sub",
        "0",
        "0",
        "normal",
        "500",
        "",
        "",
        "0",
        "",
        "",
        "",
        "create",
        "",
    ];
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let _: Vec<String> = cluster.send(&words).await;
}

#[tokio::test]
async fn a_split_that_was_interrupted_is_found_and_carried_on() {
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    let spec = spec("big", 2300);
    begin(&cluster, &spec).await;
    let waiting: u64 = cluster.ask("LLEN @sq").await;
    assert_eq!(waiting, 500);
    let wishes = cluster.store.wishes();
    let due = wishes.claim(10, LEASE).await.unwrap();
    assert!(due.is_empty(), "its API may be at work still: {due:?}");
    let _: u64 = cluster.ask("ZADD @services:changed 1 default/big").await;
    cluster.control().await;
    assert_eq!(index(&cluster, "big").await.len(), 2300);
    let served = cluster.served("sq").await;
    let wanted: Vec<String> = (0..2300).map(|replica| format!("sub-{replica}")).collect();
    assert_eq!(served, wanted);
    let _: u64 = cluster.ask("ZADD @services:changed 1 default/big").await;
    cluster.control().await;
    let due: u64 = cluster.ask("EXISTS @services:changed").await;
    assert_eq!(due, 0, "all is as wanted");
    // Asked again, it answers as if it had been whole.
    let again = try_submit(&cluster, &spec, "sub", None).await;
    assert!(matches!(again, SubmitOutcome::Created { .. }), "{again:?}");
    assert_eq!(cluster.served("sq").await.len(), 2300);
}

#[tokio::test]
async fn a_service_deleted_while_it_is_half_split_leaves_nothing() {
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    let spec = spec("big", 2300);
    begin(&cluster, &spec).await;
    let deleted = cluster
        .store
        .services()
        .delete(&spec.key(), None)
        .await
        .unwrap();
    assert_eq!(deleted, ScaleOutcome::Done);
    assert!(
        cluster
            .store
            .services()
            .get(&spec.key())
            .await
            .unwrap()
            .is_none()
    );
    let left: u64 = cluster
        .ask("EXISTS @services @services:changed @service:default/big @service:default/big:pods")
        .await;
    assert_eq!(left, 0);
    assert!(cluster.claim(1000).await.pods.is_empty());
    cluster.store.services().split(&spec.key()).await.unwrap();
    let absent = cluster
        .store
        .services()
        .delete(&spec.key(), None)
        .await
        .unwrap();
    assert_eq!(absent, ScaleOutcome::Absent);
}

#[tokio::test]
async fn a_full_redis_refuses_creations_and_changes_nothing_but_nodes_live_on() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    cluster.store.open().await.unwrap();
    let epoch = cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    cluster.submit(&spec("waits", 1)).await;
    let _: String = cluster.ask("CONFIG SET maxmemory 1").await;
    let before = digest(&cluster).await;
    let services = cluster.store.services();
    let new = spec("new", 1);
    let submit = Submit {
        spec: &new,
        submission: "sub",
        idempotency: None,
        mode: kubeleet::store::SubmitMode::Create,
    };
    let error = services.submit(&submit).await.unwrap_err();
    assert!(error.is_full(), "{error:?}");
    assert!(
        services
            .scale(&service("web"), 3, "more", None)
            .await
            .unwrap_err()
            .is_full()
    );
    let claim = cluster.store.queue().claim(LEASE, 10).await.unwrap_err();
    assert!(claim.is_full(), "{claim:?}");
    assert_eq!(digest(&cluster).await, before);

    let renewed = cluster
        .store
        .nodes()
        .heartbeat("n", epoch, &beat(10))
        .await
        .unwrap();
    assert!(
        matches!(renewed, BeatOutcome::Renewed { .. }),
        "{renewed:?}"
    );
    let reported = cluster.report("n", epoch, &ids[0], Phase::Running).await;
    assert_eq!(reported, ReportOutcome::Ok);
    cluster.take("n", epoch, &[&ids[1]]).await;
    assert_eq!(
        services.delete(&service("web"), None).await.unwrap(),
        ScaleOutcome::Done
    );
    for id in &ids {
        cluster.report("n", epoch, id, Phase::Stopped).await;
    }
    assert!(services.get(&service("web")).await.unwrap().is_none());
    let _: String = cluster.ask("CONFIG SET maxmemory 0").await;
    cluster.submit(&new).await;
}
