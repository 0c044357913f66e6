//! The rules of a spec: every broken one is named, with what was given and what is allowed.

use super::{FILES_BYTES_MAX, ITEM_BYTES_MAX, ITEMS_MAX, MountKind, PORTS_MAX, Probe, ServiceSpec};
use crate::model::Violation;
use crate::model::image::{IMAGE_RULE, ImageReference};
use crate::model::name::{NAME_RULE, is_name};
use crate::model::node::{NODE_LABEL_RULE, is_node_label};

const LABEL_RULE: &str =
    "a key of 1 to 253 characters that is not `orchestrator` and does not begin with `kubeleet.`";
const LABEL_KEY_MAX: usize = 253;

impl ServiceSpec {
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
        self.storage_violations(&mut broken);
        self.isolation_violations(&mut broken);
        self.health_violations(&mut broken);
        broken
    }

    fn storage_violations(&self, broken: &mut Vec<Violation>) {
        let mut rule = |holds: bool, field: String, given: &str, allowed: &str| {
            if !holds {
                broken.push(Violation::new(field, given, allowed));
            }
        };
        for (field, count) in [("mounts", self.mounts.len()), ("files", self.files.len())] {
            rule(
                count <= PARTS_MAX,
                field.to_owned(),
                &count.to_string(),
                PARTS_RULE,
            );
        }
        let mut targets = std::collections::BTreeSet::new();
        for (index, mount) in self.mounts.iter().enumerate().take(PARTS_MAX) {
            let field = |name: &str| format!("mounts[{index}].{name}");
            rule(
                is_path(&mount.target),
                field("target"),
                &mount.target,
                PATH_RULE,
            );
            let once = targets.insert(mount.target.as_str());
            rule(once, field("target"), &mount.target, "each target once");
            let source = mount.source.as_deref().unwrap_or_default();
            let (sound, allowed) = match mount.kind {
                MountKind::Bind => (is_path(source), PATH_RULE),
                MountKind::Volume => (is_volume(source), VOLUME_RULE),
                MountKind::Tmpfs => (source.is_empty(), "nothing, for a tmpfs"),
            };
            rule(sound, field("source"), source, allowed);
            let size = mount.size.map(|size| size.to_string()).unwrap_or_default();
            let sound = mount.size.is_none() || mount.kind == MountKind::Tmpfs;
            rule(sound, field("size"), &size, "nothing, except for a tmpfs");
        }
        let mut bytes = 0;
        for (index, file) in self.files.iter().enumerate().take(PARTS_MAX) {
            let field = |name: &str| format!("files[{index}].{name}");
            rule(is_path(&file.path), field("path"), &file.path, PATH_RULE);
            let once = targets.insert(file.path.as_str());
            rule(once, field("path"), &file.path, "each path once");
            let mode = u32::from_str_radix(&file.mode, 8).is_ok_and(|mode| mode <= 0o7777);
            rule(
                mode,
                field("mode"),
                &file.mode,
                "an octal text such as \"0444\"",
            );
            let one = file.content.is_some() != file.base64.is_some();
            rule(one, field("content"), "", "either `content` or `base64`");
            let sound = file.base64.as_deref().is_none_or(is_base64);
            rule(sound, field("base64"), "", "base 64 with padding");
            bytes += file.content.as_deref().map_or(0, str::len);
            bytes += file.base64.as_deref().map_or(0, str::len);
        }
        rule(
            bytes <= FILES_BYTES_MAX,
            "files".to_owned(),
            &format!("{bytes} bytes"),
            &format!("at most {FILES_BYTES_MAX} bytes in all files together"),
        );
    }

    fn isolation_violations(&self, broken: &mut Vec<Violation>) {
        let mut rule = |holds: bool, field: &str, given: &str, allowed: &str| {
            if !holds {
                broken.push(Violation::new(field, given, allowed));
            }
        };
        for (field, text) in [("working_dir", &self.working_dir), ("user", &self.user)] {
            let sound = text
                .as_deref()
                .is_none_or(|text| !text.is_empty() && is_item(text));
            rule(
                sound,
                field,
                text.as_deref().unwrap_or_default(),
                "text that is not empty",
            );
        }
        let dir = self.working_dir.as_deref();
        rule(
            dir.is_none_or(is_path),
            "working_dir",
            dir.unwrap_or_default(),
            PATH_RULE,
        );
        let network = self.network.as_deref();
        let sound = network.is_none_or(is_volume);
        rule(sound, "network", network.unwrap_or_default(), NETWORK_RULE);
        let signal = self.stop.signal.as_deref();
        let sound = signal.is_none_or(|signal| {
            let word = !signal.is_empty() && signal.len() <= 16;
            word && signal
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-".contains(&byte))
        });
        rule(
            sound,
            "stop.signal",
            signal.unwrap_or_default(),
            "a signal such as SIGTERM or 15",
        );
        for (field, names) in [
            ("capabilities.add", &self.capabilities.add),
            ("capabilities.drop", &self.capabilities.drop),
        ] {
            rule(
                names.len() <= PARTS_MAX,
                field,
                &names.len().to_string(),
                PARTS_RULE,
            );
            for name in names.iter().take(PARTS_MAX) {
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let sound = !name.is_empty() && name.bytes().all(word);
                rule(sound, field, name, "a capability such as NET_ADMIN, or ALL");
            }
        }
        for (name, limit) in &self.ulimits {
            let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
            rule(sound, "ulimits", name, "a name such as nofile");
            let sound = limit.soft >= -1
                && limit.hard >= -1
                && (limit.hard == -1 || (limit.soft != -1 && limit.soft <= limit.hard));
            let given = format!("{} and {}", limit.soft, limit.hard);
            rule(
                sound,
                &format!("ulimits.{name}"),
                &given,
                "soft at most hard; -1 for no bound",
            );
        }
        rule(
            self.devices.len() <= PARTS_MAX,
            "devices",
            &self.devices.len().to_string(),
            PARTS_RULE,
        );
        for device in self.devices.iter().take(PARTS_MAX) {
            rule(
                is_path(&device.host),
                "devices.host",
                &device.host,
                PATH_RULE,
            );
            let inside = device.container.as_deref();
            let sound = inside.is_none_or(is_path);
            rule(
                sound,
                "devices.container",
                inside.unwrap_or_default(),
                PATH_RULE,
            );
            let may = &device.permissions;
            let sound =
                !may.is_empty() && may.len() <= 3 && may.bytes().all(|byte| b"rwm".contains(&byte));
            rule(sound, "devices.permissions", may, "of r, w and m");
        }
        for server in &self.dns {
            let sound = server.parse::<std::net::IpAddr>().is_ok();
            rule(sound, "dns", server, "an IP address");
        }
        for (name, address) in &self.extra_hosts {
            let sound = !name.is_empty() && is_item(name) && !name.contains([':', ' ']);
            rule(sound, "extra_hosts", name, "a host's name");
            let sound = address.parse::<std::net::IpAddr>().is_ok() || address == "host-gateway";
            rule(
                sound,
                &format!("extra_hosts.{name}"),
                address,
                "an IP address, or host-gateway",
            );
        }
        for (key, value) in &self.placement.labels {
            let sound = is_node_label(key, value);
            rule(
                sound,
                "placement.labels",
                &format!("{key}={value}"),
                NODE_LABEL_RULE,
            );
        }
    }

    fn health_violations(&self, broken: &mut Vec<Violation>) {
        let Some(health) = &self.health else { return };
        for (field, probe) in [
            ("liveness", &health.liveness),
            ("readiness", &health.readiness),
        ] {
            let Some(probe) = probe else { continue };
            let mut rule = |holds: bool, name: &str, given: &str, allowed: &str| {
                if !holds {
                    let field = format!("health.{field}{name}");
                    broken.push(Violation::new(field, given, allowed));
                }
            };
            rule(
                kinds(probe) == 1,
                "",
                &format!("{} of them", kinds(probe)),
                "exactly one of exec, http and tcp",
            );
            let exec = probe.exec.as_deref();
            rule(
                exec.is_none_or(|command| !command.is_empty()),
                ".exec",
                "[]",
                "a command",
            );
            let http = probe.http.as_ref();
            let sound = http.is_none_or(|http| http.path.starts_with('/') && is_item(&http.path));
            rule(
                sound,
                ".http.path",
                http.map_or("", |http| &http.path),
                "a path that begins with /",
            );
            let ports = [
                http.map(|http| http.port),
                probe.tcp.as_ref().map(|tcp| tcp.port),
            ];
            rule(!ports.contains(&Some(0)), ".port", "0", "1 to 65535");
            for (name, span) in [(".interval", probe.interval), (".timeout", probe.timeout)] {
                let sound = span.0 >= PROBE_PERIOD_MIN;
                rule(sound, name, &span.to_string(), "at least 100ms");
            }
            for (name, count) in [
                (".failures", probe.failures),
                (".successes", probe.successes),
            ] {
                rule(
                    (1..=1000).contains(&count),
                    name,
                    &count.to_string(),
                    "1 to 1000",
                );
            }
        }
    }
}

/// Most mounts, files, devices and capabilities, each.
const PARTS_MAX: usize = 100;
const PARTS_RULE: &str = "at most 100";
/// Shortest period of a probe: below, looking would cost more than working.
const PROBE_PERIOD_MIN: std::time::Duration = std::time::Duration::from_millis(100);
const PATH_RULE: &str = "an absolute path";
const VOLUME_RULE: &str = "a volume's name: letters, digits, `_`, `.` and `-`";
const NETWORK_RULE: &str = "bridge, none, host, or the name of a network of the engine";

fn kinds(probe: &Probe) -> usize {
    usize::from(probe.exec.is_some())
        + usize::from(probe.http.is_some())
        + usize::from(probe.tcp.is_some())
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && is_item(text)
}

fn is_volume(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    first && text.len() <= 128 && text.bytes().all(word)
}

fn is_base64(text: &str) -> bool {
    let letters = text.trim_end_matches('=');
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+/".contains(&byte);
    text.len().is_multiple_of(4) && text.len() - letters.len() <= 2 && letters.bytes().all(word)
}

const ITEM_RULE: &str = "at most 32 KiB of text without NUL";

fn is_item(text: &str) -> bool {
    text.len() <= ITEM_BYTES_MAX && !text.contains('\0')
}
