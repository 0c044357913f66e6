//! leet
use clap::Parser;
#[derive(Parser)]
enum Cli {
    Dev(kubeleet::cli::dev::DevArgs),
}
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli::Dev(a) = Cli::parse();
    kubeleet::cli::dev::dev(a).await
}
