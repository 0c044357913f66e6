//! `/v1/watch`: a snapshot, then what changes; who follows it knows what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kubeleet::model::Phase;
use serde_json::{Value, json};

use crate::api::TestApi;
use crate::sse::{Frame, Stream};
use crate::support::RedisServer;
use crate::support::cluster::{Cluster, SOON};

/// What no watcher may see.
const SECRET: &str = "hush-hush";

/// What a watcher knows, by kind and name.
#[derive(Debug, Default, PartialEq)]
struct Known(BTreeMap<(String, String), Value>);

impl Known {
    fn learn(&mut self, frame: &Frame) {
        let data = &frame.data;
        assert!(!data.to_string().contains(SECRET));
        match frame.event.as_str() {
            "snapshot" => {
                let kind = data["kind"].as_str().unwrap().trim_end_matches('s');
                for item in data["items"].as_array().unwrap() {
                    self.set(kind, item);
                }
            }
            "deleted" => {
                let kind = data["kind"].as_str().unwrap();
                self.0.remove(&(kind.to_owned(), name_of(data)));
            }
            "reset" => self.0.clear(),
            "synced" => {}
            kind @ ("service" | "pod" | "node") => self.set(kind, data),
            other => panic!("{other}: {frame:?}"),
        }
    }

    fn set(&mut self, kind: &str, item: &Value) {
        // A node's figures change with each heartbeat, which is no event.
        let known = match kind {
            "node" => item["state"].clone(),
            _ => item.clone(),
        };
        self.0.insert((kind.to_owned(), name_of(item)), known);
    }

    /// What there is, as the listings say.
    async fn listed(api: &TestApi) -> Known {
        let mut known = Known::default();
        for kind in ["services", "pods", "nodes"] {
            let (items, _) = api.all(&format!("/v1/{kind}"), 1000).await;
            for item in &items {
                known.set(kind.trim_end_matches('s'), item);
            }
        }
        known
    }

    /// The names of what is known of a kind.
    fn names(&self, of: &str) -> BTreeSet<&str> {
        let known = self.0.keys().filter(|(kind, _)| kind == of);
        known.map(|(_, name)| name.as_str()).collect()
    }
}

/// A pod's id, a service's namespace and name, a node's name.
fn name_of(item: &Value) -> String {
    let text = |field: &str| item[field].as_str().map(str::to_owned);
    text("id").unwrap_or_else(|| {
        let namespace = text("namespace").map(|namespace| namespace + "/");
        namespace.unwrap_or_default() + &text("name").unwrap()
    })
}

/// Reads up to the end of a snapshot.
async fn synced(stream: &mut Stream, known: &mut Known) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let frame = stream.next().await;
        known.learn(&frame);
        let is_end = frame.event == "synced";
        if is_end {
            assert_eq!(frame.id.as_deref(), frame.data["position"].as_str());
        } else {
            assert_eq!(
                frame.id, None,
                "cut off now, all is needed again: {frame:?}"
            );
        }
        events.push(frame.event);
        if is_end {
            return events;
        }
    }
}

/// Reads until the watcher knows what is listed.
async fn agrees(stream: &mut Stream, known: &mut Known, api: &TestApi) {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let listed = Known::listed(api).await;
        if *known == listed {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "known: {known:#?}\nlisted: {listed:#?}"
        );
        // What was told meanwhile, before the next look.
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(50), stream.next()).await {
            known.learn(&frame);
        }
    }
}

