//! `leet ps`, `services`, `nodes` and `queue`: what there is, as tables or as the API's own JSON.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::CliError;
use super::output::{self, Format, OutputArgs, OutputError};
use super::table::{age, age_of, bytes, cores, table};
use crate::client::Client;
use crate::model::node::labels_text;
use crate::model::{Node, Phase, Pod, Pressure, Service, ServiceKey};

pub(super) const PS_EXAMPLES: &str = "Examples:
  leet ps --service web
  leet ps --node node1 --phase running
  leet ps --phase failed -o json";

/// Arguments of `leet ps`.
#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {
    /// Only pods of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only pods on this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Only pods in this phase
    #[arg(long, value_parser = Phase::ALL.map(Phase::as_str))]
    phase: Option<String>,
    /// Only pods of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `leet services`.
#[derive(Debug, clap::Args)]
pub(super) struct ServicesArgs {
    /// Only services of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `leet nodes`.
#[derive(Debug, clap::Args)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `leet queue`.
#[derive(Debug, clap::Args)]
pub(super) struct QueueArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Deserialize)]
struct ServiceItem {
    #[serde(flatten)]
    service: Service,
    running: u32,
}

#[derive(Deserialize)]
struct Queue {
    high: u64,
    normal: u64,
    low: u64,
    claims: u64,
    parked: u64,
    dead: u64,
    dead_letters: Vec<Letter>,
}

#[derive(Deserialize)]
struct Letter {
    entry: String,
    r#where: String,
    why: String,
    when_ms: u64,
}

pub(super) async fn ps(client: &Client, args: PsArgs) -> Result<(), CliError> {
    let parameters = [
        ("service", args.service.as_deref()),
        ("node", args.node.as_deref()),
        ("phase", args.phase.as_deref()),
        ("namespace", args.namespace.as_deref()),
    ];
    let items = client.all("/v1/pods", &parameters).await?;
    let header = [
        "POD", "SERVICE", "IMAGE", "NODE", "PHASE", "READY", "RESTARTS", "SINCE", "PORTS", "REASON",
    ];
    show_list(&args.output, &items, &header, |pod: Pod| {
        let stopping = pod.desired == crate::model::Desired::Stop;
        let phase = if stopping {
            "stopping"
        } else {
            pod.phase.as_str()
        };
        vec![
            pod.id.to_string(),
            pod.service
                .as_deref()
                .map(short_service)
                .unwrap_or_default(),
            pod.image.unwrap_or_default(),
            pod.node.unwrap_or_default(),
            phase.to_owned(),
            if pod.ready { "yes" } else { "no" }.to_owned(),
            pod.restarts.to_string(),
            age_of(pod.changed_ms),
            pod.ports.join(", "),
            pod.reason.unwrap_or_default(),
        ]
    })
}

pub(super) async fn services(client: &Client, args: ServicesArgs) -> Result<(), CliError> {
    let parameters = [("namespace", args.namespace.as_deref())];
    let items = client.all("/v1/services", &parameters).await?;
    let header = [
        "NAMESPACE",
        "NAME",
        "IMAGE",
        "RUNNING",
        "REVISION",
        "AGE",
        "STATE",
    ];
    show_list(&args.output, &items, &header, |item: ServiceItem| {
        let ServiceItem { service, running } = item;
        vec![
            service.namespace,
            service.name,
            service.spec.image,
            format!("{running}/{}", service.replicas),
            service.revision.to_string(),
            age_of(service.created_ms),
            if service.deleting { "deleting" } else { "" }.to_owned(),
        ]
    })
}

pub(super) async fn nodes(client: &Client, args: NodesArgs) -> Result<(), CliError> {
    let items = client.all("/v1/nodes", &[]).await?;
    let header = [
        "NODE", "STATE", "PODS", "CPU", "MEMORY", "PRESSURE", "HEARD", "VERSION", "LABELS",
    ];
    show_list(&args.output, &items, &header, |node: Node| {
        let heard = std::time::Duration::from_millis(node.heartbeat_age_ms);
        let offered = node.capacity;
        vec![
            node.name,
            node.state.as_str().to_owned(),
            format!("{}/{}", node.pods, offered.pods_max),
            format!(
                "{}/{}",
                cores(node.cpu_requested_millis),
                cores(offered.cpu_millis)
            ),
            format!(
                "{}/{}",
                bytes(node.memory_requested_bytes),
                bytes(offered.memory_bytes)
            ),
            pressure(&node.pressure),
            format!("{} ago", age(heard)),
            node.version,
            labels_text(&node.labels),
        ]
    })
}

pub(super) fn pressure(pressure: &Pressure) -> String {
    if !pressure.known {
        return "unknown".to_owned();
    }
    let Pressure {
        cpu_avg10,
        memory_avg10,
        io_avg10,
        ..
    } = pressure;
    format!("cpu {cpu_avg10:.0}% mem {memory_avg10:.0}% io {io_avg10:.0}%")
}

pub(super) async fn queue(client: &Client, args: QueueArgs) -> Result<(), CliError> {
    let answer: Value = client.get("/v1/queue").await?;
    if args.output.output == Format::Json {
        return Ok(output::json(&answer)?);
    }
    let queue: Queue = known(&answer)?;
    let counts = [
        queue.high,
        queue.normal,
        queue.low,
        queue.claims,
        queue.parked,
        queue.dead,
    ];
    let header = ["HIGH", "NORMAL", "LOW", "CLAIMS", "PARKED", "DEAD"];
    let row = counts.iter().map(u64::to_string).collect();
    output::text(&table(&header, vec![row]))?;
    if queue.dead_letters.is_empty() {
        return Ok(());
    }
    let row = |letter: Letter| {
        vec![
            age_of(letter.when_ms),
            letter.r#where,
            letter.why,
            letter.entry.chars().take(ENTRY_SHOWN).collect(),
        ]
    };
    let rows = queue.dead_letters.into_iter().map(row).collect();
    let letters = table(&["DEAD SINCE", "WHERE", "WHY", "ENTRY"], rows);
    Ok(output::text(&format!("\n{letters}"))?)
}

/// Characters of a dead letter's entry in a table; JSON shows more.
const ENTRY_SHOWN: usize = 60;

fn show_list<T: DeserializeOwned>(
    args: &OutputArgs,
    items: &[Value],
    header: &[&str],
    row: impl Fn(T) -> Vec<String>,
) -> Result<(), CliError> {
    if args.output == Format::Json {
        return Ok(output::json(&items)?);
    }
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        rows.push(row(known(item)?));
    }
    Ok(output::text(&table(header, rows))?)
}

pub(super) fn known<T: DeserializeOwned>(answer: &Value) -> Result<T, OutputError> {
    T::deserialize(answer).map_err(OutputError::Unknown)
}

/// A service's key without the namespace that goes without saying.
pub(super) fn short_service(key: &str) -> String {
    let default = format!("{}/", ServiceKey::DEFAULT_NAMESPACE);
    key.strip_prefix(&default).unwrap_or(key).to_owned()
}

/// The name of a service in an answer.
pub(super) fn full_name(service: &Value) -> String {
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
    short_service(&format!("{}/{}", text("namespace"), text("name")))
}

/// How to see its pods.
pub(super) fn ps_hint(service: &Value) -> String {
    format!("leet ps --service {}", full_name(service))
}
