//! Keys and fields that a person gave a wrong type: nobody's entries are lost, every loop goes on.

use kubeleet::model::{Phase, PodId, RawPod, ServiceSpec};
use kubeleet::store::{
    Adopt, AdoptOutcome, Burial, From, PodFilter, Report, ReportOutcome, RequeueOutcome,
    ScaleOutcome, SweepOutcome, Taken,
};

use crate::cluster::{Cluster, LEASE, LONG, beat, pod, report, service, spec};

async fn set(cluster: &Cluster, key: &str) {
    let _: String = cluster.ask(&format!("SET @{key} x")).await;
}

fn named(pods: &[PodId]) -> Vec<&str> {
    pods.iter().map(PodId::as_str).collect()
}

#[tokio::test]
async fn a_queue_of_a_wrong_type_makes_way_for_what_is_pushed() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    cluster.end_grace().await;
    set(&cluster, "sq").await;
    let ids = cluster.submit(&spec("made", 1)).await;
    assert_eq!(cluster.served("sq").await, named(&ids));

    let claim = cluster.claim(10).await;
    set(&cluster, "sq").await;
    cluster.assign(&claim, "n", &[]).await;
    assert_eq!(cluster.served("sq").await, named(&ids), "given back");

    let claim = cluster.claim(10).await;
    cluster.park(&claim.batch, &ids[0], "full").await;
    set(&cluster, "sq").await;
    cluster.register("other", &beat(0)).await;
    assert_eq!(cluster.served("sq").await, named(&ids), "released");

    cluster.place("n").await;
    set(&cluster, "sq").await;
    cluster.age("n", LONG).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert!(
        matches!(swept, SweepOutcome::Swept { pods: 1, .. }),
        "{swept:?}"
    );
    assert_eq!(cluster.served("sq").await, named(&ids), "swept");

    // Whoever waits for arrivals would fail for ever: the next claim clears the way.
    let _: u64 = cluster.ask("DEL @sq").await;
    set(&cluster, "sq").await;
    assert!(cluster.claim(10).await.pods.is_empty());
    let left: u64 = cluster.ask("EXISTS @sq").await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_inbox_and_a_set_of_a_wrong_type_make_way_for_an_assignment() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(3)).await;
    for key in ["pq:n", "cs:n"] {
        set(&cluster, key).await;
    }
    let ids = cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    assert_eq!(cluster.served("pq:n").await, named(&ids));
    let mut assigned = cluster.store.pending().assigned("n").await.unwrap();
    assigned.sort();
    assert_eq!(assigned, ids);
    cluster.report("n", epoch, &ids[0], Phase::Running).await;
    set(&cluster, "pq:n").await;
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    assert_eq!(
        cluster.served("pq:n").await.len(),
        2,
        "both are told to stop"
    );
}

#[tokio::test]
async fn a_lost_node_whose_keys_have_wrong_types_does_not_hold_up_the_sweep_of_others() {
    let cluster = Cluster::new().await;
    for node in ["a", "b", "c"] {
        cluster.register(node, &beat(3)).await;
    }
    cluster.end_grace().await;
    let ids = cluster.submit(&spec("web", 1)).await;
    cluster.place("c").await;
    for (node, more) in [("a", 3), ("b", 2), ("c", 1)] {
        cluster.age(node, LONG + more).await;
    }
    set(&cluster, "cs:a").await;
    let _: u64 = cluster.ask("DEL @node:b").await;
    set(&cluster, "node:b").await;
    let mut swept = Vec::new();
    while let SweepOutcome::Swept { node, .. } =
        cluster.store.nodes().sweep(LEASE, 10).await.unwrap()
    {
        swept.push(node);
    }
    assert_eq!(swept, ["a", "b", "c"]);
    assert_eq!(cluster.served("sq").await, named(&ids));
}

