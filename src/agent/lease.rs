//! The node's right to start containers, as its agent knows it.
//!
//! The deadline counts from when a heartbeat was *sent*, on a clock that no one sets and that counts
//! a sleeping machine's time too, and ends well before the lease that Redis counts from when it was
//! received: whoever starts a container before the deadline starts it before anyone may take its pod
//! away. What must never run twice ends at the deadline (`fence`); other programs of the node, the
//! watchdog and the agent's next start, know it by a file.
//!
//! A lease that ran out and is renewed is another *term*: pods may have been moved in between, so
//! what was asked in an earlier term must be asked again before a start.

mod file;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

pub(crate) use file::LeaseFile;

use crate::remedies;

/// Share of the lease in which the agent may start containers; the rest is margin for the start
/// call itself, for stopping what must not run on, and for clocks that drift.
const SHARE: (u32, u32) = (3, 4);
/// Share of the lease that a fenced container is given to end: its kill lies before the lease's end
/// by as much again.
const GRACE: (u32, u32) = (1, 8);
/// Longest sleep towards a deadline: timers do not count the time in which the machine slept.
const LOOK: Duration = Duration::from_millis(500);

/// A moment, as time since the machine's start; comparable between its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    /// Now, by `CLOCK_BOOTTIME`.
    pub(crate) fn now() -> Moment {
        let now = clock_gettime(ClockId::Boottime);
        Moment(Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        ))
    }

    /// How long it is until then; nothing if it is past.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_sub(Moment::now().0)
    }

    /// Whether it is past.
    pub(crate) fn is_past(self) -> bool {
        self <= Moment::now()
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, other: Duration) -> Moment {
        Moment(self.0.saturating_add(other))
    }
}

/// How long a fenced container is given to end under a lease of this length.
pub(super) fn fence_grace(lease: Duration) -> Duration {
    let (share, of) = GRACE;
    Duration::from_secs((lease * share / of).as_secs()) // engines count whole seconds, and round up
}

/// The deadline, for those who must keep it.
#[derive(Debug)]
pub(super) struct Lease {
    state: watch::Sender<State>,
    file: LeaseFile,
}

#[derive(Debug, Clone, Copy)]
struct State {
    deadline: Option<Moment>,
    /// When what must never run twice has to end: also under a foreign cluster, where nothing may
    /// be started any more.
    fence_at: Moment,
    term: u64,
    foreign: bool,
}

impl State {
    fn is_held(&self) -> bool {
        self.deadline.is_some_and(|deadline| !deadline.is_past())
    }
}

impl Lease {
    /// A lease that was never renewed by this process; the one before it wrote `file`.
    pub(super) fn new(file: LeaseFile) -> Lease {
        // Without a word of an earlier lease there is none.
        let fence_at = file
            .read_own()
            .map_or_else(Moment::now, |noted| noted.deadline);
        Lease {
            state: watch::Sender::new(State {
                deadline: None,
                fence_at,
                term: 0,
                foreign: false,
            }),
            file,
        }
    }

    /// A heartbeat that was sent at `sent` was answered.
    pub(super) fn renew(&self, sent: Moment, lease: Duration) {
        let (share, of) = SHARE;
        let deadline = sent + lease * share / of;
        self.file.write(deadline, fence_grace(lease));
        self.state.send_modify(|state| {
            if !state.is_held() {
                state.term += 1;
            }
            state.deadline = Some(deadline);
            state.fence_at = deadline;
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
        state.is_held() && state.term == term || !remedies::holds("deadline")
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

    /// Waits until what must never run twice has to end. Cancel-safe.
    pub(super) async fn fenced(&self) {
        loop {
            let left = self.state.borrow().fence_at.left();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);

    fn lease() -> Lease {
        Lease::new(LeaseFile::none())
    }

    /// A moment 16 s ago, when 15 of a lease's 20 seconds are over.
    fn long_ago() -> Moment {
        Moment(Moment::now().0 - Duration::from_secs(16))
    }

    #[test]
    fn the_deadline_counts_from_the_sending() {
        let lease = lease();
        assert!(!lease.is_held_since(0));
        lease.renew(Moment::now(), LEASE);
        assert!(lease.is_held_since(1));
        lease.renew(long_ago(), LEASE);
        assert!(!lease.is_held_since(1), "15 of 20 seconds are over");
    }

    #[test]
    fn a_renewal_after_the_end_is_another_term() {
        let lease = lease();
        lease.renew(Moment::now(), LEASE);
        lease.renew(Moment::now(), LEASE);
        assert_eq!(lease.term(), 1);
        lease.revoke();
        lease.renew(Moment::now(), LEASE);
        assert!(!lease.is_held_since(1));
        assert!(lease.is_held_since(lease.term()));
    }

    #[test]
    fn a_lease_that_ran_out_is_still_of_our_cluster() {
        let lease = lease();
        lease.renew(long_ago(), LEASE);
        assert!(!lease.is_foreign());
        lease.revoke();
        assert!(lease.is_foreign());
        lease.renew(Moment::now(), LEASE);
        assert!(!lease.is_foreign());
    }

    #[tokio::test]
    async fn a_foreign_cluster_does_not_put_the_fence_off() {
        let lease = lease();
        let fenced = async |lease: &Lease| {
            let wait = Duration::from_millis(100);
            tokio::time::timeout(wait, lease.fenced()).await.is_ok()
        };
        assert!(fenced(&lease).await, "no lease is known of");
        lease.renew(Moment::now(), LEASE);
        assert!(!fenced(&lease).await);
        lease.revoke();
        assert!(!fenced(&lease).await, "the old lease goes on");
        lease.renew(long_ago(), LEASE);
        lease.revoke();
        assert!(fenced(&lease).await);
    }

    #[test]
    fn the_next_agent_of_the_node_knows_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let file = || LeaseFile::of(dir.path(), "worker1", "cluster", "/docker.sock");
        let before = Lease::new(file());
        before.renew(Moment::now(), LEASE);
        let noted = file().read().unwrap();
        assert!(noted.deadline.left() > Duration::from_secs(14));
        assert_eq!(noted.grace, Duration::from_secs(2));
        assert_eq!(
            (noted.cluster.as_str(), noted.socket.as_str()),
            ("cluster", "/docker.sock")
        );
        let after = Lease::new(file());
        assert!(!after.is_held_since(0), "only a renewal allows starts");
        assert!(!after.state.borrow().fence_at.is_past());
    }
}
