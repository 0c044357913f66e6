//! The node's right to start containers, as its agent knows it.
//!
//! The deadline counts from when a heartbeat was *sent*, on the monotonic clock, and ends well
//! before the lease that Redis counts from when it was received: whoever starts a container
//! before the deadline starts it before anyone may take its pod away.
//!
//! A lease that ran out and is renewed is another *term*: pods may have been moved in between, so
//! what was asked in an earlier term must be asked again before a start.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Share of the lease in which the agent may start containers; the rest is margin for the start
/// call itself and for clocks that drift.
const SHARE: (u32, u32) = (3, 4);

/// The deadline, for those who must keep it.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    deadline: Option<Instant>,
    term: u64,
    foreign: bool,
}

impl State {
    fn is_held(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() < deadline)
    }
}

impl Lease {
    pub(super) fn new() -> Lease {
        Lease {
            state: watch::Sender::default(),
        }
    }

    /// A heartbeat that was sent at `sent` was answered.
    pub(super) fn renew(&self, sent: Instant, lease: Duration) {
        let (share, of) = SHARE;
        self.state.send_modify(|state| {
            if !state.is_held() {
                state.term += 1;
            }
            state.deadline = Some(sent + lease * share / of);
            state.foreign = false;
        });
    }

    /// No more starts until the next renewal: the cluster is not ours.
    pub(super) fn revoke(&self) {
        self.state.send_modify(|state| {
            state.deadline = None;
            state.foreign = true;
        });
    }

    /// Redis holds a cluster that is not ours: nothing here is to be changed.
    pub(super) fn is_foreign(&self) -> bool {
        self.state.borrow().foreign
    }

    /// The term that was renewed last, for [`Lease::is_held_since`].
    pub(super) fn term(&self) -> u64 {
        self.state.borrow().term
    }

    /// Whether a container may be started now, for a pod that was asked for in `term`.
    pub(super) fn is_held_since(&self, term: u64) -> bool {
        let state = *self.state.borrow();
        state.is_held() && state.term == term
    }

    /// Waits until a container may be started. Cancel-safe.
    pub(super) async fn held(&self) {
        let mut renewed = self.state.subscribe();
        while !renewed.borrow_and_update().is_held() {
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
        assert!(!lease.is_held_since(0));
        lease.renew(Instant::now(), Duration::from_secs(20));
        assert!(lease.is_held_since(1));
        let long_ago = Instant::now() - Duration::from_secs(16);
        lease.renew(long_ago, Duration::from_secs(20));
        assert!(!lease.is_held_since(1), "15 of 20 seconds are over");
    }

    #[test]
    fn a_renewal_after_the_end_is_another_term() {
        let lease = Lease::new();
        lease.renew(Instant::now(), Duration::from_secs(20));
        lease.renew(Instant::now(), Duration::from_secs(20));
        assert_eq!(lease.term(), 1);
        lease.revoke();
        lease.renew(Instant::now(), Duration::from_secs(20));
        assert!(!lease.is_held_since(1));
        assert!(lease.is_held_since(lease.term()));
    }

    #[test]
    fn a_lease_that_ran_out_is_still_of_our_cluster() {
        let lease = Lease::new();
        let long_ago = Instant::now() - Duration::from_secs(16);
        lease.renew(long_ago, Duration::from_secs(20));
        assert!(!lease.is_foreign());
        lease.revoke();
        assert!(lease.is_foreign());
        lease.renew(Instant::now(), Duration::from_secs(20));
        assert!(!lease.is_foreign());
    }
}
