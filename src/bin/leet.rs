//! leet
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Dev(kubeleet::cli::dev::DevArgs),
    Bench(kubeleet::cli::bench::BenchArgs),
}
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse() {
        Cli::Dev(args) => kubeleet::cli::dev::dev(args).await,
        Cli::Bench(args) => kubeleet::cli::bench::bench(args).await,
    }
}
