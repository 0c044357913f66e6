//! The sweep: pods of lost nodes, lapsed claims and parked pods go back to the queue; drains go on.
//!
//! Any number of schedulers sweep; each call is atomic, so each pod moves once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::drain::Drains;
use crate::settings::SchedulerSettings;
use crate::store::backoff::Backoff;
use crate::store::{Store, StoreError, SweepOutcome};
use crate::telemetry::chain;

/// Pods of a lost node that one call moves: a few milliseconds of Redis.
const SWEEP_STEP: usize = 500;
/// Claims that one call takes back.
const CLAIMS_STEP: usize = 2;
/// Parked pods that one call puts back.
const PARKED_STEP: usize = 500;

/// Sweeps every `sweep_interval` until `shutdown`.
pub async fn run(
    store: &Store,
    settings: &SchedulerSettings,
    lease: Duration,
    shutdown: &CancellationToken,
) {
    let mut ticks = tokio::time::interval(settings.sweep_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = Backoff::new();
    let mut warned = false;
    let mut drains = Drains::default();
    loop {
        tokio::select! {
            biased; // after a round that took long the next one is due already
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let round = async {
            sweep(store, lease, &mut warned).await?;
            drains.go_on(store).await
        };
        match shutdown.run_until_cancelled(round).await {
            None => return,
            Some(Ok(())) => backoff.reset(),
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "sweeping failed, trying again");
                backoff.wait(shutdown).await;
            }
        }
    }
}

/// One round: everything that is due now. `warned` remembers that a mass loss was told.
///
/// # Errors
/// Redis failed; the next round goes on.
pub async fn sweep(store: &Store, lease: Duration, warned: &mut bool) -> Result<(), StoreError> {
    store.recovery().tick().await?;
    let mut from_node = 0;
    loop {
        match store.nodes().sweep(lease, SWEEP_STEP).await? {
            SweepOutcome::Swept { node, pods, done } => {
                from_node += pods;
                if done {
                    tracing::warn!(
                        node.id = node,
                        pods = from_node,
                        "node lost, its pods went back to the queue"
                    );
                    from_node = 0;
                }
            }
            SweepOutcome::Mass { overdue, all } => {
                if !*warned {
                    tracing::error!(
                        overdue,
                        all,
                        "more than half of all nodes are overdue at once: waiting one more lease before their pods are moved"
                    );
                    *warned = true;
                }
                break;
            }
            SweepOutcome::Grace(left) => {
                tracing::debug!(
                    left_ms = left.as_millis(),
                    "Redis restarted or failed over: leases have grace"
                );
                break;
            }
            SweepOutcome::None => {
                *warned = false;
                break;
            }
        }
    }
    let entries = store.queue().expire_claims(CLAIMS_STEP).await?;
    if entries > 0 {
        tracing::warn!(
            entries,
            "claims of a dead or slow scheduler were taken back"
        );
    }
    store.queue().release_parked(PARKED_STEP).await?;
    Ok(())
}
