//! A spec into the engine's words for a new container: pure, so that it can be tested without one.
//!
//! Every field of a spec that concerns the container is named here or in `files`
//! (`tests/smoke/spec.rs` looks at each in the engine).

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig,
    Mount as EngineMount, MountTmpfsOptions, MountType, PortBinding, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};

use super::translate::whole_seconds;
use crate::container::{ContainerSpec, GivenDevices, labels};
use crate::model::service::{Device, Mount, MountKind};
use crate::model::{Port, Resources, ServiceSpec};

/// Least cpu limit, in thousandths of a core: the kernel takes no quota below 1 ms of its period
/// of 100 ms. Less may be asked for, and is what counts for placing.
const CPU_MILLIS_MIN: u64 = 10;
/// Billionths of a core in a thousandth.
const NANOS_PER_MILLI: u64 = 1_000_000;
/// The log of one container, bounded: 3 files of 10 MB keep days of a quiet service and cannot
/// fill a disk even with 250 pods.
const LOG_FILE_BYTES_MAX: &str = "10m";
/// See [`LOG_FILE_BYTES_MAX`].
const LOG_FILES_MAX: &str = "3";
/// Of a device that a container was given: it is its own.
const ALL_PERMISSIONS: &str = "rwm";
/// In place of a command: the image's own check is not made.
const NO_CHECK: &str = "NONE";

pub(super) fn create_body(spec: &ContainerSpec, has_init: bool) -> ContainerCreateBody {
    let wish = &spec.spec;
    let own = wish
        .env
        .iter()
        .filter(|(key, _)| !spec.given.env.contains_key(*key));
    let env = own.chain(&spec.given.env);
    let env = env.map(|(key, value)| format!("{key}={value}"));
    let heeds_engine = wish.health.as_ref().is_none_or(|health| health.engine);
    ContainerCreateBody {
        image: Some(wish.image.clone()),
        entrypoint: some(&wish.command),
        cmd: some(&wish.args),
        env: Some(env.collect()),
        working_dir: wish.working_dir.clone(),
        user: wish.user.clone(),
        labels: Some(labels::write(spec)),
        exposed_ports: Some(wish.ports.iter().copied().map(port_key).collect()),
        stop_signal: wish.stop.signal.clone(),
        stop_timeout: wish.stop.grace.map(|grace| whole_seconds(grace.0).into()),
        healthcheck: (!heeds_engine).then(|| HealthConfig {
            test: Some(vec![NO_CHECK.to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(host_config(wish, &spec.given, has_init)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(wish: &ServiceSpec, given: &GivenDevices, has_init: bool) -> HostConfig {
    let bindings = wish.ports.iter();
    let bindings = bindings.map(|port| (port_key(*port), Some(vec![binding(*port)])));
    let ulimits = wish.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    let hosts = wish.extra_hosts.iter();
    let hosts = hosts.map(|(name, address)| format!("{name}:{address}"));
    let named = |path: &String| wish.devices.iter().any(|device| device.host == *path);
    let given = given
        .paths
        .iter()
        .filter(|path| !named(path))
        .map(|path| Device {
            host: path.clone(),
            container: None,
            permissions: ALL_PERMISSIONS.to_owned(),
        });
    let devices = wish.devices.iter().cloned().chain(given);
    HostConfig {
        port_bindings: Some(bindings.collect()),
        restart_policy: Some(RestartPolicy {
            // Restarts belong to the agent, which alone knows whether the pod is still wanted.
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_FILE_BYTES_MAX.to_owned()),
                ("max-file".to_owned(), LOG_FILES_MAX.to_owned()),
            ])),
        }),
        // Where nothing is said: a program that is process 1 itself ignores the stop signal
        // unless it asks for it.
        init: wish.init.or_else(|| has_init.then_some(true)),
        mounts: Some(wish.mounts.iter().map(mount).collect()),
        ulimits: Some(ulimits.collect()),
        cap_add: some(&wish.capabilities.add),
        cap_drop: some(&wish.capabilities.drop),
        readonly_rootfs: wish.read_only.then_some(true),
        devices: Some(devices.map(|it| device(&it)).collect()),
        privileged: wish.privileged.then_some(true),
        network_mode: wish.network.clone(),
        dns: some(&wish.dns),
        extra_hosts: Some(hosts.collect()),
        ..limits(&wish.resources)
    }
}

fn limits(resources: &Resources) -> HostConfig {
    let some = |amount: u64| (amount > 0).then(|| saturating(amount));
    let memory = some(resources.memory_bytes);
    let nano_cpus = (resources.cpu_millis > 0).then(|| {
        let millis = resources.cpu_millis.max(CPU_MILLIS_MIN);
        saturating(millis.saturating_mul(NANOS_PER_MILLI))
    });
    HostConfig {
        nano_cpus,
        memory,
        // Equal to the memory: no swap, or the limit would only slow the container down.
        memory_swap: some(resources.memory_swap_bytes).or(memory),
        pids_limit: some(resources.pids_max),
        shm_size: some(resources.shm_bytes),
        ..HostConfig::default()
    }
}

fn some(items: &[String]) -> Option<Vec<String>> {
    (!items.is_empty()).then(|| items.to_vec())
}

fn saturating(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn mount(mount: &Mount) -> EngineMount {
    let size = mount.size.map(|size| MountTmpfsOptions {
        size_bytes: Some(saturating(size)),
        ..MountTmpfsOptions::default()
    });
    EngineMount {
        typ: Some(match mount.kind {
            MountKind::Bind => MountType::BIND,
            MountKind::Volume => MountType::VOLUME,
            MountKind::Tmpfs => MountType::TMPFS,
        }),
        source: mount.source.clone(),
        target: Some(mount.target.clone()),
        read_only: mount.read_only.then_some(true),
        tmpfs_options: size,
        ..EngineMount::default()
    }
}

fn device(device: &Device) -> DeviceMapping {
    let inside = device.container.as_ref().unwrap_or(&device.host);
    DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(inside.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

fn port_key(port: Port) -> String {
    format!("{}/{}", port.container, port.protocol.as_str())
}

fn binding(port: Port) -> PortBinding {
    PortBinding {
        host_ip: None,
        // Empty: the engine takes a free one.
        host_port: Some(port.host.map(|port| port.to_string()).unwrap_or_default()),
    }
}
