//! Waiting for a service, by asking the API now and then; what is waited for is told.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::output;
use super::short;
use crate::client::{Client, ClientError};
use crate::model::{Desired, Phase, Pod, Service, ServiceKey};
use crate::wishes::{After, Condition};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(300);

/// How a wait ended.
pub(super) enum Waited {
    Done,
    /// Why it will not come, or has not.
    Failed(String),
}

/// What one look shows.
#[derive(Debug, PartialEq)]
enum Look {
    Done,
    /// What is so far.
    NotYet(String),
    /// Why it will not come.
    Never(String),
}

#[derive(Deserialize)]
struct ServiceItem {
    #[serde(flatten)]
    service: Service,
}

/// Waits for the state of another service.
pub(super) async fn until(client: &Client, after: &After, timeout: Duration) -> Waited {
    let After { key, condition, .. } = after;
    let deadline = Instant::now() + timeout;
    let mut told = String::new();
    loop {
        let so_far = match look(client, key, *condition).await {
            Ok(Look::Done) => return Waited::Done,
            Ok(Look::Never(why)) => return Waited::Failed(why),
            Ok(Look::NotYet(so_far)) => so_far,
            Err(error) if passes(&error) => error.to_string(),
            Err(error) => return Waited::Failed(error.to_string()),
        };
        if Instant::now() >= deadline {
            let key = short(key);
            return Waited::Failed(format!(
                "{key} is not {condition} after {timeout:?} (--timeout): {so_far}"
            ));
        }
        if so_far != told {
            let key = short(key);
            output::say(&format!("waiting for {key} to be {condition}: {so_far}"));
            told = so_far;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a service is gone.
pub(super) async fn until_gone(
    client: &Client,
    key: &ServiceKey,
    timeout: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut told = false;
    loop {
        match client.service::<serde_json::Value>(key).await {
            // Another one of the name is made meanwhile.
            Ok(None) => return Ok(()),
            Ok(Some(service)) if service["deleting"] != true => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) if passes(&error) => {}
            Err(error) => return Err(error.to_string()),
        }
        if Instant::now() >= deadline {
            let key = short(key);
            return Err(format!(
                "{key} is still being deleted after {timeout:?} (--timeout)"
            ));
        }
        if !told {
            output::say(&format!("waiting for {} to be gone", short(key)));
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a restart of the API or of Redis causes.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Refused(problem) => problem.status == 503,
        ClientError::Address { .. } | ClientError::Foreign { .. } => false,
    }
}

async fn look(
    client: &Client,
    key: &ServiceKey,
    condition: Condition,
) -> Result<Look, ClientError> {
    let Some(ServiceItem { service }) = client.service(key).await? else {
        return Ok(Look::Never(format!("there is no service {}", short(key))));
    };
    let parameters = [
        ("service", Some(key.name.as_str())),
        ("namespace", Some(key.namespace.as_str())),
    ];
    let pods: Vec<Pod> = client.all("/v1/pods", &parameters).await?;
    Ok(judge(&service, &pods, condition))
}

/// Whether a service is in a state, by its pods of the current revision.
fn judge(service: &Service, pods: &[Pod], condition: Condition) -> Look {
    let current = |pod: &&Pod| pod.revision == service.revision && pod.desired == Desired::Run;
    let pods: Vec<&Pod> = pods.iter().filter(current).collect();
    let reached = |pod: &&&Pod| match condition {
        Condition::Started => !matches!(
            pod.phase,
            Phase::Waiting | Phase::Scheduled | Phase::Starting
        ),
        Condition::Healthy => pod.ready,
        Condition::Completed => pod.phase == Phase::Succeeded,
    };
    let count = pods.iter().filter(reached).count();
    let wanted = usize::try_from(service.replicas).unwrap_or(usize::MAX);
    if count >= wanted {
        return Look::Done;
    }
    // The newest of those that are not so tells why.
    let others = pods.iter().filter(|pod| !reached(pod));
    let other = others.max_by_key(|pod| pod.changed_ms).map(|pod| {
        let reason = pod.reason.as_deref().map(|reason| format!(": {reason}"));
        format!(
            "{} is {}{}",
            pod.id,
            pod.phase.as_str(),
            reason.unwrap_or_default()
        )
    });
    let failed = pods.iter().any(|pod| pod.phase == Phase::Failed);
    let other = other.unwrap_or_else(|| "no pod yet".to_owned());
    let key = short(&service.spec.key());
    match condition {
        Condition::Completed if failed => Look::Never(format!("{key} failed: {other}")),
        Condition::Started | Condition::Healthy | Condition::Completed => {
            Look::NotYet(format!("{count} of {wanted}, {other}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(replicas: u32) -> Service {
        serde_json::from_value(json!({
            "name": "db", "namespace": "shop", "revision": 2, "replicas": replicas,
            "deleting": false, "created_ms": 0,
            "spec": {"name": "db", "namespace": "shop", "image": "i"},
        }))
        .unwrap()
    }

    /// Pods of a phase, ready or not, of a revision.
    fn pods(all: &[(&str, bool, u64)]) -> Vec<Pod> {
        let pod = |(index, (phase, ready, revision)): (usize, &(&str, bool, u64))| -> Value {
            json!({
                "id": format!("p-{index}"), "name": "db", "namespace": "shop", "service": "shop/db",
                "replica": index, "revision": revision, "desired": "run", "phase": phase,
                "ready": ready, "attempt": 1, "created_ms": 0, "changed_ms": index,
                "reason": "so",
            })
        };
        let all = all.iter().enumerate().map(pod);
        all.map(|pod| serde_json::from_value(pod).unwrap())
            .collect()
    }

    fn check(replicas: u32, all: &[(&str, bool, u64)], condition: Condition, expected: &Look) {
        let look = judge(&service(replicas), &pods(all), condition);
        assert_eq!(look, *expected, "{all:?} {condition}");
    }

    #[test]
    fn a_state_is_that_of_all_pods_of_the_current_revision() {
        let not_yet = |text: &str| Look::NotYet(text.to_owned());
        check(0, &[], Condition::Healthy, &Look::Done);
        check(1, &[], Condition::Started, &not_yet("0 of 1, no pod yet"));
        check(
            1,
            &[("starting", false, 2)],
            Condition::Started,
            &not_yet("0 of 1, p-0 is starting: so"),
        );
        check(1, &[("running", false, 2)], Condition::Started, &Look::Done);
        check(
            1,
            &[("succeeded", false, 2)],
            Condition::Started,
            &Look::Done,
        );
        check(
            1,
            &[("running", false, 2)],
            Condition::Healthy,
            &not_yet("0 of 1, p-0 is running: so"),
        );
        check(
            1,
            &[("running", true, 1), ("running", true, 2)],
            Condition::Healthy,
            &Look::Done,
        );
        check(
            1,
            &[("running", true, 1)],
            Condition::Healthy,
            &not_yet("0 of 1, no pod yet"),
        );
        check(
            2,
            &[("running", true, 2), ("waiting", false, 2)],
            Condition::Healthy,
            &not_yet("1 of 2, p-1 is waiting: so"),
        );
        check(
            1,
            &[("succeeded", false, 2)],
            Condition::Completed,
            &Look::Done,
        );
        check(
            1,
            &[("running", true, 2)],
            Condition::Completed,
            &not_yet("0 of 1, p-0 is running: so"),
        );
        check(
            1,
            &[("failed", false, 2)],
            Condition::Completed,
            &Look::Never("shop/db failed: p-0 is failed: so".to_owned()),
        );
        check(
            1,
            &[("failed", false, 1), ("running", false, 2)],
            Condition::Completed,
            &not_yet("0 of 1, p-1 is running: so"),
        );
    }
}