#[tokio::test]
async fn a_pod_key_of_a_wrong_type_is_nobodys_pod() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(5)).await;
    let ids = cluster.submit(&spec("web", 2)).await;
    set(&cluster, &format!("pod:{}", ids[0])).await;
    let claim = cluster.claim(10).await;
    assert_eq!(
        claim.raw,
        [ids[0].as_str().as_bytes()],
        "shown, to be buried"
    );
    cluster
        .store
        .bury(From::Claim(&claim.batch), &claim.raw[0], "no pod")
        .await
        .unwrap();
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (1, 0));
    let _: u64 = cluster.ask(&format!("SADD @cs:n {}", ids[0])).await;
    let taken = cluster.take("n", epoch, &[&ids[0], &ids[1]]).await;
    assert_eq!(taken[0], Taken::Absent);
    assert!(matches!(taken[1], Taken::Run(_)), "{taken:?}");
    let outcome = cluster.report("n", epoch, &ids[1], Phase::Running).await;
    assert_eq!(outcome, ReportOutcome::Ok);
}

#[tokio::test]
async fn a_service_ends_although_a_pod_of_its_was_taken_away_by_hand() {
    let cluster = Cluster::new().await;
    let ids = cluster.submit(&spec("web", 3)).await;
    let _: u64 = cluster.ask(&format!("DEL @pod:{}", ids[0])).await;
    set(&cluster, &format!("pod:{}", ids[1])).await;
    let deleted = cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    assert_eq!(deleted, ScaleOutcome::Done);
    let left = cluster.store.services().get(&service("web")).await.unwrap();
    assert!(left.is_none(), "{left:?}");
}

#[tokio::test]
async fn a_description_is_adopted_although_its_key_holds_something_else() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(5)).await;
    let raw = |id: &str| RawPod {
        id: pod(id),
        replica: 0,
        spec: ServiceSpec::new("web", "an/image"),
    };
    set(&cluster, "pod:byhand").await;
    cluster.push("sq", b"entry").await;
    let claim = cluster.claim(10).await;
    let adopt = |from, raw| Adopt {
        from,
        entry: b"entry",
        raw,
        nonce: "nonce",
    };
    let pending = cluster.store.pending();
    let byhand = raw("byhand");
    let adopted = pending
        .adopt(adopt(From::Claim(&claim.batch), &byhand))
        .await;
    assert_eq!(adopted.unwrap(), AdoptOutcome::Adopted);
    assert_eq!(cluster.served("sq").await, ["byhand"]);

    for key in ["pod:direct", "cs:n"] {
        set(&cluster, key).await;
    }
    cluster.push("rq:n", b"entry").await;
    let direct = raw("direct");
    let adopted = pending.adopt(adopt(From::Inbox("n"), &direct)).await;
    assert_eq!(adopted.unwrap(), AdoptOutcome::Adopted);
    let taken = cluster.take("n", epoch, &[&direct.id]).await;
    assert!(matches!(taken[0], Taken::Run(_)), "{taken:?}");
}

