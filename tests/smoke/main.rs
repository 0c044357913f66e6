//! Smoke: against a real engine and the real binaries. Few tests; where something they need is not
//! to be had they fail with one line that says how to get it.

// `cfg(test)` tells clippy that helpers are tests too, and may unwrap.
#[cfg(test)]
mod agent_restart;
#[cfg(test)]
mod allowed;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod container;
#[cfg(test)]
mod daemons;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod engine_away;
#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
mod fence;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod health;
#[cfg(test)]
mod images;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod node_drain;
#[cfg(test)]
mod node_paused;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod redis_guard;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod seeing_in;
#[cfg(test)]
mod sentinel;
#[cfg(test)]
mod shop;
#[cfg(test)]
mod signed;
#[cfg(test)]
mod spec;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod store_lost;
#[cfg(test)]
mod switchover;
#[cfg(test)]
mod users;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
