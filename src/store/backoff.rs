//! The pause of a loop whose last round failed.
//!
//! Only loops wait; ports never retry. Full jitter, so that ten thousand agents that lost the same
//! Redis do not all come back in the same millisecond.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// First ceiling: about what a restarted process or a dropped connection needs.
const FIRST: Duration = Duration::from_millis(100);
/// Last ceiling: this much may be added to a fail-over, which takes some seconds itself.
const LAST: Duration = Duration::from_secs(2);

/// Pauses between 0 and a ceiling that doubles from 100 ms to 2 s.
#[derive(Debug, Clone)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { ceiling: FIRST }
    }
}

impl Backoff {
    /// Starts at the first ceiling.
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// Back to the first ceiling: the last round went well.
    pub fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// The next pause; the one after it may be twice as long.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.ceiling.mul_f64(rand::random_range(0.0..=1.0));
        self.ceiling = (self.ceiling * 2).min(LAST);
        pause
    }

    /// Waits for the next pause, or until `shutdown`. Cancel-safe.
    pub async fn wait(&mut self, shutdown: &CancellationToken) {
        let pause = self.next_pause();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_start_again() {
        let mut backoff = Backoff::new();
        let mut ceiling = FIRST;
        for _ in 0..20 {
            assert!(backoff.next_pause() <= ceiling);
            ceiling = (ceiling * 2).min(LAST);
        }
        assert_eq!(backoff.ceiling, LAST);
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }

    #[tokio::test]
    async fn shutdown_ends_the_wait() {
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        let mut backoff = Backoff { ceiling: LAST };
        let wait = tokio::time::timeout(Duration::from_millis(50), backoff.wait(&shutdown));
        // A pause below 50 ms is possible and as good.
        assert!(wait.await.is_ok());
    }
}
