//! A side's ear: one connection that waits for whatever is said in any of its sessions.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::{Frame, REQUEST_AGE_MAX, SessionId, Sessions, Side};
use crate::model::NodeRequest;
use crate::store::call::command;
use crate::store::connection::Connection;
use crate::store::{Store, StoreError};

/// Most entries of one stream read at once: no session makes the others wait for long.
const ENTRIES_MAX: usize = 16;

/// Something that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An agent is asked for something; `None` if this version does not understand what.
    Request(SessionId, Option<NodeRequest>),
    /// The other side has ended a session.
    Over(SessionId),
    /// Something was said in a session: entry and frame, `None` if it is not understood.
    Said(SessionId, String, Option<Frame>),
}

/// Waits for what is said in sessions. Reading takes nothing away, so an answer that is lost with
/// a connection is not lost.
pub struct Listener {
    store: Store,
    connection: Connection,
    side: Side,
    /// An agent's node, and where in its requests to read on.
    node: Option<(String, String)>,
    /// Where in each session's stream to read on.
    positions: HashMap<SessionId, String>,
    /// What was read, to be dropped with the next question.
    read: HashMap<SessionId, String>,
}

type Entries = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

impl Sessions<'_> {
    /// The ear of a node's agent, which also hears requests; not those that are stale by now.
    /// Waits at most `longest` each time.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn listen_at(&self, node: &str, longest: Duration) -> Result<Listener, StoreError> {
        let mut listener = self.listener(Side::Agent, longest).await?;
        let time = command("TIME");
        let asked = self
            .0
            .run_command(&mut listener.connection, "TIME", &time)
            .await?;
        let (seconds, micros): (u64, u64) = asked;
        let now_ms = seconds * 1000 + micros / 1000;
        let begin = now_ms.saturating_sub(super::millis(REQUEST_AGE_MAX));
        listener.node = Some((node.to_owned(), format!("{begin}-0")));
        Ok(listener)
    }

    /// The ear of an API. Waits at most `longest` each time.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn listen(&self, longest: Duration) -> Result<Listener, StoreError> {
        self.listener(Side::Api, longest).await
    }

    async fn listener(&self, side: Side, longest: Duration) -> Result<Listener, StoreError> {
        let connection = Box::pin(self.0.redis.dedicated(longest)).await;
        Ok(Listener {
            store: self.0.clone(),
            connection: connection.map_err(StoreError::Unreachable)?,
            side,
            node: None,
            positions: HashMap::new(),
            read: HashMap::new(),
        })
    }
}

impl Listener {
    /// Listens to a session from its beginning.
    pub fn add(&mut self, session: SessionId) {
        self.positions.insert(session, "0-0".to_owned());
    }

    /// Listens to a session no more.
    pub fn remove(&mut self, session: &SessionId) {
        self.positions.remove(session);
        self.read.remove(session);
    }

    /// Listens no more to sessions that are not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&SessionId) -> bool) {
        self.positions.retain(|session, _| wanted(session));
        self.read.retain(|session, _| wanted(session));
    }

    /// Has what was said up to `entry` dropped, with the next question.
    pub fn has_read(&mut self, session: &SessionId, entry: String) {
        if self.positions.contains_key(session) {
            self.read.insert(session.clone(), entry);
        }
    }

    /// Waits until something is said, at most `longest`.
    ///
    /// # Errors
    /// The connection is of no use any more; likewise when the future was dropped.
    pub async fn hear(&mut self, longest: Duration) -> Result<Vec<Heard>, StoreError> {
        let mut pipeline = Pipeline::new();
        if !self.read.is_empty() {
            let read = self.read.iter().map(|(session, id)| (session, id.as_str()));
            let call = self.store.sessions().read_call(self.side, read);
            pipeline.add_command(call.command);
        }
        let (mut keys, mut positions, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
        if let Some((node, position)) = &self.node {
            keys.push(self.store.keys.requests(node));
            positions.push(position.clone());
            sessions.push(None);
        }
        for (session, position) in &self.positions {
            let stream = self.side.reads();
            keys.push(self.store.keys.session_stream(session.as_str(), stream));
            positions.push(position.clone());
            sessions.push(Some(session.clone()));
        }
        if !keys.is_empty() {
            let mut wait = command("XREAD");
            // Zero would be for ever.
            let block_ms = super::millis(longest).max(1);
            wait.arg("COUNT")
                .arg(ENTRIES_MAX)
                .arg("BLOCK")
                .arg(block_ms);
            wait.arg("STREAMS").arg(&keys).arg(&positions);
            pipeline.add_command(wait);
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let answers: Result<Vec<Value>, _> =
            Box::pin(pipeline.query_async(&mut self.connection)).await;
        let answers = match answers {
            Ok(answers) => answers,
            Err(source) => {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                let generation = self.connection.generation();
                let failed = self.store.failed_at(&keys, generation, "XREAD", source);
                return Err(failed.await);
            }
        };
        self.read.clear();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let answer = answers.into_iter().next_back().unwrap_or(Value::Nil);
        let answer: Option<Entries> =
            redis::from_redis_value(answer).map_err(|error| self.failed(error.into()))?;
        let mut heard = Vec::new();
        for (key, entries) in answer.unwrap_or_default() {
            let Some(at) = keys.iter().position(|known| *known == key) else {
                continue;
            };
            for (id, fields) in entries {
                heard.extend(self.note(sessions[at].as_ref(), id, fields));
            }
        }
        Ok(heard)
    }

    fn note(
        &mut self,
        session: Option<&SessionId>,
        id: String,
        fields: Vec<Vec<u8>>,
    ) -> Option<Heard> {
        let mut fields = fields.into_iter();
        let mut value = || {
            fields.next();
            fields.next().unwrap_or_default()
        };
        let (first, second) = (value(), value());
        match session {
            Some(session) => {
                self.positions.insert(session.clone(), id.clone());
                let frame = Frame::read(&first, second);
                Some(Heard::Said(session.clone(), id, frame))
            }
            None => {
                if let Some((_, position)) = &mut self.node {
                    *position = id;
                }
                let session = SessionId(String::from_utf8(first).ok()?);
                if second.is_empty() {
                    return Some(Heard::Over(session));
                }
                let request = serde_json::from_slice(&second).ok();
                Some(Heard::Request(session, request))
            }
        }
    }

    fn failed(&self, error: redis::RedisError) -> StoreError {
        self.store
            .failed(self.connection.generation(), "XREAD", error)
    }
}
