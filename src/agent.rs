//! The agent: brings the containers of its node to what is wanted of the node's pods.
//!
//! ```text
//!  pq:<node> ──inbox──▶ worker (one a pod): here ─▶ take ─▶ reconcile ─▶ engine ─▶ outbox ─▶ report
//!                          ▲                 │
//!    comparisons, the engine's own news,     └ what needs no asking: start again, unpause, mend,
//!    probes, and the end of a pause            stop for being unhealthy
//! ```
//!
//! An entry of the inbox only says "look at this pod again". What is to be done comes from
//! [`reconcile`], a pure function of what Redis wants, what the engine has, and what the agent
//! remembers of the placement ([`life`]): its rules, its restarts, what its probes say. Whatever was
//! lost on the way, the comparisons in `resync` find: one with the engine, every 10 s, and one with
//! Redis, every 30 s. Nobody waits for a report: they lie in the outbox, the newest of each pod, until
//! Redis answers. The agent listens on no port.
//!
//! Invariants:
//! * What the node's settings do not allow is not run, whatever stands in Redis
//!   (`tests/smoke/allowed.rs`); nor what nobody signed, where they say so (`tests/smoke/signed.rs`).
//! * A container is started for the first time only while the node's lease is held and the placement
//!   stands (`tests/flow/faults.rs`); again also while Redis is away, but never by an agent that does
//!   not speak for its node (`tests/flow/restarts.rs`).
//! * What must never run twice ends with the node's lease (`fence`, `tests/flow/fence.rs`); nothing else
//!   is killed before its grace is over (`tests/flow/stops.rs`).
//! * Above the node's pressure limit nothing is started that could start elsewhere: what was not started
//!   yet is given back (`tests/flow/pressure.rs`).
//! * Absence is never an order: a container that Redis knows nothing of is left alone.
//! * Foreign containers are never touched (`tests/smoke/container.rs`).

mod allowed;
mod calls;
mod devices;
mod engine;
pub mod fence;
mod heartbeat;
mod images;
mod inbox;
mod knowledge;
mod lease;
mod offer;
pub mod life;
mod outbox;
pub mod pressure;
mod probe;
pub mod reconcile;
mod requests;
mod restore;
mod resync;
mod users;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::container::Runtime;
use crate::model::PodId;
use crate::settings::Settings;
use crate::signing::Trust;
use crate::store::backoff::Backoff;
use crate::store::{Store, StoreError};
use crate::telemetry::chain;
use lease::{Lease, LeaseFile};
use offer::Offer;
use worker::Workers;

/// Longest wait for work in hand at the end; what is left is finished at the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// Heartbeats from one look at which pods use most to the next.
const USERS_BEATS: u32 = 3;

/// Longest wait to give the lease up, which else runs out by itself.
const LEAVE: Duration = Duration::from_secs(1);

/// Why an agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent registered under this node's name; it counts now.
    #[error("another agent registered as node {0}: two agents must not share a name")]
    Superseded(String),
    /// Redis holds something newer than this process.
    #[error("this agent cannot work with this Redis")]
    Store(#[source] StoreError),
}

