//! agent

pub mod pressure;
