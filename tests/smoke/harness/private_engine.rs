//! An engine of a test's own, for what would hurt others: its images are nobody else's.

use std::path::Path;
use std::process::Command;

use super::SOON;
use super::engine::run;
use super::process::Process;
use crate::support::eventually;

/// The engine; killed on drop, after its containers.
pub(crate) struct PrivateEngine {
    process: Process,
    folder: tempfile::TempDir,
}

impl PrivateEngine {
    /// Starts one without any network, in namespaces of its own: its mounts end with it, and an
    /// engine without a bridge takes away the bridge of another. Needs root, as any engine does.
    pub(crate) async fn start() -> PrivateEngine {
        let folder = tempfile::tempdir().expect("a folder");
        let place = |name: &str| format!("{}/{name}", folder.path().display());
        let words = [
            "PATH=\"$PATH:/usr/sbin:/sbin\" exec unshare --net --mount dockerd".to_owned(),
            "--bridge=none --iptables=false --ip6tables=false".to_owned(),
            format!("--data-root {} --exec-root {}", place("data"), place("run")),
            format!("--pidfile {} --host unix://{}", place("pid"), place("sock")),
        ];
        let process = Process::start("/bin/sh", &["-c", &words.join(" ")], &[]);
        let engine = PrivateEngine { process, folder };
        eventually(SOON, "a private engine answers", async || {
            let asked = engine.command().arg("version").output();
            match asked {
                Ok(output) if output.status.success() => Ok(()),
                other => Err(format!("{other:?}: {}", engine.process)),
            }
        })
        .await;
        engine
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("sock").display().to_string()
    }

    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.socket()));
        command
    }

    /// The `docker` command, of this engine.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments))
    }

    /// Builds the sample image under each of these names; each is an image of its own.
    pub(crate) fn build(&self, names: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-sample-image.sh");
        let host = format!("unix://{}", self.socket());
        run(Command::new(script).args(names).env("DOCKER_HOST", host));
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        // Its containers first, so that no mount and no process of theirs is left.
        let listed = self.command().args(["ps", "-aq"]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&listed).split_whitespace() {
            let _ = self.command().args(["rm", "-f", "-v", id]).output();
        }
    }
}
