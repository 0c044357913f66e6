//! Devices given to containers by Docker: declared ones of the node, each to one pod, in its device
//! list and its environment; who finds none waits until one is free.

use kubeleet::model::{Phase, Pod};
use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, SOON, Timing, build_images, docker};
use crate::support::{RedisServer, eventually};

fn description(id: &str) -> String {
    let resources = json!({"devices": {"gpu": 1}, "disk": "1k", "requests": {"pids": 10}});
    let pod = json!({"name": id, "uuid": id, "image": IMAGE, "resources": resources});
    pod.to_string()
}

#[tokio::test]
async fn each_pod_gets_a_device_of_its_own_and_the_third_waits() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    // Nothing else is allowed there: what is declared is given all the same.
    let settings = [(
        "KUBELEET_AGENT__DEVICES",
        "gpu/0:/dev/full,gpu/1:/dev/random",
    )];
    let _agent = cluster.agent("worker1", &settings).await;
    let _scheduler = cluster.scheduler();
    for id in ["one", "two"] {
        redis.must(&["LPUSH", "sq", &description(id)]).await;
        cluster.pod_in(id, Phase::Running).await;
    }
    let containers = cluster.containers.all().await;
    let of = |id: &str| -> &Value {
        let is = |it: &&Value| it["Config"]["Labels"]["kubeleet.pod"] == id;
        containers.iter().find(is).expect("its container")
    };
    for (pod, device, path) in [("one", "0", "/dev/full"), ("two", "1", "/dev/random")] {
        let seen = of(pod);
        let devices = seen["HostConfig"]["Devices"].as_array().expect("devices");
        assert_eq!(devices.len(), 1, "{devices:?}");
        assert_eq!(devices[0]["PathOnHost"], path);
        assert_eq!(devices[0]["PathInContainer"], path);
        let env = seen["Config"]["Env"].to_string();
        assert!(
            env.contains(&format!("\"KUBELEET_DEVICES_GPU={device}\"")),
            "{env}"
        );
        assert_eq!(
            seen["Config"]["Labels"]["kubeleet.devices"],
            format!("gpu/{device}")
        );
        let id = seen["Id"].as_str().expect("its id");
        assert_eq!(
            docker(&["exec", id, "stat", "-c", "%F", path]).trim(),
            "character special file"
        );
    }
    redis.must(&["LPUSH", "sq", &description("three")]).await;
    let lacks = "0 of 1 nodes: 1 lack gpu (1 needed, at most 0 free)";
    let waits = |pod: &Pod| pod.phase == Phase::Waiting && pod.reason.as_deref() == Some(lacks);
    cluster.pod_is("three", "told what is lacking", waits).await;

    let one = kubeleet::model::PodId::parse("one").expect("an id");
    cluster
        .store
        .pods()
        .stop(&one)
        .await
        .expect("it is told to stop");
    let three = cluster.pod_in("three", Phase::Running).await;
    assert_eq!(three.devices, ["gpu/0"], "what the first had");
    eventually(SOON, "the node says so", async || {
        let node = cluster
            .store
            .nodes()
            .get("worker1", Timing::REAL.lease)
            .await;
        let node = node.ok().flatten().ok_or("no node")?;
        let asked = (
            node.asked.of("gpu"),
            node.asked.of("disk"),
            node.asked.of("pids"),
        );
        let offers = node.offers.of("disk") > 0 && node.offers.of("pids") > 0;
        if asked == (2, 2048, 20) && offers {
            Ok(())
        } else {
            Err(format!("{node:?}"))
        }
    })
    .await;
}