#[tokio::test]
async fn dead_letters_make_way_for_dead_letters() {
    let cluster = Cluster::new().await;
    set(&cluster, "dead").await;
    cluster.push("rq:n", b"rubbish").await;
    cluster
        .store
        .bury(From::Inbox("n"), b"rubbish", "why")
        .await
        .unwrap();
    let letters = cluster.store.dead_letters(10).await.unwrap();
    let places: Vec<&str> = letters.iter().map(|it| it.r#where.as_str()).collect();
    assert_eq!(
        places,
        ["pq:n", "quarantine"],
        "the one, and what was in its way"
    );
    assert!(cluster.served("rq:n").await.is_empty());
}

/// Pods as a person might write them, beside a sound one that must be served.
const BY_HAND: [&str; 8] = [
    "cpu abc memory -1",
    "cpu inf memory nan",
    "cpu -5 memory 1.5",
    "cpu 1e300",
    "owner \u{1}\u{7f}",
    "attempt x tries x",
    "priority x revision x replica x",
    "owner service:none/none",
];

#[tokio::test]
async fn pods_written_by_hand_hold_up_neither_claims_nor_agents() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(100)).await;
    let mut ids = Vec::new();
    for (number, fields) in BY_HAND.into_iter().enumerate() {
        let id = format!("hand{number}");
        let line = format!("HSET @pod:{id} phase waiting desired run {fields}");
        let _: u64 = cluster.ask(&line).await;
        cluster.push("sq", id.as_bytes()).await;
        ids.push(pod(&id));
    }
    ids.extend(cluster.submit(&spec("web", 1)).await);
    // The name of one is no pod's id, and the owner of one no text.
    for (name, owner) in [(&b"a name/\xff"[..], &b""[..]), (b"named", b"\xff")] {
        let key = [cluster.prefix.as_bytes(), b"pod:", name].concat();
        let fields: [&[u8]; 8] = [
            b"HSET", &key, b"phase", b"waiting", b"desired", b"run", b"owner", owner,
        ];
        let _: u64 = cluster.send(&fields).await;
        cluster.push("sq", name).await;
    }
    ids.push(pod("named"));
    let claim = cluster.claim(100).await;
    assert_eq!(claim.raw, [b"a name/\xff"], "shown, to be buried");
    let from = From::Claim(&claim.batch);
    cluster
        .store
        .bury(from, &claim.raw[0], "no id")
        .await
        .unwrap();
    let batch = claim.batch;
    cluster
        .park(&batch, &ids[5], "its tries are no number")
        .await;
    let _: u64 = cluster.ask("ZADD @sq:parked 1 hand5").await;
    assert_eq!(cluster.store.queue().release_parked(10).await.unwrap(), 1);
    let claim = cluster.claim(100).await;
    assert_eq!(claim.pods.len(), ids.len());
    assert_eq!(claim.pods[0].cpu_millis, 0, "no amount is no wish");
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (ids.len(), 0));
    assert_eq!(cluster.taken_room("n").await, (10, 0, 1));
    let all: Vec<&PodId> = ids.iter().collect();
    for taken in cluster.take("n", epoch, &all).await {
        assert!(matches!(taken, Taken::Run(_)), "{taken:?}");
    }
    for id in &ids {
        let outcome = cluster.report("n", epoch, id, Phase::Failed).await;
        assert_eq!(outcome, ReportOutcome::Ok, "{id}");
    }
    assert_eq!(cluster.taken_room("n").await, (0, 0, 0));
}

#[tokio::test]
async fn a_pod_on_a_node_without_a_placement_of_ours_is_none_to_its_agent() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(100)).await;
    let sound = cluster.submit(&spec("web", 1)).await.remove(0);
    cluster.place("n").await;
    for fields in [
        "phase running",
        "phase dancing attempt 1 nonce x",
        "phase running attempt x nonce x",
    ] {
        let line = format!("HSET @pod:hand desired run node n {fields}");
        let _: u64 = cluster.ask(&line).await;
        let taken = cluster.take("n", epoch, &[&pod("hand"), &sound]).await;
        assert_eq!(taken[0], Taken::Absent, "{fields}");
        assert!(matches!(taken[1], Taken::Run(_)), "{taken:?}");
        let _: u64 = cluster.ask("DEL @pod:hand").await;
    }
}

#[tokio::test]
async fn counts_that_are_no_numbers_do_not_stop_reports() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(100)).await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    cluster.place("n").await;
    let _: u64 = cluster.ask("HSET @node:n pods many version \u{7f}").await;
    let _: u64 = cluster.ask("HSET @service:default/web running some").await;
    let key = format!("{}node:n", cluster.prefix);
    let _: u64 = cluster
        .send(&[b"HSET", key.as_bytes(), b"version", b"\xff"])
        .await;
    for phase in [Phase::Running, Phase::Failed] {
        assert_eq!(
            cluster.report("n", epoch, &id, phase).await,
            ReportOutcome::Ok
        );
    }
    let seen = cluster.store.nodes().seen_since(0).await.unwrap();
    assert_eq!(seen.nodes.len(), 1);
    let token = cluster.token(&id).await;
    let only_entry = Report {
        entry: Some(b"x".to_vec()),
        ..report(&id, token, None)
    };
    set(&cluster, "rq:n").await;
    assert_eq!(
        cluster.report_as("n", epoch, only_entry).await,
        ReportOutcome::Ok
    );
}

