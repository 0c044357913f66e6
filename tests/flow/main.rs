//! The flow: the real stations on a real Redis, with simulated engines.

#[path = "../support/support.rs"]
mod support;

// `cfg(test)` tells clippy that helpers are tests too, and may unwrap.
#[cfg(test)]
mod faults;
#[cfg(test)]
mod life_of_a_pod;
#[cfg(test)]
mod many;
#[cfg(test)]
mod node_lost;
#[cfg(test)]
mod placing;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod redis_away;
