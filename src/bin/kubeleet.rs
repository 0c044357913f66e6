//! `kubeleet`: the agent of one node. Wiring only.

use std::process::ExitCode;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use kubeleet::container::Runtime;
use kubeleet::process::{self, Daemon, run_daemon, unless_refused};
use kubeleet::settings::{Settings, SettingsArgs, load_or_exit};
use kubeleet::{agent, telemetry};

/// The agent of kubeleet: runs the containers of its node. One on each machine.
#[derive(Parser)]
#[command(name = "kubeleet", version, after_help = kubeleet::settings::HELP)]
struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Watch over an agent: stop what must never run twice once its lease is over, should it be dead
    /// or held. Each agent starts one; it outlives the agent
    Watchdog {
        /// The agent's `node.run_dir`
        #[arg(long, value_name = "PATH")]
        dir: PathBuf,
        /// Name of the node
        #[arg(long)]
        node: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let settings = load_or_exit(&args.settings);
    telemetry::init(&settings.log);
    match args.command {
        Some(Command::Watchdog { dir, node }) => {
            let watch = async { Ok(agent::fence::watch(&dir, &node).await?) };
            run_daemon(watch).await
        }
        None => Box::pin(run_daemon(serve(&settings))).await,
    }
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let name = settings.node_name()?;
    let Daemon { store, shutdown } = Daemon::start(settings)?;
    let runtime = Runtime::of(settings, &name);
    let work = async {
        tokio::select! {
            ended = agent::run(store, runtime, &name, settings, shutdown.clone()) => Ok(ended?),
            () = process::keep_watchdog(settings, &name) => unreachable!("it is kept for ever"),
        }
    };
    Box::pin(unless_refused(&settings.redis, &shutdown, work)).await
}
