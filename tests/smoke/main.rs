//! Smoke: against a real engine and the real binaries. Few tests; where something they need is not
//! to be had they fail with one line that says how to get it.

mod container;
