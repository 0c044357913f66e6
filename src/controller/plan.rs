//! What to do next for one service: a pure function of its wish and its pods.
//!
//! A replica index is a *slot*. A slot is as it should be when one pod of the current revision
//! holds it, on a node that is not drained. Called again after every step until nothing is left to
//! do, from whatever state.
//!
//! Invariant: while pods are replaced one after another, no slot that serves stops serving before
//! its new pod is ready, except where both need the same fixed port of a node, or may never run at
//! once (`a_change_never_takes_a_serving_slot_down`).
//! Invariant: of a service whose pods may never run twice, no slot gets a pod while another of it may
//! still run (`an_exclusive_slot_never_has_two`).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::service::{BACKOFF_RESET, Restart, backoff};
use crate::model::{Desired, Phase};
use crate::store::{NewPod, PodView, STEP_PODS_MAX, ServiceStep, View};

/// When a service is looked at again that waits for its pods: their reports come sooner.
const WAIT: Duration = Duration::from_secs(5);

/// The pods of one replica index.
#[derive(Default)]
struct Slot<'a> {
    /// Live, of the current revision, on a node that stays.
    good: Vec<&'a PodView>,
    /// Live, but to be replaced.
    old: Vec<&'a PodView>,
    /// Told to stop.
    leaving: Vec<&'a PodView>,
    /// Ended, newest first.
    ended: Vec<&'a PodView>,
}

/// Whether it is to go elsewhere although its revision is the current one.
fn is_evicted(pod: &PodView) -> bool {
    pod.draining || pod.leaves.is_some()
}

impl Slot<'_> {
    fn live(&self) -> impl Iterator<Item = &PodView> {
        self.good.iter().chain(&self.old).copied()
    }

    fn is_live(&self) -> bool {
        self.live().next().is_some()
    }

    fn serves(&self) -> bool {
        self.live().any(|pod| pod.ready)
    }

    /// A new pod is made in place of a serving one, and is not ready yet.
    fn is_surging(&self) -> bool {
        !self.good.is_empty() && !self.good.iter().any(|pod| pod.ready) && !self.old.is_empty()
    }
}

struct Planner<'a> {
    view: &'a View,
    restart: Restart,
    /// No two containers of a replica may run at once: the old one ends before the new one is made.
    exclusive: bool,
    slots: BTreeMap<u32, Slot<'a>>,
    step: ServiceStep,
}

/// The next step for a service; `ended_kept` ended pods of it are kept to be looked at.
pub fn plan(view: &View, ended_kept: usize) -> ServiceStep {
    let mut planner = Planner {
        view,
        restart: view
            .spec
            .as_deref()
            .map(|spec| spec.restart)
            .unwrap_or_default(),
        exclusive: view
            .spec
            .as_deref()
            .is_some_and(|spec| spec.on_node_loss.is_exclusive()),
        slots: BTreeMap::new(),
        step: ServiceStep::default(),
    };
    planner.sort();
    if view.deleting {
        planner.stop_all();
    } else {
        planner.clean();
        planner.shrink();
        planner.fill();
        planner.replace();
        planner.forget(ended_kept);
    }
    let mut step = planner.step;
    if step.new.len() > STEP_PODS_MAX || step.stop.len() > STEP_PODS_MAX {
        step.new.truncate(STEP_PODS_MAX);
        step.stop.truncate(STEP_PODS_MAX);
        step.again = Some(Duration::ZERO);
    }
    step
}

impl<'a> Planner<'a> {
    fn sort(&mut self) {
        for pod in &self.view.pods {
            let Some(phase) = pod.phase else {
                self.stop(pod, "its record was damaged");
                continue;
            };
            if phase == Phase::Stopped && pod.desired == Desired::Stop {
                self.stop(pod, "it was stopped"); // something took its tombstone for a pod
                continue;
            }
            let slot = self.slots.entry(pod.replica).or_default();
            if pod.desired == Desired::Stop {
                slot.leaving.push(pod);
            } else if phase.is_ended() {
                slot.ended.push(pod);
            } else if pod.revision == self.view.revision && !is_evicted(pod) {
                slot.good.push(pod);
            } else {
                slot.old.push(pod);
            }
        }
        for slot in self.slots.values_mut() {
            let best = |pod: &&PodView| (!pod.ready, pod.created_ms, pod.id.clone());
            slot.good.sort_by_key(best);
            slot.old.sort_by_key(best);
            slot.ended
                .sort_by_key(|pod| Reverse((pod.changed_ms, pod.id.clone())));
        }
    }

