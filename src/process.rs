//! What every binary does around its stations: signals, exit, and the failpoints of tests.

mod redis_check;

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use redis_check::{RedisRefused, unless_refused};

use crate::agent::{AgentError, fence};
use crate::settings::{RuntimeKind, Settings};
use crate::store::Store;
use crate::store::connection::Redis;

/// What each daemon starts with.
pub struct Daemon {
    /// The door to Redis.
    pub store: Store,
    /// Cancelled by SIGINT or SIGTERM.
    pub shutdown: CancellationToken,
}

impl Daemon {
    /// Listens to signals and opens the door to Redis, which may be away still. Call it within
    /// the runtime, once.
    ///
    /// # Errors
    /// The process cannot listen to signals.
    pub fn start(settings: &Settings) -> std::io::Result<Daemon> {
        arm_failpoint(&settings.failpoint);
        crate::remedies::leave_out(&settings.remedies_off);
        let shutdown = shutdown_on_signals()?;
        // Its own end, not the signal's: what drains after a signal still needs Redis.
        let redis = Redis::connect(&settings.redis, CancellationToken::new());
        let store = Store::new(redis, &settings.key_prefix);
        Ok(Daemon { store, shutdown })
    }
}

/// A token that is cancelled by SIGINT or SIGTERM. Call it within the runtime, once.
///
/// # Errors
/// The process cannot listen to signals.
pub fn shutdown_on_signals() -> std::io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT received, ending"),
            _ = terminate.recv() => tracing::info!("SIGTERM received, ending"),
        }
        token.cancel();
    });
    Ok(shutdown)
}

/// How often an agent looks whether its node has a watchdog.
const WATCHDOG_LOOK: Duration = Duration::from_secs(5);

/// Sees to it that the node has a watchdog for as long as its agent lives: another process, of a
/// group of its own, which outlives the agent. Cancel-safe.
pub async fn keep_watchdog(settings: &Settings, node: &str) {
    if settings.node.runtime != RuntimeKind::Docker || !crate::remedies::holds("watchdog") {
        return std::future::pending().await;
    }
    let dir = &settings.node.run_dir;
    loop {
        match fence::is_watched(dir, node) {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = start_watchdog(dir, node) {
                    tracing::error!(%error, "the node's watchdog cannot be started");
                }
            }
            Err(error) => {
                tracing::error!(dir = %dir.display(), %error, "the node has no watchdog: set node.run_dir to a folder that the agent may write to");
            }
        }
        tokio::time::sleep(WATCHDOG_LOOK).await;
    }
}

fn start_watchdog(dir: &Path, node: &str) -> std::io::Result<()> {
    let log = std::fs::File::create(dir.join(format!("{node}.watchdog.log")))?;
    let mut watchdog = tokio::process::Command::new(std::env::current_exe()?);
    watchdog
        .arg("watchdog")
        .arg("--dir")
        .arg(dir)
        .args(["--node", node])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(false);
    watchdog.spawn().map(|_| ())
}

/// Exit status of an agent whose node another agent took over: starting it again would only throw
/// the other one out, so supervisors are told not to.
pub const EXIT_SUPERSEDED: u8 = 3;

/// Runs a daemon to its end and gives its exit status; what ended it is logged, with all causes.
pub async fn run_daemon(daemon: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let Err(error) = daemon.await else {
        return ExitCode::SUCCESS;
    };
    tracing::error!(
        error = crate::telemetry::chain(&*error),
        "ended by an error"
    );
    match error.downcast_ref() {
        Some(AgentError::Superseded(_)) => ExitCode::from(EXIT_SUPERSEDED),
        _ => ExitCode::FAILURE,
    }
}

static ARMED: OnceLock<String> = OnceLock::new();

/// Arms the failpoint named by the setting `failpoint`; only development builds have any.
pub fn arm_failpoint(name: &str) {
    if !name.is_empty() {
        let _ = ARMED.set(name.to_owned());
    }
}

/// Every failpoint, in the order of the flow. A test kills the process at each of them.
pub const FAILPOINTS: [&str; 14] = [
    "api.before_submit",
    "api.after_submit",
    "scheduler.after_claim",
    "scheduler.before_assign",
    "scheduler.after_assign",
    "scheduler.after_adopt",
    "agent.after_pop",
    "agent.after_take",
    "agent.before_create",
    "agent.after_create",
    "agent.before_start",
    "agent.after_start",
    "agent.before_report",
    "agent.after_report",
];

/// Ends the process at once, as `kill -9` would, if the failpoint `name` is armed.
pub fn failpoint(name: &'static str) {
    debug_assert!(FAILPOINTS.contains(&name), "failpoint {name} is not listed");
    if cfg!(debug_assertions) && ARMED.get().is_some_and(|armed| armed == name) {
        tracing::warn!(failpoint = name, "failpoint reached, aborting");
        std::process::abort();
    }
}
