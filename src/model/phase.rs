//! Where a pod is in its life, what is wanted of it, and who may move it.
//!
//! ```text
//!                    scheduler              agent (with the right node and token)
//!      ┌─────────┐  assign   ┌───────────┐  take  ┌──────────┐  report ┌─────────┐
//!  ──▶ │ waiting │ ────────▶ │ scheduled │ ─────▶ │ starting │ ──────▶ │ running │◀─▶ unhealthy
//!      └─────────┘           └───────────┘        └──────────┘         └─────────┘
//!           ▲                      │                   │                    │
//!           └───── sweep: the node's lease is over, ───┴────────────────────┤
//!                  or it drains and the container is gone                   │
//!                                                                           ▼
//!                        crash-loop ◀────────────────────▶ │        succeeded, failed, stopped
//! ```
//!
//! The Lua library holds the same table (`RANK` in `redis/kubeleet.lua`).
//! Invariant: within one attempt a phase only moves forward (`tests/store/random_walk.rs`).

use serde::{Deserialize, Serialize};

/// Where a pod is. Stored as the lower-case word.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In the queue, claimed, or parked: it has no node.
    Waiting,
    /// It has a node, whose agent has not taken it yet.
    Scheduled,
    /// The agent has taken it: its image is pulled, its container created.
    Starting,
    /// Its container runs.
    Running,
    /// Its container runs and fails its probe.
    Unhealthy,
    /// Its container ended, and is started again after a pause.
    CrashLoop,
    /// Its container ended with exit code 0.
    Succeeded,
    /// It could not be started, or its container ended with another exit code.
    Failed,
    /// It was stopped because a user wanted so.
    Stopped,
}

/// Who moves pods. The user and the controller create pods and write wishes, never phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A scheduler assigning a batch.
    Scheduler,
    /// The agent of the pod's node, with the pod's token.
    Agent,
    /// The sweep of nodes whose lease is over; and whoever moves pods off a node that drains, once
    /// its agent says that the container is gone.
    Sweep,
    /// The function that carries out a stop for a pod that has no container.
    User,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Phase; 9] = [
        Phase::Waiting,
        Phase::Scheduled,
        Phase::Starting,
        Phase::Running,
        Phase::Unhealthy,
        Phase::CrashLoop,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Stopped,
    ];

    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Scheduled => "scheduled",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Unhealthy => "unhealthy",
            Phase::CrashLoop => "crash-loop",
            Phase::Succeeded => "succeeded",
            Phase::Failed => "failed",
            Phase::Stopped => "stopped",
        }
    }

    /// The phase of a stored word.
    pub fn parse(word: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// Position in a life; two phases of one rank may alternate.
    pub fn rank(self) -> u8 {
        match self {
            Phase::Waiting => 0,
            Phase::Scheduled => 1,
            Phase::Starting => 2,
            Phase::Running | Phase::Unhealthy | Phase::CrashLoop => 3,
            Phase::Succeeded | Phase::Failed | Phase::Stopped => 4,
        }
    }

    /// Its container runs.
    pub fn runs(self) -> bool {
        matches!(self, Phase::Running | Phase::Unhealthy)
    }

    /// The container is gone or will not run again in this attempt.
    pub fn is_ended(self) -> bool {
        self.rank() == 4
    }

    /// The pod occupies its node.
    pub fn is_on_node(self) -> bool {
        (1..=3).contains(&self.rank())
    }

    /// Whether `actor` may move a pod from `self` to `to`: the one table of transitions.
    pub fn may_become(self, to: Phase, actor: Actor) -> bool {
        match actor {
            Actor::Scheduler => self == Phase::Waiting && to == Phase::Scheduled,
            Actor::Agent => {
                let alternates = self.rank() == 3 && to.rank() == 3 && self != to;
                self.is_on_node() && (to.rank() > self.rank() || alternates)
            }
            Actor::Sweep => self.is_on_node() && (to == Phase::Waiting || to == Phase::Stopped),
            Actor::User => self != Phase::Stopped && to == Phase::Stopped,
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is wanted of a pod: the user's side, never written by an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// Its container should run.
    Run,
    /// Its container should be stopped and removed, and the pod forgotten.
    Stop,
}

impl Desired {
    /// The desired state of a stored word.
    pub fn parse(word: &str) -> Option<Desired> {
        match word {
            "run" => Some(Desired::Run),
            "stop" => Some(Desired::Stop),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for phase in Phase::ALL {
            assert_eq!(Phase::parse(phase.as_str()), Some(phase));
        }
        assert_eq!(Phase::parse("Running"), None);
    }

    #[test]
    fn an_agent_never_moves_a_pod_back() {
        for from in Phase::ALL {
            for to in Phase::ALL {
                if from.may_become(to, Actor::Agent) {
                    assert!(to.rank() >= from.rank(), "{from} to {to}");
                    assert!(!from.is_ended(), "{from} to {to}");
                }
            }
        }
    }

    #[test]
    fn only_the_scheduler_takes_a_pod_out_of_waiting_onto_a_node() {
        for to in Phase::ALL.into_iter().filter(|to| to.is_on_node()) {
            for actor in [Actor::Agent, Actor::Sweep, Actor::User] {
                assert!(!Phase::Waiting.may_become(to, actor), "{to} by {actor:?}");
            }
        }
    }

    #[test]
    fn ended_pods_stay_ended() {
        for from in Phase::ALL.into_iter().filter(|from| from.is_ended()) {
            for to in Phase::ALL {
                for actor in [Actor::Scheduler, Actor::Agent, Actor::Sweep] {
                    assert!(!from.may_become(to, actor), "{from} to {to} by {actor:?}");
                }
            }
        }
    }
}
