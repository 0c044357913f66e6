//! A plain in-memory model of the state machine: what each call must answer and leave behind.
//!
//! It knows nothing of Redis. Where pods wait (queue, claim, parked) is not modelled: that each waits
//! in one place is an invariant of its own, read from Redis.

use std::collections::{BTreeMap, BTreeSet};

use kubeleet::model::phase::Actor;
use kubeleet::model::{Capacity, Phase, Resources, ServiceSpec, Token};
use kubeleet::store::{AdoptOutcome, Mark, ReportOutcome, ScaleOutcome};

/// A pod, or its tombstone.
#[derive(Debug, Clone)]
pub struct OraclePod {
    pub service: Option<String>,
    pub replica: u32,
    pub asks: Resources,
    /// Fixed ports that it wants of its node.
    pub ports: Vec<String>,
    pub run: bool,
    /// It is to leave its node, which drains.
    pub moving: bool,
    pub phase: Phase,
    pub node: Option<String>,
    pub token: Token,
    pub gone: bool,
}

#[derive(Debug, Clone)]
pub struct OracleNode {
    pub epoch: u64,
    pub capacity: Capacity,
    /// Its lease is over.
    pub overdue: bool,
    /// It was swept and not heard since.
    pub lost: bool,
    /// It has a place among the living: it was not swept to the end.
    pub living: bool,
    pub mark: Mark,
}

impl Default for OracleNode {
    fn default() -> OracleNode {
        OracleNode {
            epoch: 0,
            capacity: Capacity::default(),
            overdue: false,
            lost: false,
            living: false,
            mark: Mark::Open,
        }
    }
}

#[derive(Debug, Clone)]
pub struct OracleService {
    pub replicas: u32,
    /// How many replica indexes were ever made.
    pub split: u32,
    pub asks: Resources,
    pub ports: Vec<String>,
    pub deleting: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub pods: BTreeMap<String, OraclePod>,
    pub nodes: BTreeMap<String, OracleNode>,
    pub services: BTreeMap<String, OracleService>,
}

impl Oracle {
    /// Pods, cpu and memory on a node.
    pub fn room(&self, node: &str) -> (u64, u64, u64) {
        let on_node =
            |pod: &&OraclePod| pod.node.as_deref() == Some(node) && pod.phase.is_on_node();
        let pods = self.pods.values().filter(on_node);
        pods.fold((0, 0, 0), |sum, pod| {
            (
                sum.0 + 1,
                sum.1 + pod.asks.cpu_millis,
                sum.2 + pod.asks.memory_bytes,
            )
        })
    }

    /// Fixed ports in use on a node, in order.
    pub fn ports(&self, node: &str) -> Vec<&str> {
        let on_node =
            |pod: &&OraclePod| pod.node.as_deref() == Some(node) && pod.phase.is_on_node();
        let pods = self.pods.values().filter(on_node);
        let mut ports: Vec<&str> = pods
            .flat_map(|pod| &pod.ports)
            .map(String::as_str)
            .collect();
        ports.sort_unstable();
        ports
    }

    /// What a node lacks to take a pod.
    fn lacks(&self, node: &str, asks: &Resources, ports: &[String]) -> Option<String> {
        let (pods, cpu, memory) = self.room(node);
        let capacity = self.nodes.get(node)?.capacity;
        let taken = self.ports(node);
        if pods >= u64::from(capacity.pods_max) {
            Some("pods".to_owned())
        } else if asks.cpu_millis > 0 && cpu + asks.cpu_millis > capacity.cpu_millis {
            Some("cpu".to_owned())
        } else if asks.memory_bytes > 0 && memory + asks.memory_bytes > capacity.memory_bytes {
            Some("memory".to_owned())
        } else {
            let port = ports.iter().find(|port| taken.contains(&port.as_str()));
            port.map(|port| format!("port {port}"))
        }
    }

