//! The containers of a simulated engine, and who is told of their changes.
//!
//! Every change is made in one call under the engine's lock. No time passes here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::attach::{Command, Log};
use super::{Counts, PORT_FIRST};
use crate::container::labels::Identity;
use crate::container::{
    Container, ContainerSpec, ContainerState, EngineHealth, HealthState, PullProgress,
};
use crate::model::{PodId, Port};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) capacity: Option<(u64, u64)>,
    pub(super) containers: HashMap<String, Simulation>,
    /// Every container's name, those of strangers included.
    pub(super) names: HashMap<String, String>,
    pub(super) images: HashSet<String>,
    pub(super) images_denied: HashSet<String>,
    pub(super) start_failures: VecDeque<String>,
    pub(super) pull_failures: VecDeque<String>,
    /// How long containers take to end when they are asked to; at once if nothing is said.
    pub(super) end_time: Option<Duration>,
    /// What commands inside the containers of a pod do; they end well if nothing is said.
    pub(super) probes: HashMap<PodId, Scripted>,
    /// What containers of a pod use: thousandths of a core, and bytes in memory.
    pub(super) uses: HashMap<PodId, (u64, u64)>,
    pub(super) pulls_held: Option<watch::Sender<PullProgress>>,
    /// Ports given so far where none was asked for.
    pub(super) ports_given: u16,
    /// Subscriptions end as soon as they began.
    pub(super) refuses_news: bool,
    /// Subscriptions are told nothing.
    pub(super) mute: bool,
    pub(super) is_down: bool,
    pub(super) counts: Counts,
    pub(super) watchers: Vec<Watcher>,
    /// Commands that run, or ended and were not asked for since.
    pub(super) commands: HashMap<String, Command>,
}

#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) name: String,
    /// None for a stranger's container.
    pub(super) spec: Option<Arc<ContainerSpec>>,
    pub(super) state: ContainerState,
    pub(super) log: Log,
    pub(super) ports: Vec<Port>,
    pub(super) health: Option<EngineHealth>,
    pub(super) drifted: bool,
}

/// What a command inside a container does.
#[derive(Debug, Clone)]
pub(super) enum Scripted {
    /// It ends with this code, having said this.
    Ends(i64, String),
    /// It does not end.
    Hangs,
}

#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) notices: mpsc::Sender<PodId>,
}

impl State {
    pub(super) fn add(&mut self, name: String, spec: Option<Arc<ContainerSpec>>) -> String {
        // Random, since ids of different engines meet in one test's lists; as long as Docker's, so
        // that what a pod takes in Redis is true.
        let id = format!("simulated-{:054x}", rand::random::<u128>());
        self.names.insert(name.clone(), id.clone());
        let ports = spec.as_ref().map(|spec| spec.spec.ports.clone());
        let simulation = Simulation {
            name,
            spec,
            state: ContainerState::Created,
            ports: ports.unwrap_or_default(),
            health: None,
            drifted: false,
            log: Log::default(),
        };
        self.containers.insert(id.clone(), simulation);
        id
    }

    /// Runs a container; nothing happens to one that runs.
    pub(super) fn run(&mut self, id: &str) {
        let idle = |container: &&mut Simulation| container.state != ContainerState::Running;
        if let Some(container) = self.containers.get_mut(id).filter(idle) {
            // No notice: nobody starts our containers behind the agent's back.
            container.state = ContainerState::Running;
            container.log.begin();
            for port in &mut container.ports {
                port.host.get_or_insert_with(|| {
                    self.ports_given = self.ports_given.wrapping_add(1) % PORT_FIRST;
                    PORT_FIRST + self.ports_given
                });
            }
            if let Some(health) = &mut container.health {
                health.state = HealthState::Starting;
            }
            self.counts.starts += 1;
            self.counts.live += 1;
        }
    }

    /// Ends a container; false if it does not run.
    pub(super) fn end(&mut self, id: &str, exit_code: i64, reason: Option<&str>) -> bool {
        let running = |container: &&mut Simulation| container.lives();
        let Some(container) = self.containers.get_mut(id).filter(running) else {
            return false;
        };
        let reason = reason.map(str::to_owned);
        container.state = ContainerState::Exited { exit_code, reason };
        let spec = container.spec.clone();
        container.log.end();
        if let Some(spec) = &spec {
            container.ports.clone_from(&spec.spec.ports); // those it was given go back
        }
        self.counts.live -= 1;
        for command in self.commands.values().filter(|one| one.container == id) {
            command.kill();
        }
        self.notify(spec.as_deref());
        true
    }

    /// Tells the watchers of the container's node. One that does not keep up is cut off: its
    /// stream ends with an error, and it has to compare.
    pub(super) fn notify(&mut self, spec: Option<&ContainerSpec>) {
        let Some(spec) = spec.filter(|_| !self.mute) else {
            return;
        };
        self.watchers.retain(|watcher| {
            watcher.node != spec.node
                || watcher.cluster != spec.cluster
                || watcher.notices.try_send(spec.pod.clone()).is_ok()
        });
    }

    /// Our containers that pass `wanted`, in order of their names.
    pub(super) fn shown(
        &self,
        wanted: impl Fn(&ContainerSpec, &ContainerState) -> bool,
    ) -> Vec<Container> {
        let mut shown: Vec<Container> = self
            .containers
            .iter()
            .filter(|(_, container)| {
                let spec = container.spec.as_deref();
                spec.is_some_and(|spec| wanted(spec, &container.state))
            })
            .filter_map(|(id, container)| container.shown(id))
            .collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        shown
    }
}

impl Simulation {
    pub(super) fn lives(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }

    pub(super) fn identity(&self) -> Option<Identity> {
        self.spec.as_deref().map(Identity::of)
    }

    pub(super) fn shown(&self, id: &str) -> Option<Container> {
        let spec = self.spec.as_deref()?;
        Some(Container {
            id: id.to_owned(),
            name: self.name.clone(),
            pod: spec.pod.clone(),
            token: spec.token.clone(),
            image: spec.spec.image.clone(),
            state: self.state.clone(),
            ports: self.ports.clone(),
            devices: spec.given.names.clone(),
            health: self.health.clone(),
            // Whoever listens on this machine plays the container.
            address: self.lives().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            drifted: self.drifted,
            fenced: spec.spec.on_node_loss.is_fenced(),
        })
    }
}
