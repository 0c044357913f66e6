//! Flow: real stations in one process, simulated containers, real Redis.

// `cfg(test)` tells clippy that helpers are tests too, and may unwrap.
#[cfg(test)]
mod api;
#[cfg(test)]
mod api_apply;
#[cfg(test)]
mod api_bad_input;
#[cfg(test)]
mod api_cli;
#[cfg(test)]
mod api_dead;
#[cfg(test)]
mod api_document;
#[cfg(test)]
mod api_faults;
#[cfg(test)]
mod api_files;
#[cfg(test)]
mod api_listing;
#[cfg(test)]
mod api_nodes;
#[cfg(test)]
mod api_submit;
#[cfg(test)]
mod cli_events;
#[cfg(test)]
mod controller;
#[cfg(test)]
mod converges;
#[cfg(test)]
mod deciding;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod events;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod faults;
mod fence;
#[cfg(test)]
mod health;
#[cfg(test)]
mod hostile_http;
#[cfg(test)]
mod hostile_redis;
#[cfg(test)]
mod life_of_a_pod;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod many;
#[cfg(test)]
mod node_lost;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod placing;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod redis_away;
#[cfg(test)]
mod seeing;
#[cfg(test)]
mod stats;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod sse;
#[cfg(test)]
mod stops;
#[cfg(test)]
mod store_lost;
#[cfg(test)]
mod walk;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
#[cfg(test)]
mod watch;
mod wishes;
