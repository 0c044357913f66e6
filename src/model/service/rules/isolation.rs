//! Rules for what separates a container from its machine, and for how it is told to end.

use std::net::IpAddr;

use super::{PARTS_MAX, PATH_RULE, Rules, is_item, is_path};
use crate::model::service::{Device, ServiceSpec};

const NETWORK_RULE: &str = "bridge, none, host, or the name of a network of the engine";
const SIGNAL_RULE: &str = "a signal such as SIGTERM, TERM, 15 or RTMIN+3";
const CAPABILITY_RULE: &str = "a capability such as NET_ADMIN, or ALL";
const LIMIT_RULE: &str = "soft at most hard; -1 for no bound";

/// Names of Linux's signals, without `SIG`.
const SIGNALS: [&str; 35] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV",
    "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "UNUSED",
];
/// Largest number of a signal.
const SIGNAL_MAX: u8 = 64;

impl ServiceSpec {
    pub(super) fn isolation(&self, rules: &mut Rules) {
        let user = self.user.as_deref();
        let sound = user.is_none_or(|user| !user.is_empty() && is_item(user));
        let shown = user.unwrap_or_default();
        rules.require(sound, "user", shown, "text that is not empty");
        let folder = self.working_dir.as_deref();
        let shown = folder.unwrap_or_default();
        rules.require(folder.is_none_or(is_path), "working_dir", shown, PATH_RULE);
        let signal = self.stop.signal.as_deref();
        let shown = signal.unwrap_or_default();
        rules.require(
            signal.is_none_or(is_signal),
            "stop.signal",
            shown,
            SIGNAL_RULE,
        );
        self.rights(rules);
        self.network_rules(rules);
    }

    fn rights(&self, rules: &mut Rules) {
        for (field, names) in [
            ("capabilities.add", &self.capabilities.add),
            ("capabilities.drop", &self.capabilities.drop),
        ] {
            rules.at_most(field, names.len(), PARTS_MAX, "capabilities");
            for name in names.iter().take(PARTS_MAX) {
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                let sound = !name.is_empty() && name.bytes().all(word);
                rules.require(sound, field, name, CAPABILITY_RULE);
            }
        }
        rules.at_most("ulimits", self.ulimits.len(), PARTS_MAX, "ulimits");
        for (name, limit) in self.ulimits.iter().take(PARTS_MAX) {
            let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
            rules.require(sound, "ulimits", name, "a name such as nofile");
            let sound = limit.soft >= -1
                && limit.hard >= -1
                && (limit.hard == -1 || (limit.soft != -1 && limit.soft <= limit.hard));
            let given = format_args!("{} and {}", limit.soft, limit.hard);
            rules.require(sound, &format!("ulimits.{name}"), given, LIMIT_RULE);
        }
        rules.at_most("devices", self.devices.len(), PARTS_MAX, "devices");
        for (index, device) in self.devices.iter().enumerate().take(PARTS_MAX) {
            let field = |name: &str| format!("devices[{index}].{name}");
            let Device {
                host,
                container,
                permissions,
            } = device;
            rules.require(is_path(host), &field("host"), host, PATH_RULE);
            let inside = container.as_deref().unwrap_or(host);
            rules.require(is_path(inside), &field("container"), inside, PATH_RULE);
            let sound = (1..=3).contains(&permissions.len())
                && permissions.bytes().all(|byte| b"rwm".contains(&byte));
            rules.require(sound, &field("permissions"), permissions, "of r, w and m");
        }
    }

    fn network_rules(&self, rules: &mut Rules) {
        let network = self.network.as_deref();
        let shown = network.unwrap_or_default();
        rules.require(
            network.is_none_or(is_engine_name),
            "network",
            shown,
            NETWORK_RULE,
        );
        rules.at_most("dns", self.dns.len(), PARTS_MAX, "name servers");
        for server in self.dns.iter().take(PARTS_MAX) {
            rules.require(
                server.parse::<IpAddr>().is_ok(),
                "dns",
                server,
                "an IP address",
            );
        }
        rules.at_most("extra_hosts", self.extra_hosts.len(), PARTS_MAX, "hosts");
        for (name, address) in self.extra_hosts.iter().take(PARTS_MAX) {
            let sound = !name.is_empty() && is_item(name) && !name.contains([':', ' ']);
            rules.require(sound, "extra_hosts", name, "a host's name");
            let sound = address.parse::<IpAddr>().is_ok() || address == "host-gateway";
            let field = format!("extra_hosts.{name}");
            rules.require(sound, &field, address, "an IP address, or host-gateway");
        }
    }
}

