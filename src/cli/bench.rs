//! `leet bench`: measures, against a private Redis.

mod set;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::RangedU64ValueParser;
use clap::value_parser;
use clap::{Args as _, FromArgMatches as _, Subcommand};
use serde::Serialize;

use crate::bench::{
    self, BeatsWish, Constraints, ConvergeWish, LatencyWish, LossWish, MemoryWish, PlaceWish,
    RunWish,
};

const EXAMPLES: &str = "Each command starts a Redis of its own (valkey-server or redis-server on the PATH), measures, and ends
it. Each shows the server's version, the cpu and the machine's load when it began: what else runs on
the machine is in the figures too, so repeat them, and trust ratios more than rates.

Examples:
  leet bench place --nodes 5000 --pods 100000 --schedulers 2
  leet bench place --constraints mixed -o json
  leet bench run --nodes 1000 --pods 10000
  leet bench run --docker spaster/alpine-sleep --pods 20
  leet bench beats --nodes 100000

Nodes that agents run on have two connections to Redis each: `ulimit -n` bounds them.";

/// Arguments of `leet bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
    /// How the figures are shown
    #[arg(short, long, global = true, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// The whole set, as a table with goals, and beside the figures of an earlier one
    All {
        /// A document that holds the table between its two marks: it is put there too
        #[arg(long, value_name = "FILE")]
        into: Option<PathBuf>,
        /// A document with the table to compare with
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
    /// Placements per second on simulated nodes, beside the same calls without a plan
    ///
    /// Real claims, plans and assignments out of a full queue, over nodes that exist only in Redis; in
    /// turns with the floor, which makes the same calls for the same number of pods without
    /// constraints, and gives all to one node. Three rounds of each, the middle one counts. Then the
    /// same pods are submitted while whole schedulers place them: that gives the times from submit to
    /// assigned.
    Place {
        /// How many nodes
        #[arg(long, default_value_t = 5_000, value_parser = count(1_000_000))]
        nodes: u32,
        /// How many pods
        #[arg(long, default_value_t = 100_000, value_parser = count(10_000_000))]
        pods: u32,
        /// How many services these are of [default: 1, of a mix 20]
        #[arg(long, value_parser = count(1_000_000))]
        services: Option<u32>,
        /// How many schedulers place them, side by side
        #[arg(long, default_value_t = 1, value_parser = count(64))]
        schedulers: u32,
        /// What the pods ask of their nodes
        #[arg(long, value_enum, default_value = "none")]
        constraints: Constraints,
    },
    /// From one submit to running containers, the agents included
    ///
    /// All agents are real ones and live in this process; the simulated engines start a container in
    /// no time. With --docker one node runs real containers of an image instead.
    Run {
        /// How many nodes
        #[arg(long, default_value_t = 1_000, value_parser = count(100_000))]
        nodes: u32,
        /// How many pods
        #[arg(long, default_value_t = 10_000, value_parser = count(1_000_000))]
        pods: u32,
        /// How many services these are of
        #[arg(long, default_value_t = 1, value_parser = count(100_000))]
        services: u32,
        /// How many schedulers place them, side by side
        #[arg(long, default_value_t = 1, value_parser = count(64))]
        schedulers: u32,
        /// How many seconds all is watched at rest after that
        #[arg(long, default_value_t = 10, value_parser = count(3_600))]
        rest_seconds: u32,
        /// Run this image on one node with Docker; the engine must have it
        #[arg(long, value_name = "IMAGE", conflicts_with = "nodes")]
        docker: Option<String>,
    },
    /// How long services take to converge that were all changed at once, on simulated nodes
    ///
    /// Each service has one pod; each is given another spec; each new pod runs before the old one
    /// stops. The applies go to Redis as the API's do, without HTTP; controller, scheduler and agents
    /// are real, the engines simulated.
    Converge {
        /// How many services, of one pod each
        #[arg(long, default_value_t = 10_000, value_parser = count(1_000_000))]
        services: u32,
        /// How many nodes
        #[arg(long, default_value_t = 100, value_parser = count(100_000))]
        nodes: u32,
    },
    /// What the heartbeats of very many nodes cost Redis
    Beats {
        /// How many nodes
        #[arg(long, default_value_t = 100_000, value_parser = count(1_000_000))]
        nodes: u32,
        /// How many seconds are watched
        #[arg(long, default_value_t = 15, value_parser = count(3_600))]
        seconds: u32,
    },
    /// Bytes of Redis's memory for each running pod
    Memory {
        /// How many pods
        #[arg(long, default_value_t = 100_000, value_parser = count(10_000_000))]
        pods: u32,
        /// How many services these are of
        #[arg(long, default_value_t = 10, value_parser = count(1_000_000))]
        services: u32,
    },
    /// From POST to assigned: on an idle cluster, and under steady arrivals
    Latency {
        /// How many nodes
        #[arg(long, default_value_t = 100, value_parser = count(5_000))]
        nodes: u32,
        /// How many POSTs on the idle cluster, one by one
        #[arg(long, default_value_t = 300, value_parser = count(100_000))]
        posts: u32,
        /// How many pods arrive in a second after that
        #[arg(long, default_value_t = 10_000, value_parser = count(1_000_000))]
        rate: u32,
        /// How many pods each of those POSTs asks for
        #[arg(long, default_value_t = 100, value_parser = count(10_000))]
        pods_per_post: u32,
        /// How many seconds they arrive
        #[arg(long, default_value_t = 10, value_parser = count(3_600))]
        seconds: u32,
    },
    /// How long the pods of lost nodes wait, and how long Redis is held up
    Loss {
        /// How many pods the one node has that is lost first
        #[arg(long, default_value_t = 10_000, value_parser = count(1_000_000))]
        one_node_pods: u32,
        /// How many nodes the larger cluster has
        #[arg(long, default_value_t = 5_000, value_parser = count(100_000))]
        nodes: u32,
        /// How many of them are lost at once
        #[arg(long, default_value_t = 500, value_parser = count(50_000))]
        lost: u32,
        /// How many pods these have together
        #[arg(long, default_value_t = 100_000, value_parser = count(10_000_000))]
        pods: u32,
        /// How many seconds their leases last; each node beats three times in it
        #[arg(long, default_value_t = 6, value_parser = count(600))]
        lease_seconds: u32,
    },
    /// How fast a log is read through Redis, beside the engine alone, and what that costs
    Logs {
        /// How many lines of 100 bytes
        #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1_000..=140_000))]
        lines: u32,
        /// Image to run; the engine must have it
        #[arg(long, default_value = "spaster/alpine-sleep")]
        image: String,
    },
    /// From POST to a running container on one idle Docker node, beside the engine alone
    Start {
        /// How many starts of each kind
        #[arg(long, default_value_t = 100, value_parser = value_parser!(u16).range(1..))]
        starts: u16,
        /// Image to run; the engine must have it
        #[arg(long, default_value = "spaster/alpine-sleep")]
        image: String,
    },
}

