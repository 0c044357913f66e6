//! The only door to Redis: nothing outside names the `redis` crates, a key or a function.

pub mod backoff;
pub mod connection;

pub use backoff::Backoff;
pub use connection::{Connection, ConnectionError, Redis};
