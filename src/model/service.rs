//! Services: what a user wants kept running, how it is written, and the rules for it.

mod health;
mod image_source;
mod isolation;
mod node_loss;
mod restart;
mod rules;
mod storage;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::name::is_name;
use super::node::{LABELS_MAX, is_node_label, labels_text};
use super::{Placement, Port, Resources};

pub use health::{Health, HttpProbe, Probe, TcpProbe};
pub use image_source::{PullPolicy, RegistryLogin};
pub use isolation::{Capabilities, Device, Ulimit, Ulimits};
pub use node_loss::OnNodeLoss;
pub use restart::{
    BACKOFF_FIRST, BACKOFF_MAX, BACKOFF_RESET, Restart, RestartPolicy, Stop, backoff, doubled,
};
pub use storage::{FILES_BYTES_MAX, File, Mount, MountKind};

/// Most items in `command`, `args`, `env` and `labels`, each.
pub const ITEMS_MAX: usize = 1000;
/// Most bytes in one item of those.
pub const ITEM_BYTES_MAX: usize = 32 * 1024;
/// Most ports of one pod.
pub const PORTS_MAX: usize = 100;

/// What the user wants: the body of `POST /service`, and the description an agent runs.
///
/// As stored and as given to agents it holds no `replicas`: the count stands beside it, because
/// scaling makes no new revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Name of the service within its namespace: a DNS label.
    #[schema(
        example = "web",
        max_length = 63,
        pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    )]
    pub name: String,
    /// Namespace; `default` where none is said.
    #[serde(default = "default_namespace")]
    #[schema(
        example = "default",
        max_length = 63,
        pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
    )]
    pub namespace: String,
    /// Image reference.
    #[schema(example = "nginx:1.27", min_length = 1)]
    pub image: String,
    /// How many pods; `replica` is accepted too.
    #[serde(
        default = "one_replica",
        alias = "replica",
        deserialize_with = "replica_count",
        skip_serializing
    )]
    #[schema(minimum = 1, default = 1)]
    pub replicas: u32,
    /// Program to run instead of the image's entrypoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments of the program instead of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Folder the program starts in; the image's where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// User the program runs as: name or number, with `:group` where wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "1000:1000")]
    pub user: Option<String>,
    /// Labels of the container; `orchestrator` and `kubeleet.*` are ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What each pod asks for and is limited to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Ports: `80` or `"80"` (a free port of the node), `"8080:80"`, `"53:53/udp"`, or an object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Which queue its pods wait in.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: Priority,
    /// Within its priority the higher goes first, 0 to 999.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schema(maximum = 999)]
    pub rank: u16,
    /// Where there is no room, pods of a lower priority or rank stop in order to give theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preempts: bool,
    /// `false` keeps its pods from being stopped to make room for higher ones.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schema(default = true)]
    pub preemptible: bool,
    /// When the image is fetched.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pull: PullPolicy,
    /// Login of the image's registry; the node's own where none is said. Never shown back.
    #[serde(default, skip_serializing)]
    pub registry: Option<RegistryLogin>,
    /// What follows when a container ends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: Restart,
    /// What happens to its pods when their node is not heard any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_node_loss: OnNodeLoss,
    /// How a container shows that it lives and is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How a container is stopped.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop: Stop,
    /// Binds, volumes and tmpfs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Files put into the container before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Bounds of the container's processes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: Ulimits,
    /// Kernel capabilities.
    #[serde(default, skip_serializing_if = "is_default")]
    pub capabilities: Capabilities,
    /// The container's own file system is for reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Devices of the node; only where its settings allow them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// All rights on the machine; only where the node's settings allow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// `bridge`, `none`, `host` (only where the node's settings allow it) or an engine's network
    /// by name; the engine's default where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "bridge")]
    pub network: Option<String>,
    /// Addresses of name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// More hosts by name: `name` to address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_hosts: BTreeMap<String, String>,
    /// A small init process reaps zombies and passes signals on: without one, a program that is
    /// process 1 does not end when asked to, unless it listens for it. Where nothing is said it is
    /// used if the engine has one; `false` is for images that bring their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Which nodes may run it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// By the API's key, over all the rest: the last field, so that the rest is told from it as bytes
    /// (`src/signing.rs`). Users give none, and are shown none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub signature: Option<String>,
}

fn default_namespace() -> String {
    ServiceKey::DEFAULT_NAMESPACE.to_owned()
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_true(value: &bool) -> bool {
    *value
}

fn one_replica() -> u32 {
    1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A count of at least one; the error names what was given.
fn replica_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let given = Value::deserialize(deserializer)?;
    given
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "invalid value: {given}, expected a whole number from 1"
            ))
        })
}

