//! The lines of a run's logs, one JSON object each. Times are nanoseconds of `CLOCK_MONOTONIC`,
//! which all processes of a machine share and no clock jump moves.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A line of `engine-<node>.jsonl`: what an engine did to a container. Containers run from `Started`
/// to `Ended` or `Removed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deed {
    /// When it was done.
    pub at_ns: u64,
    /// Whose engine.
    pub node: String,
    /// What was done.
    pub did: Did,
    /// The container's id.
    pub container: String,
    /// Its labels, those of kubeleet among them.
    pub labels: BTreeMap<String, String>,
    /// Its environment, `NAME=value` each.
    pub env: Vec<String>,
}

/// What was done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// It exists and does not run.
    Created,
    /// It runs.
    Started,
    /// It runs no more, by itself, by a stop or by a kill.
    Ended,
    /// It is gone.
    Removed,
}

/// A line of `history.jsonl`: one call of the API, from outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// When it was sent.
    pub sent_ns: u64,
    /// When its answer came, or was given up.
    pub done_ns: u64,
    /// HTTP method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// The `Idempotency-Key`, or empty.
    pub key: String,
    /// The body that was sent.
    pub body: serde_json::Value,
    /// Status of the answer; nothing if none came: what was asked may or may not have happened.
    pub status: Option<u16>,
    /// The body that was answered.
    pub answer: serde_json::Value,
}

/// A line of `timeline.jsonl`: what the suite did to the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at_ns: u64,
    /// Number of the round, from 1.
    pub round: u64,
    /// `round`, `fault`, `heal`, `settled`, `canary`, `end`.
    pub what: String,
    /// The fault's name, such as `partition`.
    pub name: String,
    /// To what, and how, in words and figures.
    pub detail: serde_json::Value,
}

/// Now, in nanoseconds of the clock that the machine's processes share.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(now.tv_sec).unwrap_or_default();
    secs * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

/// Adds a line to a log of the run.
///
/// # Errors
/// The file cannot be written.
pub fn write_line(path: &Path, line: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}
