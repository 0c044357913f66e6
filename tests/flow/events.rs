//! `/v1/events`: pages and streams, across cuts, restarts of the API and of Redis, and losses.

use std::time::{Duration, Instant};

use kubeleet::model::{EventFilter, Phase};
use serde_json::{Value, json};

use crate::api::TestApi;
use crate::sse::Stream;
use crate::support::cluster::{Cluster, SOON};
use crate::support::{RedisOptions, RedisServer, eventually};

/// Everything that is kept, as the API shows it.
async fn kept(cluster: &Cluster) -> Vec<Value> {
    let events = cluster.events(&EventFilter::default()).await;
    events.iter().map(|event| json!(event)).collect()
}

/// Adds an entry of a hundred pods, as a burst does.
async fn add_entries(redis: &RedisServer, prefix: &str, count: usize, reason: usize) {
    let key = format!("{prefix}events");
    for entry in 0..count {
        let mut words = vec!["XADD".to_owned(), key.clone(), "*".to_owned()];
        let head = "kind running by agent owner service:default/web reason";
        words.extend(head.split(' ').map(str::to_owned));
        words.push("x".repeat(reason));
        for pod in 0..100 {
            words.extend([format!("p-{entry}-{pod}"), "n1".to_owned()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        redis.must(&words).await;
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_off_again_and_again_gets_every_event_once() {
    let cluster = Cluster::start(3).await;
    let mut api = TestApi::of(&cluster).await;
    let burst = async {
        let web = cluster.submit("web", 300).await;
        cluster.all_in(&web, Phase::Running, 300).await;
        cluster.store.services().delete(&web, None).await.unwrap();
    };
    let reads = async {
        let mut got: Vec<Value> = Vec::new();
        let mut position = "0-0".to_owned();
        let mut cuts = 0;
        while got
            .last()
            .is_none_or(|last| last["kind"] != "service-deleted")
        {
            let mut stream = api.stream("/v1/events", Some(&position)).await;
            for _ in 0..rand::random_range(1..60) {
                let frame = stream.next().await;
                assert_eq!(frame.event, "event", "{frame:?}");
                assert_eq!(frame.id.as_deref(), frame.data["id"].as_str());
                let is_last = frame.data["kind"] == "service-deleted";
                got.push(frame.data);
                if is_last {
                    break;
                }
            }
            position = stream.position.clone().unwrap();
            drop(stream);
            cuts += 1;
            if cuts % 7 == 0 {
                // In the midst of all this the API is another one.
                let next = TestApi::of(&cluster).await;
                std::mem::replace(&mut api, next).end().await;
            }
        }
        assert!(cuts > 20, "{cuts}");
        got
    };
    let ((), got) = tokio::join!(burst, reads);
    let kept = kept(&cluster).await;
    // 300 pods through waiting, scheduled, starting, running, stopping and stopped; three nodes,
    // and the service's creation, deletion and end.
    assert!(kept.len() >= 300 * 6 + 6, "{}", kept.len());
    assert_eq!(got, kept);
    cluster.end().await;
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_misses_nothing() {
    const ENTRIES: usize = 160;
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "slow", |_| {}).await;
    let mut slow = api.stream("/v1/events", None).await;
    let mut fast = api.stream("/v1/events?kind=running", None).await;
    slow.beat().await;
    fast.beat().await;
    let write = async {
        // Far more than a connection's buffers and the pages kept for slower ones hold: 19 MB.
        add_entries(&redis, "{slow}:", ENTRIES, 1000).await;
    };
    let read = async |stream: &mut Stream| {
        for entry in 0..ENTRIES {
            for pod in 0..100 {
                let frame = stream.next().await;
                assert_eq!(frame.data["pod"], format!("p-{entry}-{pod}"));
            }
        }
    };
    // The slow one reads nothing at all until the fast one has everything.
    tokio::join!(write, read(&mut fast));
    read(&mut slow).await;
}

#[tokio::test]
async fn a_position_that_is_gone_is_told_and_all_goes_on_with_the_oldest_that_is_kept() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "gone", |_| {}).await;
    add_entries(&redis, "{gone}:", 3, 1).await;
    let whole = api.get("/v1/events?limit=300").await.body;
    let whole = whole["items"].as_array().unwrap();
    let old = whole[150]["id"].as_str().unwrap();
    redis
        .must(&["XTRIM", "{gone}:events", "MAXLEN", "=", "1"])
        .await;

    let mut stream = api.stream("/v1/events", Some(old)).await;
    let reset = stream.next().await;
    assert_eq!(reset.event, "reset");
    assert_eq!(reset.data["asked"], old);
    assert_eq!(reset.data["oldest"], reset.id.clone().unwrap());
    assert!(
        reset.data["reason"]
            .as_str()
            .unwrap()
            .contains("only the newest")
    );
    // Whoever is cut off right after it is not told twice.
    drop(stream);
    let mut stream = api.stream("/v1/events", reset.id.as_deref()).await;
    for event in &whole[200..] {
        assert_eq!(stream.next().await.data, *event);
    }
    let page = api
        .get(&format!("/v1/events?after={old}&limit=60"))
        .await
        .body;
    assert_eq!(page["reset"]["asked"], old);
    assert_eq!(page["items"].as_array().unwrap()[..], whole[200..260]);
    assert_eq!(page["more"], true);
    let next = page["position"].as_str().unwrap();
    let page = api.get(&format!("/v1/events?after={next}&limit=60")).await;
    assert_eq!(page.body["items"].as_array().unwrap()[..], whole[260..]);
    assert_eq!(
        (&page.body["more"], &page.body["reset"]),
        (&json!(false), &Value::Null)
    );

    // Redis is emptied under an open stream.
    api.empty(&redis, r#"{"name":"web","image":"a"}"#).await;
    let reset = stream.next().await;
    assert_eq!(reset.event, "reset");
    assert!(reset.data["reason"].as_str().unwrap().contains("emptied"));
    for kind in ["service-created", "waiting"] {
        assert_eq!(stream.next().await.data["kind"], kind);
    }
}

#[tokio::test]
async fn a_stream_goes_on_over_a_restart_of_redis() {
    let mut redis = RedisOptions::default().appendonly().start().await;
    let api = TestApi::on(&redis, "again", |_| {}).await;
    let post = async |name: &str| {
        let body = format!(r#"{{"name":"{name}","image":"a"}}"#);
        api.post("/service", body).await.status
    };
    assert_eq!(post("a").await, 201);
    let mut stream = api.stream("/v1/events?tail=1", None).await;
    assert_eq!(stream.next().await.data["kind"], "waiting");
    redis.restart().await;
    assert_eq!(post("b").await, 201);
    for (kind, service) in [("service-created", "default/b"), ("waiting", "default/b")] {
        let frame = stream.next().await;
        assert_eq!(frame.event, "event");
        assert_eq!(
            (&frame.data["kind"], &frame.data["service"]),
            (&json!(kind), &json!(service))
        );
    }
}

#[tokio::test]
async fn filters_hold_for_pages_and_for_streams() {
    let cluster = Cluster::start(2).await;
    let api = TestApi::of(&cluster).await;
    let web = cluster.submit("web", 4).await;
    let other = cluster
        .submit_spec("web", 2, |spec| spec.namespace = "other".to_owned())
        .await;
    let pods = cluster.all_in(&web, Phase::Running, 4).await;
    cluster.all_in(&other, Phase::Running, 2).await;
    let kept = kept(&cluster).await;
    let pod = pods[0].id.as_str();
    let node = pods[0].node.as_deref().unwrap();
    type Wanted<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let cases: [(String, Wanted<'_>); 7] = [
        (String::new(), Box::new(|_| true)),
        (
            "service=web".into(),
            Box::new(|event| event["service"] == "default/web"),
        ),
        (
            "service=other/web".into(),
            Box::new(|event| event["service"] == "other/web"),
        ),
        (
            "namespace=other".into(),
            Box::new(|event| event["namespace"] == "other"),
        ),
        (format!("pod={pod}"), Box::new(|event| event["pod"] == pod)),
        (
            format!("node={node}"),
            Box::new(|event| event["node"] == node),
        ),
        (
            "kind=running&service=web".into(),
            Box::new(|event| event["kind"] == "running" && event["service"] == "default/web"),
        ),
    ];
    for (query, wanted) in &cases {
        let mut expected = kept.clone();
        expected.retain(|event| wanted(event));
        assert!(expected.len() >= 4, "{query}: {expected:?}");
        let page = api.get(&format!("/v1/events?limit=1000&{query}")).await;
        assert_eq!(page.body["items"], json!(expected), "{query}");
        let path = format!("/v1/events?after=0-0&{query}");
        let mut stream = api.stream(&path, None).await;
        for event in &expected {
            assert_eq!(stream.next().await.data, *event, "{query}");
        }
        let last = &expected[expected.len() - 3..];
        let path = format!("/v1/events?tail=3&{query}");
        let mut stream = api.stream(&path, None).await;
        for event in last {
            assert_eq!(stream.next().await.data, *event, "{query}");
        }
    }
    // What was for others moved the position on all the same.
    let mut stream = api.stream("/v1/events?pod=nobody&tail=5", None).await;
    assert_eq!(stream.beat().await, {
        let newest = cluster.store.events().newest().await.unwrap();
        newest.to_string()
    });
}

#[tokio::test]
async fn what_is_no_request_for_events_is_refused() {
    let api = TestApi::start("events-bad").await;
    for (path, field) in [
        ("/v1/events?after=x", "after"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?tail=5", "tail"),
        ("/v1/events?kind=A", "kind"),
        ("/v1/events?until=", "until"),
        ("/v1/events?until=5-0&after=5-0", "until"),
        ("/v1/events?pod=a/b", "pod"),
        ("/v1/events?service=a/b/c", "service"),
        ("/v1/events?service=a/b&namespace=c", "namespace"),
        ("/v1/watch?kind=pods,boats", "kind"),
        ("/v1/watch?after=0-0", "after"),
    ] {
        let answer = api.get(path).await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], field, "{path}");
    }
    let headers = [
        ("accept", "text/event-stream"),
        ("last-event-id", "yesterday"),
    ];
    for path in ["/v1/events", "/v1/watch"] {
        let answer = api.send(hyper::Method::GET, path, &headers, "").await;
        answer.assert_problem(400, "invalid-request");
        assert_eq!(answer.body["field"], "Last-Event-ID");
    }
    let headers = [("accept", "text/event-stream")];
    let path = "/v1/events?limit=5";
    let answer = api.send(hyper::Method::GET, path, &headers, "").await;
    assert_eq!(answer.body["field"], "limit");
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_api() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "bound", |_| {}).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(api.stream("/v1/events", None).await);
    }
    let headers = [("accept", "text/event-stream")];
    let one_more = api
        .send(hyper::Method::GET, "/v1/watch", &headers, "")
        .await;
    one_more.assert_problem(503, "too-many-streams");
    assert_eq!(one_more.header("retry-after"), "1");
    // All of them by one reader: one blocked client beside the pool.
    let blocked = redis.must(&["INFO", "clients"]).await;
    let blocked: String = redis::from_redis_value(blocked).unwrap();
    assert!(blocked.contains("blocked_clients:1\r"), "{blocked}");
    streams.truncate(199);
    eventually(SOON, "a place is free again", async || {
        match api.stream_status("/v1/watch").await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let mut one = streams.pop().unwrap();
    drop(streams);
    let started = Instant::now();
    let ended = tokio::join!(api.end(), async {
        while one.next_or_end().await.is_some() {}
    });
    assert_eq!(ended, ((), ()));
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
}
