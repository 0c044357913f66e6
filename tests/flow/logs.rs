//! Logs through Redis: of pods and services, as they are and as they come, whatever is lost meanwhile.

use std::time::{Duration, Instant};

use kubeleet::container::Simulated;
use kubeleet::model::{LogStream, NodeState, Phase, PodId};

use crate::seeing::{Seeing, errors, texts};
use crate::support::cluster::{Cluster, SOON};
use crate::support::{RedisOptions, eventually};

/// How soon a session is over whose client has gone.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn lines_of_a_pod_are_read_as_they_are_wanted() {
    let cluster = Cluster::start(1).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster
        .all_in(&service, Phase::Running, 1)
        .await
        .remove(0)
        .id;
    let engine = cluster.engine("worker1");
    let path = format!("/v1/pods/{pod}/logs");
    assert_eq!(api.all(&path).await, [], "nothing was written");
    engine.say(&pod, LogStream::Stdout, "one");
    engine.say(&pod, LogStream::Stderr, "two \"quoted\"");
    engine.say(&pod, LogStream::Stdout, "");

    let items = api.all(&path).await;
    assert_eq!(texts(&items), ["one", "two \"quoted\"", ""]);
    for item in &items {
        assert_eq!(item.pod.as_deref(), Some(pod.as_str()));
        assert_eq!(item.node.as_deref(), Some("worker1"));
        assert_eq!(
            item.time.as_ref().unwrap().len(),
            "2026-11-20T10:21:22.123456789Z".len()
        );
    }
    assert_eq!(items[1].stream, Some(LogStream::Stderr));
    let tail = api.all(&format!("{path}?tail=2")).await;
    assert_eq!(texts(&tail), ["two \"quoted\"", ""]);
    assert_eq!(api.all(&format!("{path}?tail=0")).await, []);
    let since = items[1].time.as_deref().unwrap();
    let late = api.all(&format!("{path}?since={since}")).await;
    assert_eq!(texts(&late), ["two \"quoted\"", ""]);
    assert_eq!(api.all(&format!("{path}?since=10m")).await.len(), 3);
    assert_eq!(api.all(&format!("{path}?since=0s")).await, []);

    let mut following = api.open(&format!("{path}?follow=true&tail=1")).await;
    assert_eq!(texts(&following.next(1).await), [""]);
    for line in ["three", "four"] {
        engine.say(&pod, LogStream::Stdout, line);
        assert_eq!(texts(&following.next(1).await), [line]);
    }
    engine.say(&pod, LogStream::Stdout, "last words");
    engine.end_pod(&pod, 0, None);
    assert_eq!(texts(&following.rest().await), ["last words"]);
    cluster.no_session_is_left(AT_ONCE).await;
    cluster.end().await;
}

