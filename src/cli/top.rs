//! `leet top`: what running pods use, again and again.

use std::cmp::Ordering;
use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::list::{known, pressure, short_service};
use super::output::{self, Format, OutputArgs};
use super::table::{bytes, table};
use crate::client::{Client, with_query};
use crate::model::PodStats;

pub(super) const EXAMPLES: &str = "Examples:
  leet top                                all running pods, the busiest first
  leet top --service web
  leet top --node node1 --once -o json    for scripts";

/// Time between two looks: samples of the engine are a second apart.
const PAUSE: Duration = Duration::from_secs(2);
/// Moves to the top and clears what is below.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Arguments of `leet top`.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// Only pods on this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only pods of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only pods of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Show it once; so it is too where the output is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Deserialize)]
struct List {
    items: Vec<PodStats>,
    #[serde(default)]
    is_cut: bool,
}

pub(super) async fn top(client: &Client, args: TopArgs) -> Result<(), CliError> {
    let parameters = [
        ("node", args.node.as_deref()),
        ("service", args.service.as_deref()),
        ("namespace", args.namespace.as_deref()),
    ];
    let path = with_query("/v1/stats", &parameters);
    let once = args.once || !std::io::stdout().is_terminal();
    loop {
        let answer: Value = client.get(&path).await?;
        if args.output.output == Format::Json {
            output::json(&answer["items"])?;
        } else {
            let list: List = known(&answer)?;
            let shown = shown(list);
            output::text(&if once {
                shown
            } else {
                format!("{REDRAW}{shown}")
            })?;
        }
        if once {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The pods as a table, the busiest first; those that could not be asked last, with the reason.
fn shown(mut list: List) -> String {
    let cpu = |stats: &PodStats| stats.usage.map_or(-1.0, |usage| usage.cpu_cores);
    list.items.sort_by(|a, b| {
        let order = cpu(b).partial_cmp(&cpu(a)).unwrap_or(Ordering::Equal);
        order.then_with(|| a.pod.cmp(&b.pod))
    });
    let header = [
        "POD",
        "SERVICE",
        "NODE",
        "CPU",
        "MEMORY",
        "NET IN/OUT",
        "BLOCK IN/OUT",
        "PIDS",
        "PRESSURE",
        "",
    ];
    let rows = list.items.into_iter().map(row).collect();
    let mut shown = table(&header, rows);
    if list.is_cut {
        shown.push_str("\nthere are more: name a node or a service");
    }
    shown
}

fn row(stats: PodStats) -> Vec<String> {
    let mut row = vec![
        stats.pod.to_string(),
        stats
            .service
            .as_deref()
            .map(short_service)
            .unwrap_or_default(),
        stats.node.unwrap_or_default(),
    ];
    let pair = |one: u64, other: u64| format!("{}/{}", bytes(one), bytes(other));
    match stats.usage {
        Some(usage) => row.extend([
            format!("{:.2}", usage.cpu_cores),
            pair(usage.memory_bytes, usage.memory_limit_bytes),
            pair(usage.network_received_bytes, usage.network_sent_bytes),
            pair(usage.block_read_bytes, usage.block_written_bytes),
            usage.pids.to_string(),
            usage.pressure.as_ref().map(pressure).unwrap_or_default(),
            " ".to_owned(),
        ]),
        None => {
            row.extend([const { String::new() }; 6]);
            row.push(stats.error.unwrap_or_default());
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PodId, Pressure, Usage};

    #[test]
    fn the_busiest_is_first_and_what_is_not_known_says_why() {
        let pressed = Pressure {
            known: true,
            io_avg10: 12.3,
            ..Pressure::default()
        };
        let stats = |pod: &str, cpu: Option<f64>| PodStats {
            pod: PodId::parse(pod).unwrap(),
            service: Some("default/web".to_owned()),
            node: Some("node1".to_owned()),
            usage: cpu.map(|cpu_cores| Usage {
                cpu_cores,
                memory_bytes: 1 << 20,
                pressure: (pod == "c").then_some(pressed),
                ..Usage::default()
            }),
            error: cpu.is_none().then(|| "node node1 is down".to_owned()),
        };
        let items = vec![
            stats("a", None),
            stats("b", Some(0.5)),
            stats("c", Some(1.5)),
        ];
        let shown = shown(List {
            items,
            is_cut: false,
        });
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("POD"), "{shown}");
        assert!(
            lines[1].starts_with('c') && lines[1].contains("1.50"),
            "{shown}"
        );
        assert!(lines[1].contains("cpu 0% mem 0% io 12%"), "{shown}");
        assert!(
            lines[2].contains("1MiB/0B") && !lines[2].contains('%'),
            "{shown}"
        );
        assert!(
            lines[3].starts_with('a') && lines[3].ends_with("is down"),
            "{shown}"
        );
    }
}
