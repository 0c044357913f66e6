//! One call of a Lua function: its arguments, its reply, and the commit that waits for replicas.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, ToRedisArgs, Value};

use super::connection::{Connection, is_wrong_type};
use super::library::is_absent;
use super::{Store, StoreError};

/// A call of a function, as it is put together.
pub(crate) struct Call {
    pub(crate) function: &'static str,
    pub(crate) command: Cmd,
}

impl Call {
    pub(crate) fn arg<T: ToRedisArgs>(mut self, argument: T) -> Call {
        self.command.arg(argument);
        self
    }
}

/// The one place where a Redis command is begun.
#[expect(
    clippy::disallowed_methods,
    reason = "the store is where commands are made"
)]
pub(crate) fn command(name: &str) -> Cmd {
    redis::cmd(name)
}

/// Keys of a wrong type that are looked for in one call.
const KEYS_PER_CALL: usize = 500;

/// What may be keys among the arguments of these commands.
fn keys_of<'p>(pipeline: &'p redis::Pipeline, keys: &super::keys::Keys) -> Vec<&'p str> {
    let arguments = pipeline.cmd_iter().flat_map(Cmd::args_iter);
    let texts = arguments.filter_map(|argument| match argument {
        redis::Arg::Simple(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    });
    texts.filter(|text| keys.is_one(text)).collect()
}

impl Store {
    /// Begins a call of `function`.
    pub(crate) fn function(&self, function: &'static str) -> Call {
        let mut command = command("FCALL");
        command.arg(function).arg(1).arg(self.keys.cluster());
        Call { function, command }
    }

    /// Calls a function on a pooled connection.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, StoreError> {
        let mut connection = self.connection().await?;
        self.ensure_library(&mut connection).await?;
        let value = match self.run_on(&mut connection, &call).await {
            Err(error) if is_absent(&error) => {
                self.load_library(&mut connection).await?;
                self.run_on(&mut connection, &call).await?
            }
            // It only reads, for others move such keys themselves: those of which there is one are looked at.
            Err(StoreError::Call { source, .. }) if is_wrong_type(&source) => {
                let mend = self.function("kl_cluster_mend");
                self.run_on(&mut connection, &mend).await?;
                self.run_on(&mut connection, &call).await?
            }
            result => result?,
        };
        Reply::of(call.function, value)
    }

    /// The error of a plain command; keys of it that have a wrong type are moved out of the way before the
    /// next one.
    pub(crate) async fn failed_at(
        &self,
        keys: &[&str],
        generation: u64,
        name: &'static str,
        source: redis::RedisError,
    ) -> StoreError {
        if is_wrong_type(&source)
            && let Err(error) = Box::pin(self.move_away(keys)).await
        {
            tracing::warn!(
                error = crate::telemetry::chain(&error),
                "a key of a wrong type was not moved away"
            );
        }
        self.failed(generation, name, source)
    }

    /// Moves those of the keys to `quarantine` that have a wrong type.
    async fn move_away(&self, keys: &[&str]) -> Result<(), StoreError> {
        for keys in keys.chunks(KEYS_PER_CALL) {
            let mut call = self.function("kl_key_mend");
            for key in keys {
                call = call.arg(*key);
            }
            let mut connection = self.connection().await?;
            let value = self.run_on(&mut connection, &call).await?;
            Reply::of(call.function, value)?.expect_word("mended")?;
        }
        Ok(())
    }

    /// Calls a function and waits, on the same connection, until enough replicas hold its writes.
    ///
    /// # Errors
    /// [`StoreError::Unconfirmed`] means unknown: try the same call with the same ids again.
    pub(crate) async fn commit(&self, call: Call) -> Result<Reply, StoreError> {
        let mut connection = self.connection().await?;
        let wanted = connection.replicas_to_confirm();
        if wanted == 0 {
            drop(connection);
            return self.call(call).await;
        }
        self.ensure_library(&mut connection).await?;
        let (value, confirmed) = match self.run_and_wait(&mut connection, &call, wanted).await {
            Err(error) if is_absent(&error) => {
                self.load_library(&mut connection).await?;
                self.run_and_wait(&mut connection, &call, wanted).await?
            }
            result => result?,
        };
        if confirmed < wanted {
            return Err(StoreError::Unconfirmed {
                function: call.function,
                confirmed,
                wanted,
            });
        }
        Reply::of(call.function, value)
    }

    async fn run_and_wait(
        &self,
        connection: &mut Connection,
        call: &Call,
        wanted: usize,
    ) -> Result<(Value, usize), StoreError> {
        let timeout: Duration = self.redis.commit_timeout();
        let mut wait = command("WAIT");
        wait.arg(wanted)
            .arg(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let mut pipeline = redis::pipe();
        pipeline.add_command(call.command.clone()).add_command(wait);
        let result = Box::pin(pipeline.query_async(connection)).await;
        result.map_err(|source| self.failed(connection.generation(), call.function, source))
    }

    /// Runs one call on a connection, without loading the library.
    pub(crate) async fn run_on(
        &self,
        connection: &mut Connection,
        call: &Call,
    ) -> Result<Value, StoreError> {
        self.run_command(connection, call.function, &call.command)
            .await
    }

    /// Runs one plain command on a connection.
    pub(crate) async fn run_command<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        name: &'static str,
        command: &Cmd,
    ) -> Result<T, StoreError> {
        let result = Box::pin(command.query_async(connection)).await;
        result.map_err(|source| self.failed(connection.generation(), name, source))
    }

    /// Runs plain commands, reads only, in one round trip.
    pub(crate) async fn read<T: FromRedisValue>(
        &self,
        name: &'static str,
        pipeline: &redis::Pipeline,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection().await?;
        let result = match Box::pin(pipeline.query_async(&mut connection)).await {
            Err(source) if is_wrong_type(&source) => {
                self.move_away(&keys_of(pipeline, &self.keys)).await?;
                Box::pin(pipeline.query_async(&mut connection)).await
            }
            result => result,
        };
        result.map_err(|source| self.failed(connection.generation(), name, source))
    }

    /// Reads the hashes that a pipeline of HGETALL names. One to which a person gave another type is
    /// an empty one: it must not hide the others.
    pub(crate) async fn read_hashes(
        &self,
        mut pipeline: redis::Pipeline,
    ) -> Result<Vec<HashMap<String, String>>, StoreError> {
        type Answers = Vec<redis::RedisResult<HashMap<String, String>>>;
        let mut connection = self.connection().await?;
        pipeline.ignore_errors();
        let result = Box::pin(pipeline.query_async::<Answers>(&mut connection)).await;
        let mut found = false;
        let hashes = result.and_then(|answers| {
            let hashes = answers.into_iter().map(|answer| match answer {
                Err(error) if is_wrong_type(&error) => {
                    found = true;
                    Ok(HashMap::new())
                }
                other => other,
            });
            hashes.collect()
        });
        if found {
            self.move_away(&keys_of(&pipeline, &self.keys)).await?;
        }
        hashes.map_err(|source| self.failed(connection.generation(), "HGETALL", source))
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        // Boxed: connecting, TLS and Sentinel included, would make every caller's future huge.
        Box::pin(self.redis.get())
            .await
            .map_err(StoreError::Unreachable)
    }

    /// Tells the connections of an error, so that a lost master is followed, and names the step.
    pub(crate) fn failed(
        &self,
        generation: u64,
        function: &'static str,
        source: redis::RedisError,
    ) -> StoreError {
        self.redis.report_error(generation, &source);
        StoreError::Call { function, source }
    }
}