impl ServiceSpec {
    /// A spec of one replica with all else left out; for tests and the command line.
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> ServiceSpec {
        ServiceSpec {
            name: name.into(),
            namespace: default_namespace(),
            image: image.into(),
            replicas: 1,
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            working_dir: None,
            user: None,
            labels: BTreeMap::new(),
            resources: Resources::default(),
            ports: Vec::new(),
            priority: Priority::default(),
            rank: 0,
            preempts: false,
            preemptible: true,
            pull: PullPolicy::default(),
            registry: None,
            restart: Restart::default(),
            on_node_loss: OnNodeLoss::default(),
            health: None,
            stop: Stop::default(),
            mounts: Vec::new(),
            files: Vec::new(),
            ulimits: Ulimits::new(),
            capabilities: Capabilities::default(),
            read_only: false,
            devices: Vec::new(),
            privileged: false,
            network: None,
            dns: Vec::new(),
            extra_hosts: BTreeMap::new(),
            init: None,
            signature: None,
            placement: Placement::default(),
        }
    }

    /// The service's key.
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The bytes that are stored and compared: equal specs have equal bytes.
    pub fn to_stored(&self) -> String {
        serde_json::to_string(self).expect("a spec has string keys and finite numbers only")
    }

    /// Fixed ports of the node that it takes, as `<port>/<protocol>`: two pods with one of them
    /// never share a node.
    pub fn host_ports(&self) -> Vec<String> {
        let fixed = self.ports.iter().filter_map(|port| {
            let host = port.host?;
            Some(format!("{host}/{}", port.protocol.as_str()))
        });
        fixed.collect()
    }

    /// Labels by which affinities of others find it, as `key=value` with commas, in order; those that
    /// are no label of a node either are for programs, and find nothing.
    pub fn found_by(&self) -> String {
        let plain = |(key, value): &(&String, &String)| is_node_label(key, value);
        let labels = self.labels.iter().filter(plain).take(LABELS_MAX);
        labels_text(
            &labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
    }

    /// `1` where a scheduler has to read the spec before it places a pod of it, else empty.
    pub fn wishes(&self) -> &'static str {
        if self.placement.is_open() && !self.preempts {
            ""
        } else {
            "1"
        }
    }

    /// The spec without what must never be shown or stand in a label: what secret files hold, and
    /// the registry's login.
    pub fn without_secrets(&self) -> ServiceSpec {
        let mut spec = self.clone();
        spec.registry = None;
        for file in spec.files.iter_mut().filter(|file| file.secret) {
            file.content = None;
            file.base64 = None;
        }
        spec
    }
}

/// Where pods stand when room is short: by priority, and by rank within.
pub fn standing(priority: Priority, rank: u16) -> u32 {
    let class = match priority {
        Priority::High => 3000,
        Priority::Normal => 2000,
        Priority::Low => 1000,
    };
    class + u32::from(rank)
}

/// Namespace and name of a service; shown and stored as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The border of an owner.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl ServiceKey {
    /// The namespace where none is said.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// The key of `namespace/name`; `None` if either is no name.
    pub fn parse(text: &str) -> Option<ServiceKey> {
        let (namespace, name) = text.split_once('/')?;
        (is_name(namespace) && is_name(name)).then(|| ServiceKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which queue a pod waits in.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Served first.
    High,
    /// Served in between.
    #[default]
    Normal,
    /// Served last.
    Low,
}

impl Priority {
    /// Every priority, in the order they are served.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        }
    }
}

/// A service as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Service {
    /// The service's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its revision; the first is 1.
    pub revision: u64,
    /// How many pods are wanted.
    pub replicas: u32,
    /// True while a deletion is carried out: its pods are being stopped.
    pub deleting: bool,
    /// When it was submitted, milliseconds since 1970 by Redis's clock.
    pub created_ms: u64,
    /// What its pods run; shown without its secrets, whoever asks.
    #[serde(serialize_with = "without_secrets")]
    pub spec: ServiceSpec,
}

fn without_secrets<S: serde::Serializer>(
    spec: &ServiceSpec,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    spec.without_secrets().serialize(serializer)
}

