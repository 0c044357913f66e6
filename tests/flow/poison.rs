//! Poison never blocks: what cannot be parsed or run is told of, and the next is served.

use std::time::Duration;

use kubeleet::model::{Phase, PodId};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

#[tokio::test]
async fn an_image_that_cannot_be_had_fails_its_pod_alone() {
    let cluster = Cluster::start(1).await;
    cluster.engine("worker1").deny_image("no/such:image");
    let bad = cluster
        .submit_spec("bad", 3, |spec| spec.image = "no/such:image".into())
        .await;
    let good = cluster.submit("good", 20).await;
    cluster.all_in(&good, Phase::Running, 20).await;
    for pod in cluster.all_in(&bad, Phase::Failed, 3).await {
        let reason = pod.reason.unwrap();
        assert!(reason.contains("no/such:image"), "{reason}");
        assert!(reason.contains("no registry has it"), "{reason}");
        assert_eq!(pod.exit_code, None);
    }
    assert_eq!(cluster.node("worker1").await.unwrap().pods, 20);
    cluster.end().await;
}

#[tokio::test]
async fn a_pull_that_hangs_delays_nobody() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.node.pods_max = 1000;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let engine = cluster.engine("worker1").clone();
    engine.hold_pulls();
    let slow = cluster
        .submit_spec("slow", 300, |spec| spec.image = "slow:image".into())
        .await;
    let slow_pods = cluster.all_in(&slow, Phase::Starting, 300).await;
    eventually(SOON, "each says what it waits for", async || {
        let pods = cluster.pods(Some(&slow)).await;
        let told = pods
            .iter()
            .filter(|pod| pod.reason.as_deref() == Some("pulling image slow:image"));
        let told = told.count();
        if told == 300 {
            Ok(())
        } else {
            Err(format!("{told} of 300"))
        }
    })
    .await;
    // Far fewer than wait: they must overtake all of them.
    let quick = cluster.submit("quick", 20).await;
    cluster
        .all_in_within(Duration::from_secs(5), &quick, Phase::Running, 20)
        .await;
    assert_eq!(engine.live().len(), 20);
    assert_eq!(slow_pods[0].attempt, 1);

    engine.release_pulls();
    let pods = cluster.all_in(&slow, Phase::Running, 300).await;
    assert!(pods.iter().all(|pod| pod.attempt == 1));
    assert_eq!(engine.counts().pulls, 1, "one pull for all");
    assert_eq!(engine.live().len(), 320);
    cluster.end().await;
}

#[tokio::test]
async fn a_pod_of_a_hanging_pull_can_be_stopped() {
    let cluster = Cluster::start(1).await;
    cluster.engine("worker1").hold_pulls();
    let slow = cluster
        .submit_spec("slow", 2, |spec| spec.image = "slow:image".into())
        .await;
    cluster.all_in(&slow, Phase::Starting, 2).await;
    cluster.store.services().delete(&slow, None).await.unwrap();
    cluster.gone(&slow).await; // while the pull still hangs
    assert_eq!(cluster.engine("worker1").counts().starts, 0);
    cluster.engine("worker1").release_pulls();
    cluster.end().await;
}

#[tokio::test]
async fn a_start_that_the_engine_refuses_is_tried_again_and_delays_nobody() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.restart_backoff = Duration::from_secs(2);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let engine = cluster.engine("worker1").clone();
    engine.fail_next_start("no space left on device");
    let service = cluster.submit("web", 5).await;
    let waits = eventually(SOON, "four run and one tells why it waits", async || {
        let pods = cluster.pods(Some(&service)).await;
        let running = pods.iter().filter(|pod| pod.phase == Phase::Running);
        let waiting: Vec<_> = pods
            .iter()
            .filter(|pod| pod.phase == Phase::Starting)
            .collect();
        match (running.count(), waiting.as_slice()) {
            (4, [pod]) if pod.reason.is_some() => Ok((*pod).clone()),
            _ => Err(format!("{pods:?}")),
        }
    })
    .await;
    let reason = waits.reason.unwrap_or_default();
    assert!(
        reason.contains("no space left on device; next try in 2s"),
        "{reason}"
    );
    assert_eq!(cluster.live().len(), 4);
    cluster.settled().await; // it holds no entry while it waits
    let pod = cluster.pod_in(&waits.id, Phase::Running).await;
    assert_eq!((pod.reason, pod.restarts), (None, 0));
    assert_eq!(engine.counts().creates, 5, "the same container");
    cluster.end().await;
}

#[tokio::test]
async fn starts_that_are_refused_again_and_again_fail_the_pod() {
    let mut cluster = Cluster::empty().await;
    cluster.settings.agent.restart_backoff = Duration::from_millis(10);
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    for _ in 0..5 {
        cluster.engine("worker1").fail_next_start("no space");
    }
    let service = cluster.submit("web", 1).await;
    let pod = cluster.all_in(&service, Phase::Failed, 1).await.remove(0);
    let reason = pod.reason.unwrap_or_default();
    assert!(reason.ends_with("no space"), "{reason}");
    assert_eq!(cluster.live(), []);
    assert_eq!(cluster.node("worker1").await.unwrap().pods, 0);
    cluster.end().await;
}

