//! Containers in Docker's engine, through its HTTP API.
//!
//! Only this module names `bollard`. The connection is made at the first use and again after the
//! engine was away, so an agent can start before its engine. What the requests and answers look
//! like is in [`create`] and [`translate`].

mod create;
mod exec;
mod files;
mod health;
mod hijack;
mod images;
mod link;
mod logs;
mod mend;
mod probe;
mod pull;
mod sample;
mod translate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, stream};

use self::link::{Failure, Link, failure};
use super::labels::{self, Identity};
use super::{
    Changes, Container, ContainerSpec, Created, EngineInfo, NameHolder, RuntimeError, Verb,
};

/// Where Docker's engine listens if nothing else is said.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// Questions about the engine as a whole: it runs a few programs to ask their version.
const INFO_LIMIT: Duration = Duration::from_secs(10);
/// Questions about containers: the engine answers from memory, but waits for a container's lock.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// Orders: with a slow disk and many at once a start takes tens of seconds, and giving up early
/// would only add a second order to the first.
const ORDER_LIMIT: Duration = Duration::from_secs(60);
/// On top of a stop's grace: the kill, and the wait for it.
const STOP_MARGIN: Duration = Duration::from_secs(20);
/// On top of our own limit, so that the client's limit, in whole seconds, is never the first.
const CLIENT_SLACK: Duration = Duration::from_secs(2);
/// How far back an events subscription begins: what happened while it was being made is not lost.
/// Seeing an event twice does no harm.
const EVENTS_BACK: Duration = Duration::from_secs(2);
/// Events that can mean that a container is no longer as the agent left it. Those of `exec` are
/// left out: each probe makes three.
const EVENTS: [&str; 9] = [
    "die",
    "destroy",
    "oom",
    "kill",
    "stop",
    "pause",
    "unpause",
    "update",
    "health_status",
];

/// Docker's engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    link: Arc<Link>,
}

impl Docker {
    /// The engine at `address`: a path, `unix://…`, `http://…` or `tcp://…`; empty is Docker's
    /// default socket. Nothing is connected yet.
    pub fn new(address: &str) -> Docker {
        let address = match address {
            "" => DEFAULT_SOCKET.to_owned(),
            path if path.starts_with('/') => format!("unix://{path}"),
            other => other.to_owned(),
        };
        Docker {
            link: Arc::new(Link::new(address)),
        }
    }

