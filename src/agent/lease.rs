//! The node's right to start containers, as its agent knows it.
//!
//! The deadline counts from when a heartbeat was *sent*, on the monotonic clock, and ends well
//! before the lease that Redis counts from when it was received: whoever starts a container
//! before the deadline starts it before anyone may take its pod away.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Share of the lease in which the agent may start containers; the rest is margin for the start
/// call itself and for clocks that drift.
const SHARE: (u32, u32) = (3, 4);

/// The deadline, for those who must keep it.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    deadline: watch::Sender<Option<Instant>>,
}

impl Lease {
    pub(super) fn new() -> Lease {
        Lease {
            deadline: watch::Sender::new(None),
        }
    }

    /// A heartbeat that was sent at `sent` was answered.
    pub(super) fn renew(&self, sent: Instant, lease: Duration) {
        let (share, of) = SHARE;
        self.deadline.send_replace(Some(sent + lease * share / of));
    }

    /// No more starts until the next renewal: the cluster is not ours.
    pub(super) fn revoke(&self) {
        self.deadline.send_replace(None);
    }

    /// Whether a container may be started now.
    pub(super) fn is_held(&self) -> bool {
        self.deadline
            .borrow()
            .is_some_and(|deadline| Instant::now() < deadline)
    }

    /// Waits until a container may be started. Cancel-safe.
    pub(super) async fn held(&self) {
        let mut renewed = self.deadline.subscribe();
        while !self.is_held() {
            if renewed.changed().await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_counts_from_the_sending() {
        let lease = Lease::new();
        assert!(!lease.is_held());
        lease.renew(Instant::now(), Duration::from_secs(20));
        assert!(lease.is_held());
        let long_ago = Instant::now() - Duration::from_secs(16);
        lease.renew(long_ago, Duration::from_secs(20));
        assert!(!lease.is_held(), "15 of 20 seconds are over");
    }
}
