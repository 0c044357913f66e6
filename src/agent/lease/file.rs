//! The file that says until when a node's lease allows containers that must never run twice.
//!
//! One file a node, in a folder that the machine's restart empties (`agent.run_dir`). The agent
//! writes it with each renewed lease; the watchdog and the agent's next start read it. A lock beside
//! it shows that a watchdog is there.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::Moment;

/// Where a node's lease is noted; nowhere for engines that end with the agent.
#[derive(Debug, Clone)]
pub(crate) struct LeaseFile {
    path: Option<PathBuf>,
    cluster: String,
    socket: String,
}

/// What the file says.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    /// When fenced containers have to end.
    pub(crate) deadline: Moment,
    /// How long they are given to end by themselves.
    pub(crate) grace: Duration,
    /// The cluster they are of.
    pub(crate) cluster: String,
    /// The engine's socket; empty is its default.
    pub(crate) socket: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    deadline_ms: u64,
    grace_ms: u64,
    cluster: String,
    socket: String,
}

/// Held by the node's watchdog for as long as it lives.
#[derive(Debug)]
pub(crate) struct WatchdogLock {
    _file: File,
}

impl LeaseFile {
    /// The file of node `name` in `dir`, whose containers are of `cluster` and the engine at `socket`.
    pub(crate) fn of(dir: &Path, name: &str, cluster: &str, socket: &str) -> LeaseFile {
        LeaseFile {
            path: Some(dir.join(format!("{name}.lease"))),
            cluster: cluster.to_owned(),
            socket: socket.to_owned(),
        }
    }

    /// No file.
    pub(crate) fn none() -> LeaseFile {
        LeaseFile {
            path: None,
            cluster: String::new(),
            socket: String::new(),
        }
    }

    /// Notes a renewed lease. That it cannot be written is told and no more: the agent itself keeps
    /// the deadline, and a watchdog that reads an old one stops too early, never too late.
    pub(super) fn write(&self, deadline: Moment, grace: Duration) {
        let Some(path) = &self.path else { return };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let stored = Stored {
            deadline_ms: ms(deadline.0),
            grace_ms: ms(grace),
            cluster: self.cluster.clone(),
            socket: self.socket.clone(),
        };
        let write = || {
            // Renamed in its place: whoever reads sees the old one or the new one.
            let new = path.with_extension("lease.new");
            let text = serde_json::to_vec(&stored)?;
            std::fs::write(&new, &text).or_else(|_| {
                std::fs::create_dir_all(path.parent().unwrap_or(path))?;
                std::fs::write(&new, &text)
            })?;
            std::fs::rename(&new, path)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "the lease cannot be noted for the watchdog");
        }
    }

    /// What was noted last; nothing if there is no file, or nobody can read it.
    pub(crate) fn read(&self) -> Option<Noted> {
        let text = std::fs::read(self.path.as_ref()?).ok()?;
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        Some(Noted {
            deadline: Moment(Duration::from_millis(stored.deadline_ms)),
            grace: Duration::from_millis(stored.grace_ms),
            cluster: stored.cluster,
            socket: stored.socket,
        })
    }

    /// What was noted for this cluster, if the last lease was of it.
    pub(super) fn read_own(&self) -> Option<Noted> {
        self.read().filter(|noted| noted.cluster == self.cluster)
    }

    /// Becomes the node's watchdog; nothing if another process is.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn lock(&self) -> std::io::Result<Option<WatchdogLock>> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("watchdog"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(WatchdogLock { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
