//! `leet dev`: a whole cluster by one command, with real containers.

use std::net::TcpListener;
use std::time::Duration;

use kubeleet::settings::{RedisSettings, Secret};
use kubeleet::store::Store;
use kubeleet::store::connection::Redis;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    CalmMachine, Containers, END_LIMIT, IMAGE, LEET, Process, SOON, build_images, docker, post,
    send,
};
use crate::support::{RedisServer, eventually};

/// A running `leet dev`. Its containers are removed after its end, whatever it does.
struct Dev {
    process: Process,
    containers: Containers,
    _machine: CalmMachine,
    api: String,
    redis: String,
}

impl Dev {
    async fn start(arguments: &[&str]) -> Dev {
        build_images().await;
        let mut all = vec!["dev", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let machine = CalmMachine::new();
        let variables = [("KUBELEET_LOG__FORMAT", "human"), machine.variable()];
        let process = Process::start(LEET, &all, &variables);
        let line = eventually(SOON, "it is ready", async || {
            let out = process.out();
            let line = out.strip_suffix('\n').map(str::to_owned);
            line.ok_or_else(|| process.to_string())
        })
        .await;
        let said: Vec<&str> = line.split(['=', ' ']).collect();
        let [
            "kubeleet",
            "is",
            "ready:",
            "api",
            api,
            "redis",
            redis,
            "nodes",
            _,
        ] = said[..]
        else {
            panic!("not the line that was promised: {line:?}");
        };
        let settings = RedisSettings {
            url: Secret(redis.to_owned()),
            ..RedisSettings::default()
        };
        let store = Store::new(Redis::connect(&settings, CancellationToken::new()), "");
        let cluster = store.open().await.expect("its Redis answers");
        Dev {
            containers: Containers::of(&cluster),
            api: api.strip_prefix("http://").expect("a URL").to_owned(),
            redis: redis.to_owned(),
            process,
            _machine: machine,
        }
    }

    async fn submit(&self, body: &Value) -> Value {
        let answer = post(&self.api, "/service", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.body
    }

    /// What a command of `leet` prints.
    async fn leet(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--api", self.api.as_str()];
        all.extend(arguments);
        all.extend(["-o", "json"]);
        let ended = Process::run(LEET, &all, &[]).await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.out).expect("it is JSON")
    }

    /// Waits until nobody answers where its Redis was.
    async fn redis_is_gone(&self) {
        let address = self.redis.strip_prefix("redis://").expect("a URL");
        eventually(
            END_LIMIT,
            "its Redis is gone",
            async || match TcpStream::connect(address).await {
                Err(_) => Ok(()),
                Ok(_) => Err("it still listens".to_owned()),
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_service_becomes_containers_that_docker_and_leet_agree_about() {
    let mut dev = Dev::start(&["--nodes", "3"]).await;
    assert!(dev.process.out().ends_with(" nodes=3\n"));
    let made = dev
        .submit(&json!({
            "name": "web", "image": IMAGE, "replica": 3,
            "command": ["sleep"], "args": ["1000"],
            "env": {"GREETING": "hello"}, "labels": {"team": "blue"},
            "resources": {"cpu": 0.1, "memory": "16Mi"}, "ports": [8000],
        }))
        .await;
    assert_eq!(made["pods"].as_array().map(Vec::len), Some(3), "{made}");
    let containers = dev.containers.settle(3, SOON).await;
    for (replica, container) in containers.iter().enumerate() {
        check_container(container, replica);
    }
    agree(&dev, 3).await;

    dev.leet(&["scale", "web", "5"]).await;
    dev.containers.settle(5, SOON).await;
    agree(&dev, 5).await;
    dev.leet(&["scale", "web", "1"]).await;
    let left = dev.containers.settle(1, SOON).await;
    let replica = left[0]["Config"]["Labels"]["kubeleet.replica"].as_str();
    let replica = replica.and_then(|replica| replica.parse().ok());
    check_container(&left[0], replica.expect("its replica"));
    dev.leet(&["rm", "web"]).await;
    dev.containers.settle(0, SOON).await;

    dev.process.end_by("INT").await;
    dev.redis_is_gone().await;
    assert_eq!(dev.process.out().lines().count(), 1, "{}", dev.process);
}

fn check_container(container: &Value, replica: usize) {
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let labels = &config["Labels"];
    let pod = labels["kubeleet.pod"].as_str().expect("the pod's id");
    assert_eq!(container["Name"], format!("/web-{replica}-{}", &pod[..8]));
    assert_eq!(labels["orchestrator"], "kubeleet");
    assert_eq!(labels["kubeleet.service"], "default/web");
    assert_eq!(labels["kubeleet.replica"], replica.to_string());
    assert_eq!(labels["team"], "blue");
    assert_eq!(config["Entrypoint"], json!(["sleep"]));
    assert_eq!(config["Cmd"], json!(["1000"]));
    let env = config["Env"].as_array().expect("variables");
    assert!(env.contains(&json!("GREETING=hello")), "{env:?}");
    assert_eq!(host["NanoCpus"], 100_000_000);
    assert_eq!(host["Memory"], 16 << 20);
    let bound = &container["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostPort"];
    assert!(bound.as_str().is_some_and(|port| port != "0"), "{bound}");
}

/// `docker ps` shows the very containers that `leet ps` shows, spread over the nodes.
async fn agree(dev: &Dev, count: usize) {
    let pods = eventually(SOON, "all pods are told to run", async || {
        let pods = dev.leet(&["ps", "--phase", "running"]).await;
        let pods = pods.as_array().expect("a list").clone();
        if pods.len() == count {
            Ok(pods)
        } else {
            Err(format!("{pods:?}"))
        }
    })
    .await;
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut told: Vec<String> = pods.iter().map(|pod| text(&pod["container"])).collect();
    let filter = format!("label={}", dev.containers.label());
    let shown = docker(&["ps", "-q", "--no-trunc", "--filter", &filter]);
    let mut shown: Vec<String> = shown.lines().map(str::to_owned).collect();
    told.sort();
    shown.sort();
    assert_eq!(told, shown);
    let nodes: std::collections::BTreeSet<String> =
        pods.iter().map(|pod| text(&pod["node"])).collect();
    assert_eq!(
        nodes.into_iter().collect::<Vec<_>>(),
        ["node1", "node2", "node3"]
    );
}

#[tokio::test]
async fn sigterm_ends_it_with_its_containers() {
    let mut dev = Dev::start(&[]).await;
    dev.submit(&json!({"name": "web", "image": IMAGE, "replicas": 2}))
        .await;
    dev.containers.settle(2, SOON).await;
    dev.process.end_by("TERM").await;
    dev.redis_is_gone().await;
    assert_eq!(dev.containers.all().await, Vec::<Value>::new());
}

#[tokio::test]
async fn containers_are_kept_where_that_is_asked_for() {
    let mut dev = Dev::start(&["--keep"]).await;
    dev.submit(&json!({"name": "web", "image": IMAGE})).await;
    let before = dev.containers.settle(1, SOON).await;
    dev.process.end_by("INT").await;
    dev.redis_is_gone().await;
    let after = dev.containers.running().await;
    assert_eq!(after[0]["State"], before[0]["State"], "still the same run");
}

#[tokio::test]
async fn kill_9_takes_its_redis_with_it() {
    let mut dev = Dev::start(&["--runtime", "simulated", "--nodes", "2"]).await;
    dev.process.kill9();
    dev.redis_is_gone().await;
}

#[tokio::test]
async fn a_given_redis_is_used_and_left_running() {
    let redis = RedisServer::start().await;
    let arguments = ["--runtime", "simulated", "--redis", &redis.url()];
    let mut dev = Dev::start(&arguments).await;
    assert_eq!(dev.redis, redis.url());
    dev.submit(&json!({"name": "web", "image": IMAGE, "replicas": 4}))
        .await;
    eventually(SOON, "all run", async || {
        let answer = send(&dev.api, "GET", "/v1/services/web", None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.body["running"] == 4 {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    dev.process.end_by("TERM").await;
    redis.must(&["PING"]).await;
}

#[tokio::test]
async fn without_a_redis_server_it_says_how_to_get_one() {
    let ended = Process::run(LEET, &["dev", "--runtime", "simulated"], &[("PATH", "")]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in ["redis-server", "apt-get install", "--redis"] {
        assert!(ended.err.contains(words), "{words}: {ended:?}");
    }
    assert_eq!(ended.out, "");
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = busy.local_addr().expect("its address").to_string();
    let arguments = ["dev", "--runtime", "simulated", "--listen", &address];
    let ended = Process::run(LEET, &arguments, &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for words in [address.as_str(), "--listen", "in use"] {
        assert!(ended.err.contains(words), "{words}: {ended:?}");
    }
}

#[tokio::test]
async fn a_signal_before_it_is_ready_ends_it_too() {
    let mut process = Process::start(LEET, &["dev", "--listen", "127.0.0.1:0"], &[]);
    // Whatever it is at: only its signal handlers have to stand.
    eventually(
        Duration::from_secs(10),
        "it listens to signals",
        async || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
            let status = status.map_err(|error| error.to_string())?;
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16);
            // SIGTERM is the 15th.
            if caught.is_ok_and(|set| set & (1 << 14) != 0) {
                Ok(())
            } else {
                Err(status)
            }
        },
    )
    .await;
    process.end_by("TERM").await;
}
