//! Steps: what a worker asks of the engine, one at a time.
//!
//! Every engine call is idempotent, so a step may be repeated after any failure.

use std::time::{Duration, Instant};

use super::{Failed, Trouble, Workers};
use crate::agent::allowed;
use crate::agent::images::PullState;
use crate::agent::reconcile::{SUPERSEDED_GRACE, Step};
use crate::container::{Container, ContainerSpec, ContainerState, GivenDevices, RuntimeError};
use crate::model::service::{File, PullPolicy};
use crate::model::{Owner, PodId, ServiceSpec};
use crate::process::failpoint;
use crate::remedies;
use crate::store::ToRun;
use crate::telemetry::chain;

/// Variable that tells a program its fence: a number that grows from placement to placement, so that
/// what it writes to can refuse whoever comes with a lower one than it has seen.
const FENCE: &str = "KUBELEET_FENCE";
/// A stop that takes longer waits for its container's grace, which is no work for the engine.
const STOP_WORK: Duration = Duration::from_millis(300);

impl Workers {
    /// Looks at a container whose change the engine told of.
    pub(super) async fn inspect_changed(&self, pod: &PodId) -> Result<(), Trouble> {
        let Some(known) = self.table.take_changed(pod) else {
            return Ok(());
        };
        let _permit = self.inspections.acquire().await;
        match self.runtime().inspect(&known).await {
            Ok(container) => {
                self.table.with(pod, |slot| {
                    slot.container = container;
                    if slot.life.is_none() {
                        slot.ask = true; // only Redis knows what it is to do
                    }
                });
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
        let given = self.given(run, &spec).map_err(Failed::Pod)?;
        let devices = given.names.clone();
        let fenced = spec.on_node_loss.is_fenced();
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
            given,
        };
        let permit = self.starts.acquire().await;
        if self.is_given_back_first(pod, &run.token) {
            return Err(Failed::Again);
        }
        failpoint("agent.before_create");
        let created = self.runtime().create(&spec).await;
        match created {
            Ok(created) => {
                failpoint("agent.after_create");
                let adopted = created.adopted;
                let container = if adopted {
                    // It may run already, or have ended.
                    self.runtime().inspect(&created.id).await.map_err(refused)?
                } else {
                    Some(Container {
                        id: created.id,
                        name: spec.name(),
                        pod: pod.clone(),
                        token: run.token.clone(),
                        image,
                        state: ContainerState::Created,
                        ports,
                        devices,
                        health: None,
                        address: None,
                        drifted: false,
                        fenced,
                    })
                };
                self.table.set_container(pod, container);
                self.table.with(pod, |slot| slot.unstarted = !adopted);
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
                let older = self.runtime().inspect(&id).await.map_err(refused)?;
                self.table.set_container(pod, older);
                Ok(())
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// A step that changes a container that is there, and needs no word of Redis.
    pub(super) async fn step(
        &self,
        pod: &PodId,
        container: &Container,
        step: Step,
    ) -> Result<(), Failed> {
        match step {
            Step::Stop { superseded } => self.stop(pod, container, superseded).await,
            Step::Unpause => {
                tracing::warn!(pod.id = %pod, container.id = container.id, "it was paused by someone else");
                let unpaused = self.runtime().unpause(&container.id).await;
                self.seen_again(pod, unpaused).await
            }
            Step::Mend => {
                tracing::warn!(pod.id = %pod, container.id = container.id, "its limits were changed by someone else");
                let mended = self.runtime().mend(&container.id).await;
                let mended = match mended {
                    Err(error) if !error.is_unreachable() => {
                        tracing::warn!(pod.id = %pod, error = chain(&error), "its limits cannot be put back");
                        Ok(())
                    }
                    other => other,
                };
                self.seen_again(pod, mended).await?;
                self.table.with_life(pod, |life, container| {
                    life.unmendable = container.is_some_and(|it| it.drifted);
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at a container again after something was done to it.
    async fn seen_again(&self, pod: &PodId, done: Result<(), RuntimeError>) -> Result<(), Failed> {
        done.map_err(refused)?;
        self.table.set_changed(pod);
        self.inspect_changed(pod).await.map_err(Failed::Trouble)
    }

    /// Stops a container: asks it to end, and kills it after its grace, never before.
    async fn stop(
        &self,
        pod: &PodId,
        container: &Container,
        superseded: bool,
    ) -> Result<(), Failed> {
        let grace = if superseded {
            SUPERSEDED_GRACE
        } else {
            self.grace_of(pod, container).await?
        };
        self.table.with(pod, |slot| slot.probes.clear());
        let _in_grace = self.graces.acquire().await;
        let place = self.stops.acquire().await;
        tracing::info!(pod.id = %pod, node.id = self.node(), container.id = container.id, superseded, "stopping container");
        let mut stopping = std::pin::pin!(self.runtime().stop(&container.id, grace));
        let stopped = match tokio::time::timeout(STOP_WORK, &mut stopping).await {
            Ok(stopped) => stopped,
            Err(_) => {
                drop(place); // others need not wait for this one's grace
                stopping.await
            }
        };
        self.seen_again(pod, stopped).await
    }

    /// The grace of a container: what its spec says, which its labels hold too.
    async fn grace_of(&self, pod: &PodId, container: &Container) -> Result<Duration, Failed> {
        let known = self.table.with(pod, |slot| slot.grace);
        let grace = if let Some(grace) = known {
            grace
        } else {
            let described = self.runtime().describe(&container.id).await;
            let made_from = described.map_err(refused)?;
            let grace = made_from.and_then(|it| it.spec.stop.grace);
            let grace = grace.map(|grace| grace.0);
            self.table.with(pod, |slot| slot.grace = Some(grace));
            grace
        };
        Ok(grace.unwrap_or(self.parts.settings.stop_grace))
    }

    pub(super) async fn remove(&self, pod: &PodId, container: &Container) -> Result<(), Failed> {
        let _permit = self.stops.acquire().await;
        self.keep_logs_of_removed(pod, container).await;
        let removed = self.runtime().remove(&container.id).await;
        removed.map_err(refused)?;
        self.table.set_container(pod, None);
        Ok(())
    }

    /// Starts a container. The first start of a placement is by the lease: `term` is that under which
    /// Redis said that it stands. One that ran before is started again without, unless two of it must
    /// never run.
    pub(super) async fn start_container(
        &self,
        pod: &PodId,
        run: Option<&ToRun>,
        container: Container,
        term: Option<u64>,
    ) -> Result<(), Failed> {
        let forbidden = self.table.with_life(pod, |life, _| life.forbidden.clone());
        if let Some(reason) = forbidden.flatten() {
            return Err(Failed::Pod(reason));
        }
        if let Some((device, holder)) = self.table.holder_of(pod, &container.devices) {
            return Err(Failed::Refused(format!(
                "device {device} of node {} is still held by the container of pod {holder}",
                self.node()
            )));
        }
        // Right before the first start, and not after the creation: whoever created it may have died.
        if let Some(run) = run.filter(|_| container.state == ContainerState::Created) {
            let spec = self.wish(run)?;
            if !spec.files.is_empty() {
                let put = self.runtime().put_files(&container.id, &spec).await;
                put.map_err(|error| self.not_started(pod, error))?;
            }
        }
        let permit = self.starts.acquire().await;
        failpoint("agent.before_start");
        let again = matches!(container.state, ContainerState::Exited { .. });
        let by_lease = !again || container.fenced;
        if by_lease && !term.is_some_and(|term| self.lease.is_held_since(term)) {
            tracing::warn!(pod.id = %pod, "the node's lease ran out: asking again before the start");
            self.lease.held().await;
            if remedies::holds("token") {
                return Err(Failed::Again); // the pod may be someone else's by now
            }
        }
        if run.is_some_and(|run| self.is_given_back_first(pod, &run.token)) {
            return Err(Failed::Again);
        }
        self.table.with(pod, |slot| {
            slot.quiet(); // what went on around its last run
            slot.unstarted = false;
        });
        let started = self.runtime().start(&container.id).await;
        started.map_err(|error| self.not_started(pod, error))?;
        failpoint("agent.after_start");
        tracing::info!(pod.id = %pod, node.id = self.node(), container.id = container.id, again, "container started");
        let state = ContainerState::Running;
        self.table
            .set_container(pod, Some(Container { state, ..container }));
        let now = Instant::now();
        self.table.with_life(pod, |life, _| life.started(now));
        drop(permit);
        // Its address, its ports and the image's own check: without them it is not known whether it
        // is ready.
        self.seen_again(pod, Ok(())).await?;
        self.learn_digest(pod).await;
        Ok(())
    }

    fn not_started(&self, pod: &PodId, error: RuntimeError) -> Failed {
        match error {
            RuntimeError::ContainerMissing { .. } => {
                self.table.set_container(pod, None);
                Failed::Again
            }
            RuntimeError::PortTaken { port, .. } => Failed::Refused(format!(
                "port {port} of node {} is taken by another program or container",
                self.node()
            )),
            error => refused(error),
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
                    self.tell_reason(pod, run.token.clone(), words);
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
        if let Some(refusal) = self.distrusts(run, &spec) {
            return Err(Failed::Pod(refusal));
        }
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

    /// Why this node does not start a placement, if its settings do not allow what it asks: they may
    /// have changed since its container ran.
    pub(super) fn forbids(&self, run: &ToRun) -> Option<String> {
        let spec: ServiceSpec = serde_json::from_str(&run.spec).ok()?;
        let refusal = self.distrusts(run, &spec);
        refusal
            .or_else(|| allowed::refusal(&spec, &self.parts.settings.allow, self.node()))
            .or_else(|| self.given(run, &spec).err())
    }

    /// Why nothing is started of what Redis says, if nobody trusted signed it.
    fn distrusts(&self, run: &ToRun, spec: &ServiceSpec) -> Option<String> {
        let trust = &self.parts.trust;
        trust.refusal(&run.spec, &run.owner, spec, self.node())
    }

    /// The devices that a placement was given, as they are on this node.
    fn given(&self, run: &ToRun, spec: &ServiceSpec) -> Result<GivenDevices, String> {
        let asked = &spec.resources.devices;
        let mut given = self.parts.devices.given(&run.devices, asked, self.node())?;
        if !run.fence.is_empty() {
            given.env.insert(FENCE.to_owned(), run.fence.clone());
        }
        Ok(given)
    }
}

/// What the engine's no means: it may be a yes on the next try.
fn refused(error: RuntimeError) -> Failed {
    if error.is_unreachable() {
        Failed::Trouble(Trouble::Engine(error))
    } else {
        Failed::Refused(chain(&error))
    }
}
