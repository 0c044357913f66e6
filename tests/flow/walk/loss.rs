//! The store is lost in a walk: emptied, started again without its data, or on an older copy.
//!
//! It is lost at rest, when every node knows the wishes behind its pods; what no node holds anything
//! of may come back or not (`docs/decisions/0006-a-lost-store.md`), and is read back.

use std::collections::BTreeSet;

use kubeleet::container::Container;

use super::faults::service_of;
use super::state::State;
use super::{HEALED, RESYNC, Walk};
use crate::support::eventually;

impl Walk {
    /// Loses the store or does not, and says which; afterwards all must be as was wished again.
    pub(super) async fn lose_the_store(&mut self) -> bool {
        let kind = self.dice.roll(9);
        if kind > 2 {
            if self.dice.roll(2) == 0 {
                let tick = Self::tick(&self.state().await, "tick");
                let data = self.redis.copy().await;
                self.copy = Some(Copy { tick, data });
                self.note("the store is copied");
            }
            return false;
        }
        let held = self.held().await;
        let all: BTreeSet<String> = self.wishes.keys().cloned().collect();
        self.by_hand.retain(|id| held.pods.contains(id));
        let is_older = kind == 1 && self.copy.is_some();
        match (kind, self.copy.take()) {
            (0, copy) => {
                self.note("FLUSHALL");
                self.redis.must(&["FLUSHALL"]).await;
                self.copy = copy;
            }
            (1, Some(copy)) => {
                self.is_older(copy.tick).await;
                self.note("Redis starts again on an older copy");
                self.redis.restart_on(Some(&copy.data)).await;
                // Services of that copy which stand no more come back unless a node saw them go.
                self.unsure.extend(super::deeds::NAMES.map(str::to_owned));
            }
            (_, copy) => {
                self.note("Redis starts again without its data");
                self.redis.restart_on(None).await;
                self.copy = copy;
            }
        }
        self.unsure.extend(all);
        self.unsure.extend(held.lost); // theirs may have been deleted: they tell what they know
        self.unsure.retain(|name| !held.services.contains(name));
        self.wishes.retain(|name, _| held.services.contains(name));
        self.judge().await;
        // What an agent forgot at its restart is made and stopped once more, and a container of which
        // Redis had forgotten everything comes back beside those that followed it.
        let spared = is_older || held.forgotten;
        for (node, container) in held.running.iter().filter(|_| !spared) {
            let live = self.cluster.engine(node).live();
            let runs = live.iter().any(|live| live.id == container.id);
            if !runs {
                let told = self.told_of(container.pod.as_str()).await;
                panic!("{container:?} on {node} did not outlive the loss: {told}");
            }
        }
        true
    }

    /// What happened to a pod's service since the loss, as the events tell.
    async fn told_of(&self, pod: &str) -> String {
        let state = self.state().await;
        let owner = state.pod(pod).get("owner").copied().unwrap_or_default();
        let key = self.cluster.key("events");
        let events = self.redis.must(&["XRANGE", &key, "-", "+"]).await;
        let redis::Value::Array(events) = events else {
            return String::new();
        };
        let shown = events.iter().map(|event| format!("{event:?}"));
        let shown = shown.filter(|event| event.contains(pod) || event.contains("recovery"));
        format!("{owner} {:#?}", shown.collect::<Vec<_>>())
    }

    fn tick(state: &State, field: &str) -> u64 {
        let cluster = state.hash("cluster");
        let tick = cluster.get(field).and_then(|tick| tick.parse().ok());
        tick.unwrap_or(0)
    }

    /// Waits until nodes know of a later tick: what was written since the last cannot be missed.
    async fn is_older(&self, tick: u64) {
        eventually(HEALED, "a later tick is confirmed", async || {
            let confirmed = Self::tick(&self.state().await, "confirmed");
            match confirmed > tick {
                true => Ok(()),
                false => Err(format!("{confirmed} is confirmed, {tick} was")),
            }
        })
        .await;
        tokio::time::sleep(RESYNC).await; // their heartbeats tell them
    }

    /// What the nodes hold.
    async fn held(&self) -> Held {
        let state = self.state().await;
        let mut held = Held::default();
        for node in super::NODES {
            held.forgotten |= self.has_forgotten(&state, node);
            for container in self.cluster.engine(node).containers() {
                let id = container.pod.as_str().to_owned();
                let pod = state.pod(&id);
                let Some(owner) = pod.get("owner") else {
                    held.lost.insert(service_of(&container)); // forgotten before
                    continue;
                };
                let runs = pod.get("phase") == Some(&"running");
                let service = owner.strip_prefix("service:default/").filter(|_| runs);
                held.services.extend(service.map(str::to_owned));
                held.pods.insert(id);
                if runs {
                    held.running.push((node.to_owned(), container));
                }
            }
        }
        held
    }
}

/// A copy of the store.
pub(crate) struct Copy {
    tick: u64,
    data: Vec<u8>,
}

/// Services, pods and running containers of which some node holds something.
#[derive(Default)]
struct Held {
    services: BTreeSet<String>,
    pods: BTreeSet<String>,
    running: Vec<(String, Container)>,
    /// Services of containers that Redis had forgotten everything of.
    lost: BTreeSet<String>,
    /// There is more that Redis had forgotten everything of.
    forgotten: bool,
}
