//! Smoke: against a real engine and the real binaries. Few tests; where something they need is not
//! to be had they fail with one line that says how to get it.

// `cfg(test)` tells clippy that helpers are tests too, and may unwrap.
#[cfg(test)]
mod compose;
#[cfg(test)]
mod container;
#[cfg(test)]
mod faults;
#[cfg(test)]
#[path = "../support/support.rs"]
mod support;
