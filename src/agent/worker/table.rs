//! The table: what the engine is known to have of each pod, and who has the pod in hand.
//!
//! Plain state behind one lock, held only for a look; it calls nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::container::Container;
use crate::model::{PodId, Token};

/// What is known of all pods of a node.
#[derive(Default)]
pub(super) struct Table(Mutex<HashMap<PodId, Slot>>);

/// What is known of one pod.
#[derive(Default)]
struct Slot {
    container: Option<Container>,
    /// The engine told of a change: the container is to be inspected.
    changed: bool,
    /// A worker has the pod in hand.
    busy: bool,
    /// Someone wants another look when that worker is done.
    again: bool,
    /// Tells a worker that waits for long of that.
    wanted: Arc<Notify>,
    entries: Vec<Entry>,
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

impl Table {
    fn slots(&self) -> MutexGuard<'_, HashMap<PodId, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a pod wants a look; true if it needs a worker, which has it in hand from now on.
    pub(super) fn wants_worker(&self, pod: &PodId, entry: Option<Entry>, changed: bool) -> bool {
        let mut slots = self.slots();
        let slot = slots.entry(pod.clone()).or_default();
        slot.entries.extend(entry);
        slot.changed |= changed;
        if slot.busy {
            slot.again = true;
            slot.wanted.notify_one();
        }
        !std::mem::replace(&mut slot.busy, true)
    }

    /// Notified when someone wants another look at a pod that is in hand.
    pub(super) fn wanted(&self, pod: &PodId) -> Arc<Notify> {
        self.slots().entry(pod.clone()).or_default().wanted.clone()
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
        if slot.container.is_none() {
            slots.remove(pod);
        }
        true
    }

    /// Takes over what the engine listed: for pods that no worker has in hand, it is the truth.
    pub(super) fn know(&self, containers: Vec<Container>) {
        let mut slots = self.slots();
        for slot in slots.values_mut().filter(|slot| !slot.busy) {
            slot.container = None;
        }
        for container in containers {
            let slot = slots.entry(container.pod.clone()).or_default();
            if !slot.busy {
                slot.container = Some(container);
            }
        }
        slots.retain(|_, slot| slot.busy || slot.container.is_some());
    }

    /// Pods that have a container.
    pub(super) fn with_container(&self) -> Vec<PodId> {
        let slots = self.slots();
        let with = slots.iter().filter(|(_, slot)| slot.container.is_some());
        with.map(|(pod, _)| pod.clone()).collect()
    }

    pub(super) fn container(&self, pod: &PodId) -> Option<Container> {
        self.slots()
            .get(pod)
            .and_then(|slot| slot.container.clone())
    }

    pub(super) fn set_container(&self, pod: &PodId, container: Option<Container>) {
        let mut slots = self.slots();
        let slot = slots.entry(pod.clone()).or_default();
        let id = |container: &Option<Container>| container.as_ref().map(|it| it.id.clone());
        if id(&slot.container) != id(&container) {
            slot.digest = None;
        }
        slot.container = container;
    }

    /// Notes that the image was fetched for a placement.
    pub(super) fn set_fetched(&self, pod: &PodId, token: Token) {
        self.slots().entry(pod.clone()).or_default().fetched = Some(token);
    }

    /// Whether the image was fetched for this placement; asked once for each container.
    pub(super) fn take_fetched(&self, pod: &PodId, token: &Token) -> bool {
        let mut slots = self.slots();
        let slot = slots.get_mut(pod);
        slot.and_then(|slot| slot.fetched.take()).as_ref() == Some(token)
    }

    /// Digest of the image of the pod's container, if it was asked for.
    pub(super) fn digest(&self, pod: &PodId) -> Option<String> {
        self.slots().get(pod).and_then(|slot| slot.digest.clone())
    }

    pub(super) fn set_digest(&self, pod: &PodId, digest: String) {
        self.slots().entry(pod.clone()).or_default().digest = Some(digest);
    }

    /// Id of the pod's container if the engine told of a change to it; asked once for each change.
    pub(super) fn take_changed(&self, pod: &PodId) -> Option<String> {
        let mut slots = self.slots();
        let slot = slots.get_mut(pod)?;
        let changed = std::mem::take(&mut slot.changed);
        let container = slot.container.as_ref().filter(|_| changed)?;
        Some(container.id.clone())
    }

    /// Notes again that the pod's container is to be inspected: it could not be.
    pub(super) fn set_changed(&self, pod: &PodId) {
        if let Some(slot) = self.slots().get_mut(pod) {
            slot.changed = true;
        }
    }

    pub(super) fn take_entries(&self, pod: &PodId) -> Vec<Entry> {
        let mut slots = self.slots();
        let slot = slots.get_mut(pod);
        slot.map(|slot| std::mem::take(&mut slot.entries))
            .unwrap_or_default()
    }
}
