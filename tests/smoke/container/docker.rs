//! What only Docker can show: the wish as the engine sees it, and how things go wrong there.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kubeleet::container::{ContainerState, Docker, Probed, Runtime, RuntimeError};
use serde_json::json;

use super::bench::{Bench, DEADLINE, GRACE, IMAGE, docker, end_of, notice, seen};

#[tokio::test]
async fn docker_is_told_all_of_the_wish() {
    let bench = Bench::docker().await;
    let mut spec = bench.spec();
    spec.spec = serde_json::from_value(json!({
        "name": "web", "namespace": "team", "image": IMAGE,
        "command": ["sleep"], "args": ["1000"],
        "env": {"GREETING": "hello = world", "EMPTY": ""},
        "labels": {"team": "blue"},
        "resources": {"cpu": 0.25, "memory": "32Mi"},
        "ports": [8000, "53/udp"],
    }))
    .unwrap();
    let id = bench.create(&spec).await;
    bench.runtime.start(&id).await.unwrap();

    let seen = seen(&id);
    let (config, host) = (&seen["Config"], &seen["HostConfig"]);
    assert_eq!(config["Entrypoint"], json!(["sleep"]));
    assert_eq!(config["Cmd"], json!(["1000"]));
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&json!("GREETING=hello = world")) && env.contains(&json!("EMPTY=")));
    for (key, value) in [
        ("orchestrator", "kubeleet"),
        ("kubeleet.cluster", &bench.cluster),
        ("kubeleet.node", &bench.node),
        ("kubeleet.pod", spec.pod.as_str()),
        ("kubeleet.attempt", "1"),
        ("kubeleet.nonce", "first"),
        ("kubeleet.namespace", "team"),
        ("kubeleet.name", "web"),
        ("kubeleet.service", "web"),
        ("kubeleet.replica", "2"),
        ("kubeleet.revision", "3"),
        ("kubeleet.spec", &spec.spec.to_stored()),
        ("team", "blue"),
    ] {
        assert_eq!(config["Labels"][key], value, "{key}");
    }
    assert_eq!(host["NanoCpus"], 250_000_000);
    assert_eq!(host["Memory"], 32 << 20);
    assert_eq!(host["MemorySwap"], 32 << 20);
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(host["LogConfig"]["Type"], "json-file");
    assert_eq!(
        host["LogConfig"]["Config"],
        json!({"max-size": "10m", "max-file": "3"})
    );
    for port in ["8000/tcp", "53/udp"] {
        let bound = &seen["NetworkSettings"]["Ports"][port][0]["HostPort"];
        assert!(
            bound.as_str().unwrap().parse::<u16>().unwrap() > 0,
            "{port}"
        );
    }
    assert_eq!(bench.runtime.describe(&id).await.unwrap(), Some(spec));
}

#[tokio::test]
async fn docker_binds_the_port_that_is_wanted() {
    let bench = Bench::docker().await;
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut spec = bench.spec();
    spec.spec.ports = vec![serde_json::from_value(json!(format!("{port}:80"))).unwrap()];
    let first = bench.create(&spec).await;
    bench.runtime.start(&first).await.unwrap();
    let bound = &seen(&first)["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"];
    assert_eq!(bound, &json!(port.to_string()));

    spec.pod = bench.spec().pod;
    let second = bench.create(&spec).await;
    let start = bench.runtime.start(&second).await.unwrap_err();
    let words = format!("port {port} of the node is taken");
    assert!(start.to_string().starts_with(&words), "{start}");
    assert!(!start.is_unreachable());
}

