//! Wishes: submit, scale, delete, and the controller's steps.

use kubeleet::model::Phase;

use super::{Call, Due, Pod, PodKey, Service, Store, Token};

/// More ended pods than any sequence of calls makes.
const ENDED_KEPT: usize = 200;

impl Store {
    fn record(&mut self, service: u8) -> Option<&mut Service> {
        self.services[usize::from(service)].record.as_mut()
    }

    /// A controller is to look at a service.
    pub(super) fn changed(&mut self, service: u8) {
        self.services[usize::from(service)].due = Some(Due::Now);
    }

    /// Likewise, if one works on it: a pod came a step further.
    pub(super) fn pod_moved(&mut self, service: u8) {
        if self.services[usize::from(service)].due.is_some() {
            self.changed(service);
        }
    }

    pub(super) fn submit(&mut self, service: u8, new: Service) -> &'static str {
        if let Some(known) = self.record(service) {
            return match known {
                known if known.deleting => "deleting",
                known if known.replicas != new.replicas => "conflict",
                known if known.submission == new.submission => "created",
                _ => "exists",
            };
        }
        self.services[usize::from(service)].record = Some(new);
        self.split(service);
        "created"
    }

    pub(super) fn scale(&mut self, service: u8, replicas: u8, submission: u8) -> &'static str {
        let Some(known) = self.record(service) else {
            return "absent";
        };
        if known.submission != submission {
            if known.deleting {
                return "deleting";
            }
            (known.replicas, known.submission) = (replicas, submission);
            self.changed(service);
        }
        self.split(service);
        "scaled"
    }

    pub(super) fn delete(&mut self, service: u8) -> &'static str {
        let Some(known) = self.record(service) else {
            return "absent";
        };
        if !known.deleting {
            (known.replicas, known.deleting) = (0, true);
        }
        self.changed(service);
        self.split(service);
        "deleting"
    }

    /// Makes the pods that were never made; of a deleted service stops them all.
    fn split(&mut self, service: u8) {
        let Some(known) = self.record(service).map(|it| it.clone()) else {
            return;
        };
        let mut split = known.split;
        if known.deleting {
            for pod in self.pods_of(service) {
                self.stop(pod);
            }
            split = 0;
        } else if known.split < known.replicas {
            let new: Vec<u8> = (known.split..known.replicas).collect();
            self.make(service, known.submission, &new);
            split = known.replicas;
        }
        if let Some(known) = self.record(service) {
            known.split = split;
            known.turn += 1;
            self.end_service(service);
        }
    }

    /// New pods of a service: they wait.
    fn make(&mut self, service: u8, submission: u8, replicas: &[u8]) {
        let asks = self.record(service).map_or(0, |known| known.asks);
        for &replica in replicas {
            let key = PodKey {
                submission,
                replica,
            };
            let pod = Pod {
                key,
                service,
                asks,
                run: true,
                phase: Phase::Waiting,
                node: None,
                token: Token::default(),
                gone: false,
            };
            let at = self.pods.partition_point(|pod| pod.key < key);
            self.pods.insert(at, pod);
            self.queue.push(key);
        }
    }

    /// A deleted service is forgotten once its last pod is gone.
    fn end_service(&mut self, service: u8) {
        let ends = self.record(service).is_some_and(|known| known.deleting);
        if ends && self.pods_of(service).is_empty() {
            self.services[usize::from(service)] = super::Named::default();
        }
    }

    /// A stopped pod becomes its tombstone, and is forgotten everywhere else.
    pub(super) fn bury(&mut self, key: PodKey) {
        let Some(pod) = self.pod_mut(key) else {
            return;
        };
        let (node, service) = (pod.node.take(), pod.service);
        *pod = Pod {
            run: false,
            phase: Phase::Stopped,
            token: Token::default(),
            asks: 0,
            gone: true,
            ..pod.clone()
        };
        if let Some(node) = node {
            self.node_mut(node).here.retain(|it| *it != key);
        }
        self.end_service(service);
        self.pod_moved(service);
    }

    /// The wish that a pod stops: at once where it has no living node.
    fn stop(&mut self, key: PodKey) {
        let Some(pod) = self.pod(key) else { return };
        if pod.gone {
            return self.bury(key); // something still led to it
        } else if !pod.run {
            return;
        }
        // Held on a lost node: its container may run, and only its node can tell.
        let held = self.is_held(pod);
        let listens = |node: &u8| self.node(*node).living || held && self.node(*node).lost;
        match pod.node.filter(listens) {
            None => self.bury(key),
            Some(node) => {
                if let Some(pod) = self.pod_mut(key) {
                    pod.run = false;
                }
                self.put_here(node, key);
                self.node_mut(node).inbox.push(key);
            }
        }
    }

    pub(super) fn claim_services(&mut self, claim: u8) -> Vec<u8> {
        let mut claimed = Vec::new();
        for (service, named) in (0..).zip(&mut self.services) {
            if named.due == Some(Due::Now) {
                named.due = named.record.as_ref().map(|_| Due::Claim(claim));
                claimed.extend(named.record.as_ref().map(|_| service));
            }
        }
        claimed
    }

    pub(super) fn step(&mut self, call: &Call) -> &'static str {
        let Call::ServiceStep {
            service,
            turn,
            due,
            again,
            submission,
            ref new,
            ref stop,
        } = *call
        else {
            return "";
        };
        let Some(known) = self.record(service) else {
            self.services[usize::from(service)].due = None;
            return "absent";
        };
        if known.turn != turn {
            self.changed(service);
            return "moved";
        }
        if !new.is_empty() || !stop.is_empty() {
            known.turn += 1;
        }
        self.make(service, submission, new);
        for pod in stop {
            self.stop(*pod);
        }
        self.end_service(service);
        let named = &mut self.services[usize::from(service)];
        if named.record.is_some() && due.is_some() && named.due == due {
            named.due = again.then_some(Due::Later);
        }
        "stepped"
    }

    /// Marks services that are not as they should be, and puts waiting pods back that lie nowhere.
    pub(super) fn compare_services(&mut self) -> usize {
        let queued = !self.queue.is_empty() || !self.claims.is_empty();
        let mut put_back = Vec::new();
        for service in 0..self.services.len() {
            let service = u8::try_from(service).unwrap_or(u8::MAX);
            let Some(known) = self.record(service).map(|it| it.clone()) else {
                continue;
            };
            let (mut live, mut ended) = (0, 0);
            for key in self.pods_of(service) {
                let Some(pod) = self.pod(key).cloned() else {
                    continue;
                };
                let placed = pod.phase.is_on_node() || pod.phase.is_ended() && !pod.run;
                let waits = pod.phase == Phase::Waiting || placed && !self.stays_placed(&pod);
                if !waits && pod.phase.is_ended() {
                    ended += 1;
                } else if pod.run {
                    live += 1;
                    if waits && !queued {
                        put_back.push(key);
                    }
                }
            }
            let settled =
                !known.deleting && live == usize::from(known.replicas) && ended <= ENDED_KEPT;
            if !settled {
                self.changed(service);
            }
        }
        self.queue.extend(&put_back);
        put_back.len()
    }

    /// Has a placed pod stand in its node's set; one whose node is gone waits again, or is no more.
    fn stays_placed(&mut self, pod: &Pod) -> bool {
        let held = self.is_held(pod);
        let stays = |node: &u8| self.node(*node).living || held && self.node(*node).lost;
        if let Some(node) = pod.node.filter(stays) {
            if !self.node(node).here.contains(&pod.key) {
                self.put_here(node, pod.key);
                self.node_mut(node).inbox.push(pod.key);
            }
            return true;
        }
        if !pod.run || !pod.phase.is_on_node() {
            self.bury(pod.key);
        } else {
            self.waits_again(pod.key);
        }
        false
    }

    /// A pod goes off its node; the caller puts it in the queue.
    pub(super) fn waits_again(&mut self, key: PodKey) {
        if let Some(pod) = self.pod_mut(key) {
            (pod.phase, pod.node) = (Phase::Waiting, None);
            let service = pod.service;
            self.pod_moved(service);
        }
    }
}
