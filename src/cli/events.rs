//! `leet events`: what happened, and what is happening, a line each.

use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::output::{self, Format, OutputArgs, OutputError};
use super::table::{on_one_line, time_of};
use crate::client::{Client, with_query};
use crate::model::{Event, ServiceKey, Subject};

pub(super) const EXAMPLES: &str = "Examples:
  leet events
  leet events -f --service web
  leet events --kind failed --tail 10
  leet events -f -o json | jq -r '.kind'";

/// Arguments of `leet events`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only events of this service and its pods
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only events of services of this namespace and their pods
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only events of this pod
    #[arg(long, value_name = "ID")]
    pod: Option<String>,
    /// Only events of this node and of pods on it
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only events of this kind, such as failed or node-lost
    #[arg(long)]
    kind: Option<String>,
    /// How many of the last events
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1000))]
    tail: u32,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    earlier: Option<String>,
}

/// What `reset` says.
#[derive(Deserialize)]
struct Reset {
    reason: String,
    asked: String,
    oldest: String,
}

pub(super) async fn events(client: &Client, args: EventsArgs) -> Result<(), CliError> {
    let filters = [
        ("service", args.service.as_deref()),
        ("namespace", args.namespace.as_deref()),
        ("pod", args.pod.as_deref()),
        ("node", args.node.as_deref()),
        ("kind", args.kind.as_deref()),
    ];
    let format = args.output.output;
    if args.follow {
        let tail = args.tail.to_string();
        let mut parameters = filters.to_vec();
        parameters.push(("tail", Some(tail.as_str())));
        return follow(client, &with_query("/v1/events", &parameters), format).await;
    }
    let items = last(client, &filters, args.tail).await?;
    if format == Format::Json {
        return Ok(output::json(&items)?);
    }
    for item in &items {
        output::text(&line(&known(item)?))?;
    }
    Ok(())
}

/// The last events, however far back they are.
pub(super) async fn last(
    client: &Client,
    filters: &[(&str, Option<&str>)],
    count: u32,
) -> Result<Vec<Value>, CliError> {
    let mut found: Vec<Value> = Vec::new();
    let mut until: Option<String> = None;
    loop {
        let left = usize::try_from(count).map_or(0, |count| count.saturating_sub(found.len()));
        if left == 0 {
            return Ok(found);
        }
        let left = left.to_string();
        let mut parameters = filters.to_vec();
        parameters.push(("limit", Some(left.as_str())));
        parameters.push(("until", until.as_deref()));
        let mut page: Page = client.get(&with_query("/v1/events", &parameters)).await?;
        page.items.append(&mut found);
        found = page.items;
        match page.earlier {
            Some(earlier) => until = Some(earlier),
            None => return Ok(found),
        }
    }
}

async fn follow(client: &Client, path: &str, format: Format) -> Result<(), CliError> {
    let mut stream = client.follow(path);
    loop {
        let event = stream.next().await?;
        match event.event.as_str() {
            "event" if format == Format::Json => output::text(&event.data)?,
            "event" => output::text(&line(&read(&event.data)?))?,
            "reset" => {
                let Reset {
                    reason,
                    asked,
                    oldest,
                } = read(&event.data)?;
                let said = format!("events behind {asked} are missing, up to {oldest}: {reason}");
                output::complain(&said);
            }
            _ => {} // of a newer API
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(data: &str) -> Result<T, OutputError> {
    serde_json::from_str(data).map_err(OutputError::Unknown)
}

pub(super) fn known(item: &Value) -> Result<Event, OutputError> {
    Event::deserialize(item).map_err(OutputError::Unknown)
}

/// An event on one line: when, what, to whom, by whom and why.
pub(super) fn line(event: &Event) -> String {
    let service = event.service.as_deref().unwrap_or_default();
    let default = format!("{}/", ServiceKey::DEFAULT_NAMESPACE);
    let service = service.strip_prefix(&default).unwrap_or(service);
    let subject = match (event.subject, &event.pod) {
        (Subject::Pod, Some(pod)) if service.is_empty() => format!("pod {pod}"),
        (Subject::Pod, Some(pod)) => format!("pod {pod} of {service}"),
        (Subject::Service, _) => format!("service {service}"),
        (Subject::Node, _) => format!("node {}", event.node.as_deref().unwrap_or_default()),
        _ => format!("key {}", event.key.as_deref().unwrap_or_default()),
    };
    // An agent is known by its node.
    let by = match &event.node {
        Some(node) if event.by == "agent" && event.subject != Subject::Node => node,
        _ => &event.by,
    };
    let time = time_of(event.when_ms);
    let line = format!("{time}  {:<12}  {subject:<32}  {by}", event.kind);
    let reason = event.reason.trim();
    if reason.is_empty() {
        on_one_line(&line)
    } else {
        on_one_line(&format!("{line}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_say_when_what_to_whom_by_whom_and_why() {
        for (event, expected) in [
            (
                json!({"kind": "failed", "by": "agent", "subject": "pod", "pod": "abc-0", "node": "n1",
                    "service": "default/web", "namespace": "default", "reason": "exited\nwith code 3"}),
                "2025-01-01 00:00:00.007  failed        pod abc-0 of web                  n1: exited with code 3",
            ),
            (
                json!({"kind": "node-lost", "by": "sweep", "subject": "node", "node": "n1", "reason": "x"}),
                "2025-01-01 00:00:00.007  node-lost     node n1                           sweep: x",
            ),
            (
                json!({"kind": "service-deleted", "by": "user", "subject": "service", "service": "a/b",
                    "namespace": "a", "reason": ""}),
                "2025-01-01 00:00:00.007  service-deleted  service a/b                       user",
            ),
        ] {
            let mut event = event;
            event["id"] = json!("1-0.1");
            event["when_ms"] = json!(1_735_689_600_007_u64);
            assert_eq!(line(&known(&event).unwrap()), expected);
        }
    }
}