#[tokio::test]
async fn docker_kills_what_does_not_end_within_its_grace() {
    let bench = Bench::docker().await;
    let mut spec = bench.spec();
    let deaf = "trap '' TERM; while :; do sleep 1; done";
    spec.spec.command = ["sh", "-c", deaf].map(str::to_owned).to_vec();
    let id = bench.create(&spec).await;
    bench.runtime.start(&id).await.unwrap();
    let begun = Instant::now();
    bench
        .runtime
        .stop(&id, Duration::from_millis(900))
        .await
        .unwrap();
    let taken = begun.elapsed();
    assert!(
        taken >= Duration::from_millis(900),
        "killed after {taken:?}"
    );
    assert!(taken < GRACE, "killed after {taken:?}");
    let state = ContainerState::Exited {
        exit_code: 137,
        reason: None,
    };
    assert_eq!(bench.inspect(&id).await.unwrap().state, state);
}

#[tokio::test]
async fn docker_says_when_memory_ran_out() {
    let bench = Bench::docker().await;
    let mut changes = bench.watch().await;
    let mut spec = bench.spec();
    let hungry = "x=aaaaaaaa; while :; do x=$x$x; done";
    spec.spec.command = ["sh", "-c", hungry].map(str::to_owned).to_vec();
    spec.spec.resources.memory_bytes = 16 << 20;
    let id = bench.create(&spec).await;
    bench.runtime.start(&id).await.unwrap();
    let ended = end_of(&bench, &mut changes, &spec, &id).await;
    let state = ContainerState::Exited {
        exit_code: 137,
        reason: Some("out of memory".to_owned()),
    };
    assert_eq!(ended.state, state);
}

#[tokio::test]
async fn docker_tells_why_a_start_failed() {
    let bench = Bench::docker().await;
    let mut changes = bench.watch().await;
    let mut spec = bench.spec();
    spec.spec.command = vec!["/no/such/program".to_owned()];
    spec.spec.resources.cpu_millis = 1;
    let id = bench.create(&spec).await;
    match bench.runtime.start(&id).await {
        // With an init the engine starts that, and the init finds no program.
        Ok(()) => {
            assert_eq!(seen(&id)["HostConfig"]["Init"], true);
            let ended = end_of(&bench, &mut changes, &spec, &id).await;
            let state = ContainerState::Exited {
                exit_code: 127,
                reason: Some("the command was not found".to_owned()),
            };
            assert_eq!(ended.state, state);
        }
        Err(error) => {
            assert!(error.to_string().contains("/no/such/program"), "{error}");
            assert!(!error.is_unreachable());
        }
    }
}

#[tokio::test]
async fn docker_tells_a_denied_image_from_a_silent_registry() {
    let bench = Bench::docker().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_address = closed.local_addr().unwrap();
    drop(closed);
    let pull = pull_by(&bench, &format!("{closed_address}/a:b")).await;
    let error = pull.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("connection refused"), "{error}");

    let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/a:b", registry.local_addr().unwrap());
    let serving = tokio::spawn(serve_nothing(registry));
    let pull = pull_by(&bench, &image).await;
    serving.abort();
    assert!(
        matches!(&pull, Err(RuntimeError::ImageDenied { image: denied, .. }) if *denied == image),
        "{pull:?}"
    );
}

async fn pull_by(bench: &Bench, image: &str) -> Result<(), RuntimeError> {
    bench.runtime.pull(image, None, &|_| ()).await
}

