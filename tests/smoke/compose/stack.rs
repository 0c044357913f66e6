//! One run of compose.yaml beside any other: own project, ports, addresses and image; gone at the end.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::import_programs;

/// The image of the pods.
pub(super) const SAMPLE: &str = "spaster/alpine-sleep";
/// The image of the servers, as compose.yaml names it.
const REDIS: &str = "redis:7";
/// Longest wait for a registry. Some answer nothing at all.
const PULL_TIMEOUT: &str = "30";

/// The containers of one run.
pub(super) struct Stack {
    id: u32,
    compose: Vec<&'static str>,
    variables: Vec<(&'static str, String)>,
    ports: [u16; 2],
    services: Vec<String>,
    /// Images made for this run.
    images: Vec<String>,
}

impl Stack {
    /// Builds what cannot be pulled, and starts all containers.
    pub(super) fn up() -> Stack {
        run(&root().join("scripts/ensure-docker.sh"), &[]);
        run(&root().join("scripts/ensure-sample-image.sh"), &[]);
        let id = std::process::id();
        let ports = free_ports();
        let image = format!("kubeleet:smoke-{id}");
        let mut stack = Stack {
            id,
            compose: compose_command(),
            variables: vec![
                ("COMPOSE_PROJECT_NAME", format!("kubeleet-smoke-{id}")),
                ("KUBELEET_IMAGE", image.clone()),
                // Somewhere in 10.200.0.0/13, by process id.
                (
                    "KUBELEET_NET",
                    format!("10.{}.{}", 200 + id / 250 % 8, id % 250),
                ),
                ("KUBELEET_API1_PORT", ports[0].to_string()),
                ("KUBELEET_API2_PORT", ports[1].to_string()),
                ("KUBELEET_DOCKER_SOCKET", docker_socket()),
            ],
            ports,
            services: Vec::new(),
            images: Vec::new(),
        };
        stack.make_image(
            &image,
            &[
                env!("CARGO_BIN_EXE_kubeleet-api"),
                env!("CARGO_BIN_EXE_kubeleet-scheduler"),
                env!("CARGO_BIN_EXE_kubeleet"),
                env!("CARGO_BIN_EXE_leet"),
            ],
        );
        if !available(REDIS) {
            // A stand-in of that name, from the machine's own Redis.
            stack.make_image(REDIS, &[&which("redis-server"), &which("redis-cli")]);
        }
        stack.compose(&["up", "-d", "--no-build"]);
        stack
    }

    /// Address of an API.
    pub(super) fn api(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[number - 1])
    }

    /// A service's name that no other run uses; its containers are removed at the end.
    pub(super) fn name(&mut self, what: &str) -> String {
        let name = format!("compose-{what}-{}", self.id);
        self.services.push(name.clone());
        name
    }

    /// Ids of the running containers of a service.
    pub(super) fn containers(&self, service: &str) -> Vec<String> {
        let filter = format!("label=kubeleet.name={service}");
        docker(&["ps", "-q", "--filter", &filter])
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    /// `docker kill` of one of compose.yaml's containers.
    pub(super) fn kill(&self, name: &str) {
        let id = self.compose(&["ps", "-q", name]);
        docker(&["kill", id.trim()]);
    }

    fn compose(&self, arguments: &[&str]) -> String {
        try_run(&mut self.compose_process(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn compose_process(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.compose[0]);
        command
            .args(&self.compose[1..])
            .args(arguments)
            .envs(self.variables.iter().map(|(key, value)| (key, value)))
            .current_dir(root());
        command
    }

    /// An image of programs of this machine.
    fn make_image(&mut self, name: &str, programs: &[&str]) {
        self.images.push(name.to_owned());
        import_programs(name, programs);
    }
}

impl Drop for Stack {
    #[expect(
        clippy::print_stderr,
        reason = "the reader of a failed test needs the logs"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = try_run(&mut self.compose_process(&["logs", "--no-color", "--tail", "20"]));
            eprintln!("{}", logs.unwrap_or_else(|error| error));
        }
        let mut problems = Vec::new();
        let mut end = |command: &mut Command| {
            if let Err(problem) = try_run(command) {
                problems.push(problem);
            }
        };
        end(&mut self.compose_process(&["down", "-v", "-t", "0"]));
        for service in &self.services {
            let filter = format!("label=kubeleet.name={service}");
            let mut list = Command::new("docker");
            list.args(["ps", "-aq", "--filter", &filter]);
            for id in try_run(&mut list).unwrap_or_default().lines() {
                end(Command::new("docker").args(["rm", "-f", id]));
            }
        }
        for image in &self.images {
            end(Command::new("docker").args(["rmi", image]));
        }
        if !std::thread::panicking() {
            assert!(problems.is_empty(), "left behind: {problems:#?}");
        }
    }
}

/// What an API answers, whatever the status; a problem's text where nobody answers.
pub(super) fn curl(arguments: &[&str]) -> Result<Value, String> {
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "5"]).args(arguments);
    let answer = try_run(&mut command)?;
    serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn compose_command() -> Vec<&'static str> {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    match plugin {
        Ok(output) if output.status.success() => vec!["docker", "compose"],
        _ => vec!["docker-compose"],
    }
}

/// The socket that `docker` speaks to here.
fn docker_socket() -> String {
    let format = "{{.Endpoints.docker.Host}}";
    let endpoint = docker(&["context", "inspect", "--format", format]);
    let socket = endpoint.trim().strip_prefix("unix://");
    let socket = socket.unwrap_or_else(|| panic!("no engine of this machine: {endpoint}"));
    socket.to_owned()
}

/// Whether an image is here, or can be pulled.
fn available(image: &str) -> bool {
    let here = Command::new("docker")
        .args(["image", "inspect", image])
        .output();
    if here.is_ok_and(|output| output.status.success()) {
        return true;
    }
    let pulled = Command::new("timeout")
        .args([PULL_TIMEOUT, "docker", "pull", "-q", image])
        .output();
    pulled.is_ok_and(|output| output.status.success())
}

/// Two ports that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn which(program: &str) -> String {
    let found = try_run(Command::new("sh").args(["-c", &format!("command -v {program}")]));
    let found = found.unwrap_or_else(|_| panic!("{program} is missing: run scripts/setup.sh test"));
    found.trim().to_owned()
}

fn docker(arguments: &[&str]) -> String {
    run(Path::new("docker"), arguments)
}

fn run(program: &Path, arguments: &[&str]) -> String {
    try_run(Command::new(program).args(arguments)).unwrap_or_else(|error| panic!("{error}"))
}

fn try_run(command: &mut Command) -> Result<String, String> {
    let output = command.output();
    let output = output.map_err(|error| format!("{command:?} does not start: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(format!(
            "{command:?}: {}: {}",
            output.status,
            said(&output.stderr)
        ))
    }
}
