//! The engine's own news: containers that ended, and the engine going away and coming back.

use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::worker::Workers;
use crate::container::{EngineInfo, Runtime};
use crate::store::backoff::Backoff;
use crate::telemetry::chain;

/// Waits for the engine's first answer, as long as it takes; `None` at shutdown.
pub(super) async fn first_answer(
    runtime: &Runtime,
    shutdown: &CancellationToken,
) -> Option<EngineInfo> {
    let mut backoff = Backoff::new();
    while !shutdown.is_cancelled() {
        match runtime.info().await {
            Ok(info) => return Some(info),
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the engine does not answer yet, trying again"
                );
                backoff.wait(shutdown).await;
            }
        }
    }
    None
}

/// Follows the engine until `ends`: has changed pods looked at, and has everything compared each
/// time the engine is back.
pub(super) async fn watch(workers: &Arc<Workers>, ends: &CancellationToken) {
    let mut backoff = Backoff::new();
    while !ends.is_cancelled() {
        // Following first, comparing after: nothing that happens in between is missed.
        let followed = workers
            .runtime()
            .ended(workers.node(), workers.cluster())
            .await;
        let mut changes = match followed {
            Ok(changes) => changes,
            Err(error) => {
                tell_down(workers, &chain(&error));
                backoff.wait(ends).await;
                continue;
            }
        };
        if !*workers.engine_up.borrow() {
            tracing::info!("the engine answers again");
            workers.engine_up.send_replace(true);
        }
        backoff.reset();
        workers.compare.notify_one();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(pod)) => workers.changed(pod),
                    Some(Err(error)) => {
                        tell_down(workers, &chain(&error));
                        break;
                    }
                    None => break,
                },
                () = workers.engine_trouble.notified() => {
                    // A call found no answer: is it the engine, or was it that call?
                    if let Err(error) = workers.runtime().info().await {
                        tell_down(workers, &chain(&error));
                        break;
                    }
                }
                () = ends.cancelled() => return,
            }
        }
    }
}

fn tell_down(workers: &Workers, error: &str) {
    if *workers.engine_up.borrow() {
        tracing::error!(
            error,
            "the engine does not answer: containers are left as they are, no new pods are taken"
        );
        workers.engine_up.send_replace(false);
    }
}
