//! A whole cluster of numbers: Redis and its replica, agents with their containers, a user, schedulers.
//!
//! What Redis does is the [`Store`]'s, what agents and controllers decide is kubeleet's own
//! (`decide`). Here is only who may do what when, and what may go wrong.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kubeleet::model::service::OnNodeLoss;

use crate::decide::Plan;
use crate::reference::{PodKey, Store, Taken, Token};

/// What holds a guarantee, each of which can be left out to see what breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// What is answered was confirmed by a replica.
    Wait,
    /// Redis is asked whether a placement stands, in the same term of the lease, before a first start.
    Token,
    /// The lease's own deadline is tested right before a first start.
    Deadline,
    /// An agent stops its containers when its deadline passes.
    Fence,
    /// A watchdog does, if the agent is dead or held still.
    Watchdog,
    /// Agents and controllers compare all that is there, on a timer.
    Resync,
    /// Nothing is swept for a full lease after a fail-over.
    Grace,
    /// A stopped pod leaves a tombstone.
    Tombstone,
    /// A master without replicas stops accepting writes well before a lease is over.
    MinReplicas,
    /// A fenced container is started again only if Redis says so in the new term.
    AskAgain,
}

impl Remedy {
    /// The seven that every cluster needs.
    pub const SEVEN: [Remedy; 7] = [
        Remedy::Wait,
        Remedy::Token,
        Remedy::Deadline,
        Remedy::Fence,
        Remedy::Watchdog,
        Remedy::Resync,
        Remedy::Grace,
    ];
}

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The master dies, and its replica, which may lag, takes over.
    FailOver,
    /// An agent dies; its containers run on.
    Crash,
    /// An agent loses Redis, or Redis it.
    Disconnect,
    /// An agent is held still.
    Pause,
    /// An entry is popped by a connection whose agent is gone.
    GhostPop,
    /// A container ends by itself.
    Exit,
    /// A scheduler dies with what it holds.
    HandDies,
    /// The replica is promoted while the old master lives on among those who still reach it.
    Split,
}

/// How many kinds of [`Fault`] there are.
pub const FAULTS: usize = 8;

/// A cluster to be walked through, and how far.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Machines.
    pub nodes: u8,
    /// What the pods of each may take together.
    pub capacity: u8,
    /// Replicas of each service that the user submits.
    pub services: Vec<u8>,
    /// What follows a loss.
    pub on_loss: OnNodeLoss,
    /// Remedies that are left out.
    pub without: Vec<Remedy>,
    /// Most faults of each kind, in the order of [`Fault`].
    pub faults: [u8; FAULTS],
    /// Most faults of all kinds together.
    pub faults_max: u8,
    /// The user deletes the first service, whenever.
    pub deletes: bool,
    /// The user scales the first service to so many replicas, whenever.
    pub scales: Option<u8>,
    /// The two nodes are alike, and states that differ only by which is which are one. A trace then tells
    /// of nodes that change places.
    pub symmetric: bool,
    /// Schedulers that may come between one another. Where there are none, what one claims it settles at once.
    pub hands: u8,
    /// They do so between claiming pods and assigning them.
    pub hands_place: bool,
    /// They do so between viewing a service and stepping.
    pub hands_plan: bool,
}

impl Scenario {
    /// One service of one pod on two nodes, all remedies, no faults.
    pub fn small() -> Scenario {
        Scenario {
            nodes: 2,
            capacity: 1,
            services: vec![1],
            on_loss: OnNodeLoss::StopThenReplace,
            without: Vec::new(),
            faults: [0; FAULTS],
            faults_max: u8::MAX,
            deletes: false,
            scales: None,
            symmetric: false,
            hands: 0,
            hands_place: false,
            hands_plan: false,
        }
    }

    /// The same with so many faults of a kind.
    pub fn with(mut self, fault: Fault, times: u8) -> Scenario {
        self.faults[fault as usize] = times;
        self
    }

    /// The same without a remedy.
    pub fn without(mut self, remedy: Remedy) -> Scenario {
        self.without.push(remedy);
        self
    }

    /// Whether a remedy is there.
    pub fn has(&self, remedy: Remedy) -> bool {
        !self.without.contains(&remedy)
    }

    /// Whether containers end with their node's lease.
    pub fn fences(&self) -> bool {
        self.on_loss.is_fenced()
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Made, and never started.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited,
}

/// What an agent is about to do for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// Nothing.
    Idle,
    /// Ask Redis what is wanted.
    Look,
    /// Follow what Redis said, in this term of the lease or in an earlier one.
    Follow(Taken, bool),
    /// Report.
    Tell(Token, kubeleet::model::Phase),
}

/// A pod on a machine: its container, and what the agent has in hand or remembers of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Which pod.
    pub pod: PodKey,
    /// What is in hand.
    pub work: Work,
    /// The placement that Redis said is to run, while the agent remembers.
    pub life: Option<Token>,
    /// Its container.
    pub container: Option<(Token, State)>,
}

/// Whether an agent's process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Up {
    /// It does.
    Running,
    /// It is dead.
    Crashed,
    /// It is held still.
    Paused,
}

/// A machine and its agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Whether its process lives.
    pub up: Up,
    /// It reaches Redis.
    pub connected: bool,
    /// The Redis that it reaches is the old master.
    pub on_old: bool,
    /// Epoch of its registration; 0 before.
    pub epoch: u8,
    /// Its own deadline has not passed.
    pub held: bool,
    /// Pods it has to do with, in order.
    pub slots: Vec<Slot>,
}

