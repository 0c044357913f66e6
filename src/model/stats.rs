//! What a pod's container uses of its machine.

use serde::{Deserialize, Serialize};

use super::{PodId, Pressure};

/// What one pod uses, or why that is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(example = json!({
    "pod": "7h2k9m4xq0ws-0", "service": "default/web", "node": "node1", "usage": {
        "cpu_cores": 0.25, "memory_bytes": 67_108_864, "memory_limit_bytes": 134_217_728,
        "network_received_bytes": 1024, "network_sent_bytes": 2048,
        "block_read_bytes": 4096, "block_written_bytes": 0, "pids": 3,
    },
}))]
pub struct PodStats {
    /// The pod.
    pub pod: PodId,
    /// Its service, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// The node it is on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// What it uses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// What a container uses, as its engine says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Cores, over the last second or since it was asked for last.
    pub cpu_cores: f64,
    /// Bytes in memory, without what the kernel can drop at once.
    pub memory_bytes: u64,
    /// Most it may have; without a limit of its own, what the machine has.
    pub memory_limit_bytes: u64,
    /// Bytes received since its start.
    pub network_received_bytes: u64,
    /// Bytes sent since its start.
    pub network_sent_bytes: u64,
    /// Bytes read from disks since its start.
    pub block_read_bytes: u64,
    /// Bytes written to disks since its start.
    pub block_written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How hard it is pressed; absent where its kernel does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pressure: Option<Pressure>,
}

/// What an agent answers of one of its pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatsAnswer {
    /// The pod.
    pub pod: PodId,
    /// What it uses, or why that is not known.
    pub usage: Result<Usage, String>,
}
