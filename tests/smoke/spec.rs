//! A spec in the engine: every field is seen there, secrets are seen nowhere.

use kubeleet::model::Phase;
use serde_json::{Value, json};

use crate::by_hand::Worker;
use crate::harness::{
    Cluster, IMAGE, LEET, Process, SOON, Timing, any_name, build_images, docker, get, post,
};
use crate::support::{RedisServer, eventually, free_port};

/// All that a node can be told to allow, as far as the test needs it.
const ALLOW: [(&str, &str); 4] = [
    ("KUBELEET_AGENT__ALLOW__PRIVILEGED", "true"),
    ("KUBELEET_AGENT__ALLOW__DEVICES", "/dev/nul*"),
    ("KUBELEET_AGENT__ALLOW__CAPABILITIES", "NET_ADMIN"),
    ("KUBELEET_AGENT__ALLOW__BINDS", "/tmp"),
];

/// A volume of the engine, removed on drop. Declare it before what uses it.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let remove = ["volume", "rm", "-f", &self.0];
        let _ = std::process::Command::new("docker").args(remove).output();
    }
}

/// A network of the engine, removed on drop. Declare it before what uses it.
struct Network(String);

impl Drop for Network {
    fn drop(&mut self) {
        let remove = ["network", "rm", &self.0];
        let _ = std::process::Command::new("docker").args(remove).output();
    }
}

/// A wish with every field that reaches a container.
fn whole_wish(bind: &str, volume: &str, port: u16) -> Value {
    json!({
        "name": "whole", "image": IMAGE,
        "command": ["sh", "-c"], "args": ["trap 'exit 3' INT; while :; do sleep 0.1; done"],
        "env": {"GREETING": "hello = world", "EMPTY": ""},
        "working_dir": "/tmp", "user": "1000:1001", "labels": {"team": "blue"},
        "resources": {"cpu": 0.25, "memory": "32Mi", "memory_swap": "64Mi", "pids": 50, "shm": "8Mi"},
        "ports": [format!("{port}:80"), 8000, "53/udp"],
        "mounts": [
            {"type": "bind", "source": bind, "target": "/bound", "read_only": true},
            {"type": "volume", "source": volume, "target": "/data"},
            {"type": "tmpfs", "target": "/scratch", "size": "4Mi"},
        ],
        "files": [
            {"path": "/etc/deep/app.conf", "content": "key = 1\n", "mode": "0640", "uid": 1000, "gid": 7},
            {"path": "/data/blob", "base64": "AP8=", "secret": true},
        ],
        "ulimits": {"nofile": {"soft": 512, "hard": 1024}},
        "capabilities": {"add": ["NET_ADMIN"], "drop": ["NET_RAW"]},
        "devices": [{"host": "/dev/null", "container": "/dev/nothing", "permissions": "rw"}],
        "network": "bridge", "dns": ["9.9.9.9"], "extra_hosts": {"db": "10.0.0.7"},
        "init": true, "stop": {"signal": "SIGINT", "grace": "1500ms"},
        "health": {"engine": false}, "restart": {"policy": "never"}, "pull": "never",
    })
}

/// What the engine must show of it, by place.
fn whole_expectation(bind: &str, volume: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("/Config/Entrypoint", json!(["sh", "-c"])),
        ("/Config/WorkingDir", json!("/tmp")),
        ("/Config/User", json!("1000:1001")),
        ("/Config/Labels/team", json!("blue")),
        ("/Config/StopSignal", json!("SIGINT")),
        ("/Config/StopTimeout", json!(2)),
        ("/Config/Healthcheck/Test", json!(["NONE"])),
        ("/HostConfig/NanoCpus", json!(250_000_000)),
        ("/HostConfig/Memory", json!(32 << 20)),
        ("/HostConfig/MemorySwap", json!(64 << 20)),
        ("/HostConfig/PidsLimit", json!(50)),
        ("/HostConfig/ShmSize", json!(8 << 20)),
        (
            "/HostConfig/Mounts",
            json!([
                {"Type": "bind", "Source": bind, "Target": "/bound", "ReadOnly": true},
                {"Type": "volume", "Source": volume, "Target": "/data"},
                {"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 4 << 20}},
            ]),
        ),
        (
            "/HostConfig/Ulimits",
            json!([{"Name": "nofile", "Soft": 512, "Hard": 1024}]),
        ),
        ("/HostConfig/CapAdd", json!(["NET_ADMIN"])),
        ("/HostConfig/CapDrop", json!(["NET_RAW"])),
        (
            "/HostConfig/Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rw"}]),
        ),
        ("/HostConfig/NetworkMode", json!("bridge")),
        ("/HostConfig/Dns", json!(["9.9.9.9"])),
        ("/HostConfig/ExtraHosts", json!(["db:10.0.0.7"])),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/Privileged", json!(false)),
        ("/HostConfig/ReadonlyRootfs", json!(false)),
    ]
}

/// Runs a line in a container.
fn within(container: &str, line: &str) -> String {
    docker(&["exec", "-u", "0", container, "sh", "-c", line])
}

