//! Docker's engine, past the code under test, and its containers of one cluster.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::OnceCell;

use super::http::{Answer, exchange};
use crate::support::eventually;

/// Sleeps by default; built from nothing by `scripts/build-sample-image.sh`.
pub(crate) const IMAGE: &str = "kubeleet/sample:smoke";
/// The image that the design names; where it cannot be pulled, the same stand-in.
const SAMPLE: &str = "spaster/alpine-sleep";
/// Where the engine listens.
const SOCKET: &str = "/var/run/docker.sock";

/// Sees to it that an engine answers and has the images.
pub(crate) async fn build_images() {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let build = async || {
        if let Err(error) = ask("GET", "/version").await {
            panic!("no Docker engine answers ({error}): run scripts/ensure-docker.sh");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-sample-image.sh");
        run(Command::new(script).args([IMAGE, SAMPLE]));
    };
    BUILT.get_or_init(build).await;
}

/// Runs a program to its end, which must be a good one; its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output: Output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes an image of programs of this machine, and of a busybox.
pub(crate) fn import_programs(name: &str, programs: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image-root.sh");
    run(Command::new(script).arg(folder.path()).args(programs));
    let mut tar = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "-c", "."])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar starts");
    let packed = tar.stdout.take().expect("a pipe");
    let path = [
        "import",
        "--change",
        "ENV PATH=/usr/local/bin:/bin",
        "-",
        name,
    ];
    run(Command::new("docker").args(path).stdin(packed));
    assert!(tar.wait().expect("tar ends").success());
}

/// The `docker` command.
pub(crate) fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

/// Asks the engine itself: hundreds of `docker` commands a second would be the test's main load.
async fn ask(method: &str, path: &str) -> std::io::Result<Answer> {
    exchange(UnixStream::connect(SOCKET).await?, method, path, None).await
}

/// The containers of one cluster; removed on drop, also when the test fails.
pub(crate) struct Containers {
    cluster: String,
}

impl Containers {
    pub(crate) fn of(cluster: &str) -> Containers {
        Containers {
            cluster: cluster.to_owned(),
        }
    }

    /// The label they share.
    pub(crate) fn label(&self) -> String {
        format!("kubeleet.cluster={}", self.cluster)
    }

    /// All of them, inspected, in the order of their names.
    pub(crate) async fn all(&self) -> Vec<Value> {
        // `{"label":["…"]}`, escaped.
        let filters = format!("%7B%22label%22%3A%5B%22{}%22%5D%7D", self.label());
        let path = format!("/containers/json?all=1&filters={filters}");
        let listed = ask("GET", &path).await.expect("the engine answers").body;
        let mut containers = Vec::new();
        for listed in listed.as_array().expect("a list of containers") {
            let path = format!("/containers/{}/json", listed["Id"].as_str().expect("an id"));
            let inspected = ask("GET", &path).await.expect("the engine answers");
            if inspected.status == 200 {
                containers.push(inspected.body);
            }
        }
        containers.sort_by_key(|container| container["Name"].to_string());
        containers
    }

    /// Those that run.
    pub(crate) async fn running(&self) -> Vec<Value> {
        let mut all = self.all().await;
        all.retain(|container| container["State"]["Running"] == true);
        all
    }

    /// Waits until exactly `count` run and no other is left.
    pub(crate) async fn settle(&self, count: usize, limit: Duration) -> Vec<Value> {
        let what = format!("{count} containers run");
        eventually(limit, &what, async || {
            let all = self.all().await;
            let running = |container: &Value| container["State"]["Running"] == true;
            if all.len() == count && all.iter().all(running) {
                Ok(all)
            } else {
                let seen = |one: &Value| format!("{} {}", one["Name"], one["State"]["Status"]);
                Err(format!("{:?}", all.iter().map(seen).collect::<Vec<_>>()))
            }
        })
        .await
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label());
        let listed = Command::new("docker")
            .args(["ps", "-aq", "--filter", &filter])
            .output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&listed).split_whitespace() {
            // Gone already is as good.
            let _ = Command::new("docker").args(["rm", "-f", "-v", id]).output();
        }
    }
}
