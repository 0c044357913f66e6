//! `leet dead`: entries that nobody could understand or run.

use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::list::known;
use super::output::{self, Format, OutputArgs};
use super::table::{age_of, table};
use crate::client::Client;

pub(super) const EXAMPLES: &str = "Examples:
  leet dead ls
  leet dead show 1795160000000-7
  leet dead requeue 1795160000000-7     push it again, once what was wrong is mended
  leet dead drop --all";

/// Arguments of `leet dead`.
#[derive(Debug, clap::Args)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List dead letters, newest first
    Ls {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show one whole
    Show {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Push their entries again, once, where they came from
    Requeue(Which),
    /// Forget them
    Drop(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Their ids
    #[arg(required_unless_present = "all", value_name = "ID")]
    ids: Vec<String>,
    /// All there are
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Deserialize)]
struct Letter {
    id: String,
    entry: String,
    r#where: String,
    why: String,
    when_ms: u64,
    whole: bool,
}

/// Characters of an entry in a table.
const ENTRY_SHOWN: usize = 60;

pub(super) async fn dead(client: &Client, args: DeadArgs) -> Result<(), CliError> {
    match args.verb {
        Verb::Ls { output } => ls(client, &output).await,
        Verb::Show { id, output } => show(client, &id, &output).await,
        Verb::Requeue(which) => each(client, which, "pushed again", Client::requeue_dead).await,
        Verb::Drop(which) => each(client, which, "dropped", Client::drop_dead).await,
    }
}

async fn ls(client: &Client, args: &OutputArgs) -> Result<(), CliError> {
    let letters: Vec<Value> = client.all("/v1/dead", &[]).await?;
    if args.output == Format::Json {
        return Ok(output::json(&letters)?);
    }
    let mut rows = Vec::with_capacity(letters.len());
    for letter in &letters {
        let letter: Letter = known(letter)?;
        rows.push(vec![
            letter.id,
            age_of(letter.when_ms),
            letter.r#where,
            letter.why,
            letter.entry.chars().take(ENTRY_SHOWN).collect(),
        ]);
    }
    output::text(&table(&["ID", "SINCE", "WHERE", "WHY", "ENTRY"], rows))?;
    let totals: Value = client.get("/v1/dead?limit=1").await?;
    if let Some(dropped) = totals["dropped"].as_u64().filter(|dropped| *dropped > 0) {
        output::say(&format!("{dropped} more gave way to newer ones"));
    }
    Ok(())
}

async fn show(client: &Client, id: &str, args: &OutputArgs) -> Result<(), CliError> {
    let answer: Value = client.dead(id).await?;
    if args.output == Format::Json {
        return Ok(output::json(&answer)?);
    }
    let letter: Letter = known(&answer)?;
    let whole = if letter.whole {
        "yes"
    } else {
        "no, it was too long"
    };
    output::text(&format!(
        "id:     {}\nsince:  {}\nwhere:  {}\nwhy:    {}\nwhole:  {whole}\nentry:  {}",
        letter.id,
        age_of(letter.when_ms),
        letter.r#where,
        letter.why,
        letter.entry
    ))?;
    Ok(())
}

/// Does it to each; one that cannot be does not keep the others.
async fn each(
    client: &Client,
    which: Which,
    done: &str,
    act: impl AsyncFn(&Client, &str) -> Result<Value, crate::client::ClientError>,
) -> Result<(), CliError> {
    let ids = if which.all {
        let letters: Vec<Letter> = client.all("/v1/dead", &[]).await?;
        letters.into_iter().map(|letter| letter.id).collect()
    } else {
        which.ids
    };
    let (mut answers, mut failed) = (Vec::new(), 0);
    for id in &ids {
        match act(client, id).await {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                failed += 1;
                output::complain(&format!("dead letter {id}: {error}"));
            }
        }
    }
    if which.output.output == Format::Json {
        output::json(&answers)?;
    } else {
        for answer in &answers {
            let id = answer["id"].as_str().unwrap_or_default();
            output::text(&format!("dead letter {id} was {done}"))?;
        }
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some {
            failed,
            all: ids.len(),
        }),
    }
}
