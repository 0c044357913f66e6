//! Events: what happened to pods, services and nodes, and where a reader of them stands.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digits::digits;
use super::{PodId, ServiceKey};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Its position. Whoever gives it back, as `after` or `Last-Event-ID`, gets what came later.
    #[schema(value_type = String)]
    pub id: Position,
    /// When, milliseconds since 1970 by Redis's clock.
    pub when_ms: u64,
    /// What happened: a pod's new phase, or `stopping`, `moving` (off a draining node, or one under
    /// pressure), `staying` (after all), `rebalance-suggested`, `parked`, `ready`, `unready`, `restarted`; else a word that begins with the subject, such as `node-lost`.
    pub kind: String,
    /// Who did it: `user`, `controller`, `scheduler`, `agent`, `sweep`, `recovery`, or `hand`, which
    /// is a person at Redis.
    pub by: String,
    /// To what it happened.
    pub subject: Subject,
    /// The pod it happened to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<PodId>,
    /// The service it happened to, or whose pod that is: `<namespace>/<name>`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// Namespace of that service.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// The node it happened to, or on which.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// The key in Redis it happened to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// Why, in words.
    pub reason: String,
}

/// What an event happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// A node.
    Node,
    /// A key in Redis that a person wrote.
    Key,
}

impl Event {
    /// The words of an event that was given no reason.
    pub fn default_reason(kind: &str, node: Option<&str>) -> String {
        match (kind, node) {
            ("scheduled", Some(node)) => format!("given to {node}"),
            ("starting", Some(node)) => format!("taken by the agent of {node}"),
            ("running", _) => "its container runs".to_owned(),
            ("ready", _) => "it is ready to serve".to_owned(),
            ("unready", _) => "it is not ready to serve".to_owned(),
            ("restarted", _) => "its container was started again".to_owned(),
            ("stopped", _) => "its container is gone".to_owned(),
            _ => String::new(),
        }
    }
}

/// Which events are wanted; all that are given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this service or its pods.
    pub service: Option<ServiceKey>,
    /// Of this pod.
    pub pod: Option<PodId>,
    /// Of this node, or of pods on it.
    pub node: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
}

impl EventFilter {
    /// Whether `event` is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        fn holds(wanted: Option<&str>, found: Option<&str>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let service = self.service.as_ref().map(ServiceKey::to_string);
        holds(self.namespace.as_deref(), event.namespace.as_deref())
            && holds(service.as_deref(), event.service.as_deref())
            && holds(
                self.pod.as_ref().map(PodId::as_str),
                event.pod.as_ref().map(PodId::as_str),
            )
            && holds(self.node.as_deref(), event.node.as_deref())
            && holds(self.kind.as_deref(), Some(&event.kind))
    }
}

/// Id of an entry of the stream of events: Redis's milliseconds and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since 1970 by Redis's clock.
    pub ms: u64,
    /// Which entry of that millisecond.
    pub seq: u64,
}

impl EntryId {
    /// Before every entry: no entry has this id.
    pub const START: EntryId = EntryId { ms: 0, seq: 0 };

    /// Reads `<ms>-<seq>`.
    pub fn parse(text: &str) -> Option<EntryId> {
        let (ms, seq) = text.split_once('-')?;
        Some(EntryId {
            ms: digits(ms)?,
            seq: digits(seq)?,
        })
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Where a reader of events stands: behind some of an entry's events, or all of them.
///
/// As text: `<ms>-<seq>.<passed>`, or `<ms>-<seq>` behind all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The entry.
    pub entry: EntryId,
    /// How many of its events were passed; [`Position::ALL`] is all.
    pub passed: u32,
}

impl Position {
    /// All events of an entry.
    pub const ALL: u32 = u32::MAX;
    /// Before every event.
    pub const START: Position = Position::behind(EntryId::START);
    /// What [`Position::parse`] allows, for messages.
    pub const RULE: &'static str =
        "the id of an event, or another position that this API gave, unchanged";

    /// Behind all of an entry.
    pub const fn behind(entry: EntryId) -> Position {
        Position {
            entry,
            passed: Position::ALL,
        }
    }

    /// Before all of an entry.
    pub const fn before(entry: EntryId) -> Position {
        Position { entry, passed: 0 }
    }

    /// Reads a position.
    pub fn parse(text: &str) -> Option<Position> {
        match text.split_once('.') {
            None => EntryId::parse(text).map(Position::behind),
            Some((entry, passed)) => Some(Position {
                entry: EntryId::parse(entry)?,
                passed: digits(passed)?,
            }),
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.passed {
            Position::ALL => self.entry.fmt(f),
            passed => write!(f, "{}.{passed}", self.entry),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        let text = String::deserialize(deserializer)?;
        Position::parse(&text).ok_or_else(|| serde::de::Error::custom(Position::RULE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back_and_are_ordered() {
        let texts = ["0-0", "5-0.0", "5-0.1", "5-0.99", "5-0", "5-1.0", "12-3"];
        let positions = texts.map(|text| Position::parse(text).unwrap());
        assert_eq!(positions.map(|position| position.to_string()), texts);
        assert!(positions.is_sorted());
        assert_eq!(positions[0], Position::START);
        for bad in [
            "", "5", "5-", "-5", "5-0.", "5-0.x", "5-0.1.2", "+5-0", "5-0 ", "$",
        ] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }
}
