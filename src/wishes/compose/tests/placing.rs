//! How many pods, with what, where, and whether they are well.

use serde_json::{Value, json};

use super::super::super::Options;
use super::super::super::tests::{read_with, told};
use super::{check, refuses, warns};

#[test]
fn resources_of_pods() {
    check(
        "deploy: {resources: {limits: {cpus: '0.5', memory: 512M, pids: 100}}}",
        json!({"resources": {"cpu": 0.5, "memory": 536_870_912, "pids": 100}}),
    );
    check(
        "mem_limit: 1g, cpus: 2, pids_limit: 50, shm_size: 64m, memswap_limit: 2g",
        json!({"resources": {"cpu": 2, "memory": 1_073_741_824, "memory_swap": 2_147_483_648_u64, "shm": 67_108_864, "pids": 50}}),
    );
    check(
        "mem_limit: 1g, deploy: {resources: {limits: {memory: 1024m}}}",
        json!({"resources": {"memory": 1_073_741_824}}),
    );
    check("cpus: 0.000, pids_limit: -1", json!({}));
    check(
        "ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5, core: -1}",
        json!({"ulimits": {"nofile": {"soft": 10, "hard": 20}, "nproc": {"soft": 5, "hard": 5}, "core": {"soft": -1, "hard": -1}}}),
    );
    refuses(
        "mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}",
        "services.web.mem_limit",
        "another amount",
    );
    refuses(
        "mem_limit: 1x",
        "services.web.mem_limit",
        "an amount such as",
    );
    refuses("mem_limit: 1m", "services.web.mem_limit", "6 MiB");
    refuses("cpus: 500m", "services.web.cpus", "a number of cores");
    refuses(
        "deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}",
        "services.web.deploy.resources.reservations.devices",
        "not possible",
    );
    refuses(
        "deploy: {resources: {limit: {}}}",
        "services.web.deploy.resources.limit",
        "meant is perhaps limits",
    );
    refuses(
        "ulimits: {nofile: {soft: 10}}",
        "services.web.ulimits.nofile",
        "soft and hard",
    );
    warns(
        "deploy: {resources: {limits: {memory: 1g}, reservations: {memory: 512m}}}",
        "services.web.deploy.resources.reservations.memory",
        "the limit is reserved",
    );
    warns(
        "mem_reservation: 1g",
        "services.web.mem_reservation",
        "no effect here without a limit",
    );
    warns(
        "memswap_limit: -1",
        "services.web.memswap_limit",
        "the engine decides",
    );
}

