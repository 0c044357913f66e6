//! The probes of the pods: begun when a container runs, ended with it, heard in between.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use tokio_util::task::AbortOnDropHandle;

use super::Workers;
use super::table::Look;
use crate::agent::probe;
use crate::container::ContainerState;
use crate::model::PodId;

/// What a probe asks after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Kind {
    /// Whether the container lives.
    Liveness,
    /// Whether it is ready for work.
    Readiness,
}

/// Whom a probe asks, and to whom it tells.
#[derive(Clone)]
pub(in crate::agent) struct Probing {
    workers: Weak<Workers>,
    pub(in crate::agent) pod: PodId,
    pub(in crate::agent) container: String,
    round: u64,
}

impl Probing {
    /// The workers, while the agent lives.
    pub(in crate::agent) fn workers(&self) -> Option<Arc<Workers>> {
        self.workers.upgrade()
    }

    /// Tells a new verdict.
    pub(in crate::agent) fn tell(&self, kind: Kind, good: bool, words: String) {
        let Some(workers) = self.workers.upgrade() else {
            return;
        };
        let heard = workers.table.with_round(&self.pod, self.round, |life| {
            tracing::info!(pod.id = %self.pod, ?kind, good, words, "a probe turned");
            match kind {
                Kind::Liveness => life.vitals.dead = (!good).then_some(words),
                Kind::Readiness => {
                    life.vitals.ready = Some(good);
                    life.vitals.said = words;
                }
            }
        });
        if heard.is_some() {
            workers.look_at(self.pod.clone(), Look::Life);
        }
    }
}

impl Workers {
    /// Begins the probes of a pod whose container runs, if it has any and they are not begun; ends
    /// those of one that does not.
    pub(super) fn watch_health(self: &Arc<Self>, pod: &PodId) {
        self.table.with(pod, |slot| {
            let (Some(life), Some(container)) = (&slot.life, &slot.container) else {
                return slot.probes.clear();
            };
            let ended = life.restarts.end().is_some();
            if container.state != ContainerState::Running || ended {
                return slot.probes.clear();
            }
            let rules = &life.rules;
            if !slot.probes.is_empty() || (rules.liveness.is_none() && rules.readiness.is_none()) {
                return;
            }
            slot.round += 1;
            let probing = Probing {
                workers: Arc::downgrade(self),
                pod: pod.clone(),
                container: container.id.clone(),
                round: slot.round,
            };
            let fresh = life.fresh;
            for (kind, probe) in [
                (Kind::Liveness, &rules.liveness),
                (Kind::Readiness, &rules.readiness),
            ] {
                let Some(probe) = probe.clone() else { continue };
                let asking = probe::run(probing.clone(), kind, probe, fresh);
                let asking = AbortOnDropHandle::new(tokio::spawn(asking));
                slot.probes.push(asking);
            }
        });
    }

    /// Where a pod's container is reached.
    pub(in crate::agent) fn address(&self, pod: &PodId) -> Option<IpAddr> {
        self.table.container(pod)?.address
    }

    /// Whether the engine is known to answer.
    pub(in crate::agent) fn engine_answers_now(&self) -> bool {
        *self.engine_up.borrow()
    }
}
