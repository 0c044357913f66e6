//! A connection to one server, and what is read of its INFO.

use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, FromRedisValue, Pipeline, RedisError};

use super::SwitchoverError;
use crate::store::connection::Access;

/// A connection that is made anew where it broke: Sentinel ends all of a server that it promotes.
pub(super) struct Line<'a> {
    access: &'a Access,
    info: ConnectionInfo,
    connection: MultiplexedConnection,
}

impl Line<'_> {
    pub(super) async fn open<'a>(
        access: &'a Access,
        address: &str,
    ) -> Result<Line<'a>, SwitchoverError> {
        let info = access.at(address).map_err(SwitchoverError::Settings)?;
        let opened = access.open(info.clone()).await;
        let failed = |error| SwitchoverError::step("connecting", address, error);
        Ok(Line {
            access,
            info,
            connection: opened.map_err(failed)?,
        })
    }

    /// Asks; a second time on a new connection, so what is asked must be as good twice.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, all: &Pipeline) -> Result<T, RedisError> {
        match all.query_async(&mut self.connection).await {
            Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                self.connection = self.access.open(self.info.clone()).await?;
                all.query_async(&mut self.connection).await
            }
            result => result,
        }
    }

    pub(super) async fn tell(&mut self, name: &str, arguments: &[&str]) -> Result<(), RedisError> {
        let mut one = Pipeline::new();
        one.cmd(name).arg(arguments).ignore();
        self.ask(&one).await
    }

    /// INFO of its part in replication.
    pub(super) async fn replication(&mut self) -> Result<String, RedisError> {
        let mut one = Pipeline::new();
        one.cmd("INFO").arg("replication");
        let (info,) = self.ask(&one).await?;
        Ok(info)
    }
}

pub(super) fn text<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

pub(super) fn field(info: &str, name: &str) -> Option<u64> {
    text(info, name)?.parse().ok()
}
