//! A run as its folder tells it: how the cluster was built, what containers did, what the API was
//! asked, and what was done to the cluster.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::logs::{Asked, Deed, Moment};

/// How the cluster was built: what the checker needs of `cluster.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Built {
    /// Where the Redis servers listen.
    pub redis: Vec<Server>,
    /// Where the Sentinels listen.
    pub sentinels: Vec<String>,
    /// The master's name among them.
    pub master: String,
    /// Its nodes.
    pub nodes: Vec<BuiltNode>,
    /// Milliseconds of a node's lease.
    pub lease_ms: u64,
    /// Put before every key.
    pub key_prefix: String,
}

/// A Redis server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Host and port.
    pub addr: String,
}

/// A node, and what it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BuiltNode {
    /// Its name.
    pub name: String,
    /// Most pods at once; 0 if nobody said.
    pub pods_max: usize,
}

/// All that happened.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// How the cluster was built.
    pub built: Built,
    /// What containers did, oldest first.
    pub deeds: Vec<Deed>,
    /// What the API was asked, in the order in which it was sent.
    pub asked: Vec<Asked>,
    /// What was done to the cluster, oldest first.
    pub moments: Vec<Moment>,
}

impl Run {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it is none of its kind.
    pub fn read(dir: &Path) -> anyhow::Result<Run> {
        let built = match std::fs::read(dir.join("cluster.json")) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Built::default(),
            Err(error) => return Err(error.into()),
        };
        let mut run = Run {
            built,
            deeds: Vec::new(),
            asked: lines(&dir.join("history.jsonl"))?,
            moments: lines(&dir.join("timeline.jsonl"))?,
        };
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("engine-") && name.ends_with(".jsonl") {
                run.deeds.extend(lines::<Deed>(&entry.path())?);
            }
        }
        anyhow::ensure!(
            built_somewhere(dir),
            "{} holds no engine-<node>.jsonl: no engine has played there",
            dir.display()
        );
        run.sort();
        Ok(run)
    }

    /// Puts everything in the order of time.
    pub fn sort(&mut self) {
        self.deeds.sort_by_key(|deed| deed.at_ns);
        self.asked.sort_by_key(|asked| asked.sent_ns);
        self.moments.sort_by_key(|moment| moment.at_ns);
    }

    /// When a round began and when it was settled, as far as it has come.
    pub fn round(&self, round: u64) -> Option<(u64, Option<u64>)> {
        let of = |what: &str| {
            let mut moments = self.moments.iter().filter(|moment| moment.round == round);
            let found = moments.find(|moment| moment.what == what);
            found.map(|moment| moment.at_ns)
        };
        Some((of("round")?, of("settled")))
    }
}

fn built_somewhere(dir: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.any(|entry| {
        let name = entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        name.is_ok_and(|name| name.starts_with("engine-") && name.ends_with(".jsonl"))
    })
}

/// The lines of a log. One that is being written just now has no end yet, and is left for later.
fn lines<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut parsed = Vec::new();
    for (number, line) in whole.lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let line = serde_json::from_str(line);
        parsed.push(anyhow::Context::with_context(line, place)?);
    }
    Ok(parsed)
}
