//! Devices from a wish to a container: each is one pod's, who finds none waits and says so, an update
//! goes through though all are in use, and a lost store leaves them to those that have them.

use std::collections::BTreeSet;
use std::time::Duration;

use kubeleet::model::{Phase, Pod, ServiceSpec};
use kubeleet::settings::DeviceSettings;

use crate::support::cluster::Cluster;
use crate::support::{RedisServer, eventually};

const SOON: Duration = Duration::from_secs(20);

fn gpu(id: &str) -> DeviceSettings {
    DeviceSettings {
        kind: "gpu".to_owned(),
        id: id.to_owned(),
        paths: vec![format!("/dev/gpu{id}")],
        env: [("MODEL".to_owned(), format!("m{id}"))].into(),
    }
}

/// Two nodes with two devices each, 10 KiB of disk, and two schedulers.
async fn with_devices(url: &str) -> Cluster {
    let mut cluster = Cluster::on(url, |settings| {
        settings.agent.devices = vec![gpu("0"), gpu("1")];
        settings.node.disk = "10k".to_owned();
        settings.redis.recovery_time = Duration::from_secs(1);
        settings.agent.resync_interval = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    cluster.add_scheduler();
    cluster
}

fn one_gpu(spec: &mut ServiceSpec) {
    spec.resources.devices.insert("gpu".to_owned(), 1);
}

/// Which device of which node each pod has.
fn held(pods: &[Pod]) -> BTreeSet<(String, String)> {
    let devices = pods.iter().flat_map(|pod| {
        let node = pod.node.clone().unwrap_or_default();
        pod.devices
            .iter()
            .map(move |device| (node.clone(), device.clone()))
    });
    devices.collect()
}

fn all_four() -> BTreeSet<(String, String)> {
    let name = |node: &str, device: &str| (node.to_owned(), device.to_owned());
    BTreeSet::from([
        name("worker1", "gpu/0"),
        name("worker1", "gpu/1"),
        name("worker2", "gpu/0"),
        name("worker2", "gpu/1"),
    ])
}

#[tokio::test]
async fn each_device_is_one_pods_and_who_finds_none_waits() {
    let server = RedisServer::start().await;
    let cluster = with_devices(&server.url()).await;
    let train = cluster.submit_spec("train", 4, one_gpu).await;
    let pods = cluster.all_in(&train, Phase::Running, 4).await;
    assert_eq!(held(&pods), all_four());
    for (node, container) in cluster.live() {
        let given = cluster
            .engine(&node)
            .given(&container.pod)
            .expect("it was made");
        let id = container.devices[0].trim_start_matches("gpu/").to_owned();
        assert_eq!(given.paths, [format!("/dev/gpu{id}")]);
        assert_eq!(given.env["KUBELEET_DEVICES_GPU"], id);
        assert_eq!(given.env["MODEL"], format!("m{id}"));
    }
    let more = cluster.submit_spec("more", 1, |spec| {
        spec.resources.devices.insert("gpu".to_owned(), 2);
    });
    let more = more.await;
    cluster
        .waits_because(&more, "0 of 2 nodes: 2 lack gpu (2 needed, at most 0 free)")
        .await;
    let large = cluster
        .submit_spec("large", 1, |spec| spec.resources.disk_bytes = 1 << 20)
        .await;
    cluster
        .waits_because(
            &large,
            "0 of 2 nodes: 2 lack disk (1 MiB needed, at most 10 KiB free)",
        )
        .await;
    let node = cluster.node("worker1").await.expect("it is there");
    assert_eq!((node.asked.of("gpu"), node.offers.of("gpu")), (2, 2));
    assert_eq!(node.offers.of("disk"), 10 << 10);

    cluster.store.services().delete(&large, None).await.unwrap();
    cluster.gone(&large).await;
    cluster.scale(&train, 1).await;
    let got = cluster.all_in_within(SOON, &more, Phase::Running, 1).await;
    assert_eq!(got[0].devices, ["gpu/0", "gpu/1"]);
    cluster.end().await;
}

#[tokio::test]
async fn an_update_goes_through_though_all_devices_are_in_use() {
    let server = RedisServer::start().await;
    let cluster = with_devices(&server.url()).await;
    let train = cluster.submit_spec("train", 4, one_gpu).await;
    cluster.all_in(&train, Phase::Running, 4).await;
    cluster
        .apply("train", |spec| {
            one_gpu(spec);
            spec.args = vec!["two".to_owned()];
        })
        .await;
    eventually(SOON, "all are of the second revision", async || {
        let pods = cluster.pods(Some(&train)).await;
        let new = pods
            .iter()
            .filter(|pod| pod.revision == 2 && pod.ready)
            .count();
        if new == 4 && pods.len() == 4 && held(&pods) == all_four() {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    cluster.end().await;
}

#[tokio::test]
async fn a_lost_store_leaves_devices_to_those_that_have_them() {
    let server = RedisServer::start().await;
    let cluster = with_devices(&server.url()).await;
    let train = cluster.submit_spec("train", 3, one_gpu).await;
    let pods = cluster.all_in(&train, Phase::Running, 3).await;
    let before: BTreeSet<_> = pods
        .iter()
        .map(|pod| (pod.id.clone(), pod.devices.clone()))
        .collect();
    let live = cluster.live_ids();
    let _: String = cluster.redis(&["FLUSHALL"]).await;
    eventually(SOON, "all is as it was", async || {
        let pods = cluster.pods(Some(&train)).await;
        let now: BTreeSet<_> = pods
            .iter()
            .map(|pod| (pod.id.clone(), pod.devices.clone()))
            .collect();
        let running = pods.iter().all(|pod| pod.phase == Phase::Running);
        if now == before && running {
            Ok(())
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    assert_eq!(cluster.live_ids(), live, "no container was touched");
    eventually(SOON, "the recovery is over", async || {
        let scaled = cluster
            .store
            .services()
            .scale(&train, 4, "more", None)
            .await;
        scaled.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let pods = cluster.all_in_within(SOON, &train, Phase::Running, 4).await;
    assert_eq!(held(&pods), all_four(), "the last one gets the free one");
    cluster.end().await;
}