/// Whether the engine takes this as the name of a volume or a network. `container:<id>`, which
/// would lend another container's network, is none.
pub(super) fn is_engine_name(text: &str) -> bool {
    let first = text.bytes().next();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.len() <= 128
        && text.bytes().all(word)
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=SIGNAL_MAX).contains(&number);
    }
    let text = text.to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let real_time = |base: &str, sign: char| {
        let offset = name.strip_prefix(base).map(|rest| rest.strip_prefix(sign));
        offset.is_some_and(|offset| {
            name == base || offset.is_some_and(|offset| offset.parse::<u8>().is_ok_and(|n| n <= 30))
        })
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+') || real_time("RTMAX", '-')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::broken;
    use super::*;

    #[test]
    fn signals_are_named_or_numbered() {
        for good in [
            "SIGTERM",
            "TERM",
            "sigusr1",
            "15",
            "64",
            "RTMIN",
            "SIGRTMIN+3",
            "RTMAX-0",
        ] {
            assert!(is_signal(good), "{good}");
        }
        for bad in [
            "", "SIG", "NOPE", "0", "65", "-9", "RTMIN-1", "RTMIN+", "RTMIN+31", "SIGTERM ",
        ] {
            assert!(!is_signal(bad), "{bad}");
            assert_eq!(broken(json!({"stop": {"signal": bad}})), ["stop.signal"]);
        }
    }

    #[test]
    fn rights_are_named_as_the_engine_names_them() {
        let sound = json!({
            "capabilities": {"add": ["NET_ADMIN", "cap_sys_time"], "drop": ["ALL"]},
            "ulimits": {"nofile": {"soft": 1024, "hard": 4096}, "core": {"soft": -1, "hard": -1}},
            "devices": [{"host": "/dev/fuse"}, {"host": "/dev/null", "container": "/dev/x", "permissions": "r"}],
            "user": "1000:1000", "working_dir": "/srv/app",
        });
        assert_eq!(broken(sound), [""; 0]);
        for (fields, field) in [
            (
                json!({"capabilities": {"add": ["NET-ADMIN"]}}),
                "capabilities.add",
            ),
            (json!({"capabilities": {"drop": [""]}}), "capabilities.drop"),
            (
                json!({"ulimits": {"No File": {"soft": 1, "hard": 1}}}),
                "ulimits",
            ),
            (
                json!({"ulimits": {"nofile": {"soft": 2, "hard": 1}}}),
                "ulimits.nofile",
            ),
            (
                json!({"ulimits": {"nofile": {"soft": -1, "hard": 1}}}),
                "ulimits.nofile",
            ),
            (json!({"devices": [{"host": "fuse"}]}), "devices[0].host"),
            (
                json!({"devices": [{"host": "/dev/a", "container": "b"}]}),
                "devices[0].container",
            ),
            (
                json!({"devices": [{"host": "/dev/a", "permissions": "x"}]}),
                "devices[0].permissions",
            ),
            (
                json!({"devices": [{"host": "/dev/a", "permissions": ""}]}),
                "devices[0].permissions",
            ),
            (json!({"user": ""}), "user"),
            (json!({"working_dir": "app"}), "working_dir"),
        ] {
            let shown = fields.to_string();
            assert!(broken(fields).contains(&field.to_owned()), "{shown}");
        }
    }

    #[test]
    fn networks_are_named_and_none_is_borrowed() {
        for good in ["bridge", "none", "host", "my_net-1.x"] {
            assert_eq!(broken(json!({"network": good})), [""; 0], "{good}");
        }
        for bad in ["", "container:abc", "a b", "/proc/1/ns/net", "-x"] {
            assert_eq!(broken(json!({"network": bad})), ["network"], "{bad}");
        }
    }

    #[test]
    fn hosts_and_name_servers_are_addresses() {
        let of = |hosts: Value| broken(json!({"extra_hosts": hosts}));
        assert_eq!(
            of(json!({"db": "10.0.0.1", "six": "::1", "me": "host-gateway"})),
            [""; 0]
        );
        assert_eq!(of(json!({"db": "db.example"})), ["extra_hosts.db"]);
        assert_eq!(of(json!({"a:b": "10.0.0.1"})), ["extra_hosts"]);
        assert_eq!(broken(json!({"dns": ["9.9.9.9", "nine"]})), ["dns"]);
    }
}
