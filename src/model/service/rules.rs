//! The rules of a spec: every broken one is named, with what was given and what is allowed.
//!
//! Asked by the API for what users send, and by agents for what lies in Redis, where anybody may
//! have written it.

mod health;
mod isolation;
mod storage;

use super::{ITEM_BYTES_MAX, ITEMS_MAX, PORTS_MAX, ServiceSpec};
use crate::model::Violation;
use crate::model::image::{IMAGE_RULE, ImageReference};
use crate::model::name::{NAME_RULE, is_name};

/// Most mounts, files, devices, capabilities, ulimits, name servers and hosts, each.
const PARTS_MAX: usize = 100;
const LABEL_KEY_MAX: usize = 253;
/// Highest rank within a priority.
const RANK_MAX: u16 = 999;

const LABEL_RULE: &str =
    "a key of 1 to 253 characters that is not `orchestrator` and does not begin with `kubeleet.`";
const VARIABLE_RULE: &str = "a variable's name: not empty, without '=' and NUL";
const ITEM_RULE: &str = "at most 32 KiB of text without NUL";
const PATH_RULE: &str = "an absolute path without `.` and `..`";

/// The broken rules found so far.
struct Rules(Vec<Violation>);

impl Rules {
    fn require(&mut self, holds: bool, field: &str, given: impl ToString, allowed: &str) {
        if !holds {
            self.0.push(Violation::new(field, given, allowed));
        }
    }

    fn at_most(&mut self, field: &str, count: usize, count_max: usize, what: &str) {
        let given = format_args!("{count} {what}");
        let allowed = format!("at most {count_max} {what}");
        self.require(count <= count_max, field, given, &allowed);
    }
}

impl ServiceSpec {
    /// Every broken rule; empty for a sound spec. `replicas_max` is the setting.
    pub fn violations(&self, replicas_max: u32) -> Vec<Violation> {
        let mut rules = Rules(Vec::new());
        let named = is_name(&self.namespace);
        rules.require(is_name(&self.name), "name", &self.name, NAME_RULE);
        rules.require(named, "namespace", &self.namespace, NAME_RULE);
        let image = ImageReference::parse(&self.image).is_some();
        rules.require(image, "image", &self.image, IMAGE_RULE);
        let count = (1..=replicas_max).contains(&self.replicas);
        let allowed = format!("1 to {replicas_max} (setting api.replicas_max)");
        rules.require(count, "replicas", self.replicas, &allowed);
        rules.require(self.rank <= RANK_MAX, "rank", self.rank, "0 to 999");
        self.texts(&mut rules);
        self.ports(&mut rules);
        self.resources(&mut rules);
        self.storage(&mut rules);
        self.isolation(&mut rules);
        self.probes(&mut rules);
        rules.0.extend(self.placement.violations());
        rules.0
    }

    fn texts(&self, rules: &mut Rules) {
        for (field, items) in [("command", &self.command), ("args", &self.args)] {
            rules.at_most(field, items.len(), ITEMS_MAX, "items");
            for (index, item) in items.iter().enumerate().take(ITEMS_MAX) {
                let field = format!("{field}[{index}]");
                rules.require(is_item(item), &field, item, ITEM_RULE);
            }
        }
        for (field, map) in [("env", &self.env), ("labels", &self.labels)] {
            rules.at_most(field, map.len(), ITEMS_MAX, "entries");
            for (key, value) in map.iter().take(ITEMS_MAX) {
                let field = format!("{field}.{key}");
                rules.require(is_item(value), &field, value, ITEM_RULE);
            }
        }
        for key in self.env.keys().take(ITEMS_MAX) {
            let sound = !key.is_empty() && !key.contains('=') && is_item(key);
            rules.require(sound, "env", key, VARIABLE_RULE);
        }
        for key in self.labels.keys().take(ITEMS_MAX) {
            let ours = key == "orchestrator" || key.starts_with("kubeleet.");
            let sound = !key.is_empty() && key.len() <= LABEL_KEY_MAX && is_item(key) && !ours;
            rules.require(sound, "labels", key, LABEL_RULE);
        }
    }

