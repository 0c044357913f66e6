//! What a node does by itself for a placement that stands, whether Redis answers or not.
//!
//! A container that ended is started again without asking, and without the lease: Redis gave this
//! node the placement, and a container that ends and is started again is the same claim to run as
//! one that runs on, which nobody stops while Redis is away either. Whoever has the pod by now has
//! it under another token, and this node stops its own as soon as it hears of that. Where two must
//! never run at once that is not enough: those are started only by the lease. And an agent
//! that another one superseded, or whose Redis holds a foreign cluster, changes nothing: it does
//! not speak for this node.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::task::AbortOnDropHandle;

use super::table::{Look, Slot};
use super::{Failed, Workers};
use crate::agent::life::Pace;
use crate::agent::reconcile::{SUPERSEDED_GRACE, Step, run_step};
use crate::container::{Container, ContainerState};
use crate::model::PodId;
use crate::telemetry::chain;

impl Workers {
    /// How restarts are spaced.
    pub(super) fn pace(&self) -> Pace {
        let settings = &self.parts.settings;
        Pace {
            first: settings.restart_backoff,
            max: settings.restart_backoff_max,
            reset: settings.restart_reset,
        }
    }

    /// Whether this agent speaks for its node.
    fn may_act(&self) -> bool {
        !self.is_superseded() && !self.lease.is_foreign()
    }

    /// Looks at a pod that is remembered, and does what needs no asking.
    pub(super) async fn look_here(self: &Arc<Self>, pod: &PodId) -> Result<(), Failed> {
        loop {
            if !self.may_act() {
                return Ok(());
            }
            let now = Instant::now();
            self.news(pod, now);
            let next = self.table.with_life(pod, |life, container| {
                (run_step(life, container, now), container.cloned())
            });
            let Some((step, container)) = next else {
                return Ok(());
            };
            let never_ran = |container: &Container| container.state == ContainerState::Created;
            match (step, container) {
                (Step::Create, _) => return Err(Failed::Ask),
                (Step::Start, Some(container)) if never_ran(&container) || container.fenced => {
                    return Err(Failed::Ask);
                }
                (Step::Start, Some(container)) => {
                    self.start_container(pod, None, container, None).await?;
                }
                (Step::Remove | Step::Stop { superseded: true }, _) => return Err(Failed::Ask),
                (Step::Wait(due), _) => {
                    self.watch_health(pod);
                    self.wake_at(pod, due);
                    return Ok(());
                }
                (step @ (Step::Unpause | Step::Mend | Step::Stop { .. }), Some(container)) => {
                    self.step(pod, &container, step).await?;
                }
                _ => {
                    self.watch_health(pod);
                    return Ok(());
                }
            }
        }
    }

    /// The fence stops its container: that is no end of its own.
    pub(in crate::agent) fn pardon(&self, pod: &PodId) {
        self.table.with_life(pod, |life, _| life.pardon());
    }

    /// Notes what its container does, and leaves word of what is new.
    pub(super) fn news(self: &Arc<Self>, pod: &PodId, now: Instant) {
        let told = self.table.with_life(pod, |life, container| {
            life.see(container, now);
            let status = life.news(container)?;
            Some((life.token.clone(), status))
        });
        if let Some((token, status)) = told.flatten() {
            self.keep_logs_of_ended(pod, status.phase);
            self.tell(pod, token, status);
        }
    }

    /// Takes away a container with the labels of a pod that has another one: somebody copied it. What
    /// fails is found again by the next comparison.
    pub(super) async fn remove_copy(&self, copy: Container) {
        if !self.may_act() {
            return;
        }
        tracing::warn!(pod.id = %copy.pod, container.id = copy.id, "its pod has another container: removing it");
        let _place = self.stops.acquire().await;
        let runtime = self.runtime();
        let removed = async {
            runtime.stop(&copy.id, SUPERSEDED_GRACE).await?;
            runtime.remove(&copy.id).await
        };
        if let Err(error) = removed.await {
            tracing::warn!(
                container.id = copy.id,
                error = chain(&error),
                "removing a copy failed"
            );
        }
    }

    /// Has a pod looked at when its pause is over. Nothing else is held meanwhile: neither its
    /// worker, nor an entry, nor a place among the starts.
    fn wake_at(self: &Arc<Self>, pod: &PodId, due: Instant) {
        let (workers, waits) = (Arc::downgrade(self), pod.clone());
        let alarm = tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            if let Some(workers) = workers.upgrade() {
                // Somebody else may have started it: it is looked at before it is started.
                workers.look_at(waits, Look::Container);
            }
        });
        self.table
            .with(pod, |slot| slot.alarm = Some(AbortOnDropHandle::new(alarm)));
    }
}

impl Slot {
    /// Ends what goes on around a container that is not to run, or not as it did.
    pub(super) fn quiet(&mut self) {
        self.alarm = None;
        self.probes.clear();
    }
}
