//! Our words into Docker's and back: pure, so that it can be tested without an engine.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState as InspectedState,
    ContainerStateStatusEnum as Status, ContainerSummary, ContainerSummaryStateEnum, EventMessage,
    HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum, SystemInfo,
};

use crate::container::labels::{self, Identity};
use crate::container::{Container, ContainerSpec, ContainerState, EngineInfo, RuntimeError};
use crate::model::{PodId, Port};

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
/// The exit code where the engine does not tell one.
const EXIT_CODE_UNKNOWN: i64 = -1;

pub(super) fn engine_info(info: SystemInfo) -> EngineInfo {
    let positive = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    EngineInfo {
        id: info.id.unwrap_or_default(),
        cpu_millis: positive(info.ncpu).saturating_mul(1000),
        memory_bytes: positive(info.mem_total),
        version: info.server_version.unwrap_or_default(),
    }
}

/// Whether the engine found its init program when it asked for its version.
pub(super) fn has_init(info: &SystemInfo) -> bool {
    let commit = info.init_commit.as_ref();
    commit
        .and_then(|commit| commit.id.as_deref())
        .is_some_and(|id| id != "N/A")
}

pub(super) fn create_body(spec: &ContainerSpec, has_init: bool) -> ContainerCreateBody {
    let wish = &spec.spec;
    let some = |items: &Vec<String>| (!items.is_empty()).then(|| items.clone());
    let env = wish
        .env
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let memory = (wish.resources.memory_bytes > 0).then(|| saturating(wish.resources.memory_bytes));
    let nano_cpus = (wish.resources.cpu_millis > 0).then(|| {
        let millis = wish.resources.cpu_millis.max(CPU_MILLIS_MIN);
        saturating(millis.saturating_mul(NANOS_PER_MILLI))
    });
    let bindings: HashMap<_, _> = wish
        .ports
        .iter()
        .map(|port| (port_key(*port), Some(vec![binding(*port)])))
        .collect();
    ContainerCreateBody {
        image: Some(wish.image.clone()),
        entrypoint: some(&wish.command),
        cmd: some(&wish.args),
        env: Some(env),
        labels: Some(labels::write(spec)),
        exposed_ports: Some(wish.ports.iter().copied().map(port_key).collect()),
        host_config: Some(HostConfig {
            nano_cpus,
            memory,
            // Equal to the memory: no swap, or the limit would only slow the container down.
            memory_swap: memory,
            port_bindings: Some(bindings),
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
            // A program that is process 1 itself ignores the stop signal unless it asks for it.
            init: has_init.then_some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn saturating(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
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

/// The engine counts the grace in whole seconds; rounded up, so that nobody gets less.
pub(super) fn whole_seconds(grace: Duration) -> i32 {
    let up = u64::from(grace.subsec_nanos() > 0);
    i32::try_from(grace.as_secs().saturating_add(up)).unwrap_or(i32::MAX)
}

/// Whether the container of a list runs.
pub(super) fn runs(summary: &ContainerSummary) -> bool {
    summary.state == Some(ContainerSummaryStateEnum::RUNNING)
}

/// A container of a list, whose exit code is not known; `None` if it is not ours.
pub(super) fn from_summary(summary: ContainerSummary) -> Option<Container> {
    use ContainerSummaryStateEnum as State;
    let state = match summary.state? {
        State::CREATED | State::EMPTY => ContainerState::Created,
        State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING => {
            ContainerState::Running
        }
        State::REMOVING => ContainerState::Removing,
        State::EXITED | State::DEAD => ContainerState::Exited {
            exit_code: EXIT_CODE_UNKNOWN,
            reason: None,
        },
    };
    let name = summary.names?.into_iter().next()?;
    container(summary.id?, &name, &summary.labels?, summary.image, state)
}

/// An inspected container; `None` if it is not ours.
pub(super) fn from_inspect(inspected: ContainerInspectResponse) -> Option<Container> {
    let config = inspected.config?;
    container(
        inspected.id?,
        &inspected.name?,
        &config.labels?,
        config.image,
        state(inspected.state?),
    )
}

fn container(
    id: String,
    name: &str,
    labels: &HashMap<String, String>,
    image: Option<String>,
    state: ContainerState,
) -> Option<Container> {
    let identity = Identity::read(labels)?;
    Some(Container {
        id,
        name: name.trim_start_matches('/').to_owned(),
        pod: identity.pod,
        token: identity.token,
        image: labels::image(labels).or(image).unwrap_or_default(),
        state,
    })
}

fn state(state: InspectedState) -> ContainerState {
    match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => {
            ContainerState::Running
        }
        Some(Status::REMOVING) => ContainerState::Removing,
        Some(Status::EXITED | Status::DEAD) => {
            let exit_code = state.exit_code.unwrap_or(EXIT_CODE_UNKNOWN);
            // A container may outlive the kernel killing one of its processes, and end well.
            let out_of_memory = exit_code != 0 && state.oom_killed == Some(true);
            let error = state.error.filter(|error| !error.is_empty());
            let reason = match exit_code {
                _ if out_of_memory => Some("out of memory".to_owned()),
                _ if error.is_some() => error,
                // By convention of shells and of the engine's init, which finds out only after
                // the engine has called the container started.
                126 => Some("the command cannot be executed".to_owned()),
                127 => Some("the command was not found".to_owned()),
                _ => None,
            };
            ContainerState::Exited { exit_code, reason }
        }
        Some(Status::CREATED | Status::EMPTY) | None => ContainerState::Created,
    }
}

/// The pod an event is about, if it is one of ours.
pub(super) fn pod_of(event: EventMessage) -> Option<PodId> {
    let attributes = event.actor?.attributes?;
    Identity::read(&attributes).map(|identity| identity.pod)
}

/// Whether a 404 means the image: a network or a volume can be missing too.
pub(super) fn is_image_missing(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Refused { message, .. }
        if message.to_ascii_lowercase().contains("no such image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_rounded_up() {
        for (millis, seconds) in [(0, 0), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }

    #[test]
    fn an_end_says_why() {
        let ended = |exit_code, oom_killed, error: &str| {
            state(InspectedState {
                status: Some(Status::EXITED),
                exit_code: Some(exit_code),
                oom_killed: Some(oom_killed),
                error: Some(error.to_owned()),
                ..InspectedState::default()
            })
        };
        let exited = |exit_code, reason: Option<&str>| ContainerState::Exited {
            exit_code,
            reason: reason.map(str::to_owned),
        };
        assert_eq!(ended(0, false, ""), exited(0, None));
        assert_eq!(ended(137, true, ""), exited(137, Some("out of memory")));
        assert_eq!(ended(0, true, ""), exited(0, None));
        assert_eq!(ended(127, false, "why"), exited(127, Some("why")));
        let reason = Some("the command was not found");
        assert_eq!(ended(127, false, ""), exited(127, reason));
    }

    #[test]
    fn a_removal_is_no_end_of_the_process() {
        // As inspected while `docker rm -f` is under way.
        let removing = state(InspectedState {
            status: Some(Status::REMOVING),
            exit_code: Some(137),
            ..InspectedState::default()
        });
        assert_eq!(removing, ContainerState::Removing);
    }

    #[test]
    fn init_is_used_only_where_there_is_one() {
        let info = |id: &str| SystemInfo {
            init_commit: Some(bollard::models::Commit {
                id: Some(id.to_owned()),
            }),
            ..SystemInfo::default()
        };
        assert!(has_init(&info("")), "Debian's says no commit");
        assert!(has_init(&info("de40ad0")));
        assert!(!has_init(&info("N/A")));
        assert!(!has_init(&SystemInfo::default()));
    }
}
