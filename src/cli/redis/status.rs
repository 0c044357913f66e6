//! `leet redis status`: how the Redis stands, and what is unsafe.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::WhereArgs;
use crate::cli::output::{self, Format, OutputArgs, OutputError};
use crate::cli::table::{age, bytes, on_one_line, table};
use crate::store::survey::{Facts, Finding, Sentinel, Server};

/// Arguments of `leet redis status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    at: WhereArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What scripts are given.
#[derive(Serialize)]
struct Report<'a> {
    is_safe: bool,
    #[serde(flatten)]
    facts: &'a Facts,
    findings: &'a [Finding],
}

pub(super) async fn status(args: StatusArgs) -> anyhow::Result<()> {
    let settings = args.at.settings()?;
    let lease = settings.heartbeat.lease;
    let facts = Facts::read(&settings.redis, &settings.key_prefix, lease).await?;
    let findings = facts.findings();
    let worse = findings.iter().filter(|one| one.is_unsafe()).count();
    let shown = match args.output.output {
        Format::Json => output::json(&Report {
            is_safe: worse == 0,
            facts: &facts,
            findings: &findings,
        }),
        Format::Table => output::text(&text(&facts, &findings)),
    };
    match shown {
        Err(OutputError::Closed) | Ok(()) => {}
        Err(error) => return Err(error.into()),
    }
    anyhow::ensure!(
        worse == 0,
        "not safe: {worse} of {} findings",
        findings.len()
    );
    Ok(())
}

/// All of it for people.
fn text(facts: &Facts, findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{}", head(facts));
    if !facts.servers.is_empty() {
        let header = [
            "SERVER", "ROLE", "VERSION", "UP", "MEMORY", "AOF", "OFFSET", "LAG", "CLIENTS", "OPS/S",
        ];
        let rows = facts.servers.iter().map(|server| row(facts, server));
        let _ = writeln!(text, "\n{}", table(&header, rows.collect()));
    }
    if facts.by_sentinel {
        let header = [
            "SENTINEL",
            "MASTER",
            "FLAGS",
            "QUORUM",
            "KNOWS",
            "DOWN AFTER",
            "FAIL-OVER",
        ];
        let rows = facts.sentinels.iter().map(sentinel_row).collect();
        let _ = writeln!(text, "\n{}", table(&header, rows));
    }
    if findings.is_empty() {
        text.push_str("\nnothing unsafe was found");
        return text;
    }
    for finding in findings {
        let (severity, code) = (finding.severity.as_str(), finding.code);
        let at = if finding.at.is_empty() { "" } else { " at " };
        let (place, what) = (on_one_line(&finding.at), on_one_line(&finding.what));
        let place = if finding.at.is_empty() { "" } else { &place };
        let _ = write!(
            text,
            "\n{severity}: {code}{at}{place}: {what}\n    remedy: {}",
            finding.remedy
        );
    }
    text
}

fn head(facts: &Facts) -> String {
    let master = facts.master.as_deref().unwrap_or("nobody knows");
    let told = facts.sentinels.iter().filter_map(|one| one.facts.as_ref());
    let agree = told.filter(|told| Some(&told.master) == facts.master.as_ref());
    let by = if facts.by_sentinel {
        format!(
            ", as {} of {} Sentinels say of {}",
            agree.count(),
            facts.sentinels.len(),
            facts.master_name
        )
    } else {
        String::new()
    };
    let cluster = match &facts.cluster {
        Some(cluster) => {
            let functions = match cluster.functions {
                Some(version) => format!("version {version}"),
                None => "not loaded".to_owned(),
            };
            format!(
                "{}; functions {functions} (this program {}); {} agents heard, {} not",
                cluster.id.as_deref().unwrap_or("none yet"),
                cluster.functions_here,
                cluster.agents,
                cluster.agents_silent
            )
        }
        None => "cannot be asked".to_owned(),
    };
    format!("master   {master}{by}\ncluster  {cluster}")
}

fn row(facts: &Facts, server: &Server) -> Vec<String> {
    let Some(told) = &server.facts else {
        let mut row = vec![server.address.clone(), "away".to_owned()];
        row.resize(10, String::new());
        return row;
    };
    let role = match told.role.as_str() {
        "slave" => "replica",
        role => role,
    };
    let most = match told.memory_max_bytes {
        0 => String::new(),
        most => format!("/{}", bytes(most)),
    };
    let aof = match (told.aof, &told.appendfsync) {
        (false, _) => "no".to_owned(),
        (true, Some(when)) => when.clone(),
        (true, None) => "yes".to_owned(),
    };
    let links = facts.master().map(|master| master.replicas.as_slice());
    let link = links.and_then(|links| links.iter().find(|one| one.address == server.address));
    let lag = match (link, facts.master()) {
        (Some(link), Some(master)) => {
            let behind = master.offset.saturating_sub(link.offset);
            format!("{}, {}s", bytes(behind), link.lag_s)
        }
        _ => String::new(),
    };
    vec![
        server.address.clone(),
        role.to_owned(),
        format!("{} {}", told.software, told.version),
        age(Duration::from_secs(told.uptime_s)),
        format!("{}{most}", bytes(told.memory_used_bytes)),
        aof,
        told.offset.to_string(),
        lag,
        told.clients.to_string(),
        told.commands_per_s.to_string(),
    ]
}

fn sentinel_row(sentinel: &Sentinel) -> Vec<String> {
    let Some(told) = &sentinel.facts else {
        let mut row = vec![sentinel.address.clone(), "away".to_owned()];
        row.resize(7, String::new());
        return row;
    };
    vec![
        sentinel.address.clone(),
        told.master.clone(),
        told.flags.clone(),
        told.quorum.to_string(),
        format!(
            "{} replicas, {} Sentinels",
            told.replicas.len(),
            told.others.len()
        ),
        format!("{}ms", told.down_after_ms),
        format!("{}ms", told.failover_timeout_ms),
    ]
}
