//! The table: what the engine is known to have of each pod, what the agent remembers of it, and who
//! has it in hand.
//!
//! Plain state behind one lock, held only for a look; it calls nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::task::AbortOnDropHandle;

use crate::agent::life::Life;
use crate::container::Container;
use crate::model::{PodId, Token};

/// What is known of all pods of a node.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<PodId, Slot>>);

/// What is known of one pod.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) container: Option<Container>,
    /// What is remembered of its placement, while that is to run.
    pub(super) life: Option<Life>,
    /// The grace its spec asks for; `None` while that is not known.
    pub(super) grace: Option<Option<Duration>>,
    /// Has it looked at again when its pause is over.
    pub(super) alarm: Option<AbortOnDropHandle<()>>,
    /// Its probes, while its container runs.
    pub(super) probes: Vec<AbortOnDropHandle<()>>,
    /// Which probes these are: an answer of earlier ones says nothing.
    pub(super) round: u64,
    /// The engine told of a change: the container is to be inspected.
    changed: bool,
    /// Redis is to be asked what is wanted.
    pub(super) ask: bool,
    /// A worker has the pod in hand.
    busy: bool,
    /// Someone wants another look when that worker is done.
    again: bool,
    /// Tells a worker that waits for long of that.
    wanted: Arc<Notify>,
    entries: Vec<Entry>,
    /// This agent made the container, and never asked the engine to start it: no start can be under way.
    pub(super) unstarted: bool,
    /// Placement that could not be given back, and stays although the node is above its limit.
    pub(super) stays: Option<Token>,
    /// Placement for which the image was fetched anew.
    fetched: Option<Token>,
    /// Digest of the container's image, once it was asked for.
    digest: Option<String>,
}

/// An inbox entry, to be dropped when the pod is done; holds its place among those in hand.
pub(in crate::agent) struct Entry {
    pub(in crate::agent) bytes: Vec<u8>,
    pub(in crate::agent) _place: Option<OwnedSemaphorePermit>,
}

/// Why a pod wants a look.
pub(super) enum Look {
    /// Redis may want something else of it; the entry is dropped when it is done.
    Wish(Option<Entry>),
    /// The engine may have something else of it.
    Container,
    /// The agent itself has learnt something of it.
    Life,
}

/// What the engine has otherwise than it was left.
pub(super) struct Differences {
    /// Pods whose container is to be inspected.
    pub(super) changed: Vec<PodId>,
    /// Containers with the labels of a pod that has another one.
    pub(super) copies: Vec<Container>,
}

impl Table {
    fn slots(&self) -> MutexGuard<'_, HashMap<PodId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a pod wants a look; true if it needs a worker, which has it in hand from now on.
    pub(super) fn wants_worker(&self, pod: &PodId, look: Look) -> bool {
        let mut slots = self.slots();
        let slot = slots.entry(pod.clone()).or_default();
        match look {
            Look::Wish(entry) => {
                slot.entries.extend(entry);
                slot.ask = true;
            }
            Look::Container => slot.changed = true,
            Look::Life => {}
        }
        if slot.busy {
            slot.again = true;
            slot.wanted.notify_one();
        }
        !std::mem::replace(&mut slot.busy, true)
    }

    /// Another pod whose container lives and has one of these devices, and which that is.
    pub(super) fn holder_of(&self, pod: &PodId, devices: &[String]) -> Option<(String, PodId)> {
        if devices.is_empty() {
            return None;
        }
        let slots = self.slots();
        slots
            .iter()
            .filter(|(other, _)| *other != pod)
            .find_map(|(other, slot)| {
                let container = slot.container.as_ref().filter(|it| it.lives())?;
                let shared = container.devices.iter().find(|one| devices.contains(one))?;
                Some((shared.clone(), other.clone()))
            })
    }

    /// Notified when someone wants another look at a pod that is in hand.
    pub(super) fn wanted(&self, pod: &PodId) -> Arc<Notify> {
        self.with(pod, |slot| slot.wanted.clone())
    }

