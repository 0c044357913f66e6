//! An engine of a test's own that can be killed and started again, and keeps its containers.

use std::path::Path;
use std::process::Command;

use super::SOON;
use super::engine::run;
use super::process::Process;
use crate::support::eventually;

/// Starts the engine, but never beside the machine's own, whose network is `$0`: one without a bridge
/// would take away the bridge of that one.
const ENGINE: &str = "test \"$(readlink /proc/self/ns/net)\" != \"$0\" || exit 1; \
                      PATH=\"$PATH:/usr/sbin:/sbin\" exec dockerd \"$@\"";

/// The engine; it and its containers are gone on drop. Needs root, as any engine does.
pub(crate) struct MortalEngine {
    engine: Option<Process>,
    /// Holds the namespaces in which all its lives pass: without a network, and with mounts that end
    /// with it.
    place: Process,
    folder: tempfile::TempDir,
}

impl MortalEngine {
    /// Starts one that leaves its containers alone when it ends.
    pub(crate) async fn start() -> MortalEngine {
        let words = ["--net", "--mount", "sleep", "infinity"];
        let mut engine = MortalEngine {
            engine: None,
            place: Process::start("/usr/bin/unshare", &words, &[]),
            folder: tempfile::tempdir().expect("a folder"),
        };
        engine.begin().await;
        engine
    }

    /// Starts it, again.
    pub(crate) async fn begin(&mut self) {
        let place = |name: &str| format!("{}/{name}", self.folder.path().display());
        let (data, run, pid) = (place("data"), place("run"), place("pid"));
        // A killed one leaves these, and their numbers may be others' by now, or of what is dead.
        for left in [pid.clone(), format!("{run}/containerd/containerd.pid")] {
            let _ = std::fs::remove_file(left);
        }
        let outside = network_of("self").expect("this process has a network");
        let id = self.place.id().to_string();
        eventually(
            SOON,
            "the engine's place is there",
            async || match network_of(&id) {
                Ok(network) if network != outside => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
        let host = format!("unix://{}", self.socket());
        let mut words = vec!["--target", &id, "--net", "--mount"];
        words.extend(["/bin/sh", "-c", ENGINE, &outside]);
        words.extend(["--live-restore", "--bridge=none"]);
        words.extend(["--iptables=false", "--ip6tables=false"]);
        words.extend(["--data-root", &data, "--exec-root", &run]);
        words.extend(["--pidfile", &pid, "--host", &host]);
        let process = Process::start("/usr/bin/nsenter", &words, &[]);
        eventually(SOON, "the engine answers", async || {
            let asked = self.command().arg("version").output();
            match asked {
                Ok(output) if output.status.success() => Ok(()),
                other => Err(format!("{other:?}: {process}")),
            }
        })
        .await;
        self.engine = Some(process);
    }

    /// kill -9.
    pub(crate) fn kill9(&mut self) {
        self.engine = None;
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

    /// Builds the sample image under this name.
    pub(crate) fn build(&self, name: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-sample-image.sh");
        let host = format!("unix://{}", self.socket());
        run(Command::new(script).arg(name).env("DOCKER_HOST", host));
    }
}

impl Drop for MortalEngine {
    fn drop(&mut self) {
        // Its containers first, so that no mount and no process of theirs is left.
        let listed = self.command().args(["ps", "-aq"]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&listed).split_whitespace() {
            let _ = self.command().args(["rm", "-f", "-v", id]).output();
        }
        // Of one that is dead the keepers of its containers live on, and these with them.
        for keeper in self.processes() {
            let keeper = keeper.to_string();
            let _ = Command::new("pkill").args(["-9", "-P", &keeper]).output();
            let _ = Command::new("kill").args(["-9", &keeper]).output();
        }
    }
}

impl MortalEngine {
    /// Processes that were started for this engine's folder.
    fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path().display().to_string();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let ours = |process: &u32| {
            let words = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains(&folder)
        };
        numbers.filter(ours).collect()
    }
}

/// Which network a process is in.
fn network_of(process: &str) -> Result<String, String> {
    let network = std::fs::read_link(format!("/proc/{process}/ns/net"));
    let network = network.map_err(|error| error.to_string())?;
    Ok(network.display().to_string())
}