    pub(super) async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        let info = self
            .link
            .call(Verb::Info, INFO_LIMIT, |client| async move {
                client.info().await
            })
            .await?;
        Ok(translate::engine_info(info))
    }

    pub(super) async fn list(
        &self,
        node: &str,
        cluster: &str,
    ) -> Result<Vec<Container>, RuntimeError> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", our_labels(node, cluster))]))
            .build();
        let found = self
            .link
            .call(Verb::List, ASK_LIMIT, |client| async move {
                client.list_containers(Some(options)).await
            })
            .await?;
        // One question for all: what it does not tell, an inspection does where something changed.
        Ok(found
            .into_iter()
            .filter_map(translate::from_summary)
            .collect())
    }

    pub(super) async fn known_cluster(&self, node: &str) -> Result<Option<String>, RuntimeError> {
        let ours = our_labels(node, "")[..2].to_vec();
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", ours)]))
            .build();
        let found = self
            .link
            .call(Verb::List, ASK_LIMIT, |client| async move {
                client.list_containers(Some(options)).await
            })
            .await?;
        let mut clusters: Vec<(bool, String)> = found
            .into_iter()
            .filter_map(|summary| {
                let runs = translate::runs(&summary);
                Some((!runs, summary.labels?.get(labels::CLUSTER)?.clone()))
            })
            .collect();
        clusters.sort();
        Ok(clusters.into_iter().next().map(|(_, cluster)| cluster))
    }

    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<Created, RuntimeError> {
        for name in [spec.name(), spec.long_name()] {
            let failure = match self.create_named(spec, &name).await {
                Ok(id) => return Ok(Created { id, adopted: false }),
                Err(failure) => failure,
            };
            let holder = match failure.status {
                _ if failure.is_image_missing() => {
                    let image = spec.spec.image.clone();
                    return Err(RuntimeError::ImageMissing { image });
                }
                Some(409) => self.identity(&name).await?,
                _ => return Err(failure.error),
            };
            // Gone between the two calls: the caller's next try will find the name free.
            let Some((id, identity)) = holder else {
                return Err(failure.error);
            };
            match spec.judge(identity.as_ref()) {
                NameHolder::Same => return Ok(Created { id, adopted: true }),
                NameHolder::OtherToken => return Err(RuntimeError::Superseded { id }),
                NameHolder::Stranger => {}
            }
        }
        Err(RuntimeError::NameTaken {
            name: spec.long_name(),
        })
    }

    async fn create_named(&self, spec: &ContainerSpec, name: &str) -> Result<String, Failure> {
        let has_init = self.link.connection(Verb::Create).await?.has_init;
        let body = create::create_body(spec, has_init);
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = self
            .link
            .call(Verb::Create, ORDER_LIMIT, |client| async move {
                client.create_container(Some(options), body).await
            })
            .await?;
        Ok(created.id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let started = self
            .link
            .call(Verb::Start, ORDER_LIMIT, |client| async move {
                client.start_container(id, None).await
            })
            .await;
        match started {
            Err(failure) if failure.is_container_missing() => {
                Err(RuntimeError::ContainerMissing { id: id.to_owned() })
            }
            other => other.map_err(|failure| translate::why_not_started(failure.error)),
        }
    }

    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let seconds = translate::whole_seconds(grace);
        let limit = STOP_MARGIN + Duration::from_secs(u64::from(seconds.unsigned_abs()));
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = self
            .link
            .call(Verb::Stop, limit, |client| async move {
                client.stop_container(id, Some(options)).await
            })
            .await;
        gone_is_fine(stopped)
    }

    pub(super) async fn unpause(&self, id: &str) -> Result<(), RuntimeError> {
        let unpaused = self
            .link
            .call(Verb::Unpause, ORDER_LIMIT, |client| async move {
                client.unpause_container(id).await
            })
            .await;
        match unpaused {
            // It is not paused, as older and newer engines say it.
            Err(failure)
                if matches!(failure.status, Some(404 | 409))
                    || failure.error.to_string().contains("is not paused") =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true) // volumes that only this container knew
            .build();
        let removed = self
            .link
            .call(Verb::Remove, ORDER_LIMIT, |client| async move {
                client.remove_container(id, Some(options)).await
            })
            .await;
        gone_is_fine(removed)
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        let inspected = self.inspect_any(id).await?;
        Ok(inspected.and_then(translate::from_inspect))
    }

    pub(super) async fn describe(&self, id: &str) -> Result<Option<ContainerSpec>, RuntimeError> {
        let inspected = self.inspect_any(id).await?;
        Ok(inspected.and_then(|inspected| labels::read(&inspected.config?.labels?)))
    }

    /// The id of the container called `name`, and which of ours it is, if it is one of ours.
    async fn identity(
        &self,
        name: &str,
    ) -> Result<Option<(String, Option<Identity>)>, RuntimeError> {
        let inspected = self.inspect_any(name).await?;
        Ok(inspected.map(|inspected| {
            let labels = inspected.config.and_then(|config| config.labels);
            let identity = labels.as_ref().and_then(Identity::read);
            (inspected.id.unwrap_or_default(), identity)
        }))
    }

    async fn inspect_any(
        &self,
        id: &str,
    ) -> Result<Option<bollard::models::ContainerInspectResponse>, RuntimeError> {
        let inspected = self
            .link
            .call(Verb::Inspect, ASK_LIMIT, |client| async move {
                client.inspect_container(id, None).await
            })
            .await;
        match inspected {
            Err(failure) if failure.status == Some(404) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    pub(super) async fn ended(&self, node: &str, cluster: &str) -> Result<Changes, RuntimeError> {
        // The subscription itself answers only at the first event, so ask something else first.
        let client = self
            .link
            .call(Verb::Watch, INFO_LIMIT, |client| async move {
                client.ping().await.map(|_| client)
            })
            .await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the engine's log of events is read from a wall-clock time on"
        )]
        let now = SystemTime::now();
        let since = (now - EVENTS_BACK)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let options = EventsOptionsBuilder::new()
            .since(&format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
            .filters(&HashMap::from([
                ("type", vec!["container".to_owned()]),
                ("event", EVENTS.map(str::to_owned).to_vec()),
                ("label", our_labels(node, cluster)),
            ]))
            .build();
        let events = client.events(Some(options)).boxed();
        let changes = stream::unfold(Some(events), |events| async move {
            let mut events = events?;
            loop {
                let error = match events.next().await {
                    Some(Ok(event)) => match translate::pod_of(event) {
                        Some(pod) => return Some((Ok(pod), Some(events))),
                        None => continue,
                    },
                    Some(Err(error)) => failure(Verb::Watch, error).error,
                    None => RuntimeError::Unreachable {
                        verb: Verb::Watch,
                        source: "the engine closed the stream".into(),
                    },
                };
                return Some((Err(error), None));
            }
        });
        Ok(changes.boxed())
    }
}

fn gone_is_fine(result: Result<(), Failure>) -> Result<(), RuntimeError> {
    match result {
        Err(failure) if failure.status == Some(404) => Ok(()),
        other => Ok(other?),
    }
}

/// The filter for containers of one node of one cluster: all must match.
fn our_labels(node: &str, cluster: &str) -> Vec<String> {
    vec![
        format!("{}={}", labels::ORCHESTRATOR, labels::ORCHESTRATOR_VALUE),
        format!("{}={node}", labels::NODE),
        format!("{}={cluster}", labels::CLUSTER),
    ]
}
