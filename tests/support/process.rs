//! The real binaries as child processes of a test's cluster.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use kubeleet::settings::Settings;

use super::spawn::{signal, spawn_logged};
use super::{eventually, free_port};

/// SIGABRT, by which a failpoint ends its process.
const ABORT: i32 = 6;

/// Longest time a daemon may take to start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A running daemon; killed on drop.
pub struct Daemon {
    child: Child,
    log: tempfile::NamedTempFile,
    /// With it ends an agent's watchdog.
    _run_dir: tempfile::TempDir,
}

impl Daemon {
    /// Starts `program` with what `settings` say of Redis and time, and with more variables.
    pub fn start(program: &str, settings: &Settings, variables: &[(&str, &str)]) -> Daemon {
        let time = |time: Duration| format!("{}ms", time.as_millis());
        let log = tempfile::NamedTempFile::new().expect("a log file");
        let run_dir = tempfile::tempdir().expect("a folder");
        let mut all = vec![
            ("KUBELEET_KEY_PREFIX", settings.key_prefix.clone()),
            ("KUBELEET_REDIS__URL", settings.redis.url.0.clone()),
            (
                "KUBELEET_HEARTBEAT__INTERVAL",
                time(settings.heartbeat.interval),
            ),
            ("KUBELEET_HEARTBEAT__LEASE", time(settings.heartbeat.lease)),
            (
                "KUBELEET_SCHEDULER__CLAIM_LEASE",
                time(settings.scheduler.claim_lease),
            ),
            (
                "KUBELEET_SCHEDULER__SWEEP_INTERVAL",
                time(settings.scheduler.sweep_interval),
            ),
            (
                "KUBELEET_SCHEDULER__COMPARE_INTERVAL",
                time(settings.scheduler.compare_interval),
            ),
            (
                "KUBELEET_SCHEDULER__BATCH",
                settings.scheduler.batch.to_string(),
            ),
            (
                "KUBELEET_AGENT__RESYNC_INTERVAL",
                time(settings.agent.resync_interval),
            ),
            ("KUBELEET_LOG__FORMAT", "human".to_owned()),
            (
                "KUBELEET_NODE__RUN_DIR",
                run_dir.path().display().to_string(),
            ),
        ];
        all.extend(
            variables
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned())),
        );
        let writer: File = log.reopen().expect("a log file");
        let child = spawn_logged(program.as_ref(), &[], &all, writer).expect("it starts");
        Daemon {
            child,
            log,
            _run_dir: run_dir,
        }
    }

    /// An API on a free port, and its address; waits until it listens.
    pub async fn api(
        program: &str,
        settings: &Settings,
        variables: &[(&str, &str)],
    ) -> (Daemon, String) {
        let address = format!("127.0.0.1:{}", free_port());
        let mut all = vec![("KUBELEET_API__LISTEN", address.as_str())];
        all.extend(variables);
        let daemon = Daemon::start(program, settings, &all);
        eventually(
            START_LIMIT,
            "the API listens",
            async || match tokio::net::TcpStream::connect(&address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error}:\n{}", daemon.log())),
            },
        )
        .await;
        (daemon, address)
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log.path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("process {} ends", self.child.id());
        eventually(limit, &what, async || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; its log:\n{}", self.log())),
        })
        .await
    }

    /// Waits until a failpoint has ended it.
    pub async fn aborted(&mut self, limit: Duration) {
        let status = self.ended(limit).await;
        assert_eq!(status.signal(), Some(ABORT), "{status}:\n{}", self.log());
    }

    /// Waits until it has logged `words`.
    pub async fn logged(&self, limit: Duration, words: &str) {
        eventually(limit, &format!("it logs {words:?}"), async || {
            let log = self.log();
            if log.contains(words) {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }

    /// Cpu time it has used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        // The name, in brackets, may hold spaces; utime and stime are the 14th and 15th fields.
        let (_, rest) = stat.rsplit_once(')').expect("its fields");
        let ticks = |field: usize| {
            let field = rest.split_whitespace().nth(field - 3);
            field
                .and_then(|ticks| ticks.parse::<u64>().ok())
                .expect("ticks")
        };
        // A tick is 10 ms on every Linux we run on (USER_HZ).
        Duration::from_millis((ticks(14) + ticks(15)) * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
    }
}
