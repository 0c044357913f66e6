//! Events: what is written of every transition, and reading them from any position.

use std::time::Duration;

use kubeleet::model::{EntryId, Event, EventFilter, Phase, PodId, Position, Subject};
use kubeleet::store::{EventPage, Events, Lost, PODS_PER_CALL, ReadOutcome, SweepOutcome};

use crate::cluster::{Cluster, LEASE, beat, report, service, spec};
use crate::support::{RedisServer, all_events};

/// More than one entry holds.
const MANY: u32 = 250;
const MANY_EVENTS: usize = MANY as usize;

async fn all(cluster: &Cluster) -> Vec<Event> {
    matching(cluster, &EventFilter::default()).await
}

async fn matching(cluster: &Cluster, filter: &EventFilter) -> Vec<Event> {
    all_events(&cluster.store, filter).await
}

/// What stands behind a position.
async fn after(cluster: &Cluster, position: Position) -> EventPage {
    read(cluster.store.events().after(position, 1000).await)
}

fn read(outcome: Result<ReadOutcome, kubeleet::store::StoreError>) -> EventPage {
    match outcome {
        Ok(ReadOutcome::Read(page)) => page,
        other => panic!("{other:?}"),
    }
}

async fn lost(events: &Events<'_>, position: Position) -> Lost {
    match events.after(position, 10).await {
        Ok(ReadOutcome::Lost(lost)) => lost,
        other => panic!("{other:?}"),
    }
}

fn ids(events: &[Event]) -> Vec<Position> {
    events.iter().map(|event| event.id).collect()
}

/// An event in few words: kind, by, to whom, where, why.
fn words(event: &Event) -> String {
    let of = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
    let subject = match event.subject {
        Subject::Pod => event.pod.as_ref().expect("a pod").to_string(),
        Subject::Service => of(&event.service),
        Subject::Node => of(&event.node),
        Subject::Key => of(&event.key),
    };
    let (kind, by, node) = (&event.kind, &event.by, of(&event.node));
    format!("{kind} {by} {subject} {node}: {}", event.reason)
}

#[tokio::test]
async fn every_transition_says_who_did_it_and_why() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let web = cluster.submit(&spec("web", 3)).await;
    let claim = cluster.claim(10).await;
    cluster.assign(&claim, "n", &web[..2]).await;
    let claim = cluster.claim(10).await;
    cluster.park(&claim.batch, &web[2], "1 node: no room").await;
    cluster.take("n", epoch, &[&web[0], &web[1]]).await;
    let pulling = kubeleet::store::Report {
        reason: "pulling image x".into(),
        ..report(&web[0], cluster.token(&web[0]).await, None)
    };
    cluster.report_as("n", epoch, pulling).await;
    cluster.report("n", epoch, &web[0], Phase::Running).await;
    for (ready, restarts) in [
        (Some(true), None),
        (Some(true), Some(0)),
        (Some(false), None),
        (None, Some(1)),
        (Some(true), None),
    ] {
        let told = kubeleet::store::Report {
            ready,
            restarts,
            ..report(&web[0], cluster.token(&web[0]).await, None)
        };
        cluster.report_as("n", epoch, told).await;
    }
    let failed = kubeleet::store::Report {
        reason: "exited with code 3".into(),
        ..report(&web[1], cluster.token(&web[1]).await, Some(Phase::Failed))
    };
    cluster.report_as("n", epoch, failed).await;
    let services = cluster.store.services();
    services
        .scale(&service("web"), 1, "less", None)
        .await
        .unwrap();
    cluster.control().await;
    let down = kubeleet::store::Beat {
        engine: kubeleet::model::EngineState::Down,
        ..beat(10)
    };
    for beat in [&down, &down, &beat(10)] {
        let nodes = cluster.store.nodes();
        nodes.heartbeat("n", epoch, beat).await.unwrap();
    }
    cluster.end_grace().await;
    cluster.age("n", 25_000).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert!(matches!(swept, SweepOutcome::Swept { .. }), "{swept:?}");
    let nodes = cluster.store.nodes();
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    nodes.leave("n", epoch).await.unwrap();
    services.delete(&service("web"), None).await.unwrap();
    cluster.report("n", epoch, &web[1], Phase::Stopped).await;

    let events = all(&cluster).await;
    let said: Vec<String> = events.iter().map(words).collect();
    let [a, b, c] = &web[..] else { panic!() };
    let expected = [
        "node-registered agent n n: for the 1. time".to_owned(),
        "service-created user default/web -: wants 3".to_owned(),
        format!("waiting user {a} -: its service wants 3"),
        format!("waiting user {b} -: its service wants 3"),
        format!("waiting user {c} -: its service wants 3"),
        format!("scheduled scheduler {a} n: given to n"),
        format!("scheduled scheduler {b} n: given to n"),
        format!("parked scheduler {c} -: 1 node: no room"),
        format!("starting agent {a} n: taken by the agent of n"),
        format!("starting agent {b} n: taken by the agent of n"),
        format!("starting agent {a} n: pulling image x"),
        format!("running agent {a} n: its container runs"),
        format!("unready agent {a} n: it is not ready to serve"),
        format!("restarted agent {a} n: its container was started again"),
        format!("ready agent {a} n: it is ready to serve"),
        format!("failed agent {b} n: exited with code 3"),
        "service-scaled user default/web -: from 3 to 1".to_owned(),
        format!("stopped controller {c} -: scaled down to 1"),
        "node-engine-down agent n n: its engine does not answer: it gets no pods".to_owned(),
        "node-engine-up agent n n: its engine answers again".to_owned(),
        String::new(), // how long it was not heard, below
        format!("waiting sweep {a} n: node n was lost"),
        "node-returned agent n n: its agent is heard again".to_owned(),
        "node-left agent n n: its agent ended in order; its containers run on".to_owned(),
        "service-deleting user default/web -: its pods stop first".to_owned(),
        format!("stopped user {a} -: its service was deleted"),
        format!("stopping user {b} n: its service was deleted"),
        format!("stopped agent {b} n: its service was deleted"),
        "service-deleted user default/web -: its last pod is gone".to_owned(),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(&expected) {
        if expected.is_empty() {
            assert!(
                said.starts_with("node-lost sweep n n: no heartbeat for 25."),
                "{said}"
            );
        } else {
            assert_eq!(said, expected);
        }
    }
    for event in events {
        let is_of_service = event.subject != Subject::Node;
        let expected = is_of_service.then_some("default/web");
        assert_eq!(event.service.as_deref(), expected, "{event:?}");
        assert_eq!(event.when_ms, event.id.entry.ms);
    }
}

