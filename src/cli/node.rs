//! `leet node`: labels of nodes, and whether they are given pods.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::CliError;
use super::output::{self, Format, OutputArgs};
use crate::client::{Client, ClientError};
use crate::model::node::labels_text;
use crate::model::placement::{SOFT_TAINT, TAINT};
use crate::model::{Node, Span};

/// Time between two looks at a node that drains.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "Examples:
  leet node label node1 disk=ssd zone=eu old-     set two labels, remove one
  leet node taint node1 for=gpu spot-             keep pods away that do not tolerate for=gpu
  leet node cordon node1                          no new pods
  leet node drain node1 --wait --timeout 10m      its pods elsewhere, then go on
  leet node uncordon node1                        pods again
  leet node rm node1                              forget a node that is gone

A drain moves the pods of a service one at a time: a new one is healthy elsewhere before the old one
stops. A pod without a service is stopped, in its own time, and then starts elsewhere.

A taint is a label of the node, taint/KEY=VALUE; a service that lists KEY or KEY=VALUE among its
placement.tolerations may run there.";

/// Arguments of `leet node`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NodeCommand {
    /// Set labels of a node, and remove them
    Label(LabelArgs),
    /// Keep pods away from a node that do not tolerate it, and let them come again
    Taint(TaintArgs),
    /// Give nodes no new pods
    Cordon(NamesArgs),
    /// Give nodes pods again
    Uncordon(NamesArgs),
    /// Move all pods off nodes, and give them no new ones
    Drain(DrainArgs),
    /// Forget nodes
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
struct NamesArgs {
    /// The nodes
    #[arg(required = true, value_name = "NODE")]
    names: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct LabelArgs {
    /// The node
    #[arg(value_name = "NODE")]
    name: String,
    /// A label to set, or the key of one to remove with a minus behind it
    #[arg(required = true, value_name = "KEY=VALUE | KEY-", value_parser = change)]
    labels: Vec<(String, Option<String>)>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
struct TaintArgs {
    #[command(flatten)]
    taints: LabelArgs,
    /// Other nodes are only better: a pod that fits nowhere else comes all the same
    #[arg(long)]
    soft: bool,
}

#[derive(Debug, clap::Args)]
struct DrainArgs {
    #[command(flatten)]
    nodes: NamesArgs,
    /// Wait until no pod is left
    #[arg(long)]
    wait: bool,
    /// Longest wait, such as 90s or 10m; the drain goes on after it [default: no end]
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct RmArgs {
    #[command(flatten)]
    nodes: NamesArgs,
    /// Also nodes that are heard or have pods: these start elsewhere at once
    #[arg(long)]
    force: bool,
}

fn change(text: &str) -> Result<(String, Option<String>), String> {
    let change = match text.split_once('=') {
        Some((key, value)) => Some((key, Some(value.to_owned()))),
        None => text.strip_suffix('-').map(|key| (key, None)),
    };
    match change {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value)),
        _ => Err("KEY=VALUE or KEY- is needed".to_owned()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = Span::parse(text);
    time.map(|span| span.0)
        .ok_or_else(|| "a time such as 90s or 10m is needed, at most 24h".to_owned())
}

pub(super) async fn node(client: &Client, args: NodeArgs) -> Result<(), CliError> {
    match args.command {
        NodeCommand::Label(args) => label(client, args).await,
        NodeCommand::Taint(TaintArgs { mut taints, soft }) => {
            let kind = if soft { SOFT_TAINT } else { TAINT };
            for (key, _) in &mut taints.labels {
                key.insert_str(0, kind);
            }
            label(client, taints).await
        }
        NodeCommand::Cordon(args) => {
            let told = |name: &str| format!("node {name} is cordoned: it gets no new pods");
            each(
                &args,
                async |name| client.mark_node(name, "cordon").await,
                told,
            )
            .await
        }
        NodeCommand::Uncordon(args) => {
            let told = |name: &str| format!("node {name} gets pods again");
            each(
                &args,
                async |name| client.mark_node(name, "uncordon").await,
                told,
            )
            .await
        }
        NodeCommand::Drain(args) => drain(client, args).await,
        NodeCommand::Rm(RmArgs { nodes, force }) => {
            let told = |name: &str| format!("node {name} is forgotten");
            each(
                &nodes,
                async |name| client.remove_node(name, force).await,
                told,
            )
            .await
        }
    }
}

async fn label(client: &Client, args: LabelArgs) -> Result<(), CliError> {
    let labels: BTreeMap<String, Option<String>> = args.labels.into_iter().collect();
    let answer: Value = client.label_node(&args.name, &labels).await?;
    if args.output.output == Format::Json {
        return Ok(output::json(&answer)?);
    }
    let node: Node = read(&answer)?;
    let labels = labels_text(&node.labels);
    let shown = if labels.is_empty() { "none" } else { &labels };
    Ok(output::text(&format!(
        "labels of node {}: {shown}",
        node.name
    ))?)
}

/// Does one thing to each node; one that cannot be done does not keep the others.
async fn each(
    args: &NamesArgs,
    act: impl AsyncFn(&str) -> Result<Value, ClientError>,
    told: impl Fn(&str) -> String,
) -> Result<(), CliError> {
    let mut answers = Vec::new();
    for name in &args.names {
        match act(name).await {
            Ok(answer) => answers.push((name, answer)),
            Err(error) => output::complain(&format!("node {name}: {error}")),
        }
    }
    if args.output.output == Format::Json {
        let answers: Vec<&Value> = answers.iter().map(|(_, answer)| answer).collect();
        output::json(&answers)?;
    } else {
        for (name, _) in &answers {
            output::text(&told(name))?;
        }
    }
    let all = args.names.len();
    match all - answers.len() {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, all }),
    }
}

async fn drain(client: &Client, args: DrainArgs) -> Result<(), CliError> {
    let began = Instant::now();
    let told = |name: &str| format!("node {name} drains: its pods are moved");
    let marked = each(
        &args.nodes,
        async |name| client.mark_node(name, "drain").await,
        told,
    );
    marked.await?;
    if !args.wait {
        return Ok(());
    }
    for name in &args.nodes.names {
        let mut shown = None;
        loop {
            let node: Node = client.node(name).await?;
            if !node.draining {
                return Err(CliError::NoDrain(node.name));
            }
            let left = node.pods;
            if shown.replace(left) != Some(left) {
                let state = node.state.as_str();
                output::tell(&format!("node {name} ({state}): {left} pods left"));
            }
            if left == 0 {
                break;
            }
            if args
                .timeout
                .is_some_and(|timeout| began.elapsed() >= timeout)
            {
                let node = node.name;
                return Err(CliError::NotDrained { node, left });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

fn read(answer: &Value) -> Result<Node, output::OutputError> {
    serde::Deserialize::deserialize(answer).map_err(output::OutputError::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(change("a=b"), Ok(("a".into(), Some("b".into()))));
        assert_eq!(change("a="), Ok(("a".into(), Some(String::new()))));
        assert_eq!(change("a=b-"), Ok(("a".into(), Some("b-".into()))));
        assert_eq!(change("a-"), Ok(("a".into(), None)));
        for bad in ["a", "", "-", "=b"] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
