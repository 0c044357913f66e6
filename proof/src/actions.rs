//! What may happen next in a world: steps of its parts, time, and faults.

use kubeleet::model::Phase;

use crate::decide::{Deed, decide};
use crate::reference::{Call, Due, PodKey, Store, Taken};
use crate::world::{Fault, Hand, Remedy, Scenario, State, Up, Work, World};

/// One thing that happens. Numbers are of nodes, services or schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The user submits a service, and is told that it is accepted if that was confirmed.
    Submit(u8),
    /// The same, by an API that reaches only the old master.
    SubmitToOld(u8),
    /// The user deletes the first service, and is told that this is accepted.
    Delete,
    /// The user scales the first service.
    Scale,
    /// The replica comes as far as the master.
    Sync,
    /// The grace after a fail-over ends.
    GraceEnds,
    /// A scheduler gives a waiting pod to a node.
    Place(PodKey, u8),
    /// The same by one that reaches only the old master.
    PlaceOnOld(PodKey, u8),
    /// A scheduler claims a waiting pod.
    Claim(u8),
    /// It gives the first pod of its batch to a node, and the rest back.
    Assign(u8, u8),
    /// A claim's lease ends, and any scheduler takes it back.
    ClaimEnds(u8),
    /// A controller works on a service, from its claim to its step.
    Control(u8),
    /// A controller claims a service and plans for it.
    Plan(u8, u8),
    /// It carries its plan out.
    Step(u8),
    /// The claim of a service ends.
    DueEnds,
    /// A controller compares all services.
    Compare,
    /// A scheduler sweeps a lost node.
    Sweep(u8),
    /// An agent takes the next entry of its inbox.
    Pop(u8),
    /// An agent asks what is wanted of a pod.
    Take(u8, PodKey),
    /// An agent follows what it was told.
    Follow(u8, PodKey),
    /// An agent starts an ended container again by itself.
    Revive(u8, PodKey),
    /// An agent reports.
    Tell(u8, PodKey),
    /// An agent's comparison finds that a pod is not as it should be.
    Resync(u8, PodKey),
    /// An agent's heartbeat, or its registration.
    Beat(u8),
    /// An agent's own deadline passes.
    HeldEnds(u8),
    /// A node's lease ends.
    LeaseEnds(u8),
    /// An agent stops its containers: its deadline has passed.
    Fence(u8),
    /// A watchdog stops the containers of a dead agent.
    Watchdog(u8),
    /// An agent starts again.
    Restart(u8),
    /// A held agent goes on.
    Resume(u8),
    /// An agent reaches Redis again.
    Reconnect(u8),
    /// An agent that reached the old master finds the new one.
    Move(u8),
    /// The old master accepts no more writes: it has no replica.
    OldRefuses,
    /// The old master becomes a replica of the new one.
    OldEnds,
    /// The master dies, and its replica takes over.
    FailOver,
    /// The replica takes over while the master lives on.
    Split,
    /// An agent dies.
    Crash(u8),
    /// An agent loses Redis.
    Disconnect(u8),
    /// An agent is held still.
    Pause(u8),
    /// An entry is popped by nobody.
    GhostPop(u8),
    /// A container ends by itself.
    Exit(u8, PodKey),
    /// A scheduler dies with what it holds.
    HandDies(u8),
}

impl Action {
    /// Which fault it is, if it is one.
    pub fn fault(self) -> Option<Fault> {
        Some(match self {
            Action::FailOver => Fault::FailOver,
            Action::Split => Fault::Split,
            Action::Crash(_) => Fault::Crash,
            Action::Disconnect(_) => Fault::Disconnect,
            Action::Pause(_) => Fault::Pause,
            Action::GhostPop(_) => Fault::GhostPop,
            Action::Exit(..) => Fault::Exit,
            Action::HandDies(_) => Fault::HandDies,
            _ => return None,
        })
    }

    /// It leads on by itself: neither a fault nor a user's whim.
    pub fn is_progress(self) -> bool {
        let whim = matches!(
            self,
            Action::Submit(_) | Action::SubmitToOld(_) | Action::Delete | Action::Scale
        );
        self.fault().is_none() && !whim
    }
}