/// Runs the agent of node `name` until `shutdown`. Containers run on after it ends.
///
/// # Errors
/// Another agent took over, or Redis holds a newer schema; anything else is waited out.
pub async fn run(
    store: Store,
    runtime: Runtime,
    name: &str,
    settings: &Settings,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let first_answer = shutdown.run_until_cancelled(engine::first_answer(&runtime, name));
    let Some((engine, known)) = first_answer.await else {
        return Ok(());
    };
    let lease_file = |cluster: &str| match runtime {
        Runtime::Docker(_) => LeaseFile::of(
            &settings.node.run_dir,
            name,
            cluster,
            &settings.node.docker_socket,
        ),
        Runtime::Simulated(_) => LeaseFile::none(),
    };
    let lease_length = settings.heartbeat.lease;
    let open_fenced = async {
        let opened = open(&store, known.clone());
        let Some(cluster) = &known else {
            return opened.await;
        };
        // Redis may be away for long, and an earlier agent's lease ends meanwhile.
        let lease = Lease::new(lease_file(cluster));
        let fence = fence::run(&lease, &runtime, name, cluster, lease_length, |_| {});
        tokio::select! {
            opened = opened => opened,
            () = fence => unreachable!("the fence is kept for ever"),
        }
    };
    let Some(cluster) = shutdown.run_until_cancelled(Box::pin(open_fenced)).await else {
        return Ok(());
    };
    let cluster = cluster?;
    let offer = Offer::of(settings, &engine);
    // Ends everything here, also when another agent takes over.
    let ends = shutdown.child_token();
    // Work in hand is finished after that, for as long as DRAIN.
    let abandons = CancellationToken::new();
    let _abandoned_at_the_end = abandons.clone().drop_guard();
    let workers = Workers::start(worker::Parts {
        node: name.to_owned(),
        lease_file: lease_file(&cluster),
        cluster,
        store: store.clone(),
        runtime,
        settings: settings.agent.clone(),
        devices: offer.devices.clone(),
        trust: Trust::of(&settings.agent),
        cgroup_dir: settings.node.cgroup_dir.clone(),
        ends: abandons,
    });
    let heart = heartbeat::Heart::new(&workers, settings, engine.id, offer);
    let Some(heart) = ends.run_until_cancelled(heart.register()).await else {
        return Ok(());
    };
    let heart = heart?;
    tracing::info!(
        node.id = name,
        cluster = workers.cluster(),
        "agent is ready"
    );
    let beats = async {
        let result = ends.run_until_cancelled(heart.run()).await;
        ends.cancel();
        result.unwrap_or(Ok(()))
    };
    let users_interval = settings.heartbeat.interval * USERS_BEATS;
    let (result, ..) = tokio::join!(
        beats,
        Box::pin(inbox::run(&workers, &ends)),
        Box::pin(requests::run(&workers, &ends)),
        // These may be cut off anywhere, also in a call that the engine does not answer.
        ends.run_until_cancelled(Box::pin(keep_fence(&workers, lease_length))),
        ends.run_until_cancelled(Box::pin(resync::run(&workers, &settings.agent))),
        ends.run_until_cancelled(Box::pin(engine::watch(&workers))),
        ends.run_until_cancelled(Box::pin(users::run(&workers, users_interval))),
        ends.run_until_cancelled(Box::pin(workers.images.keep_room(engine.data_dir))),
        stop_when_superseded(&workers, &ends),
    );
    workers.drain(DRAIN).await;
    if workers.is_superseded() {
        return Err(AgentError::Superseded(name.to_owned()));
    }
    result?;
    let nodes = store.nodes();
    match tokio::time::timeout(LEAVE, nodes.leave(name, workers.epoch())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "leaving failed"),
        Err(_) => tracing::warn!("leaving failed: Redis does not answer"),
    }
    Ok(())
}

/// Keeps the fence while this agent speaks for its node. Cancel-safe.
async fn keep_fence(workers: &Arc<Workers>, lease: Duration) {
    let (runtime, node, cluster) = (workers.runtime(), workers.node(), workers.cluster());
    let before = |pod: &PodId| workers.pardon(pod);
    fence::run(&workers.lease, runtime, node, cluster, lease, before).await;
}

async fn stop_when_superseded(workers: &Arc<Workers>, ends: &CancellationToken) {
    tokio::select! {
        () = workers.superseded() => ends.cancel(),
        () = ends.cancelled() => {}
    }
}

/// Opens the cluster, waiting for Redis as long as it takes; an emptied Redis gets the cluster again
/// that the node's containers are of. Cancel-safe.
async fn open(store: &Store, known: Option<String>) -> Result<String, AgentError> {
    let mut backoff = Backoff::new();
    loop {
        match store.open_as(known.clone()).await {
            Ok(cluster) => return Ok(cluster),
            Err(error @ StoreError::Newer { .. }) => return Err(AgentError::Store(error)),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "Redis does not answer yet, trying again"
                );
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}
