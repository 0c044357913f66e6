//! What a service of the Compose Specification can say and kubeleet cannot do: each key with what
//! follows and what to do instead. A key that is in no table is unknown.

use super::super::node::{At, unknown};
use super::super::note::{Level, Notes};

/// Keys that the other parts of the translation read.
const TRANSLATED: [&str; 44] = [
    "build",
    "cap_add",
    "cap_drop",
    "command",
    "configs",
    "cpus",
    "depends_on",
    "deploy",
    "devices",
    "dns",
    "entrypoint",
    "env_file",
    "environment",
    "extends",
    "extra_hosts",
    "healthcheck",
    "image",
    "init",
    "label_file",
    "labels",
    "links",
    "mem_limit",
    "mem_reservation",
    "memswap_limit",
    "network_mode",
    "networks",
    "pids_limit",
    "platform",
    "ports",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "secrets",
    "shm_size",
    "stop_grace_period",
    "stop_signal",
    "tmpfs",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
];

/// Parts without which the same runs, if perhaps a little otherwise.
const WITHOUT_EFFECT: [(&str, &str); 23] = [
    ("annotations", "has no effect here: use labels"),
    ("attach", "has no effect here: nothing is attached"),
    (
        "blkio_config",
        "has no effect here: block io is not limited",
    ),
    (
        "container_name",
        "has no effect here: a container is named after service, replica and pod",
    ),
    ("cpu_count", "has no effect here: use cpus"),
    ("cpu_percent", "has no effect here: use cpus"),
    ("cpu_period", "has no effect here: use cpus"),
    ("cpu_quota", "has no effect here: use cpus"),
    ("cpu_rt_period", "has no effect here"),
    ("cpu_rt_runtime", "has no effect here"),
    ("cpu_shares", "has no effect here: use cpus"),
    ("cpuset", "has no effect here: use cpus"),
    (
        "develop",
        "has no effect here: it is for docker compose watch",
    ),
    (
        "domainname",
        "has no effect here: a container's host name is its id",
    ),
    ("expose", "has no effect here: use ports"),
    (
        "hostname",
        "has no effect here: a container's host name is its id",
    ),
    (
        "logging",
        "has no effect here: the agent keeps and bounds the logs",
    ),
    ("mem_swappiness", "has no effect here: use memswap_limit"),
    ("oom_score_adj", "has no effect here"),
    (
        "pull_refresh_after",
        "has no effect here: use pull_policy always or missing",
    ),
    (
        "storage_opt",
        "has no effect here: the container's own file system is not limited",
    ),
    ("tty", "has no effect here: a container has no terminal"),
    ("mac_address", "has no effect here: the engine chooses it"),
];

/// Parts without which something else would run.
const NEEDED: [(&str, &str); 20] = [
    ("cgroup_parent", "is not possible here: leave it out"),
    ("credential_spec", "is not possible here: it is for Windows"),
    ("device_cgroup_rules", "is not possible here: use devices"),
    ("dns_opt", "is not possible here: only dns is"),
    ("dns_search", "is not possible here: write whole names"),
    (
        "external_links",
        "is not possible here: give the address in environment",
    ),
    ("gpus", "is not possible here"),
    ("group_add", "is not possible here: use user: \"UID:GID\""),
    (
        "models",
        "is not possible here: run the model as a service of its own",
    ),
    ("oom_kill_disable", "is not possible here: use mem_limit"),
    (
        "post_start",
        "is not possible here: make it a part of the command",
    ),
    (
        "pre_stop",
        "is not possible here: let the program do it at its stop signal",
    ),
    (
        "provider",
        "is not possible here: run what it provides beside kubeleet",
    ),
    (
        "runtime",
        "is not possible here: set the engine's default on the nodes",
    ),
    (
        "security_opt",
        "is not possible here: set the engine's default on the nodes",
    ),
    (
        "stdin_open",
        "is not possible here: a program that ends with its input would end at once",
    ),
    (
        "sysctls",
        "is not possible here: set the engine's default on the nodes",
    ),
    (
        "use_api_socket",
        "is not possible here: mount the engine's socket with volumes",
    ),
    (
        "volumes_from",
        "is not possible here: name the volumes with volumes",
    ),
    ("isolation", "is not possible here"),
];

/// Namespaces of the kernel: a container has its own of each.
const NAMESPACES: [&str; 5] = ["cgroup", "ipc", "pid", "userns_mode", "uts"];

/// Names every key that is not translated, unless it asks for nothing.
pub(super) fn check(service: &At, notes: &mut Notes) {
    for at in service.map(notes) {
        if at.node.asks_for_nothing() {
            continue;
        }
        let in_table = |table: &[(&str, &'static str)]| {
            let found = table.iter().find(|(key, _)| *key == at.key);
            found.map(|(_, text)| *text)
        };
        if let Some(text) = in_table(&WITHOUT_EFFECT) {
            notes.add(Level::Warning, at.place, &at.path, text);
        } else if let Some(text) = in_table(&NEEDED) {
            notes.add(Level::Refused, at.place, &at.path, text);
        } else if NAMESPACES.contains(&at.key) {
            namespace(&at, notes);
        } else if !TRANSLATED.contains(&at.key) {
            at.refuse(notes, unknown(at.key, &known()));
        }
    }
}

/// A namespace that is shared opens the wall around a container, or joins two.
fn namespace(at: &At, notes: &mut Notes) {
    if at.text(notes).is_some_and(|text| text != "private") {
        at.refuse(
            notes,
            "is not possible here: a container has namespaces of its own",
        );
    }
}

/// Every key of a service.
fn known() -> Vec<&'static str> {
    let tables = WITHOUT_EFFECT.iter().chain(&NEEDED);
    let mut known: Vec<&str> = tables.map(|(key, _)| *key).collect();
    known.extend(TRANSLATED);
    known.extend(NAMESPACES);
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/compose.md");
        for key in known() {
            assert!(page.contains(&format!("`{key}`")), "docs/compose.md: {key}");
        }
    }
}
