//! The users of `leet redis acl` with the real binaries: each process as its own, end to end.

use std::os::unix::fs::PermissionsExt as _;

use kubeleet::settings::{RedisSettings, Secret};

use crate::harness::{Cluster, LEET, Process, SCHEDULER, SOON, Timing, build_images};
use crate::support::{RedisOptions, eventually};

#[tokio::test]
async fn an_agent_with_its_own_user_runs_logs_and_execs() {
    build_images().await;
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().display().to_string();
    let line = ["redis", "acl", "--node", "worker1", "--into", &into];
    let made = Process::run(LEET, &line, &[]).await;
    assert_eq!((made.code, made.out.as_str()), (Some(0), ""), "{made:?}");
    for file in std::fs::read_dir(folder.path()).expect("files") {
        let file = file.expect("a file");
        let mode = file.metadata().expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
    let password = |user: &str| {
        let file = folder.path().join(format!("{user}.password"));
        let password = std::fs::read_to_string(file).expect("a password");
        password.trim().to_owned()
    };
    let users = folder.path().join("users.acl");
    let server = RedisOptions::default()
        .appendonly()
        .line(format!("aclfile {}", users.display()))
        .start()
        .await;
    let url = |user: &str| {
        format!(
            "redis://{user}:{}@127.0.0.1:{}",
            password(user),
            server.port()
        )
    };

    let settings = RedisSettings {
        url: Secret(url("api")),
        ..RedisSettings::default()
    };
    let variables = vec![("KUBELEET_REDIS__URL", url("api"))];
    let cluster = Cluster::open(&settings, Timing::REAL, variables).await;
    let as_scheduler = url("scheduler");
    let scheduler = Process::start(SCHEDULER, &[], &[("KUBELEET_REDIS__URL", &as_scheduler)]);
    let as_agent = url("agent-worker1");
    let agent = cluster
        .agent("worker1", &[("KUBELEET_REDIS__URL", &as_agent)])
        .await;
    let (_api, address) = cluster.api().await;
    let leet = async |line: &[&str]| Process::run(LEET, line, &[("KUBELEET_API", &address)]).await;

    let image = crate::harness::IMAGE;
    let script = "echo hello; exec sleep 600";
    let run = ["run", image, "--name", "web", "--", "sh", "-c", script];
    let ran = leet(&run).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let pod = cluster.all_run(1, SOON).await.remove(0).id.to_string();
    eventually(SOON, "its log is read", async || {
        let logs = leet(&["logs", "web"]).await;
        if logs.out.contains("hello") {
            Ok(())
        } else {
            Err(format!("{logs:?}"))
        }
    })
    .await;
    let exec = leet(&["exec", &pod, "--", "echo", "from", "inside"]).await;
    assert_eq!(
        (exec.code, exec.out.as_str()),
        (Some(0), "from inside\n"),
        "{exec:?}"
    );
    let top = leet(&["top", "--once"]).await;
    assert!(top.out.contains(&pod), "{top:?}");
    let gone = leet(&["rm", "web"]).await;
    assert_eq!(gone.code, Some(0), "{gone:?}");
    eventually(SOON, "its container is gone", async || {
        let left = cluster.containers.all().await.len();
        if left == 0 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    })
    .await;
    for process in [&agent, &scheduler] {
        let said = process.err();
        assert!(
            !said.contains("NOPERM") && !said.contains("ACL failure"),
            "{process}"
        );
    }
    // Who rotates locks nobody out who has the last password.
    let rotated = Process::run(LEET, &["redis", "acl", "--rotate", "--into", &into], &[]).await;
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let text = std::fs::read_to_string(&users).expect("users");
    let agent = text
        .lines()
        .find(|line| line.starts_with("user agent-worker1 "));
    assert_eq!(agent.expect("it is kept").matches(" #").count(), 2);
}
