//! `engine`: plays Docker's engine for many nodes. Wiring only.

use clap::Parser as _;
use kubeleet_faults::engine::{self, Options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    engine::run(Options::parse()).await
}
