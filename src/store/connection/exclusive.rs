//! A connection in the hands of one user.
//!
//! Reports every error it sees, fails at once when the master moves, and never goes back into the
//! pool with an answer still to come.

use std::sync::Arc;

use deadpool::managed::Object;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, Value};

use super::Shared;
use super::error::Fault;
use super::master::{Doorman, Master};

/// A connection to the master, of the pool or of its own; commands are sent through
/// [`redis::aio::ConnectionLike`], one at a time.
///
/// Dropping the future of a command abandons the connection: the answer may still come, and a
/// blocking command still takes its item.
pub struct Connection {
    /// `None` only while it is dropped.
    link: Option<Link>,
    master: Arc<Master>,
    shared: Arc<Shared>,
    state: State,
}

/// Where the connection is from.
pub(super) enum Link {
    Pooled(Object<Doorman>),
    Own(MultiplexedConnection),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// A command was sent; still so after it means that nobody waited for the answer.
    Waiting,
    Broken,
}

impl Connection {
    pub(super) fn new(link: Link, master: Arc<Master>, shared: Arc<Shared>) -> Connection {
        Connection {
            link: Some(link),
            master,
            shared,
            state: State::Ready,
        }
    }

    /// The generation of the master it is to.
    pub fn generation(&self) -> u64 {
        self.master.generation()
    }

    /// How many replicas must confirm a commit on this connection, for WAIT. Known from its last
    /// check, at most a second before it was taken; no round trip.
    pub fn replicas_to_confirm(&self) -> usize {
        self.shared.replicas_to_confirm(&self.master)
    }

    /// True once nothing can be sent any more: drop it and take another.
    pub fn is_over(&self) -> bool {
        self.state != State::Ready || self.master.over().is_cancelled()
    }

    async fn send<T>(
        &mut self,
        command: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
        fault_within: impl FnOnce(&T) -> Option<RedisError>,
    ) -> RedisResult<T> {
        let over = self.master.over().clone();
        if over.is_cancelled() {
            return Err(left());
        }
        let link = match (&mut self.link, self.state) {
            (Some(Link::Pooled(object)), State::Ready) => &mut object.connection,
            (Some(Link::Own(connection)), State::Ready) => connection,
            _ => return Err((ErrorKind::Io, "the connection failed before").into()),
        };
        self.state = State::Waiting;
        let answer = tokio::select! {
            biased;
            () = over.cancelled() => Err(left()),
            answer = command(link) => answer,
        };
        self.state = State::Ready;
        let error = match &answer {
            Ok(answer) => fault_within(answer),
            Err(error) => Some(error.clone()),
        };
        if let Some(error) = error {
            self.note(&error);
        }
        answer
    }

    fn note(&mut self, error: &RedisError) {
        if Fault::of(error) != Fault::None {
            self.state = State::Broken;
            self.shared.report_error(self.generation(), error);
        }
    }
}

fn left() -> RedisError {
    (
        ErrorKind::Io,
        "this redis is no longer known to be the master",
    )
        .into()
}

/// The first error among answers that says something about the connection.
fn fault_among<'a>(answers: impl IntoIterator<Item = &'a Value>) -> Option<RedisError> {
    answers.into_iter().find_map(|answer| match answer {
        Value::ServerError(error) => {
            let error = RedisError::from(error.clone());
            (Fault::of(&error) != Fault::None).then_some(error)
        }
        _ => None,
    })
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(
            async move |link: &mut MultiplexedConnection| link.send_packed_command(command).await,
            |answer| fault_among([answer]),
        ))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send(
            async move |link: &mut MultiplexedConnection| {
                link.send_packed_commands(commands, offset, count).await
            },
            |answers| fault_among(answers),
        ))
    }

    fn get_db(&self) -> i64 {
        match &self.link {
            Some(Link::Pooled(object)) => object.connection.get_db(),
            Some(Link::Own(connection)) => connection.get_db(),
            None => 0,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Link::Pooled(object)) = self.link.take()
            && self.state != State::Ready
        {
            // Closed here instead of going back.
            drop(Object::take(object));
        }
    }
}
