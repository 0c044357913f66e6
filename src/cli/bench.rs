//! `leet bench`: measures, against a private Redis.

use std::io::Write as _;

use clap::Subcommand;
use serde::Serialize;

use crate::bench;

/// Arguments of `leet bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Placements per second on simulated nodes, beside the same calls without a plan
    Place {
        /// How many nodes
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        nodes: u32,
        /// How many pods
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        pods: u32,
        /// How the figures are shown
        #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
    /// How fast a log is read through Redis, beside the engine alone, and what that costs
    Logs {
        /// How many lines of 100 bytes
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=140_000))]
        lines: u32,
        /// Image to run; the engine must have it
        #[arg(long, default_value = "spaster/alpine-sleep")]
        image: String,
        /// How the figures are shown
        #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
    /// From POST to a running container on one idle Docker node, beside the engine alone
    Start {
        /// How many starts of each kind
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
        starts: u16,
        /// Image to run; the engine must have it
        #[arg(long, default_value = "spaster/alpine-sleep")]
        image: String,
        /// How the figures are shown
        #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
        output: String,
    },
}

/// Measures and shows the figures.
///
/// # Errors
/// Redis or the engine failed.
pub async fn bench(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        What::Place {
            nodes,
            pods,
            output,
        } => show(&bench::place(nodes, pods).await?, &output),
        What::Logs {
            lines,
            image,
            output,
        } => show(&bench::logs(lines, &image).await?, &output),
        What::Start {
            starts,
            image,
            output,
        } => show(
            &Box::pin(bench::start(usize::from(starts), &image)).await?,
            &output,
        ),
    }
}

/// One figure a line, or one JSON object.
fn show(figures: &impl Serialize, output: &str) -> anyhow::Result<()> {
    let figures = serde_json::to_value(figures)?;
    let mut out = std::io::stdout();
    match figures.as_object() {
        Some(figures) if output == "table" => {
            for (name, figure) in figures {
                writeln!(out, "{name:<24} {figure}")?;
            }
        }
        _ => writeln!(out, "{figures}")?,
    }
    Ok(())
}