#[tokio::test]
async fn every_field_of_a_spec_is_seen_in_the_engine() {
    build_images().await;
    let folder = tempfile::tempdir().expect("a folder");
    let bind = folder.path().display().to_string();
    std::fs::write(folder.path().join("word"), "from the node").expect("a file");
    let port = free_port();
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let volume = Volume(format!("kubeleet-{port}"));
    let _agent = cluster.agent("worker1", &ALLOW).await;
    let _scheduler = cluster.scheduler();
    let (_api, address) = cluster.api().await;

    let submitted = post(&address, "/service", &whole_wish(&bind, &volume.0, port)).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    let pods = cluster.all_run(1, SOON).await;
    let seen = cluster.containers.settle(1, SOON).await.remove(0);
    for (place, expected) in whole_expectation(&bind, &volume.0) {
        assert_eq!(seen.pointer(place), Some(&expected), "{place}");
    }
    let env = seen["Config"]["Env"].as_array().expect("variables");
    for variable in ["GREETING=hello = world", "EMPTY="] {
        assert!(env.contains(&json!(variable)), "{env:?}");
    }
    let id = seen["Id"].as_str().expect("an id");
    for (line, said) in [
        (
            "cat /etc/deep/app.conf; stat -c '%a %u %g' /etc/deep/app.conf",
            "key = 1\n640 1000 7",
        ),
        (
            "stat -c '%a %u %g' /etc/deep /data/blob",
            "755 0 0\n444 0 0",
        ),
        ("od -An -tx1 /data/blob", "00 ff"),
        (
            "cat /bound/word; touch /bound/x 2>/dev/null || echo ' only'",
            "from the node only",
        ),
        (
            "df -k /scratch /dev/shm | awk 'NR > 1 {print $2}'",
            "4096\n8192",
        ),
        ("grep -c . /dev/nothing", ""),
        (
            "awk '/10.0.0.7/ {print $2}' /etc/hosts; grep nameserver /etc/resolv.conf",
            "db\nnameserver 9.9.9.9",
        ),
    ] {
        let said_now = within(id, &format!("{line}; true"));
        let expected = if said.is_empty() { "0" } else { said };
        assert_eq!(said_now.trim(), expected, "{line}");
    }

    // The ports that were chosen are told, by the API and by the command line.
    let bound = |name: &str| {
        let port = &seen["NetworkSettings"]["Ports"][name][0]["HostPort"];
        format!("{}:{name}", port.as_str().expect("a port"))
    };
    let ports = [format!("{port}:80/tcp"), bound("8000/tcp"), bound("53/udp")];
    assert_eq!(pods[0].ports, ports);
    let told = get(&address, "/v1/pods").await.body;
    assert_eq!(told["items"][0]["ports"], json!(ports));
    let variables = [("KUBELEET_API", format!("http://{address}"))];
    let variables = variables
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    let ps = Process::run(LEET, &["ps"], &variables).await;
    assert!(ps.out.contains(&ports.join(", ")), "{ps:?}");
}

#[tokio::test]
async fn a_read_only_container_is_seen_with_its_files_in_a_volume() {
    let worker = Worker::start_with(&ALLOW).await;
    let volume = Volume(format!("kubeleet-{}", free_port()));
    let read_only = json!({
        "read_only": true, "network": "none", "init": false,
        "mounts": [{"type": "volume", "source": volume.0, "target": "/data"}],
        "files": [{"path": "/data/word", "content": "put"}],
    });
    worker.push_wish("read-only", read_only).await;
    let network = Network(format!("kubeleet-net-{}", free_port()));
    docker(&["network", "create", &network.0]);
    worker
        .push_wish(
            "connected",
            json!({"name": any_name().replace("web", "a"), "network": network.0}),
        )
        .await;
    worker.cluster.all_run(2, SOON).await;
    let seen = worker.cluster.containers.settle(2, SOON).await;
    // In the order of their names.
    let [connected, seen] = seen.as_slice() else {
        panic!("two containers");
    };
    assert_eq!(connected["HostConfig"]["NetworkMode"], json!(network.0));
    assert!(connected["NetworkSettings"]["Networks"][&network.0].is_object());
    let host = &seen["HostConfig"];
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["NetworkMode"], "none");
    assert_eq!(host["Init"], false);
    let id = seen["Id"].as_str().expect("an id");
    assert_eq!(
        within(id, "cat /data/word; touch /x 2>/dev/null || echo ' only'"),
        "put only"
    );
    drop(worker); // the containers hold the volume and the network
}

