//! `leet events` and `leet describe` against a served API: what they print, and how they end.

use kubeleet::model::service::RestartPolicy;
use kubeleet::model::{EventFilter, Phase};
use serde_json::json;

use crate::api::TestApi;
use crate::api_cli::leet;
use crate::support::cluster::Cluster;

#[tokio::test]
async fn events_are_shown_a_line_each_or_as_json() {
    let cluster = Cluster::start(1).await;
    let api = TestApi::of(&cluster).await;
    let web = cluster.submit("web", 2).await;
    let pods = cluster.all_in(&web, Phase::Running, 2).await;
    let all = cluster.events(&EventFilter::default()).await;
    assert_eq!(all.len(), 1 + 1 + 4 * 2, "{all:#?}");

    let shown = leet(&api, "events").await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    let lines: Vec<&str> = shown.out.lines().collect();
    assert_eq!(lines.len(), all.len(), "{}", shown.out);
    for (line, parts) in [
        (
            lines[0],
            ["node-registered", "node worker1", "for the 1. time"],
        ),
        (
            lines[1],
            ["service-created", "service web", "user: wants 2"],
        ),
        (
            lines[2],
            ["waiting", " of web ", "user: its service wants 2"],
        ),
    ] {
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    let last = leet(&api, "events --tail 3 -o json").await;
    assert_eq!(last.json(), json!(all[all.len() - 3..]));
    assert_eq!(leet(&api, "events --tail 0").await.out, "");
    let one = &pods[0].id;
    let of_one = leet(&api, &format!("events --pod {one} -o json")).await;
    let kinds = of_one.json();
    let kinds = kinds.as_array().unwrap().iter();
    let kinds: Vec<&str> = kinds.map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["waiting", "scheduled", "starting", "running"]);
    let none = leet(&api, "events --node worker1 --kind failed").await;
    assert_eq!((none.code, none.out.as_str()), (0, ""));
    let bad = leet(&api, "events --kind Failed").await;
    assert_eq!(bad.code, 1);
    assert!(bad.err.contains("a word such as failed"), "{}", bad.err);
    let bad = leet(&api, "events -f --service A").await;
    assert_eq!(bad.code, 1);
    assert!(bad.err.contains("allowed is 1 to 63"), "{}", bad.err);
}

#[tokio::test]
async fn all_of_a_pod_a_service_and_a_node_is_described_with_how_it_came_to_be() {
    let cluster = Cluster::start(1).await;
    let api = TestApi::of(&cluster).await;
    let web = cluster
        .submit_spec("web", 2, |spec| {
            spec.env.insert("MODE".into(), "live".into());
            spec.restart.policy = RestartPolicy::Never;
        })
        .await;
    let pods = cluster.all_in(&web, Phase::Running, 2).await;
    let (one, other) = (&pods[0].id, &pods[1].id);
    assert!(
        cluster
            .engine("worker1")
            .end_pod(one, 3, Some("out of memory"))
    );
    cluster.pod_in(one, Phase::Failed).await;

    // However wide the columns are.
    let has = |out: &str, parts: &[&str]| {
        let words: Vec<&str> = out.split_whitespace().collect();
        let words = words.join(" ");
        for part in parts {
            assert!(words.contains(part), "{part:?}: {out}");
        }
    };
    let pod = leet(&api, &format!("describe pod {one}")).await;
    assert_eq!(pod.code, 0, "{}", pod.err);
    let why = "exited with code 3: out of memory";
    let parts = [
        &format!("Pod {one}"),
        "phase failed",
        "exit code 3",
        why,
        "Spec of default/web, revision 1",
        "env.MODE live",
        "Events",
    ];
    has(&pod.out, &parts);
    let kinds = ["waiting", "scheduled", "starting", "running", "failed"];
    let lines = pod.out.lines().rev().take(kinds.len());
    let lines: Vec<&str> = lines.collect();
    for (line, kind) in lines.iter().rev().zip(kinds) {
        assert!(line.contains(&format!("  {kind} ")), "{}", pod.out);
    }
    assert!(lines[0].contains(&format!("worker1: {why}")), "{}", pod.out);
    let pod = leet(&api, &format!("describe pod {one} -o json"))
        .await
        .json();
    assert_eq!(pod["pod"]["exit_code"], 3);
    assert_eq!(pod["service"]["spec"]["env"]["MODE"], "live");
    assert_eq!(pod["events"].as_array().unwrap().len(), kinds.len());

    let service = leet(&api, "describe service web").await;
    let parts = [
        "Service web",
        "running 1",
        "replicas 2",
        "Revisions: 1 are kept 1 spaster/alpine-sleep 20",
        "Pods: 2, 1 failed, 1 running",
        one.as_str(),
        other.as_str(),
        "service-created",
    ];
    has(&service.out, &parts);
    let service = leet(&api, "describe service web -o json").await.json();
    assert_eq!(service["pods"].as_array().unwrap().len(), 2);
    assert_eq!(service["revisions"][0]["revision"], 1);
    assert!(leet(&api, "describe service web --namespace x").await.code == 1);

    let node = leet(&api, "describe node worker1").await;
    let parts = [
        "Node worker1",
        "ready",
        "capacity.pods max",
        "pressure.known",
        "node-registered",
        other.as_str(),
    ];
    has(&node.out, &parts);

    // What is gone is explained by its events, and still is not there.
    cluster.store.services().delete(&web, None).await.unwrap();
    cluster.gone(&web).await;
    let gone = leet(&api, &format!("describe pod {other}")).await;
    assert_eq!(gone.code, 1);
    has(
        &gone.out,
        &["stopping", "stopped", "its service was deleted"],
    );
    assert!(gone.err.contains("there is no pod"), "{}", gone.err);
    let gone = leet(&api, "describe service web").await;
    assert_eq!(gone.code, 1);
    has(&gone.out, &["service-deleted"]);
    for nothing in ["pod nobody", "service none", "node nowhere"] {
        let ended = leet(&api, &format!("describe {nothing}")).await;
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{nothing}");
        assert!(!ended.err.is_empty());
    }
}
