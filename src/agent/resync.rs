//! The comparisons; they alone must be enough to converge, with every notice lost.
//!
//! One compares the engine's containers with what the agent left them as. It asks only the engine,
//! so it comes often, and whatever was done behind the agent's back is found within seconds. The
//! other has each pod looked at that is assigned here or has a container here. It asks Redis, which
//! all nodes share, so it comes less often.
//!
//! Both run at the start, when the node returns from being lost, when the engine is back, and on a
//! timer. An engine that does not answer means "unknown", never "no containers".

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::worker::Workers;
use crate::model::PodId;
use crate::remedies;
use crate::settings::AgentSettings;
use crate::store::backoff::Backoff;
use crate::telemetry::chain;

/// With what it is compared.
#[derive(Clone, Copy)]
enum With {
    Engine,
    Redis,
}

/// Compares again and again. Cancel-safe.
pub(super) async fn run(workers: &Arc<Workers>, settings: &AgentSettings) {
    let with_redis = async {
        // What is not known to have a container would get a second one.
        workers.compared.cancelled().await;
        if !remedies::holds("resync") {
            return;
        }
        again_and_again(workers, With::Redis, settings.resync_interval).await;
    };
    tokio::join!(
        again_and_again(workers, With::Engine, settings.drift_interval),
        with_redis
    );
}

async fn again_and_again(workers: &Arc<Workers>, with: With, interval: Duration) {
    let mut backoff = Backoff::new();
    loop {
        let (compared, wake) = match with {
            With::Engine => (compare_with_engine(workers).await, &workers.list),
            With::Redis => (compare_with_redis(workers).await, &workers.compare),
        };
        if let Err(error) = compared {
            tracing::warn!(error, "comparing failed, trying again");
            tokio::time::sleep(backoff.next_pause()).await;
            if matches!(with, With::Engine) {
                workers.engine_answers().await;
            }
            continue;
        }
        backoff.reset();
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Has every container looked at that is not as it was left.
async fn compare_with_engine(workers: &Arc<Workers>) -> Result<(), String> {
    let all = workers.inspect_all.swap(false, Ordering::AcqRel);
    let runtime = workers.runtime();
    let listed = runtime.list(workers.node(), workers.cluster()).await;
    let containers = listed.map_err(|error| {
        workers.inspect_all.fetch_or(all, Ordering::AcqRel);
        workers.engine_trouble.notify_one();
        chain(&error)
    })?;
    workers.know(containers, all);
    workers.compared.cancel();
    Ok(())
}

/// Has every pod looked at that is assigned here, or has a container here.
async fn compare_with_redis(workers: &Arc<Workers>) -> Result<(), String> {
    let assigned = workers.store().pending().compare(workers.node()).await;
    let assigned = assigned.map_err(|error| chain(&error))?;
    let mut pods: HashSet<PodId> = assigned.into_iter().collect();
    pods.extend(workers.known_pods());
    for pod in pods {
        workers.look(pod, None);
    }
    Ok(())
}
