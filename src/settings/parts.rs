//! What can be set: one struct for each part, its keys documented on its fields.
//!
//! Plain data. The values used when nothing is given stand in `defaults`, what is allowed in `rules`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::text;
use crate::model::Strategy;

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
    /// Development builds only: remedies that are left out, with commas, for tests that must then fail.
    pub remedies_off: String,
}

/// How Redis is reached: by URL, or by Sentinels and a master's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://[user:password@]host:port[/db]`, `rediss://…`, or `unix:///path[?user=U&pass=P]`.
    pub url: Secret,
    /// Addresses of the Sentinels: `host:port`, or `redis://user:password@host:port` where they ask
    /// for one. When given, `url` says only user, password, database and whether to use TLS.
    #[serde(deserialize_with = "text::list")]
    pub sentinels: Vec<Secret>,
    /// Name of the master among the Sentinels.
    pub master: String,
    /// Certificate authorities (PEM) a `rediss://` server is checked against; empty is the system's.
    pub ca_file: PathBuf,
    /// This process's own certificate (PEM), for a `rediss://` server that asks for one.
    pub cert_file: PathBuf,
    /// The key of `cert_file` (PEM).
    pub key_file: PathBuf,
    /// Work with a Redis that loses what it is given: findings that refuse it become warnings.
    pub accept_unsafe: bool,
    /// Most pooled connections.
    pub pool_size: usize,
    /// Longest wait for a connection to be made.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest wait for an answer, on top of what a blocking command waits by itself.
    #[serde(with = "humantime_serde")]
    pub response_timeout: Duration,
    /// Replicas that must confirm a commit; `auto` (none here) is one where replicas exist.
    #[serde(with = "text::durability_or_auto")]
    pub durability: Option<Durability>,
    /// How long a recovery lasts after Redis lost writes: nothing is placed while the nodes tell
    /// what they hold. Longer than two heartbeats.
    #[serde(with = "humantime_serde")]
    pub recovery_time: Duration,
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
    /// File of the private key by which specs are signed, as `leet key generate` makes it; empty signs
    /// none.
    pub signing_key_file: PathBuf,
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
    /// Disk offered, such as `100Gi`; empty is all of the disk that holds the engine's data.
    pub disk: String,
    /// Processes and threads offered; 0 is as many as the kernel numbers.
    pub pids: u64,
    /// Most pods at once.
    pub pods_max: u32,
    /// Its labels, `key=value` each, by which services choose nodes; users may set others over them.
    #[serde(deserialize_with = "text::list")]
    pub labels: Vec<String>,
    /// Where pressure, cpu use and memory are read; another folder when the agent runs in a
    /// container that has the host's mounted.
    pub proc_dir: PathBuf,
    /// Where the lease is noted for the node's watchdog and the agent's next start; a restart of the
    /// machine is to empty it, one of the agent is not.
    pub run_dir: PathBuf,
    /// Where containers' own pressure is read, if the kernel tells it.
    pub cgroup_dir: PathBuf,
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
    /// Time between two comparisons of all services with their pods.
    #[serde(with = "humantime_serde")]
    pub compare_interval: Duration,
    /// Ended pods of a service that are kept to be looked at.
    pub ended_kept: usize,
    /// Revisions of a service that are kept, the current one included.
    pub revisions_kept: u32,
    /// Which node is taken by pods whose service says nothing: pressure, spread, binpack, round-robin,
    /// random, first-fit, worst-fit or cheapest.
    pub strategy: Strategy,
    /// What counts how much in a node's score.
    pub weights: Weights,
    /// Moving pods off nodes under lasting pressure.
    pub rebalance: RebalanceSettings,
}

/// Moving pods off nodes under lasting pressure.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RebalanceSettings {
    /// Whether pods are moved.
    pub mode: RebalanceMode,
    /// Most moves within a minute, by all schedulers together.
    pub moves_per_minute: u32,
    /// A node is looked at once it has been above a threshold for so long.
    #[serde(with = "humantime_serde")]
    pub lasting: Duration,
    /// A service of which a pod was moved is left alone for so long.
    #[serde(with = "humantime_serde")]
    pub rest: Duration,
    /// A pod stays after all if another is not ready in its place within this time.
    #[serde(with = "humantime_serde")]
    pub patience: Duration,
    /// From which pressure on, by resource.
    pub threshold: Thresholds,
}

/// Whether pods are moved off nodes under lasting pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RebalanceMode {
    /// No, and nobody looks.
    Off,
    /// No, but an event says which one would be.
    Suggest,
    /// Yes.
    On,
}

