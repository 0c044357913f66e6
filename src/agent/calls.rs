//! Takes and reports of many workers in few calls: what arrives while one call is under way goes
//! out together with the next.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::worker::Workers;
use crate::model::PodId;
use crate::store::backoff::Backoff;
use crate::store::{PODS_PER_CALL, Report, ReportOutcome, StoreError, TakeOutcome, Taken};
use crate::telemetry::chain;

/// Requests that may wait; workers beyond it wait to hand theirs in.
const WAITING_MAX: usize = 1024;

/// A pod to take in hand, and where its answer goes.
type Take = (PodId, oneshot::Sender<Taken>);
/// A report, and where its outcome goes.
type Told = (Report, oneshot::Sender<ReportOutcome>);

/// Hands takes and reports in.
pub(super) struct Calls {
    takes: mpsc::Sender<Take>,
    reports: mpsc::Sender<Told>,
}

/// The other ends, for the tasks that make the calls.
pub(super) struct Requests {
    takes: mpsc::Receiver<Take>,
    reports: mpsc::Receiver<Told>,
}

pub(super) fn channel() -> (Calls, Requests) {
    let (takes, take_requests) = mpsc::channel(WAITING_MAX);
    let (reports, report_requests) = mpsc::channel(WAITING_MAX);
    let calls = Calls { takes, reports };
    let requests = Requests {
        takes: take_requests,
        reports: report_requests,
    };
    (calls, requests)
}

impl Calls {
    /// What is wanted of a pod; `None` if the agent ends or was superseded.
    pub(super) async fn take(&self, pod: &PodId) -> Option<Taken> {
        let (answer, answered) = oneshot::channel();
        self.takes.send((pod.clone(), answer)).await.ok()?;
        answered.await.ok()
    }

    /// Reports; `None` if the agent ends.
    pub(super) async fn report(&self, report: Report) -> Option<ReportOutcome> {
        let (answer, answered) = oneshot::channel();
        self.reports.send((report, answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Makes the calls until the agent ends; a call that fails is made again.
pub(super) fn serve(workers: &Arc<Workers>, requests: Requests) {
    let Requests { takes, reports } = requests;
    // They hold the workers only while a call is made: the workers hold the other ends.
    tokio::spawn(take_all(Arc::downgrade(workers), takes));
    tokio::spawn(report_all(Arc::downgrade(workers), reports));
}

async fn take_all(workers: Weak<Workers>, mut requests: mpsc::Receiver<Take>) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, PODS_PER_CALL).await > 0 {
        let Some(workers) = workers.upgrade() else {
            return;
        };
        let pods: Vec<&PodId> = batch.iter().map(|(pod, _)| pod).collect();
        let call = || async {
            let pending = workers.store().pending();
            let outcome = pending.take(workers.node(), workers.epoch(), &pods);
            Ok(match outcome.await? {
                TakeOutcome::Taken(taken, wishes) => {
                    workers.knowledge.learn(wishes, &pods, &taken);
                    Some(Some(taken))
                }
                TakeOutcome::Superseded => Some(None),
                TakeOutcome::Unknown => None,
            })
        };
        let taken = match until_done("taking pods", call, workers.ends()).await {
            Some(Some(taken)) => taken,
            Some(None) => {
                workers.supersede();
                return;
            }
            None => return,
        };
        for ((_, answer), taken) in batch.drain(..).zip(taken) {
            let _ = answer.send(taken);
        }
    }
}

async fn report_all(workers: Weak<Workers>, mut requests: mpsc::Receiver<Told>) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, PODS_PER_CALL).await > 0 {
        let Some(workers) = workers.upgrade() else {
            return;
        };
        let (reports, answers): (Vec<Report>, Vec<_>) = batch.drain(..).unzip();
        let Some(mut outcomes) = report(&workers, &reports).await else {
            return;
        };
        if outcomes.is_empty() {
            // Something a person wrote makes the call fail: it must not hold up the other pods.
            for one in reports.chunks(1) {
                let Some(outcome) = report(&workers, one).await else {
                    return;
                };
                outcomes.push(outcome.first().copied().unwrap_or(ReportOutcome::Late));
            }
        }
        if outcomes.contains(&ReportOutcome::Superseded) {
            workers.supersede();
            return;
        }
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            let _ = answer.send(outcome);
        }
    }
}

/// Reports until that is answered; nothing if it can never be, `None` if the agent ends.
async fn report(workers: &Workers, reports: &[Report]) -> Option<Vec<ReportOutcome>> {
    let call = || async {
        let pending = workers.store().pending();
        let outcomes = pending.report(workers.node(), workers.epoch(), reports);
        match outcomes.await {
            Ok(outcomes) => Ok((!outcomes.contains(&ReportOutcome::Unknown)).then_some(outcomes)),
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "a report cannot be made, giving it up"
                );
                Ok(Some(Vec::new()))
            }
        }
    };
    until_done("reporting", call, workers.ends()).await
}

/// Makes a call until it is answered; `None` from it is Redis not knowing this node, which passes
/// when the heartbeat has registered it again.
async fn until_done<T, F: Future<Output = Result<Option<T>, StoreError>>>(
    what: &str,
    call: impl Fn() -> F,
    ends: &CancellationToken,
) -> Option<T> {
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Ok(Some(done)) => return Some(done),
            Ok(None) => tracing::warn!("{what} waits: Redis does not know this node"),
            Err(error) => tracing::warn!(error = chain(&error), "{what} failed, trying again"),
        }
        if ends.is_cancelled() {
            return None;
        }
        backoff.wait(ends).await;
    }
}
