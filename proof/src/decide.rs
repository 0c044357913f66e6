//! What an agent and a controller decide: kubeleet's own functions, asked for a cluster of numbers.
//!
//! An agent's decision depends on few things, so each is asked for once and kept.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use kubeleet::agent::life::{Life, Pace};
use kubeleet::agent::reconcile::{Step, next_step};
use kubeleet::container::{Container, ContainerState};
use kubeleet::controller::plan::plan;
use kubeleet::model::service::OnNodeLoss;
use kubeleet::model::{self, Desired, Phase, PodId, ServiceSpec};
use kubeleet::store::{self as real, PodView, ToRun, View};

use crate::reference::{PodKey, Store, Taken};
use crate::world::State;

/// One step towards what is wanted, of those that are possible here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Create the container.
    Create,
    /// Start it.
    Start,
    /// Stop it.
    Stop,
    /// Remove it.
    Remove,
    /// Say that nothing is left of it.
    ReportStopped,
    /// Nothing.
    Done,
}

/// A container as a decision sees it: whether it is of the placement asked about, and its state.
type Seen = Option<(bool, State)>;

const SEEN: [Seen; 7] = [
    None,
    Some((true, State::Created)),
    Some((true, State::Running)),
    Some((true, State::Exited)),
    Some((false, State::Created)),
    Some((false, State::Running)),
    Some((false, State::Exited)),
];

/// Kinds of [`Taken`].
const KINDS: usize = 6;

static DEEDS: LazyLock<[[Deed; SEEN.len()]; KINDS]> =
    LazyLock::new(|| std::array::from_fn(|kind| SEEN.map(|seen| ask(&wanted_of(kind), seen))));

/// What the agent does next, as [`next_step`] says.
pub fn decide(taken: Taken, container: Option<(crate::reference::Token, State)>) -> Deed {
    let (kind, token) = match taken {
        Taken::Absent => (0, None),
        Taken::Stale => (1, None),
        Taken::Unwanted => (2, None),
        Taken::Stop(token) => (3, Some(token)),
        Taken::Ended(token, _) => (4, Some(token)),
        Taken::Run(token, _) => (5, Some(token)),
    };
    let seen = match container {
        None => 0,
        Some((of, state)) => {
            let other = if Some(of) == token { 0 } else { 3 };
            1 + other
                + match state {
                    State::Created => 0,
                    State::Running => 1,
                    State::Exited => 2,
                }
        }
    };
    DEEDS[kind][seen]
}

fn token(ours: bool) -> model::Token {
    let nonce = if ours { "ours" } else { "another" };
    model::Token {
        attempt: 1,
        nonce: nonce.to_owned(),
    }
}

fn wanted_of(kind: usize) -> real::Taken {
    match kind {
        0 => real::Taken::Absent,
        1 => real::Taken::Stale,
        2 => real::Taken::Unwanted,
        3 => real::Taken::Stop(token(true)),
        4 => real::Taken::Ended(token(true), Phase::Failed),
        _ => real::Taken::Run(Box::new(to_run())),
    }
}

fn to_run() -> ToRun {
    ToRun {
        token: token(true),
        phase: Phase::Starting,
        replica: 0,
        owner: "service:default/s0".to_owned(),
        revision: 1,
        spec: String::new(),
        container: String::new(),
        restarts: 0,
        registry: None,
        devices: Vec::new(),
        fence: String::new(),
    }
}

fn ask(wanted: &real::Taken, seen: Seen) -> Deed {
    let pace = Pace {
        first: Duration::ZERO,
        max: Duration::ZERO,
        reset: Duration::from_secs(600),
    };
    let runs = matches!(wanted, real::Taken::Run(_));
    let life = runs.then(|| Life::of(&to_run(), pace));
    let container = seen.map(|(ours, state)| Container {
        id: "it".to_owned(),
        name: "it".to_owned(),
        pod: PodId::of_submission("s0", 0),
        token: token(ours),
        image: "image".to_owned(),
        state: match state {
            State::Created => ContainerState::Created,
            State::Running => ContainerState::Running,
            State::Exited => ContainerState::Exited {
                exit_code: 137,
                reason: None,
            },
        },
        ports: Vec::new(),
        devices: Vec::new(),
        health: None,
        address: None,
        drifted: false,
        fenced: true,
    });
    match next_step(wanted, container.as_ref(), life.as_ref(), Instant::now()) {
        Step::Create => Deed::Create,
        Step::Start => Deed::Start,
        Step::Stop { .. } => Deed::Stop,
        Step::Remove => Deed::Remove,
        Step::ReportStopped => Deed::ReportStopped,
        _ => Deed::Done,
    }
}

/// What a controller would do for a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Its turn when it was viewed.
    pub turn: u8,
    /// Replica indexes of new pods.
    pub new: Vec<u8>,
    /// Pods to stop.
    pub stop: Vec<PodKey>,
    /// It is to be looked at again though nothing changes.
    pub again: bool,
}

/// More ended pods than there ever are.
const ENDED_KEPT: usize = 200;
/// Long after everything here happened: no pause is left to wait for.
const NOW_MS: u64 = 1_000_000_000;

/// The next step for a service, as [`plan()`] says; none if it is not there.
pub fn planned(store: &Store, service: u8, on_loss: OnNodeLoss) -> Option<Plan> {
    let record = store.services[usize::from(service)].record.as_ref()?;
    let pods = store.pods_of(service);
    let mut spec = Box::new(ServiceSpec::new("s0", "image"));
    spec.on_node_loss = on_loss;
    let view = View {
        now_ms: NOW_MS,
        turn: record.turn.into(),
        revision: 1,
        replicas: record.replicas.into(),
        split: record.split.into(),
        deleting: record.deleting,
        host_ports: Vec::new(),
        spec: Some(spec),
        pods: pods.iter().map(|pod| view_of(store, *pod)).collect(),
    };
    let step = plan(&view, ENDED_KEPT);
    let new = step.new.iter().map(|pod| pod.replica);
    let known = |id: &PodId| pods.iter().copied().find(|pod| id_of(*pod) == *id);
    Some(Plan {
        turn: record.turn,
        new: new.filter_map(|it| u8::try_from(it).ok()).collect(),
        stop: step.stop.iter().filter_map(|(id, _)| known(id)).collect(),
        again: step.again.is_some(),
    })
}

fn id_of(pod: PodKey) -> PodId {
    // In order, as ids of real pods are: a plan prefers the lower among equals.
    PodId::of_submission(&format!("s{:03}", pod.submission), pod.replica.into())
}

fn view_of(store: &Store, key: PodKey) -> PodView {
    let pod = store.pod(key);
    let phase = pod.map(|pod| pod.phase);
    let node = pod.and_then(|pod| pod.node);
    let runs = pod.is_none_or(|pod| pod.run);
    PodView {
        id: id_of(key),
        replica: key.replica.into(),
        phase,
        desired: if runs { Desired::Run } else { Desired::Stop },
        revision: 1,
        ready: phase == Some(Phase::Running),
        node: node.map(|node| format!("node{node}")),
        created_ms: key.submission.into(),
        changed_ms: 0,
        exit_code: None,
        restarts: 0,
        retries: 0,
        host_ports: Vec::new(),
        device_kinds: Vec::new(),
        node_pods: node.map_or(0, |node| u64::from(store.taken_room(node))),
        draining: false,
        leaves: None,
    }
}
