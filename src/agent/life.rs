//! The life of a pod's container on this node: what is asked of it, how often it ended, how it is.
//!
//! It is what the agent remembers of a placement that Redis said stands, so that the container can
//! be started again, probed and told of without asking. Pure: it does nothing and waits for nothing.

mod restarts;

use std::time::{Duration, Instant};

pub use restarts::{Pace, Restarts, START_TRIES_MAX};

use crate::container::{Container, ContainerState, HealthState};
use crate::model::service::{Probe, Restart};
use crate::model::{Phase, ServiceSpec, Token};
use crate::store::ToRun;

/// Pause after the engine refused to stop or unpause a container: it is tried for as long as it
/// takes, since nobody else can do it.
const SNAG_PAUSE: Duration = Duration::from_secs(10);

/// What a spec asks of a container while it lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// What follows when it ends.
    pub restart: Restart,
    /// Time between its stop signal and its kill; the agent's setting where none is said.
    pub grace: Option<Duration>,
    /// Failing it, the container is started anew.
    pub liveness: Option<Probe>,
    /// Failing it, the container is not ready.
    pub readiness: Option<Probe>,
    /// The engine's own check counts as both.
    pub engine: bool,
    /// It must end with the node's lease, and is never started without.
    pub fenced: bool,
}

impl Rules {
    /// The rules of a spec.
    pub fn of(spec: &ServiceSpec) -> Rules {
        let health = spec.health.clone().unwrap_or_default();
        let own = health.liveness.is_some() || health.readiness.is_some();
        Rules {
            restart: spec.restart,
            grace: spec.stop.grace.map(|grace| grace.0),
            fenced: spec.on_node_loss.is_fenced(),
            // Whoever names probes knows better than the image.
            engine: !own && spec.health.as_ref().is_none_or(|health| health.engine),
            liveness: health.liveness,
            readiness: health.readiness,
        }
    }
}

/// Where a pod is, as it is told to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its phase; `None` leaves it as it is.
    pub phase: Option<Phase>,
    /// Why.
    pub reason: String,
    /// Exit code of the last end, where there was one.
    pub exit_code: Option<i64>,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it is ready; `None` leaves that as it is.
    pub ready: Option<bool>,
    /// The engine's id of its container.
    pub container: String,
}

/// What the probes say of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// What the liveness probe said when it had failed too often.
    pub dead: Option<String>,
    /// What the readiness probe says; `None` while nothing is known.
    pub ready: Option<bool>,
    /// Why it is not ready.
    pub said: String,
}

/// The life of one placement's container.
#[derive(Debug)]
pub struct Life {
    /// The placement.
    pub token: Token,
    /// What its spec asks.
    pub rules: Rules,
    /// Its ends and starts.
    pub restarts: Restarts,
    /// What its probes say.
    pub vitals: Vitals,
    /// Its limits could not be put back: no more tries on this container.
    pub unmendable: bool,
    /// This agent has started it itself, and saw its beginning.
    pub fresh: bool,
    /// Why this node's settings do not allow it to be started, if they do not.
    pub forbidden: Option<String>,
    /// The engine refused to change the running container: not again before.
    snag: Option<Instant>,
    told: Option<Status>,
}

impl Life {
    /// The life of a placement that is to run, of which nothing is known here yet.
    pub fn of(run: &ToRun, pace: Pace) -> Life {
        // What cannot be read is told when the container is made.
        let spec = serde_json::from_str::<ServiceSpec>(&run.spec);
        let rules = spec.map_or_else(|_| Rules::default(), |spec| Rules::of(&spec));
        Life {
            token: run.token.clone(),
            restarts: Restarts::taken_up(run.restarts, run.phase, rules.restart, pace),
            rules,
            vitals: Vitals::default(),
            unmendable: false,
            fresh: false,
            forbidden: None,
            snag: None,
            told: None,
        }
    }

    /// Redis says where the pod is: if that is not what was told last, it is told again.
    pub fn heard(&mut self, run: &ToRun) {
        let same = |told: &Status| {
            told.phase.is_none_or(|phase| phase == run.phase) && told.container == run.container
        };
        if !self.told.as_ref().is_some_and(same) {
            self.told = None;
        }
    }

    /// What was told is to be told again.
    pub fn forget_told(&mut self) {
        self.told = None;
    }

