//! Who goes first: priorities, ranks within, no starving, and who makes room for whom.

use kubeleet::model::{Priority, ServiceSpec};

use crate::cluster::{Cluster, beat, pod, spec};

fn of(name: &str, replicas: u32, priority: Priority, rank: u16) -> ServiceSpec {
    ServiceSpec {
        priority,
        rank,
        ..spec(name, replicas)
    }
}

/// Ids of a claim of so many, by the name of their service.
async fn claimed(cluster: &Cluster, max: usize) -> Vec<String> {
    let claim = cluster.claim(max).await;
    let mut services = Vec::new();
    for waiting in &claim.pods {
        let owner = cluster.field(&format!("pod:{}", waiting.id), "owner").await;
        services.push(owner.trim_start_matches("service:default/").to_owned());
    }
    services
}

#[tokio::test]
async fn ranks_go_first_within_their_priority() {
    let cluster = Cluster::new().await;
    for (name, priority, rank) in [
        ("plain", Priority::Normal, 0),
        ("some", Priority::Normal, 5),
        ("more", Priority::Normal, 900),
        ("low", Priority::Low, 999),
        ("high", Priority::High, 0),
        ("higher", Priority::High, 1),
    ] {
        cluster.submit(&of(name, 1, priority, rank)).await;
    }
    assert_eq!(claimed(&cluster, 2).await, ["higher", "high"]);
    assert_eq!(claimed(&cluster, 1).await, ["more"]);
    assert_eq!(claimed(&cluster, 9).await, ["some", "plain", "low"]);
    assert_eq!(claimed(&cluster, 9).await, [""; 0], "each is claimed once");
}

#[tokio::test]
async fn what_is_given_back_keeps_its_rank() {
    let cluster = Cluster::new().await;
    cluster.submit(&of("web", 1, Priority::Normal, 7)).await;
    let claim = cluster.claim(5).await;
    cluster.submit(&of("plain", 3, Priority::Normal, 0)).await;
    assert_eq!(cluster.assign(&claim, "nowhere", &[]).await, (0, 1));
    assert_eq!(claimed(&cluster, 1).await, ["web"]);
}

#[tokio::test]
async fn lower_priorities_get_on_however_much_of_a_higher_one_waits() {
    let cluster = Cluster::new().await;
    cluster.submit(&of("low", 30, Priority::Low, 0)).await;
    cluster.submit(&of("normal", 30, Priority::Normal, 0)).await;
    cluster.submit(&of("high", 400, Priority::High, 3)).await;
    let services = claimed(&cluster, 100).await;
    let count = |name: &str| services.iter().filter(|service| *service == name).count();
    assert_eq!((count("high"), count("normal"), count("low")), (88, 10, 2));
    // What nobody else needs they do not keep.
    cluster.claim(500).await;
    assert_eq!(cluster.claim(500).await.pods.len(), 0);
}

#[tokio::test]
async fn lower_pods_make_room_in_their_grace_and_once() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let mut kept = of("kept", 1, Priority::Low, 0);
    kept.preemptible = false;
    cluster.submit(&kept).await;
    cluster.submit(&of("low", 2, Priority::Low, 3)).await;
    cluster.submit(&of("same", 1, Priority::High, 5)).await;
    cluster
        .push(
            "sq",
            br#"{"name":"hand","uuid":"hand","image":"i","priority":"low"}"#,
        )
        .await;
    cluster.place("n").await;
    cluster.submit(&of("high", 1, Priority::High, 5)).await;
    let queue = cluster.store.queue();
    let lower = queue.lower("n", 3005).await.unwrap();
    assert_eq!(
        lower.iter().map(|pod| pod.standing).collect::<Vec<_>>(),
        [1003, 1003]
    );
    assert_eq!(queue.lower("n", 1003).await.unwrap(), []);

    let ids: Vec<String> = cluster.ask("ZRANGE @service:default/high:pods 0 -1").await;
    let high = pod(&ids[0]);
    let one: Vec<_> = lower.iter().take(1).collect();
    assert!(
        !queue.preempt(&high, 1000, "n", &one).await.unwrap(),
        "it stands higher"
    );
    assert!(
        !queue.preempt(&high, 3005, "m", &one).await.unwrap(),
        "it is elsewhere"
    );
    assert!(queue.preempt(&high, 3005, "n", &one).await.unwrap());
    let key = format!("pod:{}", one[0].id);
    assert_eq!(cluster.field(&key, "desired").await, "stop");
    assert_eq!(
        cluster.field(&key, "phase").await,
        "scheduled",
        "its agent stops it"
    );
    let why = format!("it makes room for pod {high}, which stands higher");
    assert_eq!(cluster.field(&key, "reason").await, why);
    let other: Vec<_> = lower.iter().skip(1).collect();
    let again = queue.preempt(&high, 3005, "n", &other).await.unwrap();
    assert!(!again, "it waits for the room that is being made");
}
