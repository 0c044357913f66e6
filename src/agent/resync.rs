//! The comparison: all containers with all assigned pods; it alone must be enough to converge.
//!
//! It runs at the start, when the node returns from being lost, when the engine is back, and on a
//! timer. An engine that does not answer means "unknown", never "no containers".

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Workers;
use crate::model::PodId;
use crate::store::backoff::Backoff;
use crate::telemetry::chain;

/// Compares again and again. Cancel-safe.
pub(super) async fn run(workers: &Arc<Workers>, interval: Duration) {
    let mut backoff = Backoff::new();
    loop {
        if let Err(error) = compare(workers).await {
            tracing::warn!(error, "comparing failed, trying again");
            tokio::time::sleep(backoff.next_pause()).await;
            continue;
        }
        backoff.reset();
        tokio::select! {
            () = workers.compare.notified() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// One comparison: has every pod looked at that is assigned here or has a container here.
async fn compare(workers: &Arc<Workers>) -> Result<(), String> {
    let listed = workers
        .runtime()
        .list(workers.node(), workers.cluster())
        .await;
    let containers = listed.map_err(|error| {
        workers.engine_trouble.notify_one();
        chain(&error)
    })?;
    workers.know(containers);
    workers.compared.cancel();
    let assigned = workers.store().pending().compare(workers.node()).await;
    let assigned = assigned.map_err(|error| chain(&error))?;
    let mut pods: HashSet<PodId> = assigned.into_iter().collect();
    pods.extend(workers.pods_with_container());
    for pod in pods {
        workers.look(pod, None);
    }
    Ok(())
}
