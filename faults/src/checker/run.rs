//! A run as its folder tells it: how the cluster was built, what containers did, what the API was
//! asked, and what was done to the cluster.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::logs::{Asked, Deed, Moment};

/// The log of what the API was asked.
pub const HISTORY: &str = "history.jsonl";

/// How far logs were read: bytes, by name.
pub type Marks = BTreeMap<String, u64>;

/// What later rounds need of what earlier ones have read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    /// The last round that was judged.
    pub round: u64,
    /// What containers did that still matter.
    pub deeds: Vec<Deed>,
    /// The last calls of each service.
    pub asked: Vec<Asked>,
    /// How far logs were read.
    pub marks: Marks,
}

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
    /// Milliseconds between two comparisons of an agent.
    pub resync_ms: Option<u64>,
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
    /// Reads a run's folder, from where an earlier reading stopped.
    ///
    /// # Errors
    /// A file cannot be read, or a line of it is none of its kind.
    pub fn read(dir: &Path, carried: Carried) -> anyhow::Result<(Run, Marks)> {
        let built = built(dir)?;
        let Carried {
            deeds,
            asked,
            mut marks,
            ..
        } = carried;
        let mut run = Run {
            built,
            deeds,
            asked,
            moments: Vec::new(),
        };
        run.asked.extend(lines(dir, HISTORY, &mut marks)?);
        // It is short, and all of it is needed.
        run.moments = lines(dir, "timeline.jsonl", &mut Marks::new())?;
        let mut engines = 0;
        for entry in std::fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("engine-") && name.ends_with(".jsonl") {
                run.deeds.extend(lines::<Deed>(dir, &name, &mut marks)?);
                engines += 1;
            }
        }
        anyhow::ensure!(
            engines > 0,
            "{} holds no engine-<node>.jsonl: no engine has played there",
            dir.display()
        );
        run.sort();
        Ok((run, marks))
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

/// How a run's cluster was built.
///
/// # Errors
/// The file cannot be read, or says something else.
pub fn built(dir: &Path) -> anyhow::Result<Built> {
    match std::fs::read(dir.join("cluster.json")) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Built::default()),
        Err(error) => Err(error.into()),
    }
}

/// The lines of a log after its mark, which is moved. One that is being written just now has no end yet,
/// and is left for later.
fn lines<T: DeserializeOwned>(dir: &Path, name: &str, marks: &mut Marks) -> anyhow::Result<Vec<T>> {
    let mark = marks.entry(name.to_owned()).or_default();
    let mut file = match File::open(dir.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    file.seek(SeekFrom::Start(*mark))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let mut parsed = Vec::new();
    for line in whole.lines() {
        let place = || format!("{} has the line {line:?}", dir.join(name).display());
        parsed.push(serde_json::from_str(line).with_context(place)?);
    }
    *mark += whole.len() as u64;
    Ok(parsed)
}