    fn stop(&mut self, pod: &PodView, why: impl Into<String>) {
        self.step.stop.push((pod.id.clone(), why.into()));
    }

    fn look_in(&mut self, wait: Duration) {
        let sooner = self.step.again.map_or(wait, |again| again.min(wait));
        self.step.again = Some(sooner);
    }

    fn stop_all(&mut self) {
        let live = self.view.pods.iter().filter(|pod| pod.phase.is_some());
        for pod in live.filter(|pod| pod.desired == Desired::Run) {
            self.stop(pod, "its service was deleted");
        }
        if !self.view.pods.is_empty() {
            self.look_in(WAIT);
        }
    }

    /// One pod a slot, and no old one beside a new one that is ready.
    fn clean(&mut self) {
        let revision = self.view.revision;
        let mut stops = Vec::new();
        for slot in self.slots.values_mut() {
            for pod in slot.good.drain(1.min(slot.good.len())..) {
                stops.push((pod, "another pod holds its replica".to_owned()));
            }
            let ready = slot.good.first().is_some_and(|pod| pod.ready);
            let kept = if ready { 0 } else { 1 };
            for pod in slot.old.drain(kept.min(slot.old.len())..) {
                let why = match (&pod.node, &pod.leaves) {
                    (Some(node), _) if pod.draining => format!("node {node} is drained"),
                    (_, Some(why)) => format!("moved: {why}"),
                    _ => format!("replaced by revision {revision}"),
                };
                stops.push((pod, why));
            }
        }
        for (pod, why) in stops {
            self.stop(pod, why);
        }
    }

    /// Whether an ended pod is what its slot is meant to end as.
    fn is_finished(&self, slot: &Slot<'_>) -> bool {
        !slot.is_live()
            && slot
                .ended
                .first()
                .is_some_and(|pod| pod.revision == self.view.revision && !self.is_replaced(pod))
    }

    /// Whether another pod follows an ended one, by its restart policy.
    fn is_replaced(&self, pod: &PodView) -> bool {
        let exit_code = match pod.phase {
            Some(Phase::Succeeded) => 0,
            _ => pod.exit_code.filter(|code| *code != 0).unwrap_or(1),
        };
        self.restart.allows(exit_code, pod.restarts)
    }

