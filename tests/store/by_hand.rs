//! Descriptions pushed by hand on the queue or an inbox, and dead letters.

use kubeleet::model::{Phase, PodId, RawPod};
use kubeleet::store::{Adopt, AdoptOutcome, From, PodStopOutcome, Taken};

use crate::cluster::{Cluster, beat, spec};

fn description(id: &str, resources: &str) -> String {
    format!(r#"{{"name":"test","uuid":"{id}","image":"an/image","replica":3{resources}}}"#)
}

pub(crate) async fn adopt(cluster: &Cluster, from: From<'_>, entry: &[u8]) -> AdoptOutcome {
    let raw = RawPod::parse(entry).expect("an answer");
    let adopt = Adopt {
        from,
        entry,
        raw: &raw,
        nonce: "word",
    };
    cluster
        .store
        .pending()
        .adopt(adopt)
        .await
        .expect("an answer")
}

#[tokio::test]
async fn a_description_on_the_queue_becomes_a_waiting_pod_once() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let entry = description("u1", r#","resources":{"cpu":0.25,"memory":"10Mi"}"#);
    cluster.push("sq", entry.as_bytes()).await;
    cluster.push("sq", entry.as_bytes()).await;
    let claim = cluster.claim(10).await;
    assert_eq!(claim.raw, [entry.as_bytes(), entry.as_bytes()]);
    let from = From::Claim(&claim.batch);
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Adopted
    );
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Known
    );
    assert_eq!(
        cluster.assign(&claim, "n", &[]).await,
        (0, 0),
        "both entries are settled"
    );
    let id = PodId::parse("u1").unwrap();
    let shown = cluster.store.pods().get(&id).await.unwrap().unwrap();
    assert_eq!(
        (shown.phase, shown.replica, shown.service),
        (Phase::Waiting, 3, None)
    );
    assert_eq!(shown.name, "test");
    let ids = cluster.place("n").await;
    assert_eq!(ids, std::slice::from_ref(&id));
    assert_eq!(cluster.taken_room("n").await, (1, 250, 10 << 20));
    let Taken::Run(run) = cluster.take("n", 1, &[&id]).await.remove(0) else {
        panic!("it is to run");
    };
    assert_eq!((run.owner.as_str(), run.revision, run.replica), ("", 0, 3));
    assert_eq!(
        run.spec,
        RawPod::parse(entry.as_bytes()).unwrap().spec.to_stored()
    );

    // Stopped, its id is not used again while its tombstone stands.
    let stop = async || cluster.store.pods().stop(&id).await.unwrap();
    assert_eq!(stop().await, PodStopOutcome::Stopping);
    cluster.report("n", 1, &id, Phase::Stopped).await;
    assert_eq!(stop().await, PodStopOutcome::Absent);
    let left: u64 = cluster.ask("EXISTS @pods @cs:n").await;
    assert_eq!(left, 0);
    cluster.push("sq", entry.as_bytes()).await;
    let claim = cluster.claim(10).await;
    let from = From::Claim(&claim.batch);
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Stopped
    );
    assert_eq!(
        cluster.assign(&claim, "n", &[]).await,
        (0, 1),
        "it stays where it was"
    );
}