/// All that may happen in `world`.
pub fn actions(scenario: &Scenario, world: &World, into: &mut Vec<Action>) {
    user(scenario, world, into);
    schedulers(scenario, world, into);
    for node in 0..scenario.nodes {
        agent(scenario, world, node, into);
        time(scenario, world, node, into);
    }
    faults(scenario, world, into);
}

fn user(scenario: &Scenario, world: &World, into: &mut Vec<Action>) {
    let user = &world.user;
    for service in 0..u8::try_from(scenario.services.len()).unwrap_or(0) {
        let bit = 1 << service;
        if user.accepted & bit == 0 && !user.deleting {
            into.push(Action::Submit(service));
            if world.old.as_ref().is_some_and(|old| old.accepts) {
                into.push(Action::SubmitToOld(service));
            }
        }
    }
    if scenario.deletes && user.accepted & 1 != 0 && !user.deleted {
        into.push(Action::Delete);
    }
    if scenario.scales.is_some() && user.accepted & 1 != 0 && !user.scaled {
        into.push(Action::Scale);
    }
}

fn waits(store: &Store, key: PodKey) -> bool {
    let pod = store.pod(key);
    pod.is_some_and(|pod| pod.phase == Phase::Waiting && pod.run)
}

/// Nodes that would be given a pod.
fn rooms(store: &Store, key: PodKey) -> impl Iterator<Item = u8> {
    let asks = store.pod(key).map_or(0, |pod| pod.asks);
    let nodes = (0..).zip(&store.nodes);
    nodes.filter_map(move |(number, node)| {
        let alive = node.epoch > 0 && !node.overdue && !node.lost;
        (alive && store.taken_room(number) + asks <= node.capacity).then_some(number)
    })
}

fn schedulers(scenario: &Scenario, world: &World, into: &mut Vec<Action>) {
    let store = &world.master;
    if world.replica != world.master {
        into.push(Action::Sync);
    }
    hands(scenario, world, into);
    if !scenario.hands_place {
        for &key in store.queue.iter().filter(|key| waits(store, **key)) {
            into.extend(rooms(store, key).map(|node| Action::Place(key, node)));
        }
        if let Some(old) = world.old.as_ref().filter(|old| old.accepts) {
            for &key in old
                .store
                .queue
                .iter()
                .filter(|key| waits(&old.store, **key))
            {
                into.extend(rooms(&old.store, key).map(|node| Action::PlaceOnOld(key, node)));
            }
        }
    }
    for (service, named) in (0..).zip(&store.services) {
        if named.due == Some(Due::Now) && !scenario.hands_plan {
            into.push(Action::Control(service));
        }
    }
    let due =
        |named: &crate::reference::Named| matches!(named.due, Some(Due::Later | Due::Claim(_)));
    if store.services.iter().any(due) {
        into.push(Action::DueEnds);
    }
    if scenario.has(Remedy::Resync) {
        let mut compared = Store::clone(store);
        compared.apply(&Call::ServiceCompare);
        if compared != **store {
            into.push(Action::Compare);
        }
    }
    if !store.grace {
        let nodes = (0..).zip(&store.nodes);
        let lost = nodes.filter(|(_, node)| node.living && node.overdue);
        into.extend(lost.map(|(number, _)| Action::Sweep(number)));
    }
}