    /// Stops the pods of surplus slots: those that wait first, then those that do not serve, then the
    /// newest, then those on the most loaded node.
    fn shrink(&mut self) {
        let mut held: Vec<u32> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.is_live() || self.is_finished(slot))
            .map(|(replica, _)| *replica)
            .collect();
        let wanted = usize::try_from(self.view.replicas).unwrap_or(usize::MAX);
        if held.len() <= wanted {
            return;
        }
        held.sort_by_key(|replica| {
            let slot = &self.slots[replica];
            let newest = slot.live().map(|pod| pod.created_ms).max().unwrap_or(0);
            let load = slot.live().map(|pod| pod.node_pods).max().unwrap_or(0);
            (
                slot.is_live(),
                slot.live().any(|pod| pod.node.is_some()),
                slot.serves(),
                Reverse((newest, load, *replica)),
            )
        });
        let why = format!("scaled down to {wanted}");
        for replica in held.drain(..held.len() - wanted) {
            let Some(slot) = self.slots.remove(&replica) else {
                continue;
            };
            for pod in slot.good.iter().chain(&slot.old).chain(&slot.ended) {
                self.stop(pod, why.as_str());
            }
        }
    }

    /// Makes pods for slots that lack one: the lowest free ones.
    fn fill(&mut self) {
        let held = |slot: &Slot<'_>| slot.is_live() || self.is_finished(slot);
        let count = self.slots.values().filter(|slot| held(slot)).count();
        let wanted = usize::try_from(self.view.replicas).unwrap_or(usize::MAX);
        let free = (0..).filter(|replica| !self.slots.get(replica).is_some_and(held));
        let free: Vec<u32> = free.take(wanted.saturating_sub(count)).collect();
        for replica in free {
            let waits_for_port = self
                .slots
                .get(&replica)
                .is_some_and(|slot| slot.leaving.iter().any(|pod| self.stands_in_the_way(pod)));
            if waits_for_port {
                self.look_in(WAIT);
                continue;
            }
            let failed = self.slots.get(&replica).and_then(|slot| {
                let ended = slot.ended.first().copied();
                ended.filter(|pod| pod.revision == self.view.revision)
            });
            let Some(failed) = failed else {
                self.new_pod(replica, String::new());
                continue;
            };
            let lived = Duration::from_millis(failed.changed_ms.saturating_sub(failed.created_ms));
            let retries = if lived >= BACKOFF_RESET {
                0
            } else {
                failed.retries
            };
            let waited = self.view.now_ms.saturating_sub(failed.changed_ms);
            let left = backoff(retries).saturating_sub(Duration::from_millis(waited));
            if !left.is_zero() {
                self.look_in(left);
                continue;
            }
            let slot = &self.slots[&replica];
            let mut avoid: Vec<String> = slot
                .ended
                .iter()
                .filter_map(|pod| pod.node.clone())
                .collect();
            avoid.sort();
            avoid.dedup();
            self.step.new.push(NewPod {
                replica,
                reason: format!("replaces {}, which ended", failed.id),
                avoid,
                retries: retries + 1,
            });
        }
    }

    fn new_pod(&mut self, replica: u32, reason: String) {
        self.step.new.push(NewPod {
            replica,
            reason,
            avoid: Vec::new(),
            retries: 0,
        });
    }

    /// A pod in place of `old`: elsewhere, if that is to leave its node.
    fn new_pod_for(&mut self, replica: u32, old: &PodView, reason: String) {
        let left = old.node.iter().filter(|_| old.leaves.is_some());
        self.step.new.push(NewPod {
            replica,
            reason,
            avoid: left.cloned().collect(),
            retries: 0,
        });
    }

    /// Whether a pod holds what its successor needs: its place, where there may never be two, a port, or
    /// devices, of which nodes seldom have more than are in use. So it stops first.
    fn stands_in_the_way(&self, pod: &PodView) -> bool {
        if self.exclusive {
            return true;
        }
        let ports = &self.view.host_ports;
        let spec = self.view.spec.as_ref();
        let needs = |kind: &String| spec.is_some_and(|it| it.resources.devices.contains_key(kind));
        pod.host_ports.iter().any(|port| ports.contains(port)) || pod.device_kinds.iter().any(needs)
    }

    /// Replaces old pods: those that do not serve at once, the others one after another.
    fn replace(&mut self) {
        let unready = |slot: &Slot<'_>| slot.good.iter().any(|pod| !pod.ready);
        let surging = self.slots.values().any(Slot::is_surging);
        let mut busy = self.slots.values().any(unready) || !self.step.new.is_empty();
        let olds: Vec<(u32, &PodView)> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.good.is_empty())
            .filter_map(|(replica, slot)| Some((*replica, *slot.old.first()?)))
            .collect();
        if !olds.is_empty() || surging {
            self.look_in(WAIT);
        }
        let leaving = |slot: &Slot<'_>| slot.leaving.iter().any(|pod| self.stands_in_the_way(pod));
        busy |= self.slots.values().any(leaving);
        for (replica, pod) in olds.iter().filter(|(_, pod)| !pod.ready) {
            let why = self.why_replaced(pod);
            if !self.stands_in_the_way(pod) {
                self.new_pod_for(*replica, pod, why.clone());
            }
            self.stop(pod, why);
            busy = true;
        }
        let serving = olds.iter().filter(|(_, pod)| pod.ready);
        let next = serving.min_by_key(|(replica, pod)| (!pod.draining, !is_evicted(pod), *replica));
        let Some((replica, pod)) = next else { return };
        // A drain must come to its end even if some other pod of the service never gets ready.
        if if is_evicted(pod) { surging } else { busy } {
            return;
        }
        let why = self.why_replaced(pod);
        if self.stands_in_the_way(pod) && (self.exclusive || !is_evicted(pod)) {
            self.stop(pod, why);
        } else {
            self.new_pod_for(*replica, pod, why);
        }
    }

    fn why_replaced(&self, pod: &PodView) -> String {
        match (&pod.node, &pod.leaves) {
            (Some(node), _) if pod.draining => format!("node {node} is drained: {} moves", pod.id),
            (_, Some(why)) => format!("{} moves: {why}", pod.id),
            _ => format!("revision {} replaces {}", self.view.revision, pod.id),
        }
    }

    /// Lets ended pods go beyond those that are kept; what a slot is meant to end as stays.
    fn forget(&mut self, ended_kept: usize) {
        let mut ended: Vec<&PodView> = Vec::new();
        for slot in self.slots.values() {
            let finished = usize::from(self.is_finished(slot));
            ended.extend(slot.ended.iter().skip(finished).copied());
        }
        ended.sort_by_key(|pod| Reverse((pod.changed_ms, pod.id.clone())));
        for pod in ended.into_iter().skip(ended_kept) {
            self.stop(pod, "it ended, and newer ones are kept");
        }
    }
}

#[cfg(test)]
mod tests;
