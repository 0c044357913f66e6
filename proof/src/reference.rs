//! The state machine of `redis/kubeleet.lua` once more, as a plain function: what each call must
//! answer and leave behind.
//!
//! Small and hashable, so that all states of a cluster can be walked through (`world`), and checked
//! against the real functions by random calls (`tests/store/mirror.rs`): what is proved of it holds for
//! them. It knows no clock: whether a lease is over stands in the state, and what time does is a method.
//! Left out are raw descriptions, parked pods, priorities, ports, devices, drains and moves, which
//! `tests/store/random_walk.rs` walks through, and what a person damages.
//!
//! Must never know Redis, or do more than one call at once.

#[path = "reference/nodes.rs"]
mod nodes;
#[path = "reference/queue.rs"]
mod queue;
#[path = "reference/services.rs"]
mod services;

use kubeleet::model::Phase;

/// A pod: the submission that made it, and its replica index. No two ever share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Number of the submission, or of the controller's step.
    pub submission: u8,
    /// Its index among its siblings.
    pub replica: u8,
}

/// A placement: its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Token {
    /// The how-manieth placement of the pod, as far as Redis remembers.
    pub attempt: u8,
    /// What no other call of assign has.
    pub nonce: u8,
}

/// A pod's record, or its tombstone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Which it is.
    pub key: PodKey,
    /// Its service, by number.
    pub service: u8,
    /// What it takes of its node.
    pub asks: u8,
    /// It is to run; else to stop.
    pub run: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its node.
    pub node: Option<u8>,
    /// Its last placement.
    pub token: Token,
    /// It is a tombstone.
    pub gone: bool,
}

/// A service's record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Wanted pods.
    pub replicas: u8,
    /// How many replica indexes were ever made.
    pub split: u8,
    /// It goes, once its last pod has gone.
    pub deleting: bool,
    /// Changes with every change of the wish or of the number of its pods.
    pub turn: u8,
    /// Who made or scaled it last.
    pub submission: u8,
    /// What each of its pods takes of a node.
    pub asks: u8,
    /// Its pods stay on a lost node.
    pub hold: bool,
}

/// When a controller is to look at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Due {
    /// At once.
    Now,
    /// When the claim of this number ends.
    Claim(u8),
    /// When a step said so.
    Later,
}

/// What is known under a service's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Named {
    /// Its record, if it stands.
    pub record: Option<Service>,
    /// When a controller is to look at it, if at all.
    pub due: Option<Due>,
}

/// A node's record and lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// How often an agent registered; 0 where none is known.
    pub epoch: u8,
    /// What its pods may take together.
    pub capacity: u8,
    /// Its last heartbeat is older than a lease.
    pub overdue: bool,
    /// It was swept, and not heard since.
    pub lost: bool,
    /// It stands among those whose leases are watched.
    pub living: bool,
    /// Pods assigned to it, in order.
    pub here: Vec<PodKey>,
    /// Its inbox, first to be served first.
    pub inbox: Vec<PodKey>,
    /// What its agent handles, oldest first.
    pub handling: Vec<PodKey>,
}

/// A claimed batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Its number.
    pub number: u8,
    /// Its lease is over.
    pub over: bool,
    /// Its entries, as they were served.
    pub entries: Vec<PodKey>,
}

/// All that stands in one Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Store {
    /// Services, by number.
    pub services: Vec<Named>,
    /// Pods and tombstones, in order.
    pub pods: Vec<Pod>,
    /// Nodes, by number.
    pub nodes: Vec<Node>,
    /// Waiting pods, first to be served first.
    pub queue: Vec<PodKey>,
    /// Claims, in order.
    pub claims: Vec<Batch>,
    /// It failed over less than a lease ago: nothing is swept.
    pub grace: bool,
}

