//! Limits that were changed on a container behind the agent's back, and how they are put back.
//!
//! What the wish leaves open is nobody's: a limit that a person adds there stays.

use std::collections::HashMap;

use bollard::models::{ContainerUpdateBody, HostConfig, RestartPolicy};

use super::{Docker, ORDER_LIMIT, create};
use crate::container::{RuntimeError, Verb, labels};

impl Docker {
    pub(crate) async fn mend(&self, id: &str) -> Result<(), RuntimeError> {
        let inspected = self.inspect_any(id).await?;
        let missing = inspected.and_then(|inspected| {
            let labels = inspected.config?.labels?;
            missing(&labels, &inspected.host_config.unwrap_or_default())
        });
        let Some(update) = missing else {
            return Ok(());
        };
        self.link
            .call(Verb::Mend, ORDER_LIMIT, |client| async move {
                client.update_container(id, update).await
            })
            .await?;
        Ok(())
    }
}

/// What must be changed so that a container has the limits of its wish; `None` if it has them.
pub(super) fn missing(
    labels: &HashMap<String, String>,
    seen: &HostConfig,
) -> Option<ContainerUpdateBody> {
    let wish = labels::read(labels)?;
    let wanted = create::create_body(&wish, false).host_config?;
    let amount = |wanted: Option<i64>, seen: Option<i64>| {
        wanted.filter(|wanted| *wanted != 0 && *wanted != seen.unwrap_or(0))
    };
    let nano_cpus = amount(wanted.nano_cpus, seen.nano_cpus);
    let memory = amount(wanted.memory, seen.memory);
    let memory_swap = amount(wanted.memory_swap, seen.memory_swap);
    let pids_limit = amount(wanted.pids_limit, seen.pids_limit);
    let policy = |config: &HostConfig| {
        let policy = config.restart_policy.as_ref();
        policy.and_then(|policy: &RestartPolicy| policy.name)
    };
    let restart_policy = (policy(&wanted) != policy(seen))
        .then_some(wanted.restart_policy)
        .flatten();
    let limits = [nano_cpus, memory, memory_swap, pids_limit];
    if limits.iter().all(Option::is_none) && restart_policy.is_none() {
        return None;
    }
    Some(ContainerUpdateBody {
        nano_cpus,
        pids_limit,
        // The engine refuses memory without its swap, of which it is a part.
        memory: memory.or_else(|| memory_swap.and(wanted.memory)),
        memory_swap: memory_swap.or_else(|| memory.and(wanted.memory_swap)),
        restart_policy,
        ..ContainerUpdateBody::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{ContainerSpec, GivenDevices};
    use crate::model::{PodId, ServiceSpec, Token};

    #[test]
    fn only_what_the_wish_names_and_was_changed_is_put_back() {
        let mut spec = ServiceSpec::new("web", "nginx");
        spec.resources.memory_bytes = 64 << 20;
        let wish = ContainerSpec {
            node: "n".to_owned(),
            cluster: "c".to_owned(),
            pod: PodId::parse("a-0").unwrap(),
            token: Token::default(),
            replica: 0,
            spec: Box::new(spec),
            revision: 1,
            service: None,
            wish: None,
            given: GivenDevices::default(),
        };
        let labels = labels::write(&wish);
        let made = create::create_body(&wish, true).host_config.unwrap();
        assert_eq!(missing(&labels, &made), None);

        let with_cpus = HostConfig {
            nano_cpus: Some(500_000_000),
            ..made.clone()
        };
        assert_eq!(
            missing(&labels, &with_cpus),
            None,
            "the wish leaves it open"
        );

        let changed = HostConfig {
            memory: Some(32 << 20),
            restart_policy: Some(RestartPolicy {
                name: Some(bollard::models::RestartPolicyNameEnum::ALWAYS),
                maximum_retry_count: None,
            }),
            ..made
        };
        let update = missing(&labels, &changed).unwrap();
        assert_eq!(update.memory, Some(64 << 20));
        assert_eq!(update.memory_swap, Some(64 << 20));
        assert!(update.restart_policy.is_some() && update.nano_cpus.is_none());
        assert_eq!(missing(&HashMap::new(), &changed), None, "not ours");
    }
}
