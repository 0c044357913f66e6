//! What a node's own settings allow a container, whatever stands in Redis: a pure judgement.
//!
//! Who can write to Redis must not be root on every machine. So an agent asks this, and the rules
//! of a spec, before it creates a container and before it starts one that was created before.
//!
//! Paths are compared by their parts, after `.` and `..` are resolved in the text alone. Symbolic
//! links inside an allowed folder are followed by the engine: whoever may make some there may reach
//! whatever they point to, so a folder that others write to should not be allowed.

use crate::model::ServiceSpec;
use crate::model::service::MountKind;
use crate::settings::AllowSettings;

/// The network mode that is the machine's own network.
const HOST_NETWORK: &str = "host";
/// Capabilities that the engine gives every container: adding them changes nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Why a node of these settings does not run this, in words that say what to do; `None` if it does.
pub(super) fn refusal(spec: &ServiceSpec, allow: &AllowSettings, node: &str) -> Option<String> {
    let refused = |what: &str, setting: &str, field: &str| {
        Some(format!(
            "node {node} does not allow {what}: {setting} there, or leave `{field}` out of the service"
        ))
    };
    if spec.privileged && !allow.privileged {
        let setting = "set agent.allow.privileged";
        return refused("privileged containers", setting, "privileged");
    }
    if spec.network.as_deref() == Some(HOST_NETWORK) && !allow.host_network {
        let setting = "set agent.allow.host_network";
        return refused("its own network to containers", setting, "network");
    }
    for device in &spec.devices {
        if !allow.devices.iter().any(|one| matches(one, &device.host)) {
            let what = format!("the device {}", device.host);
            return refused(&what, "add it to agent.allow.devices", "devices");
        }
    }
    let binds = spec.mounts.iter().filter(|it| it.kind == MountKind::Bind);
    for bind in binds {
        let source = bind.source.as_deref().unwrap_or_default();
        let source_parts = resolved(source);
        let mut folders = allow.binds.iter().map(|folder| resolved(folder));
        if !source.starts_with('/') || !folders.any(|folder| source_parts.starts_with(&folder)) {
            let what = format!("binds of {source}");
            return refused(&what, "add a folder to agent.allow.binds", "mounts");
        }
    }
    for name in &spec.capabilities.add {
        let wanted = plain_name(name);
        let is = |allowed: &String| {
            let allowed = plain_name(allowed);
            allowed == wanted || (allowed == "ALL" && wanted != "ALL")
        };
        if !DEFAULT_CAPABILITIES.contains(&wanted.as_str()) && !allow.capabilities.iter().any(is) {
            let what = format!("the capability {wanted}");
            let setting = "add it to agent.allow.capabilities";
            return refused(&what, setting, "capabilities.add");
        }
    }
    None
}