/// One call of a function, named like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `kl_service_submit`, of a new wish.
    ServiceSubmit {
        /// Which service.
        service: u8,
        /// Wanted pods.
        replicas: u8,
        /// Who asks.
        submission: u8,
        /// What each of its pods takes of a node.
        asks: u8,
        /// Its pods stay on a lost node.
        hold: bool,
    },
    /// `kl_service_scale`.
    ServiceScale {
        /// Which service.
        service: u8,
        /// Wanted pods.
        replicas: u8,
        /// Who asks.
        submission: u8,
    },
    /// `kl_service_delete`.
    ServiceDelete {
        /// Which service.
        service: u8,
    },
    /// `kl_service_claim`, of all that are due.
    ServiceClaim {
        /// Number of the claim.
        claim: u8,
    },
    /// `kl_service_step`.
    ServiceStep {
        /// Which service.
        service: u8,
        /// Its turn when it was viewed.
        turn: u8,
        /// The claim, if there is one.
        due: Option<Due>,
        /// Whether to look again though nothing changes.
        again: bool,
        /// Who makes the new pods.
        submission: u8,
        /// Replica indexes of new pods.
        new: Vec<u8>,
        /// Pods to stop.
        stop: Vec<PodKey>,
    },
    /// `kl_service_compare`, of all services.
    ServiceCompare,
    /// `kl_pod_claim`.
    PodClaim {
        /// Number of the batch.
        batch: u8,
        /// Most entries.
        max: usize,
    },
    /// `kl_pod_assign`.
    PodAssign {
        /// Number of the batch.
        batch: u8,
        /// What tells these placements from all others.
        nonce: u8,
        /// Which pod goes to which node.
        pairs: Vec<(PodKey, u8)>,
    },
    /// `kl_claim_expire`.
    ClaimExpire,
    /// An agent's `LMOVE` from its inbox to what it handles.
    InboxPop {
        /// Which node.
        node: u8,
    },
    /// `kl_pod_take`, of one pod.
    PodTake {
        /// Which node.
        node: u8,
        /// Epoch of its agent.
        epoch: u8,
        /// Which pod.
        pod: PodKey,
    },
    /// `kl_pod_report`, of one pod.
    PodReport {
        /// Which node.
        node: u8,
        /// Epoch of its agent.
        epoch: u8,
        /// Which pod.
        pod: PodKey,
        /// The placement that is told of.
        token: Token,
        /// What became of it; none drops only the entry.
        phase: Option<Phase>,
        /// The inbox entry that is dropped.
        entry: Option<PodKey>,
    },
    /// `kl_node_compare`.
    NodeCompare {
        /// Which node.
        node: u8,
    },
    /// `kl_node_register`.
    NodeRegister {
        /// Which node.
        node: u8,
        /// What its pods may take together.
        capacity: u8,
    },
    /// `kl_node_heartbeat`.
    NodeHeartbeat {
        /// Which node.
        node: u8,
        /// Epoch of its agent.
        epoch: u8,
    },
    /// `kl_node_sweep`, which takes all pods of the node whose lease ended first.
    NodeSweep {
        /// The node that it takes; without meaning where none is overdue.
        node: u8,
    },
}

/// What is wanted of a pod that an agent takes in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Taken {
    /// Redis knows nothing of it.
    Absent,
    /// It is another node's.
    Stale,
    /// It is a tombstone.
    Unwanted,
    /// Its container must go, and that is to be reported.
    Stop(Token),
    /// It has ended.
    Ended(Token, Phase),
    /// Its container must run.
    Run(Token, Phase),
}

/// What a call answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A word that says all.
    Word(&'static str),
    /// Services that a controller is to look at.
    Services(Vec<u8>),
    /// Pods: of a claim, or of a node.
    Pods(Vec<PodKey>),
    /// How many were assigned, and how many went back to the queue.
    Assigned(usize, usize),
    /// How many waiting pods were put back.
    PutBack(usize),
    /// What is wanted of a pod.
    Taken(Taken),
    /// The epoch of a registration.
    Epoch(u8),
    /// How many pods of the swept node wait again.
    Swept(usize),
}

impl Store {
    /// A Redis of so many nodes and services that are not known yet.
    pub fn new(nodes: usize, services: usize) -> Store {
        Store {
            services: vec![Named::default(); services],
            nodes: vec![Node::default(); nodes],
            ..Store::default()
        }
    }

