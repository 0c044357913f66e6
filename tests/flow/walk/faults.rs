//! Faults of a walk: parts that die or freeze, engines that fail, containers changed behind the
//! agents' backs, and a Redis that drops connections or does not answer for a while.

use std::time::Duration;

use kubeleet::container::{Container, Runtime};

use super::deeds::IMAGES;
use super::{LEASE, NODES, Walk};
use crate::support::cluster::IMAGE;

/// Failures of a service's containers, after which it is spared until its next change: pauses
/// between tries double with each.
const FAILURES_MAX: u32 = 2;
/// Schedulers at once.
const SCHEDULERS_MAX: usize = 2;
/// A pause of Redis: often shorter than its answers may take, seldom longer than a lease.
const PAUSES_MS: [u64; 4] = [20, 100, 300, 700];

impl Walk {
    pub(super) async fn fault(&mut self) {
        match self.dice.roll(100) {
            0..14 => self.kill_agent(),
            14..20 => self.revive_agents(),
            20..26 => self.freeze_agent().await,
            26..32 => self.thaw(),
            32..40 => self.kill_scheduler(),
            40..44 => self.door.kill(),
            44..58 => self.end_container(),
            58..72 => self.remove_container().await,
            72..75 => self.add_stranger(),
            75..79 => self.fail_start(),
            79..84 => self.engine_down(),
            84..89 => self.engines_up(),
            89..92 => self.deny_image(),
            92..97 => self.drop_connections().await,
            _ => self.pause_redis().await,
        }
    }

    /// Ends every fault that goes on by itself.
    pub(super) async fn end_faults(&mut self) {
        self.note("all faults end");
        self.frozen.clear();
        self.engines_up();
        for node in NODES {
            for image in IMAGES {
                self.cluster.engine(node).allow_image(image);
            }
        }
        self.revive_agents();
        if self.cluster.schedulers() == 0 {
            self.cluster.add_scheduler();
        }
    }

    fn kill_agent(&mut self) {
        let node = self.node();
        if !self.cluster.has_agent(node) {
            return;
        }
        let stays_down = self.dice.roll(4) == 0;
        self.note(format!("kill agent {node}, stays down: {stays_down}"));
        self.frozen.remove(node);
        self.cluster.take_agent(node).kill();
        if !stays_down {
            self.cluster.start_agent(node);
        }
    }

    fn revive_agents(&mut self) {
        for node in NODES {
            if !self.cluster.has_agent(node) {
                self.note(format!("start agent {node}"));
                self.cluster.start_agent(node);
            }
        }
    }

    /// Its heartbeat stops; it may be swept before it goes on.
    async fn freeze_agent(&mut self) {
        let node = self.node();
        if self.cluster.has_agent(node) && !self.frozen.contains_key(node) {
            self.note(format!("freeze agent {node}"));
            let frozen = self.cluster.agent(node).freeze().await;
            self.frozen.insert(node.to_owned(), frozen);
            if self.dice.roll(4) == 0 {
                tokio::time::sleep(LEASE).await;
            }
        }
    }

    fn thaw(&mut self) {
        self.note("agents go on");
        self.frozen.clear();
    }

    fn kill_scheduler(&mut self) {
        let others = self.cluster.schedulers();
        if others < SCHEDULERS_MAX && self.dice.roll(2) == 0 {
            self.note("another scheduler");
            self.cluster.add_scheduler();
        } else if others > 0 {
            let heir = self.dice.roll(4) > 0;
            self.note(format!("kill a scheduler, heir: {heir}"));
            self.cluster.kill_scheduler();
            if heir {
                self.cluster.add_scheduler();
            }
        }
    }

    /// One of our containers, running or not.
    fn container(&mut self) -> Option<(&'static str, Container)> {
        let node = self.node();
        let mut all = self.cluster.engine(node).containers();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let found = self.dice.of(&all)?.clone();
        Some((node, found))
    }

    /// Whether another container of this one's service may fail.
    fn may_fail(&mut self, container: &Container) -> bool {
        let name = service_of(container);
        let failures = self.failures.entry(name).or_default();
        *failures += 1;
        *failures <= FAILURES_MAX
    }

    fn end_container(&mut self) {
        let Some((node, container)) = self.container() else {
            return;
        };
        if !self.may_fail(&container) {
            return;
        }
        let exit_code = i64::try_from(self.dice.roll(2)).expect("0 or 1");
        self.note(format!(
            "{} on {node} ends with {exit_code}",
            container.name
        ));
        self.forget_by_hand(&container);
        self.cluster
            .engine(node)
            .end(&container.id, exit_code, None);
    }

    async fn remove_container(&mut self) {
        let Some((node, container)) = self.container() else {
            return;
        };
        let stop = self.dice.roll(2) == 0;
        if stop && !self.may_fail(&container) {
            return;
        }
        let verb = if stop { "stopped" } else { "removed" };
        self.note(format!(
            "{} on {node} is {verb} behind its agent's back",
            container.name
        ));
        self.forget_by_hand(&container);
        let engine = Runtime::Simulated(self.cluster.engine(node).clone());
        // An engine that is down does it no more than it would for anyone.
        let _ = match stop {
            true => engine.stop(&container.id, Duration::ZERO).await,
            false => engine.remove(&container.id).await,
        };
    }

    /// What becomes of a pod without a service that ended is its policy's to say, not the walk's.
    fn forget_by_hand(&mut self, container: &Container) {
        self.by_hand.remove(container.pod.as_str());
    }

    fn add_stranger(&mut self) {
        let node = self.node();
        let name = format!("stranger-{}", self.step);
        let id = self.cluster.engine(node).add_stranger(name);
        self.strangers
            .entry(node.to_owned())
            .or_default()
            .insert(id);
    }

    fn fail_start(&mut self) {
        let node = self.node();
        self.note(format!("the next start on {node} fails"));
        self.cluster.engine(node).fail_next_start("no such device");
    }

    fn engine_down(&mut self) {
        let node = self.node();
        self.note(format!("the engine of {node} is down"));
        self.cluster.engine(node).set_down(true);
    }

    fn engines_up(&mut self) {
        self.note("engines are up");
        for node in NODES {
            self.cluster.engine(node).set_down(false);
        }
    }

    /// An image is gone from one node and from its registry; the one every node has, never.
    fn deny_image(&mut self) {
        let node = self.node();
        let image = *self.dice.of(&IMAGES).expect("there are some");
        if image != IMAGE {
            self.note(format!("{node} cannot get {image}"));
            self.cluster.engine(node).deny_image(image);
        }
    }

    async fn drop_connections(&mut self) {
        self.note("Redis drops all connections");
        let kind = ["normal", "pubsub"][usize::try_from(self.dice.roll(2)).expect("few")];
        self.redis
            .must(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])
            .await;
    }

    async fn pause_redis(&mut self) {
        let pause = *self.dice.of(&PAUSES_MS).expect("there are some");
        let pause = if self.dice.roll(10) == 0 {
            LEASE + LEASE / 2
        } else {
            Duration::from_millis(pause)
        };
        self.note(format!("Redis does not answer for {pause:?}"));
        self.redis.pause();
        tokio::time::sleep(pause).await;
        self.redis.resume();
    }
}

/// Name of a container's service; of one pushed by hand, `hand`.
pub(super) fn service_of(container: &Container) -> String {
    let name = container.name.split('-').next();
    name.unwrap_or_default().to_owned()
}
