//! The engine's stream of events.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Answer, parameter, streamed};
use super::clock::wall_ns;
use super::journal::Made;
use super::machine::Machine;

/// Something that happened to a container.
pub(super) struct Event {
    at_ns: i64,
    action: &'static str,
    container: String,
    attributes: BTreeMap<String, String>,
}

impl Event {
    /// What happened to `made`, with more attributes than its labels.
    pub(super) fn of(
        made: &Made,
        action: &'static str,
        more: impl IntoIterator<Item = (String, String)>,
    ) -> Event {
        let mut attributes = made.labels();
        attributes.insert("name".to_owned(), made.name.clone());
        attributes.insert("image".to_owned(), made.image());
        attributes.extend(more);
        let container = made.id.clone();
        Event {
            at_ns: wall_ns(),
            action,
            container,
            attributes,
        }
    }

    fn line(&self) -> Bytes {
        let told = json!({
            "Type": "container", "Action": self.action, "scope": "local",
            "status": self.action, "id": self.container,
            "Actor": {"ID": self.container, "Attributes": self.attributes},
            "time": self.at_ns / 1_000_000_000, "timeNano": self.at_ns,
        });
        Bytes::from(format!("{told}\n"))
    }

    fn passes(&self, filters: &Filters) -> bool {
        let among =
            |wanted: &[String], is: &str| wanted.is_empty() || wanted.iter().any(|it| it == is);
        among(&filters.kinds, "container")
            && among(&filters.actions, self.action)
            && has_labels(&self.attributes, &filters.labels)
    }
}

/// What a query wants to see.
#[derive(Default)]
pub(super) struct Filters {
    kinds: Vec<String>,
    actions: Vec<String>,
    /// `name` or `name=value` each, all of which must hold.
    pub(super) labels: Vec<String>,
    pub(super) statuses: Vec<String>,
    pub(super) names: Vec<String>,
}

impl Filters {
    /// Those of a query, in either of the two forms that Docker has taken over the years.
    pub(super) fn of(query: &str) -> Filters {
        let text = parameter(query, "filters").unwrap_or_default();
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        let words = |name: &str| match &told[name] {
            Value::Array(items) => items
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            Value::Object(items) => items.keys().cloned().collect(),
            _ => Vec::new(),
        };
        Filters {
            kinds: words("type"),
            actions: words("event"),
            labels: words("label"),
            statuses: words("status"),
            names: words("name"),
        }
    }
}

/// Whether all wanted labels are there.
pub(super) fn has_labels(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|is| is == value),
        None => labels.contains_key(wanted),
    })
}

/// Events since a time, and those to come until another, if one is named.
pub(super) fn subscribe(machine: &Arc<Machine>, query: &str) -> Answer {
    let since = parameter(query, "since").and_then(|since| nanos(&since));
    let until = parameter(query, "until").and_then(|until| nanos(&until));
    let filters = Filters::of(query);
    let (sender, mut events) = mpsc::unbounded_channel();
    // Under one lock: nothing falls between what is past and what is to come.
    let mut inner = machine.inner();
    for event in inner
        .events
        .iter()
        .filter(|event| since.is_some_and(|since| event.at_ns >= since))
    {
        let _ = sender.send(event.clone());
    }
    inner.listeners.push(sender);
    drop(inner);
    let (out, pieces) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let left = until.map(|until| u64::try_from(until - wall_ns()).unwrap_or(0));
            let event = tokio::select! {
                event = events.recv() => event,
                () = pause(left) => None,
                () = out.closed() => None,
            };
            let Some(event) = event else { return };
            if event.passes(&filters) && out.send(event.line()).is_err() {
                return;
            }
        }
    });
    streamed("application/json", pieces)
}

async fn pause(nanos: Option<u64>) {
    match nanos {
        Some(nanos) => tokio::time::sleep(std::time::Duration::from_nanos(nanos)).await,
        None => std::future::pending().await,
    }
}

/// Nanoseconds of `seconds.fraction`.
fn nanos(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)? + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_queries_are_read() {
        assert_eq!(nanos("3.5"), Some(3_500_000_000));
        assert_eq!(
            nanos("1795170549.000000007"),
            Some(1_795_170_549_000_000_007)
        );
        assert_eq!(nanos("7"), Some(7_000_000_000));
        assert_eq!(nanos("x"), None);
    }

    #[test]
    fn all_labels_must_hold() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let has = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|it| (*it).to_owned()).collect();
            has_labels(&labels, &wanted)
        };
        assert!(has(&[]) && has(&["a"]) && has(&["a=1"]));
        assert!(!has(&["a=2"]) && !has(&["a=1", "b"]));
    }
}
