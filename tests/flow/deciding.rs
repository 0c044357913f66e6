//! Why pods are where they are: what schedulers record, what the API and `leet` make of it.

use kubeleet::model::{Decision, Phase, PodId, ServiceKey, ServiceSpec};
use kubeleet::replay::{self, Changes};
use serde_json::Value;

use crate::api::TestApi;
use crate::api_cli::{Ended, leet};
use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::eventually;

async fn ok(api: &TestApi, line: &str) -> Ended {
    let ended = leet(api, line).await;
    assert_eq!(ended.code, 0, "{line}: {}", ended.err);
    ended
}

/// What the API says of a pod, once its decision is kept.
async fn explained(api: &TestApi, pod: &PodId) -> Value {
    let path = format!("/v1/pods/{pod}/explain");
    eventually(SOON, "the decision is kept", async || {
        let answer = api.get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        match answer.body["decision"].is_object() {
            true => Ok(answer.body),
            false => Err(format!("{:?}", answer.body)),
        }
    })
    .await
}

fn wishes(placement: &str) -> impl FnOnce(&mut ServiceSpec) {
    let placement = serde_json::from_str(placement).unwrap();
    |spec: &mut ServiceSpec| spec.placement = placement
}

async fn first_pod(cluster: &Cluster, service: &ServiceKey) -> PodId {
    cluster.pods(Some(service)).await[0].id.clone()
}

