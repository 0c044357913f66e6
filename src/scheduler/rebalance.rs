//! Rebalancing: pods leave nodes that have been under pressure for long, one at a time.
//!
//! [`choose`] decides, purely: which pod of a node helps most for its cost, and whether any node could
//! well take it. `rounds` looks at the nodes that tell of pressure, and has it carried out, or only
//! suggests it. What all schedulers must agree on is kept and judged in Redis: how long a node has been
//! under pressure, how many moves there were, which services rest.
//!
//! A move is a mark on the pod: its controller makes another elsewhere and stops the old one once that
//! is ready, so no service has less than before. It must never move a pod that keeps data on its node.
//!
//! Invariant: moves come to an end by themselves, and none is undone by a later one (properties in
//! `tests`).

mod rounds;

use super::cluster::labels_of;
use super::rules::Rules;
use crate::model::service::MountKind;
use crate::model::{EngineState, Priority, ServiceSpec};
use crate::settings::Thresholds;
use crate::store::{Culprit, NodeSnapshot, PodUse};

pub(super) use rounds::run;

/// Share of a threshold below which a node is clearly calmer.
const CALM: f64 = 0.5;
/// Share of a target's cpu and memory in use, with the pod, above which it would be next.
const FULL: f64 = 0.8;
/// Share of what is used of a resource on a node below which moving a pod helps too little.
const HELPS_MIN: f64 = 0.1;

/// A resource of which a node has too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// Cpu time.
    Cpu,
    /// Memory.
    Memory,
    /// Transfers from and to disks.
    Io,
}

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressed {
    /// The resource, the worst of all.
    pub scarce: Scarce,
    /// Percent of the time in which something waits for it.
    pub percent: f64,
}

/// A pod that may leave, and what it uses.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The pod and its service.
    pub culprit: Culprit,
    /// What it uses.
    pub used: PodUse,
}

/// Which pod is to leave, and why.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The pod.
    pub candidate: &'a Candidate,
    /// Its share of what is used of the resource there.
    pub share: f64,
    /// A node that could well take it; the placing may find a better one.
    pub target: &'a str,
}

impl Scarce {
    fn word(self) -> &'static str {
        match self {
            Scarce::Cpu => "cpu",
            Scarce::Memory => "memory",
            Scarce::Io => "io",
        }
    }
}

/// Percent of the time in which something waited for each resource, with the threshold: `of` the last
/// 10 s and the last minute. Of an idle machine whose containers are throttled by their own limits
/// nothing waits for the cpu.
fn pressures(
    node: &NodeSnapshot,
    thresholds: &Thresholds,
    of: fn(f64, f64) -> f64,
) -> [(Scarce, f64, f64); 3] {
    let now = &node.pressure;
    let memory = of(now.memory_avg10, now.memory_avg60);
    let cpu = of(now.cpu_avg10, now.cpu_avg60) * node.cpu_used.clamp(0.0, 1.0);
    [
        (Scarce::Memory, memory, thresholds.memory),
        (Scarce::Io, of(now.io_avg10, now.io_avg60), thresholds.io),
        (Scarce::Cpu, cpu, thresholds.cpu),
    ]
}

/// What a node has too little of, if anything: in the last minute, and still. The longer average alone
/// would go on for a minute after the culprit left.
pub fn pressed(node: &NodeSnapshot, thresholds: &Thresholds) -> Option<Pressed> {
    let above = pressures(node, thresholds, f64::min).into_iter();
    let above =
        above.filter(|(_, percent, from)| node.pressure.known && *from > 0.0 && percent > from);
    let worst = above.max_by(|one, other| (one.1 / one.2).total_cmp(&(other.1 / other.2)));
    worst.map(|(scarce, percent, _)| Pressed { scarce, percent })
}

/// The pod whose leaving helps `node` most for its cost, if one helps at all and another node could
/// well take it. Same input, same choice.
pub fn choose<'a>(
    node: &NodeSnapshot,
    pressed: Pressed,
    candidates: &'a [Candidate],
    others: &'a [NodeSnapshot],
    thresholds: &Thresholds,
) -> Option<Choice<'a>> {
    let all_io: u64 = candidates.iter().map(|it| it.used.io_bytes).sum();
    let mut choices: Vec<(f64, Choice<'a>)> = Vec::new();
    for candidate in candidates.iter().filter(|it| may_move(it)) {
        let share = share(node, pressed.scarce, &candidate.used, all_io);
        if share < HELPS_MIN {
            continue;
        }
        let mut takers = others.iter();
        let target = takers.find(|other| could_take(other, node, candidate, thresholds));
        if let Some(target) = target {
            let choice = Choice {
                candidate,
                share,
                target: &target.name,
            };
            choices.push((share / cost(node, candidate), choice));
        }
    }
    let best = choices.into_iter().max_by(|(one, a), (other, b)| {
        let order = one.total_cmp(other);
        order.then_with(|| b.candidate.culprit.pod.cmp(&a.candidate.culprit.pod))
    });
    best.map(|(_, choice)| choice)
}

