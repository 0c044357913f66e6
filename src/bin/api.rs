//! `kubeleet-api`: the HTTP API. Wiring only.

use clap::Parser;
use kubeleet::process::Daemon;
use kubeleet::settings::{SettingsArgs, load_or_exit};
use kubeleet::{api, telemetry};

/// The HTTP API of kubeleet: services become pods in the queue. Any number run at once.
#[derive(Parser)]
#[command(name = "kubeleet-api", version, after_help = kubeleet::settings::HELP)]
struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = load_or_exit(&Args::parse().settings);
    telemetry::init(&settings.log);
    let daemon = Daemon::start(&settings)?;
    let listener = tokio::net::TcpListener::bind(&settings.api.listen)
        .await
        .map_err(|error| {
            anyhow::anyhow!(
                "cannot listen on {} (setting api.listen): {error}",
                settings.api.listen
            )
        })?;
    api::run(
        listener,
        daemon.store.clone(),
        &settings,
        daemon.shutdown.clone(),
    )
    .await?;
    Ok(())
}
