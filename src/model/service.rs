//! Services: what a user wants kept running, how it is written, and the rules for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::image::{IMAGE_RULE, ImageReference};
use super::name::{NAME_RULE, is_name};
use super::{Port, Resources, Violation};

/// Most items in `command`, `args`, `env` and `labels`, each.
pub const ITEMS_MAX: usize = 1000;
/// Most bytes in one item of those.
pub const ITEM_BYTES_MAX: usize = 32 * 1024;
/// Most ports of one pod.
pub const PORTS_MAX: usize = 100;

const LABEL_RULE: &str =
    "a key of 1 to 253 characters that is not `orchestrator` and does not begin with `kubeleet.`";
const LABEL_KEY_MAX: usize = 253;

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
}

fn default_namespace() -> String {
    ServiceKey::DEFAULT_NAMESPACE.to_owned()
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
            labels: BTreeMap::new(),
            resources: Resources::default(),
            ports: Vec::new(),
            priority: Priority::default(),
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

    /// Every broken rule; empty for a sound spec. `replicas_max` is the setting.
    pub fn violations(&self, replicas_max: u32) -> Vec<Violation> {
        let mut broken = Vec::new();
        let mut rule = |holds: bool, field: &str, given: &str, allowed: &str| {
            if !holds {
                broken.push(Violation::new(field, given, allowed));
            }
        };
        rule(is_name(&self.name), "name", &self.name, NAME_RULE);
        rule(
            is_name(&self.namespace),
            "namespace",
            &self.namespace,
            NAME_RULE,
        );
        rule(
            ImageReference::parse(&self.image).is_some(),
            "image",
            &self.image,
            IMAGE_RULE,
        );
        rule(
            (1..=replicas_max).contains(&self.replicas),
            "replicas",
            &self.replicas.to_string(),
            &format!("1 to {replicas_max} (setting api.replicas_max)"),
        );
        for (field, items) in [("command", &self.command), ("args", &self.args)] {
            rule(
                items.len() <= ITEMS_MAX,
                field,
                &format!("{} items", items.len()),
                &format!("at most {ITEMS_MAX} items"),
            );
            for (index, item) in items.iter().enumerate().take(ITEMS_MAX) {
                rule(is_item(item), &format!("{field}[{index}]"), item, ITEM_RULE);
            }
        }
        for (field, map) in [("env", &self.env), ("labels", &self.labels)] {
            rule(
                map.len() <= ITEMS_MAX,
                field,
                &format!("{} entries", map.len()),
                &format!("at most {ITEMS_MAX} entries"),
            );
            for (key, value) in map.iter().take(ITEMS_MAX) {
                rule(is_item(value), &format!("{field}.{key}"), value, ITEM_RULE);
            }
        }
        for key in self.env.keys().take(ITEMS_MAX) {
            let sound = !key.is_empty() && !key.contains('=') && is_item(key);
            rule(
                sound,
                "env",
                key,
                "a variable's name: not empty, without '=' and NUL",
            );
        }
        for key in self.labels.keys().take(ITEMS_MAX) {
            let ours = key == "orchestrator" || key.starts_with("kubeleet.");
            let sound = !key.is_empty() && key.len() <= LABEL_KEY_MAX && is_item(key) && !ours;
            rule(sound, "labels", key, LABEL_RULE);
        }
        rule(
            self.ports.len() <= PORTS_MAX,
            "ports",
            &format!("{} ports", self.ports.len()),
            &format!("at most {PORTS_MAX} ports"),
        );
        for (index, port) in self.ports.iter().enumerate().take(PORTS_MAX) {
            let repeated = self.ports[..index].iter().any(|earlier| {
                earlier.protocol == port.protocol
                    && (earlier.container == port.container
                        || (port.host.is_some() && earlier.host == port.host))
            });
            rule(
                !repeated,
                &format!("ports[{index}]"),
                &port.to_string(),
                "each port once",
            );
        }
        broken
    }
}

const ITEM_RULE: &str = "at most 32 KiB of text without NUL";

fn is_item(text: &str) -> bool {
    text.len() <= ITEM_BYTES_MAX && !text.contains('\0')
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
    /// What its pods run.
    pub spec: ServiceSpec,
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
    fn each_broken_rule_is_named() {
        let mut spec = ServiceSpec::new("Web", "no image");
        spec.namespace = "-".into();
        spec.replicas = 11;
        spec.env.insert("A=B".into(), "x\0".into());
        spec.labels.insert("kubeleet.node".into(), "n".into());
        spec.args.push("a\0".into());
        spec.ports = vec![Port::parse("80").unwrap(), Port::parse("80").unwrap()];
        let fields: Vec<String> = spec.violations(10).into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "name",
                "namespace",
                "image",
                "replicas",
                "args[0]",
                "env.A=B",
                "env",
                "labels",
                "ports[1]"
            ]
        );
    }
}
