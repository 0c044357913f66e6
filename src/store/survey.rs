//! How the Redis of a cluster stands: its servers, its Sentinels, what the cluster has there.
//!
//! Reads only, past the pools and the guard, each server by a connection of its own: it must tell
//! most when something is wrong. What a user may not read stays unknown. Judges nothing: `judge` does.

mod info;
mod judge;
mod read;

use serde::Serialize;

pub use judge::{Finding, Severity};

/// All that was read.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    /// True if the master is found by Sentinels.
    pub by_sentinel: bool,
    /// Name of the master among them.
    pub master_name: String,
    /// The master's address, as the majority of the Sentinels or the URL says.
    pub master: Option<String>,
    /// The master, then its replicas.
    pub servers: Vec<Server>,
    /// The Sentinels that the settings name.
    pub sentinels: Vec<Sentinel>,
    /// What the cluster has on the master.
    pub cluster: Option<ClusterFacts>,
}

/// A server and what it told.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Server {
    /// Its `host:port`, or the path of its socket.
    pub address: String,
    /// True if it is reached through TLS.
    pub tls: bool,
    /// What it told; absent if it could not be asked.
    pub facts: Option<ServerFacts>,
    /// Why it could not be asked.
    pub error: Option<String>,
    /// True if it answers, but not this user.
    pub is_refused: bool,
    /// True if it lets clients in that name no user; unknown if that could not be tried.
    pub is_open: Option<bool>,
}

/// What a server told. `None` is what this user may not read, or what the server does not have.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerFacts {
    /// `Redis` or `Valkey`.
    pub software: String,
    /// Its version.
    pub version: String,
    /// `master`, or `slave` for a replica, as the server says it.
    pub role: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Clients that are connected.
    pub clients: u64,
    /// Commands a second, lately.
    pub commands_per_s: u64,
    /// Bytes of memory in use.
    pub memory_used_bytes: u64,
    /// The most it may use; 0 is no bound.
    pub memory_max_bytes: u64,
    /// What goes when it is full.
    pub memory_policy: String,
    /// Whether each write goes to an append-only file.
    pub aof: bool,
    /// Whether the last write to that file went well.
    pub aof_ok: bool,
    /// When that file is brought to the disk.
    pub appendfsync: Option<String>,
    /// How far its history of writes goes.
    pub offset: u64,
    /// Replicas that are connected to it.
    pub replicas: Vec<ReplicaLink>,
    /// Whether a replica's link to its master is up.
    pub link_up: Option<bool>,
    /// Whether a replica refuses writes of clients.
    pub read_only: Option<bool>,
    /// Replicas without which it takes no writes.
    pub min_replicas: Option<u64>,
    /// Seconds after which a silent replica counts no more.
    pub min_replicas_max_lag_s: Option<u64>,
    /// Seconds until a vanished client is noticed; 0 is never.
    pub tcp_keepalive_s: Option<u64>,
    /// Milliseconds after which a function counts as stuck.
    pub busy_reply_threshold_ms: Option<u64>,
    /// Addresses it listens on.
    pub bind: Option<String>,
}

/// A replica as its master sees it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReplicaLink {
    /// Its address.
    pub address: String,
    /// `online` once it has all.
    pub state: String,
    /// How far it has got.
    pub offset: u64,
    /// Seconds since it was heard last.
    pub lag_s: u64,
}

/// A Sentinel and what it told.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sentinel {
    /// Its address.
    pub address: String,
    /// What it told; absent if it could not be asked.
    pub facts: Option<SentinelFacts>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// What a Sentinel knows of the master.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SentinelFacts {
    /// The master's address.
    pub master: String,
    /// What it thinks of it: `master`, or also `s_down`, `o_down`, `failover_in_progress`.
    pub flags: String,
    /// Sentinels that must find a master down.
    pub quorum: u64,
    /// Other Sentinels it knows.
    pub others: Vec<String>,
    /// Replicas it knows.
    pub replicas: Vec<String>,
    /// Silence after which a master is down, in ms.
    pub down_after_ms: u64,
    /// Time after which another fail-over is tried, in ms: half of it.
    pub failover_timeout_ms: u64,
    /// Replicas that copy from a new master at once.
    pub parallel_syncs: u64,
}

/// What a cluster has on its master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClusterFacts {
    /// Its id; absent if there is none yet.
    pub id: Option<String>,
    /// Version of its keys.
    pub schema: Option<u64>,
    /// Version of the functions that are loaded; absent if none are.
    pub functions: Option<u64>,
    /// Version of the functions that this program brings.
    pub functions_here: u64,
    /// Agents heard within the lease.
    pub agents: u64,
    /// Nodes that are known, but not heard.
    pub agents_silent: u64,
}

impl Facts {
    /// The master's facts, if it could be asked.
    pub fn master(&self) -> Option<&ServerFacts> {
        let master = self.master.as_ref()?;
        let server = self.servers.iter().find(|one| one.address == *master)?;
        server.facts.as_ref()
    }

    /// What is unsafe in all this, worst first, with remedies. Pure.
    pub fn findings(&self) -> Vec<Finding> {
        judge::judge(self)
    }
}