    /// Lets go of a pod; false if someone wanted another look meanwhile.
    pub(super) fn let_go(&self, pod: &PodId) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(pod) else {
            return true;
        };
        if std::mem::take(&mut slot.again) {
            return false;
        }
        slot.busy = false;
        if slot.is_empty() {
            slots.remove(pod);
        }
        true
    }

    /// Compares with what the engine listed, which tells less than an inspection. `all` has each
    /// container inspected.
    pub(super) fn compare(&self, listed: Vec<Container>, all: bool) -> Differences {
        let (mut found, mut copies) = (HashMap::with_capacity(listed.len()), Vec::new());
        let mut slots = self.slots();
        for container in listed {
            let known = slots
                .get(&container.pod)
                .and_then(|it| it.container.as_ref());
            // Of two with the labels of one pod, the one that is known is the pod's.
            let is_known = known.is_some_and(|known| known.id == container.id);
            if is_known || !found.contains_key(&container.pod) {
                copies.extend(found.insert(container.pod.clone(), container));
            } else {
                copies.push(container);
            }
        }
        // Where it is not known which one is the pod's, or whether it is to run, none is a copy.
        copies.retain(|copy: &Container| {
            let slot = slots.get(&copy.pod).filter(|slot| !slot.busy);
            slot.is_some_and(|slot| {
                let token = slot.container.as_ref().map(|it| &it.token);
                token.is_some() && slot.life.as_ref().map(|life| &life.token) == token
            })
        });
        let mut changed = Vec::new();
        for (pod, slot) in slots.iter() {
            let Some(known) = &slot.container else {
                continue;
            };
            let same = found.get(pod).is_some_and(|it| known.looks_like(it));
            if all || !same {
                changed.push(pod.clone());
            }
        }
        for (pod, container) in found {
            let slot = slots.entry(pod.clone()).or_default();
            // A worker may have removed it just now: it knows better.
            if slot.container.is_none() && !slot.busy {
                slot.container = Some(container);
                changed.push(pod);
            }
        }
        Differences { changed, copies }
    }

    /// Pods that have a container, or are remembered.
    pub(super) fn known(&self) -> Vec<PodId> {
        let slots = self.slots();
        let known = slots.iter().filter(|(_, slot)| !slot.is_empty());
        known.map(|(pod, _)| pod.clone()).collect()
    }

    pub(super) fn container(&self, pod: &PodId) -> Option<Container> {
        let slots = self.slots();
        slots.get(pod).and_then(|slot| slot.container.clone())
    }

    /// Whether nothing ran here of a pod, and nobody said that it stays.
    pub(super) fn may_give_back(&self, pod: &PodId) -> bool {
        let slots = self.slots();
        let slot = slots.get(pod);
        slot.is_some_and(|slot| {
            slot.stays.is_none() && (slot.container.is_none() || slot.unstarted)
        })
    }

    pub(super) fn set_container(&self, pod: &PodId, container: Option<Container>) {
        self.with(pod, |slot| {
            let id = |container: &Option<Container>| container.as_ref().map(|it| it.id.clone());
            if id(&slot.container) != id(&container) {
                slot.digest = None;
                slot.unstarted = false;
            }
            slot.container = container;
        });
    }

    /// Notes that the image was fetched for a placement.
    pub(super) fn set_fetched(&self, pod: &PodId, token: Token) {
        self.with(pod, |slot| slot.fetched = Some(token));
    }

    /// Whether the image was fetched for this placement; asked once for each container.
    pub(super) fn take_fetched(&self, pod: &PodId, token: &Token) -> bool {
        self.with(pod, |slot| slot.fetched.take()).as_ref() == Some(token)
    }

    /// Digest of the image of the pod's container, if it was asked for.
    pub(super) fn digest(&self, pod: &PodId) -> Option<String> {
        let slots = self.slots();
        slots.get(pod).and_then(|slot| slot.digest.clone())
    }

    pub(super) fn set_digest(&self, pod: &PodId, digest: String) {
        self.with(pod, |slot| slot.digest = Some(digest));
    }

    /// Looks at, or changes, what is known of a pod.
    pub(super) fn with<T>(&self, pod: &PodId, look: impl FnOnce(&mut Slot) -> T) -> T {
        look(self.slots().entry(pod.clone()).or_default())
    }

    /// Looks at what is remembered of a pod, if anything is.
    pub(super) fn with_life<T>(
        &self,
        pod: &PodId,
        look: impl FnOnce(&mut Life, Option<&Container>) -> T,
    ) -> Option<T> {
        let mut slots = self.slots();
        let Slot {
            life, container, ..
        } = slots.get_mut(pod)?;
        Some(look(life.as_mut()?, container.as_ref()))
    }

    /// What was told of each pod is to be told again.
    pub(super) fn forget_told(&self) {
        let mut slots = self.slots();
        let lives = slots.values_mut().filter_map(|slot| slot.life.as_mut());
        lives.for_each(Life::forget_told);
    }

    /// Changes what is remembered of a pod, if its probes are still those of this round.
    pub(super) fn with_round<T>(
        &self,
        pod: &PodId,
        round: u64,
        change: impl FnOnce(&mut Life) -> T,
    ) -> Option<T> {
        let mut slots = self.slots();
        let slot = slots.get_mut(pod).filter(|slot| slot.round == round)?;
        Some(change(slot.life.as_mut()?))
    }

    /// Id of the pod's container if the engine told of a change to it; asked once for each change.
    pub(super) fn take_changed(&self, pod: &PodId) -> Option<String> {
        let mut slots = self.slots();
        let slot = slots.get_mut(pod)?;
        let changed = std::mem::take(&mut slot.changed);
        let container = slot.container.as_ref().filter(|_| changed)?;
        Some(container.id.clone())
    }

    /// Notes that the pod's container is to be inspected.
    pub(super) fn set_changed(&self, pod: &PodId) {
        self.with(pod, |slot| slot.changed = true);
    }

    /// Whether Redis is to be asked; asked once for each wish.
    pub(super) fn take_ask(&self, pod: &PodId) -> bool {
        self.with(pod, |slot| std::mem::take(&mut slot.ask))
    }

    /// Notes that Redis is to be asked what is wanted.
    pub(super) fn set_ask(&self, pod: &PodId) {
        self.with(pod, |slot| slot.ask = true);
    }

    pub(super) fn take_entries(&self, pod: &PodId) -> Vec<Entry> {
        self.with(pod, |slot| std::mem::take(&mut slot.entries))
    }
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.container.is_none() && self.life.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::ContainerState;

    #[test]
    fn a_device_is_held_while_the_container_of_another_pod_lives() {
        let table = Table::default();
        let pod = |id: &str| PodId::parse(id).unwrap();
        let container = |id: &str, state: ContainerState| Container {
            id: id.to_owned(),
            name: id.to_owned(),
            pod: pod(id),
            token: Token::default(),
            image: String::new(),
            state,
            ports: Vec::new(),
            devices: vec!["gpu/0".to_owned()],
            health: None,
            address: None,
            drifted: false,
            fenced: false,
        };
        let wanted = ["gpu/1".to_owned(), "gpu/0".to_owned()];
        let running = container("old", ContainerState::Running);
        table.set_container(&pod("old"), Some(running));
        let held = Some(("gpu/0".to_owned(), pod("old")));
        assert_eq!(table.holder_of(&pod("new"), &wanted), held);
        assert_eq!(table.holder_of(&pod("new"), &wanted[..1]), None);
        assert_eq!(table.holder_of(&pod("new"), &[]), None);
        assert_eq!(table.holder_of(&pod("old"), &wanted), None, "its own");
        let created = container("old", ContainerState::Created);
        table.set_container(&pod("old"), Some(created));
        assert_eq!(table.holder_of(&pod("new"), &wanted), None);
    }
}
