//! What separates a container from its machine, and what opens the wall.
//!
//! `privileged`, devices, the host's network and binds are refused by a node unless its settings
//! allow them: who can write to Redis must not be root everywhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Kernel capabilities added to and taken from the engine's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Added, such as `NET_ADMIN`; only where the node's settings allow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Taken away, such as `NET_RAW`, or `ALL`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// Bound of one kernel resource of the container's processes; -1 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    /// The bound that warns.
    pub soft: i64,
    /// The bound that holds.
    pub hard: i64,
}

/// Ulimits by name, such as `nofile`.
pub type Ulimits = BTreeMap<String, Ulimit>;

/// A device of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Path on the node.
    #[schema(example = "/dev/fuse")]
    pub host: String,
    /// Path in the container; the same where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What the container may do: of `r`, `w` and `m`.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub permissions: String,
}

fn all() -> String {
    "rwm".to_owned()
}

fn is_all(permissions: &str) -> bool {
    permissions == "rwm"
}
