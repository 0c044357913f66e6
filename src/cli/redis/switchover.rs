//! `leet redis switchover`: another server becomes the master, and nothing is lost.

use super::WhereArgs;
use crate::cli::output::{self, Format, OutputArgs};
use crate::store::switchover::switch_over;

/// Arguments of `leet redis switchover`.
#[derive(Debug, clap::Args)]
pub(super) struct SwitchoverArgs {
    #[command(flatten)]
    at: WhereArgs,
    /// The replica that becomes the master [default: the one that is furthest]
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn switchover(args: SwitchoverArgs) -> anyhow::Result<()> {
    let settings = args.at.settings()?;
    let done = Box::pin(switch_over(&settings.redis, args.to.as_deref())).await?;
    match args.output.output {
        Format::Json => output::json(&done)?,
        Format::Table => output::text(&format!(
            "{} is the master now, {} was it\nno write was accepted for {} ms; the replica had all after {} ms",
            done.to, done.from, done.gap_ms, done.caught_up_ms
        ))?,
    }
    anyhow::ensure!(
        done.old_follows,
        "{} does not follow {} yet: see its log, its masteruser and its masterauth",
        done.from,
        done.to
    );
    Ok(())
}
