//! `kubeleet`: the agent of one node. Wiring only.

use std::process::ExitCode;

use clap::Parser;
use kubeleet::container::Runtime;
use kubeleet::process::{Daemon, run_daemon, unless_refused};
use kubeleet::settings::{Settings, SettingsArgs, load_or_exit};
use kubeleet::{agent, telemetry};

/// The agent of kubeleet: runs the containers of its node. One on each machine.
#[derive(Parser)]
#[command(name = "kubeleet", version, after_help = kubeleet::settings::HELP)]
struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = load_or_exit(&Args::parse().settings);
    telemetry::init(&settings.log);
    Box::pin(run_daemon(serve(&settings))).await
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let name = settings.node_name()?;
    let Daemon { store, shutdown } = Daemon::start(settings)?;
    let runtime = Runtime::of(settings, &name);
    let work = async {
        agent::run(store, runtime, &name, settings, shutdown.clone()).await?;
        Ok(())
    };
    Box::pin(unless_refused(&settings.redis, &shutdown, work)).await
}
