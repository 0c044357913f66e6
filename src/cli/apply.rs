//! `leet apply`, `diff` and `delete`: what files wish for is made so, compared, or taken away.
//!
//! Files are judged as a whole before anything is asked for: all that is wrong in all of them is
//! told, and nothing is applied. Then the API judges every wish in a dry run. Only then is
//! anything changed, each service after those it waits for.

mod input;
mod prune;
mod show;
mod wait;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output::{self, Format, OutputArgs, OutputError};
use super::{CliError, list};
use crate::client::{Client, ClientError};
use crate::model::{ServiceKey, Span};
use crate::wishes::{Level, PROJECT_LABEL, Reading, Wish};
use input::FileArgs;
use wait::Waited;

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
    let mut run = Run {
        client,
        args: &args,
        done: Vec::new(),
    };
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

/// Carrying an apply out.
struct Run<'a> {
    client: &'a Client,
    args: &'a ApplyArgs,
    done: Vec<Applied>,
}

impl Run<'_> {
    async fn one(&mut self, wish: &Wish, plan: &Applied) -> Result<(), String> {
        // A service that stays as it is needs nobody to be ready.
        if plan.changes_something() && !self.args.no_wait {
            for after in &wish.after {
                let waited = wait::until(self.client, after, self.args.timeout).await;
                match (waited, after.required) {
                    (Waited::Done, _) => {}
                    (Waited::Failed(why), false) => {
                        output::say(&format!("{why}; going on without it"))
                    }
                    (Waited::Failed(why), true) => return Err(why),
                }
            }
        }
        let deadline = Instant::now() + self.args.timeout;
        let applied = loop {
            let answer = self
                .client
                .apply::<Applied>(&wish.key, &wish.body, false)
                .await;
            match answer {
                Ok(applied) => break applied,
                Err(ClientError::Refused(problem))
                    if problem.is("service-deleting")
                        && !self.args.no_wait
                        && Instant::now() < deadline =>
                {
                    let timeout = deadline.saturating_duration_since(Instant::now());
                    wait::until_gone(self.client, &wish.key, timeout).await?;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        self.show(applied).map_err(|error| error.to_string())
    }

    async fn prune(&mut self, old: &Applied) -> Result<bool, CliError> {
        let key = show::key_of(&old.service);
        match self
            .client
            .delete_service::<Value>(&key.name, Some(&key.namespace))
            .await
        {
            Ok(service) => {
                self.show(Applied::deleted(service))?;
                Ok(true)
            }
            // Somebody was faster.
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(true),
            Err(error) => {
                output::complain(&format!("service {}: {error}", short(&key)));
                Ok(false)
            }
        }
    }

    fn show(&mut self, applied: Applied) -> Result<(), OutputError> {
        let shown = match self.args.output.output {
            Format::Table => output::text(&show::line(&applied, "")),
            Format::Json => Ok(()),
        };
        self.done.push(applied);
        match shown {
            // What was begun is ended, whether or not somebody still reads.
            Err(OutputError::Closed) => Ok(()),
            shown => shown,
        }
    }

    fn show_json(&self) -> Result<(), CliError> {
        match self.args.output.output {
            Format::Json => Ok(output::json(&self.done)?),
            Format::Table => Ok(()),
        }
    }
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

/// Takes it away.
pub(super) async fn delete(client: &Client, args: DeleteArgs) -> Result<(), CliError> {
    let reading = input::read(&args.files.with_all_profiles(), Level::Unreadable)?;
    let mut deleted = Vec::new();
    let mut failed = 0;
    for wish in reading.wishes.iter().rev() {
        match delete_one(client, wish, &args).await {
            Ok(None) => output::say(&format!("service {} is not there", short(&wish.key))),
            Ok(Some(service)) => {
                if args.output.output == Format::Table {
                    let what = if args.wait { "gone" } else { "being deleted" };
                    output::text(&format!("service {} is {what}", short(&wish.key)))?;
                }
                deleted.push(service);
            }
            Err(problem) => {
                failed += 1;
                output::complain(&format!("{}: {}: {problem}", wish.place, short(&wish.key)));
            }
        }
    }
    if args.output.output == Format::Json {
        output::json(&deleted)?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some {
            failed,
            all: reading.wishes.len(),
        }),
    }
}

/// The service as it was; none where it was not.
async fn delete_one(
    client: &Client,
    wish: &Wish,
    args: &DeleteArgs,
) -> Result<Option<Value>, String> {
    let ServiceKey { namespace, name } = &wish.key;
    let Some(service) = client
        .service::<Value>(&wish.key)
        .await
        .map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let label = service["spec"]["labels"][PROJECT_LABEL].as_str();
    if let (Some(wanted), Some(other)) = (wish.project.as_deref(), label)
        && wanted != other
    {
        return Err(format!(
            "it belongs to project {other}, not to {wanted}, and is left alone"
        ));
    }
    let deleted = client.delete_service::<Value>(name, Some(namespace)).await;
    let service = match deleted {
        Ok(service) => service,
        Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if args.wait {
        wait::until_gone(client, &wish.key, args.timeout).await?;
    }
    Ok(Some(service))
}
