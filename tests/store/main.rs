//! The store against real servers: connections, then one module for each section of functions.

#[path = "../support/support.rs"]
mod support;

mod by_hand;
mod claims;
mod cluster;
mod configuration;
mod connection;
mod failover;
mod library;
mod nodes;
mod pending;
mod queue;
mod services;
mod stopping;
mod sweep;
mod wrong_types;
