//! `leet`, the command line: what can be typed, and how it ends.
//!
//! The commands know only the HTTP API, through `client`; `dev` alone starts stations, and `redis`
//! alone asks Redis, through `store`, since it must work without an API. Data goes to
//! stdout, all else to stderr. Exit codes: 0 done, 1 the API said no or cannot be reached, 2 wrong
//! use (clap's own).

mod apply;
pub mod bench;
mod dead;
mod describe;
pub mod dev;
mod events;
mod exec;
mod explain;
mod key;
mod list;
mod node;
mod logs;
mod output;
mod redis;
mod replay;
mod rm;
mod run;
mod scale;
mod table;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::client::{Client, ClientError, DEFAULT_ADDRESS};
use crate::settings;
use output::OutputError;

/// Containers on many machines, kept running; Redis is the whole control plane.
#[derive(Debug, Parser)]
#[command(name = "leet", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Where the API is.
    #[arg(long, global = true, value_name = "URL", help = API_HELP)]
    api: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// Exit status of wrong use, as clap's own.
const WRONG_USE: u8 = 2;

const API_HELP: &str =
    "Address of the API [default: the variable KUBELEET_API, or http://127.0.0.1:8080]";

const EXAMPLES: &str = "Examples:
  leet dev --nodes 3                      a whole cluster in one process, for trying
  leet run nginx --replicas 3             keep three of these running
  leet ps                                 see them
  leet events -f                          see what happens
  leet explain 7h2k9m4xq0ws-0             why it is where it is, or waits
  leet scale nginx 5                      keep five running instead
  leet logs -f nginx                      what they write, as they do
  leet exec -it nginx -- sh               a shell in one of them
  leet top                                what they use
  leet rm nginx                           stop them all
  leet apply -f compose.yaml              make what a file says so
  leet node drain node1 --wait            move everything off a machine
  leet redis status                       is the Redis below it all safe
  leet ps -o json | jq '.[].node'         for scripts

Exit codes: 0 done, 1 the API said no or cannot be reached, 2 wrong use.";

/// What `leet` can do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster in this process
    Dev(dev::DevArgs),
    /// Measure how fast pods are placed
    Bench(bench::BenchArgs),
    /// Keep containers of an image running
    #[command(after_help = run::EXAMPLES)]
    Run(Box<run::RunArgs>),
    /// Make what files say so: service files and compose files
    #[command(after_help = apply::APPLY_EXAMPLES)]
    Apply(apply::ApplyArgs),
    /// Show what `apply` would change
    #[command(after_help = apply::DIFF_EXAMPLES)]
    Diff(apply::DiffArgs),
    /// Delete what files name
    #[command(after_help = apply::DELETE_EXAMPLES)]
    Delete(apply::DeleteArgs),
    /// List pods
    #[command(after_help = list::PS_EXAMPLES)]
    Ps(list::PsArgs),
    /// List services
    Services(list::ServicesArgs),
    /// List nodes
    Nodes(list::NodesArgs),
    /// Label nodes, close and open them, move pods off them, forget them
    Node(node::NodeArgs),
    /// Show how much waits where, and what could not be understood
    Queue(list::QueueArgs),
    /// Look at what could not be understood or run, push it again, drop it
    #[command(after_help = dead::EXAMPLES)]
    Dead(dead::DeadArgs),
    /// Show what happened, and follow what happens
    #[command(after_help = events::EXAMPLES)]
    Events(events::EventsArgs),
    /// Say all of a pod, a service or a node, and how it came to be so
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::DescribeArgs),
    /// Say why a pod is where it is, or why it waits
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::ExplainArgs),
    /// Plan recorded decisions again, with other weights or without a node
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
    /// Change how many pods a service has
    Scale(scale::ScaleArgs),
    /// Delete services, or stop pods that have no service
    #[command(after_help = rm::EXAMPLES)]
    Rm(rm::RmArgs),
    /// Show the log of a pod, or of all pods of a service
    #[command(after_help = logs::EXAMPLES)]
    Logs(logs::LogsArgs),
    /// Run a command in a pod's container
    #[command(after_help = exec::EXAMPLES)]
    Exec(exec::ExecArgs),
    /// Look after the Redis itself, also while the API is down
    Redis(redis::RedisArgs),
    /// Show what running pods use
    #[command(after_help = top::EXAMPLES)]
    Top(top::TopArgs),
    /// Make the key by which the API signs and nodes trust
    #[command(after_help = key::EXAMPLES)]
    Key(key::KeyArgs),
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("the password cannot be read from standard input: {0}")]
    Password(std::io::Error),
    #[error("no password came: give it as the first line of standard input")]
    NoPassword,
    /// Each was told already.
    #[error("{failed} of {all} could not be done")]
    Some { failed: usize, all: usize },
    /// Each reason was told already.
    #[error("not all lines could be shown")]
    LogsCut,
    #[error("there is neither a service nor a pod {0}, nor are lines of one kept")]
    NeitherServiceNorPod(String),
    #[error("no pod of service {0} runs: see `leet ps --service {0}`")]
    NothingRuns(String),
    #[error("-t needs a terminal as input: leave it out for pipes")]
    NoTerminal,
    #[error("the terminal cannot be used: {0}")]
    Terminal(std::io::Error),
    #[error("the command was ended: a signal ended this one")]
    Ended,
    #[error("{0}")]
    NotRun(String),
    /// What was given cannot be used.
    #[error("{0}")]
    Wrong(String),
    /// There is a difference, which was shown.
    #[error("there are differences")]
    Differs,
    #[error(
        "node {node} has {left} pods left; its drain goes on: leet ps --node {node} shows them"
    )]
    NotDrained { node: String, left: u32 },
    #[error("node {0} does not drain any more: somebody else said so")]
    NoDrain(String),
    #[error("{0}")]
    Key(String),
}

