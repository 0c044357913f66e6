//! The alarm before Redis is full: creation is refused first, so that heartbeats, reports and deletions never are.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::problem::{Kind, Problem};
use crate::store::{FILLING_PERCENT, MemoryState, NEARLY_FULL_PERCENT, Store, StoreMemory};
use crate::telemetry::chain;

/// Time between two looks: what thousands of submits take meanwhile is far below the rest of the memory.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The memory of Redis as it was a moment ago.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<StoreMemory>);

impl Memory {
    /// As it was seen last.
    pub(super) fn seen(&self) -> StoreMemory {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again.
    pub(super) async fn watch(&self, store: &Store) -> std::convert::Infallible {
        loop {
            match store.check_memory_state().await {
                Ok(memory) => self.keep(memory),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the memory of Redis is not known");
                }
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn keep(&self, memory: StoreMemory) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.state != seen.state {
            let (used_bytes, max_bytes) = (memory.used_bytes, memory.max_bytes);
            match memory.state {
                MemoryState::Calm => {
                    tracing::info!(used_bytes, max_bytes, "Redis has memory enough again");
                }
                MemoryState::Filling => {
                    tracing::warn!(
                        used_bytes,
                        max_bytes,
                        "Redis is above {FILLING_PERCENT} % of its memory"
                    );
                }
                MemoryState::NearlyFull => {
                    tracing::error!(
                        used_bytes,
                        max_bytes,
                        "Redis is above {NEARLY_FULL_PERCENT} % of its memory: nothing new is accepted"
                    );
                }
            }
        }
        *seen = memory;
    }

    /// Whether something new may be made.
    pub(super) fn has_room(&self) -> bool {
        self.seen().state != MemoryState::NearlyFull
    }

    /// Why nothing new may be made.
    pub(super) fn problem(&self) -> Problem {
        let StoreMemory {
            used_bytes,
            max_bytes,
            ..
        } = self.seen();
        Problem::new(
            Kind::StoreNearlyFull,
            format!(
                "{used_bytes} of {max_bytes} bytes are in use, and from {NEARLY_FULL_PERCENT} % on nothing new is accepted: \
                 delete services or scale them down, or raise maxmemory of Redis; what runs is not touched"
            ),
        )
    }
}
