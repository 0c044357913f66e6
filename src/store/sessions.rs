//! Sessions between the API and a node's agent: logs, exec, stats.
//!
//! An agent listens on no port, so both meet in two streams of Redis: `in` to the agent, `out` to
//! the API. The Lua library says how room is kept and how a session ends.

mod frame;
mod listener;

use std::time::Duration;

use super::call::Call;
use super::{Store, StoreError};
use crate::model::NodeRequest;

pub use frame::Frame;
pub use listener::{Heard, Listener};

/// A session ends when one of its sides was silent for so long.
const LEASE: Duration = Duration::from_secs(15);
/// Time between two renewals of a side.
pub const SESSION_KEEP: Duration = Duration::from_secs(5);
/// Oldest request that an agent still takes up: who asked has given up by then.
const REQUEST_AGE_MAX: Duration = Duration::from_secs(10);
/// Frames that a side may leave unread. With those of 16 KiB that logs and execs write, a reader
/// that stands still keeps 256 KiB of Redis.
pub const UNREAD_MAX: usize = 16;
/// On top of it, so that the end of a session is never held up.
const UNREAD_LAST: usize = 4;
/// Most bytes of an error's text.
const ERROR_MAX: usize = 1000;

/// The port of sessions.
pub struct Sessions<'a>(pub(super) &'a Store);

/// Name of a session: its node's, then something random. Its keys begin with it, so that the user of
/// one agent can be kept from the sessions of all others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// A new one with the agent of `node`.
    pub fn with(node: &str) -> SessionId {
        SessionId(format!("{node}:{:016x}", rand::random::<u64>()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two sides of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who asked.
    Api,
    /// Who answers.
    Agent,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Side::Api => "api",
            Side::Agent => "agent",
        }
    }

    /// The stream this side writes.
    fn writes(self) -> &'static str {
        match self {
            Side::Api => "in",
            Side::Agent => "out",
        }
    }

    /// The stream this side reads.
    fn reads(self) -> &'static str {
        match self {
            Side::Api => "out",
            Side::Agent => "in",
        }
    }
}

/// What became of opening a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenOutcome {
    /// The agent is asked.
    Opened,
    /// No agent ever registered that node.
    Unknown,
    /// The node was not heard for longer than its lease.
    Lost {
        /// Since its last heartbeat.
        age: Duration,
    },
    /// The node's engine does not answer, or its agent has left.
    EngineDown,
    /// The node has as many sessions as it may.
    Busy {
        /// So many.
        sessions_max: u64,
    },
}

/// What became of taking a session in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionTakeOutcome {
    /// It is this agent's.
    Taken,
    /// It is over, or was taken before.
    Gone,
    /// It was asked for too long ago.
    Stale,
}

/// What became of saying something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The first so many were said. If that is not all, [`Frame::Room`] tells when to go on.
    Written(usize),
    /// The session is over.
    Gone,
}

/// What a renewal found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Both sides are there.
    Ok,
    /// The other side has renewed nothing for a lease.
    Silent,
    /// The session is over.
    Gone,
}