#[tokio::test]
async fn a_login_given_by_hand_reaches_the_agent_and_nobody_else() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let login = r#","registry":{"username":"u","password":"hidden"}"#;
    let queued = description("u1", login);
    cluster.push("sq", queued.as_bytes()).await;
    let claim = cluster.claim(10).await;
    adopt(&cluster, From::Claim(&claim.batch), queued.as_bytes()).await;
    cluster.assign(&claim, "n", &[]).await;
    cluster.place("n").await;
    let pushed = description("u2", login);
    cluster.push("rq:n", pushed.as_bytes()).await;
    adopt(&cluster, From::Inbox("n"), pushed.as_bytes()).await;
    let plain = description("u3", "");
    cluster.push("rq:n", plain.as_bytes()).await;
    adopt(&cluster, From::Inbox("n"), plain.as_bytes()).await;

    let ids = ["u1", "u2", "u3"].map(|id| PodId::parse(id).unwrap());
    let taken = cluster.take("n", epoch, &ids.each_ref()).await;
    for (taken, has_login) in taken.iter().zip([true, true, false]) {
        let Taken::Run(run) = taken else {
            panic!("it is to run: {taken:?}");
        };
        let password = run.registry.as_ref().map(|login| login.password.as_str());
        assert_eq!(password, has_login.then_some("hidden"));
        assert!(!run.spec.contains("hidden") && !format!("{taken:?}").contains("hidden"));
    }
    for id in &ids {
        let shown = cluster.store.pods().get(id).await.unwrap().unwrap();
        let shown = format!("{shown:?} {}", serde_json::to_string(&shown).unwrap());
        assert!(!shown.contains("hidden"), "{shown}");
    }

    // Nor does a dead letter show it, although the entry is found by all it holds.
    cluster.push("rq:n", pushed.as_bytes()).await;
    let buried = cluster
        .store
        .bury(From::Inbox("n"), pushed.as_bytes(), "why");
    buried.await.unwrap();
    let letters = cluster.store.dead_letters(10).await.unwrap();
    assert!(letters[0].entry.contains("u2"), "{letters:?}");
    assert!(!letters[0].entry.contains("hidden"), "{letters:?}");
    let left: Vec<String> = cluster.ask("LRANGE @rq:n 0 -1").await;
    assert_eq!(left, ["u3", "u2"], "the pods' own entries");
}

#[tokio::test]
async fn a_description_whose_claim_lapsed_meanwhile_becomes_one_pod() {
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    let entry = description("u1", "");
    cluster.push("sq", entry.as_bytes()).await;
    let first = cluster.claim(10).await;
    let _: u64 = cluster
        .ask(&format!("ZADD @sq:claims 1 {}", first.batch))
        .await;
    assert_eq!(cluster.store.queue().expire_claims(10).await.unwrap(), 1);
    let second = cluster.claim(10).await;
    for (claim, wanted) in [
        (&first, AdoptOutcome::Adopted),
        (&second, AdoptOutcome::Known),
    ] {
        let from = From::Claim(&claim.batch);
        assert_eq!(adopt(&cluster, from, entry.as_bytes()).await, wanted);
    }
    assert_eq!(cluster.served("sq").await, ["u1"]);
}

#[tokio::test]
async fn a_description_on_an_inbox_becomes_a_pod_of_that_node() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(2)).await;
    let entry = description("u1", r#","resources":{"cpu":"500m","memory":"10Mi"}"#);
    let from = From::Inbox("n");
    cluster.push("rq:n", b"before").await;
    cluster.push("rq:n", entry.as_bytes()).await;
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Adopted
    );
    assert_eq!(
        cluster.served("rq:n").await,
        ["before", "u1"],
        "its id takes its place"
    );
    cluster.push("rq:n", entry.as_bytes()).await;
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Known
    );
    assert_eq!(cluster.taken_room("n").await, (1, 500, 10 << 20));
    let id = PodId::parse("u1").unwrap();
    assert_eq!(
        cluster.store.pending().assigned("n").await.unwrap(),
        std::slice::from_ref(&id)
    );
    let Taken::Run(run) = cluster.take("n", epoch, &[&id]).await.remove(0) else {
        panic!("it is to run");
    };
    assert_eq!((run.token.attempt, run.token.nonce.as_str()), (1, "word"));
    assert_eq!(run.phase, Phase::Starting);
    cluster.store.pods().stop(&id).await.unwrap();
    assert_eq!(cluster.served("pq:n").await, ["u1"]);
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    assert_eq!(
        adopt(&cluster, from, entry.as_bytes()).await,
        AdoptOutcome::Stopped
    );
    assert_eq!(cluster.taken_room("n").await, (0, 0, 0));
}

