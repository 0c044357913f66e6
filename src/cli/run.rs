//! `leet run`: keeps containers of an image running. The API judges the values.

mod wish;

use std::io::BufRead as _;

use serde_json::{Value, json};

use super::output::{self, Format, OutputArgs};
use super::{CliError, list};
use crate::client::Client;
use crate::model::service::PullPolicy;
use wish::{EnvFile, wish};

pub(super) const EXAMPLES: &str = "Examples:
  leet run nginx --replicas 3 --port 80
  leet run registry.example:5000/team/app:1.2 --name app --env MODE=live --memory 256Mi --cpu 0.5
  leet run alpine --name sleeper -- sleep 1000
  leet run postgres:17 --volume db:/var/lib/postgresql/data --env-file db.env --restart on-failure:5
  leet run registry.example/team/app --registry-user reader <password.txt

A file or folder of the node, such as --volume /srv/data:/data, is mounted only where the node's
settings allow it (agent.allow.binds). The same command again changes nothing.";

/// Arguments of `leet run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The image, such as nginx:1.27
    image: String,
    /// Name of the service [default: made from the image's name]
    #[arg(long)]
    name: Option<String>,
    /// How many of them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    replicas: u32,
    /// Namespace of the service [default: default]
    #[arg(long)]
    namespace: Option<String>,
    /// An environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = wish::pair)]
    env: Vec<(String, String)>,
    /// A file of environment variables, one NAME=VALUE a line; may be repeated, and --env goes before it
    #[arg(long, value_name = "PATH", value_parser = wish::env_file)]
    env_file: Vec<EnvFile>,
    /// A label of the containers; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = wish::pair)]
    label: Vec<(String, String)>,
    /// A port: 80 (a free one of the node), 8080:80 or 53:53/udp (each pod needs a node where that
    /// one is free); may be repeated
    #[arg(long, value_name = "[HOST:]PORT")]
    port: Vec<String>,
    /// Cores for each, such as 0.5 or 500m
    #[arg(long)]
    cpu: Option<String>,
    /// Memory for each, such as 64Mi or 1g
    #[arg(long)]
    memory: Option<String>,
    /// Disk that each asks for, such as 10Gi; no limit
    #[arg(long, value_name = "SIZE")]
    disk: Option<String>,
    /// Devices for each by kind, such as gpu=1; may be repeated
    #[arg(long, value_name = "KIND=COUNT", value_parser = wish::devices)]
    devices: Vec<(String, Value)>,
    /// A volume (NAME:TARGET) or a path of the node (/SOURCE:TARGET), with :ro for reading only; may
    /// be repeated
    #[arg(long, value_name = "SOURCE:TARGET[:ro]", value_parser = wish::volume)]
    volume: Vec<Value>,
    /// Memory that is mounted as a folder and goes with the container; may be repeated
    #[arg(long, value_name = "TARGET[:SIZE]", value_parser = wish::tmpfs)]
    tmpfs: Vec<Value>,
    /// The container's own file system is for reading only
    #[arg(long)]
    read_only: bool,
    /// User that the program runs as, such as 1000:1000
    #[arg(long)]
    user: Option<String>,
    /// Folder that the program starts in
    #[arg(long, value_name = "PATH")]
    workdir: Option<String>,
    /// bridge, none, host, or a network of the node's engine
    #[arg(long)]
    network: Option<String>,
    /// When a container that ended is started again: always, never, on-failure, on-failure:MAX
    #[arg(long, value_name = "POLICY", value_parser = wish::restart)]
    restart: Option<Value>,
    /// When the image is fetched
    #[arg(long, value_parser = PullPolicy::ALL.map(PullPolicy::as_str))]
    pull: Option<String>,
    /// User of the image's registry; the password is the first line of standard input
    #[arg(long, value_name = "NAME")]
    registry_user: Option<String>,
    /// Which queue they wait in
    #[arg(long, value_parser = ["high", "normal", "low"])]
    priority: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    /// Program to run instead of the image's, and its arguments
    #[arg(last = true, value_name = "CMD ARGS")]
    command: Vec<String>,
}

pub(super) async fn run(client: &Client, args: RunArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let login = match &args.registry_user {
        Some(user) => Some(json!({"username": user, "password": password()?})),
        None => None,
    };
    let mut wish = wish(args);
    if let Some(login) = login {
        wish["registry"] = login;
    }
    let service: Value = client.submit(&wish).await?;
    if format == Format::Json {
        return Ok(output::json(&service)?);
    }
    let pods = service["pods"].as_array().map_or(0, Vec::len);
    let name = list::full_name(&service);
    let hint = list::ps_hint(&service);
    let lines = format!("service {name} is submitted, its pods: {pods}\nsee them with: {hint}");
    Ok(output::text(&lines)?)
}

/// The first line of standard input: what is typed on a command line is seen by others.
pub(super) fn password() -> Result<String, CliError> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(CliError::Password)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CliError::NoPassword);
    }
    Ok(password.to_owned())
}