/// A number of things, at least one.
fn count(most: u64) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=most)
}

/// Measures and shows the figures.
///
/// # Errors
/// Redis or the engine failed.
pub async fn bench(args: BenchArgs) -> anyhow::Result<()> {
    match args.what {
        What::All { into, against } => all(into.as_deref(), against.as_deref()).await,
        what => show(&Box::pin(measure(what)).await?, &args.output),
    }
}

/// Runs the set, one after the other.
async fn all(into: Option<&Path>, against: Option<&Path>) -> anyhow::Result<()> {
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    let earlier = against.map(read).transpose()?.unwrap_or_default();
    if let Some(file) = into {
        anyhow::ensure!(
            set::put(&read(file)?, "").is_some(),
            "{} has no place for the table: two lines mark it, see docs/performance.md",
            file.display()
        );
    }
    let (mut measured, mut failed) = (Vec::new(), 0);
    for part in set::SET {
        super::output::say(&format!("leet bench {}", part.command));
        let words = std::iter::once("bench").chain(part.command.split(' '));
        let parser = BenchArgs::augment_args(clap::Command::new("bench"));
        let args = BenchArgs::from_arg_matches(&parser.try_get_matches_from(words)?)?;
        let result = Box::pin(measure(args.what)).await;
        failed += usize::from(result.is_err());
        measured.push((part, result.map_err(|error| format!("{error:#}"))));
    }
    let table = set::table(&measured, &earlier);
    write!(std::io::stdout(), "{table}")?;
    if let Some(file) = into {
        let document = set::put(&read(file)?, &table).unwrap_or_default();
        std::fs::write(file, document)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    anyhow::ensure!(failed == 0, "{failed} of {} failed", measured.len());
    Ok(())
}

async fn measure(what: What) -> anyhow::Result<serde_json::Value> {
    Ok(match what {
        What::All { .. } => anyhow::bail!("the set is no part of itself"),
        What::Place {
            nodes,
            pods,
            services,
            schedulers,
            constraints,
        } => {
            let services = services.unwrap_or_else(|| constraints.services());
            let wish = PlaceWish {
                nodes,
                pods,
                services,
                schedulers,
                constraints,
            };
            json(bench::place(wish).await?)?
        }
        What::Run {
            nodes,
            pods,
            services,
            schedulers,
            rest_seconds,
            docker,
        } => {
            let wish = RunWish {
                nodes: if docker.is_some() { 1 } else { nodes },
                pods,
                services,
                schedulers,
                rest_seconds,
                docker,
            };
            json(bench::run(wish).await?)?
        }
        What::Converge { services, nodes } => {
            json(bench::converge(ConvergeWish { services, nodes }).await?)?
        }
        What::Beats { nodes, seconds } => json(bench::beats(BeatsWish { nodes, seconds }).await?)?,
        What::Memory { pods, services } => {
            json(bench::memory(MemoryWish { pods, services }).await?)?
        }
        What::Latency {
            nodes,
            posts,
            rate,
            pods_per_post,
            seconds,
        } => {
            let wish = LatencyWish {
                nodes,
                posts,
                rate,
                pods_per_post,
                seconds,
            };
            json(bench::latency(wish).await?)?
        }
        What::Loss {
            one_node_pods,
            nodes,
            lost,
            pods,
            lease_seconds,
        } => {
            let wish = LossWish {
                one_node_pods,
                nodes,
                lost,
                pods,
                lease_seconds,
            };
            json(bench::loss(wish).await?)?
        }
        What::Logs { lines, image } => json(bench::logs(lines, &image).await?)?,
        What::Start { starts, image } => {
            json(Box::pin(bench::start(usize::from(starts), &image)).await?)?
        }
    })
}

fn json(figures: impl Serialize) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(figures)
}

/// One figure a line, or one JSON object.
fn show(figures: &serde_json::Value, output: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match figures.as_object() {
        Some(figures) if output == "table" => {
            for (name, figure) in figures {
                match figure {
                    serde_json::Value::String(text) => writeln!(out, "{name:<28} {text}")?,
                    figure => writeln!(out, "{name:<28} {figure}")?,
                }
            }
        }
        _ => writeln!(out, "{figures}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_set_can_be_typed() {
        for part in set::SET {
            let words = std::iter::once("bench").chain(part.command.split(' '));
            let parser = BenchArgs::augment_args(clap::Command::new("bench"));
            let parsed = parser.try_get_matches_from(words);
            assert!(parsed.is_ok(), "{}: {parsed:?}", part.command);
        }
    }
}
