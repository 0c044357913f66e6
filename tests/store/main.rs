//! The store against real servers: connections, then one module for each section of functions.

#[path = "../support/support.rs"]
mod support;
#[path = "../support/oracle.rs"]
#[allow(unreachable_pub, reason = "as the rest of tests/support")]
mod oracle;
#[path = "../../proof/src/reference.rs"]
#[allow(dead_code, unreachable_pub, reason = "the proof uses all of it")]
mod reference;

mod asks;
mod by_hand;
mod claims;
mod cluster;
mod configuration;
mod connection;
mod decisions;
mod events;
mod failover;
mod library;
mod marks;
mod mirror;
mod mirror_look;
mod mirror_nodes;
mod mirror_queue;
mod mirror_wishes;
mod nodes;
mod pending;
mod pressure;
mod priorities;
mod queue;
mod random_walk;
mod recovery;
mod restore;
mod services;
mod sessions;
mod stopping;
mod survey;
mod sweep;
mod users;
mod wants;
mod wrong_types;
mod walk_checks;
mod walk_events;
mod walk_nodes;
