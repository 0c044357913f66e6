//! `leet describe`: all there is to say of a pod, a service or a node, and how it came to be so.
//!
//! Facts are shown as the API gives them, those that this version does not know too.

use serde_json::{Map, Value, json};

use super::output::{self, Format, OutputArgs};
use super::table::{age_of, bytes, cores, on_one_line, table, time_of};
use super::{CliError, events};
use crate::client::{Client, ClientError, escape, with_query};
use crate::model::ServiceKey;

pub(super) const EXAMPLES: &str = "Examples:
  leet describe pod 7h2k9m4xq0ws-0
  leet describe service web
  leet describe node node1 -o json";

/// Most events shown.
const EVENTS_SHOWN: u32 = 50;
/// Times since 1970 in milliseconds are larger, durations smaller: this one was in 2001.
const MOMENT_MIN_MS: u64 = 1_000_000_000_000;

/// Arguments of `leet describe`.
#[derive(Debug, clap::Args)]
pub(super) struct DescribeArgs {
    /// What it is
    #[arg(value_enum)]
    what: What,
    /// Id of the pod, or name of the service or node
    name: String,
    /// Namespace of the service [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// A pod
    Pod,
    /// A service and its pods
    Service,
    /// A node and its pods
    Node,
}

/// All that is said: sections for people, the answers themselves for scripts.
#[derive(Default)]
struct Said {
    sections: Vec<String>,
    answers: Map<String, Value>,
}

pub(super) async fn describe(client: &Client, args: DescribeArgs) -> Result<(), CliError> {
    let mut said = Said::default();
    let (name, namespace) = (&args.name, args.namespace.as_deref());
    let gone = match args.what {
        What::Pod => pod(client, name, &mut said).await?,
        What::Service => service(client, name, namespace, &mut said).await?,
        What::Node => node(client, name, &mut said).await?,
    };
    if args.output.output == Format::Json {
        output::json(&said.answers)?;
    } else {
        output::text(&said.sections.join("\n\n"))?;
    }
    // What is gone is explained by its events, and still not there.
    gone.map_or(Ok(()), |problem| Err(problem.into()))
}

async fn pod(client: &Client, id: &str, said: &mut Said) -> Result<Option<ClientError>, CliError> {
    let path = format!("/v1/pods/{}", escape(id));
    let (pod, gone) = found(client.get(&path).await)?;
    let first = [
        "phase",
        "desired",
        "reason",
        "exit_code",
        "restarts",
        "health",
        "ready",
        "service",
        "replica",
        "revision",
        "image",
        "node",
        "attempt",
        "container",
    ];
    said.facts(&format!("Pod {id}"), "pod", &pod, &first, &["id"]);
    if let Some(owner) = pod["service"].as_str().and_then(ServiceKey::parse) {
        let path = format!("/v1/services/{}", escape(&owner.name));
        let path = with_query(&path, &[("namespace", Some(owner.namespace.as_str()))]);
        let (service, _) = found(client.get(&path).await)?;
        let title = format!("Spec of {owner}, revision {}", service["revision"]);
        said.spec(&title, &service);
        said.answers.insert("service".to_owned(), service);
    }
    said.events(client, &[("pod", Some(id))], gone).await
}

async fn service(
    client: &Client,
    name: &str,
    namespace: Option<&str>,
    said: &mut Said,
) -> Result<Option<ClientError>, CliError> {
    let path = format!("/v1/services/{}", escape(name));
    let of = [("namespace", namespace)];
    let (service, gone) = found(client.get(&with_query(&path, &of)).await)?;
    let first = ["namespace", "running", "replicas", "revision", "deleting"];
    let title = format!("Service {name}");
    said.facts(&title, "service", &service, &first, &["name", "spec"]);
    said.spec("Spec", &service);
    let path = format!("{path}/revisions");
    let (revisions, _) = found(client.get(&with_query(&path, &of)).await)?;
    said.revisions(revisions);
    let of = [("service", Some(name)), ("namespace", namespace)];
    if gone.is_none() {
        let pods = client.all("/v1/pods", &of).await?;
        said.pods(pods, &["replica", "node", "revision"]);
    }
    said.events(client, &of, gone).await
}

