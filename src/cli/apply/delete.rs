//! `leet delete`: what files name is deleted, dependents first.

use serde_json::Value;

use super::super::CliError;
use super::super::output::{self, Format};
use super::{DeleteArgs, input, short, wait};
use crate::client::{Client, ClientError};
use crate::model::ServiceKey;
use crate::wishes::{Level, PROJECT_LABEL, Wish};

/// Takes it away.
pub(in super::super) async fn delete(client: &Client, args: DeleteArgs) -> Result<(), CliError> {
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
