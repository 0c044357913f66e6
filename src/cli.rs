//! cli
pub mod bench;
pub mod dev;