#[tokio::test]
async fn files_are_put_in_by_whoever_starts_the_container() {
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let dies = [("KUBELEET_FAILPOINT", "agent.after_create")];
    let mut doomed = cluster.agent("worker1", &dies).await;
    let pod = json!({"name": any_name(), "uuid": "web-1", "image": IMAGE,
        "files": [{"path": "/word", "content": "put"}]});
    redis.must(&["LPUSH", "pq:worker1", &pod.to_string()]).await;
    doomed.ended(SOON).await;
    let created = cluster.containers.all().await;
    assert_eq!(created.len(), 1);
    assert_eq!(created[0]["State"]["Status"], "created");

    let _agent = cluster.agent("worker1", &[]).await;
    cluster.pod_in("web-1", Phase::Running).await;
    let seen = cluster.containers.settle(1, SOON).await;
    assert_eq!(seen[0]["Id"], created[0]["Id"]);
    assert_eq!(
        within(seen[0]["Id"].as_str().expect("an id"), "cat /word"),
        "put"
    );
}

#[tokio::test]
async fn what_the_engine_lacks_is_named() {
    let worker = Worker::start().await;
    let taken = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    for (id, fields, words) in [
        (
            "port",
            json!({"ports": [format!("{port}:80")]}),
            format!("port {port} of node worker1 is taken by another program or container"),
        ),
        (
            "network",
            json!({"network": "kubeleet-has-no-such"}),
            "network kubeleet-has-no-such not found".to_owned(),
        ),
        (
            "never",
            json!({"pull": "never", "image": "kubeleet/absent:none"}),
            "the image kubeleet/absent:none is not on node worker1, and `pull` is never".to_owned(),
        ),
    ] {
        worker.push_wish(id, fields).await;
        let failed = worker.cluster.pod_in(id, Phase::Failed).await;
        let reason = failed.reason.unwrap_or_default();
        assert!(reason.contains(&words), "{reason}");
    }
}

#[tokio::test]
async fn secrets_are_shown_nowhere() {
    const SECRETS: [&str; 3] = [
        "hidden-in-a-file",
        "aGlkZGVuLWluLWEtYmxvYg==",
        "hidden-password",
    ];
    build_images().await;
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let debug = [("KUBELEET_LOG__FILTER", "debug")];
    let agent = cluster.agent("worker1", &debug).await;
    let _scheduler = cluster.scheduler();
    let (api, address) = cluster.api().await;
    let wish = json!({
        "name": "web", "image": IMAGE,
        "registry": {"username": "reader", "password": "hidden-password"},
        "files": [
            {"path": "/secret", "content": "hidden-in-a-file", "secret": true},
            {"path": "/blob", "base64": "aGlkZGVuLWluLWEtYmxvYg==", "secret": true},
            {"path": "/open", "content": "for all to see"},
        ],
    });
    let submitted = post(&address, "/service", &wish).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    let mut by_hand = wish.clone();
    by_hand["name"] = json!(any_name());
    by_hand["uuid"] = json!("by-hand");
    redis
        .must(&["LPUSH", "pq:worker1", &by_hand.to_string()])
        .await;
    by_hand["uuid"] = json!("../no-id");
    redis.must(&["LPUSH", "sq", &by_hand.to_string()]).await;
    cluster.all_run(2, SOON).await;
    let seen = cluster.containers.settle(2, SOON).await;
    for container in &seen {
        let id = container["Id"].as_str().expect("an id");
        assert_eq!(
            within(id, "cat /secret /blob"),
            "hidden-in-a-filehidden-in-a-blob"
        );
    }
    let letters = eventually(SOON, "there is a dead letter", async || {
        match get(&address, "/v1/queue").await.body {
            queue if queue["dead"] == 1 => Ok(queue),
            queue => Err(queue.to_string()),
        }
    })
    .await;
    let mut other = wish.clone();
    other["files"][0]["content"] = json!("guessed");
    let refused = post(&address, "/service", &other).await;
    assert_eq!(refused.status, 409, "{refused:?}");

    let variables = [("KUBELEET_API", format!("http://{address}"))];
    let variables = variables
        .each_ref()
        .map(|(key, value)| (*key, value.as_str()));
    let described = Process::run(LEET, &["describe", "service", "web"], &variables).await;
    assert_eq!(described.code, Some(0), "{described:?}");
    let listed = Process::run(LEET, &["events"], &variables).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let stream = redis.must(&["XRANGE", "events", "-", "+"]).await;
    for (place, text) in [
        ("docker inspect", json!(seen).to_string()),
        ("leet describe", described.out),
        ("leet events", listed.out),
        ("agent's log", agent.err()),
        ("API's log", api.err()),
        ("events", format!("{stream:?}")),
        ("dead letters", letters.to_string()),
        ("submit", submitted.body.to_string()),
        ("conflict", refused.body.to_string()),
        (
            "services",
            get(&address, "/v1/services").await.body.to_string(),
        ),
        (
            "service",
            get(&address, "/v1/services/web").await.body.to_string(),
        ),
        ("pods", get(&address, "/v1/pods").await.body.to_string()),
        (
            "pod",
            get(&address, "/v1/pods/by-hand").await.body.to_string(),
        ),
    ] {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
    let shown = get(&address, "/v1/services/web").await.body;
    assert_eq!(shown["spec"]["files"][2]["content"], "for all to see");
    assert!(agent.err().contains("next step"), "it logs at that level");
}