impl Service {
    /// A service as it will stand when it is made of `spec`.
    pub fn first(spec: ServiceSpec) -> Service {
        Service {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            revision: 1,
            replicas: spec.replicas,
            deleting: false,
            created_ms: 0,
            spec,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<ServiceSpec, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn name_and_image_are_enough() {
        let spec = parse(r#"{"name":"web","image":"nginx"}"#).unwrap();
        assert_eq!(spec, ServiceSpec::new("web", "nginx"));
        assert!(spec.violations(10).is_empty());
        assert_eq!(
            spec.to_stored(),
            r#"{"name":"web","namespace":"default","image":"nginx"}"#
        );
    }

    #[test]
    fn replica_and_replicas_are_one_word() {
        assert_eq!(
            parse(r#"{"name":"a","image":"b","replica":3}"#)
                .unwrap()
                .replicas,
            3
        );
        assert_eq!(
            parse(r#"{"name":"a","image":"b","replicas":3}"#)
                .unwrap()
                .replicas,
            3
        );
        for bad in ["0", "-1", "1.5", "\"3\"", "1e99", "4294967296", "null"] {
            let json = format!(r#"{{"name":"a","image":"b","replicas":{bad}}}"#);
            let error = parse(&json).unwrap_err().to_string();
            assert!(error.contains("expected a whole number from 1"), "{error}");
        }
        assert!(parse(r#"{"name":"a","image":"b","replicas":1,"replica":1}"#).is_err());
    }

    #[test]
    fn what_is_stored_reads_back_the_same() {
        let json = r#"{"name":"a","image":"b","command":["x"],"args":["y"],"env":{"K":"V"},
            "labels":{"l":"m"},"resources":{"cpu":0.5,"memory":"64Mi"},"ports":["1:2/udp"],"priority":"low"}"#;
        let spec = parse(json).unwrap();
        assert_eq!(parse(&spec.to_stored()).unwrap(), spec);
    }

    #[test]
    fn every_field_is_stored_but_the_count_and_the_login() {
        let stored: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
        let mut given = stored.clone();
        given["replicas"] = 3.into();
        given["registry"] = serde_json::json!({"username": "u", "password": "hidden"});
        let spec: ServiceSpec = serde_json::from_value(given).unwrap();
        assert_eq!(spec.violations(10), []);
        assert_eq!((spec.replicas, spec.registry.is_some()), (3, true));
        let text = spec.to_stored();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            stored
        );
        let again = parse(&text).unwrap();
        assert_eq!((again.replicas, &again.registry), (1, &None));
        assert_eq!(again.to_stored(), text, "equal specs have equal bytes");
    }

    /// Each field of a spec as it is stored, none at its default.
    const WHOLE: &str = r#"{
        "name": "a", "namespace": "n", "image": "b", "command": ["x"], "args": ["y"],
        "env": {"K": "V"}, "working_dir": "/w", "user": "1:2", "labels": {"l": "m"},
        "resources": {"cpu": 0.5, "memory": 67108864, "memory_swap": 134217728, "shm": 4096, "pids": 9,
            "disk": 4096, "requests": {"cpu": 0.25, "memory": 1024, "pids": 8}, "devices": {"gpu": 1}},
        "ports": [{"container": 2, "host": 1, "protocol": "udp"}],
        "priority": "low", "rank": 7, "preempts": true, "preemptible": false, "pull": "always", "restart": {"policy": "on-failure", "max": 3},
        "on_node_loss": "stop-then-replace",
        "health": {"liveness": {"tcp": {"port": 2}, "start_period": "1s", "interval": "2s",
            "timeout": "3s", "failures": 4, "successes": 5}, "engine": false},
        "stop": {"signal": "SIGINT", "grace": "3s"},
        "mounts": [{"type": "tmpfs", "target": "/t", "read_only": true, "size": 4096},
            {"type": "volume", "source": "v", "target": "/d"}],
        "files": [{"path": "/d/f", "content": "c", "mode": "0400", "uid": 1, "gid": 2, "secret": true}],
        "ulimits": {"nofile": {"soft": 1, "hard": 2}},
        "capabilities": {"add": ["SYS_TIME"], "drop": ["NET_RAW"]},
        "read_only": true,
        "devices": [{"host": "/dev/a", "container": "/dev/b", "permissions": "r"}],
        "privileged": true, "network": "bridge", "dns": ["9.9.9.9"], "extra_hosts": {"h": "::1"},
        "init": false, "placement": {"labels": {"zone": "eu"}}
    }"#;

    #[test]
    fn a_service_is_shown_without_its_secrets() {
        let mut spec = parse(WHOLE).unwrap();
        spec.registry = Some(RegistryLogin {
            username: "u".to_owned(),
            password: "hidden".to_owned(),
        });
        spec.files[0].content = Some("hidden".to_owned());
        let open = File {
            path: "/d/open".to_owned(),
            secret: false,
            ..spec.files[0].clone()
        };
        spec.files.push(open);
        let service = Service {
            name: "a".to_owned(),
            namespace: "n".to_owned(),
            revision: 1,
            replicas: 1,
            deleting: false,
            created_ms: 1,
            spec,
        };
        let shown = serde_json::to_value(&service).unwrap();
        assert_eq!(shown["spec"]["files"][0]["path"], "/d/f");
        assert_eq!(shown["spec"]["files"][0].get("content"), None);
        assert_eq!(shown["spec"]["files"][1]["content"], "hidden");
        assert_eq!(shown["spec"].get("registry"), None);
        assert_eq!(service.spec.files[0].content.as_deref(), Some("hidden"));
        assert!(!format!("{service:?}").contains("hidden"));
    }
}
