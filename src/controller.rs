//! The controller: turns wishes into pods, from whatever state.
//!
//! ```text
//!  a wish or a pod changed ──▶ services:changed ──claim──▶ view ─▶ plan ─▶ step
//!                                    ▲
//!            comparison of all services, every `compare_interval`
//! ```
//!
//! It runs in every scheduler process, any number at once: a step is carried out only if nothing
//! changed since it was planned. [`plan()`] decides, purely; the step function writes; the
//! comparison alone must be enough to converge.
//!
//! Invariants: after a 2xx every replica is made (`tests/flow/faults.rs`); any state converges
//! (`tests/flow/converges.rs`); a service at rest costs a look of the comparison and no more.

pub mod plan;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::settings::SchedulerSettings;
use crate::store::backoff::Backoff;
use crate::store::{Comparison, Due, StepOutcome, Store, StoreError};
use crate::telemetry::chain;
use plan::plan;

/// Longest wait for a change; also how soon a service is looked at whose time has come.
const WAIT: Duration = Duration::from_millis(500);
/// A claim that is not settled within this time is another controller's.
const CLAIM_LEASE: Duration = Duration::from_secs(5);
/// Services claimed by one call.
const CLAIM_MAX: usize = 100;
/// Services worked on at once.
const PARALLEL: usize = 8;
/// Steps of one service in a row, before others get their turn.
const STEPS_MAX: usize = 40;
/// Pods compared by one call: a few milliseconds of Redis.
const COMPARE_PODS: usize = 500;
/// While something is queued nothing can be told of what lies nowhere; a scheduler needs moments.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Pauses of one comparison; a queue that never empties is searched another time.
const BUSY_PAUSES_MAX: usize = 20;
/// How long ended pods without an owner are kept to be looked at.
const LOOSE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Works until `shutdown`.
pub async fn run(store: &Store, settings: &SchedulerSettings, shutdown: &CancellationToken) {
    let changed = Notify::new();
    tokio::join!(
        watch(store, &changed, shutdown),
        work(store, settings, &changed, shutdown),
        compare_all(store, settings, shutdown),
    );
}

/// Notifies whenever a service is due.
async fn watch(store: &Store, changed: &Notify, shutdown: &CancellationToken) {
    let mut backoff = Backoff::new();
    let mut arrivals = None;
    while !shutdown.is_cancelled() {
        let result = async {
            let watch = match &mut arrivals {
                Some(watch) => watch,
                None => arrivals.insert(store.wishes().arrivals(ARRIVAL_WAIT).await?),
            };
            watch.wait().await
        };
        let Some(found) = shutdown.run_until_cancelled(result).await else {
            return;
        };
        match found {
            Ok(true) => {
                backoff.reset();
                changed.notify_one();
                // While the sign stands it answers at once: let a claim take it away.
                shutdown
                    .run_until_cancelled(tokio::time::sleep(SIGN_PAUSE))
                    .await;
            }
            Ok(false) => backoff.reset(),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "watching services failed, trying again"
                );
                arrivals = None;
                backoff.wait(shutdown).await;
            }
        }
    }
}

/// Longest block of one wait for a change.
const ARRIVAL_WAIT: Duration = Duration::from_secs(2);
/// Pause after a sign of change, for the claim that follows it.
const SIGN_PAUSE: Duration = Duration::from_millis(5);

async fn work(
    store: &Store,
    settings: &SchedulerSettings,
    changed: &Notify,
    shutdown: &CancellationToken,
) {
    let mut backoff = Backoff::new();
    loop {
        match shutdown.run_until_cancelled(round(store, settings)).await {
            None => return,
            Some(Ok(found)) => {
                backoff.reset();
                if found == CLAIM_MAX {
                    continue;
                }
            }
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "the controller failed, trying again");
                backoff.wait(shutdown).await;
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(WAIT) => {}
        }
    }
}

/// One round: brings services that are due a step further; how many were found.
///
/// # Errors
/// Redis failed; they are due again when their claim ends.
pub async fn round(store: &Store, settings: &SchedulerSettings) -> Result<usize, StoreError> {
    let due = store.wishes().claim(CLAIM_MAX, CLAIM_LEASE).await?;
    let found = due.len();
    let work = due.into_iter().map(|due| async move {
        let result = bring(store, settings, &due).await;
        match result {
            // One that cannot be worked on must not hold up the others.
            Err(error) if !error.is_retryable() => {
                tracing::error!(service = %due.service, error = chain(&error), "a service cannot be worked on");
                Ok(())
            }
            result => result,
        }
    });
    let mut done = stream::iter(work).buffer_unordered(PARALLEL);
    let mut failed = None;
    while let Some(result) = done.next().await {
        failed = failed.or_else(|| result.err());
    }
    failed.map_or(Ok(found), Err)
}

/// Steps until the service is as wanted, or waits for its pods.
async fn bring(store: &Store, settings: &SchedulerSettings, due: &Due) -> Result<(), StoreError> {
    for _ in 0..STEPS_MAX {
        let wishes = store.wishes();
        let Some(view) = wishes.view(&due.service).await? else {
            return Ok(());
        };
        if view.split < view.replicas && !view.deleting {
            store.services().split(&due.service).await?;
            continue;
        }
        let step = plan(&view, settings.ended_kept);
        let outcome = wishes
            .step(due, &view, &step, settings.revisions_kept)
            .await?;
        if !step.new.is_empty() || !step.stop.is_empty() {
            tracing::info!(
                service = %due.service, new = step.new.len(), stopped = step.stop.len(), ?outcome,
                "service brought a step further"
            );
        }
        match outcome {
            StepOutcome::Stepped if step.again == Some(Duration::ZERO) => {}
            StepOutcome::Moved => {}
            StepOutcome::Stepped | StepOutcome::Absent => return Ok(()),
        }
    }
    Ok(())
}

async fn compare_all(store: &Store, settings: &SchedulerSettings, shutdown: &CancellationToken) {
    let mut ticks = tokio::time::interval(settings.compare_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = Backoff::new();
    loop {
        tokio::select! {
            biased; // after a round that took long the next one is due already
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match shutdown.run_until_cancelled(compare(store, settings)).await {
            Some(Ok(())) => backoff.reset(),
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "comparing failed, trying again");
                backoff.wait(shutdown).await;
                ticks.reset_immediately();
            }
            None => return,
        }
    }
}

/// Compares all services with their pods: those that are not as they should be become due, and
/// waiting pods that lie in no queue are put back.
///
/// # Errors
/// Redis failed; the next comparison begins again.
pub async fn compare(store: &Store, settings: &SchedulerSettings) -> Result<(), StoreError> {
    let mended = store.wishes().mend().await?;
    if mended > 0 {
        tracing::warn!(keys = mended, "keys of a wrong type were cleared");
    }
    let mut pauses = BUSY_PAUSES_MAX;
    let mut at = Comparison::default();
    while !at.done {
        let next = store
            .wishes()
            .compare(&at, COMPARE_PODS, LOOSE_KEPT, settings.ended_kept)
            .await?;
        if next.put_back > 0 {
            tracing::warn!(
                pods = next.put_back,
                "waiting pods lay in no queue and were put back"
            );
        }
        if next.busy && pauses > 0 {
            pauses -= 1;
            tokio::time::sleep(BUSY_PAUSE).await;
        } else {
            at = next;
        }
    }
    Ok(())
}
