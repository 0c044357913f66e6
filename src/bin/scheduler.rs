//! `kubeleet-scheduler`: the scheduler and the controller's loops. Wiring only.

use std::process::ExitCode;

use clap::Parser;
use kubeleet::process::{Daemon, run_daemon, unless_refused};
use kubeleet::settings::{Settings, SettingsArgs, load_or_exit};
use kubeleet::{controller, scheduler, telemetry};

/// The scheduler of kubeleet: gives waiting pods to nodes. Any number run at once, without a leader.
#[derive(Parser)]
#[command(name = "kubeleet-scheduler", version, after_help = kubeleet::settings::HELP)]
struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let settings = load_or_exit(&Args::parse().settings);
    telemetry::init(&settings.log);
    Box::pin(run_daemon(schedule(&settings))).await
}

async fn schedule(settings: &Settings) -> anyhow::Result<()> {
    let Daemon { store, shutdown } = Daemon::start(settings)?;
    let work = async {
        tokio::join!(
            scheduler::run(store.clone(), settings, shutdown.clone()),
            controller::run(&store, &settings.scheduler, &shutdown),
        );
        Ok(())
    };
    Box::pin(unless_refused(&settings.redis, &shutdown, work)).await
}
