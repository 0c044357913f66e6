//! The built `leet` against a served API: what it prints, and how it ends.

use std::process::{Output, Stdio};
use std::time::Duration;

use kubeleet::model::{Capacity, EngineState, ServiceKey};
use kubeleet::store::Beat;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::api::TestApi;
use crate::support::free_port;

const LEET: &str = env!("CARGO_BIN_EXE_leet");

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

async fn leet_at(address: &str, line: &str) -> Ended {
    let words = line.split_whitespace();
    let output = Command::new(LEET)
        .args(words)
        .env("KUBELEET_API", address)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    Ended {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

pub(crate) async fn leet(api: &TestApi, line: &str) -> Ended {
    leet_at(&api.url(), line).await
}

#[tokio::test]
async fn a_registrys_password_is_read_from_standard_input_and_shown_to_nobody() {
    let api = TestApi::start("cli-login").await;
    let words = "run r.example/team/app --registry-user reader -o json".split(' ');
    let run = async |said: &str| {
        let mut child = Command::new(LEET)
            .args(words.clone())
            .env("KUBELEET_API", api.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(said.as_bytes()).await.unwrap();
        drop(stdin);
        child.wait_with_output().await.unwrap()
    };
    let nothing = run("").await;
    assert_eq!(nothing.status.code(), Some(1));
    let why = String::from_utf8_lossy(&nothing.stderr);
    assert!(why.contains("no password came"), "{why}");
    let ended = run("hidden-word\n").await;
    assert!(ended.status.success(), "{ended:?}");
    let service = ServiceKey::parse("default/app").unwrap();
    let stored = api.store.services().get_with_login(&service).await;
    let (_, _, login) = stored.unwrap().unwrap();
    let login = login.unwrap();
    assert_eq!(
        (login.username.as_str(), login.password.as_str()),
        ("reader", "hidden-word")
    );
    let shown = leet(&api, "services -o json").await;
    for said in [
        String::from_utf8_lossy(&ended.stdout).into_owned(),
        shown.out,
    ] {
        assert!(
            said.contains("r.example/team/app") && !said.contains("hidden"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_service_is_run_seen_scaled_and_removed() {
    let api = TestApi::start("cli").await;
    let run = leet(
        &api,
        "run spaster/alpine-sleep --replicas 3 --env A=b --port 8080:80",
    )
    .await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out
            .contains("service alpine-sleep is submitted, its pods: 3"),
        "{}",
        run.out
    );
    let again = leet(
        &api,
        "run spaster/alpine-sleep --replicas 3 --env A=b --port 8080:80 -o json",
    )
    .await;
    assert_eq!(again.code, 0);
    assert_eq!(again.json()["pods"].as_array().unwrap().len(), 3);
    assert_eq!(again.json()["spec"]["ports"][0]["host"], 8080);

    let ps = leet(&api, "ps").await;
    assert_eq!(ps.code, 0, "{}", ps.err);
    let lines: Vec<&str> = ps.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ps.out);
    assert!(lines[0].starts_with("POD "), "{}", ps.out);
    for line in &lines[1..] {
        for part in [
            "alpine-sleep",
            "spaster/alpine-sleep",
            "waiting",
            "in the queue",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
    let json = leet(
        &api,
        "ps --service alpine-sleep --phase waiting --output json",
    )
    .await;
    assert_eq!(json.json().as_array().unwrap().len(), 3);
    assert_eq!(json.json()[0]["phase"], "waiting");
    assert_eq!(leet(&api, "ps --phase running -o json").await.out, "[]\n");

    let services = leet(&api, "services").await;
    assert!(
        services.out.lines().nth(1).unwrap().contains("0/3"),
        "{}",
        services.out
    );
    let services = leet(&api, "services -o json").await;
    assert_eq!(services.json()[0]["name"], "alpine-sleep");

    let queue = leet(&api, "queue").await;
    assert!(queue.out.starts_with("HIGH"), "{}", queue.out);
    assert_eq!(leet(&api, "queue -o json").await.json()["normal"], 3);

    let scaled = leet(&api, "scale alpine-sleep 5").await;
    assert_eq!(scaled.code, 0);
    assert!(scaled.out.contains("scaled to 5"), "{}", scaled.out);
    assert_eq!(
        leet(&api, "scale alpine-sleep 1 -o json").await.json()["replicas"],
        1
    );

    let pod = leet(&api, "ps -o json").await.json()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let owned = leet(&api, &format!("rm --pod {pod}")).await;
    assert_eq!(owned.code, 1);
    assert!(
        owned
            .err
            .contains("belongs to service default/alpine-sleep"),
        "{}",
        owned.err
    );

    // One that is not there does not keep the other.
    let removed = leet(&api, "rm none alpine-sleep").await;
    assert_eq!(removed.code, 1);
    assert!(
        removed
            .out
            .contains("service alpine-sleep is being deleted"),
        "{}",
        removed.out
    );
    assert!(
        removed.err.contains("there is no service none"),
        "{}",
        removed.err
    );
    assert_eq!(leet(&api, "services -o json").await.out, "[]\n");
}

#[tokio::test]
async fn nodes_are_listed() {
    let api = TestApi::start("cli-nodes").await;
    let beat = Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max: 10,
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
        },
        ..Beat::default()
    };
    let lease = Duration::from_secs(20);
    let nodes = api.store.nodes();
    nodes
        .register("node1", "engine", lease, &beat)
        .await
        .unwrap();
    let shown = leet(&api, "nodes").await;
    assert_eq!(shown.code, 0, "{}", shown.err);
    for part in ["node1", "ready", "0/10", "0/4", "0B/8GiB", "unknown", "ago"] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    assert_eq!(leet(&api, "nodes -o json").await.json()[0]["name"], "node1");
}

#[tokio::test]
async fn what_the_api_refuses_ends_with_1_and_says_why() {
    let api = TestApi::start("cli-no").await;
    for (line, why) in [
        ("run nginx --name Web", "allowed is 1 to 63 of a-z"),
        ("run Nginx", "an image reference such as"),
        ("run nginx --memory 1", "bytes as a whole number"),
        ("run nginx --replicas 10001", "1 to 10000"),
        ("run nginx --port 0", "a port such as"),
        (
            "scale none 3",
            "there is no service none in namespace default",
        ),
        (
            "rm none --namespace other",
            "there is no service none in namespace other",
        ),
        ("rm ../x", "allowed is 1 to 63"),
        ("ps --service A", "allowed is 1 to 63"),
    ] {
        let ended = leet(&api, line).await;
        assert_eq!(ended.code, 1, "{line}: {}", ended.err);
        assert!(ended.err.contains(why), "{line}: {}", ended.err);
        assert!(ended.err.starts_with("leet: "), "{}", ended.err);
        assert_eq!(ended.out, "", "{line}");
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for line in ["ps", "run nginx", "queue"] {
        let ended = leet_at(&nobody, line).await;
        assert_eq!(ended.code, 1);
        assert!(
            ended.err.contains(&nobody) && ended.err.contains("leet dev"),
            "{}",
            ended.err
        );
    }
    // The flag goes before the variable.
    let line = format!("--api {} services -o json", api.url());
    let flagged = leet_at(&nobody, &line).await;
    assert_eq!((flagged.code, flagged.out.as_str()), (0, "[]\n"));
}

#[tokio::test]
async fn wrong_use_ends_with_2() {
    for line in [
        "",
        "fly",
        "run",
        "run nginx --replicas 0",
        "run nginx --replicas many",
        "run nginx --env A",
        "run nginx --priority urgent",
        "ps --phase sleeping",
        "ps -o yaml",
        "scale web",
        "scale web -1",
        "rm",
        "ps --api ftp://x",
        "ps --api https://x",
    ] {
        let ended = leet_at("", line).await;
        assert_eq!(ended.code, 2, "{line}: {}", ended.err);
        assert!(!ended.err.is_empty(), "{line}");
    }
    for line in ["--help", "--version", "help run", "rm --help"] {
        assert_eq!(leet_at("", line).await.code, 0, "{line}");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    let api = TestApi::start("cli-pipe").await;
    let many = leet(&api, "run nginx --replicas 3000").await;
    assert_eq!(many.code, 0, "{}", many.err);
    let mut child = Command::new(LEET)
        .args(["--api", &api.url(), "ps"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().await.unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), err.as_str()), (Some(0), ""));
}
