//! `leet`: the command line. Wiring only.

use std::process::ExitCode;

use clap::Parser;
use kubeleet::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(Cli::parse()).await
}
