//! The outbox: what is to be told to Redis of each pod, and the inbox entries dropped with it.
//!
//! Nobody waits for a report: while Redis is away the newest of each pod takes the place of the
//! ones before, so what waits is bounded by the pods of the node, and their entries by the inbox.
//!
//! Invariant: of one pod nothing older is sent after something newer.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::worker::Entry;
use crate::model::PodId;
use crate::store::Report;

/// What is to be told, pod by pod, in the order of their first word.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    order: VecDeque<PodId>,
    told: HashMap<PodId, Told>,
    /// Letters that were taken out and are not settled yet.
    under_way: usize,
}

/// What is to be told of one pod.
#[derive(Default)]
pub(super) struct Told {
    /// Where it is; `None` if only entries are to be dropped.
    pub(super) report: Option<Report>,
    /// Inbox entries that it settles.
    pub(super) entries: Vec<Entry>,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // Changed in one piece, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a report, which takes the place of an older one that was not sent yet.
    pub(super) fn tell(&self, report: Report) {
        let pod = report.pod.clone();
        self.leave(pod, |told| {
            told.report = Some(match told.report.take() {
                Some(older) => newest(older, report),
                None => report,
            });
        });
    }

    /// Leaves entries to be dropped, after what was left of the pod before.
    pub(super) fn drop_entries(&self, pod: &PodId, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.leave(pod.clone(), |told| told.entries.extend(entries));
        }
    }

    fn leave(&self, pod: PodId, change: impl FnOnce(&mut Told)) {
        let mut state = self.state();
        if !state.told.contains_key(&pod) {
            state.order.push_back(pod.clone());
        }
        change(state.told.entry(pod).or_default());
        drop(state);
        self.filled.notify_one();
    }

    /// Takes what is to be told of up to `most` pods, waiting until there is something.
    /// Cancel-safe; what was taken is to be [settled](Outbox::settle).
    pub(super) async fn take(&self, most: usize) -> Vec<(PodId, Told)> {
        loop {
            {
                let mut state = self.state();
                let count = state.order.len().min(most);
                let pods: Vec<PodId> = state.order.drain(..count).collect();
                if !pods.is_empty() {
                    state.under_way += pods.len();
                    let mut taken = Vec::with_capacity(pods.len());
                    for pod in pods {
                        let told = state.told.remove(&pod).unwrap_or_default();
                        taken.push((pod, told));
                    }
                    return taken;
                }
            }
            self.filled.notified().await;
        }
    }

    /// So many that were taken are told.
    pub(super) fn settle(&self, count: usize) {
        let mut state = self.state();
        state.under_way -= count;
        if state.under_way == 0 && state.order.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until all is told. Cancel-safe.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            {
                let state = self.state();
                if state.under_way == 0 && state.order.is_empty() {
                    return;
                }
            }
            emptied.await;
        }
    }
}

/// One report that says what both say; where they differ, the newer one.
fn newest(older: Report, newer: Report) -> Report {
    if older.token != newer.token {
        return newer; // another placement: nothing of the older one holds
    }
    let (phase, reason) = match newer.phase {
        Some(_) => (newer.phase, newer.reason),
        None if newer.reason.is_empty() => (older.phase, older.reason),
        None => (older.phase, newer.reason),
    };
    let text = |newer: String, older: String| if newer.is_empty() { older } else { newer };
    Report {
        pod: newer.pod,
        token: newer.token,
        phase,
        reason,
        exit_code: newer.exit_code.or(older.exit_code),
        container: text(newer.container, older.container),
        entry: newer.entry.or(older.entry),
        ready: newer.ready.or(older.ready),
        restarts: newer.restarts.or(older.restarts),
        ports: text(newer.ports, older.ports),
        digest: text(newer.digest, older.digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, Token};

    fn pod(name: &str) -> PodId {
        PodId::parse(name).unwrap()
    }

    fn report(name: &str, phase: Option<Phase>, reason: &str) -> Report {
        Report {
            phase,
            reason: reason.to_owned(),
            ..Report::new(pod(name), Token::default())
        }
    }

    #[tokio::test]
    async fn the_newest_takes_the_place_of_what_was_not_sent() {
        let outbox = Outbox::default();
        outbox.tell(Report {
            restarts: Some(1),
            ..report("a", Some(Phase::CrashLoop), "exited")
        });
        outbox.tell(report("b", Some(Phase::Running), ""));
        outbox.tell(report("a", Some(Phase::Running), ""));
        outbox.tell(report("a", None, "a word"));
        let taken = outbox.take(10).await;
        assert_eq!(taken.len(), 2);
        let told = taken[0].1.report.as_ref().unwrap();
        assert_eq!((told.phase, told.restarts), (Some(Phase::Running), Some(1)));
        assert_eq!(told.reason, "a word");
        // What is left now is newer than what is under way, and waits its turn.
        outbox.tell(report("a", Some(Phase::Failed), ""));
        outbox.settle(2);
        assert_eq!(outbox.take(10).await.len(), 1);
        outbox.settle(1);
        outbox.emptied().await;
    }

    #[tokio::test]
    async fn another_placements_report_keeps_nothing_of_the_older() {
        let outbox = Outbox::default();
        outbox.tell(Report {
            restarts: Some(7),
            ..report("a", Some(Phase::Running), "old")
        });
        let token = Token {
            attempt: 2,
            nonce: "n".to_owned(),
        };
        outbox.tell(Report {
            token: token.clone(),
            ..report("a", None, "new")
        });
        let told = outbox.take(1).await.remove(0).1.report.unwrap();
        assert_eq!((told.token, told.phase, told.restarts), (token, None, None));
    }
}
