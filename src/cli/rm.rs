//! `leet rm`: deletes services, and stops pods that have no service.

use serde_json::Value;

use super::output::{self, Format, OutputArgs};
use super::{CliError, list};
use crate::client::{Client, ClientError};

pub(super) const EXAMPLES: &str = "Examples:
  leet rm web api
  leet rm --pod djkfghsdjkfhjksdghfjksdjkfhsd

Pods of a service end with it, or by `leet scale`.";

/// Arguments of `leet rm`.
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// Services to delete
    #[arg(required_unless_present = "pod", value_name = "NAME")]
    names: Vec<String>,
    /// A pod without a service to stop; may be repeated
    #[arg(long, value_name = "ID")]
    pod: Vec<String>,
    /// Namespace of the services [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// One that cannot be removed does not keep the others.
pub(super) async fn rm(client: &Client, args: RmArgs) -> Result<(), CliError> {
    let mut answers = Vec::new();
    let mut failed = 0;
    let mut keep = |answer: Result<Value, ClientError>, what: String| {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                failed += 1;
                output::complain(&format!("{what}: {error}"));
            }
        };
    };
    for name in &args.names {
        let deleted = client.delete_service(name, args.namespace.as_deref()).await;
        keep(deleted, format!("service {name}"));
    }
    for id in &args.pod {
        keep(client.stop_pod(id).await, format!("pod {id}"));
    }
    if args.output.output == Format::Json {
        output::json(&answers)?;
    } else {
        for answer in &answers {
            output::text(&match answer["id"].as_str() {
                Some(id) => format!("pod {id} is being stopped"),
                None => format!("service {} is being deleted", list::full_name(answer)),
            })?;
        }
    }
    let all = args.names.len() + args.pod.len();
    match failed {
        0 => Ok(()),
        failed => Err(CliError::Some { failed, all }),
    }
}