/// What the user did, and was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Services whose submit was told to be accepted, a bit each.
    pub accepted: u8,
    /// The first service is to be deleted; it was told so.
    pub deleting: bool,
    /// The delete was told to be accepted.
    pub deleted: bool,
    /// The scaling was told to be accepted.
    pub scaled: bool,
}

/// What a scheduler holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hand {
    /// A batch, and the pods in it as they were claimed.
    pub batch: Option<(u8, Vec<PodKey>)>,
    /// A service, the number of its claim, and what is planned for it.
    pub plan: Option<(u8, u8, Plan)>,
}

/// The old master of a split, and whether it accepts writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Old {
    /// What stands in it.
    pub store: Arc<Store>,
    /// It accepts writes.
    pub accepts: bool,
}

/// One state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The Redis that will be, once all is healed.
    pub master: Arc<Store>,
    /// Its replica, as far as it has come.
    pub replica: Arc<Store>,
    /// The old master, while there are two.
    pub old: Option<Old>,
    /// Machines.
    pub agents: Vec<Agent>,
    /// The user.
    pub user: User,
    /// Schedulers.
    pub hands: Vec<Hand>,
    /// Numbers for what must be new: batches, nonces, submissions.
    pub next: u8,
    /// Faults that happened, by kind.
    pub spent: [u8; FAULTS],
}

impl World {
    /// All is well, and nothing is asked for yet.
    pub fn new(scenario: &Scenario) -> World {
        let mut store = Store::new(usize::from(scenario.nodes), scenario.services.len());
        let mut agents = Vec::new();
        for node in 0..scenario.nodes {
            let call = crate::reference::Call::NodeRegister {
                node,
                capacity: scenario.capacity,
            };
            store.apply(&call);
            agents.push(Agent {
                up: Up::Running,
                connected: true,
                on_old: false,
                epoch: 1,
                held: true,
                slots: Vec::new(),
            });
        }
        let store = Arc::new(store);
        World {
            master: store.clone(),
            replica: store,
            old: None,
            agents,
            user: User::default(),
            hands: vec![Hand::default(); usize::from(scenario.hands)],
            next: 1,
            spent: [0; FAULTS],
        }
    }

    /// The Redis that an agent talks to, if it accepts what is said.
    pub fn redis_of(&self, agent: &Agent) -> Option<&Store> {
        match &self.old {
            _ if !agent.connected => None,
            Some(old) if agent.on_old => old.accepts.then_some(&*old.store),
            _ => Some(&self.master),
        }
    }

    /// Whether a fault may still happen.
    pub fn has_left(&self, scenario: &Scenario, fault: Fault) -> bool {
        let (at, all) = (fault as usize, self.spent.iter().sum::<u8>());
        all < scenario.faults_max && self.spent[at] < scenario.faults[at]
    }

    fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        let old = self.old.as_ref().map(|old| &old.store);
        [&self.master, &self.replica].into_iter().chain(old)
    }

    /// A number for all that is known of a node, by which two are put in order.
    pub fn rank(&self, node: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.agents[node].hash(&mut hasher);
        for store in self.stores() {
            store.nodes[node].hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Has the first two nodes change places.
    pub fn swap_nodes(&mut self) {
        self.agents.swap(0, 1);
        let old = self.old.as_mut().map(|old| &mut old.store);
        for store in [&mut self.master, &mut self.replica].into_iter().chain(old) {
            let store = Arc::make_mut(store);
            store.nodes.swap(0, 1);
            for pod in &mut store.pods {
                pod.node = pod.node.map(|node| if node < 2 { 1 - node } else { node });
            }
        }
    }

    /// A machine's slots with a running container.
    pub fn running(&self, node: u8) -> impl Iterator<Item = &Slot> {
        let runs = |slot: &&Slot| matches!(slot.container, Some((_, State::Running)));
        self.agents[usize::from(node)].slots.iter().filter(runs)
    }

    /// Whether what must not outlive a lease has stopped on a machine, or somebody stops it in time.
    pub fn is_safe(&self, scenario: &Scenario, node: u8) -> bool {
        let fenced = match self.agents[usize::from(node)].up {
            Up::Running => scenario.has(Remedy::Fence),
            Up::Crashed | Up::Paused => scenario.has(Remedy::Watchdog),
        };
        !scenario.fences() || !fenced || self.running(node).next().is_none()
    }
}

impl Agent {
    /// What it has to do with a pod.
    pub fn slot(&self, pod: PodKey) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.pod == pod)
    }

    /// The same, made if it is not there.
    pub fn slot_mut(&mut self, pod: PodKey) -> &mut Slot {
        let at = self.slots.partition_point(|slot| slot.pod < pod);
        if self.slots.get(at).is_none_or(|slot| slot.pod != pod) {
            let slot = Slot {
                pod,
                work: Work::Idle,
                life: None,
                container: None,
            };
            self.slots.insert(at, slot);
        }
        &mut self.slots[at]
    }

    /// Forgets slots that hold nothing: two states that differ by them are one.
    /// So are those that differ by what an agent `remembers` of a placement, if it makes no use of it.
    pub fn tidy(&mut self, remembers: bool) {
        for slot in &mut self.slots {
            slot.life = slot.life.filter(|_| remembers && slot.container.is_some());
        }
        self.slots
            .retain(|slot| slot.work != Work::Idle || slot.container.is_some());
    }
}
