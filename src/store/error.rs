//! What can go wrong at the door to Redis, and whether trying again can help.

use super::connection::ConnectionError;

/// A failed step at the door to Redis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No connection was to be had.
    #[error("Redis cannot be reached")]
    Unreachable(#[source] ConnectionError),
    /// The call failed, or its answer did not come.
    #[error("{function} failed")]
    Call {
        /// The function or command.
        function: &'static str,
        /// What Redis or the connection said.
        source: redis::RedisError,
    },
    /// The call was carried out by the master, but too few replicas confirmed it in time.
    #[error(
        "{function}: {confirmed} of {wanted} replicas confirmed the write in time; it may or may not survive a fail-over"
    )]
    Unconfirmed {
        /// The function.
        function: &'static str,
        /// Replicas that answered.
        confirmed: usize,
        /// Replicas that had to.
        wanted: usize,
    },
    /// Redis answered something that this process does not understand.
    #[error("{function} answered {what}, which this version does not understand")]
    Protocol {
        /// The function.
        function: &'static str,
        /// The part that was not understood.
        what: String,
    },
    /// Redis lost writes, and what the nodes hold is being put back.
    #[error(
        "Redis lost what it held: services and pods are put back from the nodes, {left:?} are left"
    )]
    Recovering {
        /// How long that takes still.
        left: std::time::Duration,
    },
    /// Redis holds something newer than this process.
    #[error(
        "Redis holds {what} version {theirs}, this process knows {ours}: upgrade it; an older version cannot go on here (docs/upgrade.md says how to go back)"
    )]
    Newer {
        /// `schema` or `library`.
        what: &'static str,
        /// Version in Redis.
        theirs: u64,
        /// Version of this process.
        ours: u64,
    },
    /// Redis holds no library or an older one, and this process may not load its own.
    #[error(
        "Redis holds library version {theirs} (0 is none), this process needs {ours} and its user may not load it: start an API or a scheduler of this version first"
    )]
    Older {
        /// Version in Redis.
        theirs: u64,
        /// Version of this process.
        ours: u64,
    },
}

impl StoreError {
    /// True if the same call may succeed later: Redis is away, failing over, loading, full, or
    /// short of replicas.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Unreachable(_)
            | StoreError::Unconfirmed { .. }
            | StoreError::Recovering { .. }
            | StoreError::Older { .. } => true,
            StoreError::Call { source, .. } => super::connection::is_retryable(source),
            StoreError::Protocol { .. } | StoreError::Newer { .. } => false,
        }
    }

    /// True if Redis refused a creation because its memory is full.
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Call { source, .. } if super::connection::is_full(source))
    }

    /// True if the failed call certainly changed nothing: it was never sent, or was refused. Says
    /// nothing of calls before it.
    pub fn changed_nothing(&self) -> bool {
        match self {
            StoreError::Unreachable(_)
            | StoreError::Recovering { .. }
            | StoreError::Older { .. } => true,
            StoreError::Call { source, .. } => super::connection::is_refusal(source),
            _ => false,
        }
    }
}