#[tokio::test]
async fn a_parked_pod_is_told_once_for_each_reason() {
    let cluster = Cluster::new().await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    for reason in ["a", "a", "b", "b"] {
        let claim = cluster.claim(1).await;
        cluster.park(&claim.batch, &id, reason).await;
        let _: u64 = cluster.ask(&format!("ZADD @sq:parked 1 {id}")).await;
        cluster.store.queue().release_parked(1).await.unwrap();
    }
    let reasons = matching(
        &cluster,
        &EventFilter {
            kind: Some("parked".into()),
            ..EventFilter::default()
        },
    )
    .await;
    let reasons: Vec<&str> = reasons.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["a", "b"]);
}

#[tokio::test]
async fn what_one_call_does_to_many_pods_shares_few_entries() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(MANY)).await;
    cluster.submit(&spec("web", MANY)).await;
    let placed = cluster.place("n").await;
    let services = cluster.store.services();
    services
        .scale(&service("web"), 0, "none", None)
        .await
        .unwrap();
    cluster.control().await;
    for ids in placed.chunks(PODS_PER_CALL) {
        let mut reports = Vec::new();
        for id in ids {
            reports.push(report(id, cluster.token(id).await, Some(Phase::Stopped)));
        }
        let pending = cluster.store.pending();
        pending.report("n", epoch, &reports).await.unwrap();
    }
    let entries: u64 = cluster.ask("XLEN @events").await;
    assert_eq!(all(&cluster).await.len(), 1 + 1 + MANY_EVENTS * 4 + 1);
    // Register, created, 3 waiting, 3 scheduled, scaled, 3 stopping, 3 stopped.
    assert_eq!(entries, 15);
}

