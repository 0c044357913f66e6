//! `leet explain`: why a pod is where it is, or why it waits.

use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::list::{known, short_service};
use super::output::{self, Format, OutputArgs};
use super::table::{on_one_line, table, time_of};
use crate::client::{Client, escape};
use crate::model::decision::{Candidate, Kind};
use crate::model::{Decision, Phase, PodId};
use crate::replay;

pub(super) const EXAMPLES: &str = "Examples:
  leet explain 7h2k9m4xq0ws-0
  leet explain 7h2k9m4xq0ws-0 -o json | jq .decision.kinds

The nodes are told as they were when the pod's turn had come. Terms are shares from 0 to 1, before
they are weighted; a lower score is better.";

/// Arguments of `leet explain`.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Id of the pod
    pod: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Deserialize)]
struct Explained {
    pod: PodId,
    service: Option<String>,
    phase: Phase,
    node: Option<String>,
    reason: Option<String>,
    decision: Option<Decision>,
    note: Option<String>,
}

pub(super) async fn explain(client: &Client, args: ExplainArgs) -> Result<(), CliError> {
    let path = format!("/v1/pods/{}/explain", escape(&args.pod));
    let answer: Value = client.get(&path).await?;
    if args.output.output == Format::Json {
        return Ok(output::json(&answer)?);
    }
    Ok(output::text(&shown(&known(&answer)?))?)
}

fn shown(explained: &Explained) -> String {
    let mut lines = Vec::new();
    let of = explained.service.as_deref().map(short_service);
    let of = of.map(|service| format!(" of {service}"));
    let on = explained.node.as_deref().map(|node| format!(" on {node}"));
    lines.push(format!(
        "Pod {}{}: {}{}",
        explained.pod,
        of.unwrap_or_default(),
        explained.phase.as_str(),
        on.unwrap_or_default()
    ));
    for text in [&explained.reason, &explained.note].into_iter().flatten() {
        lines.push(format!("  {}", on_one_line(text)));
    }
    if let Some(decision) = &explained.decision {
        lines.push(String::new());
        lines.push(head(decision));
        match replay::at_turn(decision, &explained.pod) {
            Some(kind) => lines.push(looked(decision, &kind)),
            None => lines.extend(decision.kinds.iter().map(|kind| looked(decision, kind))),
        }
    }
    lines.join("\n")
}

fn head(decision: &Decision) -> String {
    let mut head = format!(
        "Decision {} of {}: {} pods, {} nodes",
        decision.id,
        time_of(decision.time_ms),
        decision.pods_all,
        decision.nodes_all
    );
    if decision.given_back > 0 {
        let more = ", of which Redis gave back";
        head.push_str(&format!(
            "{more} {}: the nodes had changed",
            decision.given_back
        ));
    }
    head
}

/// How the nodes looked: those that take the pod as a table, the others by why not.
fn looked(decision: &Decision, kind: &Kind) -> String {
    let all = decision.nodes_all;
    let order = match kind.by.as_str() {
        _ if kind.takes == 0 => String::new(),
        "binpack" => ", by binpack, the highest first".to_owned(),
        by @ ("round-robin" | "random" | "first-fit") => format!(", by {by}, the next first"),
        by => format!(", by {by}, the lowest first"),
    };
    let mut lines = vec![format!("  {} of {all} nodes take it{order}", kind.takes)];
    if !kind.candidates.is_empty() {
        let shown = table_of(kind);
        lines.extend(shown.lines().map(|line| format!("  {line}")));
        let left = kind.takes.saturating_sub(kind.candidates.len() as u64);
        if left > 0 {
            lines.push(format!("  and {left} more"));
        }
    }
    for refused in &kind.refused {
        let why = on_one_line(&refused.why);
        lines.push(format!("  {} of {all} nodes {why}", refused.nodes));
    }
    lines.join("\n")
}

fn table_of(kind: &Kind) -> String {
    let compared = kind.by != "pressure" && kind.candidates.iter().any(|it| it.measure.is_some());
    let unmet = kind.candidates.iter().any(|it| it.unmet > 0);
    let terms = kind.candidates.first().map(|first| first.terms.keys());
    let terms: Vec<&String> = terms.into_iter().flatten().collect();
    let mut header = vec![String::new(), "NODE".to_owned()];
    if unmet {
        header.push("UNMET".to_owned());
    }
    if compared {
        header.push(kind.by.to_uppercase());
    }
    header.push("SCORE".to_owned());
    header.extend(terms.iter().map(|term| term.to_uppercase()));
    let row = |candidate: &Candidate| {
        let mut row = vec![mark(candidate, kind.pods), candidate.node.clone()];
        if unmet {
            row.push(candidate.unmet.to_string());
        }
        if compared {
            row.push(candidate.measure.map(number).unwrap_or_default());
        }
        row.push(number(candidate.score));
        row.extend(
            terms
                .iter()
                .map(|term| number(candidate.terms.get(*term).copied().unwrap_or_default())),
        );
        row
    };
    let rows = kind.candidates.iter().map(row).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, rows)
}

/// Which node was chosen, of several pods how often, and which was to be avoided.
fn mark(candidate: &Candidate, pods: u64) -> String {
    match (candidate.chosen, pods) {
        (0, _) if candidate.avoided => "avoided".to_owned(),
        (0, _) => String::new(),
        (_, 1) => "chosen".to_owned(),
        (chosen, _) => format!("chosen {chosen}x"),
    }
}

/// At most four digits behind the point, and none that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
