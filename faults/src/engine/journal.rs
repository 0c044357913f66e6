//! What outlives the process: a journal of whole records, the last of each container standing.
//!
//! It is written before the truth log. A process killed in between leaves the log one line behind, and
//! the next start adds that line ([`lagging`]).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::logs::{Deed, Did, write_line};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Never started.
    Created,
    /// Its process lives.
    Running,
    /// Its process lives, and is held still.
    Paused,
    /// Its process has ended.
    Exited,
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
    pub(super) name: String,
    /// What was asked for, in Docker's words.
    pub(super) body: Value,
    pub(super) state: State,
    pub(super) exit_code: i64,
    /// The last octets of its address.
    pub(super) number: u16,
    pub(super) created_ns: i64,
    pub(super) started_ns: i64,
    pub(super) ended_ns: i64,
    /// How often it was started: what waits for an end of an earlier run must not take a later one.
    pub(super) starts: u64,
    pub(super) removed: bool,
}

impl Made {
    /// Its process lives.
    pub(super) fn lives(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// It is kubeleet's.
    pub(super) fn is_ours(&self) -> bool {
        self.body["Labels"]["orchestrator"] == "kubeleet"
    }

    /// Its labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.body["Labels"].as_object();
        let pairs = labels.into_iter().flatten();
        let pairs = pairs.map(|(key, value)| (key.clone(), text(value)));
        pairs.collect()
    }

    /// Its environment.
    pub(super) fn env(&self) -> Vec<String> {
        let env = self.body["Env"].as_array();
        env.into_iter().flatten().map(text).collect()
    }

    /// Its image, as it was asked for.
    pub(super) fn image(&self) -> String {
        text(&self.body["Image"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// A container as it is from now on.
    Container(Box<Made>),
    /// An image is there.
    Image(String),
    /// An image is gone.
    NoImage(String),
}

/// What a journal says is there.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) containers: BTreeMap<String, Made>,
    pub(super) images: Vec<String>,
    /// It was the first start.
    pub(super) is_new: bool,
}

/// Reads a journal and writes it anew without what is no more.
pub(super) fn open(path: &Path) -> anyhow::Result<Kept> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Kept {
                is_new: true,
                ..Kept::default()
            });
        }
        other => other?,
    };
    let mut kept = Kept::default();
    for line in text.lines() {
        // A kill may have cut the last line short; what it said was never answered.
        match serde_json::from_str(line) {
            Ok(Entry::Container(made)) if made.removed => drop(kept.containers.remove(&made.id)),
            Ok(Entry::Container(made)) => drop(kept.containers.insert(made.id.clone(), *made)),
            Ok(Entry::Image(image)) => kept.images.push(image),
            Ok(Entry::NoImage(image)) => kept.images.retain(|known| *known != image),
            Err(_) => {}
        }
    }
    let fresh = path.with_extension("fresh");
    let _ = std::fs::remove_file(&fresh);
    for made in kept.containers.values() {
        write_line(&fresh, &Entry::Container(Box::new(made.clone())))?;
    }
    for image in &kept.images {
        write_line(&fresh, &Entry::Image(image.clone()))?;
    }
    if fresh.exists() {
        std::fs::rename(&fresh, path)?;
    } else {
        std::fs::write(path, "")?;
    }
    Ok(kept)
}

/// Deeds that a truth log lacks, as the journal goes before it; `at_ns` and `node` are theirs.
pub(super) fn lagging(log: &Path, kept: &Kept, node: &str, at_ns: u64) -> Vec<Deed> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut told: BTreeMap<String, Deed> = BTreeMap::new();
    for deed in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Deed>(line).ok())
    {
        told.insert(deed.container.clone(), deed);
    }
    let mut missing = Vec::new();
    for made in kept.containers.values() {
        let is = match made.state {
            State::Created => Did::Created,
            State::Running | State::Paused => Did::Started,
            State::Exited => Did::Ended,
        };
        if told.remove(&made.id).is_none_or(|deed| deed.did != is) {
            missing.push(Deed {
                at_ns,
                node: node.to_owned(),
                did: is,
                container: made.id.clone(),
                labels: made.labels(),
                env: made.env(),
            });
        }
    }
    let gone = told.into_values().filter(|deed| deed.did != Did::Removed);
    missing.extend(gone.map(|deed| Deed {
        at_ns,
        did: Did::Removed,
        ..deed
    }));
    missing
}