/// The parts of a path, with `.` and `..` resolved as if no part were a symbolic link.
fn resolved(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// Whether a path fits a pattern, part by part; `*` stands for any part of a name.
fn matches(pattern: &str, path: &str) -> bool {
    let (patterns, parts) = (resolved(pattern), resolved(path));
    path.starts_with('/')
        && patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(parts)
            .all(|(pattern, part)| name_matches(pattern, part))
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        // The first place that fits leaves the most for the pieces after it.
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// A capability as the engine writes it: in capitals, without `CAP_`.
fn plain_name(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(fields: &Value, allow: &AllowSettings) -> Option<String> {
        let mut spec = json!({"name": "web", "image": "nginx"});
        let fields = fields.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        refusal(&spec, allow, "worker1")
    }

    fn texts(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn nothing_dangerous_is_allowed_unless_the_settings_say_so() {
        let nothing = AllowSettings::default();
        let all = AllowSettings {
            privileged: true,
            host_network: true,
            devices: texts(&["/dev/fuse"]),
            binds: texts(&["/srv"]),
            capabilities: texts(&["NET_ADMIN"]),
        };
        for (fields, words) in [
            (
                json!({"privileged": true}),
                "node worker1 does not allow privileged containers: set agent.allow.privileged there, or leave `privileged` out of the service",
            ),
            (
                json!({"network": "host"}),
                "node worker1 does not allow its own network to containers: set agent.allow.host_network there",
            ),
            (
                json!({"devices": [{"host": "/dev/fuse"}]}),
                "node worker1 does not allow the device /dev/fuse: add it to agent.allow.devices there",
            ),
            (
                json!({"mounts": [{"type": "bind", "source": "/srv/a", "target": "/a"}]}),
                "node worker1 does not allow binds of /srv/a: add a folder to agent.allow.binds there",
            ),
            (
                json!({"capabilities": {"add": ["net_admin"]}}),
                "node worker1 does not allow the capability NET_ADMIN: add it to agent.allow.capabilities there",
            ),
        ] {
            let refused = judge(&fields, &nothing).unwrap();
            assert!(refused.starts_with(words), "{refused}");
            assert_eq!(judge(&fields, &all), None, "{fields}");
        }
    }

    #[test]
    fn what_is_harmless_is_allowed_everywhere() {
        for fields in [
            json!({}),
            json!({"network": "bridge"}),
            json!({"network": "none"}),
            json!({"network": "backend"}),
            json!({"mounts": [
                {"type": "volume", "source": "data", "target": "/data"},
                {"type": "tmpfs", "target": "/tmp"},
            ]}),
            json!({"capabilities": {"add": ["CHOWN", "cap_net_raw"], "drop": ["ALL"]}}),
        ] {
            assert_eq!(judge(&fields, &AllowSettings::default()), None, "{fields}");
        }
    }

    #[test]
    fn binds_lie_in_an_allowed_folder_by_whole_parts() {
        let of = |folder: &str, source: &str| {
            let allow = AllowSettings {
                binds: texts(&[folder]),
                ..AllowSettings::default()
            };
            let mount = json!({"type": "bind", "source": source, "target": "/a"});
            judge(&json!({"mounts": [mount]}), &allow).is_none()
        };
        for (folder, source) in [
            ("/srv/data", "/srv/data"),
            ("/srv/data/", "/srv/data/a/b"),
            ("/srv/data", "/srv//data/./a"),
            ("/srv/data", "/srv/other/../data/a"),
            ("/", "/etc"),
        ] {
            assert!(of(folder, source), "{source} in {folder}");
        }
        for (folder, source) in [
            ("/srv/data", "/srv"),
            ("/srv/data", "/srv/database"),
            ("/srv/data", "/srv/data/../../etc"),
            ("/srv/data", "/srv/data/.."),
            ("/srv/data", "srv/data"),
            ("/srv/data", ""),
            ("/", "etc"),
        ] {
            assert!(!of(folder, source), "{source} in {folder}");
        }
    }

    #[test]
    fn devices_are_paths_or_patterns_of_names() {
        for (pattern, path) in [
            ("/dev/fuse", "/dev/fuse"),
            ("/dev/ttyUSB*", "/dev/ttyUSB0"),
            ("/dev/*", "/dev/sda"),
            ("/dev/*/by-id", "/dev/disk/by-id"),
            ("/dev/nvme*n*", "/dev/nvme0n1"),
            ("/dev/a*a", "/dev/aa"),
        ] {
            assert!(matches(pattern, path), "{path} by {pattern}");
        }
        for (pattern, path) in [
            ("/dev/fuse", "/dev/fuse2"),
            ("/dev/ttyUSB*", "/dev/ttyACM0"),
            ("/dev/*", "/dev/snd/timer"),
            ("/dev/*", "/dev/../etc"),
            ("/dev/snd/*", "/dev/snd/../mem"),
            ("/dev/a*a", "/dev/a"),
            ("/dev/fuse", "dev/fuse"),
        ] {
            assert!(!matches(pattern, path), "{path} by {pattern}");
        }
    }

    #[test]
    fn all_capabilities_are_allowed_by_that_word_only() {
        let of = |allowed: &[&str], wanted: &str| {
            let allow = AllowSettings {
                capabilities: texts(allowed),
                ..AllowSettings::default()
            };
            judge(&json!({"capabilities": {"add": [wanted]}}), &allow).is_none()
        };
        assert!(of(&["ALL"], "ALL") && of(&["ALL"], "SYS_ADMIN"));
        assert!(of(&["cap_sys_time"], "SYS_TIME"));
        assert!(!of(&["SYS_TIME"], "ALL") && !of(&["SYS_TIME"], "SYS_ADMIN"));
    }
}
