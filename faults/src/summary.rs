//! What was played and what it showed, as a table and as JSON that can be added up.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::nemesis::{Kind, Strike};

/// Counts of a run, or of several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// Seeds of the clusters.
    pub(crate) seeds: Vec<u64>,
    /// Rounds.
    pub(crate) rounds: u64,
    /// Rounds by what they were chosen as.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Faults by kind, those in mixes too.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Rounds with at least one fail-over.
    pub(crate) rounds_with_fail_over: u64,
    /// Fail-overs.
    pub(crate) fail_overs: u64,
    /// Agents that were cut off from Redis.
    pub(crate) partitions: u64,
    /// Redis emptied or set back.
    pub(crate) wiped: u64,
    /// Calls of the API that change something.
    pub(crate) calls: u64,
    /// Those without a clear answer.
    pub(crate) unclear: u64,
    /// Seconds of all rounds together.
    pub(crate) seconds: u64,
    /// Accepted services that were lost.
    pub(crate) lost: u64,
    /// What was stuck.
    pub(crate) stuck: u64,
    /// Pods that ran twice where they must not.
    pub(crate) doubled: u64,
    /// Rounds that did not hold and were not judged, as the machine stood still.
    pub(crate) stood_still: u64,
    /// Everything that was broken, in words.
    pub(crate) broken: Vec<String>,
}

impl Summary {
    /// Counts a round.
    pub(crate) fn add(&mut self, kind: Kind, strikes: &[Strike], fail_overs: u64, took: Duration) {
        self.rounds += 1;
        *self.kinds.entry(kind.name.to_owned()).or_default() += 1;
        for strike in strikes {
            *self.faults.entry(strike.name.to_owned()).or_default() += 1;
            self.partitions += strike.partitions;
            self.wiped += u64::from(strike.wiped);
        }
        self.fail_overs += fail_overs;
        self.rounds_with_fail_over += u64::from(fail_overs > 0);
        self.seconds += took.as_secs();
    }

    /// Counts a broken promise.
    pub(crate) fn fail(&mut self, text: &str) {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["I1:", "I1 ", "lost"]) {
            self.lost += 1;
        } else if says(&["I2", "twice", "doubled"]) {
            self.doubled += 1;
        } else {
            self.stuck += 1;
        }
        self.broken.push(text.to_owned());
    }

    /// Adds another run's counts.
    pub(crate) fn merge(&mut self, other: Summary) {
        self.seeds.extend(other.seeds);
        for (into, from) in [
            (&mut self.kinds, other.kinds),
            (&mut self.faults, other.faults),
        ] {
            for (name, count) in from {
                *into.entry(name).or_default() += count;
            }
        }
        self.rounds += other.rounds;
        self.rounds_with_fail_over += other.rounds_with_fail_over;
        self.fail_overs += other.fail_overs;
        self.partitions += other.partitions;
        self.wiped += other.wiped;
        self.calls += other.calls;
        self.unclear += other.unclear;
        self.seconds += other.seconds;
        self.lost += other.lost;
        self.stuck += other.stuck;
        self.doubled += other.doubled;
        self.stood_still += other.stood_still;
        self.broken.extend(other.broken);
    }

    /// What a file holds; nothing yet if there is none.
    pub(crate) fn read(path: &Path) -> Result<Summary> {
        if !path.exists() {
            return Ok(Summary::default());
        }
        let text = std::fs::read(path)?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no summary", path.display()))
    }

    /// Writes it to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        // In one step: a soak's file is read while it grows.
        let draft = path.with_extension("draft");
        std::fs::write(&draft, serde_json::to_string_pretty(self)?)?;
        std::fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<24}{:>8}{:>8}", "fault", "rounds", "faults")?;
        let mut names: Vec<&String> = self.faults.keys().chain(self.kinds.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let count = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0);
            writeln!(
                out,
                "{name:<24}{:>8}{:>8}",
                count(&self.kinds),
                count(&self.faults)
            )?;
        }
        for (name, count) in [
            ("rounds", self.rounds),
            ("rounds with a fail-over", self.rounds_with_fail_over),
            ("fail-overs", self.fail_overs),
            ("partitions of an agent", self.partitions),
            ("empty or old Redis", self.wiped),
            ("calls that change", self.calls),
            ("… without clear answer", self.unclear),
            ("seconds of rounds", self.seconds),
            ("not judged", self.stood_still),
            ("lost", self.lost),
            ("stuck", self.stuck),
            ("doubled", self.doubled),
        ] {
            writeln!(out, "{name:<24}{count:>8}")?;
        }
        for text in &self.broken {
            writeln!(out, "broken: {text}")?;
        }
        Ok(())
    }
}
