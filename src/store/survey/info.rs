//! Reads what INFO and CONFIG GET say. Fields that are absent stay at their defaults.

use std::collections::HashMap;
use std::str::FromStr;

use super::{ReplicaLink, ServerFacts};

/// The facts of a server's INFO, and of its CONFIG GET where that was answered.
pub(super) fn facts(info: &str, config: Option<&HashMap<String, String>>) -> ServerFacts {
    let fields: HashMap<&str, &str> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default().to_owned();
    let (software, version) = match fields.get("valkey_version") {
        Some(version) => ("Valkey", (*version).to_owned()),
        None => ("Redis", text("redis_version")),
    };
    let role = text("role");
    let offset = match role.as_str() {
        "slave" => "slave_repl_offset",
        _ => "master_repl_offset",
    };
    let replicas = (0..).map_while(|number| fields.get(format!("slave{number}").as_str()));
    let set = |name: &str| config.and_then(|config| config.get(name));
    let set_number = |name: &str| set(name).and_then(|value| value.parse().ok());
    ServerFacts {
        software: software.to_owned(),
        version,
        uptime_s: number(&fields, "uptime_in_seconds"),
        clients: number(&fields, "connected_clients"),
        commands_per_s: number(&fields, "instantaneous_ops_per_sec"),
        memory_used_bytes: number(&fields, "used_memory"),
        memory_max_bytes: number(&fields, "maxmemory"),
        memory_policy: text("maxmemory_policy"),
        aof: text("aof_enabled") == "1",
        aof_ok: text("aof_last_write_status") != "err",
        appendfsync: set("appendfsync").cloned(),
        offset: number(&fields, offset),
        replicas: replicas.map(|line| replica(line)).collect(),
        link_up: fields.get("master_link_status").map(|up| *up == "up"),
        read_only: fields.get("slave_read_only").map(|flag| *flag == "1"),
        // A server that asks for none leaves the count of good ones out.
        min_replicas: set_number("min-replicas-to-write"),
        min_replicas_max_lag_s: set_number("min-replicas-max-lag"),
        tcp_keepalive_s: set_number("tcp-keepalive"),
        busy_reply_threshold_ms: set_number("busy-reply-threshold"),
        bind: set("bind").cloned(),
        role,
    }
}

fn number<T: FromStr + Default>(fields: &HashMap<&str, &str>, name: &str) -> T {
    let value = fields.get(name).and_then(|text| text.parse().ok());
    value.unwrap_or_default()
}

/// A line such as `ip=10.0.0.2,port=6379,state=online,offset=42,lag=1`.
fn replica(line: &str) -> ReplicaLink {
    let fields: HashMap<&str, &str> = line
        .split(',')
        .filter_map(|part| part.split_once('='))
        .collect();
    let text = |name: &str| fields.get(name).copied().unwrap_or_default();
    ReplicaLink {
        address: format!("{}:{}", text("ip"), text("port")),
        state: text("state").to_owned(),
        offset: number(&fields, "offset"),
        lag_s: number(&fields, "lag"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_info_says_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:9\r\n\r\nused_memory:5\r\n\
             maxmemory:10\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\n\
             aof_last_write_status:ok\r\nmaster_repl_offset:77\r\n\
             slave0:ip=10.0.0.2,port=6379,state=online,offset=70,lag=1\r\n\
             slave1:ip=::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n";
        let set = HashMap::from([("min-replicas-to-write".to_owned(), "1".to_owned())]);
        let read = facts(info, Some(&set));
        assert_eq!(
            (read.software.as_str(), read.version.as_str()),
            ("Redis", "7.0.15")
        );
        assert_eq!((read.memory_used_bytes, read.memory_max_bytes), (5, 10));
        assert!(read.aof && read.aof_ok && read.link_up.is_none());
        assert_eq!((read.offset, read.min_replicas), (77, Some(1)));
        assert_eq!(read.replicas.len(), 2);
        assert_eq!(read.replicas[0].address, "10.0.0.2:6379");
        assert_eq!(read.replicas[1].address, "::1:6380");
        assert_eq!((read.replicas[0].offset, read.replicas[0].lag_s), (70, 1));
    }

    #[test]
    fn a_replica_of_valkey_is_known_as_such() {
        let info = "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nrole:slave\r\n\
             master_link_status:down\r\nslave_read_only:1\r\nslave_repl_offset:5\r\n";
        let read = facts(info, None);
        assert_eq!(
            (read.software.as_str(), read.version.as_str()),
            ("Valkey", "8.1.0")
        );
        assert_eq!((read.link_up, read.read_only), (Some(false), Some(true)));
        assert_eq!((read.offset, read.min_replicas), (5, None));
    }
}