#[tokio::test]
async fn a_node_that_is_full_says_what_is_missing() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(2)).await;
    for (id, resources, missing) in [
        ("c", r#","resources":{"cpu":2.001}"#, "cpu"),
        ("m", r#","resources":{"memory":"3g"}"#, "memory"),
        ("a", "", ""),
        ("b", "", ""),
        ("p", "", "pods"),
    ] {
        let entry = description(id, resources);
        cluster.push("rq:n", entry.as_bytes()).await;
        let wanted = match missing {
            "" => AdoptOutcome::Adopted,
            _ => AdoptOutcome::Full(missing.into()),
        };
        assert_eq!(
            adopt(&cluster, From::Inbox("n"), entry.as_bytes()).await,
            wanted
        );
        let held = cluster.served("rq:n").await.contains(&entry);
        assert_eq!(
            held,
            !missing.is_empty(),
            "what was refused stays where it was"
        );
    }
    assert_eq!(cluster.taken_room("n").await.0, 2);
    let made: u64 = cluster.ask("EXISTS @pod:c @pod:m @pod:p").await;
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_dead_letter_says_what_where_why_and_when() {
    let cluster = Cluster::new().await;
    cluster.store.open().await.unwrap();
    let before = cluster.now_ms().await;
    cluster.push("sq", b"\xff\x00\"rubbish\"\n").await;
    cluster.submit(&spec("web", 1)).await;
    let claim = cluster.claim(10).await;
    let from = From::Claim(&claim.batch);
    cluster
        .store
        .bury(from, &claim.raw[0], "no JSON")
        .await
        .unwrap();
    cluster.push("rq:n", &[b'x'; 10_000]).await;
    cluster.push("rq:n", b"").await;
    let long = "y".repeat(5000);
    cluster
        .store
        .bury(From::Inbox("n"), &[b'x'; 10_000], &long)
        .await
        .unwrap();
    cluster
        .store
        .bury(From::Inbox("n"), b"", "empty")
        .await
        .unwrap();
    assert_eq!(
        cluster.assign(&claim, "n", &[]).await,
        (0, 1),
        "only the pod goes back"
    );
    assert!(cluster.served("rq:n").await.is_empty());
    let letters = cluster.store.dead_letters(10).await.unwrap();
    let shape: Vec<(&str, usize, usize)> = letters
        .iter()
        .map(|letter| {
            (
                letter.r#where.as_str(),
                letter.entry.len(),
                letter.why.len(),
            )
        })
        .collect();
    assert_eq!(
        shape[..2],
        [("pq:n", 0, 5), ("pq:n", 4096, 1000)],
        "newest first"
    );
    assert_eq!(letters[2].entry, "\u{fffd}\0\"rubbish\"\n");
    assert_eq!(
        (letters[2].r#where.as_str(), letters[2].why.as_str()),
        ("sq", "no JSON")
    );
    for letter in &letters {
        assert!(
            (before..before + 60_000).contains(&letter.when_ms),
            "{letter:?}"
        );
    }
}

#[tokio::test]
async fn dead_letters_are_bounded_and_the_oldest_go_first() {
    let cluster = Cluster::new().await;
    for number in 0..1010 {
        let entry = number.to_string();
        cluster.push("rq:n", entry.as_bytes()).await;
        cluster
            .store
            .bury(From::Inbox("n"), entry.as_bytes(), "why")
            .await
            .unwrap();
    }
    let letters = cluster.store.dead_letters(5000).await.unwrap();
    assert_eq!(letters.len(), 1000);
    assert_eq!(
        (letters[0].entry.as_str(), letters[999].entry.as_str()),
        ("1009", "10")
    );
    assert_eq!(cluster.store.dead_letters(2).await.unwrap(), letters[..2]);
    assert_eq!(cluster.store.queue().depths().await.unwrap().dead, 1000);
}
