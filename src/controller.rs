//! The controller: carries on wishes that need more than one call, where their API was cut off.
//!
//! A large submit, scale or delete is committed by its first call and carried out step by step.
//! The API does that itself; if it dies on the way, this loop, in any scheduler process, does.
//! Invariant: after a 2xx every replica is made (`tests/flow/faults.rs`).

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::backoff::Backoff;
use crate::store::{Store, StoreError};
use crate::telemetry::chain;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A wish that made no step for so long has lost its API.
const IDLE: Duration = Duration::from_secs(5);
/// Wishes carried on in one round.
const SERVICES_MAX: usize = 10;

/// Carries on unfinished wishes until `shutdown`.
pub async fn run(store: &Store, shutdown: &CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = Backoff::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        match carry_on(store, IDLE).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "carrying on unfinished services failed, trying again"
                );
                backoff.wait(shutdown).await;
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