    /// Carries out one call.
    pub fn apply(&mut self, call: &Call) -> Reply {
        match *call {
            Call::ServiceSubmit {
                service,
                replicas,
                submission,
                asks,
                hold,
            } => {
                let new = Service {
                    replicas,
                    submission,
                    asks,
                    hold,
                    split: 0,
                    deleting: false,
                    turn: 0,
                };
                Reply::Word(self.submit(service, new))
            }
            Call::ServiceScale {
                service,
                replicas,
                submission,
            } => Reply::Word(self.scale(service, replicas, submission)),
            Call::ServiceDelete { service } => Reply::Word(self.delete(service)),
            Call::ServiceClaim { claim } => Reply::Services(self.claim_services(claim)),
            Call::ServiceStep { .. } => Reply::Word(self.step(call)),
            Call::ServiceCompare => Reply::PutBack(self.compare_services()),
            Call::PodClaim { batch, max } => Reply::Pods(self.claim(batch, max)),
            Call::PodAssign {
                batch,
                nonce,
                ref pairs,
            } => self.assign(batch, nonce, pairs),
            Call::ClaimExpire => {
                self.expire_claims();
                Reply::Word("expired")
            }
            Call::InboxPop { node } => Reply::Pods(self.pop(node).into_iter().collect()),
            Call::PodTake { node, epoch, pod } => self.take(node, epoch, pod),
            Call::PodReport { .. } => Reply::Word(self.report(call)),
            Call::NodeCompare { node } => Reply::Pods(self.compare_node(node)),
            Call::NodeRegister { node, capacity } => Reply::Epoch(self.register(node, capacity)),
            Call::NodeHeartbeat { node, epoch } => Reply::Word(self.heartbeat(node, epoch)),
            Call::NodeSweep { node } => self.sweep(node),
        }
    }

    /// A pod, or its tombstone.
    pub fn pod(&self, key: PodKey) -> Option<&Pod> {
        let at = self.pods.binary_search_by_key(&key, |pod| pod.key).ok()?;
        self.pods.get(at)
    }

    fn pod_mut(&mut self, key: PodKey) -> Option<&mut Pod> {
        let at = self.pods.binary_search_by_key(&key, |pod| pod.key).ok()?;
        self.pods.get_mut(at)
    }

    /// Pods of a service that are not gone, by replica index.
    pub fn pods_of(&self, service: u8) -> Vec<PodKey> {
        let mine = |pod: &&Pod| !pod.gone && pod.service == service;
        let mut pods: Vec<PodKey> = self.pods.iter().filter(mine).map(|pod| pod.key).collect();
        pods.sort_by_key(|pod| (pod.replica, pod.submission));
        pods
    }

    /// A node.
    pub fn node(&self, node: u8) -> &Node {
        &self.nodes[usize::from(node)]
    }

    fn node_mut(&mut self, node: u8) -> &mut Node {
        &mut self.nodes[usize::from(node)]
    }

    /// Whether a placed pod stays on its node, should that be lost.
    fn is_held(&self, pod: &Pod) -> bool {
        let service = &self.services[usize::from(pod.service)].record;
        pod.phase.is_on_node() && service.as_ref().is_some_and(|it| it.hold)
    }

    /// What a node's pods take together.
    pub fn taken_room(&self, node: u8) -> u8 {
        let here = |pod: &&Pod| pod.node == Some(node) && pod.phase.is_on_node();
        self.pods.iter().filter(here).map(|pod| pod.asks).sum()
    }

    /// Time: a node's last heartbeat is a full lease old.
    pub fn lease_ends(&mut self, node: u8) {
        let node = self.node_mut(node);
        node.overdue = node.epoch > 0;
    }

    /// Time: the lease of a claim ends.
    pub fn claim_ends(&mut self, batch: u8) {
        if let Some(claim) = self.claims.iter_mut().find(|it| it.number == batch) {
            claim.over = true;
        }
    }

    /// Time: services that were claimed, or to be looked at later, are due again.
    pub fn services_fall_due(&mut self) {
        for named in &mut self.services {
            named.due = named.due.map(|_| Due::Now);
        }
    }

    /// This copy is the master from now on.
    pub fn promoted(&mut self, grace: bool) {
        self.grace = grace;
    }

    /// Time: a full lease passed since the fail-over.
    pub fn grace_ends(&mut self) {
        self.grace = false;
    }
}