#[tokio::test]
async fn a_record_of_a_wrong_type_hides_no_other_pod() {
    let cluster = Cluster::new().await;
    let ids = cluster.submit(&spec("web", 3)).await;
    set(&cluster, &format!("pod:{}", ids[1])).await;
    let pods = cluster.store.pods();
    let listed = pods.list(&PodFilter::default(), None, 10).await.unwrap();
    let listed: Vec<PodId> = listed.pods.into_iter().map(|pod| pod.id).collect();
    assert_eq!(listed, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(pods.get(&ids[1]).await.unwrap(), None);
}

/// Keys of all kinds, each with a value of a wrong type, and the call or read that meets it.
#[tokio::test]
async fn what_is_in_the_way_is_kept_aside_told_of_and_bounded() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    let _: String = cluster.ask("SET @sq precious").await;
    assert!(cluster.claim(10).await.pods.is_empty());
    let kept: Vec<String> = cluster.ask("ZRANGE @quarantine 0 -1").await;
    assert_eq!(kept.len(), 1);
    assert!(kept[0].ends_with(":sq"), "{kept:?}");
    let value: String = cluster.send(&[b"GET", kept[0].as_bytes()]).await;
    assert_eq!(value, "precious", "nothing is lost");
    let ttl: i64 = cluster.send(&[b"TTL", kept[0].as_bytes()]).await;
    assert!(ttl > 86400, "{ttl}");
    let letter = cluster.store.dead_letters(1).await.unwrap().remove(0);
    assert_eq!(
        (letter.r#where.as_str(), &letter.entry),
        ("quarantine", &kept[0])
    );
    assert!(
        letter.why.contains("it was a string, not a list"),
        "{letter:?}"
    );
    let outcome = cluster.store.requeue_dead(&letter.id).await.unwrap();
    assert_eq!(outcome, RequeueOutcome::OfKey);
    assert!(cluster.store.drop_dead(&letter.id).await.unwrap());
    let left: u64 = cluster.send(&[b"EXISTS", kept[0].as_bytes()]).await;
    assert_eq!(left, 0, "it goes with its letter");

    for round in 0..110 {
        let _: String = cluster.ask(&format!("SET @pq:n {round}")).await;
        cluster.store.pending().mend("n").await.unwrap();
    }
    let kept: u64 = cluster.ask("ZCARD @quarantine").await;
    assert_eq!(kept, 100, "the newest");
    let keys: Vec<String> = cluster.ask("KEYS @quarantine:*").await;
    assert_eq!(keys.len() as u64, kept);
}

#[tokio::test]
async fn reads_and_waits_meet_no_wrong_type_twice() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(3)).await;
    let ids = cluster.submit(&spec("web", 1)).await;
    let hold = "HSET"; // of a kind that none of these keys has
    for key in [
        "dead",
        "services",
        "pods",
        "nodes",
        "sq:high",
        "events",
        "cs:n",
        "rq:n",
        "service:default/web:pods",
        "logs",
        "decisions",
    ] {
        let _: u64 = cluster.ask(&format!("DEL @{key}")).await;
        let _: u64 = cluster.ask(&format!("{hold} @{key} a b")).await;
    }
    let store = &cluster.store;
    store.dead_letters(10).await.unwrap();
    store.services().list(None, None, 10).await.unwrap();
    store
        .pods()
        .list(&PodFilter::default(), None, 10)
        .await
        .unwrap();
    store.nodes().lost().await.unwrap();
    store.nodes().seen_since(0).await.unwrap();
    store.decisions().newest(0, 10).await.unwrap();
    store.queue().depths().await.unwrap();
    store.pending().handling("n").await.unwrap();
    store.pending().assigned("n").await.unwrap();
    store.services().get(&service("web")).await.unwrap();
    cluster.take("n", epoch, &[&ids[0]]).await;

    // Whoever blocks fails once, and by that clears its way.
    let wait = std::time::Duration::from_millis(50);
    let _: u64 = cluster.ask("DEL @pq:n").await;
    set(&cluster, "pq:n").await;
    let mut inbox = store.pending().inbox("n", wait).await.unwrap();
    assert!(inbox.pop(1).await.is_err());
    let mut inbox = store.pending().inbox("n", wait).await.unwrap();
    assert!(inbox.pop(1).await.unwrap().is_empty());
    for priority in kubeleet::model::Priority::ALL {
        let key = format!(
            "sq{}",
            match priority.as_str() {
                "normal" => String::new(),
                other => format!(":{other}"),
            }
        );
        let _: u64 = cluster.ask(&format!("DEL @{key}")).await;
        set(&cluster, &key).await;
        let mut watch = store.queue().arrivals(priority, wait).await.unwrap();
        assert!(watch.wait().await.is_err());
        let mut watch = store.queue().arrivals(priority, wait).await.unwrap();
        assert!(!watch.wait().await.unwrap());
    }
}

