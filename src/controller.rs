//! The controller: carries wishes on where what should do so was lost.
//!
//! A large submit, scale or delete is committed by its first call and carried out step by step.
//! The API does that itself; if it dies on the way, this loop, in any scheduler process, does. And
//! a waiting pod that lies in no queue, because a list was deleted or restored, is put back.
//! Invariants: after a 2xx every replica is made (`tests/flow/faults.rs`); a waiting pod is placed
//! whatever became of the queue (`tests/flow/converges.rs`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::model::ServiceKey;
use crate::store::backoff::Backoff;
use crate::store::{RecoverOutcome, Store, StoreError};
use crate::telemetry::chain;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A wish that made no step for so long has lost its API.
const IDLE: Duration = Duration::from_secs(5);
/// Wishes carried on in one round.
const SERVICES_MAX: usize = 10;
/// Time between two searches for pods that lie nowhere.
const SEARCH_INTERVAL: Duration = Duration::from_secs(30);
/// Pods looked at by one call of a search, and services read by one.
const SEARCH_STEP: usize = 500;
/// While something is queued nothing can be told; a scheduler needs moments for what was put back.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Pauses of one search; a queue that never empties is searched for another time.
const BUSY_PAUSES_MAX: usize = 20;

/// Carries on until `shutdown`.
pub async fn run(store: &Store, shutdown: &CancellationToken) {
    tokio::join!(
        every(INTERVAL, shutdown, || carry_on(store, IDLE)),
        every(SEARCH_INTERVAL, shutdown, || search(store)),
    );
}

async fn every<F: Future<Output = Result<(), StoreError>>>(
    interval: Duration,
    shutdown: &CancellationToken,
    round: impl Fn() -> F,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = Backoff::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match shutdown.run_until_cancelled(round()).await {
            Some(Ok(())) => backoff.reset(),
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "the controller failed, trying again");
                backoff.wait(shutdown).await;
            }
            None => return,
        }
    }
}

/// Searches all pods for waiting ones that lie in no queue, and puts them back.
///
/// # Errors
/// Redis failed; the next search goes on.
pub async fn search(store: &Store) -> Result<(), StoreError> {
    let mut pauses = BUSY_PAUSES_MAX;
    search_in(store, None, &mut pauses).await?;
    let mut after = None;
    loop {
        let services = store.services();
        let keys = services.keys(None, after.as_ref(), SEARCH_STEP).await?;
        for service in &keys {
            search_in(store, Some(service), &mut pauses).await?;
        }
        match keys.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

async fn search_in(
    store: &Store,
    service: Option<&ServiceKey>,
    pauses: &mut usize,
) -> Result<(), StoreError> {
    let mut offset = 0;
    loop {
        match store.queue().recover(service, offset, SEARCH_STEP).await? {
            RecoverOutcome::Busy if *pauses == 0 => return Ok(()),
            RecoverOutcome::Busy => {
                *pauses -= 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            RecoverOutcome::Recovered { pods, looked_at } => {
                if pods > 0 {
                    tracing::warn!(pods, "waiting pods lay in no queue and were put back");
                }
                if looked_at < SEARCH_STEP {
                    return Ok(());
                }
                offset += looked_at;
            }
        }
    }
}

/// One round: finishes services that made no step for `idle`.
///
/// # Errors
/// Redis failed; the next round goes on.
pub async fn carry_on(store: &Store, idle: Duration) -> Result<(), StoreError> {
    for service in store.services().unfinished(idle, SERVICES_MAX).await? {
        match store.services().split(&service).await {
            Ok(()) => {
                tracing::info!(service = %service, "carried on a service whose API was cut off");
            }
            Err(error) if error.is_retryable() => return Err(error),
            // One that cannot be carried on must not hold up the others.
            Err(error) => {
                tracing::error!(service = %service, error = chain(&error), "a service cannot be carried on");
            }
        }
    }
    Ok(())
}
