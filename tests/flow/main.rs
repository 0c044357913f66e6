//! Flow: real stations in one process, simulated containers, real Redis.

// `cfg(test)` tells clippy that helpers are tests too, and may unwrap.
#[cfg(test)]
mod api;
#[cfg(test)]
mod api_bad_input;
#[cfg(test)]
mod api_cli;
#[cfg(test)]
mod api_document;
#[cfg(test)]
mod api_faults;
#[cfg(test)]
mod api_listing;
#[cfg(test)]
mod api_submit;
#[cfg(test)]
#[allow(unused_imports, reason = "each test binary uses its own part")]
#[path = "../support/support.rs"]
mod support;