async fn node(
    client: &Client,
    name: &str,
    said: &mut Said,
) -> Result<Option<ClientError>, CliError> {
    let path = format!("/v1/nodes/{}", escape(name));
    let (node, gone) = found(client.get(&path).await)?;
    let first = ["state", "heartbeat_age_ms", "pods", "capacity"];
    said.facts(&format!("Node {name}"), "node", &node, &first, &["name"]);
    let of = [("node", Some(name))];
    if gone.is_none() {
        let pods = client.all("/v1/pods", &of).await?;
        said.pods(pods, &["service", "replica"]);
    }
    said.events(client, &of, gone).await
}

/// The answer; of what is not there the problem.
fn found(answer: Result<Value, ClientError>) -> Result<(Value, Option<ClientError>), ClientError> {
    match answer {
        Ok(answer) => Ok((answer, None)),
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            Ok((Value::Null, Some(ClientError::Refused(problem))))
        }
        Err(error) => Err(error),
    }
}

impl Said {
    /// What an answer says, `first` before the rest, without `hidden`.
    fn facts(&mut self, title: &str, name: &str, answer: &Value, first: &[&str], hidden: &[&str]) {
        let mut rows = Vec::new();
        let fields = answer.as_object();
        for key in first {
            if let Some(value) = fields.and_then(|fields| fields.get(*key)) {
                flatten(key, value, &mut rows);
            }
        }
        let rest = fields.into_iter().flatten();
        for (key, value) in rest.filter(|(key, _)| !is_in(first, key) && !is_in(hidden, key)) {
            flatten(key, value, &mut rows);
        }
        self.section(title, &rows);
        self.answers.insert(name.to_owned(), answer.clone());
    }

    fn spec(&mut self, title: &str, service: &Value) {
        let mut rows = Vec::new();
        let fields = service["spec"].as_object().into_iter().flatten();
        for (key, value) in fields.filter(|(key, _)| !is_in(&["name", "namespace"], key)) {
            flatten(key, value, &mut rows);
        }
        if !rows.is_empty() {
            self.section(title, &rows);
        }
    }

    /// Which revisions are kept, and when each was made.
    fn revisions(&mut self, mut answer: Value) {
        let items = answer["items"].take();
        let kept = items.as_array().map_or(&[][..], Vec::as_slice);
        let row = |revision: &Value| {
            let created = revision["created_ms"].as_u64().unwrap_or_default();
            let image = text(&revision["spec"]["image"]);
            let when = amount("created_ms", created);
            (text(&revision["revision"]), format!("{image}  {when}"))
        };
        let rows: Vec<(String, String)> = kept.iter().map(row).collect();
        if !rows.is_empty() {
            self.section(&format!("Revisions: {} are kept", rows.len()), &rows);
            self.answers.insert("revisions".to_owned(), items);
        }
    }

    fn section(&mut self, title: &str, rows: &[(String, String)]) {
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut section = title.to_owned();
        for (name, value) in rows {
            section.push_str(&format!("\n  {name:<width$}  {}", on_one_line(value)));
        }
        self.sections.push(section);
    }

    fn pods(&mut self, pods: Vec<Value>, more: &[&str]) {
        let mut counts: Vec<(String, usize)> = Vec::new();
        let mut rows = Vec::new();
        for pod in &pods {
            let phase = phase_of(pod);
            match counts.iter_mut().find(|(known, _)| *known == phase) {
                Some((_, count)) => *count += 1,
                None => counts.push((phase.clone(), 1)),
            }
            let changed = pod["changed_ms"].as_u64().unwrap_or_default();
            let mut row = vec![text(&pod["id"])];
            row.extend(more.iter().map(|field| text(&pod[*field])));
            row.extend([phase, age_of(changed), text(&pod["reason"])]);
            rows.push(row);
        }
        let counts = counts.iter();
        let counts: Vec<String> = counts
            .map(|(phase, count)| format!("{count} {phase}"))
            .collect();
        let mut section = match pods.len() {
            0 => "Pods: none".to_owned(),
            all => format!("Pods: {all}, {}", counts.join(", ")),
        };
        if !rows.is_empty() {
            let upper: Vec<String> = more.iter().map(|field| field.to_uppercase()).collect();
            let mut header = vec!["POD"];
            header.extend(upper.iter().map(String::as_str));
            header.extend(["PHASE", "SINCE", "REASON"]);
            section.push_str(&indented(&table(&header, rows)));
        }
        self.sections.push(section);
        self.answers.insert("pods".to_owned(), Value::Array(pods));
    }