#[tokio::test]
async fn lines_of_a_service_are_merged_and_new_pods_join() {
    let cluster = Cluster::start(2).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 2).await;
    let pods = cluster.all_in(&service, Phase::Running, 2).await;
    let say = |at: usize, line: &str| {
        let pod = &pods[at];
        let engine = cluster.engine(pod.node.as_deref().unwrap());
        assert!(engine.say(&pod.id, LogStream::Stdout, line));
    };
    for (at, line) in [(0, "a"), (1, "b"), (1, "c"), (0, "d"), (1, "e")] {
        say(at, line);
    }
    let items = api.all("/v1/services/web/logs").await;
    assert_eq!(texts(&items), ["a", "b", "c", "d", "e"], "by time");
    let of = |at: usize| Some(pods[at].id.to_string());
    let by: Vec<_> = items.iter().map(|item| item.pod.clone()).collect();
    assert_eq!(by, [of(0), of(1), of(1), of(0), of(1)]);

    let mut following = api.open("/v1/services/web/logs?follow=true&tail=1").await;
    assert_eq!(texts(&following.next(2).await), ["d", "e"]);
    say(0, "f");
    assert_eq!(texts(&following.next(1).await), ["f"]);

    cluster.scale(&service, 3).await;
    let grown = cluster.all_in(&service, Phase::Running, 3).await;
    let new = grown
        .iter()
        .find(|pod| pods.iter().all(|old| old.id != pod.id))
        .unwrap();
    let engine = cluster.engine(new.node.as_deref().unwrap());
    for line in ["g", "h"] {
        engine.say(&new.id, LogStream::Stdout, line);
    }
    let joined = following.next(2).await;
    assert_eq!(texts(&joined), ["g", "h"], "all lines of one that is new");
    assert_eq!(joined[0].pod.as_deref(), Some(new.id.as_str()));

    cluster
        .store
        .services()
        .delete(&service, None)
        .await
        .unwrap();
    assert_eq!(
        texts(&following.rest().await),
        [""; 0],
        "it ends with the service"
    );
    cluster.no_session_is_left(AT_ONCE).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_pod_that_moves_to_another_node_is_followed_there() {
    let mut cluster = Cluster::start(2).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster.all_in(&service, Phase::Running, 1).await.remove(0);
    let node = pod.node.unwrap();
    cluster
        .engine(&node)
        .say(&pod.id, LogStream::Stdout, "there");
    let mut following = api.open("/v1/services/web/logs?follow=true").await;
    assert_eq!(texts(&following.next(1).await), ["there"]);

    cluster.take_agent(&node).kill();
    let told = following.next(1).await;
    assert!(errors(&told)[0].contains(&node), "{told:?}");
    let moved = eventually(SOON, "it has moved", async || {
        let pod = cluster.pod(&pod.id).await.unwrap();
        match pod.node {
            Some(other) if other != node && pod.phase == Phase::Running => Ok(other),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    cluster
        .engine(&moved)
        .say(&pod.id, LogStream::Stdout, "here");
    let mut items = following.next(1).await;
    while items[0].line.is_none() {
        items = following.next(1).await; // where it waited, and that it did
    }
    assert_eq!(texts(&items), ["here"]);
    assert_eq!(items[0].node, Some(moved));
}

#[tokio::test]
async fn last_lines_stay_when_container_and_node_are_gone() {
    let mut cluster = Cluster::start(1).await;
    let api = Seeing::into(&cluster).await;
    let job = cluster.submit_once("job", 1).await;
    let ended = cluster.all_in(&job, Phase::Running, 1).await.remove(0).id;
    let web = cluster.submit_once("web", 1).await;
    let removed = cluster.all_in(&web, Phase::Running, 1).await.remove(0).id;
    let engine = cluster.engine("worker1");
    engine.say(&ended, LogStream::Stdout, "of one that ended");
    engine.say(&removed, LogStream::Stdout, "of one that was removed");
    engine.end_pod(&ended, 1, None);
    cluster.pod_in(&ended, Phase::Failed).await;
    cluster.store.services().delete(&web, None).await.unwrap();
    cluster.gone(&web).await;
    let path = |pod: &PodId| format!("/v1/pods/{pod}/logs");
    let items = api.all(&path(&removed)).await;
    assert_eq!(texts(&items), ["of one that was removed"]);
    assert_eq!(items[0].node.as_deref(), Some("worker1"));

    cluster.take_agent("worker1").kill();
    cluster.in_state("worker1", NodeState::Lost).await;
    let items = api.all(&path(&ended)).await;
    assert_eq!(errors(&items).len(), 1, "{items:?}");
    assert!(
        errors(&items)[0].contains("node worker1 is down"),
        "{items:?}"
    );
    assert_eq!(
        items.last().unwrap().line.as_deref(),
        Some("of one that ended"),
        "{items:?}"
    );
    assert_eq!(items.last().unwrap().node.as_deref(), Some("worker1"));
}

#[tokio::test]
async fn what_has_no_log_says_why() {
    let mut cluster = Cluster::empty().await;
    cluster.add_node("worker1").await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("waits", 1).await;
    let pod = cluster.pods(Some(&service)).await.remove(0);
    for path in [
        format!("/v1/pods/{}/logs", pod.id),
        "/v1/services/waits/logs".to_owned(),
    ] {
        let items = api.all(&path).await;
        assert_eq!(errors(&items), ["it is waiting: in the queue"], "{items:?}");
    }
    for path in ["/v1/pods/none/logs", "/v1/services/none/logs"] {
        let refused = api.client.lines(path).await.err().unwrap();
        assert!(refused.to_string().contains("there is no"), "{refused}");
    }
    for query in [
        "follow=yes",
        "tail=-1",
        "tail=1000001",
        "since=yesterday",
        "lines=3",
    ] {
        let path = format!("/v1/pods/{}/logs?{query}", pod.id);
        let refused = api.client.lines(&path).await.err().unwrap();
        let name = query.split('=').next().unwrap();
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

/// Time without a read after which the reading counts as stopped.
const STILL: Duration = Duration::from_millis(300);
/// What a reader that stands still leaves in Redis: 16 batches of 16 KiB, and their frames.
const UNREAD_BYTES_MAX: u64 = 400 * 1024;

/// Waits until no line is read any more, and tells how many were.
async fn nothing_more_is_read(engine: &Simulated) -> u64 {
    let mut seen = (0, Instant::now());
    eventually(SOON, "nothing more is read", async || {
        let now = engine.counts().lines;
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        if seen.1.elapsed() > STILL {
            Ok(now)
        } else {
            Err(format!("{now} lines"))
        }
    })
    .await
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_the_reading_and_fills_nothing() {
    let cluster = Cluster::start(1).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster
        .all_in(&service, Phase::Running, 1)
        .await
        .remove(0)
        .id;
    let engine = cluster.engine("worker1");
    engine.babble(&pod);
    let mut reader = api.open(&format!("/v1/pods/{pod}/logs?follow=true")).await;
    reader.next(1000).await;
    let lines = nothing_more_is_read(engine).await;
    let stream = cluster.keys_like("session:*:out").await.remove(0);
    let stream = cluster.key(&stream);
    let entries: u64 = cluster.redis(&["XLEN", &stream]).await;
    let bytes: u64 = cluster
        .redis(&["MEMORY", "USAGE", &stream, "SAMPLES", "0"])
        .await;
    assert!(entries <= 16, "{entries} entries");
    assert!(bytes <= UNREAD_BYTES_MAX, "{bytes} bytes");

    // It goes on where it stood, and nothing is missing.
    let items = reader.next(usize::try_from(lines).unwrap()).await;
    let numbers: Vec<u64> = items
        .iter()
        .map(|item| item.line.as_ref().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.into_iter().eq(1000..1000 + lines));
    assert!(engine.counts().lines > lines);

    drop(reader);
    cluster.no_session_is_left(AT_ONCE).await;
    nothing_more_is_read(engine).await;
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing() {
    let cluster = Cluster::start(2).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 6).await;
    let pods = cluster.all_in(&service, Phase::Running, 6).await;
    let quiet = api.open("/v1/services/web/logs?follow=true").await;
    let quiet_too = api
        .open(&format!("/v1/pods/{}/logs?follow=true", pods[0].id))
        .await;
    eventually(SOON, "agents are listened to", async || {
        match cluster.keys_like("session:*:out").await.len() {
            7 => Ok(()),
            count => Err(format!("{count} sessions")),
        }
    })
    .await;
    drop((quiet, quiet_too));
    cluster.no_session_is_left(AT_ONCE).await;
    cluster.end().await;
}

#[tokio::test]
async fn the_end_of_the_api_is_told() {
    let cluster = Cluster::start(1).await;
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    cluster.all_in(&service, Phase::Running, 1).await;
    let reader = api.open("/v1/services/web/logs?follow=true").await;
    api.shutdown.cancel();
    assert_eq!(
        errors(&reader.rest().await),
        ["the API is ending: ask again"]
    );
    cluster.no_session_is_left(AT_ONCE).await;
}

#[tokio::test]
async fn the_loss_of_redis_is_told_and_afterwards_all_is_as_before() {
    let mut server = RedisOptions::default().appendonly().start().await;
    let mut cluster = Cluster::on(&server.url(), |_| {}).await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster
        .all_in(&service, Phase::Running, 1)
        .await
        .remove(0)
        .id;
    let engine = cluster.engine("worker1");
    engine.babble(&pod);
    let mut reader = api.open(&format!("/v1/pods/{pod}/logs?follow=true")).await;
    reader.next(100).await;
    let quiet = api.open("/v1/services/web/logs?follow=true&tail=0").await;
    server.restart().await;
    for reader in [reader, quiet] {
        let items = reader.rest().await;
        assert_eq!(errors(&items), ["Redis was lost on the way: ask again"]);
    }
    eventually(SOON, "it serves again", async || {
        let path = format!("/v1/pods/{pod}/logs?follow=true");
        match api.client.lines(&path).await {
            Ok(mut lines) => match lines.more().await {
                Ok(true)
                    if lines
                        .next_line()
                        .is_some_and(|line| !line.ends_with(b"again\"}")) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            },
            Err(error) => Err(format!("{error}")),
        }
    })
    .await;
    // Those that could not be ended go away by themselves.
    for key in cluster.keys_like("session*").await {
        let left: i64 = cluster.redis(&["PTTL", &cluster.key(&key)]).await;
        assert!(left != -1, "{key}");
    }
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_named() {
    let mut cluster = Cluster::on(&crate::support::shared_redis().await.url(), |settings| {
        settings.heartbeat.lease = Duration::from_secs(60);
    })
    .await;
    cluster.add_nodes(1).await;
    cluster.add_scheduler();
    let api = Seeing::into(&cluster).await;
    let service = cluster.submit_once("web", 1).await;
    let pod = cluster
        .all_in(&service, Phase::Running, 1)
        .await
        .remove(0)
        .id;
    let path = format!("/v1/pods/{pod}/logs");
    let mut before = api.open(&format!("{path}?follow=true")).await;
    cluster
        .engine("worker1")
        .say(&pod, LogStream::Stdout, "before");
    before.next(1).await;
    let frozen = cluster.agent("worker1").freeze().await;
    let items = api.all(&path).await;
    assert_eq!(errors(&items), ["node worker1 did not answer within 5s"]);
    let told = before.next(1).await;
    assert_eq!(errors(&told), ["node worker1 is not heard any more"]);
    drop(frozen);
    // What was asked long ago is not answered any more; what is asked now is.
    assert_eq!(texts(&api.all(&path).await), ["before"]);
}
