//! `leet logs`: the lines of a pod, or of all pods of a service.

use std::io::{ErrorKind, Write as _};

use super::CliError;
use super::output::{self, Format, OutputArgs, OutputError};
use crate::client::{Client, ClientError, Lines, escape, with_query};
use crate::model::LogItem;
use crate::model::name::is_name;

pub(super) const EXAMPLES: &str = "Examples:
  leet logs web                           all lines of all pods of the service
  leet logs -f --tail 10 web              the last ten of each, and what comes
  leet logs --since 10m 7h2k9m4xq0ws-0    of one pod, also for a day after it is gone
  leet logs -f web -o json | jq .line     for scripts";

/// Arguments of `leet logs`.
#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// A service, or the id of a pod
    #[arg(value_name = "SERVICE|POD")]
    name: String,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each pod
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Only lines that are no older: 10m, 2h, or a time such as 2026-11-20T10:00:00Z
    #[arg(long, value_name = "AGE|TIME")]
    since: Option<String>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Namespace of the service [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn logs(client: &Client, args: LogsArgs) -> Result<(), CliError> {
    let (mut lines, shows_pods) = open(client, &args).await?;
    let mut told = 0;
    loop {
        let mut out = Vec::new();
        let is_more = lines.more().await?;
        while let Some(line) = lines.next_line() {
            if args.output.output == Format::Json {
                out.extend_from_slice(line);
                out.push(b'\n');
                continue;
            }
            let item: LogItem = serde_json::from_slice(line).map_err(OutputError::Unknown)?;
            if item.error.is_some() {
                told += 1;
                complain(&item);
                continue;
            }
            show(&mut out, &item, shows_pods, args.timestamps);
        }
        write(&out)?;
        if !is_more {
            break;
        }
    }
    match told {
        0 => Ok(()),
        _ => Err(CliError::LogsCut),
    }
}

/// The lines of the service of that name, or else of the pod; true for a service.
async fn open(client: &Client, args: &LogsArgs) -> Result<(Lines, bool), CliError> {
    let tail = args.tail.map(|tail| tail.to_string());
    let parameters = [
        ("follow", args.follow.then_some("true")),
        ("tail", tail.as_deref()),
        ("since", args.since.as_deref()),
    ];
    let name = escape(&args.name);
    if is_name(&args.name) {
        let mut of_service = parameters.to_vec();
        of_service.push(("namespace", args.namespace.as_deref()));
        let path = with_query(&format!("/v1/services/{name}/logs"), &of_service);
        match client.lines(&path).await {
            Err(ClientError::Refused(problem)) if problem.status == 404 => {}
            other => return Ok((other?, true)),
        }
    }
    let path = with_query(&format!("/v1/pods/{name}/logs"), &parameters);
    match client.lines(&path).await {
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            Err(CliError::NeitherServiceNorPod(args.name.clone()))
        }
        other => Ok((other?, false)),
    }
}

fn show(out: &mut Vec<u8>, item: &LogItem, shows_pods: bool, timestamps: bool) {
    let time = item.time.as_deref().filter(|_| timestamps);
    let pod = item.pod.as_deref().filter(|_| shows_pods);
    // Writing into memory cannot fail.
    for word in time.into_iter().chain(pod) {
        let _ = write!(out, "{word} ");
    }
    out.extend_from_slice(item.line.as_deref().unwrap_or_default().as_bytes());
    out.push(b'\n');
}

fn complain(item: &LogItem) {
    let pod = item.pod.as_ref().map(|pod| format!("pod {pod}: "));
    let why = item.error.as_deref().unwrap_or_default();
    output::complain(&format!("{}{why}", pod.unwrap_or_default()));
}

fn write(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Write(error),
    })
}
