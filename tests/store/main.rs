//! The store against real servers: connections, then one module for each section of functions.

#[path = "../support/support.rs"]
mod support;

mod cluster;
mod configuration;
mod connection;
mod failover;
mod library;
mod queue;
mod wrong_types;