/// Carries a command out; the answer is the process's exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Dev(args) => return end_of(Box::pin(dev::dev(args)).await),
        Command::Redis(args) => return end_of(Box::pin(redis::redis(args)).await),
        Command::Bench(args) => return end_of(Box::pin(bench::bench(args)).await),
        Command::Run(args) => run::run(&client(cli.api), *args).await,
        Command::Apply(args) => apply::apply(&client(cli.api), args).await,
        Command::Diff(args) => apply::diff(&client(cli.api), args).await,
        Command::Delete(args) => apply::delete(&client(cli.api), args).await,
        Command::Ps(args) => list::ps(&client(cli.api), args).await,
        Command::Services(args) => list::services(&client(cli.api), args).await,
        Command::Nodes(args) => list::nodes(&client(cli.api), args).await,
        Command::Node(args) => node::node(&client(cli.api), args).await,
        Command::Queue(args) => list::queue(&client(cli.api), args).await,
        Command::Dead(args) => dead::dead(&client(cli.api), args).await,
        Command::Events(args) => events::events(&client(cli.api), args).await,
        Command::Describe(args) => describe::describe(&client(cli.api), args).await,
        Command::Explain(args) => explain::explain(&client(cli.api), args).await,
        Command::Replay(args) => replay::replay(&client(cli.api), args).await,
        Command::Scale(args) => scale::scale(&client(cli.api), args).await,
        Command::Rm(args) => rm::rm(&client(cli.api), args).await,
        Command::Logs(args) => logs::logs(&client(cli.api), args).await,
        Command::Exec(args) => return Box::pin(exec::exec(&client(cli.api), args)).await,
        Command::Top(args) => top::top(&client(cli.api), args).await,
        Command::Key(args) => key::key(&args),
    };
    match result {
        // Whoever closed the pipe, such as `head`, has seen enough.
        Err(CliError::Output(OutputError::Closed)) => ExitCode::SUCCESS,
        Err(CliError::Differs) => ExitCode::FAILURE,
        Err(CliError::Wrong(message)) => {
            output::complain(&message);
            ExitCode::from(WRONG_USE)
        }
        result => end(result.map_err(|error| error.to_string())),
    }
}

fn end_of(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // With all its causes: these commands are programs of their own, not requests.
    output::complain(&format!("{error:#}"));
    if error.is::<settings::SettingsErrors>() {
        return ExitCode::from(WRONG_USE);
    }
    ExitCode::FAILURE
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// The client of the address that was given; one that is none is wrong use.
fn client(api: Option<String>) -> Client {
    let address = api.or_else(settings::api_url);
    let address = address.as_deref().unwrap_or(DEFAULT_ADDRESS);
    Client::new(address).unwrap_or_else(|error| {
        let wrong = clap::error::ErrorKind::ValueValidation;
        Cli::command().error(wrong, error.to_string()).exit()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
