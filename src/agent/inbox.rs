//! The inbox: pops the node's pending list and has each pod looked at.
//!
//! An entry moves to `rq:<node>` when it is popped and is dropped from there by the report that
//! settles it. So whatever was popped before a crash, or popped although its answer was lost, is
//! found there again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::worker::{Entry, Workers};
use crate::model::{PodId, RawPod};
use crate::process::failpoint;
use crate::store::backoff::Backoff;
use crate::store::{Adopt, AdoptOutcome, Burial, From, StoreError};
use crate::telemetry::chain;

/// Longest block of one pop: how long a vanished agent can still draw an entry.
const POP_WAIT: Duration = Duration::from_secs(2);
/// Entries in hand at once.
const IN_HAND_MAX: usize = 1024;
/// Entries popped by one round trip after the first.
const MORE_MAX: usize = 63;

/// Serves the inbox until `ends`.
pub(super) async fn run(workers: &Arc<Workers>, ends: &CancellationToken) {
    // A stop for a container that is not known yet would be reported done.
    tokio::select! {
        () = workers.compared.cancelled() => {}
        () = ends.cancelled() => return,
    }
    let places = Arc::new(Semaphore::new(IN_HAND_MAX));
    let mut backoff = Backoff::new();
    while !ends.is_cancelled() {
        let served = tokio::select! {
            served = serve(workers, &places, &mut backoff) => served,
            () = ends.cancelled() => return,
        };
        if let Err(error) = served {
            tracing::warn!(
                error = chain(&error),
                "reading the inbox failed, trying again"
            );
            backoff.wait(ends).await;
        }
    }
}

/// Takes up what was popped before, then pops until the connection fails.
async fn serve(
    workers: &Arc<Workers>,
    places: &Arc<Semaphore>,
    backoff: &mut Backoff,
) -> Result<(), StoreError> {
    let pending = workers.store().pending();
    pending.mend(workers.node()).await?;
    let mut inbox = pending.inbox(workers.node(), POP_WAIT).await?;
    let mut burials = Vec::new();
    for bytes in pending.handling(workers.node()).await? {
        let _place = None;
        burials.extend(handle(workers, Entry { bytes, _place }).await?);
    }
    bury(workers, &burials).await?;
    loop {
        // Never closed, so a place always comes free.
        let mut place = places.clone().acquire_owned().await.ok();
        let more = places.available_permits().min(MORE_MAX);
        let popped = inbox.pop(more).await?;
        backoff.reset(); // only now: a list that cannot be popped is found out here
        burials.clear();
        for bytes in popped {
            failpoint("agent.after_pop");
            let _place = place
                .take()
                .or_else(|| places.clone().try_acquire_owned().ok());
            burials.extend(handle(workers, Entry { bytes, _place }).await?);
        }
        bury(workers, &burials).await?;
    }
}

/// Moves rubbish to the dead letters.
async fn bury(workers: &Arc<Workers>, burials: &[Burial]) -> Result<(), StoreError> {
    let Some(Burial { why, .. }) = burials.first() else {
        return Ok(());
    };
    let entries = burials.len();
    tracing::warn!(entries, why, "entries of the inbox become dead letters");
    let from = From::Inbox(workers.node());
    workers.store().bury_all(from, burials).await
}

/// Has the entry's pod looked at; a description becomes a pod of this node. What is rubbish is to be buried.
async fn handle(workers: &Arc<Workers>, entry: Entry) -> Result<Option<Burial>, StoreError> {
    let from = From::Inbox(workers.node());
    if let Some(pod) = std::str::from_utf8(&entry.bytes)
        .ok()
        .and_then(PodId::parse)
    {
        workers.look(pod, Some(entry));
        return Ok(None);
    }
    let why = match RawPod::parse(&entry.bytes) {
        Ok(raw) => {
            let nonce = PodId::new_submission();
            let adopt = Adopt {
                from,
                entry: &entry.bytes,
                raw: &raw,
                nonce: &nonce,
            };
            match workers.store().pending().adopt(adopt).await? {
                AdoptOutcome::Adopted | AdoptOutcome::Known => {
                    tracing::info!(pod.id = %raw.id, "pod pushed by hand");
                    // The entry in `rq` is the pod's id now.
                    let bytes = raw.id.as_str().as_bytes().to_vec();
                    let entry = Entry { bytes, ..entry };
                    workers.look(raw.id, Some(entry));
                    return Ok(None);
                }
                AdoptOutcome::Stopped => format!("pod {} was stopped: use another uuid", raw.id),
                AdoptOutcome::Full(what) => {
                    format!("node {} has no room left: {what}", workers.node())
                }
            }
        }
        Err(why) => why,
    };
    let entry = entry.bytes;
    Ok(Some(Burial { entry, why }))
}