    /// Looks at the container: notes what began and what ended.
    pub fn see(&mut self, container: Option<&Container>, now: Instant) {
        let Some(container) = container.filter(|container| container.token == self.token) else {
            return;
        };
        match &container.state {
            ContainerState::Running => {
                self.restarts.runs(now);
                if let Some(words) = self.dead(container) {
                    self.restarts.condemn(words, now);
                }
            }
            ContainerState::Exited { exit_code, reason } => {
                self.vitals = Vitals::default();
                let rule = self.rules.restart;
                self.restarts
                    .ended(*exit_code, reason.as_deref(), rule, now);
            }
            ContainerState::Created | ContainerState::Paused | ContainerState::Removing => {}
        }
    }

    /// The container was started just now.
    pub fn started(&mut self, now: Instant) {
        self.restarts.started(now);
        self.fresh = true;
        self.vitals = Vitals {
            ready: self.rules.readiness.is_some().then_some(false),
            ..Vitals::default()
        };
    }

    /// Its container is stopped because the node's lease ran out: no failure of its own.
    pub fn pardon(&mut self) {
        self.restarts.pardon();
    }

    /// The engine refused a step.
    pub fn refused(&mut self, container: Option<&Container>, why: String, now: Instant) {
        if container.is_some_and(Container::lives) {
            self.snag = Some(now + SNAG_PAUSE);
        } else {
            self.restarts.refused(why, now);
        }
    }

    /// Until when a running container is left as it is.
    pub fn snag(&self, now: Instant) -> Option<Instant> {
        self.snag.filter(|until| *until > now)
    }

    /// Why a running container must be started anew, if it must.
    pub fn dead(&self, container: &Container) -> Option<String> {
        let engine = container
            .health
            .as_ref()
            .filter(|health| self.rules.engine && health.state == HealthState::Unhealthy);
        let own = self.vitals.dead.clone();
        own.or_else(|| {
            engine.map(|health| match health.said.as_str() {
                "" => "the image's HEALTHCHECK failed".to_owned(),
                said => said.to_owned(),
            })
        })
    }

    /// Where the pod is; `None` where there is nothing to tell.
    pub fn status(&self, container: Option<&Container>) -> Option<Status> {
        let container = container.filter(|container| container.token == self.token);
        let status = |phase, reason: String| Status {
            phase,
            reason,
            exit_code: None,
            restarts: self.restarts.total(),
            ready: None,
            container: container.map(|it| it.id.clone()).unwrap_or_default(),
        };
        if let Some(end) = self.restarts.end() {
            return Some(Status {
                exit_code: end.exit_code,
                ..status(Some(end.phase), end.reason.clone())
            });
        }
        match container {
            Some(container) if container.state == ContainerState::Running => {
                if let Some(words) = self.dead(container) {
                    return Some(Status {
                        ready: Some(false),
                        ..status(Some(Phase::Unhealthy), unhealthy(&words))
                    });
                }
                let (ready, reason) = self.ready(container);
                Some(Status {
                    ready,
                    ..status(Some(Phase::Running), reason)
                })
            }
            _ => self.restarts.waiting().map(|waiting| Status {
                exit_code: waiting.exit_code,
                ..status(waiting.phase, waiting.reason.clone())
            }),
        }
    }

    /// What is to be told by now, once: `None` if that was told already.
    pub fn news(&mut self, container: Option<&Container>) -> Option<Status> {
        let status = self.status(container)?;
        if self.told.as_ref() == Some(&status) {
            return None;
        }
        self.told = Some(status.clone());
        Some(status)
    }

    fn ready(&self, container: &Container) -> (Option<bool>, String) {
        if self.rules.readiness.is_some() {
            let reason = match self.vitals.ready {
                Some(false) if !self.vitals.said.is_empty() => {
                    format!("not ready: {}", self.vitals.said)
                }
                _ => String::new(),
            };
            return (self.vitals.ready, reason);
        }
        let engine = container.health.as_ref().filter(|_| self.rules.engine);
        let ready = engine.is_none_or(|health| health.state == HealthState::Healthy);
        (Some(ready), String::new())
    }
}

fn unhealthy(words: &str) -> String {
    format!("unhealthy: {words}")
}

#[cfg(test)]
mod tests;
