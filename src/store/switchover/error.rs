//! Why a switchover is not done, and what was changed by then.

use std::time::Duration;

use crate::store::connection::ConnectionError;
use crate::telemetry::chain;

/// Why the master is not, or not wholly, another one now.
#[derive(Debug, thiserror::Error)]
pub enum SwitchoverError {
    /// There are no Sentinels.
    #[error(
        "a switchover needs Sentinels: name them by --sentinel or in redis.sentinels; a single server \
         has no successor"
    )]
    NoSentinels,
    /// The settings lead nowhere.
    #[error("the settings lead to no Redis")]
    Settings(#[source] ConnectionError),
    /// Nobody knows the master, or it cannot be used.
    #[error("{0}; nothing was changed")]
    NoMaster(String),
    /// There is no replica that could follow.
    #[error("{0}; nothing was changed")]
    NoReplica(String),
    /// A step failed.
    #[error("{step} at {address} failed: {reason}; nothing was changed")]
    Step {
        /// Which.
        step: &'static str,
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The replica was not preferred in time.
    #[error(
        "the Sentinels did not learn within {waited:?} that {to} is to be next; nothing was changed"
    )]
    NotPreferred {
        /// The replica.
        to: String,
        /// For how long.
        waited: Duration,
    },
    /// The replica did not catch up.
    #[error(
        "{to} lacked {bytes} bytes after {waited:?} without writes: it is no successor; writes go on, \
         nothing was changed"
    )]
    Behind {
        /// The replica.
        to: String,
        /// What it lacked.
        bytes: u64,
        /// For how long.
        waited: Duration,
    },
    /// No Sentinel began.
    #[error("the Sentinels refused: {reason}; writes go on, nothing was changed")]
    Refused {
        /// What the last one said.
        reason: String,
    },
    /// Sentinel began and did not get there.
    #[error(
        "Sentinel did not make {to} the master within {waited:?}; writes go on at the old one. See \
         Sentinel's log, and `leet redis status` in a minute: a fail-over that it has begun may still come"
    )]
    NotPromoted {
        /// The replica.
        to: String,
        /// For how long.
        waited: Duration,
    },
    /// And the pause could not be ended.
    #[error("{cause}. The master could not be told to go on: it does so by itself within {left:?}")]
    StillPaused {
        /// What failed first.
        cause: Box<SwitchoverError>,
        /// Until the pause ends.
        left: Duration,
    },
    /// It is the master, and not all know or follow.
    #[error(
        "{to} is the master now, but {agree} of {of} Sentinels say so, or too few replicas follow it to \
         take writes: see `leet redis status`"
    )]
    Unsettled {
        /// The new master.
        to: String,
        /// Sentinels that say so.
        agree: usize,
        /// All.
        of: usize,
    },
}

impl SwitchoverError {
    pub(super) fn step(step: &'static str, address: &str, error: redis::RedisError) -> Self {
        SwitchoverError::Step {
            step,
            address: address.to_owned(),
            reason: chain(&error),
        }
    }
}
