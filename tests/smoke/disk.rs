//! A disk that is too full: unused images go, and no other does.

use kubeleet::model::Phase;
use serde_json::json;

use crate::harness::{Cluster, PrivateEngine, SOON, Timing};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn unused_images_go_when_the_disk_is_too_full_and_no_other() {
    let engine = PrivateEngine::start().await;
    let unused = ["unused:1", "unused:2", "unused:3", "unused:4"];
    engine.build(&unused);
    engine.build(&["foreign:1", "ours:1"]);
    engine.docker(&[
        "create",
        "--name",
        "foreign",
        "--network",
        "none",
        "foreign:1",
    ]);
    engine.docker(&[
        "commit",
        "--change",
        "LABEL kubeleet.keep=yes",
        "foreign",
        "kept:1",
    ]);

    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let socket = engine.socket();
    let mut settings = vec![
        ("KUBELEET_NODE__DOCKER_SOCKET", socket.as_str()),
        ("KUBELEET_AGENT__IMAGE_UNUSED", "0s"),
        ("KUBELEET_AGENT__IMAGES_KEPT", "1"),
    ];
    let names = || -> Vec<String> {
        let listed = engine.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    // By the defaults nothing goes: whatever the disk, each image was seen just now.
    let agent = cluster.agent("worker1", &settings[..1]).await;
    let pod = json!({"name": "web", "uuid": "web-1", "image": "ours:1", "network": "none"});
    redis.must(&["LPUSH", "pq:worker1", &pod.to_string()]).await;
    cluster.pod_in("web-1", Phase::Running).await;
    assert_eq!(names().len(), 7);
    drop(agent);

    settings.push(("KUBELEET_AGENT__IMAGE_DISK_HIGH", "0.002"));
    settings.push(("KUBELEET_AGENT__IMAGE_DISK_LOW", "0.001"));
    let agent = cluster.agent("worker1", &settings).await;
    let left = eventually(SOON, "one unused image is left", async || {
        let names = names();
        match names
            .iter()
            .filter(|name| name.starts_with("unused"))
            .count()
        {
            1 => Ok(names),
            _ => Err(format!("{names:?}; {agent}")),
        }
    })
    .await;
    assert_eq!(left.len(), 4, "{left:?}");
    for name in ["foreign:1", "kept:1", "ours:1"] {
        assert!(left.contains(&name.to_owned()), "{left:?}");
    }
    agent
        .logged("unused image removed, the disk was too full")
        .await;
    cluster.pod_in("web-1", Phase::Running).await;
    drop(agent);
    drop(cluster);
    drop(engine);
}
