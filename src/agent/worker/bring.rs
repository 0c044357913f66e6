//! One look at a pod: first what the node can do by itself, then what Redis wants.

use std::sync::Arc;
use std::time::Instant;

use super::{Failed, HOLD_PAUSE, Trouble, Workers};
use crate::agent::life::Life;
use crate::agent::reconcile::{Step, next_step};
use crate::model::PodId;
use crate::process::failpoint;
use crate::store::Taken;

impl Workers {
    /// Takes a pod in hand and steps until all is as wanted.
    pub(super) async fn bring(self: &Arc<Self>, pod: &PodId) -> Result<(), Trouble> {
        loop {
            self.inspect_changed(pod).await?;
            let done = self.look_here(pod).await;
            if !self.settled(pod, done)? {
                continue;
            }
            if !self.table.take_ask(pod) {
                return Ok(());
            }
            let wanted = self.table.wanted(pod);
            let term = self.lease.term(); // before asking: what is answered holds in it, if it lasts
            let taken = tokio::select! {
                taken = self.calls.take(pod) => taken.ok_or(Trouble::Ends)?,
                // While Redis is away the container goes on living, and may want something.
                () = wanted.notified() => {
                    self.table.set_ask(pod);
                    continue;
                }
            };
            failpoint("agent.after_take");
            if taken == Taken::Hold {
                self.table.set_ask(pod);
                tokio::select! {
                    () = tokio::time::sleep(HOLD_PAUSE) => {}
                    () = wanted.notified() => {}
                }
                continue;
            }
            self.remember(pod, &taken);
            let done = self.follow(pod, &taken, term).await;
            if matches!(done, Err(Failed::Again)) {
                self.table.set_ask(pod);
                continue;
            }
            if !self.settled(pod, done)? {
                self.drop_entries(pod); // what follows is the agent's own: a pause, or the end
            }
            // What goes on by itself from here: a pause, or probes. Redis was asked just now.
            let done = match self.look_here(pod).await {
                Err(Failed::Ask) => Ok(()),
                done => done,
            };
            if self.settled(pod, done)? && !self.table.take_ask(pod) {
                return Ok(());
            }
            self.table.set_ask(pod);
        }
    }

    /// What a look has come to: true if there is nothing more to do without asking.
    fn settled(&self, pod: &PodId, done: Result<(), Failed>) -> Result<bool, Trouble> {
        let now = Instant::now();
        match done {
            Ok(()) => Ok(true),
            Err(Failed::Again) => Ok(false),
            Err(Failed::Ask) => {
                self.table.set_ask(pod);
                Ok(true)
            }
            Err(Failed::Trouble(trouble)) => Err(trouble),
            Err(Failed::Refused(why)) => {
                tracing::warn!(pod.id = %pod, node.id = self.node(), why, "the engine refused");
                let noted = self.table.with_life(pod, |life, container| {
                    life.refused(container, why, now);
                });
                // Without a life it is a stop or a removal: the next comparison tries again.
                Ok(noted.is_none())
            }
            Err(Failed::Pod(reason)) => {
                tracing::warn!(pod.id = %pod, node.id = self.node(), reason, "pod failed");
                let noted = self
                    .table
                    .with_life(pod, |life, _| life.restarts.give_up(reason));
                Ok(noted.is_none())
            }
        }
    }

    /// Remembers what Redis said, where that is to last beyond this look.
    fn remember(&self, pod: &PodId, taken: &Taken) {
        let pace = self.pace();
        self.table.with(pod, |slot| match taken {
            Taken::Run(run) => {
                let same = slot.life.as_ref().is_some_and(|it| it.token == run.token);
                if !same {
                    let mut life = Life::of(run, pace);
                    life.forbidden = self.forbids(run);
                    slot.grace = Some(life.rules.grace);
                    slot.life = Some(life);
                    slot.quiet();
                }
                if let Some(life) = &mut slot.life {
                    life.heard(run);
                }
            }
            // No word at all: what was said before still stands.
            Taken::Absent | Taken::Hold => {}
            Taken::Stale | Taken::Unwanted | Taken::Stop(_) | Taken::Move(_) | Taken::Ended(..) => {
                slot.life = None;
                slot.quiet();
            }
        });
    }

    /// Does what Redis wants.
    async fn follow(self: &Arc<Self>, pod: &PodId, taken: &Taken, term: u64) -> Result<(), Failed> {
        loop {
            let now = Instant::now();
            self.news(pod, now);
            let container = self.table.container(pod);
            let step = self.table.with(pod, |slot| {
                next_step(taken, container.as_ref(), slot.life.as_ref(), now)
            });
            let id = container.as_ref().map_or("", |known| known.id.as_str());
            tracing::debug!(pod.id = %pod, container.id = id, ?step, "next step");
            match (step, taken, container) {
                (Step::Create, Taken::Run(run), _) => Box::pin(self.create(pod, run)).await?,
                (Step::Start, Taken::Run(run), Some(container)) => {
                    Box::pin(self.start_container(pod, Some(run), container, Some(term))).await?;
                }
                (Step::Remove, _, Some(container)) => self.remove(pod, &container).await?,
                (Step::Done, Taken::Absent, None) => {
                    self.bury_entries(pod).await;
                    return Ok(());
                }
                (Step::ReportStopped, Taken::Stop(token) | Taken::Move(token), _) => {
                    self.tell_stopped(pod, token.clone());
                    self.drop_entries(pod);
                    return Ok(());
                }
                (Step::Wait(_) | Step::Done, ..) => {
                    // The pause itself is watched over by the look that follows.
                    self.drop_entries(pod);
                    return Ok(());
                }
                (step, _, Some(container)) => self.step(pod, &container, step).await?,
                // next_step asks for a container's step only where there is one, and creates only
                // what is to run: there is nothing else.
                _ => return Ok(()),
            }
        }
    }
}