    /// Pods of a service that are not gone.
    pub fn pods_of<'a>(
        &'a self,
        service: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a OraclePod)> {
        let mine = move |(_, pod): &(&String, &OraclePod)| {
            !pod.gone && pod.service.as_deref() == Some(service)
        };
        self.pods.iter().filter(mine)
    }

    /// The word that a submit answers with.
    pub fn submit(&mut self, name: &str, spec: &ServiceSpec, submission: &str) -> &'static str {
        let replicas = spec.replicas;
        match self.services.get(name) {
            Some(known) if known.deleting => "deleting",
            Some(known) if known.replicas == replicas => "exists",
            Some(_) => "conflict",
            None => {
                let service = OracleService {
                    replicas,
                    split: 0,
                    asks: spec.resources.clone(),
                    ports: spec.host_ports(),
                    deleting: false,
                };
                self.services.insert(name.to_owned(), service);
                self.make(name, submission);
                "created"
            }
        }
    }

    fn make(&mut self, name: &str, submission: &str) {
        let service = self.services.get_mut(name).expect("it is there");
        let from = service.split;
        service.split = service.split.max(service.replicas);
        for replica in from..service.split {
            self.add(&format!("{submission}-{replica}"), name, replica);
        }
    }

    /// A new pod of a service: it waits.
    pub fn add(&mut self, id: &str, name: &str, replica: u32) {
        let pod = OraclePod {
            service: Some(name.to_owned()),
            replica,
            asks: self.services[name].asks.clone(),
            ports: self.services[name].ports.clone(),
            run: true,
            moving: false,
            phase: Phase::Waiting,
            node: None,
            token: Token::default(),
            gone: false,
        };
        self.pods.insert(id.to_owned(), pod);
    }

    pub fn scale(&mut self, name: &str, replicas: u32, submission: &str) -> ScaleOutcome {
        let Some(service) = self.services.get_mut(name) else {
            return ScaleOutcome::Absent;
        };
        if service.deleting {
            return ScaleOutcome::Deleting;
        }
        service.replicas = replicas;
        self.make(name, submission);
        ScaleOutcome::Done
    }

    pub fn delete(&mut self, name: &str) -> ScaleOutcome {
        let Some(service) = self.services.get_mut(name) else {
            return ScaleOutcome::Absent;
        };
        service.deleting = true;
        service.replicas = 0;
        let pods = self.pods_of(name);
        for id in pods.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.stop(&id);
        }
        self.end_service(name);
        ScaleOutcome::Done
    }

    /// The wish that a pod stops: at once where it has no living node.
    pub fn stop(&mut self, id: &str) {
        let pod = &self.pods[id];
        if pod.gone || !pod.run {
            return;
        }
        let living = |node: &String| self.nodes.get(node).is_some_and(|node| node.living);
        if pod.node.as_ref().is_some_and(living) {
            self.pods.get_mut(id).expect("it is there").run = false;
        } else {
            assert!(
                pod.phase == Phase::Stopped || pod.phase.may_become(Phase::Stopped, Actor::User)
            );
            self.bury(id);
        }
    }

    /// A stopped pod becomes its tombstone.
    pub fn bury(&mut self, id: &str) {
        let pod = self.pods.get_mut(id).expect("it is there");
        (pod.gone, pod.run, pod.phase, pod.node) = (true, false, Phase::Stopped, None);
        if let Some(service) = pod.service.clone() {
            self.end_service(&service);
        }
    }

    fn end_service(&mut self, name: &str) {
        if self
            .services
            .get(name)
            .is_some_and(|service| service.deleting)
            && self.pods_of(name).next().is_none()
        {
            self.services.remove(name);
        }
    }

    /// How many of the pairs of pod and node are carried out.
    pub fn assign(&mut self, pairs: &[(String, String)], nonce: &str) -> usize {
        let mut settled = BTreeSet::new();
        let mut count = 0;
        for (id, node) in pairs {
            let Some(pod) = self.pods.get(id) else {
                continue;
            };
            let usable = self
                .nodes
                .get(node)
                .is_some_and(|node| !node.overdue && !node.lost && node.mark == Mark::Open);
            if pod.phase == Phase::Waiting
                && pod.run
                && usable
                && self.lacks(node, &pod.asks, &pod.ports).is_none()
                && settled.insert(id)
            {
                assert!(pod.phase.may_become(Phase::Scheduled, Actor::Scheduler));
                let pod = self.pods.get_mut(id).expect("it is there");
                pod.phase = Phase::Scheduled;
                pod.node = Some(node.clone());
                pod.token = Token {
                    attempt: pod.token.attempt + 1,
                    nonce: nonce.to_owned(),
                };
                count += 1;
            }
        }
        count
    }

    /// The word for one pod that an agent takes.
    pub fn take(&mut self, node: &str, id: &str) -> &'static str {
        let Some(pod) = self.pods.get_mut(id) else {
            return "absent";
        };
        if pod.gone {
            return "unwanted";
        }
        if pod.node.as_deref() != Some(node) {
            return "stale";
        }
        if !pod.run {
            return "stop";
        }
        if pod.phase.is_ended() {
            return "ended";
        }
        if pod.moving {
            return "move";
        }
        if pod.phase == Phase::Scheduled {
            pod.phase = Phase::Starting;
        }
        "run"
    }

    pub fn report(
        &mut self,
        node: &str,
        epoch: u64,
        id: &str,
        token: &Token,
        to: Phase,
    ) -> ReportOutcome {
        if self.nodes[node].epoch != epoch {
            return ReportOutcome::Superseded;
        }
        let Some(pod) = self.pods.get_mut(id) else {
            return ReportOutcome::Gone;
        };
        if pod.node.as_deref() != Some(node) || pod.token != *token {
            return ReportOutcome::Stale;
        }
        if to == Phase::Stopped && !pod.run {
            self.bury(id);
            ReportOutcome::Ok
        } else if to == Phase::Stopped && pod.moving && pod.phase.is_on_node() {
            self.sweep(id);
            ReportOutcome::Ok
        } else if pod.phase == to {
            ReportOutcome::Ok
        } else if pod.phase.may_become(to, Actor::Agent) {
            pod.phase = to;
            ReportOutcome::Ok
        } else {
            ReportOutcome::Late
        }
    }

    /// A description by hand; `node` is that of the inbox, none for the queue.
    pub fn adopt(
        &mut self,
        id: &str,
        asks: Resources,
        ports: Vec<String>,
        node: Option<(&str, &str)>,
    ) -> AdoptOutcome {
        match self.pods.get(id) {
            Some(pod) if pod.gone => return AdoptOutcome::Stopped,
            Some(_) => return AdoptOutcome::Known,
            None => {}
        }
        let mut pod = OraclePod {
            service: None,
            replica: 0,
            asks,
            ports,
            run: true,
            moving: false,
            phase: Phase::Waiting,
            node: None,
            token: Token::default(),
            gone: false,
        };
        let drains = |node: &str| self.nodes[node].mark == Mark::Drain;
        if let Some((node, nonce)) = node.filter(|(node, _)| !drains(node)) {
            if let Some(what) = self.lacks(node, &pod.asks, &pod.ports) {
                return AdoptOutcome::Full(what);
            }
            pod.phase = Phase::Scheduled;
            pod.node = Some(node.to_owned());
            pod.token = Token {
                attempt: 1,
                nonce: nonce.to_owned(),
            };
            // Were it lost, the sweep must find it again.
            self.nodes.get_mut(node).expect("it is there").living = true;
        }
        self.pods.insert(id.to_owned(), pod);
        AdoptOutcome::Adopted
    }

    /// The sweep takes one pod from its node; true if it waits again.
    pub fn sweep(&mut self, id: &str) -> bool {
        let pod = self.pods.get_mut(id).expect("it is there");
        if !pod.run {
            self.bury(id);
            return false;
        }
        assert!(
            pod.phase.may_become(Phase::Waiting, Actor::Sweep),
            "{id} {}",
            pod.phase
        );
        (pod.phase, pod.node, pod.moving) = (Phase::Waiting, None, false);
        true
    }

    /// Pods without an owner on a draining node are to leave it; answers how many were told now.
    pub fn evict(&mut self, node: &str) -> u64 {
        let mut told = 0;
        for pod in self.pods.values_mut() {
            let here = pod.node.as_deref() == Some(node) && pod.phase.is_on_node();
            if here && pod.run && pod.service.is_none() && !pod.moving {
                pod.moving = true;
                told += 1;
            }
        }
        told
    }

    /// A node is forgotten by force; answers how many of its pods wait again.
    pub fn remove(&mut self, node: &str) -> u64 {
        let on_node = |pod: &OraclePod| {
            pod.node.as_deref() == Some(node) && (pod.phase.is_on_node() || !pod.run)
        };
        let pods = self.pods.iter().filter(|(_, pod)| on_node(pod));
        let ids: Vec<String> = pods.map(|(id, _)| id.clone()).collect();
        self.nodes.remove(node);
        ids.iter().map(|id| u64::from(self.sweep(id))).sum()
    }
}
