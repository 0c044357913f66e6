//! `leet run`: keeps containers of an image running. The API judges the values.

use serde_json::{Map, Value, json};

use super::output::{self, Format, OutputArgs};
use super::{CliError, list};
use crate::client::Client;
use crate::model::name::NAME_MAX;

pub(super) const EXAMPLES: &str = "Examples:
  leet run nginx --replicas 3 --port 80
  leet run registry.example:5000/team/app:1.2 --name app --env MODE=live --memory 256Mi --cpu 0.5
  leet run alpine --name sleeper -- sleep 1000

The same command again changes nothing.";

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
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A label of the containers; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
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
    /// Which queue they wait in
    #[arg(long, value_parser = ["high", "normal", "low"])]
    priority: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    /// Program to run instead of the image's, and its arguments
    #[arg(last = true, value_name = "CMD ARGS")]
    command: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is needed".to_owned()),
    }
}

pub(super) async fn run(client: &Client, args: RunArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let service: Value = client.submit(&wish(args)).await?;
    if format == Format::Json {
        return Ok(output::json(&service)?);
    }
    let pods = service["pods"].as_array().map_or(0, Vec::len);
    let name = list::full_name(&service);
    let hint = list::ps_hint(&service);
    let lines = format!("service {name} is submitted, its pods: {pods}\nsee them with: {hint}");
    Ok(output::text(&lines)?)
}

/// The body of the request; what was not said is left to the API's defaults.
fn wish(args: RunArgs) -> Value {
    let name = args.name.unwrap_or_else(|| name_of(&args.image));
    let mut wish = Map::new();
    let mut set = |key: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !empty {
            wish.insert(key.to_owned(), value);
        }
    };
    let mut command = args.command.into_iter();
    let mut resources = Map::new();
    resources.extend(args.cpu.map(|cpu| ("cpu".to_owned(), cpu.into())));
    resources.extend(
        args.memory
            .map(|memory| ("memory".to_owned(), memory.into())),
    );
    let object = |pairs: Vec<(String, String)>| -> Value {
        let pairs = pairs.into_iter().map(|(name, value)| (name, value.into()));
        Value::Object(pairs.collect())
    };
    set("name", name.into());
    set("image", args.image.into());
    set("replicas", args.replicas.into());
    set("namespace", json!(args.namespace));
    set("env", object(args.env));
    set("labels", object(args.label));
    set("ports", json!(args.port));
    set("resources", resources.into());
    set("priority", json!(args.priority));
    set("command", command.next().into_iter().collect());
    set("args", command.collect());
    Value::Object(wish)
}

/// The last part of the image's path, made into a name.
fn name_of(image: &str) -> String {
    let path = image.split('@').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = last.split(':').next().unwrap_or_default();
    let name: String = last
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_MAX)
        .collect();
    let name = name.trim_matches('-');
    // An image that has no such part is refused by the API for what it is.
    if name.is_empty() { "service" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Whole {
        #[command(flatten)]
        args: RunArgs,
    }

    #[test]
    fn names_are_made_from_images() {
        let long = "a".repeat(80);
        for (image, name) in [
            ("nginx", "nginx"),
            ("spaster/alpine-sleep", "alpine-sleep"),
            ("host:5000/team/My_App.web:1.2@sha256:00", "my-app-web"),
            ("_x_", "x"),
            ("::", "service"),
            (long.as_str(), &long[..63]),
        ] {
            assert_eq!(name_of(image), name);
        }
    }

    #[test]
    fn the_body_holds_what_was_said_and_nothing_else() {
        let least = Whole::parse_from(["run", "nginx"]);
        let expected = json!({"name": "nginx", "image": "nginx", "replicas": 1});
        assert_eq!(wish(least.args), expected);
        let all = Whole::parse_from([
            "run",
            "b/c:1",
            "--name",
            "n",
            "--replicas",
            "3",
            "--namespace",
            "s",
            "--env",
            "K=V=W",
            "--label",
            "l=",
            "--port",
            "80",
            "--port",
            "1:2/udp",
            "--cpu",
            "500m",
            "--memory",
            "64Mi",
            "--priority",
            "low",
            "--",
            "sleep",
            "-x",
            "1",
        ]);
        let expected = json!({
            "name": "n", "image": "b/c:1", "replicas": 3, "namespace": "s", "env": {"K": "V=W"},
            "labels": {"l": ""}, "ports": ["80", "1:2/udp"], "priority": "low",
            "resources": {"cpu": "500m", "memory": "64Mi"}, "command": ["sleep"], "args": ["-x", "1"],
        });
        assert_eq!(wish(all.args), expected);
    }
}
