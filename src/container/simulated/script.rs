//! What tests and benchmarks tell a simulated engine to do, and ask of it; no agent does.

use std::time::Duration;

use tokio::sync::watch;

use super::state::{Scripted, Simulation};
use super::{Counts, Simulated};
use crate::container::{
    Container, ContainerSpec, ContainerState, EngineHealth, GivenDevices, HealthState, PullProgress,
};
use crate::model::{LogStream, PodId};

impl Simulated {
    /// Gives the machine another size.
    pub fn set_capacity(&self, cpu_millis: u64, memory_bytes: u64) {
        self.state().capacity = Some((cpu_millis, memory_bytes));
    }

    /// Has containers of a pod use so many thousandths of a core and bytes in memory.
    pub fn set_use(&self, pod: &PodId, cpu_millis: u64, memory_bytes: u64) {
        let uses = (cpu_millis, memory_bytes);
        self.state().uses.insert(pod.clone(), uses);
    }

    /// Makes an image present without a pull.
    pub fn add_image(&self, image: &str) {
        let mut state = self.state();
        state.images_denied.remove(image);
        state.images.insert(image.to_owned());
    }

    /// Makes an image absent here and in every registry: pulls of it are denied.
    pub fn deny_image(&self, image: &str) {
        let mut state = self.state();
        state.images.remove(image);
        state.images_denied.insert(image.to_owned());
    }

    /// Makes an image one that can be pulled again.
    pub fn allow_image(&self, image: &str) {
        self.state().images_denied.remove(image);
    }

    /// Makes pulls from now on wait until [`Simulated::release_pulls`].
    pub fn hold_pulls(&self) {
        self.state().pulls_held = Some(watch::Sender::new(PullProgress::default()));
    }

    /// Has waiting pulls tell how far they have come.
    pub fn show_progress(&self, come: PullProgress) {
        if let Some(held) = &self.state().pulls_held {
            held.send_replace(come);
        }
    }

    /// Makes the next pull fail with `message`, which may pass; called twice, the next two.
    pub fn fail_next_pull(&self, message: impl Into<String>) {
        self.state().pull_failures.push_back(message.into());
    }

    /// Lets waiting pulls go on.
    pub fn release_pulls(&self) {
        self.state().pulls_held = None;
    }

    /// Makes the next start fail with `message`; called twice, the next two.
    pub fn fail_next_start(&self, message: impl Into<String>) {
        self.state().start_failures.push_back(message.into());
    }

    /// Makes containers take so long to end when they are asked to; longer than their grace, and
    /// they are killed.
    pub fn set_end_time(&self, time: Duration) {
        self.state().end_time = Some(time);
    }

    /// Makes commands inside the containers of a pod end with this code, having said this.
    pub fn set_probe(&self, pod: &PodId, exit_code: i64, said: &str) {
        let scripted = Scripted::Ends(exit_code, said.to_owned());
        self.state().probes.insert(pod.clone(), scripted);
    }

    /// Makes commands inside the containers of a pod hang.
    pub fn hang_probe(&self, pod: &PodId) {
        self.state().probes.insert(pod.clone(), Scripted::Hangs);
    }

    /// Makes the engine's own check of a pod's container say this, and tells of it.
    pub fn set_health(&self, pod: &PodId, health: HealthState, said: &str) {
        let said = said.to_owned();
        self.change(pod, |container| {
            container.health = Some(EngineHealth {
                state: health,
                said,
            });
        });
    }

    /// Pauses the running container of a pod behind the agent's back.
    pub fn pause(&self, pod: &PodId) {
        self.change(pod, |container| container.state = ContainerState::Paused);
    }

    /// Changes the limits of a pod's container behind the agent's back.
    pub fn drift(&self, pod: &PodId) {
        self.change(pod, |container| container.drifted = true);
    }

    fn change(&self, pod: &PodId, change: impl FnOnce(&mut Simulation)) {
        let mut state = self.state();
        let of_pod = |container: &&mut Simulation| {
            let spec = container.spec.as_deref();
            container.lives() && spec.is_some_and(|spec| spec.pod == *pod)
        };
        let Some(container) = state.containers.values_mut().find(of_pod) else {
            return;
        };
        change(container);
        let spec = container.spec.clone();
        state.notify(spec.as_deref());
    }

    /// Ends a running container behind the agent's back; false if it does not run.
    pub fn end(&self, id: &str, exit_code: i64, reason: Option<&str>) -> bool {
        self.state().end(id, exit_code, reason)
    }

    /// Ends the running container of a pod behind the agent's back; false if it has none.
    pub fn end_pod(&self, pod: &PodId, exit_code: i64, reason: Option<&str>) -> bool {
        let mut state = self.state();
        let running =
            state.shown(|spec, state| spec.pod == *pod && *state == ContainerState::Running);
        running
            .first()
            .is_some_and(|container| state.end(&container.id, exit_code, reason))
    }

    /// Has the container of a pod write a line to its log; false if it has none.
    pub fn say(&self, pod: &PodId, stream: LogStream, text: &str) -> bool {
        let mut state = self.state();
        let of_pod = |spec: &ContainerSpec, _: &ContainerState| spec.pod == *pod;
        let Some(shown) = state.shown(of_pod).pop() else {
            return false;
        };
        let found = state.containers.get_mut(&shown.id);
        found.is_some_and(|container| {
            container.log.say(stream, text);
            true
        })
    }

    /// Has the container of a pod write lines without end, as fast as they are read.
    pub fn babble(&self, pod: &PodId) {
        let mut state = self.state();
        for container in state.containers.values_mut() {
            if container
                .spec
                .as_deref()
                .is_some_and(|spec| spec.pod == *pod)
            {
                container.log.babble();
            }
        }
    }

    /// Makes the engine stop answering; its containers go on. Subscriptions end.
    pub fn set_down(&self, is_down: bool) {
        let mut state = self.state();
        state.is_down = is_down;
        if is_down {
            state.watchers.clear();
        }
    }

    /// Ends every subscription as soon as it began, as a proxy that refuses events does.
    pub fn refuse_news(&self) {
        let mut state = self.state();
        state.refuses_news = true;
        state.watchers.clear();
    }

    /// Lets subscriptions live, and tells them nothing any more.
    pub fn mute_news(&self) {
        self.state().mute = true;
    }

    /// Adds a container that is not ours, and gives its id.
    pub fn add_stranger(&self, name: impl Into<String>) -> String {
        self.state().add(name.into(), None)
    }

    /// Ids of all containers that are not ours.
    pub fn strangers(&self) -> Vec<String> {
        let state = self.state();
        let strangers = state.containers.iter();
        strangers
            .filter(|(_, container)| container.spec.is_none())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// What the container of a pod was given of its node's devices.
    pub fn given(&self, pod: &PodId) -> Option<GivenDevices> {
        let state = self.state();
        let mut specs = state
            .containers
            .values()
            .filter_map(|it| it.spec.as_deref());
        let spec = specs.find(|spec| spec.pod == *pod)?;
        Some(spec.given.clone())
    }

    /// All containers of ours that run, of every node and cluster.
    pub fn live(&self) -> Vec<Container> {
        self.state()
            .shown(|_, state| *state == ContainerState::Running)
    }

    /// All containers of ours, of every node and cluster.
    pub fn containers(&self) -> Vec<Container> {
        self.state().shown(|_, _| true)
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }
}