#[tokio::test]
async fn a_pod_says_why_it_is_where_it_is_or_why_it_waits() {
    let cluster = Cluster::start(3).await;
    let api = TestApi::of(&cluster).await;
    let spread = wishes(r#"{"max_per_node":1}"#);
    let web = cluster.submit_spec("web", 3, spread).await;
    let pods = cluster.all_in(&web, Phase::Running, 3).await;
    let told = explained(&api, &pods[2].id).await;
    assert_eq!(told["node"], pods[2].node.as_deref().unwrap());
    assert_eq!(told["phase"], "running");
    assert!(told["note"].is_null(), "{told}");
    let decision = &told["decision"];
    assert_eq!(decision["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(decision["rules"][0]["service"], "default/web");
    let candidate = &decision["kinds"][0]["candidates"][0];
    assert!(
        candidate["terms"]["pressure_memory"].is_number(),
        "{candidate}"
    );
    let shown = ok(&api, &format!("explain {}", pods[2].id)).await.out;
    let node = pods[2].node.as_deref().unwrap();
    let chosen = shown.lines().find(|line| line.contains("chosen"));
    assert!(chosen.unwrap().contains(node), "{shown}");
    assert!(
        shown.contains("of web: running on") && shown.contains("PRESSURE_IO"),
        "{shown}"
    );
    assert!(shown.contains("have 1 of the service"), "{shown}");

    // One that waits, with the nodes that do not take it by why.
    let nowhere = wishes(r#"{"constraints":["zone=eu"]}"#);
    let waits = cluster.submit_spec("nowhere", 1, nowhere).await;
    let reason = "0 of 3 nodes: 3 do not meet zone=eu";
    cluster.waits_because(&waits, reason).await;
    let pod = first_pod(&cluster, &waits).await;
    let told = explained(&api, &pod).await;
    assert_eq!(
        (&told["phase"], &told["reason"]),
        (&"waiting".into(), &reason.into())
    );
    let refused = &told["decision"]["kinds"][0]["refused"][0];
    assert_eq!(
        (&refused["nodes"], &refused["why"]),
        (&3.into(), &"do not meet zone=eu".into())
    );
    let shown = ok(&api, &format!("explain {pod}")).await.out;
    for words in [
        reason,
        "0 of 3 nodes take it",
        "3 of 3 nodes do not meet zone=eu",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    cluster.scale(&waits, 0).await;

    // One that nobody decided, and one that is not there.
    let raw = format!(r#"{{"name":"hand","uuid":"by-hand","image":"{IMAGE}"}}"#);
    cluster.push("pq:worker1", &raw).await;
    let pod = PodId::parse("by-hand").unwrap();
    cluster.pod_in(&pod, Phase::Running).await;
    let told = api.get("/v1/pods/by-hand/explain").await.body;
    assert!(told["decision"].is_null());
    assert!(told["note"].as_str().unwrap().contains("by hand"), "{told}");
    let shown = ok(&api, "explain by-hand").await.out;
    assert!(
        shown.contains("running on worker1") && shown.contains("by hand"),
        "{shown}"
    );
    let absent = api.get("/v1/pods/nobody/explain").await;
    absent.assert_problem(404, "pod-not-found");
    api.get("/v1/pods/nobody/explain?x=1")
        .await
        .assert_problem(400, "invalid-request");

    // What is not kept any more.
    let _: u64 = cluster.redis(&["DEL", &cluster.key("decisions")]).await;
    for key in cluster.keys_like("decision:*").await {
        let _: u64 = cluster.redis(&["DEL", &cluster.key(&key)]).await;
    }
    let told = api
        .get(&format!("/v1/pods/{}/explain", pods[0].id))
        .await
        .body;
    assert!(
        told["note"].as_str().unwrap().contains("not kept"),
        "{told}"
    );
    cluster.end().await;
}

#[tokio::test]
async fn decisions_are_planned_again_offline() {
    let mut cluster = Cluster::start(3).await;
    cluster.add_scheduler();
    let api = TestApi::of(&cluster).await;
    for (name, placement) in [
        ("plain", "{}"),
        ("apart", r#"{"max_per_node":2}"#),
        ("turns", r#"{"strategy":"round-robin"}"#),
        ("chance", r#"{"strategy":"random"}"#),
        ("own", r#"{"score":"node_pods + pressure_io"}"#),
    ] {
        let service = cluster.submit_spec(name, 4, wishes(placement)).await;
        let pods = cluster.all_in(&service, Phase::Running, 4).await;
        explained(&api, &pods[0].id).await;
    }
    let answer = api.get("/v1/decisions?limit=1000").await;
    assert_eq!(answer.status, 200);
    let items = answer.body["items"].clone();
    let decisions: Vec<Decision> = serde_json::from_value(items).unwrap();
    assert!(decisions.len() >= 5, "{decisions:?}");
    let same = replay::replay(&decisions, &Changes::default());
    assert_eq!((same.decisions, same.left_out), (decisions.len(), 0));
    assert!(same.differ.is_empty() && same.pods >= 20, "{same:?}");
    let ended = ok(&api, "replay").await;
    assert!(ended.out.contains(" 0 differ"), "{}", ended.out);

    // Without a node its pods are elsewhere, and no other pod goes there.
    let on = |decision: &Decision| {
        decision
            .pods
            .iter()
            .any(|pod| pod.node.as_deref() == Some("worker2"))
    };
    assert!(decisions.iter().any(on));
    let ended = ok(&api, "replay --without worker2 -o json").await.json();
    let differ = ended["differ"].as_array().unwrap();
    assert!(
        !differ.is_empty() && differ.iter().all(|it| it["to"] != "worker2"),
        "{ended}"
    );
    let all_away = decisions
        .iter()
        .flat_map(|it| &it.pods)
        .filter(|it| it.node.as_deref() == Some("worker2"));
    for pod in all_away {
        assert!(
            differ.iter().any(|it| it["pod"] == pod.id.as_str()),
            "{pod:?}"
        );
    }
    let ended = ok(&api, "replay --strategy first-fit --weights pods=1,cpu=0").await;
    assert!(
        ended.out.contains("worker1") && !ended.out.contains(" 0 differ"),
        "{}",
        ended.out
    );

    // From a file, without any API.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &answer.bytes).unwrap();
    let path = file.path().display();
    let ended = ok(&api, &format!("replay --file {path}")).await;
    assert!(ended.out.contains(" 0 differ"), "{}", ended.out);
    std::fs::write(file.path(), "{}").unwrap();
    let ended = leet(&api, &format!("replay --file {path}")).await;
    assert!(
        ended.code == 2 && ended.err.contains("no decisions"),
        "{}",
        ended.err
    );
    let ended = leet(&api, "replay --weights cpus=1").await;
    assert!(
        ended.code == 2 && ended.err.contains("known are"),
        "{}",
        ended.err
    );

    let newest = decisions[0].time_ms;
    let since = api.get(&format!("/v1/decisions?since={newest}")).await.body;
    assert_eq!(since["items"].as_array().unwrap().len(), 1, "{since}");
    for wrong in ["since=x", "limit=0", "limit=1001", "x=1"] {
        let answer = api.get(&format!("/v1/decisions?{wrong}")).await;
        answer.assert_problem(400, "invalid-request");
    }
    cluster.end().await;
}