#[tokio::test]
async fn a_reader_goes_on_from_any_event_without_gap_or_repeat() {
    let cluster = Cluster::new().await;
    assert_eq!(
        cluster.store.events().newest().await.unwrap(),
        Position::START
    );
    assert_eq!(after(&cluster, Position::START).await.events, []);
    cluster.submit(&spec("web", MANY)).await;
    cluster.submit(&spec("other", 3)).await;
    let page = after(&cluster, Position::START).await;
    let whole = page.events;
    assert_eq!(whole.len(), MANY_EVENTS + 3 + 2);
    assert!(whole.is_sorted_by(|one, other| one.id < other.id));
    assert_eq!(whole, all(&cluster).await);
    assert_eq!(
        page.position,
        cluster.store.events().newest().await.unwrap()
    );
    assert_eq!(after(&cluster, page.position).await.events, []);
    for (at, event) in whole.iter().enumerate() {
        let rest = after(&cluster, event.id).await.events;
        assert_eq!(rest, whole[at + 1..], "behind {}", event.id);
    }
    // By small steps, of entries and of pages, filtered and not.
    let events = cluster.store.events();
    let (mut position, mut found) = (Position::START, Vec::new());
    loop {
        let page = read(events.after(position, 1).await);
        found.extend(page.events);
        position = page.position;
        if !page.more {
            break;
        }
    }
    assert_eq!(found, whole);
    let of_web = EventFilter {
        service: Some(service("web")),
        ..EventFilter::default()
    };
    for (filter, count) in [
        (EventFilter::default(), MANY_EVENTS + 5),
        (of_web, MANY_EVENTS + 1),
    ] {
        let (mut position, mut found) = (Position::START, Vec::new());
        loop {
            let page = read(events.page(&filter, position, 7).await);
            assert!(page.events.len() <= 7);
            found.extend(page.events);
            position = page.position;
            if !page.more {
                break;
            }
        }
        let mut expected = whole.clone();
        expected.retain(|event| filter.matches(event));
        assert_eq!(ids(&found), ids(&expected));
        assert_eq!(found.len(), count);
        let last = events.last(&filter, position, 9).await.unwrap();
        assert_eq!(last.events, expected[expected.len() - 9..]);
        // Backwards by small steps, from a place inside an entry.
        let (mut until, mut found) = (Some(expected[100].id), Vec::new());
        while let Some(position) = until {
            let mut page = events.last(&filter, position, 7).await.unwrap();
            assert!(page.events.len() <= 7);
            page.events.append(&mut found);
            (found, until) = (page.events, page.earlier);
        }
        assert_eq!(found, expected[..=100]);
    }
}

#[tokio::test]
async fn a_position_whose_entry_was_trimmed_is_told_so() {
    let cluster = Cluster::new().await;
    for name in ["a", "b", "c"] {
        cluster.submit(&spec(name, 2)).await;
    }
    let whole = all(&cluster).await;
    let events = cluster.store.events();
    let _: u64 = cluster.ask("XTRIM @events MAXLEN = 2").await;
    let kept = &whole[6..];
    let oldest = Position::before(kept[0].id.entry);
    let newest = Position::behind(whole[8].id.entry);
    for asked in [Position::START, whole[0].id, whole[5].id] {
        let expected = Lost {
            asked,
            oldest,
            newest,
            was_trimmed: true,
        };
        assert_eq!(lost(&events, asked).await, expected);
    }
    assert_eq!(after(&cluster, oldest).await.events, kept);
    assert_eq!(after(&cluster, kept[0].id).await.events, kept[1..]);
    // Behind the last one nothing is missing, until it goes too.
    assert_eq!(after(&cluster, newest).await.events, []);
    cluster.submit(&spec("d", 1)).await;
    assert_eq!(after(&cluster, newest).await.events.len(), 2);
    let _: u64 = cluster.ask("XTRIM @events MAXLEN = 1").await;
    assert_eq!(lost(&events, newest).await.asked, newest);
}

#[tokio::test]
async fn a_position_of_an_emptied_or_another_redis_is_told_so() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server, "").await;
    cluster.submit(&spec("a", 2)).await;
    let old = all(&cluster).await;
    let _: String = cluster.ask("FLUSHALL").await;
    let events = cluster.store.events();
    let told = lost(&events, old[1].id).await;
    assert_eq!(
        (told.oldest, told.newest),
        (Position::START, Position::START)
    );
    // A new stream; also one whose ids are older, as of a clock that was set back.
    for first in ["*", "5-1"] {
        let _: String = cluster.ask("FLUSHALL").await;
        let add = format!("XADD @events {first} kind node-lost by sweep owner  reason  n ");
        let id: String = cluster.ask(&add).await;
        let id = EntryId::parse(&id).unwrap();
        let told = lost(&events, old[1].id).await;
        assert_eq!(told.oldest, Position::before(id));
        assert_eq!(told.newest, Position::behind(id));
        assert!(!told.was_trimmed);
        let found = after(&cluster, told.oldest).await.events;
        assert_eq!(
            found.iter().map(words).collect::<Vec<_>>(),
            ["node-lost sweep n n: "]
        );
        assert_eq!(after(&cluster, Position::START).await.events, found);
    }
    // One between two that are there, as after a fail-over that lost it.
    let _: String = cluster
        .ask("XADD @events 9-0 kind node-lost by sweep n x")
        .await;
    let between = Position::parse("7-0.1").unwrap();
    assert_eq!(lost(&events, between).await.asked, between);
}

