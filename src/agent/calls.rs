//! Takes and reports of many workers in few calls: what arrives while one call is under way goes
//! out together with the next.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Told};
use super::worker::Workers;
use crate::model::{PodId, Token};
use crate::process::failpoint;
use crate::store::backoff::Backoff;
use crate::store::{
    PODS_PER_CALL, Report, ReportOutcome, ReturnOutcome, StoreError, TakeOutcome, Taken,
};
use crate::telemetry::chain;

/// Requests that may wait; workers beyond it wait to hand theirs in.
const WAITING_MAX: usize = 1024;

/// A pod to take in hand, and where its answer goes.
type Take = (PodId, oneshot::Sender<Taken>);

/// Hands takes in, and holds what is to be told.
pub(super) struct Calls {
    takes: mpsc::Sender<Take>,
    pub(super) outbox: Arc<Outbox>,
}

/// The other ends, for the tasks that make the calls.
pub(super) struct Requests {
    takes: mpsc::Receiver<Take>,
    outbox: Arc<Outbox>,
}

pub(super) fn channel() -> (Calls, Requests) {
    let (sender, takes) = mpsc::channel(WAITING_MAX);
    let outbox = Arc::<Outbox>::default();
    let calls = Calls {
        takes: sender,
        outbox: outbox.clone(),
    };
    (calls, Requests { takes, outbox })
}

impl Calls {
    /// What is wanted of a pod; `None` if the agent ends or was superseded. Cancel-safe: a question
    /// whose asker is gone is not asked, or its answer is of no use.
    pub(super) async fn take(&self, pod: &PodId) -> Option<Taken> {
        let (answer, answered) = oneshot::channel();
        self.takes.send((pod.clone(), answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Makes the calls until the agent ends; a call that fails is made again.
pub(super) fn serve(workers: &Arc<Workers>, requests: Requests) {
    let Requests { takes, outbox } = requests;
    // They hold the workers only while a call is made: the workers hold the other ends.
    tokio::spawn(take_all(Arc::downgrade(workers), takes));
    let ends = workers.ends().clone();
    tokio::spawn(report_all(Arc::downgrade(workers), outbox, ends));
}

async fn take_all(workers: Weak<Workers>, mut requests: mpsc::Receiver<Take>) {
    let mut batch = Vec::new();
    while requests.recv_many(&mut batch, PODS_PER_CALL).await > 0 {
        let Some(workers) = workers.upgrade() else {
            return;
        };
        batch.retain(|(_, answer)| !answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        let Some(kept) = give_back(&workers, &mut batch).await else {
            return;
        };
        if batch.is_empty() {
            continue;
        }
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
        for ((pod, answer), taken) in batch.drain(..).zip(taken) {
            if let Taken::Run(run) = &taken
                && kept.contains(&pod)
            {
                workers.stays(&pod, &run.token);
            }
            let _ = answer.send(taken);
        }
    }
}

/// Above the node's pressure limit gives pods back that were not started here, and answers for them: they
/// are another node's. What is left in `batch` is to be taken; gives those that were not taken back.
/// `None` if the agent ends or was superseded.
async fn give_back(workers: &Workers, batch: &mut Vec<Take>) -> Option<HashSet<PodId>> {
    let Some(why) = workers.pressed() else {
        return Some(HashSet::new());
    };
    let may = |(pod, _): &Take| workers.may_give_back(pod).then(|| pod.clone());
    let pods: Vec<PodId> = batch.iter().filter_map(may).collect();
    if pods.is_empty() {
        return Some(HashSet::new());
    }
    let asked: Vec<&PodId> = pods.iter().collect();
    let call = || async {
        let pending = workers.store().pending();
        let outcome = pending.give_back(workers.node(), workers.epoch(), &why, &asked);
        Ok(match outcome.await? {
            ReturnOutcome::Returned(back) => Some(Some(back)),
            ReturnOutcome::Superseded => Some(None),
            ReturnOutcome::Unknown => None,
        })
    };
    let Some(back) = until_done("giving pods back", call, workers.ends()).await? else {
        workers.supersede();
        return None;
    };
    let back = back.into_iter().chain(std::iter::repeat(false));
    let (gone, kept): (Vec<_>, Vec<_>) = pods.into_iter().zip(back).partition(|(_, back)| *back);
    let gone: HashSet<PodId> = gone.into_iter().map(|(pod, _)| pod).collect();
    for (pod, answer) in batch.extract_if(.., |(pod, _)| gone.contains(pod)) {
        tracing::info!(pod.id = %pod, node.id = workers.node(), why, "pod given back");
        let _ = answer.send(Taken::Stale);
    }
    Some(kept.into_iter().map(|(pod, _)| pod).collect())
}

async fn report_all(workers: Weak<Workers>, outbox: Arc<Outbox>, ends: CancellationToken) {
    while let Some(letters) = ends.run_until_cancelled(outbox.take(PODS_PER_CALL)).await {
        let Some(workers) = workers.upgrade() else {
            return;
        };
        failpoint("agent.before_report");
        let reports = written(&letters);
        for some in reports.chunks(PODS_PER_CALL) {
            let Some(outcomes) = report_some(&workers, some).await else {
                return;
            };
            if outcomes.contains(&ReportOutcome::Superseded) {
                workers.supersede();
                return;
            }
            for (report, outcome) in some.iter().zip(outcomes) {
                // It speaks of a placement that Redis does not know like this: what holds is asked.
                if outcome != ReportOutcome::Ok && report.token != Token::default() {
                    workers.look(report.pod.clone(), None);
                }
            }
        }
        failpoint("agent.after_report");
        outbox.settle(letters.len());
    }
}

/// The reports of some pods: each drops one entry, so further entries have reports of their own.
fn written(letters: &[(PodId, Told)]) -> Vec<Report> {
    let mut reports = Vec::with_capacity(letters.len());
    for (pod, told) in letters {
        let mut entries = told.entries.iter().map(|entry| entry.bytes.clone());
        if let Some(report) = &told.report {
            reports.push(Report {
                entry: entries.next(),
                ..report.clone()
            });
        }
        reports.extend(entries.map(|entry| Report {
            entry: Some(entry),
            ..Report::new(pod.clone(), Token::default())
        }));
    }
    reports
}

/// Reports, one by one if something a person wrote makes the call fail: it must not hold up the
/// other pods. `None` if the agent ends.
async fn report_some(workers: &Workers, reports: &[Report]) -> Option<Vec<ReportOutcome>> {
    let outcomes = report(workers, reports).await?;
    if !outcomes.is_empty() {
        return Some(outcomes);
    }
    let mut outcomes = Vec::with_capacity(reports.len());
    for one in reports.chunks(1) {
        let outcome = report(workers, one).await?;
        // What can never be told is given up: asking again would only make it again.
        outcomes.push(outcome.first().copied().unwrap_or(ReportOutcome::Ok));
    }
    Some(outcomes)
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
