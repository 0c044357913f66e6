//! The store against real servers: connections now, one module for each section of functions later.

#[path = "../support/support.rs"]
mod support;

mod configuration;
mod connection;
mod failover;