#[tokio::test]
async fn each_pod_has_its_owner_though_an_entry_has_pods_of_many() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let web = cluster.submit(&spec("web", 2)).await;
    let api = cluster.submit(&spec("api", 1)).await;
    cluster
        .push("sq", br#"{"uuid":"byhand","name":"x","image":"y"}"#)
        .await;
    let claim = cluster.claim(10).await;
    let by_hand = PodId::parse("byhand").unwrap();
    let adopt = kubeleet::store::Adopt {
        from: kubeleet::store::From::Claim(&claim.batch),
        entry: &claim.raw[0],
        raw: &kubeleet::model::RawPod::parse(&claim.raw[0]).unwrap(),
        nonce: "nonce",
    };
    cluster.store.pending().adopt(adopt).await.unwrap();
    let pods: Vec<PodId> = claim.pods.iter().map(|pod| pod.id.clone()).collect();
    cluster.assign(&claim, "n", &pods).await;
    cluster.place("n").await;
    let scheduled = EventFilter {
        kind: Some("scheduled".into()),
        ..EventFilter::default()
    };
    let mut found = Vec::new();
    for event in matching(&cluster, &scheduled).await {
        assert_eq!(event.node.as_deref(), Some("n"));
        found.push((event.pod.unwrap(), event.service.unwrap_or_default()));
    }
    let expected = [
        (web[0].clone(), "default/web".to_owned()),
        (web[1].clone(), "default/web".to_owned()),
        (api[0].clone(), "default/api".to_owned()),
        (by_hand, String::new()),
    ];
    assert_eq!(found, expected);
    let of_api = EventFilter {
        service: Some(service("api")),
        ..scheduled
    };
    assert_eq!(matching(&cluster, &of_api).await.len(), 1);
}

#[tokio::test]
async fn what_another_version_or_a_person_wrote_is_read_as_far_as_it_goes() {
    let cluster = Cluster::new().await;
    for entry in [
        "kind scheduled by scheduler p-0 n1 p-1 n2",
        "kind failed by n1 p-0 exited_(3)",
        "kind waiting by user p/0 x",
        "kind wrong-type by hand sq LPUSH",
        "a b",
    ] {
        let _: String = cluster.ask(&format!("XADD @events * {entry}")).await;
    }
    let said: Vec<String> = all(&cluster).await.iter().map(words).collect();
    let expected = [
        "scheduled scheduler p-0 n1: given to n1",
        "scheduled scheduler p-1 n2: given to n2",
        "failed n1 p-0 -: exited_(3)",
        "waiting user p/0 x: ",
        "wrong-type hand sq LPUSH: ",
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_key_of_another_type_makes_way_for_events() {
    let cluster = Cluster::new().await;
    let _: String = cluster.ask("SET @events rubbish").await;
    cluster.submit(&spec("web", 1)).await;
    let kinds: Vec<String> = all(&cluster)
        .await
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, ["service-created", "waiting", "wrong-type"]);
}

#[tokio::test]
async fn a_watch_of_the_stream_wakes_for_what_is_behind_its_entry() {
    let cluster = Cluster::new().await;
    let events = cluster.store.events();
    let longest = Duration::from_millis(200);
    let mut arrivals = events.arrivals(longest).await.unwrap();
    assert!(!arrivals.wait(EntryId::START).await.unwrap());
    cluster.submit(&spec("web", 1)).await;
    assert!(arrivals.wait(EntryId::START).await.unwrap());
    let last = events.newest().await.unwrap().entry;
    assert!(!arrivals.wait(last).await.unwrap());
    let other = spec("other", 1);
    let (woken, _) = tokio::join!(arrivals.wait(last), cluster.submit(&other));
    assert!(woken.unwrap());
}
