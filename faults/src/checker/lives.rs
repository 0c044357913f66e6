//! The lives of containers: from each start to its end, as the engines tell it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::logs::{Deed, Did};

/// What a service wants done when a node is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Another runs at once; two for a while.
    Replace,
    /// Another runs, and never two.
    StopThenReplace,
    /// It stays where it is.
    Hold,
}

impl Policy {
    /// Never two of a replica.
    pub fn is_strict(self) -> bool {
        self != Policy::Replace
    }
}

/// A run of a container.
#[derive(Clone, Debug)]
pub struct Life {
    /// Where.
    pub node: String,
    /// The container's id.
    pub container: String,
    /// The pod's id.
    pub pod: String,
    /// The placement: attempt and nonce.
    pub token: (u64, String),
    /// `namespace/name`; empty for a pod without one.
    pub service: String,
    /// The submission that made the service.
    pub uid: String,
    /// The pod's index.
    pub replica: u64,
    /// The revision of the service.
    pub revision: u64,
    /// What its service says of a lost node.
    pub policy: Policy,
    /// The number by which its program guards what it writes; it grows with each placement.
    pub fence: Option<u64>,
    /// It is meant to end by itself.
    pub is_job: bool,
    /// When it began.
    pub from_ns: u64,
    /// When it ended; nothing while it runs.
    pub to_ns: Option<u64>,
}

impl Life {
    /// It runs at a moment.
    pub fn runs_at(&self, at_ns: u64) -> bool {
        self.from_ns <= at_ns && self.to_ns.is_none_or(|to_ns| at_ns < to_ns)
    }

    /// The time in which both ran; open if both still do.
    pub fn shared(&self, other: &Life) -> Option<(u64, Option<u64>)> {
        let from_ns = self.from_ns.max(other.from_ns);
        let to_ns = match (self.to_ns, other.to_ns) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        to_ns
            .is_none_or(|to_ns| from_ns < to_ns)
            .then_some((from_ns, to_ns))
    }
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds =
            |at_ns: u64| format!("{}.{:03}", at_ns / 1_000_000_000, at_ns / 1_000_000 % 1000);
        let to = self.to_ns.map_or_else(|| "now".to_owned(), seconds);
        let short = self.container.get(..12).unwrap_or(&self.container);
        write!(
            f,
            "{} of {} attempt {} ({}) on {} in container {short}, from {} to {to}",
            self.pod,
            self.service,
            self.token.0,
            self.token.1,
            self.node,
            seconds(self.from_ns)
        )
    }
}

/// A container as it is after the last deed.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Where.
    pub node: String,
    /// The container's id.
    pub container: String,
    /// The pod's id.
    pub pod: String,
    /// The placement.
    pub token: (u64, String),
    /// It runs.
    pub runs: bool,
    /// Since when it has been so.
    pub since_ns: u64,
}

/// The runs of all containers of ours, and which containers there are at the end.
pub fn lives(deeds: &[Deed]) -> (Vec<Life>, Vec<Standing>) {
    let mut lives: Vec<Life> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut there: BTreeMap<&str, Standing> = BTreeMap::new();
    for deed in deeds.iter().filter(|deed| is_ours(deed)) {
        let id = deed.container.as_str();
        if deed.did == Did::Removed {
            there.remove(id);
        } else {
            let standing = Standing {
                node: deed.node.clone(),
                container: deed.container.clone(),
                pod: label(deed, "kubeleet.pod"),
                token: token(deed),
                runs: deed.did == Did::Started,
                since_ns: deed.at_ns,
            };
            there.insert(id, standing);
        }
        if deed.did == Did::Started {
            open.entry(id).or_insert_with(|| {
                lives.push(begun(deed));
                lives.len() - 1
            });
        } else if let Some(life) = open.remove(id) {
            lives[life].to_ns = Some(deed.at_ns);
        }
    }
    (lives, there.into_values().collect())
}

/// It is a container of kubeleet's.
pub fn is_ours(deed: &Deed) -> bool {
    deed.labels
        .get("orchestrator")
        .is_some_and(|value| value == "kubeleet")
}

fn label(deed: &Deed, name: &str) -> String {
    deed.labels.get(name).cloned().unwrap_or_default()
}

fn token(deed: &Deed) -> (u64, String) {
    let attempt = label(deed, "kubeleet.attempt").parse().unwrap_or(0);
    (attempt, label(deed, "kubeleet.nonce"))
}

fn begun(deed: &Deed) -> Life {
    let number = |name: &str| label(deed, name).parse().unwrap_or(0);
    let wish = label(deed, "kubeleet.wish");
    let spec: Value = serde_json::from_str(&label(deed, "kubeleet.spec")).unwrap_or_default();
    let policy = match spec["on_node_loss"].as_str() {
        Some("stop-then-replace") => Policy::StopThenReplace,
        Some("hold") => Policy::Hold,
        _ => Policy::Replace,
    };
    Life {
        node: deed.node.clone(),
        container: deed.container.clone(),
        pod: label(deed, "kubeleet.pod"),
        token: token(deed),
        service: label(deed, "kubeleet.service"),
        uid: wish.split(' ').next().unwrap_or_default().to_owned(),
        replica: number("kubeleet.replica"),
        revision: number("kubeleet.revision"),
        policy,
        fence: fence(deed),
        is_job: deed
            .env
            .iter()
            .any(|pair| pair.starts_with("PLAY_RUNS_MS=")),
        from_ns: deed.at_ns,
        to_ns: None,
    }
}

fn fence(deed: &Deed) -> Option<u64> {
    let named = deed
        .env
        .iter()
        .find_map(|pair| pair.strip_prefix("KUBELEET_FENCE="));
    named.and_then(|fence| fence.parse().ok())
}
