//! Takes and reports of many workers in few calls: what arrives while one call is under way goes
//! out together with the next.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::model::PodId;
use crate::store::backoff::Backoff;
use crate::store::{PODS_PER_CALL, Report, ReportOutcome, Store, StoreError, TakeOutcome, Taken};
use crate::telemetry::chain;

/// Requests that may wait; workers beyond it wait to hand theirs in.
const WAITING_MAX: usize = 1024;

/// Hands takes and reports in.
#[derive(Clone)]
pub(super) struct Calls {
    takes: mpsc::Sender<(PodId, oneshot::Sender<Option<Taken>>)>,
    reports: mpsc::Sender<(Report, oneshot::Sender<ReportOutcome>)>,
}

/// The other ends, for the task that makes the calls.
pub(super) struct Requests {
    takes: mpsc::Receiver<(PodId, oneshot::Sender<Option<Taken>>)>,
    reports: mpsc::Receiver<(Report, oneshot::Sender<ReportOutcome>)>,
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
        answered.await.ok().flatten()
    }

    /// Reports; `None` if the agent ends.
    pub(super) async fn report(&self, report: Report) -> Option<ReportOutcome> {
        let (answer, answered) = oneshot::channel();
        self.reports.send((report, answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Makes the takes of node `node`, again and again until they succeed or `ends`.
pub(super) async fn take_all(
    store: &Store,
    node: &str,
    epoch: impl Fn() -> u64,
    requests: &mut mpsc::Receiver<(PodId, oneshot::Sender<Option<Taken>>)>,
    ends: &CancellationToken,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, PODS_PER_CALL).await > 0 {
        let pods: Vec<&PodId> = batch.iter().map(|(pod, _)| pod).collect();
        let call = || async { store.pending().take(node, epoch(), &pods).await };
        let taken = match until_done("taking pods", call, ends).await {
            Some(TakeOutcome::Taken(taken)) => taken,
            Some(TakeOutcome::Superseded) | None => Vec::new(),
        };
        let mut taken = taken.into_iter();
        for (_, answer) in batch.drain(..) {
            let _ = answer.send(taken.next());
        }
    }
}

/// Makes the reports of node `node`, likewise.
pub(super) async fn report_all(
    store: &Store,
    node: &str,
    epoch: impl Fn() -> u64,
    requests: &mut mpsc::Receiver<(Report, oneshot::Sender<ReportOutcome>)>,
    ends: &CancellationToken,
) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, PODS_PER_CALL).await > 0 {
        let (reports, answers): (Vec<Report>, Vec<_>) = batch.drain(..).unzip();
        let call = || async { store.pending().report(node, epoch(), &reports).await };
        let outcomes = until_done("reporting", call, ends).await.unwrap_or_default();
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            let _ = answer.send(outcome);
        }
    }
}

impl Requests {
    pub(super) fn split(
        self,
    ) -> (
        mpsc::Receiver<(PodId, oneshot::Sender<Option<Taken>>)>,
        mpsc::Receiver<(Report, oneshot::Sender<ReportOutcome>)>,
    ) {
        (self.takes, self.reports)
    }
}

async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(
    what: &str,
    call: impl Fn() -> F,
    ends: &CancellationToken,
) -> Option<T> {
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Ok(done) => return Some(done),
            Err(error) => {
                tracing::warn!(error = chain(&error), "{what} failed, trying again");
                if ends.is_cancelled() {
                    return None;
                }
                backoff.wait(ends).await;
            }
        }
    }
}
