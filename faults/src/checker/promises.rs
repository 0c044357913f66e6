//! The promises, each a pure function over what was seen: it answers how it was broken, or nothing.
//!
//! Those of [`LASTING`] are broken for ever once they are; those of [`SETTLED`] must come to hold when
//! nothing is broken any more, and may be looked at again until they do.

mod accepted;
mod bounds;
mod doubles;
mod extra;
mod owner;
mod room;
mod running;
mod still;
#[cfg(test)]
mod made_up;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::cuts::{Fault, faults};
use super::lives::{Life, Standing, lives};
use super::run::Run;
use super::snapshot::Snapshot;
use super::wishes::{Wish, wishes};

/// All that the promises are judged by.
pub struct Facts {
    /// The run as its logs tell it.
    pub run: Run,
    /// Every run of every container of ours.
    pub lives: Vec<Life>,
    /// The containers that are there.
    pub standing: Vec<Standing>,
    /// What the users wished.
    pub wishes: BTreeMap<String, Wish>,
    /// What was broken.
    pub faults: Vec<Fault>,
    /// What stands in Redis.
    pub snapshot: Snapshot,
    /// The round that is judged.
    pub round: u64,
    /// Until when the logs tell everything.
    pub now_ns: u64,
    /// How long a second copy may run after its node can be heard again.
    pub grace_ns: u64,
}

impl Facts {
    /// Draws from the logs what the promises look at.
    pub fn of(run: Run, snapshot: Snapshot, round: u64, now_ns: u64, grace_ns: u64) -> Facts {
        let (lives, standing) = lives(&run.deeds);
        Facts {
            wishes: wishes(&run.asked),
            faults: faults(&run.moments),
            lives,
            standing,
            run,
            snapshot,
            round,
            now_ns,
            grace_ns,
        }
    }

    /// The faults of the round.
    pub fn faults_of_round(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(|fault| fault.round == self.round)
    }

    /// The last time at which Redis was emptied or given an older copy, if it ever was.
    pub fn wiped_ns(&self) -> Option<u64> {
        let wipes = self.faults.iter().filter(|fault| fault.says("wiped"));
        wipes.map(|fault| fault.from_ns).max()
    }
}

/// How a promise was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its number in the list of promises.
    pub promise: &'static str,
    /// What is wrong, in words.
    pub says: String,
    /// When it broke, as well as that can be told.
    pub at_ns: u64,
    /// What it is seen by, a line each.
    pub evidence: Vec<String>,
}

impl Broken {
    fn of(promise: &'static str, at_ns: u64, says: String) -> Broken {
        Broken {
            promise,
            says,
            at_ns,
            evidence: Vec::new(),
        }
    }

    fn with(mut self, lines: impl IntoIterator<Item = impl std::fmt::Display>) -> Broken {
        let lines = lines.into_iter().take(EVIDENCE_MAX);
        self.evidence.extend(lines.map(|line| line.to_string()));
        self
    }
}

/// Most lines of evidence.
const EVIDENCE_MAX: usize = 12;

/// A promise.
pub type Promise = fn(&Facts) -> Option<Broken>;

/// Promises that cannot be mended by waiting.
pub const LASTING: [Promise; 6] = [
    doubles::never_two,
    doubles::fences_grow,
    doubles::two_for_a_while,
    extra::foreign_untouched,
    running::never_many,
    still::untouched,
];

/// Promises that must hold once all is settled.
pub const SETTLED: [Promise; 9] = [
    accepted::nothing_lost,
    running::all_run,
    running::told_truly,
    extra::nothing_extra,
    owner::one_place,
    room::not_exceeded,
    bounds::poison_is_dead,
    bounds::bounded,
    running::canary,
];
