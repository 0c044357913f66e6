//! Ends and starts of one placement's container: how many, what follows, and when the next is due.

use std::time::{Duration, Instant};

use super::unhealthy;
use crate::model::Phase;
use crate::model::service::{Restart, doubled};

/// Creates or starts that the engine refuses in a row before the pod is another node's to try.
pub const START_TRIES_MAX: u32 = 5;
/// Pauses are this share of their length at least: containers that ended together, as when a
/// database went away, must not all come back in the same moment.
const JITTER: f64 = 0.8;
/// Exit code that counts for a container that the agent stopped for being unhealthy: whatever it
/// ended with, it did not do its work.
const UNHEALTHY_CODE: i64 = 1;

/// How restarts are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The first pause; it doubles with each restart.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
    /// After being well for so long, the next pause is the first again.
    pub reset: Duration,
}

/// A start that is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Not before.
    pub due: Instant,
    /// The pod's phase meanwhile; `None` leaves it.
    pub phase: Option<Phase>,
    /// Why, and how long.
    pub reason: String,
    /// Exit code of the end that it follows, if it follows one.
    pub exit_code: Option<i64>,
}

/// The end of a placement: nothing is started any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `succeeded` or `failed`.
    pub phase: Phase,
    /// Why.
    pub reason: String,
    /// The last exit code, if there was one.
    pub exit_code: Option<i64>,
}

/// Ends and starts of one placement's container.
#[derive(Debug)]
pub struct Restarts {
    pace: Pace,
    total: u32,
    /// Restarts in a row, none of which was followed by [`Pace::reset`] of being well.
    streak: u32,
    /// Creates and starts in a row that the engine refused.
    refusals: u32,
    /// It ran at least once.
    ran: bool,
    /// It is seen to run since.
    since: Option<Instant>,
    /// Why the agent itself stops it.
    condemned: Option<String>,
    /// Its next end is the fence's doing, and counts as none.
    pardoned: bool,
    waiting: Option<Waiting>,
    end: Option<End>,
}

impl Restarts {
    /// Those of a placement that another agent may have begun, of which Redis knows `total` and
    /// `phase`. How many of them came in a row only that agent knew: all, if it is in a loop.
    pub(super) fn taken_up(total: u32, phase: Phase, rule: Restart, pace: Pace) -> Restarts {
        let in_a_row = if phase == Phase::CrashLoop { total } else { 0 };
        // It would have ended, had all that the rule allows come in a row.
        let most = rule.max.map_or(u32::MAX, |max| max.saturating_sub(1));
        Restarts {
            pace,
            total,
            streak: in_a_row.min(most),
            refusals: 0,
            ran: phase.rank() >= Phase::Running.rank(),
            since: None,
            condemned: None,
            pardoned: false,
            waiting: None,
            end: None,
        }
    }

    /// How often it was started again.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The start that is waited for.
    pub fn waiting(&self) -> Option<&Waiting> {
        self.waiting.as_ref()
    }

    /// The end, if nothing is to be started any more.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// It is seen to run.
    pub(super) fn runs(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.ran = true;
        self.refusals = 0;
        self.waiting = None;
    }

    /// The agent has started it.
    pub(super) fn started(&mut self, now: Instant) {
        let again = self.waiting.take().is_some_and(|it| it.exit_code.is_some());
        if again {
            self.total = self.total.saturating_add(1);
            self.streak = self.streak.saturating_add(1);
        }
        self.condemned = None;
        self.pardoned = false;
        self.since = Some(now);
        self.ran = true;
        self.refusals = 0;
    }

    /// It is stopped because the node's lease ran out.
    pub(super) fn pardon(&mut self) {
        self.pardoned = true;
    }

    /// It is to be stopped for being unhealthy.
    pub(super) fn condemn(&mut self, words: String, now: Instant) {
        if self.condemned.is_none() {
            self.forgive(now);
            self.condemned = Some(words);
        }
    }

    /// It is seen to have ended; what follows is decided once.
    pub(super) fn ended(&mut self, exit_code: i64, why: Option<&str>, rule: Restart, now: Instant) {
        if self.waiting.is_some() || self.end.is_some() {
            return;
        }
        self.ran = true;
        if std::mem::take(&mut self.pardoned) {
            self.since = None;
            self.waiting = Some(Waiting {
                due: now,
                phase: None,
                reason: "stopped when its node's lease ran out".to_owned(),
                exit_code: None,
            });
            return;
        }
        let (counted, words) = match self.condemned.take() {
            Some(words) => (UNHEALTHY_CODE, unhealthy(&words)),
            None => {
                self.forgive(now);
                let words = match why {
                    Some(why) => format!("exited with code {exit_code}: {why}"),
                    None => format!("exited with code {exit_code}"),
                };
                (exit_code, words)
            }
        };
        self.since = None;
        let exit_code = Some(exit_code);
        if rule.allows(counted, self.streak) {
            let pause = self.pause(self.streak);
            let number = self.total.saturating_add(1);
            self.waiting = Some(Waiting {
                due: now + pause,
                phase: Some(Phase::CrashLoop),
                reason: format!("{words}; restart {number} in {}", shown(pause)),
                exit_code,
            });
        } else {
            let phase = if counted == 0 {
                Phase::Succeeded
            } else {
                Phase::Failed
            };
            self.end = Some(End {
                phase,
                reason: words,
                exit_code,
            });
        }
    }

    /// The engine refused to create or start it.
    pub fn refused(&mut self, why: String, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= START_TRIES_MAX {
            return self.give_up(why);
        }
        let pause = self.pause(self.refusals - 1);
        self.waiting = Some(Waiting {
            due: now + pause,
            phase: self.ran.then_some(Phase::CrashLoop),
            reason: format!("{why}; next try in {}", shown(pause)),
            exit_code: self.waiting.take().and_then(|it| it.exit_code),
        });
    }

    /// It cannot run on this node.
    pub fn give_up(&mut self, reason: String) {
        self.end = Some(End {
            phase: Phase::Failed,
            reason,
            exit_code: self.waiting.take().and_then(|it| it.exit_code),
        });
    }

    /// Being well for long enough begins a new row.
    fn forgive(&mut self, now: Instant) {
        let well = self.since.map(|since| now.saturating_duration_since(since));
        if well.is_some_and(|well| well >= self.pace.reset) {
            self.streak = 0;
        }
    }

    fn pause(&self, times: u32) -> Duration {
        let whole = doubled(self.pace.first, self.pace.max, times);
        whole.mul_f64(rand::random_range(JITTER..=1.0))
    }
}

/// A pause in whole seconds, for people.
fn shown(pause: Duration) -> String {
    format!("{}s", pause.as_secs_f64().ceil())
}

#[cfg(test)]
mod tests;
