//! Nodes: what a machine offers, what is used of it, and how hard its kernel is pressed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Amounts;

/// Most labels of a node by its agent's settings, and as many again by users.
pub const LABELS_MAX: usize = 64;
/// The label that every node has: its own name.
pub const NAME_LABEL: &str = "node";

/// What [`is_node_label`] allows, for messages.
pub const NODE_LABEL_RULE: &str = "a key and a value of at most 63 letters, digits, '-', '_', '.' and '/', the value may be empty";

/// Whether a node may have this label, and a service ask for it.
pub fn is_node_label(key: &str, value: &str) -> bool {
    let word = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        text.len() <= 63 && text.bytes().all(allowed)
    };
    !key.is_empty() && word(key) && word(value)
}

/// Whether somebody may set this label: any but the node's name.
pub fn may_be_set(key: &str, value: &str) -> bool {
    is_node_label(key, value) && key != NAME_LABEL
}

/// Labels as they are stored: `disk=ssd,zone=eu`, by key. Keys and values hold neither `=` nor `,`.
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

/// Labels from their stored text; what is no pair is left out.
pub fn read_labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What a node offers to pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Capacity {
    /// Most pods at once.
    pub pods_max: u32,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
}

/// Share of time, in percent, in which work waited for a resource: PSI's `some` line.
///
/// The kernel's averages over 10 and 60 seconds, see "PSI - Pressure Stall Information" in the
/// kernel's documentation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pressure {
    /// False where the kernel has no PSI: the figures are then zero and say nothing.
    pub known: bool,
    /// cpu, last 10 s.
    pub cpu_avg10: f64,
    /// cpu, last 60 s.
    pub cpu_avg60: f64,
    /// Memory, last 10 s.
    pub memory_avg10: f64,
    /// Memory, last 60 s.
    pub memory_avg60: f64,
    /// Block io, last 10 s.
    pub io_avg10: f64,
    /// Block io, last 60 s.
    pub io_avg60: f64,
}

/// Whether the node's container engine answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// It answers.
    Up,
    /// It does not; the node gets no pods.
    #[default]
    Down,
}

/// Whether a node can be given pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It holds its lease and its engine answers.
    Ready,
    /// So it does, but it gets no new pods, because a user said so.
    Cordoned,
    /// Likewise, and its pods are being moved elsewhere.
    Draining,
    /// Likewise, and none is left.
    Drained,
    /// It holds its lease, but its engine does not answer.
    EngineDown,
    /// Likewise, but it takes no new pods: it is above its pressure limit.
    Pressed,
    /// Its lease is over: no heartbeat came in time.
    Lost,
}

impl NodeState {
    /// The word that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeState::Ready => "ready",
            NodeState::Cordoned => "cordoned",
            NodeState::Draining => "draining",
            NodeState::Drained => "drained",
            NodeState::EngineDown => "engine-down",
            NodeState::Pressed => "pressed",
            NodeState::Lost => "lost",
        }
    }
}

/// A node as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Whether it can be given pods.
    pub state: NodeState,
    /// Milliseconds since its last heartbeat, by Redis's clock.
    pub heartbeat_age_ms: u64,
    /// What it offers.
    pub capacity: Capacity,
    /// Pods assigned to it.
    pub pods: u32,
    /// Thousandths of a core asked for by them.
    pub cpu_requested_millis: u64,
    /// Bytes asked for by them.
    pub memory_requested_bytes: u64,
    /// Share of its cpu time in use, 0 to 1, by the kernel's count.
    pub cpu_used: f64,
    /// Bytes of its memory in use, by the kernel's count.
    pub memory_used_bytes: u64,
    /// How hard its kernel is pressed.
    pub pressure: Pressure,
    /// How often its agent has registered.
    pub epoch: u64,
    /// Version of its agent.
    pub version: String,
    /// Its platform, such as `linux/amd64`; by it the labels `os` and `arch` are, where none are set.
    #[serde(default)]
    pub platform: String,
    /// Its labels: those of its agent's settings, and over them those that users set.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What else it offers: bytes of disk, pids, and devices by kind.
    #[serde(default)]
    #[schema(example = json!({"disk": 107_374_182_400_u64, "gpu": 2, "pids": 4_194_304}))]
    pub offers: Amounts,
    /// What its pods ask for of that.
    #[serde(default)]
    #[schema(example = json!({"gpu": 1}))]
    pub asked: Amounts,
    /// Its devices, such as `gpu/0`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Those of them that its pods have.
    #[serde(default)]
    pub devices_used: Vec<String>,
    /// It gets no new pods, because a user said so.
    #[serde(default)]
    pub cordoned: bool,
    /// Likewise, and its pods are being moved elsewhere.
    #[serde(default)]
    pub draining: bool,
    /// It takes no new pods, because this is above the limit of its settings.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pressed: Option<String>,
    /// Which pod had better be moved off it, and why; told of a single node, where pods are not
    /// moved but suggested.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suggestion: Option<String>,
}