impl Sessions<'_> {
    /// Asks the agent of `node`, whose last heartbeat may be `node_lease` old.
    ///
    /// # Errors
    /// May be tried again, with another session.
    pub async fn open(
        &self,
        session: &SessionId,
        node: &str,
        request: &NodeRequest,
        node_lease: Duration,
    ) -> Result<OpenOutcome, StoreError> {
        // A request has string keys and plain values, which always have a JSON form.
        let request = serde_json::to_string(request).unwrap_or_default();
        let call = self
            .0
            .function("kl_session_open")
            .arg(session.as_str())
            .arg(node)
            .arg(request)
            .arg(millis(node_lease))
            .arg(millis(LEASE));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        Ok(match word.as_str() {
            "opened" => OpenOutcome::Opened,
            "unknown" => OpenOutcome::Unknown,
            "lost" => OpenOutcome::Lost {
                age: Duration::from_millis(reply.number()?),
            },
            "engine-down" => OpenOutcome::EngineDown,
            "busy" => OpenOutcome::Busy {
                sessions_max: reply.number()?,
            },
            _ => return Err(reply.unknown(word)),
        })
    }

    /// Takes a session in hand for `node`.
    ///
    /// # Errors
    /// Whoever asked will give up.
    pub async fn take(
        &self,
        session: &SessionId,
        node: &str,
    ) -> Result<SessionTakeOutcome, StoreError> {
        let call = self
            .0
            .function("kl_session_take")
            .arg(session.as_str())
            .arg(node)
            .arg(millis(REQUEST_AGE_MAX))
            .arg(millis(LEASE));
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "taken" => Ok(SessionTakeOutcome::Taken),
            "gone" => Ok(SessionTakeOutcome::Gone),
            "stale" => Ok(SessionTakeOutcome::Stale),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Says `frames` for `side`, as long as fewer than `unread_max` are unread. Where one is the last one, it is the last.
    ///
    /// # Errors
    /// It is unknown what was said: the session is of no use any more.
    pub async fn write(
        &self,
        session: &SessionId,
        side: Side,
        frames: &[Frame],
        unread_max: usize,
    ) -> Result<WriteOutcome, StoreError> {
        let ends = frames.last().is_some_and(Frame::is_last);
        let unread_max = unread_max + if ends { UNREAD_LAST } else { 0 };
        let mut call = self
            .0
            .function("kl_session_write")
            .arg(session.as_str())
            .arg(side.writes())
            .arg(unread_max)
            .arg(millis(LEASE))
            .arg(u8::from(ends));
        for frame in frames {
            let (kind, mut data) = frame.parts();
            if let Frame::Error(_) = frame {
                data.truncate(ERROR_MAX);
            }
            call = call.arg(kind).arg(data);
        }
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "written" => Ok(WriteOutcome::Written(reply.number()?)),
            "gone" => Ok(WriteOutcome::Gone),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Drops what `side` has read, up to the entry `id`.
    ///
    /// # Errors
    /// It stays, and takes room.
    pub async fn read(&self, side: Side, session: &SessionId, id: &str) -> Result<(), StoreError> {
        let call = self.read_call(side, [(session, id)]);
        self.0.call(call).await?.expect_word("read")
    }

    fn read_call<'s>(
        &self,
        side: Side,
        read: impl IntoIterator<Item = (&'s SessionId, &'s str)>,
    ) -> Call {
        let mut call = self
            .0
            .function("kl_session_read")
            .arg(side.reads())
            .arg(millis(LEASE));
        for (session, id) in read {
            call = call.arg(session.as_str()).arg(id);
        }
        call
    }

    /// Renews sessions for `side`; what was found of each, in the order given.
    ///
    /// # Errors
    /// They are not renewed.
    pub async fn keep(&self, side: Side, sessions: &[SessionId]) -> Result<Vec<Kept>, StoreError> {
        let mut call = self
            .0
            .function("kl_session_keep")
            .arg(side.word())
            .arg(millis(LEASE));
        for session in sessions {
            call = call.arg(session.as_str());
        }
        let mut reply = self.0.call(call).await?;
        reply.expect_word("kept")?;
        let mut found = Vec::with_capacity(sessions.len());
        while !reply.is_empty() {
            let word = reply.text()?;
            found.push(match word.as_str() {
                "ok" => Kept::Ok,
                "silent" => Kept::Silent,
                "gone" => Kept::Gone,
                _ => return Err(reply.unknown(word)),
            });
        }
        Ok(found)
    }

    /// Ends sessions and tells the agents.
    ///
    /// # Errors
    /// They end by themselves when their lease is over.
    pub async fn end(&self, sessions: &[SessionId]) -> Result<(), StoreError> {
        if sessions.is_empty() {
            return Ok(());
        }
        let mut call = self.0.function("kl_session_end");
        for session in sessions {
            call = call.arg(session.as_str());
        }
        self.0.call(call).await?.expect_word("ended")
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
