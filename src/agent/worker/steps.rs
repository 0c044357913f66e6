//! Steps: what a worker asks of the engine, one at a time.
//!
//! Every engine call is idempotent, so a step may be repeated after any failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Failed, Trouble, Workers};
use crate::agent::reconcile::SUPERSEDED_GRACE;
use crate::container::{Container, ContainerSpec, ContainerState, Runtime, RuntimeError};
use crate::model::{Owner, PodId, ServiceSpec};
use crate::process::failpoint;
use crate::store::ToRun;
use crate::store::backoff::Backoff;
use crate::telemetry::chain;

/// Tries of a pull whose failure may pass.
const PULL_TRIES: usize = 3;

/// A pull under way: its result, for all pods that wait for it.
pub(super) type Pull = watch::Receiver<Option<Result<(), Arc<RuntimeError>>>>;

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
        let spec: ServiceSpec = serde_json::from_str(&run.spec)
            .map_err(|error| Failed::Pod(format!("its stored spec cannot be read: {error}")))?;
        let service = match Owner::parse(&run.owner) {
            Some(Owner::Service(key)) => Some(key.to_string()),
            _ => None,
        };
        let image = spec.image.clone();
        let spec = ContainerSpec {
            node: self.node().to_owned(),
            cluster: self.cluster().to_owned(),
            pod: pod.clone(),
            token: run.token.clone(),
            replica: run.replica,
            spec: Box::new(spec),
            revision: run.revision,
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
                    })
                };
                self.table.set_container(pod, container);
                Ok(())
            }
            Err(RuntimeError::ImageMissing { .. }) => {
                drop(permit); // a pull must not delay other pods
                self.pull(pod, run, &image).await?;
                Err(Failed::Again) // a pull takes long: ask again whether the placement stands
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
        self.keep_logs_of_removed(pod, container).await;
        self.runtime().remove(&container.id).await.map_err(failed)?;
        self.table.set_container(pod, None);
        Ok(())
    }

    pub(super) async fn start_container(
        &self,
        pod: &PodId,
        container: Container,
        term: u64,
    ) -> Result<(), Failed> {
        let _permit = self.starts.acquire().await;
        failpoint("agent.before_start");
        if !self.lease.is_held_since(term) {
            tracing::warn!(pod.id = %pod, "the node's lease ran out: asking again before the start");
            self.lease.held().await;
            return Err(Failed::Again); // the pod may be someone else's by now
        }
        match self.runtime().start(&container.id).await {
            Ok(()) => {}
            Err(RuntimeError::ContainerMissing { .. }) => {
                self.table.set_container(pod, None);
                return Err(Failed::Again);
            }
            Err(error) => return Err(failed(error)),
        }
        failpoint("agent.after_start");
        tracing::info!(pod.id = %pod, node.id = self.node(), container.id = container.id, "container started");
        let state = ContainerState::Running;
        self.table
            .set_container(pod, Some(Container { state, ..container }));
        Ok(())
    }

    /// Waits until an image is pulled, or until someone wants another look at the pod: it may be
    /// that it is to be stopped.
    async fn pull(&self, pod: &PodId, run: &ToRun, image: &str) -> Result<(), Failed> {
        let reason = format!("pulling image {image}");
        self.report_reason(pod, run.token.clone(), reason)
            .await
            .map_err(Failed::Trouble)?;
        let wanted = self.table.wanted(pod);
        let mut pull = self.pull_of(image);
        let result = tokio::select! {
            done = pull.wait_for(Option::is_some) => match done.as_deref() {
                Ok(Some(result)) => result.clone(),
                Ok(None) | Err(_) => return Err(Failed::Again), // the agent ends
            },
            () = wanted.notified() => return Err(Failed::Again),
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_unreachable() => {
                self.engine_trouble.notify_one();
                Err(Failed::Again)
            }
            Err(error) => Err(Failed::Pod(chain(&*error))),
        }
    }

    /// The pull of an image that is under way, or a new one: one however many pods wait for it.
    fn pull_of(&self, image: &str) -> Pull {
        let mut pulls = lock(&self.pulls);
        if let Some(pull) = pulls.get(image) {
            return pull.clone();
        }
        let (done, pull) = watch::channel(None);
        pulls.insert(image.to_owned(), pull.clone());
        drop(pulls);
        let (pulls, image) = (self.pulls.clone(), image.to_owned());
        let (runtime, ends) = (self.runtime().clone(), self.ends().clone());
        // A task of its own: a pod that stops waiting must not end it for the others.
        tokio::spawn(async move {
            let result = ends
                .run_until_cancelled(pull_with_patience(&runtime, &image))
                .await;
            lock(&pulls).remove(&image);
            done.send_replace(result);
        });
        pull
    }
}

async fn pull_with_patience(runtime: &Runtime, image: &str) -> Result<(), Arc<RuntimeError>> {
    let mut backoff = Backoff::new();
    let mut tries = 1;
    loop {
        match runtime.pull(image).await {
            Ok(()) => return Ok(()),
            Err(error @ (RuntimeError::ImageMissing { .. } | RuntimeError::ImageDenied { .. })) => {
                return Err(Arc::new(error));
            }
            Err(error) if tries == PULL_TRIES => return Err(Arc::new(error)),
            Err(error) => {
                tracing::warn!(image, error = chain(&error), "pull failed, trying again");
                tries += 1;
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

fn lock(pulls: &Mutex<HashMap<String, Pull>>) -> MutexGuard<'_, HashMap<String, Pull>> {
    pulls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: RuntimeError) -> Failed {
    if error.is_unreachable() {
        Failed::Trouble(Trouble::Engine(error))
    } else {
        Failed::Pod(chain(&error))
    }
}
