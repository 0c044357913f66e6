//! Real servers and waiting, for all test binaries: `#[path = "../support/support.rs"] mod support;`
//!
//! No mock Redis anywhere. Every process started here ends with the test process, even by kill -9.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test binary uses its own part"
)]

mod certificates;
pub mod cluster;
pub mod http;
pub mod proc_dir;
pub mod process;
mod redis_server;
mod sentinel_set;
mod spawn;
pub mod station;

pub use certificates::Certificates;
pub use redis_server::{RedisOptions, RedisServer, shared_redis};
pub use sentinel_set::SentinelSet;
#[allow(unused_imports, reason = "each test binary uses its own part")]
pub use spawn::{find, signal, spawn};

use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// All events that `filter` wants and that are kept, oldest first.
pub async fn all_events(
    store: &kubeleet::store::Store,
    filter: &kubeleet::model::EventFilter,
) -> Vec<kubeleet::model::Event> {
    let events = store.events();
    let mut until = Some(events.newest().await.expect("Redis answers"));
    let mut all = Vec::new();
    while let Some(position) = until {
        let page = events.last(filter, position, 1000).await;
        let mut page = page.expect("events are read");
        page.events.append(&mut all);
        (all, until) = (page.events, page.earlier);
    }
    all
}

/// Tries until `look` is `Ok`; after `limit` the test fails with the last status.
pub async fn eventually<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    let mut status = "not looked at even once".to_owned();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(now)) => status = now,
            Err(_) => status = format!("still looking; before that: {status}"),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    panic!("{what}: not within {limit:?}; last status: {status}");
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
    listener.local_addr().expect("its number").port()
}
