//! The scheduler: gives waiting pods to nodes. Any number run at once, without a leader.
//!
//! [`place`] claims, plans and assigns; [`plan`] decides, purely, over [`cluster`]'s copy of the
//! nodes, by [`score`]; [`record`] is why, for those who ask later; [`sweep`] brings the pods of lost
//! nodes back to the queue, and lets drains go on; [`rebalance`] has pods leave nodes under lasting
//! pressure. What a copy gets wrong because it is old, the assign call in Redis refuses.
//!
//! Invariant: no pod is given to a node that lacks room or whose lease is over
//! (`tests/store/queue.rs`, properties in `plan`).

pub mod cluster;
mod drain;
pub mod place;
pub mod peers;
pub mod plan;
pub mod preempt;
mod ranking;
pub mod rebalance;
pub mod record;
mod recorder;
pub mod rules;
pub mod score;
pub mod stock;
pub mod strategy;
pub mod sweep;

use tokio_util::sync::CancellationToken;

use crate::settings::Settings;
use crate::store::Store;

/// Runs a scheduler until `shutdown`; what it has claimed is settled first.
pub async fn run(store: Store, settings: &Settings, shutdown: CancellationToken) {
    let lease = settings.heartbeat.lease;
    let (rebalance, interval) = (&settings.scheduler.rebalance, settings.heartbeat.interval);
    tokio::join!(
        rebalance::run(&store, rebalance, interval, lease, &shutdown),
        place::run(&store, &settings.scheduler, lease, &shutdown),
        sweep::run(&store, &settings.scheduler, lease, &shutdown),
    );
}
