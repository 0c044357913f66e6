//! Steps: what a worker asks of the engine, one at a time.
//!
//! Every engine call is idempotent, so a step may be repeated after any failure.

use super::{Failed, Trouble, Workers};
use crate::agent::allowed;
use crate::agent::images::PullState;
use crate::agent::reconcile::SUPERSEDED_GRACE;
use crate::container::{Container, ContainerSpec, ContainerState, RuntimeError};
use crate::model::service::{File, PullPolicy};
use crate::model::{Owner, PodId, ServiceSpec};
use crate::process::failpoint;
use crate::store::ToRun;
use crate::telemetry::chain;

impl Workers {
    /// Looks at a container whose change the engine told of.
    pub(super) async fn inspect_changed(&self, pod: &PodId) -> Result<(), Trouble> {
        let Some(known) = self.table.take_changed(pod) else {
            return Ok(());
        };
        match self.runtime().inspect(&known).await {
            Ok(container) => {
                self.table.set_container(pod, container);
                Ok(())
            }
            Err(error) => {
                self.table.set_changed(pod);
                Err(Trouble::Engine(error))
            }
        }
    }

    pub(super) async fn create(&self, pod: &PodId, run: &ToRun) -> Result<(), Failed> {
        let spec = self.wish(run)?;
        let (image, pull, ports) = (spec.image.clone(), spec.pull, spec.ports.clone());
        let fetched = self.table.take_fetched(pod, &run.token);
        if pull == PullPolicy::Always && !fetched {
            self.fetch(pod, run, &image).await?;
            return Err(Failed::Again); // a pull takes long: ask again whether the placement stands
        }
        let service = match Owner::parse(&run.owner) {
            Some(Owner::Service(key)) => Some(key.to_string()),
            _ => None,
        };
        let spec = ContainerSpec {
            node: self.node().to_owned(),
            cluster: self.cluster().to_owned(),
            pod: pod.clone(),
            token: run.token.clone(),
            replica: run.replica,
            spec: Box::new(spec),
            revision: run.revision,
            wish: service.as_deref().and_then(|key| self.knowledge.label(key)),
            service,
        };
        let permit = self.starts.acquire().await;
        failpoint("agent.before_create");
        let created = self.runtime().create(&spec).await;
        match created {
            Ok(created) => {
                failpoint("agent.after_create");
                let container = if created.adopted {
                    // It may run already, or have ended.
                    self.runtime().inspect(&created.id).await.map_err(failed)?
                } else {
                    Some(Container {
                        id: created.id,
                        name: spec.name(),
                        pod: pod.clone(),
                        token: run.token.clone(),
                        image,
                        state: ContainerState::Created,
                        ports,
                    })
                };
                self.table.set_container(pod, container);
                Ok(())
            }
            Err(RuntimeError::ImageMissing { .. }) if pull == PullPolicy::Never => {
                let node = self.node();
                Err(Failed::Pod(format!(
                    "the image {image} is not on node {node}, and `pull` is never: load it there, or set `pull` to missing"
                )))
            }
            Err(RuntimeError::ImageMissing { .. }) => {
                drop(permit); // a pull must not delay other pods
                self.fetch(pod, run, &image).await?;
                Err(Failed::Again)
            }
            Err(RuntimeError::Superseded { id, .. }) => {
                let older = self.runtime().inspect(&id).await.map_err(failed)?;
                self.table.set_container(pod, older);
                Ok(())
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn stop(
        &self,
        pod: &PodId,
        container: &Container,
        superseded: bool,
    ) -> Result<(), Failed> {
        let grace = if superseded {
            SUPERSEDED_GRACE
        } else {
            self.parts.settings.stop_grace
        };
        let _permit = self.stops.acquire().await;
        tracing::info!(pod.id = %pod, node.id = self.node(), container.id = container.id, superseded, "stopping container");
        let runtime = self.runtime();
        runtime.stop(&container.id, grace).await.map_err(failed)?;
        let now = runtime.inspect(&container.id).await.map_err(failed)?;
        self.table.set_container(pod, now);
        Ok(())
    }

    pub(super) async fn remove(&self, pod: &PodId, container: &Container) -> Result<(), Failed> {
        let _permit = self.stops.acquire().await;
        self.runtime().remove(&container.id).await.map_err(failed)?;
        self.table.set_container(pod, None);
        Ok(())
    }

    pub(super) async fn start_container(
        &self,
        pod: &PodId,
        run: &ToRun,
        container: Container,
        term: u64,
    ) -> Result<(), Failed> {
        let spec = self.wish(run)?;
        let _permit = self.starts.acquire().await;
        if container.state == ContainerState::Created && !spec.files.is_empty() {
            // Here and not after the creation: whoever created it may have died before this.
            let put = self.runtime().put_files(&container.id, &spec).await;
            put.map_err(|error| self.not_started(pod, error))?;
        }
        failpoint("agent.before_start");
        if !self.lease.is_held_since(term) {
            tracing::warn!(pod.id = %pod, "the node's lease ran out: asking again before the start");
            self.lease.held().await;
            return Err(Failed::Again); // the pod may be someone else's by now
        }
        let started = self.runtime().start(&container.id).await;
        started.map_err(|error| self.not_started(pod, error))?;
        failpoint("agent.after_start");
        tracing::info!(pod.id = %pod, node.id = self.node(), container.id = container.id, "container started");
        let chosen_by_engine = container.ports.iter().any(|port| port.host.is_none());
        let now = if chosen_by_engine {
            self.runtime()
                .inspect(&container.id)
                .await
                .map_err(failed)?
        } else {
            let state = ContainerState::Running;
            Some(Container { state, ..container })
        };
        self.table.set_container(pod, now);
        Ok(())
    }

    fn not_started(&self, pod: &PodId, error: RuntimeError) -> Failed {
        match error {
            RuntimeError::ContainerMissing { .. } => {
                self.table.set_container(pod, None);
                Failed::Again
            }
            RuntimeError::PortTaken { port, .. } => Failed::Pod(format!(
                "port {port} of node {} is taken by another program or container",
                self.node()
            )),
            error => failed(error),
        }
    }

    /// Waits until an image is pulled, or until someone wants another look at the pod: it may be
    /// that it is to be stopped.
    async fn fetch(&self, pod: &PodId, run: &ToRun, image: &str) -> Result<(), Failed> {
        let wanted = self.table.wanted(pod);
        let mut pull = self.images.pull(image, run.registry.as_ref());
        let mut told = String::new();
        loop {
            let state = pull.borrow_and_update().clone();
            match state {
                PullState::Pulling(words) if words != told => {
                    told.clone_from(&words);
                    let telling = self.report_reason(pod, run.token.clone(), words);
                    telling.await.map_err(Failed::Trouble)?;
                }
                PullState::Pulling(_) => {}
                PullState::Pulled => {
                    self.table.set_fetched(pod, run.token.clone());
                    return Ok(());
                }
                PullState::Failed(reason) => return Err(Failed::Pod(reason)),
                PullState::EngineAway => {
                    self.engine_trouble.notify_one();
                    return Err(Failed::Again);
                }
            }
            tokio::select! {
                changed = pull.changed() => changed.map_err(|_| Failed::Again)?, // the agent ends
                () = wanted.notified() => return Err(Failed::Again),
            }
        }
    }

    /// What a pod's container is to be, if it is sound and this node allows it: whatever stands in
    /// Redis, by whomever.
    fn wish(&self, run: &ToRun) -> Result<ServiceSpec, Failed> {
        let spec: ServiceSpec = serde_json::from_str(&run.spec)
            .map_err(|error| Failed::Pod(format!("its stored spec cannot be read: {error}")))?;
        // What is told of a container by its labels alone lacks what is secret.
        let lost = |file: &&File| file.secret && file.content.is_none() && file.base64.is_none();
        if let Some(file) = spec.files.iter().find(lost) {
            let path = &file.path;
            return Err(Failed::Pod(format!(
                "the content of its secret file {path} was lost with the store: give the service again"
            )));
        }
        if let Some(broken) = spec.violations(u32::MAX).first() {
            let reason = format!("its stored spec breaks a rule: {broken}");
            return Err(Failed::Pod(reason));
        }
        match allowed::refusal(&spec, &self.parts.settings.allow, self.node()) {
            Some(refusal) => Err(Failed::Pod(refusal)),
            None => Ok(spec),
        }
    }
}

fn failed(error: RuntimeError) -> Failed {
    if error.is_unreachable() {
        Failed::Trouble(Trouble::Engine(error))
    } else {
        Failed::Pod(chain(&error))
    }
}
