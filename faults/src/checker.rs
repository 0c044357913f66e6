//! Judges a run: what was promised, against what containers did and what stands in Redis.
//!
//! The engines' logs are the truth; the API's answers are the promises; Redis is read by a reader of
//! our own. Each judgement is a pure function ([`promises`]), so that a run can be judged again from its
//! folder, and each has a made-up run that breaks it.
//!
//! Must never go through the code that is judged.

mod carry;
pub mod cuts;
pub mod lives;
pub mod promises;
pub mod record;
pub mod redis;
pub mod resp;
pub mod run;
pub mod snapshot;
pub mod wishes;

mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::promises::{Broken, Facts, LASTING, SETTLED};
use self::run::{Carried, Marks, Run};
use self::snapshot::Snapshot;
use crate::logs::now_ns;

/// Time between two looks at what is not settled yet.
const LOOK: Duration = Duration::from_millis(500);

/// Rounds whose snapshots stay.
const SNAPSHOTS_KEPT: u64 = 5;

/// What is judged, and by what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Folder of the run.
    #[arg(long)]
    pub run: PathBuf,
    /// Number of the round.
    #[arg(long)]
    pub round: u64,
    /// The master; without it the Sentinels of `cluster.json` are asked.
    #[arg(long)]
    pub redis: Option<String>,
    /// Judge by the snapshot of Redis that an earlier look has left in the folder.
    #[arg(long)]
    pub offline: bool,
    /// Seconds in which all must settle.
    #[arg(long, default_value_t = 0.0)]
    pub wait: f64,
    /// Seconds that a second copy may run after its node can be heard again.
    #[arg(long, default_value_t = 15.0)]
    pub doubles_seconds: f64,
}

/// What is to be said of a run.
pub enum Verdict {
    /// Every promise was held; what was looked at.
    Held(String),
    /// A promise was broken; the report.
    Broken(String),
}

/// Judges a round, looking again until it holds or the time is over.
///
/// # Errors
/// It could not be judged: logs or Redis could not be read.
pub fn judge(options: &Options) -> anyhow::Result<Verdict> {
    let deadline = Instant::now() + Duration::try_from_secs_f64(options.wait)?;
    loop {
        let last = Instant::now() >= deadline;
        let (facts, marks) = match look(options) {
            Ok(seen) => seen,
            Err(error) if last => return Err(error),
            Err(_) => {
                pause();
                continue;
            }
        };
        if let Some(broken) = first(&facts, &LASTING) {
            return Ok(Verdict::Broken(report::broken(&facts, &broken)));
        }
        match first(&facts, &SETTLED) {
            None => {
                if !options.offline {
                    carry::write(&options.run, &facts, marks)?;
                }
                return Ok(Verdict::Held(report::held(&facts)));
            }
            Some(broken) if last => return Ok(Verdict::Broken(report::broken(&facts, &broken))),
            Some(_) => pause(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two looks of a program that does nothing else"
)]
fn pause() {
    std::thread::sleep(LOOK);
}

fn first(facts: &Facts, promises: &[promises::Promise]) -> Option<Broken> {
    promises.iter().find_map(|promise| promise(facts))
}

/// Looks at everything once: at Redis first, so that the logs tell what led to it.
fn look(options: &Options) -> anyhow::Result<(Facts, Marks)> {
    let dir = &options.run;
    let place = |round: u64| dir.join(format!("snapshot-{round}.json"));
    let kept = place(options.round);
    let (snapshot, (run, marks)) = if options.offline {
        let snapshot: Snapshot = serde_json::from_slice(&std::fs::read(&kept)?)?;
        let (mut run, marks) = Run::read(dir, Carried::default())?;
        cut(&mut run, snapshot.at_ns);
        (snapshot, (run, marks))
    } else {
        let built = run::built(dir)?;
        let master = redis::master(&built, options.redis.as_deref())?;
        let mut snapshot = redis::read(&master, &built.key_prefix)?;
        let read = Run::read(dir, carry::read(dir, options.round))?;
        // Until now the logs were read: who judges it again reads no further.
        snapshot.at_ns = now_ns();
        keep(&kept, &snapshot)?;
        // Old ones held, and a long run has many.
        let _ = std::fs::remove_file(place(options.round.saturating_sub(SNAPSHOTS_KEPT)));
        (snapshot, read)
    };
    let now_ns = snapshot.at_ns;
    let grace = Duration::try_from_secs_f64(options.doubles_seconds)?;
    let grace_ns = u64::try_from(grace.as_nanos())?;
    Ok((
        Facts::of(run, snapshot, options.round, now_ns, grace_ns),
        marks,
    ))
}

/// Forgets what came after a moment: later rounds of the same folder.
fn cut(run: &mut Run, at_ns: u64) {
    run.deeds.retain(|deed| deed.at_ns <= at_ns);
    run.asked.retain(|asked| asked.sent_ns <= at_ns);
    run.moments.retain(|moment| moment.at_ns <= at_ns);
}

fn keep(place: &Path, snapshot: &Snapshot) -> anyhow::Result<()> {
    std::fs::write(place, serde_json::to_vec(snapshot)?)?;
    Ok(())
}