/// A reply, read from front to back.
pub(crate) struct Reply {
    function: &'static str,
    items: std::vec::IntoIter<Value>,
}

impl Reply {
    pub(crate) fn new(function: &'static str, items: Vec<Value>) -> Reply {
        Reply {
            function,
            items: items.into_iter(),
        }
    }

    pub(super) fn of(function: &'static str, value: Value) -> Result<Reply, StoreError> {
        match value {
            Value::Array(items) => Reply::new(function, items).unless_recovering(),
            other => Err(Reply::new(function, Vec::new()).unknown(format!("{other:?}"))),
        }
    }

    /// Any function may answer that what stands there is not to be worked on yet.
    fn unless_recovering(self) -> Result<Reply, StoreError> {
        match self.items.as_slice() {
            [Value::BulkString(word), Value::BulkString(left), ..] if word == b"recovering" => {
                let left = std::str::from_utf8(left)
                    .ok()
                    .and_then(|left| left.parse().ok());
                Err(StoreError::Recovering {
                    left: Duration::from_millis(left.unwrap_or(1000)),
                })
            }
            _ => Ok(self),
        }
    }

    pub(crate) fn unknown(&self, what: impl Into<String>) -> StoreError {
        StoreError::Protocol {
            function: self.function,
            what: what.into(),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.items.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes()),
            Some(Value::Int(number)) => Ok(number.to_string().into_bytes()),
            other => Err(self.unknown(format!("{other:?} where a text was expected"))),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, StoreError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes).map_err(|error| self.unknown(error.to_string()))
    }

    /// A text that a person may have written: what is no UTF-8 in it is replaced.
    pub(crate) fn text_by_hand(&mut self) -> Result<String, StoreError> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    pub(crate) fn number<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        text.parse()
            .map_err(|_| self.unknown(format!("{text:?} where a number was expected")))
    }

    pub(crate) fn expect_word(&mut self, word: &str) -> Result<(), StoreError> {
        let given = self.text()?;
        if given == word {
            Ok(())
        } else {
            Err(self.unknown(given))
        }
    }

    pub(crate) fn list(&mut self) -> Result<Reply, StoreError> {
        match self.items.next() {
            Some(Value::Array(items)) => Ok(Reply::new(self.function, items)),
            other => Err(self.unknown(format!("{other:?} where a list was expected"))),
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }
}
