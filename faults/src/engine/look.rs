//! What the engine says of containers when it is asked.

use serde_json::{Map, Value, json};

use super::clock::{rfc3339, wall_ns};
use super::images;
use super::journal::{Made, State};
use super::machine::Machine;

/// What Docker says of a time that was not yet.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// First of the ports of the machine that are given where none is named.
const PORTS_FROM: u16 = 32_768;

fn state(made: &Made) -> &'static str {
    match made.state {
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Exited => "exited",
    }
}

fn address(made: &Made) -> Option<String> {
    let [high, low] = made.number.to_be_bytes();
    made.lives().then(|| format!("172.17.{high}.{low}"))
}

/// A line of the list.
pub(super) fn summary(made: &Made) -> Value {
    let status = match made.state {
        State::Created => "Created".to_owned(),
        State::Running => "Up 1 second".to_owned(),
        State::Paused => "Up 1 second (Paused)".to_owned(),
        State::Exited => format!("Exited ({}) 1 second ago", made.exit_code),
    };
    let ports: Vec<Value> = ports(made)
        .into_iter()
        .filter(|_| made.lives())
        .map(|(inside, kind, host)| {
            json!({"IP": "0.0.0.0", "PrivatePort": inside, "PublicPort": host, "Type": kind})
        })
        .collect();
    json!({
        "Id": made.id, "Names": [format!("/{}", made.name)], "Image": made.image(),
        "ImageID": images::id_of(&images::full_name(&made.image())),
        "Created": made.created_ns / 1_000_000_000, "Labels": made.labels(), "State": state(made),
        "Status": status, "Ports": ports, "Command": "played",
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address(made)}}},
    })
}

/// All of one.
pub(super) fn inspection(made: &Made) -> Value {
    let time = |at_ns: i64| {
        if at_ns == 0 {
            NEVER.to_owned()
        } else {
            rfc3339(at_ns)
        }
    };
    let mut bound = Map::new();
    for (inside, kind, host) in ports(made).into_iter().filter(|_| made.lives()) {
        let binding = json!([{"HostIp": "0.0.0.0", "HostPort": host.to_string()}]);
        bound.insert(format!("{inside}/{kind}"), binding);
    }
    json!({
        "Id": made.id, "Name": format!("/{}", made.name), "Created": rfc3339(made.created_ns),
        "Image": images::id_of(&images::full_name(&made.image())),
        "State": {
            "Status": state(made), "Running": made.lives(), "Paused": made.state == State::Paused,
            "Restarting": false, "OOMKilled": false, "Dead": false, "Error": "",
            "Pid": if made.lives() { i64::from(made.number) } else { 0 },
            "ExitCode": made.exit_code, "StartedAt": time(made.started_ns),
            "FinishedAt": time(made.ended_ns),
        },
        "Config": {
            "Image": made.image(), "Labels": made.labels(), "Env": made.env(),
            "Cmd": made.body["Cmd"], "Entrypoint": made.body["Entrypoint"],
        },
        "HostConfig": made.body["HostConfig"],
        "NetworkSettings": {
            "Ports": bound, "Networks": {"bridge": {"IPAddress": address(made)}},
        },
    })
}

/// Its published ports: inside, protocol, outside.
fn ports(made: &Made) -> Vec<(u16, String, u16)> {
    let bindings = made.body["HostConfig"]["PortBindings"].as_object();
    let bindings = bindings.into_iter().flatten();
    let port = |(key, bound): (&String, &Value)| {
        let (inside, kind) = key.split_once('/')?;
        let host = bound[0]["HostPort"]
            .as_str()
            .and_then(|host| host.parse().ok());
        let host = host.unwrap_or_else(|| PORTS_FROM.saturating_add(made.number));
        Some((inside.parse().ok()?, kind.to_owned(), host))
    };
    bindings.filter_map(port).collect()
}

/// The ports of the machine that a container has asked for by number.
pub(super) fn fixed_ports(made: &Made) -> Vec<(String, u16)> {
    let bindings = made.body["HostConfig"]["PortBindings"].as_object();
    let bindings = bindings.into_iter().flatten();
    let fixed = bindings.filter_map(|(key, bound)| {
        let host = bound[0]["HostPort"].as_str()?.parse().ok()?;
        Some((key.split_once('/')?.1.to_owned(), host))
    });
    fixed.collect()
}

/// What the engine says of itself.
pub(super) fn info(machine: &Machine) -> Value {
    let inner = machine.inner();
    let running = inner
        .containers
        .values()
        .filter(|made| made.lives())
        .count();
    json!({
        "ID": machine.id, "Containers": inner.containers.len(), "ContainersRunning": running,
        "Images": inner.images.len(), "Driver": "played", "DockerRootDir": machine.options.dir,
        "NCPU": machine.options.cpus, "MemTotal": machine.options.memory, "Name": machine.node,
        "ServerVersion": "played", "OperatingSystem": "played", "OSType": "linux",
        "Architecture": "x86_64", "SystemTime": rfc3339(wall_ns()), "LiveRestoreEnabled": true,
    })
}

/// What a container uses: made up, and growing with time.
pub(super) fn stats(made: &Made) -> Value {
    if !made.lives() {
        return json!({"read": NEVER});
    }
    let lived = wall_ns().saturating_sub(made.started_ns).max(0);
    json!({
        "read": rfc3339(wall_ns()), "pids_stats": {"current": 1},
        "cpu_stats": {"cpu_usage": {"total_usage": lived / 1000}},
        "memory_stats": {"usage": 1 << 20, "limit": 1 << 30, "stats": {"inactive_file": 0}},
        "blkio_stats": {"io_service_bytes_recursive": []},
        "networks": {"eth0": {"rx_bytes": 0, "tx_bytes": 0}},
    })
}
