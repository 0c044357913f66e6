//! Decisions: which are kept, within which bounds, and which pods are told.

use kubeleet::model::{Decision, PodId, Strategy};

use crate::cluster::{Cluster, beat, spec};

fn decision(id: &str, time_ms: u64) -> Decision {
    let json = serde_json::json!({
        "id": id, "time_ms": time_ms, "batch": "batch", "strategy": Strategy::Pressure,
        "weights": {"pods": 0.1}, "lease_ms": 20_000, "pods_all": 1, "pods": [], "kinds": [],
        "nodes_all": 1, "whole": true, "nodes": [{"node": {"name": "n"}}],
    });
    serde_json::from_value(json).expect("a decision")
}

/// Keeps a record of so many bytes, of at most so many records and bytes.
async fn keep(cluster: &Cluster, id: &str, bytes: usize, count_max: usize, bytes_max: usize) {
    let record = "x".repeat(bytes);
    let line =
        format!("FCALL kl_decision_keep 1 @cluster {id} {record} {count_max} {bytes_max} 60");
    let answer: Vec<String> = cluster.ask(&line).await;
    assert_eq!(answer, ["kept"]);
}

/// The ids that are kept, each of which has its record, and no other has one.
async fn kept(cluster: &Cluster, all: &[&str]) -> Vec<String> {
    let ids: Vec<String> = cluster.ask("ZRANGE @decisions 0 -1").await;
    for id in all {
        let there: bool = cluster.ask(&format!("EXISTS @decision:{id}")).await;
        assert_eq!(there, ids.iter().any(|kept| kept == id), "{id} of {ids:?}");
    }
    ids
}

#[tokio::test]
async fn the_oldest_are_dropped_beyond_either_bound() {
    let cluster = Cluster::new().await;
    let all = ["a", "b", "c", "d", "e", "f", "g"];
    for id in &all[..5] {
        keep(&cluster, id, 10, 3, 1000).await;
    }
    assert_eq!(kept(&cluster, &all).await, ["c", "d", "e"]);
    keep(&cluster, "f", 70, 9, 100).await;
    assert_eq!(
        kept(&cluster, &all).await,
        ["c", "d", "e", "f"],
        "100 bytes"
    );
    keep(&cluster, "g", 10, 9, 100).await;
    assert_eq!(
        kept(&cluster, &all).await,
        ["d", "e", "f", "g"],
        "100 bytes, and c would be more"
    );
    keep(&cluster, "g", 1, 2, 100).await;
    assert_eq!(kept(&cluster, &all).await, ["f", "g"]);
    for key in ["decisions", "decision:g"] {
        let ttl: i64 = cluster.ask(&format!("TTL @{key}")).await;
        assert!((1..=60).contains(&ttl), "{key}: {ttl}");
    }
    // What lies there by hand makes way.
    let _: String = cluster.ask("SET @decisions x").await;
    let _: u64 = cluster.ask("SADD @decision:a x").await;
    keep(&cluster, "a", 5, 2, 100).await;
    assert_eq!(kept(&cluster, &["a"]).await, ["a"]);
}

#[tokio::test]
async fn the_newest_come_first_and_what_is_no_record_is_left_out() {
    let cluster = Cluster::new().await;
    let decisions = cluster.store.decisions();
    for (id, time_ms) in [("a", 1), ("b", 2), ("c", 3)] {
        decisions.keep(decision(id, time_ms), &[]).await.unwrap();
    }
    let newest = async |since, max| -> Vec<String> {
        let found = decisions.newest(since, max).await.unwrap();
        found.into_iter().map(|it| it.id).collect()
    };
    assert_eq!(newest(0, 100).await, ["c", "b", "a"]);
    assert_eq!(newest(0, 2).await, ["c", "b"]);
    assert_eq!(newest(2, 100).await, ["c", "b"]);
    assert_eq!(newest(4, 100).await, [""; 0]);
    let found = decisions.newest(3, 1).await.unwrap();
    assert_eq!(found, [decision("c", 3)], "it reads back the same");
    let _: String = cluster.ask("SET @decision:b rubbish").await;
    assert_eq!(newest(0, 2).await, ["c", "a"]);
}

#[tokio::test]
async fn a_pod_leads_to_its_decision() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    let decisions = cluster.store.decisions();
    let of = async |pod: &PodId| decisions.of_pod(pod).await.unwrap();
    let ids = cluster.submit(&spec("web", 2)).await;
    let claim = cluster.claim(1).await;
    assert_eq!(of(&ids[0]).await.id, None, "not tried yet");
    cluster.park(&claim.batch, &ids[0], "full").await;
    decisions
        .keep(decision("first", 1), &ids[..1])
        .await
        .unwrap();
    let found = of(&ids[0]).await;
    assert_eq!(found.decision, Some(decision("first", 1)));

    let claim = cluster.claim(1).await;
    cluster.assign(&claim, "n", &ids[1..]).await;
    let found = of(&ids[1]).await;
    assert_eq!((found.id.as_deref(), found.decision), (Some("nonce"), None));
    // Who is placed meanwhile is not told that it waits by an older one.
    let both = decisions.keep(decision("nonce", 2), &ids).await;
    both.unwrap();
    assert_eq!(of(&ids[0]).await.id.as_deref(), Some("nonce"));
    assert_eq!(
        cluster.field(&format!("pod:{}", ids[1]), "decision").await,
        ""
    );
    assert_eq!(of(&ids[1]).await.decision, Some(decision("nonce", 2)));
    let nobody = of(&PodId::parse("nobody").unwrap()).await;
    assert_eq!((nobody.id, nobody.by_hand), (None, false));
}
