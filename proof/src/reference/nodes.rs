//! Nodes and their agents: leases, taking in hand, reports, the sweep.

use kubeleet::model::Phase;
use kubeleet::model::phase::Actor;

use super::{Call, PodKey, Reply, Store, Taken};

impl Store {
    pub(super) fn put_here(&mut self, node: u8, key: PodKey) {
        let here = &mut self.node_mut(node).here;
        if let Err(at) = here.binary_search(&key) {
            here.insert(at, key);
        }
    }

    /// What an agent of another epoch is told.
    fn refusal(&self, node: u8, epoch: u8) -> Option<&'static str> {
        match self.node(node).epoch {
            known if known == epoch => None,
            known if known < epoch => Some("unknown"),
            _ => Some("superseded"),
        }
    }

    pub(super) fn register(&mut self, node: u8, capacity: u8) -> u8 {
        let node = self.node_mut(node);
        node.epoch += 1;
        node.capacity = capacity;
        (node.overdue, node.lost, node.living) = (false, false, true);
        node.epoch
    }

    pub(super) fn heartbeat(&mut self, node: u8, epoch: u8) -> &'static str {
        if let Some(refusal) = self.refusal(node, epoch) {
            return refusal;
        }
        let node = self.node_mut(node);
        let lost = node.lost;
        (node.overdue, node.lost, node.living) = (false, false, true);
        if lost { "returned" } else { "beat" }
    }

    pub(super) fn pop(&mut self, node: u8) -> Option<PodKey> {
        let node = self.node_mut(node);
        if node.inbox.is_empty() {
            return None;
        }
        let entry = node.inbox.remove(0);
        node.handling.push(entry);
        Some(entry)
    }

    pub(super) fn compare_node(&mut self, node: u8) -> Vec<PodKey> {
        let mut here = std::mem::take(&mut self.node_mut(node).here);
        here.retain(|key| self.pod(*key).is_some_and(|pod| pod.node == Some(node)));
        self.node_mut(node).here.clone_from(&here);
        here
    }

    pub(super) fn take(&mut self, node: u8, epoch: u8, key: PodKey) -> Reply {
        if let Some(refusal) = self.refusal(node, epoch) {
            return Reply::Word(refusal);
        }
        let Some(pod) = self.pod_mut(key) else {
            return Reply::Taken(Taken::Absent);
        };
        let taken = if pod.gone {
            Taken::Unwanted
        } else if pod.node != Some(node) {
            Taken::Stale
        } else if !pod.run {
            Taken::Stop(pod.token)
        } else if pod.phase.is_ended() {
            return Reply::Taken(Taken::Ended(pod.token, pod.phase));
        } else {
            if pod.phase == Phase::Scheduled {
                pod.phase = Phase::Starting;
            }
            Taken::Run(pod.token, pod.phase)
        };
        if matches!(taken, Taken::Run(..) | Taken::Stop(_)) {
            self.put_here(node, key);
        }
        Reply::Taken(taken)
    }

    pub(super) fn report(&mut self, call: &Call) -> &'static str {
        let Call::PodReport {
            node,
            epoch,
            pod: key,
            token,
            phase,
            entry,
        } = *call
        else {
            return "";
        };
        if let Some(refusal) = self.refusal(node, epoch) {
            return refusal;
        }
        let word = match self.pod(key).cloned() {
            None => "gone",
            Some(pod) if pod.node != Some(node) || pod.token != token => "stale",
            Some(pod) if phase == Some(Phase::Stopped) && !pod.run => {
                self.bury(key);
                "ok"
            }
            Some(pod) => match phase.filter(|to| *to != pod.phase) {
                None => "ok",
                Some(to) if !pod.phase.may_become(to, Actor::Agent) => "late",
                Some(to) => {
                    if let Some(pod) = self.pod_mut(key) {
                        pod.phase = to;
                    }
                    if to.is_ended() {
                        self.changed(pod.service);
                    }
                    self.pod_moved(pod.service);
                    "ok"
                }
            },
        };
        if let Some(entry) = entry {
            let handling = &mut self.node_mut(node).handling;
            if let Some(at) = handling.iter().position(|it| *it == entry) {
                handling.remove(at);
            }
        }
        word
    }

    pub(super) fn sweep(&mut self, node: u8) -> Reply {
        if self.grace {
            return Reply::Word("grace");
        }
        let due = |node: &super::Node| node.living && node.overdue;
        if !self.nodes.iter().any(due) {
            return Reply::Word("none");
        }
        if !due(self.node(node)) {
            return Reply::Word("another");
        }
        let here = std::mem::take(&mut self.node_mut(node).here);
        let (mut moved, mut held) = (Vec::new(), Vec::new());
        for key in here {
            let Some(pod) = self.pod(key).filter(|pod| pod.node == Some(node)) else {
                continue;
            };
            if self.is_held(pod) {
                held.push(key); // one that is to stop too: only its node can tell
            } else if !pod.run {
                self.bury(key);
            } else if pod.phase.may_become(Phase::Waiting, Actor::Sweep) {
                self.waits_again(key);
                moved.push(key);
            }
        }
        let swept = self.node_mut(node);
        (swept.here, swept.lost, swept.living) = (held, true, false);
        let count = moved.len();
        self.queue.splice(0..0, moved);
        Reply::Swept(count)
    }
}
