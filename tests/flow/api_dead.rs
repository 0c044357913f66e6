//! Dead letters over HTTP and by `leet dead`; and the alarm before Redis is full.

use std::time::Duration;

use kubeleet::model::{NodeState, Phase, PodId};
use kubeleet::store::MemoryState;

use crate::api::TestApi;
use crate::api_cli::leet;
use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn dead_letters_are_listed_shown_pushed_again_and_dropped() {
    let mut cluster = Cluster::start(1).await;
    let api = TestApi::of(&cluster).await;
    for number in 0..5 {
        cluster.push("sq", &format!("rubbish {number}")).await;
        cluster.dead_are(number + 1).await;
    }
    let (letters, pages) = api.all("/v1/dead", 2).await;
    assert_eq!((letters.len(), pages), (5, 3));
    assert_eq!(letters[0]["entry"], "rubbish 4", "newest first");
    let page = api.get("/v1/dead?limit=1").await;
    assert_eq!(
        (&page.body["count"], &page.body["dropped"]),
        (&5.into(), &0.into())
    );
    let id = letters[0]["id"].as_str().unwrap().to_owned();
    let shown = api.get(&format!("/v1/dead/{id}")).await;
    assert_eq!((shown.status, &shown.body), (200, &letters[0]));
    assert_eq!(shown.body["where"], "sq");
    assert_eq!(shown.body["whole"], true);

    // Pushed again as it is: once, and a letter once more.
    let again = api.post(&format!("/v1/dead/{id}/requeue"), "").await;
    assert_eq!(
        (again.status, &again.body["where"]),
        (200, &"sq".into()),
        "{again:?}"
    );
    cluster.dead_are(5).await;
    api.get(&format!("/v1/dead/{id}"))
        .await
        .assert_problem(404, "dead-letter-not-found");
    api.post(&format!("/v1/dead/{id}/requeue"), "")
        .await
        .assert_problem(404, "dead-letter-not-found");
    api.delete(&format!("/v1/dead/{id}"))
        .await
        .assert_problem(404, "dead-letter-not-found");
    for bad in ["x", "1", "-", "1-1-1", "%00", "1-99999999999999999999"] {
        for answer in [
            api.get(&format!("/v1/dead/{bad}")).await,
            api.delete(&format!("/v1/dead/{bad}")).await,
            api.post(&format!("/v1/dead/{bad}/requeue"), "").await,
        ] {
            answer.assert_problem(400, "invalid-request");
            assert_eq!(answer.body["field"], "id");
        }
    }
    for bad in ["/v1/dead?limit=0", "/v1/dead?cursor=x", "/v1/dead?all=true"] {
        api.get(bad).await.assert_problem(400, "invalid-request");
    }

    // Once what was wrong is mended, it runs: there was no room on its node.
    cluster.add_machine("small");
    let entry = format!(
        r#"{{"uuid":"late-1","name":"a","image":"{IMAGE}","resources":{{"memory":"1Ti"}}}}"#
    );
    cluster.push("pq:worker1", &entry).await;
    let letters = cluster.dead_are(6).await;
    assert!(letters[0].why.contains("no room"), "{letters:?}");
    let _: u64 = cluster
        .redis(&[
            "HSET",
            &cluster.key("node:worker1"),
            "memory",
            "9999999999999",
        ])
        .await;
    let pushed = leet(&api, &format!("dead requeue {} -o json", letters[0].id)).await;
    assert_eq!(pushed.json()[0]["where"], "pq:worker1", "{}", pushed.err);

    // What is left goes by hand.
    let table = leet(&api, "dead ls").await.out;
    assert!(
        table.contains("rubbish 4") && table.contains("ID"),
        "{table}"
    );
    let first = api.get("/v1/dead").await.texts("items", "id").remove(0);
    let shown = leet(&api, &format!("dead show {first}")).await.out;
    assert!(shown.contains("why:") && shown.contains(&first), "{shown}");
    assert_eq!(leet(&api, &format!("dead drop {first}")).await.code, 0);
    assert_eq!(leet(&api, &format!("dead drop {first}")).await.code, 1);
    assert_eq!(leet(&api, "dead drop --all").await.code, 0);
    assert_eq!(leet(&api, "dead ls -o json").await.out.trim(), "[]");
}