    /// The last events; without any, what is gone is no more than a problem.
    async fn events(
        &mut self,
        client: &Client,
        of: &[(&str, Option<&str>)],
        gone: Option<ClientError>,
    ) -> Result<Option<ClientError>, CliError> {
        let items = events::last(client, of, EVENTS_SHOWN).await?;
        let gone = match gone {
            Some(gone) if items.is_empty() => return Err(gone.into()),
            gone => gone,
        };
        let mut section = match items.len() {
            0 => "Events: none are kept".to_owned(),
            _ => "Events".to_owned(),
        };
        for item in &items {
            section.push_str(&format!("\n  {}", events::line(&events::known(item)?)));
        }
        self.sections.push(section);
        self.answers.insert("events".to_owned(), json!(items));
        Ok(gone)
    }
}

fn is_in(keys: &[&str], key: &str) -> bool {
    keys.contains(&key)
}

fn phase_of(pod: &Value) -> String {
    match pod["desired"].as_str() {
        Some("stop") => "stopping".to_owned(),
        _ => text(&pod["phase"]),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("\n  {line}")).collect()
}

/// A value as a person reads it, one row for each that is none of several.
fn flatten(key: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (inner, value) in fields {
                flatten(&format!("{key}.{inner}"), value, rows);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(text).collect();
            rows.push((words(key), items.join(" ")));
        }
        Value::Number(number) => {
            let shown = number
                .as_u64()
                .map_or_else(|| number.to_string(), |n| amount(key, n));
            rows.push((words(key), shown));
        }
        value => rows.push((words(key), text(value))),
    }
}

/// The unit stands in the value.
fn words(key: &str) -> String {
    let units = ["_ms", "_bytes", "_millis"];
    let plain = units.iter().find_map(|unit| key.strip_suffix(unit));
    plain.unwrap_or(key).replace('_', " ")
}

fn amount(key: &str, number: u64) -> String {
    if key.ends_with("_bytes") || key.ends_with(".disk") {
        bytes(number)
    } else if key.ends_with("_millis") {
        cores(number)
    } else if key.ends_with("_ms") && number >= MOMENT_MIN_MS {
        format!("{} ({} ago)", time_of(number), age_of(number))
    } else if key.ends_with("_ms") {
        format!("{number} ms")
    } else {
        number.to_string()
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_shown_known_or_not() {
        let pod = json!({
            "id": "a-0", "phase": "running", "restarts": 2, "created_ms": 1_735_689_600_007_u64,
            "health": {"state": "ok", "failures": 0}, "ports": [{"container": 80}], "args": ["a", "b"],
            "wait_ms": 5, "memory_bytes": 1024, "cpu_millis": 500, "none": null, "empty": [],
        });
        let mut said = Said::default();
        said.facts("Pod a-0", "pod", &pod, &["phase", "absent"], &["id"]);
        let lines: Vec<&str> = said.sections[0].lines().collect();
        assert_eq!(lines[..2], ["Pod a-0", "  phase            running"]);
        for line in [
            "  args             a b",
            "  cpu              0.5",
            "  memory           1KiB",
            "  wait             5 ms",
            "  restarts         2",
            "  health.state     ok",
            "  health.failures  0",
            "  ports            {\"container\":80}",
        ] {
            assert!(lines.contains(&line), "{line}: {lines:#?}");
        }
        let created = lines.iter().find(|line| line.contains("created"));
        assert!(created.unwrap().contains("2025-01-01 00:00:00.007 ("));
        assert_eq!(lines.len(), 11);
    }
}
