//! Nodes that exist only in Redis and beat, each once in an interval, spread evenly over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::mix;
use crate::store::Store;

/// Connections on which they beat.
const CONNECTIONS: usize = 32;

/// Nodes that beat until they are stopped.
pub(super) struct Beating {
    ends: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    beats: Arc<AtomicU64>,
}

impl Beating {
    /// Has the nodes `first`, and so on for each epoch, beat; the last beat of each is at most an
    /// interval ago when it stops.
    pub(super) fn start(
        store: &Store,
        first: u32,
        epochs: &[u64],
        interval: Duration,
        pods_max: u32,
    ) -> Beating {
        let ends = CancellationToken::new();
        let beats = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        let nodes: Vec<(u32, u64)> = (first..).zip(epochs.iter().copied()).collect();
        let chunks = nodes.chunks(nodes.len().div_ceil(CONNECTIONS).max(1));
        let share = interval / u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
        for (number, some) in (0..).zip(chunks) {
            let (store, ends, beats) = (store.clone(), ends.clone(), beats.clone());
            let some = some.to_vec();
            tasks.spawn(async move {
                // Not all connections at the same moments.
                let first = Instant::now() + share * number;
                let turns = beat_in_turns(&store, &some, first, interval, pods_max, &beats);
                ends.run_until_cancelled(turns).await.unwrap_or(Ok(()))
            });
        }
        Beating { ends, tasks, beats }
    }

    /// Beats so far.
    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Ends the beating.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.ends.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn beat_in_turns(
    store: &Store,
    nodes: &[(u32, u64)],
    first: Instant,
    interval: Duration,
    pods_max: u32,
    beats: &AtomicU64,
) -> anyhow::Result<()> {
    let beat = mix::beat(pods_max);
    let names: Vec<String> = nodes.iter().map(|(number, _)| mix::node(*number)).collect();
    let pause = interval / u32::try_from(nodes.len()).unwrap_or(u32::MAX).max(1);
    let mut due = first;
    loop {
        for ((_, epoch), name) in nodes.iter().zip(&names) {
            // Late ones are not left out: the rate holds if it can.
            tokio::time::sleep_until(due).await;
            due += pause;
            store.nodes().heartbeat(name, *epoch, &beat).await?;
            beats.fetch_add(1, Ordering::Relaxed);
        }
    }
}