fn hands(scenario: &Scenario, world: &World, into: &mut Vec<Action>) {
    let store = &world.master;
    for (number, hand) in (0..).zip(&world.hands) {
        if scenario.hands_place && hand.batch.is_none() && !store.queue.is_empty() {
            into.push(Action::Claim(number));
        }
        if let Some((_, pods)) = &hand.batch {
            for node in 0..u8::try_from(store.nodes.len()).unwrap_or(0) {
                let first = pods.first().copied();
                // Where it would not fit it goes back, once.
                if first.is_some_and(|pod| rooms(store, pod).any(|it| it == node)) || node == 0 {
                    into.push(Action::Assign(number, node));
                }
            }
        }
        match &hand.plan {
            Some(_) => into.push(Action::Step(number)),
            None if !scenario.hands_plan => {}
            None => {
                let due = |(_, named): &(u8, &crate::reference::Named)| named.due == Some(Due::Now);
                let services = (0..).zip(&store.services).filter(due);
                into.extend(services.map(|(service, _)| Action::Plan(number, service)));
            }
        }
        if *hand != Hand::default() {
            into.push(Action::HandDies(number));
        }
    }
    let held = |batch: u8| {
        world
            .hands
            .iter()
            .any(|it| it.batch.as_ref().is_some_and(|it| it.0 == batch))
    };
    for claim in &store.claims {
        // A scheduler that lives is late at most where it may die too.
        if !held(claim.number) || world.spent[Fault::HandDies as usize] > 0 {
            into.push(Action::ClaimEnds(claim.number));
        }
    }
}

/// What an agent would be told of a pod.
fn peek(scenario: &Scenario, store: &Store, node: u8, epoch: u8, key: PodKey) -> Option<Taken> {
    let known = store.node(node).epoch;
    let taken = match store.pod(key) {
        _ if known != epoch => return None,
        None => Taken::Absent,
        Some(pod) if pod.gone && !scenario.has(Remedy::Tombstone) => Taken::Absent,
        Some(pod) if pod.gone => Taken::Unwanted,
        Some(pod) if pod.node != Some(node) => Taken::Stale,
        Some(pod) if !pod.run => Taken::Stop(pod.token),
        Some(pod) if pod.phase.is_ended() => Taken::Ended(pod.token, pod.phase),
        Some(pod) => Taken::Run(pod.token, pod.phase),
    };
    Some(taken)
}

/// Whether there is something to do for a pod of which this was said.
fn is_amiss(taken: Taken, container: Option<(crate::reference::Token, State)>) -> bool {
    let running = matches!(container, Some((_, State::Running)));
    let untold = matches!(taken, Taken::Run(_, phase) if running && phase != Phase::Running);
    decide(taken, container) != Deed::Done || untold
}

fn agent(scenario: &Scenario, world: &World, node: u8, into: &mut Vec<Action>) {
    let agent = &world.agents[usize::from(node)];
    match agent.up {
        Up::Crashed => into.push(Action::Restart(node)),
        Up::Paused => into.push(Action::Resume(node)),
        Up::Running => {}
    }
    if !agent.connected {
        into.push(Action::Reconnect(node));
    }
    if agent.on_old {
        into.push(Action::Move(node));
    }
    if agent.up != Up::Running {
        return;
    }
    let redis = world.redis_of(agent);
    if let Some(redis) = redis {
        let known = redis.node(node);
        let current = known.epoch == agent.epoch;
        let heard = current && !known.overdue && !known.lost && known.living;
        if !heard || !agent.held {
            into.push(Action::Beat(node));
        }
        let next = known.inbox.first().filter(|_| current);
        let idle = |key: &&PodKey| {
            let slot = agent.slot(**key);
            slot.is_none_or(|slot| matches!(slot.work, Work::Idle | Work::Look))
        };
        if next.filter(idle).is_some() {
            into.push(Action::Pop(node));
        }
        if current && scenario.has(Remedy::Resync) {
            resync(scenario, redis, world, node, into);
        }
    }
    for slot in &agent.slots {
        let key = slot.pod;
        let may_start = agent.held || !scenario.has(Remedy::Deadline);
        match slot.work {
            Work::Look if redis.is_some_and(|it| it.node(node).epoch == agent.epoch) => {
                into.push(Action::Take(node, key));
            }
            Work::Tell(..) if redis.is_some_and(|it| it.node(node).epoch == agent.epoch) => {
                into.push(Action::Tell(node, key));
            }
            Work::Follow(taken, _) => match decide(taken, slot.container) {
                Deed::Start if !may_start => {}
                // The entry is dropped, or what became of it told: that needs Redis.
                Deed::Done if redis.is_none_or(|it| it.node(node).epoch != agent.epoch) => {}
                _ => into.push(Action::Follow(node, key)),
            },
            _ => {}
        }
        let ended =
            matches!(slot.container, Some((token, State::Exited)) if slot.life == Some(token));
        let alone = !scenario.fences() || !scenario.has(Remedy::AskAgain);
        if ended && slot.work == Work::Idle && alone {
            into.push(Action::Revive(node, key));
        }
    }
}

