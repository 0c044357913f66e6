//! Docker's answers in our words: pure, so that it can be tested without an engine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerState as InspectedState, ContainerStateStatusEnum as Status,
    ContainerSummary, ContainerSummaryStateEnum, EventMessage, PortBinding, PortMap, PortSummary,
    SystemInfo,
};

use super::{health, mend};
use crate::container::labels::{self, Identity};
use crate::container::{Container, ContainerState, EngineInfo, RuntimeError};
use crate::model::{PodId, Port};

/// Where a port is bound unless something else is said.
const ANY_ADDRESS: &str = "0.0.0.0";
/// How the engine begins an address with a port.
const ADDRESSES: [&str; 3] = ["0.0.0.0:", "[::]:", ":::"];
/// The exit code where the engine does not tell one.
const EXIT_CODE_UNKNOWN: i64 = -1;

pub(super) fn engine_info(info: SystemInfo) -> EngineInfo {
    let positive = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    EngineInfo {
        id: info.id.unwrap_or_default(),
        cpu_millis: positive(info.ncpu).saturating_mul(1000),
        memory_bytes: positive(info.mem_total),
        version: info.server_version.unwrap_or_default(),
        data_dir: info.docker_root_dir.map(PathBuf::from),
    }
}

/// Whether the engine found its init program when it asked for its version.
pub(super) fn has_init(info: &SystemInfo) -> bool {
    let commit = info.init_commit.as_ref();
    commit
        .and_then(|commit| commit.id.as_deref())
        .is_some_and(|id| id != "N/A")
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
    let status = summary.status.as_deref().unwrap_or_default();
    let state = match summary.state? {
        State::CREATED | State::EMPTY => ContainerState::Created,
        State::RUNNING | State::RESTARTING | State::STOPPING => ContainerState::Running,
        State::PAUSED => ContainerState::Paused,
        State::REMOVING => ContainerState::Removing,
        State::EXITED | State::DEAD => ContainerState::Exited {
            exit_code: health::listed_exit_code(status).unwrap_or(EXIT_CODE_UNKNOWN),
            reason: None,
        },
    };
    let name = summary.names?.into_iter().next()?;
    let bound = bound_of_summary(&summary.ports.unwrap_or_default());
    let labels = &summary.labels?;
    let listed = container(summary.id?, &name, labels, summary.image, state, &bound)?;
    let networks = summary.network_settings.and_then(|it| it.networks);
    Some(Container {
        health: health::listed(status),
        address: health::address(networks.as_ref()),
        ..listed
    })
}

/// An inspected container; `None` if it is not ours.
pub(super) fn from_inspect(inspected: ContainerInspectResponse) -> Option<Container> {
    let config = inspected.config?;
    let labels = config.labels?;
    let told = inspected.state?;
    let health = health::inspected(&told);
    let network = inspected.network_settings.unwrap_or_default();
    let seen = container(
        inspected.id?,
        &inspected.name?,
        &labels,
        config.image,
        state(told),
        &bound_of_map(&network.ports.unwrap_or_default()),
    )?;
    let host = inspected.host_config.unwrap_or_default();
    Some(Container {
        health,
        address: health::address(network.networks.as_ref()),
        drifted: mend::missing(&labels, &host).is_some(),
        ..seen
    })
}

fn container(
    id: String,
    name: &str,
    labels: &HashMap<String, String>,
    image: Option<String>,
    state: ContainerState,
    bound: &[(String, u16)],
) -> Option<Container> {
    let identity = Identity::read(labels)?;
    let wish = labels::wish(labels);
    let ports = wish.ports.into_iter().map(|port| with_host(port, bound));
    Some(Container {
        id,
        name: name.trim_start_matches('/').to_owned(),
        pod: identity.pod,
        token: identity.token,
        image: wish.image.or(image).unwrap_or_default(),
        state,
        ports: ports.collect(),
        devices: labels::devices(labels),
        health: None,
        address: None,
        drifted: false,
        fenced: wish.on_node_loss.is_fenced(),
    })
}

/// A port with the node's one, as the engine has bound it by now.
fn with_host(port: Port, bound: &[(String, u16)]) -> Port {
    let name = format!("{}/{}", port.container, port.protocol.as_str());
    let host = bound.iter().find(|(bound, _)| *bound == name);
    Port {
        host: host.map(|(_, host)| *host).or(port.host),
        ..port
    }
}

