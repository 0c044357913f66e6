//! Whether the machine itself stood still.
//!
//! Agents keep deadlines: a machine on which a process that is due waits for longer than their margin
//! shows nothing about them. A thread that does nothing else tells how late it was woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Measures until it is dropped.
pub(crate) struct Lateness(Arc<AtomicU64>);

impl Lateness {
    /// Begins to measure.
    pub(crate) fn watch() -> Lateness {
        let most = Arc::new(AtomicU64::new(0));
        let ours = Arc::downgrade(&most);
        std::thread::spawn(move || {
            while let Some(most) = ours.upgrade() {
                let began = Instant::now();
                std::thread::park_timeout(LOOK);
                let late = began.elapsed().saturating_sub(LOOK).as_millis();
                most.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
        });
        Lateness(most)
    }

    /// The longest since last asked.
    pub(crate) fn take(&self) -> Duration {
        Duration::from_millis(self.0.swap(0, Ordering::Relaxed))
    }
}
