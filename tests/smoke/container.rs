//! The runtime port: one set of checks for both engines, and what only Docker can show.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kubeleet::container::{
    Changes, Container, ContainerSpec, ContainerState, Docker, Runtime, RuntimeError, Simulated,
};
use kubeleet::model::{PodId, ServiceSpec, Token};
use kubeleet::settings::SimulatedSettings;
use serde_json::{Value, json};

/// Sleeps by default; built from nothing by `scripts/build-sample-image.sh`.
const IMAGE: &str = "kubeleet/sample:smoke";
const IMAGE_ABSENT: &str = "kubeleet/absent:none";
/// Longest wait for something that takes an engine well under a second.
const DEADLINE: Duration = Duration::from_secs(30);
/// Grace for containers that end at once when asked to.
const GRACE: Duration = Duration::from_secs(10);

/// An engine, and a node and a cluster that only this test uses.
struct Bench {
    runtime: Runtime,
    simulated: Option<Simulated>,
    node: String,
    cluster: String,
}

impl Bench {
    fn simulated() -> Bench {
        let settings = SimulatedSettings::default();
        let simulated = Simulated::new("engine", settings);
        simulated.add_image(IMAGE);
        Bench {
            runtime: Runtime::Simulated(simulated.clone()),
            simulated: Some(simulated),
            node: "worker1".to_owned(),
            cluster: "smoke".to_owned(),
        }
    }

