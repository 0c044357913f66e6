//! Connections to Redis.
use std::time::Duration;
/// e
#[derive(Debug, thiserror::Error)]
#[error("no connection")]
pub struct ConnectionError;
/// r
#[derive(Clone)]
pub struct Redis;
/// c
pub struct Connection(redis::aio::MultiplexedConnection);
impl Redis {
    pub(crate) fn commit_timeout(&self) -> Duration {
        Duration::ZERO
    }
    pub(crate) async fn get(&self) -> Result<Connection, ConnectionError> {
        Err(ConnectionError)
    }
    pub(crate) async fn dedicated(
        &self,
        _: Duration,
    ) -> Result<(redis::aio::MultiplexedConnection, u64), ConnectionError> {
        Err(ConnectionError)
    }
    pub(crate) fn report_error(&self, _: u64, _: &redis::RedisError) {}
}
impl Connection {
    pub(crate) fn generation(&self) -> u64 {
        0
    }
    pub(crate) fn replicas_to_confirm(&self) -> usize {
        0
    }
}
impl redis::aio::ConnectionLike for Connection {
    fn req_packed_command<'a>(
        &'a mut self,
        cmd: &'a redis::Cmd,
    ) -> redis::RedisFuture<'a, redis::Value> {
        self.0.req_packed_command(cmd)
    }
    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> redis::RedisFuture<'a, Vec<redis::Value>> {
        self.0.req_packed_commands(cmd, offset, count)
    }
    fn get_db(&self) -> i64 {
        0
    }
}
pub(crate) fn is_retryable(_: &redis::RedisError) -> bool {
    true
}