/// A small Redis that fills: first it is told, then creation is refused with the remedy, while heartbeats, reports
/// and deletions go on; with room again all is accepted.
#[tokio::test]
async fn creation_is_refused_before_redis_is_full_and_nothing_else() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |_| {}).await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let api = TestApi::of(&cluster).await;
    let web = cluster.submit("web", 5).await;
    cluster.all_in(&web, Phase::Running, 5).await;
    let ready = api.get("/readyz").await;
    assert_eq!(ready.body["memory"]["state"], "calm", "{ready:?}");

    // What is in use moves with the buffers of connections, so the bound follows it.
    let fill = async |percent: u64, state: &str| {
        eventually(SOON, "the API knows", async || {
            let memory = cluster.store.check_memory_state().await.unwrap();
            let max = (memory.used_bytes * 100 / percent).to_string();
            server.must(&["CONFIG", "SET", "maxmemory", &max]).await;
            let ready = api.get("/readyz").await;
            match ready.body["memory"]["state"].as_str() {
                Some(found) if found == state => Ok(()),
                _ => Err(format!("{ready:?}")),
            }
        })
        .await;
    };
    fill(77, "filling").await;
    let body = |name: &str| format!(r#"{{"name":"{name}","image":"{IMAGE}"}}"#);
    assert_eq!(api.post("/service", body("early")).await.status, 201);

    fill(92, "nearly-full").await;
    let refused = api.post("/service", body("late")).await;
    refused.assert_problem(507, "store-nearly-full");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("delete services") && detail.contains("maxmemory"),
        "{detail}"
    );
    api.post("/v1/services/web/scale", r#"{"replicas":6}"#)
        .await
        .assert_problem(507, "store-nearly-full");
    let put = api.put("/v1/services/late", body("late")).await;
    put.assert_problem(507, "store-nearly-full");
    // What stands is answered as ever, what shrinks or ends is let, and reports reach Redis.
    assert_eq!(api.post("/service", body("early")).await.status, 200);
    assert_eq!(
        api.post("/v1/services/web/scale", r#"{"replicas":4}"#)
            .await
            .status,
        200
    );
    cluster.all_in(&web, Phase::Running, 4).await;
    assert_eq!(api.delete("/v1/services/early").await.status, 202);
    eventually(SOON, "it is gone", async || {
        match api.get("/v1/services/early").await.status {
            404 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;

    // Full to the brim: no node is lost, though a lease goes by.
    server.must(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    cluster
        .while_time_passes(
            cluster.settings.heartbeat.lease + Duration::from_secs(1),
            || {},
        )
        .await;
    for node in ["worker1", "worker2"] {
        assert_eq!(cluster.node(node).await.unwrap().state, NodeState::Ready);
    }
    assert_eq!(cluster.all_running(SOON).await.len(), 4);
    assert_eq!(api.delete("/v1/services/web").await.status, 202);
    cluster.gone(&web).await;

    server.must(&["CONFIG", "SET", "maxmemory", "0"]).await;
    eventually(SOON, "there is room again", async || {
        match api.post("/service", body("late")).await.status {
            201 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    let state = cluster.store.check_memory_state().await.unwrap().state;
    assert_eq!(state, MemoryState::Calm);
    for kind in ["store-filling", "store-nearly-full", "store-calm"] {
        let told = api.get(&format!("/v1/events?kind={kind}")).await;
        assert!(
            !told.body["items"].as_array().unwrap().is_empty(),
            "{kind}: {told:?}"
        );
    }
    cluster
        .pod_in(
            &PodId::parse(&api.get("/v1/pods").await.texts("items", "id")[0]).unwrap(),
            Phase::Running,
        )
        .await;
}
