//! Plays Docker's engine for many nodes in one process: what the agent's requests would do to
//! containers happens to records of them, and is told in the truth log before it is answered.
//!
//! Each node has a socket, `<node>.sock`, and a truth log, `engine-<node>.jsonl`. What containers there
//! are stands in a journal, so that they outlive this process. `control.sock` breaks engines on demand.
//!
//! Must never know what kubeleet wants: it does what Docker would do, and is broken as Docker is.

mod answer;
mod clock;
mod containers;
mod control;
mod docker;
mod events;
mod faults;
mod images;
mod journal;
mod machine;
mod look;
mod serve;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::faults::Kind;
use self::machine::Machine;

/// What is played, and how quickly.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "engine",
    version,
    about = "Plays Docker's engine for many nodes"
)]
pub struct Options {
    /// Folder of the sockets, the journals and the truth logs.
    #[arg(long)]
    pub dir: PathBuf,
    /// A node to play; may be given often.
    #[arg(long = "node", required = true)]
    pub nodes: Vec<String>,
    /// An image that every node has at its start; may be given often.
    #[arg(long = "image", default_value = "spaster/alpine-sleep")]
    pub images: Vec<String>,
    /// Containers of somebody else that run on each node from its first start on.
    #[arg(long, default_value_t = 1)]
    pub foreign: u16,
    /// Cores of each node.
    #[arg(long, default_value_t = 4)]
    pub cpus: u64,
    /// Bytes of memory of each node.
    #[arg(long, default_value_t = 8 << 30)]
    pub memory: u64,
    /// A create takes up to so many milliseconds.
    #[arg(long, default_value_t = 20)]
    pub create_ms: u64,
    /// A start takes up to so many milliseconds.
    #[arg(long, default_value_t = 60)]
    pub start_ms: u64,
    /// A container ends within so many milliseconds after the stop signal.
    #[arg(long, default_value_t = 300)]
    pub stop_ms: u64,
    /// What ran when this process was killed does not run any more at its start.
    #[arg(long)]
    pub lost: bool,
}

/// Plays until the process is killed.
///
/// # Errors
/// The folder cannot be used, or a journal in it cannot be read.
pub async fn run(options: Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let machines = options
        .nodes
        .iter()
        .map(|node| Machine::open(node, &options));
    let machines: anyhow::Result<Vec<Arc<Machine>>> = machines.collect();
    let machines = machines?;
    for machine in &machines {
        tokio::spawn(serve::play(machine.clone()));
    }
    control::serve(&options.dir.join("control.sock"), machines.into()).await
}
