//! Shows that the suite is not blind: without any one remedy, a promise must be seen to break.
//!
//! Each remedy is left out in a cluster of its own, and what only it holds back is done there. One
//! more cluster, which leaves none out, must hold through all of it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::say;
use crate::summary::Summary;

/// A remedy, what is done without it, how often at most, and which words tell that it was seen.
struct Trial {
    remedy: &'static str,
    kinds: &'static [&'static str],
    rounds: u64,
    seen_as: &'static [&'static str],
}

const TRIALS: [Trial; 7] = [
    Trial {
        remedy: "wait",
        kinds: &["must-wait"],
        rounds: 6,
        seen_as: &["I1"],
    },
    Trial {
        remedy: "token",
        kinds: &["must-ask-again"],
        rounds: 3,
        seen_as: &["I2", "I4"],
    },
    Trial {
        remedy: "deadline",
        kinds: &["must-look-at-the-lease"],
        rounds: 3,
        seen_as: &["I2", "I4"],
    },
    Trial {
        remedy: "fence",
        kinds: &["must-fence"],
        rounds: 3,
        seen_as: &["I2"],
    },
    Trial {
        remedy: "watchdog",
        kinds: &["must-be-watched"],
        rounds: 3,
        seen_as: &["I2"],
    },
    Trial {
        remedy: "resync",
        kinds: &["must-compare"],
        rounds: 3,
        seen_as: &["I3"],
    },
    Trial {
        remedy: "grace",
        kinds: &["must-be-three", "must-grant-a-term"],
        rounds: 2,
        seen_as: &["I2", "I8", "I9"],
    },
];

/// How long a cluster may take until it is well, in seconds: one without a remedy may never be.
const SETTLE: &str = "20";

/// What the trials are made with.
pub(crate) struct Blind<'a> {
    /// A fresh folder.
    pub(crate) dir: &'a Path,
    /// The first seed.
    pub(crate) seed: u64,
    /// Clusters side by side.
    pub(crate) clusters: usize,
    /// Only these remedies.
    pub(crate) only: &'a [String],
}

/// Plays all trials.
///
/// # Errors
/// A remedy was left out and nothing was seen, or all were there and a promise broke.
pub(crate) fn play(blind: &Blind<'_>) -> Result<()> {
    std::fs::create_dir_all(blind.dir)?;
    let wanted = |name: &str| blind.only.is_empty() || blind.only.iter().any(|one| one == name);
    let mut waiting: VecDeque<Option<&Trial>> = VecDeque::new();
    if wanted("none") {
        waiting.push_back(None); // the longest
    }
    waiting.extend(TRIALS.iter().filter(|trial| wanted(trial.remedy)).map(Some));
    let waiting = Mutex::new(waiting);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..blind.clusters {
            scope.spawn(|| {
                while let Some(trial) = lock(&waiting).pop_front() {
                    let judged = match trial {
                        Some(trial) => without(blind, trial),
                        None => with_all(blind),
                    };
                    match judged {
                        Ok(text) => say(format_args!("{text}")),
                        Err(error) => {
                            say(format_args!("{error:#}"));
                            lock(&failed).push(format!("{error:#}"));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        bail!("{} of the trials failed", failed.len());
    }
    Ok(())
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A remedy is left out: something must be seen.
fn without(blind: &Blind<'_>, trial: &Trial) -> Result<String> {
    let summary = cluster(blind, trial.remedy, trial.kinds, trial.rounds)?;
    let remedy = trial.remedy;
    let Some(broken) = summary.broken.first() else {
        bail!(
            "blind: {} rounds without the remedy {remedy} broke nothing",
            summary.rounds
        );
    };
    if !trial.seen_as.iter().any(|words| broken.contains(words)) {
        bail!("blind: without the remedy {remedy} something else broke: {broken}");
    }
    let line = broken
        .lines()
        .find(|line| line.contains("BROKEN"))
        .unwrap_or(broken);
    Ok(format!(
        "without {remedy}, seen after {} rounds: {line}",
        summary.rounds
    ))
}

/// None is left out: nothing may break.
fn with_all(blind: &Blind<'_>) -> Result<String> {
    let mut kinds: Vec<&str> = TRIALS
        .iter()
        .flat_map(|trial| trial.kinds)
        .copied()
        .collect();
    kinds.dedup();
    let summary = cluster(blind, "", &kinds, kinds.len() as u64)?;
    match summary.broken.first() {
        None => Ok(format!("with all remedies, {} rounds held", summary.rounds)),
        Some(broken) => bail!("with all remedies a promise broke: {broken}"),
    }
}

fn cluster(blind: &Blind<'_>, off: &str, kinds: &[&str], rounds: u64) -> Result<Summary> {
    let name = if off.is_empty() { "none" } else { off };
    let dir: PathBuf = blind.dir.join(name);
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe()?)
        .args([
            "cluster",
            "--in-turn",
            "--seconds",
            "600",
            "--settle",
            SETTLE,
        ])
        .args(["--remedies-off", off, "--only", &kinds.join(",")])
        .args([
            "--rounds",
            &rounds.to_string(),
            "--seed",
            &blind.seed.to_string(),
        ])
        .arg("--dir")
        .arg(&dir)
        .stdout(std::process::Stdio::null())
        .status()?;
    let path = dir.join("summary.json");
    if !path.exists() {
        bail!("the cluster without {name} ended without a summary: {status}");
    }
    Summary::read(&path).context("no summary")
}
