//! `kubeleet-api`: the HTTP API. Wiring only.

use std::process::ExitCode;

use clap::Parser;
use kubeleet::process::{Daemon, run_daemon, unless_refused};
use kubeleet::settings::{Settings, SettingsArgs, load_or_exit};
use kubeleet::{api, telemetry};

/// The HTTP API of kubeleet: services become pods in the queue. Any number run at once.
#[derive(Parser)]
#[command(name = "kubeleet-api", version, after_help = kubeleet::settings::HELP)]
struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = load_or_exit(&Args::parse().settings);
    telemetry::init(&settings.log);
    run_daemon(serve(&settings)).await
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let daemon = Daemon::start(settings)?;
    let address = &settings.api.listen;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|error| {
        anyhow::anyhow!("cannot listen on {address} (setting api.listen): {error}")
    })?;
    let Daemon { store, shutdown } = daemon;
    let work = async {
        api::run(listener, store, settings, shutdown.clone()).await?;
        Ok(())
    };
    Box::pin(unless_refused(&settings.redis, &shutdown, work)).await
}