/// Pressure above which a node has too much to do: percent of the last 60 s in which something
/// waited; 0 leaves a resource out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Cpu, in proportion to its real use.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// Block io.
    pub io: f64,
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
    /// Bytes of an ended container's last lines that stay readable for a day after container and
    /// node are gone; 0 keeps none.
    pub log_tail_bytes: usize,
    /// Time between two comparisons of all containers with what the agent left them as; Redis is
    /// not asked.
    #[serde(with = "humantime_serde")]
    pub drift_interval: Duration,
    /// Pause before a container that ended is started again; it doubles with each restart.
    #[serde(with = "humantime_serde")]
    pub restart_backoff: Duration,
    /// Longest pause between two restarts.
    #[serde(with = "humantime_serde")]
    pub restart_backoff_max: Duration,
    /// A container that was well for so long begins again at `restart_backoff`.
    #[serde(with = "humantime_serde")]
    pub restart_reset: Duration,
    /// Logins of registries, for images of services that bring none.
    #[serde(deserialize_with = "text::list")]
    pub registries: Vec<RegistrySettings>,
    /// Unused images are removed once the disk of the engine's data is fuller than this share.
    pub image_disk_high: f64,
    /// They are removed until it is down to this share.
    pub image_disk_low: f64,
    /// Only images that were neither pulled nor used for so long are removed.
    #[serde(with = "humantime_serde")]
    pub image_unused: Duration,
    /// So many unused images, those used last, are never removed.
    pub images_kept: usize,
    /// Devices that are offered by kind; each is given to one pod at a time.
    #[serde(deserialize_with = "text::list")]
    pub devices: Vec<DeviceSettings>,
    /// How much more than there is may be asked for.
    pub overcommit: OvercommitSettings,
    /// What services may ask for beyond what is harmless to the machine.
    pub allow: AllowSettings,
    /// Pressure above which the node takes no more pods.
    pub pressure_limit: PressureLimits,
    /// Only pods whose specs were signed by a trusted key are started, and no commands are run in them.
    pub require_signed: bool,
    /// Public keys (`ed25519:…`) of APIs, or paths of files with one a line; several while keys change.
    #[serde(deserialize_with = "text::list")]
    pub trusted_keys: Vec<String>,
}

/// Pressure above which a node takes no more pods, and gives back what has not started: percent of
/// the last 10 s in which something waited. It takes pods again below 80 % of it; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PressureLimits {
    /// Cpu, in proportion to its real use.
    pub cpu: f64,
    /// Memory.
    pub memory: f64,
    /// Block io.
    pub io: f64,
}

/// A device of the node that pods ask for by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "text::DeviceText")]
pub struct DeviceSettings {
    /// Its kind, such as `gpu`.
    pub kind: String,
    /// Its id among those of its kind, such as `0`.
    pub id: String,
    /// Its paths on the machine, which are the same in the container.
    pub paths: Vec<String>,
    /// Variables of a container that has it.
    pub env: BTreeMap<String, String>,
}

impl DeviceSettings {
    /// Its name, such as `gpu/0`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }
}

/// What is offered over what there is; less than 1 keeps some of it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OvercommitSettings {
    /// Of cpu.
    pub cpu: f64,
    /// Of memory.
    pub memory: f64,
    /// Of disk.
    pub disk: f64,
    /// Of processes and threads.
    pub pids: f64,
}

/// Login of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "text::RegistryText")]
pub struct RegistrySettings {
    /// The registry, as images name it: `registry.example:5000`, or `docker.io`.
    pub host: String,
    /// Name of the user.
    pub username: String,
    /// Password or token.
    pub password: Secret,
}

/// What services may ask for of this node: whoever can write to Redis must not be root here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AllowSettings {
    /// Containers may have all rights on the machine.
    pub privileged: bool,
    /// Containers may use the machine's own network.
    pub host_network: bool,
    /// Devices they may be given: paths, in which `*` stands for any part of a name.
    #[serde(deserialize_with = "text::list")]
    pub devices: Vec<String>,
    /// Folders of which they may mount anything; symbolic links in them are followed.
    #[serde(deserialize_with = "text::list")]
    pub binds: Vec<String>,
    /// Capabilities they may be given beyond the engine's default ones; `ALL` is all.
    #[serde(deserialize_with = "text::list")]
    pub capabilities: Vec<String>,
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

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// An address without what may be a password: all before its `@`, and after its `?`, is left out.
pub(crate) fn redacted(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?***"),
        None => (rest, ""),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}***@{host}{query}"),
        None => format!("{scheme}{rest}{query}"),
    }
}
