//! The truth of a real engine: what `docker events` tells, written as the played engines write theirs.
//!
//! Agents that share one engine are told apart by the label `kubeleet.node`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::logs::{Deed, Did, now_ns, write_line};

/// Time until an engine that is away is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Records for ever into the folder of a run what happens on `nodes`, or on all if none is named. An engine that goes away is asked again from where it
/// broke off, as far back as it remembers.
///
/// # Errors
/// `docker` cannot be run, or the folder cannot be written.
pub fn record(dir: &Path, nodes: &[String]) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut last_ns = wall_ns();
    let mut told: Vec<(i64, String, Did)> = Vec::new();
    loop {
        let since = format!("{}.{:09}", last_ns / 1_000_000_000, last_ns % 1_000_000_000);
        let mut child = Command::new("docker")
            .args(["events", "--format", "{{json .}}", "--since", &since])
            .args([
                "--filter",
                "type=container",
                "--filter",
                "label=orchestrator=kubeleet",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take();
        for line in out.into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let Some((at_ns, deed)) = deed_of(&line?) else {
                continue;
            };
            if !nodes.is_empty() && !nodes.contains(&deed.node) {
                continue;
            }
            let mark = (at_ns, deed.container.clone(), deed.did);
            // The moment at which it broke off is told twice.
            if told.contains(&mark) {
                continue;
            }
            if at_ns > last_ns {
                told.clear();
                last_ns = at_ns;
            }
            told.push(mark);
            write_line(&dir.join(format!("engine-{}.jsonl", deed.node)), &deed)?;
        }
        child.wait()?;
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "between two tries of a program that does nothing else"
)]
fn pause() {
    std::thread::sleep(AGAIN);
}

fn wall_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// An event as a deed, and its time by the wall clock; nothing if it changes no life.
fn deed_of(line: &str) -> Option<(i64, Deed)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let did = match event["Action"].as_str()? {
        "create" => Did::Created,
        "start" => Did::Started,
        "die" => Did::Ended,
        "destroy" => Did::Removed,
        _ => return None,
    };
    let attributes = event["Actor"]["Attributes"].as_object()?;
    let labels: BTreeMap<String, String> = attributes
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let at_ns = event["timeNano"].as_i64()?;
    let age_ns = u64::try_from(wall_ns().saturating_sub(at_ns)).unwrap_or(0);
    let deed = Deed {
        at_ns: now_ns().saturating_sub(age_ns),
        node: labels.get("kubeleet.node")?.clone(),
        did,
        container: event["Actor"]["ID"].as_str()?.to_owned(),
        labels,
        env: Vec::new(),
    };
    Some((at_ns, deed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_an_engine_are_deeds() {
        let line = |action: &str| {
            let attributes = r#"{"kubeleet.node":"n1","kubeleet.pod":"a-0","orchestrator":"kubeleet","name":"web"}"#;
            format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"c1","Attributes":{attributes}}},"timeNano":{}}}"#,
                wall_ns()
            )
        };
        let (_, deed) = deed_of(&line("die")).unwrap();
        assert_eq!(
            (deed.did, deed.node.as_str(), deed.container.as_str()),
            (Did::Ended, "n1", "c1")
        );
        assert_eq!(deed.labels["kubeleet.pod"], "a-0");
        assert!(now_ns() - deed.at_ns < 1_000_000_000);
        assert!(deed_of(&line("exec_start: sh")).is_none());
        assert!(deed_of("half a li").is_none());
    }
}