/// Entries that nobody can understand or run, and words of the reason each is given.
const POISON: [(&str, &str); 8] = [
    ("", "neither the id of a pod nor a JSON description"),
    (
        "{\"name\":",
        "neither the id of a pod nor a JSON description",
    ),
    ("[1,2,3]", "neither the id of a pod nor a JSON description"),
    ("{\"name\":\"a\",\"image\":\"b\"}", "uuid: is missing"),
    ("{\"uuid\":\"poison-1\",\"name\":\"a\"}", "image"),
    (
        "{\"uuid\":\"poison-2\",\"name\":\"A B\",\"image\":\"b\"}",
        "name",
    ),
    (
        "{\"uuid\":\"poison-3\",\"name\":\"a\",\"image\":\"b\",\"replica\":-1}",
        "replica",
    ),
    (
        "{\"uuid\":\"poison-4\",\"name\":\"a\",\"image\":\"b\",\"colour\":\"red\"}",
        "colour",
    ),
];

#[tokio::test]
async fn rubbish_on_the_queue_becomes_dead_letters() {
    rubbish_becomes_dead_letters("sq").await;
}

#[tokio::test]
async fn rubbish_on_a_nodes_list_becomes_dead_letters() {
    rubbish_becomes_dead_letters("pq:worker1").await;
}

async fn rubbish_becomes_dead_letters(list: &str) {
    let cluster = Cluster::start(1).await;
    for (entry, _) in POISON {
        cluster.push(list, entry).await;
    }
    let good = r#"{"uuid":"after-the-poison","name":"a","image":"spaster/alpine-sleep"}"#;
    cluster.push(list, good).await;
    let id = PodId::parse("after-the-poison").unwrap();
    let pod = cluster.pod_in(&id, Phase::Running).await;
    cluster.assert_exactly_once(&[pod]);

    let letters = cluster.dead_are(POISON.len()).await;
    let (seconds, _): (u64, u64) = cluster.redis(&["TIME"]).await;
    for (entry, words) in POISON {
        let letter = letters.iter().find(|letter| letter.entry == entry);
        let letter = letter.unwrap_or_else(|| panic!("{entry:?} is not in {letters:?}"));
        assert_eq!(letter.r#where, list);
        assert!(letter.why.contains(words), "{letter:?}");
        assert!(letter.when_ms / 1000 + 60 > seconds, "{letter:?}");
    }
    cluster.settled_but_dead().await;
}

#[tokio::test]
async fn ids_of_no_pod_become_dead_letters() {
    let cluster = Cluster::start(1).await;
    cluster.push("sq", "nobody-knows-me").await;
    cluster.push("pq:worker1", "nor-me").await;
    let letters = cluster.dead_are(2).await;
    let mut places: Vec<&str> = letters.iter().map(|it| it.r#where.as_str()).collect();
    places.sort_unstable();
    assert_eq!(places, ["pq:worker1", "sq"]);
    cluster.settled_but_dead().await;
}

#[tokio::test]
async fn what_asks_for_more_than_the_node_has_becomes_a_dead_letter_there() {
    let cluster = Cluster::start(1).await;
    let entry = r#"{"uuid":"too-large","name":"a","image":"b","resources":{"memory":"1Ti"}}"#;
    cluster.push("pq:worker1", entry).await;
    let letters = cluster.dead_are(1).await;
    assert_eq!(letters[0].entry, entry);
    assert_eq!(letters[0].why, "node worker1 has no room left: memory");
    assert_eq!(cluster.node("worker1").await.unwrap().pods, 0);

    // On the queue the same waits for a node that is large enough.
    cluster.push("sq", entry).await;
    let id = PodId::parse("too-large").unwrap();
    let pod = cluster.pod_in(&id, Phase::Waiting).await;
    assert_eq!(pod.attempt, 0);
    cluster.store.pods().stop(&id).await.unwrap();
    cluster.settled_but_dead().await;
}

/// A socket proxy may refuse the engine's events; a stream that ends as it begins is no busy loop.
#[tokio::test]
async fn refused_news_of_the_engine_are_no_busy_loop() {
    let cluster = Cluster::start(1).await;
    let engine = cluster.engine("worker1").clone();
    let began = engine.counts().subscriptions;
    engine.refuse_news();
    eventually(
        SOON,
        "it subscribed five times more",
        async || match engine.counts().subscriptions {
            count if count >= began + 5 => Ok(()),
            count => Err(format!("{count}")),
        },
    )
    .await;
    let five = engine.counts().subscriptions;
    let web = cluster.submit("web", 3).await;
    cluster.all_in(&web, Phase::Running, 3).await; // by looks and comparisons alone
    let more = engine.counts().subscriptions - five;
    assert!(
        more < 50,
        "{more} more subscriptions while three pods were started"
    );
    cluster.end().await;
}