#[test]
fn copies_restarts_and_places() {
    check("deploy: {replicas: 3}", json!({"replicas": 3}));
    check(
        "scale: 2, deploy: {replicas: 2, mode: replicated}",
        json!({"replicas": 2}),
    );
    check("restart: 'no'", json!({"restart": {"policy": "never"}}));
    check("restart: no", json!({"restart": {"policy": "never"}}));
    check("restart: unless-stopped", json!({}));
    check(
        "restart: on-failure:3",
        json!({"restart": {"policy": "on-failure", "max": 3}}),
    );
    check(
        "restart: on-failure",
        json!({"restart": {"policy": "on-failure"}}),
    );
    check(
        "restart: always, deploy: {restart_policy: {condition: none}}",
        json!({"restart": {"policy": "never"}}),
    );
    check(
        "deploy: {restart_policy: {max_attempts: 2, delay: 5s, window: 1m}}",
        json!({"restart": {"policy": "always", "max": 2}}),
    );
    check(
        "deploy: {placement: {constraints: ['node.labels.disk == ssd', node.hostname==n1]}}",
        json!({"placement": {"labels": {"disk": "ssd", "node": "n1"}}}),
    );
    check(
        "deploy: {placement: {constraints: [node.labels.a != b, 'node.platform.arch == x86_64'], \
         preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}], max_replicas_per_node: 2}}",
        json!({"placement": {
            "labels": {"arch": "amd64"}, "constraints": ["a!=b"], "max_per_node": 2,
            "spread": [{"over": "zone", "weight": 100}, {"over": "rack", "weight": 50}],
        }}),
    );
    check(
        "platform: linux/arm64",
        json!({"placement": {"platform": "linux/arm64"}}),
    );
    refuses(
        "scale: 2, deploy: {replicas: 3}",
        "services.web.scale",
        "another number",
    );
    refuses(
        "deploy: {replicas: 0}",
        "services.web.deploy",
        "a whole number from 1",
    );
    refuses(
        "deploy: {mode: global}",
        "services.web.deploy.mode",
        "replicated",
    );
    refuses(
        "restart: sometimes",
        "services.web.restart",
        "unless-stopped",
    );
    refuses(
        "deploy: {placement: {constraints: [node.role == manager]}}",
        "services.web.deploy.placement.constraints[0]",
        "node.labels.KEY",
    );
    refuses(
        "deploy: {placement: {constraints: [node.labels.a == b, node.labels.a == c]}}",
        "services.web.deploy.placement.constraints[1]",
        "b and c at once",
    );
    warns(
        "deploy: {labels: {a: b}, update_config: {parallelism: 2}}",
        "services.web.deploy.labels",
        "no effect",
    );
    refuses(
        "deploy: {placement: {preferences: [{spread: zone}]}}",
        "services.web.deploy.placement.preferences[0]",
        "node.labels.KEY",
    );
    warns(
        "deploy: {restart_policy: {delay: 5s}}",
        "services.web.deploy.restart_policy.delay",
        "pauses grow",
    );
    let silent = read_with(
        &[("f", "services:\n  a: {image: i}\n")],
        &[],
        &Options::default(),
    );
    assert_eq!(silent.wishes[0].body["restart"], json!({"policy": "never"}));
    assert!(
        told(&silent)[0].contains("f:2: services.a: says no restart"),
        "{:?}",
        told(&silent)
    );
}

#[test]
fn health_checks() {
    let probe = |command: Value, times: Value| {
        let mut probe = json!({"exec": command, "start_period": "0s", "interval": "30s", "timeout": "30s", "failures": 3, "successes": 1});
        for (key, value) in times.as_object().unwrap() {
            probe[key] = value.clone();
        }
        json!({"health": {"liveness": probe, "readiness": probe, "engine": false}})
    };
    check(
        "healthcheck: {test: [CMD, a, b]}",
        probe(json!(["a", "b"]), json!({})),
    );
    check(
        "healthcheck: {test: [CMD-SHELL, a | b], interval: 5s, timeout: 500ms, retries: 7, start_period: 1m}",
        probe(
            json!(["/bin/sh", "-c", "a | b"]),
            json!({"interval": "5s", "timeout": "500ms", "failures": 7, "start_period": "60s"}),
        ),
    );
    check(
        "healthcheck: {test: 'a | b'}",
        probe(json!(["/bin/sh", "-c", "a | b"]), json!({})),
    );
    check(
        "healthcheck: {test: [NONE]}",
        json!({"health": {"engine": false}}),
    );
    check(
        "healthcheck: {disable: true}",
        json!({"health": {"engine": false}}),
    );
    refuses(
        "healthcheck: {interval: 5s}",
        "services.web.healthcheck",
        "without a test",
    );
    refuses(
        "healthcheck: {test: [a]}",
        "services.web.healthcheck.test",
        "[CMD, ...]",
    );
    refuses(
        "healthcheck: {test: a, interval: 1us}",
        "services.web.healthcheck",
        "at least 100ms",
    );
    refuses(
        "healthcheck: {tst: a, test: a}",
        "services.web.healthcheck.tst",
        "meant is perhaps test",
    );
    warns(
        "healthcheck: {test: a, start_interval: 1s}",
        "services.web.healthcheck.start_interval",
        "no effect",
    );
}
