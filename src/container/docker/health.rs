//! What Docker tells of a container beside its state: its own check, its address, its exit code.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{ContainerState as InspectedState, EndpointSettings, HealthStatusEnum};

use crate::container::{EngineHealth, HealthState};

/// Most bytes kept of what a check said: it becomes part of a pod's reason.
pub(super) const SAID_BYTES_MAX: usize = 200;

/// The check of a container that was inspected; `None` if its image has none.
pub(super) fn inspected(state: &InspectedState) -> Option<EngineHealth> {
    let health = state.health.as_ref()?;
    let state = match health.status? {
        HealthStatusEnum::STARTING => HealthState::Starting,
        HealthStatusEnum::HEALTHY => HealthState::Healthy,
        HealthStatusEnum::UNHEALTHY => HealthState::Unhealthy,
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => return None,
    };
    let last = health.log.as_ref().and_then(|log| log.last());
    let said = match last {
        Some(last) if state == HealthState::Unhealthy => {
            let words = shortened(last.output.as_deref().unwrap_or_default());
            let code = last.exit_code.unwrap_or(-1);
            if words.is_empty() {
                format!("exit code {code}")
            } else {
                words
            }
        }
        _ => String::new(),
    };
    Some(EngineHealth { state, said })
}

/// The check of a listed container, which older engines tell only in words for people, such as
/// `Up 5 seconds (health: starting)`.
pub(super) fn listed(status: &str) -> Option<EngineHealth> {
    let (_, words) = status.rsplit_once('(')?;
    let state = match words.trim_end_matches(')') {
        "health: starting" => HealthState::Starting,
        "healthy" => HealthState::Healthy,
        "unhealthy" => HealthState::Unhealthy,
        _ => return None,
    };
    let said = String::new();
    Some(EngineHealth { state, said })
}

/// The exit code of a listed container, which stands in words such as `Exited (137) 2 hours ago`.
pub(super) fn listed_exit_code(status: &str) -> Option<i64> {
    let (_, rest) = status.split_once('(')?;
    rest.split_once(')')?.0.parse().ok()
}

/// Where the machine reaches a container: its address in any of its networks, which the engine's
/// bridges make reachable from the machine they are on; the machine's own if it shares its network.
pub(super) fn address(networks: Option<&HashMap<String, EndpointSettings>>) -> Option<IpAddr> {
    let networks = networks?;
    let mut named: Vec<_> = networks.iter().collect();
    named.sort_unstable_by_key(|(name, _)| *name); // the same one each time
    let own = named.into_iter().find_map(|(_, endpoint)| {
        let text = endpoint.ip_address.as_deref()?;
        text.parse::<IpAddr>().ok()
    });
    let shared = networks
        .contains_key("host")
        .then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    own.or(shared)
}

/// The beginning of what was said, as one line.
pub(super) fn shortened(said: &str) -> String {
    let line: Vec<&str> = said.split_whitespace().collect();
    let mut line = line.join(" ");
    if line.len() > SAID_BYTES_MAX {
        let end = (0..=SAID_BYTES_MAX)
            .rev()
            .find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_in_words() {
        let state = |status| listed(status).map(|health| health.state);
        assert_eq!(
            state("Up 1 second (health: starting)"),
            Some(HealthState::Starting)
        );
        assert_eq!(state("Up 5 hours (healthy)"), Some(HealthState::Healthy));
        assert_eq!(
            state("Up About a minute (unhealthy)"),
            Some(HealthState::Unhealthy)
        );
        for none in ["Up 5 seconds", "Up 2 days (Paused)", "Created", ""] {
            assert_eq!(state(none), None, "{none}");
        }
        assert_eq!(
            listed_exit_code("Exited (137) Less than a second ago"),
            Some(137)
        );
        assert_eq!(listed_exit_code("Exited (0) 2 hours ago"), Some(0));
        for none in ["Dead", "Exited", "Exited (x) 1 hour ago"] {
            assert_eq!(listed_exit_code(none), None, "{none}");
        }
    }

    #[test]
    fn the_address_is_any_networks_or_the_machines() {
        let network = |name: &str, address: &str| {
            let endpoint = EndpointSettings {
                ip_address: Some(address.to_owned()),
                ..EndpointSettings::default()
            };
            (name.to_owned(), endpoint)
        };
        let of = |networks: HashMap<_, _>| address(Some(&networks)).map(|it| it.to_string());
        assert_eq!(address(None), None);
        assert_eq!(of(HashMap::from([network("none", "")])), None);
        assert_eq!(
            of(HashMap::from([network("host", "")])).as_deref(),
            Some("127.0.0.1")
        );
        let two = HashMap::from([network("b", "10.0.0.2"), network("a", "10.0.0.1")]);
        assert_eq!(of(two).as_deref(), Some("10.0.0.1"));
    }

    #[test]
    fn what_is_said_is_one_bounded_line() {
        assert_eq!(shortened(" no\n  answer \n"), "no answer");
        let long = shortened(&"ä".repeat(SAID_BYTES_MAX));
        assert_eq!(long.len(), SAID_BYTES_MAX);
    }
}
