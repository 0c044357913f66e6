//! `leet apply`, `diff` and `delete`: what files wish for is made so, compared, or taken away.
//!
//! Files are judged as a whole before anything is asked for: all that is wrong in all of them is
//! told, and nothing is applied. Then the API judges every wish in a dry run. Only then is
//! anything changed, each service after those it waits for.

mod delete;
mod input;
mod prune;
mod run;
mod show;
mod wait;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::{self, Format, OutputArgs};
use super::{CliError, list};
use crate::client::{Client, ClientError};
use crate::model::{ServiceKey, Span};
use crate::wishes::{Level, PROJECT_LABEL, Reading};
use input::FileArgs;
use run::Run;

pub(super) use delete::delete;

pub(super) const APPLY_EXAMPLES: &str = "Examples:
  leet apply -f compose.yaml                     a compose file, as one project
  leet apply -f compose.yaml -f more.yaml        the second over the first
  leet apply -f services/ --prune -p shop        a folder; what it does not name any more goes
  leet apply -f web.json --dry-run               only tell what would change
  generate | leet apply -f -

A file is YAML or JSON: a service file holds bodies of POST /v1/services, a compose file has services.
Services of a compose file keep their names and carry the label project=NAME.
Where a file says no number of pods, that of a service that stands is kept.";

pub(super) const DIFF_EXAMPLES: &str = "Examples:
  leet diff -f compose.yaml
  leet diff -f services/ --prune -p shop

Exit codes: 0 no difference, 1 there is one, 2 it cannot be told.";

pub(super) const DELETE_EXAMPLES: &str = "Examples:
  leet delete -f compose.yaml --wait

Those that others depend on go last. Services of profiles that are off are deleted too.";

/// Arguments of `leet apply`.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Delete services of the project that the files do not name
    #[arg(long)]
    prune: bool,
    /// Tell what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the services that others depend on
    #[arg(long)]
    no_wait: bool,
    /// Longest wait for one service
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span)]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `leet diff`.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Show services of the project that the files do not name as deleted
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `leet delete`.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Wait until each is gone
    #[arg(long)]
    wait: bool,
    /// Longest wait for one service
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span)]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).map(|span| span.0);
    span.ok_or_else(|| "a duration such as 30s or 5m is needed, at most 24h".to_owned())
}

/// A service's name, with its namespace where that is not the default.
fn short(key: &ServiceKey) -> String {
    list::short_service(&key.to_string())
}

/// What became of a wish, or would.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Applied {
    /// `created`, `changed`, `unchanged` or `deleted`.
    outcome: String,
    service: Value,
    #[serde(default)]
    changes: Vec<Change>,
}

/// One field that differs.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    field: String,
    from: Value,
    to: Value,
}

impl Applied {
    fn deleted(service: Value) -> Applied {
        let (outcome, changes) = ("deleted".to_owned(), Vec::new());
        Applied {
            outcome,
            service,
            changes,
        }
    }

    fn changes_something(&self) -> bool {
        self.outcome != "unchanged"
    }
}

/// Makes it so.
pub(super) async fn apply(client: &Client, args: ApplyArgs) -> Result<(), CliError> {
    let reading = input::read(&args.files, Level::Refused)?;
    let scope = prune::scope(&reading, &args.files, args.prune)?;
    let planned = judge(client, &reading).await?;
    let old = prune::left_over(client, &reading, &scope).await?;
    if args.dry_run {
        let all: Vec<Applied> = planned.into_iter().chain(old).collect();
        return show::all(&all, args.output.output, "would be ");
    }
    let mut run = Run::new(client, &args);
    for (index, (wish, plan)) in reading.wishes.iter().zip(&planned).enumerate() {
        if let Err(error) = run.one(wish, plan).await {
            output::complain(&format!("{}: {}: {error}", wish.place, short(&wish.key)));
            run.show_json()?;
            let left = reading.wishes.len() - index;
            return Err(CliError::Some {
                failed: left,
                all: reading.wishes.len(),
            });
        }
    }
    let mut failed = 0;
    for service in &old {
        failed += usize::from(!run.prune(service).await?);
    }
    run.show_json()?;
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some {
            failed,
            all: old.len(),
        }),
    }
}

/// Asks the API about every wish, without changing anything.
async fn judge(client: &Client, reading: &Reading) -> Result<Vec<Applied>, CliError> {
    let mut planned = Vec::new();
    let mut failed = 0;
    for wish in &reading.wishes {
        let answer = client.apply::<Applied>(&wish.key, &wish.body, true).await;
        let problem = match answer {
            Ok(answer) => match taken_over(&answer) {
                None => {
                    planned.push(answer);
                    continue;
                }
                Some(problem) => problem,
            },
            // It is made anew once the old one is gone.
            Err(ClientError::Refused(problem)) if problem.is("service-deleting") => {
                let service = serde_json::json!({
                    "name": wish.key.name, "namespace": wish.key.namespace, "deleting": true,
                });
                planned.push(Applied {
                    outcome: "created".to_owned(),
                    service,
                    changes: Vec::new(),
                });
                continue;
            }
            Err(error @ ClientError::Refused(_)) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        failed += 1;
        output::complain(&format!("{}: {}: {problem}", wish.place, short(&wish.key)));
    }
    match failed {
        0 => Ok(planned),
        failed => {
            output::say("nothing is applied");
            Err(CliError::Some {
                failed,
                all: reading.wishes.len(),
            })
        }
    }
}

/// What is said of a service that belongs to another project: names are easily alike.
fn taken_over(answer: &Applied) -> Option<String> {
    let field = format!("labels.{PROJECT_LABEL}");
    let change = answer.changes.iter().find(|change| change.field == field)?;
    let other = change.from.as_str()?;
    Some(format!(
        "it belongs to project {other}: use another --namespace, or delete it first"
    ))
}

/// Tells what differs.
pub(super) async fn diff(client: &Client, args: DiffArgs) -> Result<(), CliError> {
    // 1 means that there is a difference: all else is 2.
    let differs = compare(client, &args).await.map_err(|error| match error {
        CliError::Output(error) => CliError::Output(error),
        error => CliError::Wrong(error.to_string()),
    })?;
    if differs {
        Err(CliError::Differs)
    } else {
        Ok(())
    }
}

async fn compare(client: &Client, args: &DiffArgs) -> Result<bool, CliError> {
    let reading = input::read(&args.files, Level::Refused)?;
    let scope = prune::scope(&reading, &args.files, args.prune)?;
    let mut all = judge(client, &reading).await?;
    all.extend(prune::left_over(client, &reading, &scope).await?);
    let differing: Vec<&Applied> = all
        .iter()
        .filter(|applied| applied.changes_something())
        .collect();
    match args.output.output {
        Format::Json => output::json(&differing)?,
        Format::Table => {
            for applied in &differing {
                output::text(&show::difference(applied))?;
            }
        }
    }
    Ok(!differing.is_empty())
}
