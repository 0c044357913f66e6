//! The engine's own news: containers that ended, and the engine going away and coming back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;

use super::worker::Workers;
use crate::container::{EngineInfo, Runtime, RuntimeError};
use crate::store::backoff::Backoff;
use crate::telemetry::chain;

/// A stream of news that lived this long was a good one: the next may be asked for at once.
const GOOD_STREAM: Duration = Duration::from_secs(5);

/// Waits for the engine's first answer, as long as it takes: what it is, and the cluster that the
/// node's containers are of, if there are any. Cancel-safe.
pub(super) async fn first_answer(runtime: &Runtime, node: &str) -> (EngineInfo, Option<String>) {
    let mut backoff = Backoff::new();
    loop {
        let answer = async { Ok((runtime.info().await?, runtime.known_cluster(node).await?)) };
        match answer.await {
            Ok(answer) => return answer,
            Err(error) => {
                let error: RuntimeError = error;
                tracing::warn!(
                    error = chain(&error),
                    "the engine does not answer yet, trying again"
                );
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Follows the engine: has changed pods looked at, and has everything compared each time the
/// engine is back. Cancel-safe.
pub(super) async fn watch(workers: &Arc<Workers>) {
    let mut backoff = Backoff::new();
    loop {
        let began = Instant::now();
        if let Some(news) = follow(workers).await {
            tracing::warn!(
                error = news,
                "the engine's news ended, asking for them again"
            );
            // Without news there are comparisons still; without answers there is no engine.
            match workers.runtime().info().await {
                Ok(_) => tell(workers, true),
                Err(error) => {
                    tell(workers, false);
                    tracing::warn!(
                        error = chain(&error),
                        "the engine does not answer, trying again"
                    );
                }
            }
        }
        // A stream that ends as soon as it began must not become a busy loop.
        if began.elapsed() >= GOOD_STREAM {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Follows one stream of news to its end; what went wrong, if anything did.
async fn follow(workers: &Arc<Workers>) -> Option<String> {
    // Following first, comparing after: nothing that happens in between is missed.
    let followed = workers.runtime().ended(workers.node(), workers.cluster());
    let mut changes = match followed.await {
        Ok(changes) => changes,
        Err(error) => return Some(chain(&error)),
    };
    tell(workers, true);
    // News were missed, and they alone tell of some changes: each container is inspected.
    workers.inspect_all.store(true, Ordering::Release);
    workers.compare_all();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(pod)) => workers.changed(pod),
                Some(Err(error)) => return Some(chain(&error)),
                None => return None,
            },
            () = workers.engine_trouble.notified() => {
                // A call found no answer: is it the engine, or was it that call?
                if let Err(error) = workers.runtime().info().await {
                    return Some(chain(&error));
                }
                workers.compare_all(); // whatever that call was to find out
            }
        }
    }
}

/// Notes whether the engine answers; the heartbeat passes a change on at once.
fn tell(workers: &Workers, up: bool) {
    let changed = workers
        .engine_up
        .send_if_modified(|known| std::mem::replace(known, up) != up);
    match (changed, up) {
        (false, _) => {}
        (true, true) => tracing::info!("the engine answers again"),
        (true, false) => tracing::error!(
            "the engine does not answer: containers are left as they are, no new pods are taken"
        ),
    }
}
