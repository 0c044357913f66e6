//! The last lines of a container, kept in Redis for when it and this node are gone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

use crate::agent::worker::Workers;
use crate::container::{Container, LogRead};
use crate::model::{Phase, PodId};
use crate::telemetry::chain;

/// Longest time for it: an end or a removal is never held up for longer.
const LIMIT: Duration = Duration::from_secs(2);
/// Lines that are looked at; of short ones fewer bytes are kept than could be.
const LINES_MAX: u32 = 1000;

/// Containers that are remembered.
const KNOWN_MAX: usize = 10_000;
/// Containers whose lines are read at once: a whole node may end in a moment.
const AT_ONCE: usize = 8;

/// Containers that have ended for good and whose lines are kept already.
pub(in crate::agent) struct KeptContainers {
    known: Mutex<HashSet<String>>,
    places: Semaphore,
}

impl Default for KeptContainers {
    fn default() -> KeptContainers {
        KeptContainers {
            known: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        }
    }
}

impl KeptContainers {
    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, container: String) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            known.clear(); // of those that somebody else removed; the others are kept once more
        }
        known.insert(container);
    }
}

impl Workers {
    /// Has the last lines of a pod's container kept, if `phase` says that it has ended. Waits for
    /// nothing.
    pub(in crate::agent) fn keep_logs_of_ended(
        self: &Arc<Self>,
        pod: &PodId,
        phase: Option<Phase>,
    ) {
        let is_over = phase.is_some_and(Phase::is_ended);
        let container = self.container(pod);
        let Some(container) = container.filter(|_| is_over || phase == Some(Phase::CrashLoop))
        else {
            return;
        };
        let (workers, pod) = (self.clone(), pod.clone());
        self.tasks().spawn(async move {
            let _place = workers.kept().places.acquire().await;
            // One that is started again will have more to say.
            if workers.keep_logs(&pod, &container).await && is_over {
                workers.kept().note(container.id);
            }
        });
    }

    /// Keeps the last lines of a container that is about to be removed, unless that was done when
    /// it ended.
    pub(in crate::agent) async fn keep_logs_of_removed(&self, pod: &PodId, container: &Container) {
        if !self.kept().known().remove(&container.id) {
            self.keep_logs(pod, container).await;
        }
    }

    /// Whether they are kept.
    async fn keep_logs(&self, pod: &PodId, container: &Container) -> bool {
        let most = self.settings().log_tail_bytes;
        if most == 0 {
            return false;
        }
        let keep = async {
            let lines = self.last_lines(&container.id, most).await;
            let lines = lines.map_err(|error| chain(&error))?;
            if lines.is_empty() {
                return Ok(());
            }
            let kept = self.store().keep_logs(pod, self.node(), &lines).await;
            kept.map_err(|error| chain(&error))
        };
        let kept = tokio::time::timeout(LIMIT, Box::pin(keep)).await;
        match kept.unwrap_or_else(|_| Err(format!("not done within {LIMIT:?}"))) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(pod.id = %pod, error, "the last lines of its log are not kept");
                false
            }
        }
    }

    async fn last_lines(
        &self,
        container: &str,
        most: usize,
    ) -> Result<Vec<u8>, crate::container::RuntimeError> {
        let read = LogRead {
            tail: Some(LINES_MAX),
            ..LogRead::default()
        };
        let mut lines = self.runtime().logs(container, read).await?;
        let mut kept = Vec::new();
        while let Some(line) = lines.next().await {
            line?.line().write_to(&mut kept);
            if kept.len() > 2 * most {
                shorten(&mut kept, most);
            }
        }
        shorten(&mut kept, most);
        Ok(kept)
    }
}

/// Leaves the last whole lines, `most` bytes at most.
fn shorten(lines: &mut Vec<u8>, most: usize) {
    let Some(over) = lines.len().checked_sub(most).filter(|over| *over > 0) else {
        return;
    };
    // A line that begins right behind the cut is whole.
    let rest = &lines[over - 1..];
    let first = rest.iter().position(|byte| *byte == b'\n');
    let first = first.map_or(lines.len(), |end| over + end);
    lines.drain(..first);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_left() {
        for (most, left) in [
            (100, "aa\nbb\ncc\n"),
            (9, "aa\nbb\ncc\n"),
            (8, "bb\ncc\n"),
            (6, "bb\ncc\n"),
            (5, "cc\n"),
            (2, ""),
        ] {
            let mut lines = b"aa\nbb\ncc\n".to_vec();
            shorten(&mut lines, most);
            assert_eq!(String::from_utf8(lines).unwrap(), left, "{most}");
        }
    }
}
