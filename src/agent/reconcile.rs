//! What to do next for one pod: a pure function of what is wanted and what the engine has.
//!
//! One step at a time: after each the engine's new state is looked at again, so a step may fail,
//! or be repeated, anywhere. [`next_step`] follows Redis's word; [`run_step`] is its part for a
//! placement that stands, and needs nothing but what the agent remembers.

use std::time::{Duration, Instant};

use super::life::Life;
use crate::container::{Container, ContainerState};
use crate::store::Taken;

/// Grace of a container whose pod is someone else's by now: it is a double, and goes quickly.
pub const SUPERSEDED_GRACE: Duration = Duration::from_secs(2);

/// One step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create the container.
    Create,
    /// Start the container: for the first time, or again.
    Start,
    /// Let the paused container go on.
    Unpause,
    /// Give the container its limits back.
    Mend,
    /// Stop the container; `superseded` ones get [`SUPERSEDED_GRACE`], others their own.
    Stop {
        /// Another placement holds.
        superseded: bool,
    },
    /// Remove the container.
    Remove,
    /// Look again then.
    Wait(Instant),
    /// Nothing is left of a pod that was to be stopped: say so.
    ReportStopped,
    /// All is as wanted.
    Done,
}

/// The next step for a pod. `life` is that of the placement, where it is to run.
pub fn next_step(
    wanted: &Taken,
    container: Option<&Container>,
    life: Option<&Life>,
    now: Instant,
) -> Step {
    match (wanted, container) {
        // Absence is never an order: Redis may have lost what it knew.
        (Taken::Absent | Taken::Hold, _) => Step::Done,
        (Taken::Run(_), _) => life.map_or(Step::Done, |life| run_step(life, container, now)),
        // Its end is told by the engine; what is to be done then depends on what is wanted then.
        (_, Some(container)) if container.state == ContainerState::Removing => Step::Done,
        (Taken::Stale, Some(container)) => remove(container, true),
        (Taken::Unwanted | Taken::Stop(_) | Taken::Move(_), Some(container)) => {
            remove(container, false)
        }
        (Taken::Stale | Taken::Unwanted, None) => Step::Done,
        (Taken::Stop(_) | Taken::Move(_), None) => Step::ReportStopped,
        (Taken::Ended(token, _), Some(container)) if container.token != *token => {
            remove(container, true)
        }
        // It ended in Redis's eyes, so it must not run; what is left of it is kept to be looked at.
        (Taken::Ended(..), Some(container)) if container.lives() => {
            Step::Stop { superseded: false }
        }
        (Taken::Ended(..), _) => Step::Done,
    }
}

/// The next step for a placement that is to run.
pub fn run_step(life: &Life, container: Option<&Container>, now: Instant) -> Step {
    let Some(container) = container else {
        return start(life, now, Step::Create);
    };
    match container.state {
        ContainerState::Removing => Step::Done,
        _ if container.token != life.token => remove(container, true),
        ContainerState::Created | ContainerState::Exited { .. } => start(life, now, Step::Start),
        _ if life.restarts.end().is_some() => Step::Done,
        ContainerState::Paused => unless_snagged(life, now, Step::Unpause),
        ContainerState::Running if life.dead(container).is_some() => {
            unless_snagged(life, now, Step::Stop { superseded: false })
        }
        ContainerState::Running if container.drifted && !life.unmendable => Step::Mend,
        ContainerState::Running => Step::Done,
    }
}

fn unless_snagged(life: &Life, now: Instant, step: Step) -> Step {
    life.snag(now).map_or(step, Step::Wait)
}

/// A step towards running, if its time has come.
fn start(life: &Life, now: Instant, step: Step) -> Step {
    if life.restarts.end().is_some() {
        return Step::Done;
    }
    match life.restarts.waiting() {
        Some(waiting) if waiting.due > now => Step::Wait(waiting.due),
        _ => step,
    }
}

fn remove(container: &Container, superseded: bool) -> Step {
    if container.lives() {
        Step::Stop { superseded }
    } else {
        Step::Remove
    }
}

#[cfg(test)]
mod tests;