    async fn docker() -> Bench {
        let runtime = Runtime::Docker(Docker::new(""));
        if let Err(error) = runtime.info().await {
            panic!("no Docker engine answers ({error}): run scripts/ensure-docker.sh");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-sample-image.sh");
        run(Command::new(script).arg(IMAGE));
        Bench {
            runtime,
            simulated: None,
            node: format!("worker-{}", PodId::new_submission()),
            cluster: format!("smoke-{}", PodId::new_submission()),
        }
    }

    fn other_cluster(&self) -> String {
        format!("{}-b", self.cluster)
    }

    fn spec(&self) -> ContainerSpec {
        ContainerSpec {
            node: self.node.clone(),
            cluster: self.cluster.clone(),
            pod: PodId::of_submission(&PodId::new_submission(), 2),
            token: token(1, "first"),
            replica: 2,
            spec: ServiceSpec::new("web", IMAGE),
            revision: 3,
            service: Some("web".to_owned()),
        }
    }

    async fn create(&self, spec: &ContainerSpec) -> String {
        self.runtime.create(spec).await.expect("it is created")
    }

    async fn list(&self) -> Vec<Container> {
        let listed = self.runtime.list(&self.node, &self.cluster).await;
        listed.expect("it lists")
    }

    async fn inspect(&self, id: &str) -> Option<Container> {
        self.runtime.inspect(id).await.expect("it inspects")
    }

    async fn watch(&self) -> Changes {
        let changes = self.runtime.ended(&self.node, &self.cluster).await;
        changes.expect("it can be watched")
    }

    /// A container that is not ours.
    fn add_stranger(&self, name: &str) -> String {
        match &self.simulated {
            Some(simulated) => simulated.add_stranger(name),
            None => {
                let label = format!("kubeleet.cluster={}", self.cluster);
                docker(&["create", "--name", name, "--label", &label, IMAGE])
            }
        }
    }

    fn strangers(&self) -> Vec<String> {
        match &self.simulated {
            Some(simulated) => simulated.strangers(),
            None => {
                let label = format!("label=kubeleet.cluster={}", self.cluster);
                let format = "{{.ID}} {{.Label \"orchestrator\"}}";
                let all = docker(&[
                    "ps",
                    "-a",
                    "--no-trunc",
                    "--filter",
                    &label,
                    "--format",
                    format,
                ]);
                let strangers = all.lines().filter(|line| !line.ends_with(" kubeleet"));
                strangers.map(|line| line.trim().to_owned()).collect()
            }
        }
    }

    /// The simulated container does what its command line makes the real one do.
    fn act(&self, id: &str, exit_code: i64) {
        if let Some(simulated) = &self.simulated {
            assert!(simulated.end(id, exit_code, None));
        }
    }
}

/// Removes what the test has made, also when it fails.
impl Drop for Bench {
    fn drop(&mut self) {
        if self.simulated.is_none() {
            for cluster in [&self.cluster, &self.other_cluster()] {
                let label = format!("label=kubeleet.cluster={cluster}");
                let left = docker(&["ps", "-aq", "--filter", &label]);
                for id in left.lines() {
                    docker(&["rm", "-f", "-v", id]);
                }
            }
        }
    }
}

fn token(attempt: u64, nonce: &str) -> Token {
    Token {
        attempt,
        nonce: nonce.to_owned(),
    }
}

fn run(command: &mut Command) -> String {
    let output: Output = command.output().expect("the program can be started");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

/// What `docker inspect` says of a container.
fn seen(id: &str) -> Value {
    let mut seen: Value = serde_json::from_str(&docker(&["inspect", id])).expect("it is JSON");
    seen[0].take()
}

/// Waits for a notice of `pod`.
async fn notice(changes: &mut Changes, pod: &PodId) {
    let wait = async {
        while let Some(changed) = changes.next().await {
            if changed.expect("the engine stays") == *pod {
                return;
            }
        }
        panic!("the stream has ended");
    };
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("no notice of {pod} came"));
}

/// Waits, from notice to notice, until the container has ended.
async fn end_of(bench: &Bench, changes: &mut Changes, spec: &ContainerSpec, id: &str) -> Container {
    loop {
        notice(changes, &spec.pod).await;
        let container = bench.inspect(id).await.expect("it is there");
        if matches!(container.state, ContainerState::Exited { .. }) {
            return container;
        }
    }
}

/// What every engine does.
async fn conformance(bench: &Bench) {
    a_container_lives_and_ends(bench).await;
    create_adopts_its_own_and_only_its_own(bench).await;
    strangers_are_left_alone(bench).await;
    other_nodes_and_clusters_are_not_listed(bench).await;
    an_end_is_noticed(bench).await;
    what_is_missing_is_named(bench).await;
    assert_eq!(bench.list().await, [], "each check cleans up");
}

async fn a_container_lives_and_ends(bench: &Bench) {
    let info = bench.runtime.info().await.unwrap();
    assert!(!info.id.is_empty() && !info.version.is_empty());
    assert!(info.cpu_millis >= 1000 && info.memory_bytes > 1 << 20);
    assert_eq!(bench.list().await, []);

    let spec = bench.spec();
    let id = bench.create(&spec).await;
    let mut container = Container {
        id: id.clone(),
        name: format!("web-2-{}", spec.pod.short()),
        pod: spec.pod.clone(),
        token: spec.token.clone(),
        image: IMAGE.to_owned(),
        state: ContainerState::Created,
    };
    assert_eq!(bench.list().await, [container.clone()]);
    bench.runtime.stop(&id, GRACE).await.unwrap();
    assert_eq!(bench.inspect(&id).await, Some(container.clone()));

    bench.runtime.start(&id).await.unwrap();
    bench.runtime.start(&id).await.unwrap();
    container.state = ContainerState::Running;
    assert_eq!(bench.list().await, [container.clone()]);
    assert_eq!(bench.inspect(&id).await, Some(container.clone()));
    assert_eq!(bench.runtime.describe(&id).await.unwrap(), Some(spec));

    bench.runtime.stop(&id, GRACE).await.unwrap();
    bench.runtime.stop(&id, GRACE).await.unwrap();
    container.state = ContainerState::Exited {
        exit_code: 143,
        reason: None,
    };
    assert_eq!(bench.list().await, [container.clone()]);

    bench.runtime.remove(&id).await.unwrap();
    bench.runtime.remove(&id).await.unwrap();
    bench.runtime.stop(&id, GRACE).await.unwrap();
    assert_eq!(bench.inspect(&id).await, None);
    assert_eq!(bench.runtime.describe(&id).await.unwrap(), None);
    let start = bench.runtime.start(&id).await;
    assert!(matches!(start, Err(RuntimeError::ContainerMissing { id: gone }) if gone == id));
}

async fn create_adopts_its_own_and_only_its_own(bench: &Bench) {
    let mut spec = bench.spec();
    let id = bench.create(&spec).await;
    assert_eq!(bench.create(&spec).await, id);
    bench.runtime.start(&id).await.unwrap();
    assert_eq!(bench.create(&spec).await, id);
    assert_eq!(bench.list().await.len(), 1);

    for other in [token(2, "first"), token(1, "second")] {
        spec.token = other;
        let create = bench.runtime.create(&spec).await;
        assert!(matches!(create, Err(RuntimeError::Superseded { id: held }) if held == id));
    }
    bench.runtime.remove(&id).await.unwrap();
    let next = bench.create(&spec).await;
    assert_ne!(next, id);
    assert_eq!(bench.inspect(&next).await.unwrap().token, spec.token);
    bench.runtime.remove(&next).await.unwrap();
}

async fn strangers_are_left_alone(bench: &Bench) {
    let spec = bench.spec();
    let stranger = bench.add_stranger(&spec.name());
    let id = bench.create(&spec).await;
    assert_eq!(bench.create(&spec).await, id, "adopted by its second name");
    assert_eq!(bench.inspect(&id).await.unwrap().name, spec.long_name());
    assert_eq!(bench.inspect(&stranger).await, None);

    let crowded = bench.spec();
    bench.add_stranger(&crowded.name());
    bench.add_stranger(&crowded.long_name());
    let create = bench.runtime.create(&crowded).await;
    let name = crowded.long_name();
    assert!(matches!(create, Err(RuntimeError::NameTaken { name: taken }) if taken == name));

    let listed = bench.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, id);
    bench.runtime.remove(&id).await.unwrap();
    assert_eq!(bench.strangers().len(), 3);
}

