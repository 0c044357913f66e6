//! `leet scale`: changes how many pods a service has.

use serde_json::Value;

use super::output::{self, Format, OutputArgs};
use super::{CliError, list};
use crate::client::Client;

/// Arguments of `leet scale`.
#[derive(Debug, clap::Args)]
pub(super) struct ScaleArgs {
    /// The service
    name: String,
    /// How many pods it shall have; 0 keeps the service without pods
    replicas: u32,
    /// Its namespace [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn scale(client: &Client, args: ScaleArgs) -> Result<(), CliError> {
    let namespace = args.namespace.as_deref();
    let service: Value = client.scale(&args.name, namespace, args.replicas).await?;
    if args.output.output == Format::Json {
        return Ok(output::json(&service)?);
    }
    let line = format!(
        "service {} is scaled to {}, running now: {}",
        list::full_name(&service),
        service["replicas"],
        service["running"]
    );
    Ok(output::text(&line)?)
}
