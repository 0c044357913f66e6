//! `examples/shop`, a compose file of three services, by `leet` and with real containers: applied,
//! applied again, changed, scaled and deleted.

use std::process::Command;

use serde_json::Value;

use crate::harness::{
    Cluster, Containers, IMAGE, LEET, Process, SOON, Timing, build_images, docker, get,
    import_programs,
};
use crate::support::{RedisServer, eventually, find, free_port};

const PASSWORD: &str = "of the smoke test";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shop/compose.yaml");

/// What the project leaves on the machine, removed on drop. Declare it before the cluster.
struct Traces {
    project: String,
    image: String,
}

impl Drop for Traces {
    fn drop(&mut self) {
        let volume = format!("{}_data", self.project);
        for words in [
            ["volume", "rm", "-f", &volume],
            ["rmi", "-f", &self.image, "--no-prune"],
        ] {
            let _ = Command::new("docker").args(words).output();
        }
    }
}

/// The example's project on a cluster.
struct Shop<'a> {
    traces: &'a Traces,
    containers: &'a Containers,
    api: String,
    redis_port: String,
}

impl Shop<'_> {
    /// What `leet` prints, which has to end well.
    async fn leet(&self, line: &str, greeting: &str) -> String {
        let mut words = vec!["--api", &self.api];
        words.extend(line.split_whitespace());
        if line.contains("-f") {
            words.extend([FILE, "-p", &self.traces.project]);
        }
        let variables = [
            ("REDIS_IMAGE", self.traces.image.as_str()),
            ("WEB_IMAGE", IMAGE),
            ("REDIS_PORT", &self.redis_port),
            ("REDIS_PASSWORD", PASSWORD),
            ("GREETING", greeting),
        ];
        let mut leet = Process::start(LEET, &words, &variables);
        let status = leet.ended(SOON).await;
        assert_eq!(status.code(), Some(0), "{line}: {leet}");
        leet.out()
    }

    /// Ids of the running containers of a service.
    async fn ids(&self, service: &str) -> Vec<String> {
        let of = |container: &Value| container["Config"]["Labels"]["kubeleet.name"] == service;
        let running = self.containers.running().await;
        let of_service = running.iter().filter(|container| of(container));
        of_service
            .map(|container| container["Id"].to_string())
            .collect()
    }

    /// Waits until so many web servers say `greeting`, and no other does.
    async fn says(&self, greeting: &str, count: usize) {
        let page = format!("<h1>{greeting}</h1>\n");
        eventually(
            SOON,
            &format!("{count} servers say {greeting:?}"),
            async || {
                let mut pages = Vec::new();
                for id in self.ids("web").await {
                    let id = id.trim_matches('"');
                    let page = "http://127.0.0.1:8000/";
                    let read = ["5", "docker", "exec", id, "wget", "-q", "-O", "-", page];
                    let output = Command::new("timeout").args(read).output();
                    let output = output.expect("docker runs");
                    pages.push(String::from_utf8_lossy(&output.stdout).into_owned());
                }
                if pages.len() == count && pages.iter().all(|said| *said == page) {
                    Ok(())
                } else {
                    Err(format!("{pages:?}"))
                }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_shop_is_applied_changed_scaled_and_deleted() {
    build_images().await;
    let traces = Traces {
        project: format!("shop-{}", std::process::id()),
        image: format!("kubeleet/shop:smoke-{}", std::process::id()),
    };
    let programs = ["redis-server", "redis-cli"];
    let programs = programs.map(|program| find(program).expect("redis in PATH: apt install redis"));
    let programs = programs
        .each_ref()
        .map(|path| path.to_str().expect("a path"));
    import_programs(&traces.image, &programs);

    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let (_api, api) = cluster.api().await;
    let _scheduler = cluster.scheduler();
    let _agent = cluster.agent("worker1", &[]).await;
    let shop = Shop {
        traces: &traces,
        containers: &cluster.containers,
        api,
        redis_port: free_port().to_string(),
    };

    let applied = shop.leet("apply -f", "Hello").await;
    assert_eq!(
        applied,
        "service redis created\nservice worker created\nservice web created\n"
    );
    shop.says("Hello", 1).await;
    // The worker reaches Redis by the node's port.
    eventually(SOON, "jobs are counted", async || {
        let count = [
            "5",
            "redis-cli",
            "-a",
            PASSWORD,
            "-p",
            &shop.redis_port,
            "get",
            "jobs",
        ];
        let output = Command::new("timeout")
            .args(count)
            .output()
            .expect("redis-cli runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match said.trim().parse::<u64>() {
            Ok(count) if count > 0 => Ok(()),
            _ => Err(said),
        }
    })
    .await;
    let before = (shop.ids("redis").await, shop.ids("worker").await);
    let again = shop.leet("apply -f", "Hello").await;
    assert_eq!(
        again,
        "service redis unchanged\nservice worker unchanged\nservice web unchanged\n"
    );

    let changed = shop.leet("apply -f", "Good-bye").await;
    assert_eq!(
        changed,
        "service redis unchanged\nservice worker unchanged\nservice web changed: files\n"
    );
    shop.says("Good-bye", 1).await;

    shop.leet("scale web 3", "").await;
    shop.says("Good-bye", 3).await;
    let kept = shop.leet("apply -f", "Good-bye").await;
    assert!(kept.ends_with("service web unchanged\n"), "{kept}");
    shop.says("Good-bye", 3).await;
    let after = (shop.ids("redis").await, shop.ids("worker").await);
    assert_eq!(after, before, "what did not change runs on");

    let deleted = shop.leet("delete --wait -f", "").await;
    assert_eq!(
        deleted,
        "service web is gone\nservice worker is gone\nservice redis is gone\n"
    );
    cluster.containers.settle(0, SOON).await;
    let nothing = get(&shop.api, "/v1/services").await;
    assert_eq!(nothing.body["items"], Value::Array(Vec::new()));
    let volume = format!("name={}_data", traces.project);
    let volumes = docker(&["volume", "ls", "-q", "--filter", &volume]);
    assert!(
        !volumes.is_empty(),
        "what was kept in a volume outlives its service"
    );
}
