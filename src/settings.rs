//! Settings: code defaults, then a TOML file, then `KUBELEET_*` variables; read once, checked whole.
//!
//! Nothing else reads the environment. Unknown keys are refused with the nearest known one named.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that can be set, for all binaries; each uses its part.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Put before every Redis key, so that clusters can share a server; `{name}:` for a tag.
    pub key_prefix: String,
    /// How Redis is reached.
    pub redis: RedisSettings,
    /// The HTTP API.
    pub api: ApiSettings,
    /// The node an agent runs.
    pub node: NodeSettings,
    /// Heartbeats and the lease they renew.
    pub heartbeat: HeartbeatSettings,
    /// Placing and sweeping.
    pub scheduler: SchedulerSettings,
    /// How an agent works.
    pub agent: AgentSettings,
    /// The simulated engine.
    pub simulated: SimulatedSettings,
    /// Logs.
    pub log: LogSettings,
    /// Development builds only: the named point at which the process kills itself, for tests.
    pub failpoint: String,
}

/// How Redis is reached: by URL, or by Sentinels and a master's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port[/db]`, `rediss://…`, or `unix:///path`.
    pub url: Secret,
    /// Addresses `host:port` of the Sentinels; when given, `url` is only used for user and password.
    pub sentinels: Vec<String>,
    /// Name of the master among the Sentinels.
    pub master: String,
    /// Most pooled connections.
    pub pool_size: usize,
    /// Longest wait for a connection to be made.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest wait for an answer, on top of what a blocking command waits by itself.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// Replicas that must confirm a commit; unset is `one` where replicas exist, else `none`.
    pub durability: Option<Durability>,
    /// Longest wait for that confirmation.
    #[serde(with = "humantime_serde")]
    pub commit_timeout: Duration,
}

/// How many replicas must confirm a commit before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// None: the master's word is enough.
    None,
    /// One: no accepted thing is lost by any single fault.
    One,
    /// All that are connected.
    All,
}

/// The HTTP API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// Address to listen on.
    pub listen: String,
    /// Most replicas of one service.
    pub replicas_max: u32,
    /// Most bytes of a request's body.
    pub body_bytes_max: usize,
    /// How long an `Idempotency-Key` is remembered.
    #[serde(with = "humantime_serde")]
    pub idempotency_ttl: Duration,
}

/// The node an agent runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The node's name; empty is the host's name.
    pub name: String,
    /// Which engine runs containers.
    pub runtime: RuntimeKind,
    /// The engine's socket; empty is Docker's own default.
    pub docker_socket: String,
    /// Cores offered; 0 is all of the machine's.
    pub cpu: f64,
    /// Memory offered, such as `16Gi`; empty is all of the machine's.
    pub memory: String,
    /// Most pods at once.
    pub pods_max: u32,
    /// Where pressure, cpu use and memory are read; another folder when the agent runs in a
    /// container that has the host's mounted.
    pub proc_dir: PathBuf,
}

/// Which engine runs containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// Docker's engine.
    Docker,
    /// Containers in memory, for tests and benchmarks of many nodes.
    Simulated,
}

/// Heartbeats and the lease they renew.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatSettings {
    /// Time between two heartbeats.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// A node whose last heartbeat is older gets nothing, and its pods go back to the queue.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
}

/// Placing and sweeping.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerSettings {
    /// Most pods claimed and assigned by one call.
    pub batch: usize,
    /// A claim not settled within this time is taken back.
    #[serde(with = "humantime_serde")]
    pub claim_lease: Duration,
    /// Time between two sweeps for lost nodes, lapsed claims and parked pods.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// What counts how much in a node's score.
    pub weights: Weights,
}

/// Weights of the score's terms, each of which lies between 0 and 1; a higher score is worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// Pods over `pods_max`.
    pub pods: f64,
    /// Requested over offered cpu.
    pub cpu: f64,
    /// Requested over offered memory.
    pub memory: f64,
    /// PSI of memory.
    pub pressure_memory: f64,
    /// PSI of io.
    pub pressure_io: f64,
    /// PSI of cpu, in proportion to real cpu use.
    pub pressure_cpu: f64,
    /// Pods placed there since its last heartbeat, over `pods_max`.
    pub placed: f64,
}

/// How an agent works.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// Containers started or stopped at once; pulls of images do not count.
    pub concurrency: usize,
    /// Time between a container's stop signal and its kill.
    #[serde(with = "humantime_serde")]
    pub stop_grace: Duration,
    /// Time between two comparisons of all containers with all assigned pods.
    #[serde(with = "humantime_serde")]
    pub resync_interval: Duration,
}

/// The simulated engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatedSettings {
    /// How long a start takes.
    #[serde(with = "humantime_serde")]
    pub start_time: Duration,
    /// How long a stop takes.
    #[serde(with = "humantime_serde")]
    pub stop_time: Duration,
    /// How long the first use of an image takes.
    #[serde(with = "humantime_serde")]
    pub pull_time: Duration,
    /// Share of starts that fail, 0 to 1.
    pub failure_rate: f64,
}

/// Logs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// What is logged: a level, or `tracing`'s filter such as `kubeleet::agent=debug,info`.
    pub filter: String,
    /// `human`, `json`, or `auto`: human-readable on a terminal and JSON otherwise.
    pub format: LogFormat,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human-readable on a terminal and JSON otherwise.
    Auto,
    /// Human-readable.
    Human,
    /// One JSON object a line.
    Json,
}

/// A text that may hold a password: never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        RedisSettings {
            url: Secret("redis://127.0.0.1:6379".to_owned()),
            sentinels: Vec::new(),
            master: "kubeleet".to_owned(),
            pool_size: 16,
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(2),
            durability: None,
            commit_timeout: Duration::from_secs(1),
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            listen: "127.0.0.1:8080".to_owned(),
            replicas_max: 10_000,
            body_bytes_max: 1024 * 1024,
            idempotency_ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        NodeSettings {
            name: String::new(),
            runtime: RuntimeKind::Docker,
            docker_socket: String::new(),
            cpu: 0.0,
            memory: String::new(),
            pods_max: 250,
            proc_dir: PathBuf::from("/proc"),
        }
    }
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        HeartbeatSettings {
            interval: Duration::from_secs(5),
            lease: Duration::from_secs(20),
        }
    }
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        SchedulerSettings {
            batch: 500,
            claim_lease: Duration::from_secs(10),
            sweep_interval: Duration::from_secs(1),
            weights: Weights::default(),
        }
    }
}

impl Default for Weights {
    /// Pressure outweighs counts: a machine in distress must not be chosen for being empty.
    fn default() -> Self {
        Weights {
            pods: 1.0,
            cpu: 1.0,
            memory: 1.0,
            pressure_memory: 4.0,
            pressure_io: 3.0,
            pressure_cpu: 2.0,
            placed: 1.0,
        }
    }
}

impl Default for AgentSettings {
    fn default() -> Self {
        AgentSettings {
            concurrency: 4,
            stop_grace: Duration::from_secs(10),
            resync_interval: Duration::from_secs(30),
        }
    }
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        SimulatedSettings {
            start_time: Duration::from_millis(5),
            stop_time: Duration::from_millis(5),
            pull_time: Duration::ZERO,
            failure_rate: 0.0,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            filter: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}