#[tokio::test]
async fn who_watches_knows_what_there_is_however_often_it_is_cut_off() {
    let mut cluster = Cluster::start(2).await;
    let mut api = TestApi::of(&cluster).await;
    let first = cluster.submit("first", 5).await;
    cluster.all_in(&first, Phase::Running, 5).await;
    let mut known = Known::default();
    let mut stream = api.stream("/v1/watch", None).await;
    synced(&mut stream, &mut known).await;
    assert_eq!(known.names("service"), BTreeSet::from(["default/first"]));
    assert_eq!(known.names("pod").len(), 5);
    assert_eq!(known.names("node"), BTreeSet::from(["worker1", "worker2"]));

    let work = async {
        let second = cluster.submit("second", 150).await;
        cluster.scale(&first, 2).await;
        cluster.all_in(&second, Phase::Running, 150).await;
        let pod = cluster.pods(Some(&second)).await.remove(7);
        let engine = cluster.engine(pod.node.as_deref().unwrap());
        assert!(engine.end_pod(&pod.id, 3, None));
        let third = cluster.submit("third", 20).await;
        cluster.all_in(&third, Phase::Running, 20).await;
        cluster.store.services().delete(&third, None).await.unwrap();
        cluster
            .push(
                "sq",
                r#"{"uuid":"byhand","name":"hand","image":"spaster/alpine-sleep"}"#,
            )
            .await;
        cluster.scale(&second, 40).await;
        cluster.gone(&third).await;
    };
    let follow = async {
        let mut cuts = 0;
        loop {
            for _ in 0..rand::random_range(1..40) {
                let frame = stream.next().await;
                assert!(!["snapshot", "synced", "reset"].contains(&frame.event.as_str()));
                known.learn(&frame);
            }
            cuts += 1;
            if cuts % 5 == 0 {
                let next = TestApi::of(&cluster).await;
                std::mem::replace(&mut api, next).end().await;
            }
            let position = stream.position.clone();
            stream = api.stream("/v1/watch", position.as_deref()).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = follow => {}
    }
    // The last cut may have been before or after any frame: what is missing is told.
    let position = stream.position.clone();
    stream = api.stream("/v1/watch", position.as_deref()).await;
    agrees(&mut stream, &mut known, &api).await;
    assert!(known.names("pod").contains("byhand"));
    assert_eq!(
        known.names("service"),
        BTreeSet::from(["default/first", "default/second"])
    );

    // A node dies: it is told, and its pods where they are now.
    cluster.take_agent("worker1").kill();
    cluster
        .in_state("worker1", kubeleet::model::NodeState::Lost)
        .await;
    agrees(&mut stream, &mut known, &api).await;
    assert_eq!(known.0[&("node".to_owned(), "worker1".to_owned())], "lost");
}

#[tokio::test]
async fn a_position_that_is_gone_is_told_with_a_new_snapshot() {
    let redis = RedisServer::start().await;
    let api = TestApi::on(&redis, "old", |_| {}).await;
    api.post("/service", r#"{"name":"a","image":"x","replicas":3}"#)
        .await;
    let mut known = Known::default();
    let mut stream = api.stream("/v1/watch", None).await;
    synced(&mut stream, &mut known).await;
    let old = stream.position.clone();
    drop(stream);
    api.post("/service", r#"{"name":"b","image":"x","replicas":250}"#)
        .await;
    api.delete("/v1/services/a").await;
    redis
        .must(&["XTRIM", "{old}:events", "MAXLEN", "=", "1"])
        .await;

    let mut stream = api.stream("/v1/watch", old.as_deref()).await;
    let reset = stream.next().await;
    assert_eq!((reset.event.as_str(), reset.id.as_deref()), ("reset", None));
    assert_eq!(reset.data["asked"].as_str(), old.as_deref());
    // Cut off before the snapshot is whole: it is as if nothing had been told.
    stream.next().await;
    assert_eq!(stream.position, old);
    let mut stream = api.stream("/v1/watch", old.as_deref()).await;
    known.learn(&stream.next().await);
    assert!(known.0.is_empty());
    synced(&mut stream, &mut known).await;
    assert_eq!(known, Known::listed(&api).await);
    assert_eq!(known.names("pod").len(), 250);

    // Redis is emptied under it.
    api.empty(&redis, r#"{"name":"c","image":"x"}"#).await;
    let reset = stream.next().await;
    assert_eq!(reset.event, "reset");
    known.learn(&reset);
    synced(&mut stream, &mut known).await;
    agrees(&mut stream, &mut known, &api).await;
    assert_eq!(known.names("service"), BTreeSet::from(["default/c"]));
}

#[tokio::test]
async fn filters_leave_out_what_is_not_wanted_from_snapshot_and_changes() {
    let cluster = Cluster::start(2).await;
    let api = TestApi::of(&cluster).await;
    let web = cluster.submit("web", 4).await;
    let far = cluster
        .submit_spec("far", 2, |spec| {
            spec.namespace = "other".to_owned();
            let secret = json!({"path": "/secret", "content": SECRET, "secret": true});
            spec.files.push(serde_json::from_value(secret).unwrap());
        })
        .await;
    cluster
        .push(
            "sq",
            r#"{"uuid":"hand","name":"h","image":"spaster/alpine-sleep","namespace":"other"}"#,
        )
        .await;
    cluster.all_in(&web, Phase::Running, 4).await;
    cluster.all_running(SOON).await;
    let pod_ids = async |filter: &str| -> BTreeSet<String> {
        let (pods, _) = api.all(&format!("/v1/pods?{filter}"), 100).await;
        pods.iter().map(name_of).collect()
    };
    let on_worker1 = pod_ids("node=worker1").await;
    let of_web = pod_ids("service=web").await;
    let of_other = pod_ids("namespace=other").await;
    assert_eq!(of_other.len(), 3);
    let all_pods = pod_ids("").await;
    let none = BTreeSet::new();
    let services = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    };
    let both = services(&["default/web", "other/far"]);
    let nodes = services(&["worker1", "worker2"]);
    let cases = [
        ("", both.clone(), all_pods.clone(), nodes.clone()),
        ("kind=services", both.clone(), none.clone(), none.clone()),
        ("kind=pods,nodes", none.clone(), all_pods, nodes),
        (
            "service=web",
            services(&["default/web"]),
            of_web,
            none.clone(),
        ),
        (
            "namespace=other",
            services(&["other/far"]),
            of_other,
            none.clone(),
        ),
        (
            "node=worker1",
            none.clone(),
            on_worker1,
            services(&["worker1"]),
        ),
    ];
    let mut streams = Vec::new();
    for (query, services, pods, nodes) in cases {
        let mut known = Known::default();
        let mut stream = api.stream(&format!("/v1/watch?{query}"), None).await;
        synced(&mut stream, &mut known).await;
        for (kind, names) in [("service", &services), ("pod", &pods), ("node", &nodes)] {
            let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(known.names(kind), names, "{query} {kind}");
        }
        streams.push((query, stream, services, pods));
    }
    // All goes; every watcher is told of what it knew, and of nothing else.
    cluster.store.services().delete(&web, None).await.unwrap();
    cluster.store.services().delete(&far, None).await.unwrap();
    cluster.gone(&web).await;
    cluster.gone(&far).await;
    let id = kubeleet::model::PodId::parse("hand").unwrap();
    cluster.store.pods().stop(&id).await.unwrap();
    for (query, mut stream, services, pods) in streams {
        let mut left: BTreeSet<String> = services.union(&pods).cloned().collect();
        while !left.is_empty() {
            let frame = stream.next().await;
            let name = name_of(&frame.data);
            assert!(!frame.data.to_string().contains(SECRET));
            assert!(
                services.contains(&name) || pods.contains(&name),
                "{query}: {frame:?}"
            );
            if frame.event == "deleted" {
                left.remove(&name);
                let reason = frame.data["reason"].as_str().unwrap();
                let known = [
                    "was deleted",
                    "pods stop first",
                    "last pod is gone",
                    "stopped by a user",
                ];
                assert!(known.iter().any(|known| reason.contains(known)), "{reason}");
            } else if frame.event == "pod" {
                assert_eq!(frame.data["desired"], json!("stop"), "{query}");
            }
        }
    }
}