    fn ports(&self, rules: &mut Rules) {
        rules.at_most("ports", self.ports.len(), PORTS_MAX, "ports");
        for (index, port) in self.ports.iter().enumerate().take(PORTS_MAX) {
            let repeated = self.ports[..index].iter().any(|earlier| {
                earlier.protocol == port.protocol
                    && (earlier.container == port.container
                        || (port.host.is_some() && earlier.host == port.host))
            });
            rules.require(
                !repeated,
                &format!("ports[{index}]"),
                port,
                "each port once",
            );
        }
        // The engine would leave them out, and say so in a warning that nobody reads.
        let network = self.network.as_deref().unwrap_or_default();
        let published = self.ports.is_empty() || !matches!(network, "host" | "none");
        let given = format_args!("{} ports", self.ports.len());
        let allowed = format!("none with the network {network:?}, where no port can be passed on");
        rules.require(published, "ports", given, &allowed);
    }

    fn resources(&self, rules: &mut Rules) {
        let (memory, swap) = (
            self.resources.memory_bytes,
            self.resources.memory_swap_bytes,
        );
        let allowed = "memory and swap together: at least `memory`, which has to be given too";
        let sound = swap == 0 || (memory > 0 && swap >= memory);
        rules.require(sound, "resources.memory_swap", swap, allowed);
    }
}

/// An absolute path that says where it leads: no `.` and `..` among its parts.
fn is_path(text: &str) -> bool {
    let plain = |part: &str| part != "." && part != "..";
    text.starts_with('/') && is_item(text) && text.split('/').all(plain)
}

fn is_item(text: &str) -> bool {
    text.len() <= ITEM_BYTES_MAX && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The fields that are broken in a spec of `name`, `image` and these fields.
    pub(super) fn broken(fields: Value) -> Vec<String> {
        let violations = violations(fields).into_iter();
        violations.map(|broken| broken.field).collect()
    }

    /// The same with all that is said.
    pub(super) fn violations(fields: Value) -> Vec<Violation> {
        let mut spec = json!({"name": "web", "image": "nginx"});
        let fields = fields.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        spec.violations(10)
    }

    #[test]
    fn each_broken_rule_is_named() {
        let fields = json!({
            "name": "Web", "namespace": "-", "image": "no image", "replicas": 11,
            "env": {"A=B": "x\u{0}"}, "labels": {"kubeleet.node": "n"}, "args": ["a\u{0}"],
            "ports": [80, 80],
        });
        let expected = [
            "name",
            "namespace",
            "image",
            "replicas",
            "args[0]",
            "env.A=B",
            "env",
            "labels",
            "ports[1]",
        ];
        assert_eq!(broken(fields), expected);
    }

    #[test]
    fn a_violation_says_what_is_allowed() {
        let shown = violations(json!({"command": vec!["x"; ITEMS_MAX + 1]}))[0].to_string();
        assert_eq!(
            shown,
            r#"command: "1001 items" is given, allowed is at most 1000 items"#
        );
    }

    #[test]
    fn ports_are_given_once_and_where_there_is_a_network() {
        assert_eq!(broken(json!({"ports": ["80", "80/udp", "81:81"]})), [""; 0]);
        assert_eq!(
            broken(json!({"ports": ["8080:80", "8080:81"]})),
            ["ports[1]"]
        );
        for network in ["host", "none"] {
            assert_eq!(
                broken(json!({"ports": [80], "network": network})),
                ["ports"]
            );
            assert_eq!(broken(json!({"network": network})), [""; 0]);
        }
    }

    #[test]
    fn swap_is_counted_with_memory() {
        let of = |resources: Value| broken(json!({"resources": resources}));
        assert_eq!(
            of(json!({"memory": "64Mi", "memory_swap": "64Mi"})),
            [""; 0]
        );
        let field = "resources.memory_swap";
        assert_eq!(
            of(json!({"memory": "64Mi", "memory_swap": "32Mi"})),
            [field]
        );
        assert_eq!(of(json!({"memory_swap": "64Mi"})), [field]);
    }

    #[test]
    fn placement_takes_labels_of_nodes() {
        let of = |key: &str, value: &str| broken(json!({"placement": {"labels": {key: value}}}));
        assert_eq!(of("zone", "eu-1"), [""; 0]);
        assert_eq!(of("zone", ""), [""; 0]);
        assert_eq!(of("a b", "x"), ["placement.labels"]);
        assert_eq!(of("zone", "a=b"), ["placement.labels"]);
    }
}
