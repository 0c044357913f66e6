//! What must never run twice ends with the node's lease.
//!
//! Containers of services with `on_node_loss: stop-then-replace` are stopped when the lease could
//! not be renewed in time: at three quarters of it, a quarter before any scheduler may have their
//! pods run elsewhere. The agent does it while it lives; the watchdog, another process, if the agent
//! is dead or held still. They are started again by the agent alone, after Redis was asked.
//!
//! Stops by label, knows no wish: must never touch other containers, nor start any.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use super::lease::{Lease, LeaseFile, fence_grace};
use crate::container::{Container, Docker, Runtime};
use crate::model::PodId;
use crate::remedies;
use crate::telemetry::chain;

/// Pause between two looks at what runs while there is no lease, and between two of the watchdog's.
const LOOK: Duration = Duration::from_millis(250);
/// Pause of the watchdog once nothing runs that it would have to stop.
const CALM_LOOK: Duration = Duration::from_secs(1);
/// A watchdog that has had nothing to do for so long, nor heard of an agent, ends.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// The watchdog leaves the agent so much time to do it itself.
const AGENT_FIRST: Duration = Duration::from_millis(250);

/// Keeps the fence of a node, for ever; `before` is told of each pod whose container is stopped.
/// Cancel-safe.
pub(super) async fn run(
    lease: &Lease,
    runtime: &Runtime,
    node: &str,
    cluster: &str,
    length: Duration,
    before: impl Fn(&PodId),
) {
    if !remedies::holds("fence") {
        return std::future::pending().await;
    }
    let grace = fence_grace(length);
    loop {
        lease.fenced().await;
        stop_fenced(runtime, node, cluster, grace, &before).await;
        tokio::time::sleep(LOOK).await;
    }
}

/// Stops what must not run without a lease. Answers how many there were; nothing if that is not known.
async fn stop_fenced(
    runtime: &Runtime,
    node: &str,
    cluster: &str,
    grace: Duration,
    before: impl Fn(&PodId),
) -> Option<usize> {
    let listed = match runtime.list(node, cluster).await {
        Ok(listed) => listed,
        Err(error) => {
            tracing::error!(
                node.id = node,
                error = chain(&error),
                "the lease ran out and the engine does not answer: what must not run twice may run on"
            );
            return None;
        }
    };
    let fenced: Vec<&Container> = listed.iter().filter(|it| it.fenced && it.lives()).collect();
    let stops = fenced.iter().map(|container| async {
        before(&container.pod);
        tracing::warn!(
            pod.id = %container.pod,
            node.id = node,
            container.id = container.id,
            "the node's lease ran out: stopping a container that must never run twice"
        );
        if let Err(error) = runtime.stop(&container.id, grace).await {
            let error = chain(&error);
            tracing::error!(
                container.id = container.id,
                error,
                "stopping it failed, trying again"
            );
        }
    });
    Some(join_all(stops).await.len())
}

/// Whether node `name` has a watchdog.
///
/// # Errors
/// `dir` cannot be written.
pub fn is_watched(dir: &Path, name: &str) -> std::io::Result<bool> {
    Ok(LeaseFile::of(dir, name, "", "").lock()?.is_none())
}

/// The watchdog of node `name`: reads the deadline that the agent notes in `dir`, and fences once it
/// is over. Ends if the node has one already, if `dir` is taken away, and when no agent was there
/// for long and nothing is left to stop: the next agent starts another.
///
/// # Errors
/// `dir` cannot be written.
pub async fn watch(dir: &Path, name: &str) -> std::io::Result<()> {
    let file = LeaseFile::of(dir, name, "", "");
    let Some(_lock) = file.lock()? else {
        tracing::info!(node.id = name, "the node has a watchdog already");
        return Ok(());
    };
    tracing::info!(node.id = name, dir = %dir.display(), "watchdog is ready");
    let mut idle = Duration::ZERO;
    while dir.exists() && idle < IDLE_MAX {
        tokio::time::sleep(LOOK).await;
        // Without a word there was no lease since the machine started, and nothing that ran by one.
        let noted = file.read();
        let over = noted.filter(|noted| (noted.deadline + AGENT_FIRST).is_past());
        let Some(noted) = over else {
            idle = Duration::ZERO;
            continue;
        };
        let runtime = Runtime::Docker(Docker::new(&noted.socket));
        let stopped = stop_fenced(&runtime, name, &noted.cluster, noted.grace, |_| {}).await;
        if stopped == Some(0) {
            tokio::time::sleep(CALM_LOOK).await; // nobody starts any without a lease
            idle += CALM_LOOK;
        }
    }
    Ok(())
}