fn resync(scenario: &Scenario, redis: &Store, world: &World, node: u8, into: &mut Vec<Action>) {
    let agent = &world.agents[usize::from(node)];
    let mut keys: Vec<PodKey> = redis.node(node).here.clone();
    keys.extend(agent.slots.iter().map(|slot| slot.pod));
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let slot = agent.slot(key);
        if slot.is_some_and(|slot| slot.work != Work::Idle) {
            continue;
        }
        let container = slot.and_then(|slot| slot.container);
        if peek(scenario, redis, node, agent.epoch, key)
            .is_some_and(|taken| is_amiss(taken, container))
        {
            into.push(Action::Resync(node, key));
        }
    }
}

fn time(scenario: &Scenario, world: &World, node: u8, into: &mut Vec<Action>) {
    let agent = &world.agents[usize::from(node)];
    let beats = agent.up == Up::Running && world.redis_of(agent).is_some();
    if agent.held && !beats {
        into.push(Action::HeldEnds(node));
    }
    if !agent.held && scenario.fences() && world.running(node).next().is_some() {
        if agent.up == Up::Running && scenario.has(Remedy::Fence) {
            into.push(Action::Fence(node));
        }
        if agent.up != Up::Running && scenario.has(Remedy::Watchdog) {
            into.push(Action::Watchdog(node));
        }
    }
    let known = world.master.node(node);
    if known.living && !known.overdue && may_end(scenario, world, node) {
        into.push(Action::LeaseEnds(node));
    }
}

/// Whether a full lease may have passed in the master since it heard of a node. The agent's own deadline
/// comes before that, and leaves time to stop what must be stopped; it counts from when a heartbeat was
/// sent, to whichever master. One that is alone refuses heartbeats well before a lease is over.
fn may_end(scenario: &Scenario, world: &World, node: u8) -> bool {
    let agent = &world.agents[usize::from(node)];
    let renewed_elsewhere = agent.on_old && !scenario.has(Remedy::MinReplicas);
    renewed_elsewhere || !agent.held && world.is_safe(scenario, node)
}

fn faults(scenario: &Scenario, world: &World, into: &mut Vec<Action>) {
    let store = &world.master;
    if store.grace {
        let old_is_quiet = world.old.as_ref().is_none_or(|old| !old.accepts);
        let quiet = old_is_quiet || !scenario.has(Remedy::MinReplicas);
        let nodes = (0..).zip(&store.nodes);
        let mut overdue = nodes.filter(|(_, node)| node.living && node.overdue);
        if quiet && overdue.all(|(number, _)| may_end(scenario, world, number)) {
            into.push(Action::GraceEnds);
        }
    }
    if let Some(old) = &world.old {
        if old.accepts && scenario.has(Remedy::MinReplicas) {
            into.push(Action::OldRefuses);
        }
        into.push(Action::OldEnds);
    }
    let left = |fault: Fault| world.has_left(scenario, fault);
    into.retain(|action| action.fault().is_none_or(left));
    if world.old.is_none() && left(Fault::FailOver) {
        into.push(Action::FailOver);
    }
    if world.old.is_none() && left(Fault::Split) {
        into.push(Action::Split);
    }
    for (node, agent) in (0..).zip(&world.agents) {
        if agent.up == Up::Running && left(Fault::Crash) {
            into.push(Action::Crash(node));
        }
        if agent.up == Up::Running && left(Fault::Pause) {
            into.push(Action::Pause(node));
        }
        if agent.connected && left(Fault::Disconnect) {
            into.push(Action::Disconnect(node));
        }
        if !store.node(node).inbox.is_empty() && left(Fault::GhostPop) {
            into.push(Action::GhostPop(node));
        }
        if left(Fault::Exit) {
            into.extend(world.running(node).map(|slot| Action::Exit(node, slot.pod)));
        }
    }
}