/// A registry that has no image at all.
async fn serve_nothing(registry: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let body = json!({"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known to registry"}]})
        .to_string();
    while let Ok((mut connection, _)) = registry.accept().await {
        let mut request = [0; 4096];
        let length = connection.read(&mut request).await.unwrap_or(0);
        let is_version_check = request[..length].starts_with(b"GET /v2/ ");
        let status = if is_version_check {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        // Who hangs up early is not waited for.
        let _ = connection.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn an_absent_engine_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let runtime = Runtime::Docker(Docker::new(socket.to_str().unwrap()));
    let error = runtime.list("worker1", "smoke").await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(
        runtime
            .ended("worker1", "smoke")
            .await
            .err()
            .unwrap()
            .is_unreachable()
    );

    // A socket nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(runtime.info().await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn docker_is_found_again_after_it_was_away() {
    let bench = Bench::docker().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let runtime = Runtime::Docker(Docker::new(socket.to_str().unwrap()));

    let door = tokio::spawn(pass_on(socket.clone()));
    let engine = runtime_answers(&runtime).await;
    let mut changes = runtime.ended(&bench.node, &bench.cluster).await.unwrap();
    let spec = bench.spec();
    let id = runtime.create(&spec).await.unwrap().id;
    runtime.start(&id).await.unwrap();
    bench.runtime.stop(&id, GRACE).await.unwrap();
    notice(&mut changes, &spec.pod).await;

    door.abort();
    assert!(door.await.unwrap_err().is_cancelled());
    std::fs::remove_file(&socket).unwrap();
    let lost = async { while changes.next().await.is_some_and(|change| change.is_ok()) {} };
    tokio::time::timeout(DEADLINE, lost).await.unwrap();
    assert!(changes.next().await.is_none(), "it ends after its error");
    let list = runtime.list(&bench.node, &bench.cluster).await;
    assert!(list.unwrap_err().is_unreachable());

    let door = tokio::spawn(pass_on(socket));
    assert_eq!(runtime_answers(&runtime).await, engine);
    let listed = runtime.list(&bench.node, &bench.cluster).await.unwrap();
    assert_eq!(listed, bench.list().await);
    door.abort();
}

/// The engine's id, as soon as it answers.
async fn runtime_answers(runtime: &Runtime) -> String {
    let answers = async {
        loop {
            match runtime.info().await {
                Ok(info) => return info.id,
                Err(error) => assert!(error.is_unreachable(), "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, answers).await.unwrap()
}

/// Stands in front of the engine, so that it can be away without being stopped.
async fn pass_on(socket: std::path::PathBuf) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let mut visitors = tokio::task::JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        visitors.spawn(async move {
            let engine = tokio::net::UnixStream::connect("/var/run/docker.sock").await;
            tokio::io::copy_bidirectional(&mut visitor, &mut engine?).await
        });
    }
}

#[tokio::test]
async fn docker_runs_a_command_inside_and_tells_how_it_ended() {
    let bench = Bench::docker().await;
    let spec = bench.spec();
    let id = bench.create(&spec).await;
    let ask = async |words: &[&str]| {
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        bench.runtime.probe(&id, &command).await
    };
    let nothing = Probed {
        exit_code: None,
        said: String::new(),
    };
    assert_eq!(
        ask(&["true"]).await.unwrap(),
        nothing,
        "it does not run yet"
    );
    bench.runtime.start(&id).await.unwrap();
    let script = "echo one; echo two >&2; exit 3";
    let probed = ask(&["sh", "-c", script]).await.unwrap();
    assert_eq!(probed.exit_code, Some(3));
    assert!(
        ["one two", "two one"].contains(&probed.said.as_str()),
        "{probed:?}"
    );
    let much = ask(&["sh", "-c", "yes | head -c 1000000"]).await.unwrap();
    assert_eq!(much.exit_code, Some(0));
    assert!(much.said.len() <= 200, "{}", much.said.len());
    match ask(&["/no/such/program"]).await {
        Ok(probed) => assert!(
            probed.exit_code.is_some_and(|code| code >= 126),
            "{probed:?}"
        ),
        Err(error) => assert!(!error.is_unreachable(), "{error}"),
    }
    docker(&["pause", &id]);
    assert_eq!(
        bench.inspect(&id).await.unwrap().state,
        ContainerState::Paused
    );
    assert_eq!(bench.list().await[0].state, ContainerState::Paused);
    assert_eq!(ask(&["true"]).await.unwrap(), nothing, "it is held still");
    bench.runtime.unpause(&id).await.unwrap();
    bench.runtime.unpause(&id).await.unwrap();
    assert_eq!(
        bench.inspect(&id).await.unwrap().state,
        ContainerState::Running
    );
    bench.runtime.remove(&id).await.unwrap();
    assert_eq!(ask(&["true"]).await.unwrap(), nothing, "it is gone");
}
