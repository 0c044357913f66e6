//! `leet replay`: recorded decisions, planned again with something changed.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::list::known;
use super::output::{self, Format, OutputArgs};
use super::table::table;
use crate::client::{Client, with_query};
use crate::model::decision::RECORD_MAX;
use crate::model::{Decision, Strategy};
use crate::replay::{self, Changes, Replayed};

pub(super) const EXAMPLES: &str = "Examples:
  leet replay                                       nothing changed: nothing differs
  leet replay --weights pods=1,pressure_memory=10   what other weights would have done
  leet replay --without node3 --last 100            where the pods would be without a node
  leet replay --strategy binpack -o json

Nothing is changed in the cluster. Each decision is planned by itself, on the nodes as they were
recorded. Services that name a strategy or a score of their own keep it. A file is what
`GET /v1/decisions` answered.";

/// Most bytes of a file: as many records as are asked for at once.
const FILE_MAX: u64 = 1000 * RECORD_MAX as u64;

/// Arguments of `leet replay`.
#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Weights of the score that are to be different
    #[arg(long, value_name = "NAME=NUMBER,...", value_delimiter = ',', value_parser = weight)]
    weights: Vec<(String, f64)>,
    /// Strategy of pods that say none
    #[arg(long, value_parser = Strategy::ALL.map(Strategy::as_str))]
    strategy: Option<String>,
    /// A node to leave out; may be given several times
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
    /// How many of the newest decisions
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    last: u32,
    /// Decisions of a file, in place of the cluster's
    #[arg(long, value_name = "FILE", conflicts_with = "last")]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a file may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Recorded {
    List { items: Vec<Decision> },
    Several(Vec<Decision>),
    One(Box<Decision>),
    Explained { decision: Box<Decision> },
}

pub(super) async fn replay(client: &Client, args: ReplayArgs) -> Result<(), CliError> {
    let recorded = match &args.file {
        Some(file) => read(file)?,
        None => {
            let last = args.last.to_string();
            let path = with_query("/v1/decisions", &[("limit", Some(last.as_str()))]);
            known(&client.get::<Value>(&path).await?)?
        }
    };
    let decisions = match recorded {
        Recorded::List { items } => items,
        Recorded::Several(decisions) => decisions,
        Recorded::One(decision) | Recorded::Explained { decision } => vec![*decision],
    };
    let named = |strategy: &Strategy| Some(strategy.as_str()) == args.strategy.as_deref();
    let changes = Changes {
        weights: args.weights,
        strategy: Strategy::ALL.into_iter().find(named),
        without: args.without,
    };
    let replayed = replay::replay(&decisions, &changes);
    if args.output.output == Format::Json {
        return Ok(output::json(&replayed)?);
    }
    Ok(output::text(&shown(replayed))?)
}

fn read(file: &Path) -> Result<Recorded, CliError> {
    let wrong = |why: String| CliError::Wrong(format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?;
    if length.len() > FILE_MAX {
        return Err(wrong(format!("at most {FILE_MAX} bytes are read")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    serde_json::from_str(&text).map_err(|_| {
        wrong("these are no decisions: give what GET /v1/decisions answered".to_owned())
    })
}

fn shown(replayed: Replayed) -> String {
    let Replayed {
        decisions,
        pods,
        left_out,
        differ,
    } = replayed;
    let mut end = format!(
        "{decisions} decisions, {pods} pods, {} differ",
        differ.len()
    );
    if left_out > 0 {
        let why = "of a large cluster or another version";
        end.push_str(&format!(
            "; {left_out} decisions cannot be planned again: {why}"
        ));
    }
    if differ.is_empty() {
        return end;
    }
    let waits = || "(waits)".to_owned();
    let rows = differ.into_iter().map(|it| {
        vec![
            it.pod.to_string(),
            it.decision,
            it.from.unwrap_or_else(waits),
            it.to.unwrap_or_else(waits),
            it.reason.unwrap_or_default(),
        ]
    });
    let header = ["POD", "DECISION", "FROM", "TO", "WHY"];
    format!("{}\n{end}", table(&header, rows.collect()))
}

/// `cpu=2`: a weight of the score.
fn weight(text: &str) -> Result<(String, f64), String> {
    let names = replay::weight_names();
    let (name, number) = text.split_once('=').unwrap_or((text, ""));
    if !names.iter().any(|known| known == name) {
        return Err(format!(
            "{name} is no weight; known are {}",
            names.join(", ")
        ));
    }
    match number.parse() {
        Ok(number) if f64::is_finite(number) && number >= 0.0 => Ok((name.to_owned(), number)),
        _ => Err(format!("{name} needs a number from 0, such as {name}=2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_named_and_not_negative() {
        assert_eq!(weight("cpu=2.5"), Ok(("cpu".to_owned(), 2.5)));
        for wrong in ["cpu", "cpu=", "cpu=-1", "cpu=inf", "cpu=x"] {
            assert!(
                weight(wrong).unwrap_err().contains("such as cpu=2"),
                "{wrong}"
            );
        }
        let unknown = weight("cpus=1").unwrap_err();
        assert!(
            unknown.contains("known are") && unknown.contains("pressure_io"),
            "{unknown}"
        );
    }
}