/// Whether a pod can be made anew elsewhere, and nothing of its service is under way.
fn may_move(candidate: &Candidate) -> bool {
    let keeps_data = |spec: &ServiceSpec| {
        let mut mounts = spec.mounts.iter();
        mounts.any(|mount| mount.kind != MountKind::Tmpfs)
    };
    let culprit = &candidate.culprit;
    !culprit.rests
        && culprit
            .spec
            .as_deref()
            .is_some_and(|spec| !keeps_data(spec))
}

/// A pod's share of what is used of a resource on its node.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn share(node: &NodeSnapshot, scarce: Scarce, used: &PodUse, all_io: u64) -> f64 {
    let (used, all) = match scarce {
        Scarce::Cpu => {
            let all = node.cpu_used.clamp(0.0, 1.0) * node.capacity.cpu_millis as f64;
            (used.cpu_millis, all)
        }
        Scarce::Memory => (used.memory_bytes, node.memory_used_bytes as f64),
        Scarce::Io => (used.io_bytes, all_io as f64),
    };
    if all > 0.0 {
        (used as f64 / all).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// What a move costs: more where the pod is wanted more, where it is the only one, and where it has
/// much in memory that must grow again.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn cost(node: &NodeSnapshot, candidate: &Candidate) -> f64 {
    let wanted = match candidate.culprit.priority {
        Priority::Low => 1.0,
        Priority::Normal => 2.0,
        Priority::High => 4.0,
    };
    let alone = if candidate.culprit.replicas <= 1 {
        2.0
    } else {
        1.0
    };
    let memory = candidate.used.memory_bytes as f64 / node.capacity.memory_bytes.max(1) as f64;
    wanted * alone * (1.0 + memory.clamp(0.0, 1.0))
}

/// Whether a node is clearly calmer, has what the pod asks for, and would not be the next under
/// pressure with what it uses.
fn could_take(
    other: &NodeSnapshot,
    node: &NodeSnapshot,
    candidate: &Candidate,
    thresholds: &Thresholds,
) -> bool {
    let Candidate { culprit, used } = candidate;
    let Some(spec) = culprit.spec.as_deref() else {
        return false;
    };
    let open = other.name != node.name
        && !other.lost
        && other.engine == EngineState::Up
        && !other.cordoned
        && other.pressed.is_empty()
        && other.pods < other.capacity.pods_max;
    let calm = pressures(other, thresholds, f64::max)
        .into_iter()
        .all(|(_, percent, from)| from <= 0.0 || percent <= from * CALM);
    let fits = |asks: u64, taken: u64, offered: u64| asks == 0 || taken + asks <= offered;
    let capacity = &other.capacity;
    let has_room = fits(culprit.cpu_millis, other.cpu_requested, capacity.cpu_millis)
        && fits(
            culprit.memory_bytes,
            other.memory_requested,
            capacity.memory_bytes,
        );
    let suits = suits(other, spec);
    open && calm && has_room && suits && stays_calm(other, used)
}

/// Whether a node has cpu and memory left over once it has what a pod uses.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 52 bits"
)]
fn stays_calm(other: &NodeSnapshot, used: &PodUse) -> bool {
    let capacity = &other.capacity;
    let cpu = other.cpu_used * capacity.cpu_millis as f64 + used.cpu_millis as f64;
    let memory = other.memory_used_bytes.saturating_add(used.memory_bytes);
    cpu <= capacity.cpu_millis as f64 * FULL && memory as f64 <= capacity.memory_bytes as f64 * FULL
}

/// Whether a node by itself suits a spec: its labels, taints and free ports. Which pods run where is
/// the placing's to judge: where that finds no node in time, the pod stays.
fn suits(other: &NodeSnapshot, spec: &ServiceSpec) -> bool {
    let (namespace, ports) = (spec.namespace.clone(), spec.host_ports());
    let taken = |port: &String| other.ports.split(',').any(|used| used == port);
    if ports.iter().any(taken) {
        return false;
    }
    let rules = Rules::of(None, 0, namespace, ports, spec.placement.clone());
    rules.like.suits(&labels_of(other)).is_ok()
}

#[cfg(test)]
mod tests;