/// Bound ports as `80/tcp` and the node's port. One that the engine chose may differ between the
/// two kinds of addresses: the first one told is the older kind's, which everybody has.
fn bound_of_summary(ports: &[PortSummary]) -> Vec<(String, u16)> {
    let bound = ports.iter().filter_map(|port| {
        let protocol = port.typ?.to_string();
        let name = format!("{}/{protocol}", port.private_port);
        Some((name, port.public_port?, port.ip.as_deref()? == ANY_ADDRESS))
    });
    let mut bound: Vec<_> = bound.collect();
    bound.sort_by_key(|(_, _, is_older)| !is_older);
    bound
        .into_iter()
        .map(|(name, host, _)| (name, host))
        .collect()
}

/// The same from an inspected container.
fn bound_of_map(ports: &PortMap) -> Vec<(String, u16)> {
    let first = |bindings: &Option<Vec<PortBinding>>| {
        let bindings = bindings.as_ref()?;
        let older = |binding: &&PortBinding| binding.host_ip.as_deref() == Some(ANY_ADDRESS);
        let binding = bindings.iter().find(older).or_else(|| bindings.first())?;
        binding.host_port.as_ref()?.parse().ok()
    };
    let bound = ports
        .iter()
        .filter_map(|(name, bindings)| Some((name.clone(), first(bindings)?)));
    bound.collect()
}

/// The error of a start, with the port named if that was taken. The engine says so in several
/// ways, of which all hold the address.
pub(super) fn why_not_started(error: RuntimeError) -> RuntimeError {
    let RuntimeError::Refused { message, .. } = &error else {
        return error;
    };
    let taken = ["port is already allocated", "address already in use"];
    if !taken.iter().any(|words| message.contains(words)) {
        return error;
    }
    let after = ADDRESSES
        .iter()
        .find_map(|address| message.split_once(address));
    let digits = |rest: &str| {
        let end = rest.find(|letter: char| !letter.is_ascii_digit());
        rest[..end.unwrap_or(rest.len())].parse().ok()
    };
    match after.and_then(|(_, rest)| digits(rest)) {
        Some(port) => RuntimeError::PortTaken {
            port,
            message: message.clone(),
        },
        None => error,
    }
}

fn state(state: InspectedState) -> ContainerState {
    match state.status {
        Some(Status::RUNNING | Status::RESTARTING | Status::STOPPING) => ContainerState::Running,
        Some(Status::PAUSED) => ContainerState::Paused,
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

#[cfg(test)]
mod tests {
    use bollard::models::PortSummaryTypeEnum;

    use super::*;
    use crate::container::Verb;

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

    #[test]
    fn a_taken_port_is_named() {
        let why = |message: &str| {
            why_not_started(RuntimeError::Refused {
                verb: Verb::Start,
                message: message.to_owned(),
            })
        };
        for (message, taken) in [
            (
                "driver failed programming external connectivity on endpoint a (b): Bind for 0.0.0.0:8080 failed: port is already allocated",
                8080,
            ),
            (
                "driver failed programming external connectivity on endpoint a (b): Error starting userland proxy: listen tcp4 0.0.0.0:81: bind: address already in use",
                81,
            ),
            (
                "driver failed (b): Error starting userland proxy: listen udp [::]:53: bind: address already in use",
                53,
            ),
            (
                "failed to set up container networking: failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use",
                8080,
            ),
            (
                "failed to bind host port 0.0.0.0:9/tcp: address already in use",
                9,
            ),
        ] {
            let error = why(message);
            assert!(
                matches!(error, RuntimeError::PortTaken { port, .. } if port == taken),
                "{error:?}"
            );
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("port {taken} of the node is taken"))
            );
        }
        for message in ["no space left on device", "address already in use"] {
            assert!(
                matches!(why(message), RuntimeError::Refused { .. }),
                "{message}"
            );
        }
    }

    #[test]
    fn ports_are_read_back_with_the_nodes_own() {
        let summary = |ip: &str, host: u16| PortSummary {
            ip: Some(ip.to_owned()),
            private_port: 80,
            public_port: Some(host),
            typ: Some(PortSummaryTypeEnum::TCP),
        };
        let bound = bound_of_summary(&[summary("::", 2), summary("0.0.0.0", 1)]);
        let binding = |ip: &str, host: &str| PortBinding {
            host_ip: Some(ip.to_owned()),
            host_port: Some(host.to_owned()),
        };
        let both = vec![binding("::", "2"), binding("0.0.0.0", "1")];
        let map = HashMap::from([
            ("80/tcp".to_owned(), Some(both)),
            ("81/tcp".to_owned(), None),
        ]);
        for bound in [bound, bound_of_map(&map)] {
            let shown = |port: &str| with_host(Port::parse(port).unwrap(), &bound).to_string();
            assert_eq!(shown("80"), "1:80/tcp");
            assert_eq!(shown("80/udp"), "80/udp");
            assert_eq!(shown("5:81"), "5:81/tcp");
        }
    }
}