async fn other_nodes_and_clusters_are_not_listed(bench: &Bench) {
    let ours = bench.spec();
    let mut elsewhere = bench.spec();
    elsewhere.node = format!("{}-b", bench.node);
    let mut foreign = bench.spec();
    foreign.cluster = bench.other_cluster();
    // The same pod id in another cluster is another pod.
    foreign.pod = ours.pod.clone();
    let mut ids = Vec::new();
    for spec in [&ours, &elsewhere, &foreign] {
        ids.push(bench.create(spec).await);
    }
    let listed: Vec<String> = bench.list().await.into_iter().map(|c| c.id).collect();
    assert_eq!(listed, ids[..1]);
    for id in ids {
        bench.runtime.remove(&id).await.unwrap();
    }
}

async fn an_end_is_noticed(bench: &Bench) {
    let mut changes = bench.watch().await;
    let mut spec = bench.spec();
    spec.spec.command = vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()];
    let id = bench.create(&spec).await;
    bench.runtime.start(&id).await.unwrap();
    bench.act(&id, 7);
    let ended = end_of(bench, &mut changes, &spec, &id).await;
    let state = ContainerState::Exited {
        exit_code: 7,
        reason: None,
    };
    assert_eq!(ended.state, state);
    assert_eq!(bench.list().await, [ended]);

    bench.runtime.remove(&id).await.unwrap();
    while bench.inspect(&id).await.is_some() {
        notice(&mut changes, &spec.pod).await;
    }
}

async fn what_is_missing_is_named(bench: &Bench) {
    let mut spec = bench.spec();
    spec.spec.image = IMAGE_ABSENT.to_owned();
    let create = bench.runtime.create(&spec).await;
    assert!(
        matches!(&create, Err(RuntimeError::ImageMissing { image }) if image == IMAGE_ABSENT),
        "{create:?}"
    );
    assert!(!create.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn simulated_conforms() {
    conformance(&Bench::simulated()).await;
}

#[tokio::test]
async fn docker_conforms() {
    conformance(&Bench::docker().await).await;
}

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
    assert!(start.to_string().contains("already allocated"), "{start}");
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
    let pull = bench.runtime.pull(&format!("{closed_address}/a:b")).await;
    let error = pull.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("connection refused"), "{error}");

    let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/a:b", registry.local_addr().unwrap());
    let serving = tokio::spawn(serve_nothing(registry));
    let pull = bench.runtime.pull(&image).await;
    serving.abort();
    assert!(
        matches!(&pull, Err(RuntimeError::ImageDenied { image: denied, .. }) if *denied == image),
        "{pull:?}"
    );
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
    let id = runtime.create(&spec).await.unwrap();
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