/// The key behind everything: what it held is lost, so the cluster is opened as an emptied one is.
#[tokio::test]
async fn the_clusters_own_key_of_a_wrong_type_stops_nobody_for_long() {
    let cluster = Cluster::new().await;
    let _: u64 = cluster.ask("DEL @cluster").await;
    set(&cluster, "cluster").await;
    cluster.store.open().await.unwrap();
    let kind: String = cluster.ask("TYPE @cluster").await;
    assert_eq!(kind, "hash");
}

#[tokio::test]
async fn dead_letters_are_kept_whole_pushed_again_and_counted() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(3)).await;
    let store = &cluster.store;
    let bury = async |list: &str, entry: &[u8]| {
        cluster.push(list, entry).await;
        let burial = Burial {
            entry: entry.to_vec(),
            why: "why".to_owned(),
        };
        store.bury_all(From::Inbox("n"), &[burial]).await.unwrap();
        store.dead_letters(1).await.unwrap().remove(0)
    };
    let letter = bury("rq:n", b"bad \xff").await;
    assert!(letter.whole && !letter.id.is_empty());
    let outcome = store.requeue_dead(&letter.id).await.unwrap();
    assert_eq!(outcome, RequeueOutcome::Requeued("pq:n".to_owned()));
    let pushed: Vec<Vec<u8>> = cluster.ask("LRANGE @pq:n 0 -1").await;
    assert_eq!(pushed, [b"bad \xff"], "as it was");
    assert_eq!(
        store.requeue_dead(&letter.id).await.unwrap(),
        RequeueOutcome::Gone,
        "once"
    );
    assert_eq!(store.dead(10).await.unwrap().count, 0);

    let long = bury("rq:n", &vec![b'x'; 20_000]).await;
    assert!(!long.whole && long.entry.len() == 4096);
    assert_eq!(
        store.requeue_dead(&long.id).await.unwrap(),
        RequeueOutcome::Cut
    );
    let lost = bury("rq:n", b"lost").await;
    let _: u64 = cluster.ask("DEL @node:n").await;
    let outcome = store.requeue_dead(&lost.id).await.unwrap();
    assert_eq!(outcome, RequeueOutcome::Nowhere("n".to_owned()));
    assert!(store.drop_dead(&lost.id).await.unwrap());
    assert!(!store.drop_dead(&lost.id).await.unwrap());

    let burial = |number: u32| Burial {
        entry: number.to_string().into_bytes(),
        why: "why".to_owned(),
    };
    let many: Vec<Burial> = (0..1500).map(burial).collect();
    for burial in &many {
        cluster.push("rq:n", &burial.entry).await;
    }
    store.bury_all(From::Inbox("n"), &many).await.unwrap();
    // Once more is none the more: they lie there no longer.
    store.bury_all(From::Inbox("n"), &many).await.unwrap();
    let dead = store.dead(2000).await.unwrap();
    assert_eq!(
        (dead.letters.len(), dead.count, dead.dropped),
        (1000, 1000, 501)
    );
    assert_eq!(dead.letters[0].entry, "1499", "newest first");
    let whole: u64 = cluster.ask("HLEN @dead:entries").await;
    assert_eq!(whole, 1000);
    let ids: std::collections::BTreeSet<_> = dead.letters.iter().map(|it| &it.id).collect();
    assert_eq!(ids.len(), 1000);
    let told: Vec<redis::Value> = cluster.ask("XRANGE @events - +").await;
    assert!(told.len() < 30, "{} events of 1,500 letters", told.len());
}
