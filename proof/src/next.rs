//! What becomes of a world when something happens in it.

use std::sync::Arc;

use kubeleet::model::Phase;
use kubeleet::model::service::OnNodeLoss;

use crate::actions::Action;
use crate::decide::{Deed, decide, planned};
use crate::reference::{Call, Due, PodKey, Reply, Store, Taken, Token};
use crate::world::{Fault, Hand, Old, Remedy, Scenario, State, Up, Work, World};

/// Submissions of services begin here, those of steps at 1.
const SUBMITTED: u8 = 100;
/// The submission of the scaling.
const SCALED: u8 = 120;
/// The batch of a scheduler that claims and assigns at once.
const AT_ONCE: u8 = 0;

/// The world after `action`.
pub fn next(scenario: &Scenario, world: &World, action: Action) -> World {
    let mut next = world.clone();
    if let Some(fault) = action.fault() {
        next.spent[fault as usize] += 1;
    }
    let mut turn = Turn {
        scenario,
        world: &mut next,
    };
    turn.happens(action);
    tidy(scenario, &mut next);
    next
}

/// Forgets what no action looks at, so that states that differ by it are one.
fn tidy(scenario: &Scenario, world: &mut World) {
    let remembers = !scenario.fences() || !scenario.has(Remedy::AskAgain);
    for agent in &mut world.agents {
        agent.tidy(remembers);
    }
    // What was in hand when an agent died is found by its comparison.
    if world
        .master
        .nodes
        .iter()
        .any(|node| !node.handling.is_empty())
    {
        for node in &mut Arc::make_mut(&mut world.master).nodes {
            node.handling.clear();
        }
    }
    let last = [Fault::FailOver, Fault::Split];
    if !last.iter().any(|fault| world.has_left(scenario, *fault)) && world.replica != world.master {
        world.replica = world.master.clone(); // nobody will ever read it
    }
    if scenario.symmetric && world.rank(0) > world.rank(1) {
        world.swap_nodes();
    }
}

struct Turn<'a> {
    scenario: &'a Scenario,
    world: &'a mut World,
}

impl Turn<'_> {
    fn happens(&mut self, action: Action) {
        match action {
            Action::Submit(_) | Action::SubmitToOld(_) | Action::Delete | Action::Scale => {
                self.user(action);
            }
            Action::Place(..)
            | Action::PlaceOnOld(..)
            | Action::Claim(_)
            | Action::Assign(..)
            | Action::ClaimEnds(_)
            | Action::Sweep(_)
            | Action::HandDies(_) => self.scheduler(action),
            Action::Control(_)
            | Action::Plan(..)
            | Action::Step(_)
            | Action::DueEnds
            | Action::Compare => self.controller(action),
            Action::Sync
            | Action::GraceEnds
            | Action::FailOver
            | Action::Split
            | Action::OldRefuses
            | Action::OldEnds => self.redis(action),
            Action::Pop(node) => self.pop(node),
            Action::Take(node, pod) => self.take(node, pod),
            Action::Follow(node, pod) => self.follow(node, pod),
            Action::Tell(node, pod) => self.tell(node, pod),
            Action::Beat(node) => self.beat(node),
            _ => self.machine(action),
        }
    }

    fn master(&mut self) -> &mut Store {
        Arc::make_mut(&mut self.world.master)
    }

    /// A call that waits for the replica.
    fn commit(&mut self, call: &Call) {
        self.master().apply(call);
        if self.scenario.has(Remedy::Wait) {
            self.world.replica = self.world.master.clone();
        }
    }

    fn number(&mut self) -> u8 {
        self.world.next += 1;
        self.world.next
    }

    fn submission(&self, service: u8) -> Call {
        Call::ServiceSubmit {
            service,
            replicas: self.scenario.services[usize::from(service)],
            submission: SUBMITTED + service,
            asks: 1,
            hold: self.scenario.on_loss == OnNodeLoss::Hold,
        }
    }

    fn user(&mut self, action: Action) {
        match action {
            Action::Submit(service) => {
                self.commit(&self.submission(service));
                self.world.user.accepted |= 1 << service;
            }
            Action::SubmitToOld(service) => {
                let call = self.submission(service);
                if let Some(old) = &mut self.world.old {
                    Arc::make_mut(&mut old.store).apply(&call);
                }
                // No replica confirms it: whoever asks is told that this is not known.
                if !self.scenario.has(Remedy::Wait) {
                    self.world.user.accepted |= 1 << service;
                }
            }
            Action::Delete => {
                self.world.user.deleting = true;
                self.commit(&Call::ServiceDelete { service: 0 });
                self.world.user.deleted = true;
            }
            Action::Scale => {
                let replicas = self.scenario.scales.unwrap_or_default();
                let submission = SCALED;
                let service = 0;
                self.commit(&Call::ServiceScale {
                    service,
                    replicas,
                    submission,
                });
                self.world.user.scaled = true;
            }
            _ => {}
        }
    }

    fn scheduler(&mut self, action: Action) {
        match action {
            Action::Place(pod, node) => {
                let nonce = self.number();
                place(self.master(), nonce, pod, node);
            }
            Action::PlaceOnOld(pod, node) => {
                let nonce = self.number();
                if let Some(old) = &mut self.world.old {
                    place(Arc::make_mut(&mut old.store), nonce, pod, node);
                }
            }
            Action::Claim(hand) => {
                let batch = hand + 1;
                let call = Call::PodClaim { batch, max: 1 };
                if let Reply::Pods(pods) = self.master().apply(&call)
                    && !pods.is_empty()
                {
                    self.world.hands[usize::from(hand)].batch = Some((batch, pods));
                }
            }
            Action::Assign(hand, node) => {
                let nonce = self.number();
                if let Some((batch, pods)) = self.world.hands[usize::from(hand)].batch.take() {
                    let pairs = pods.iter().map(|pod| (*pod, node)).collect();
                    let call = Call::PodAssign {
                        batch,
                        nonce,
                        pairs,
                    };
                    if !matches!(self.master().apply(&call), Reply::Assigned(1.., _)) {
                        self.world.next -= 1;
                    }
                }
            }
            Action::ClaimEnds(batch) => {
                self.master().claim_ends(batch);
                self.master().apply(&Call::ClaimExpire);
            }
            Action::Sweep(node) => {
                self.master().apply(&Call::NodeSweep { node });
            }
            Action::HandDies(hand) => self.world.hands[usize::from(hand)] = Hand::default(),
            _ => {}
        }
    }

    fn controller(&mut self, action: Action) {
        match action {
            Action::Control(service) => {
                let claim = 0;
                self.master().apply(&Call::ServiceClaim { claim });
                self.step(service, claim, None);
                // The other services that it claimed are looked at in their own turn.
                let master = self.master();
                for named in &mut master.services {
                    if named.due == Some(Due::Claim(claim)) {
                        named.due = Some(Due::Now);
                    }
                }
            }
            Action::Plan(hand, service) => {
                let claim = hand;
                self.master().apply(&Call::ServiceClaim { claim });
                let plan = planned(&self.world.master, service, self.scenario.on_loss);
                let plan = plan.map(|plan| (service, claim, plan));
                self.world.hands[usize::from(hand)].plan = plan;
            }
            Action::Step(hand) => {
                let held = self.world.hands[usize::from(hand)].plan.take();
                if let Some((service, claim, plan)) = held {
                    self.step(service, claim, Some(plan));
                }
            }
            Action::DueEnds => self.master().services_fall_due(),
            Action::Compare => {
                self.master().apply(&Call::ServiceCompare);
            }
            _ => {}
        }
    }

    fn step(&mut self, service: u8, claim: u8, plan: Option<crate::decide::Plan>) {
        let plan = plan.or_else(|| planned(&self.world.master, service, self.scenario.on_loss));
        let Some(plan) = plan else { return };
        let makes = !plan.new.is_empty();
        let submission = if makes { self.number() } else { 0 };
        self.commit(&Call::ServiceStep {
            service,
            turn: plan.turn,
            due: Some(Due::Claim(claim)),
            again: plan.again,
            submission,
            new: plan.new,
            stop: plan.stop,
        });
    }

    fn redis(&mut self, action: Action) {
        let grace = self.scenario.has(Remedy::Grace);
        let world = &mut *self.world;
        match action {
            Action::Sync => world.replica = world.master.clone(),
            Action::GraceEnds => self.master().grace_ends(),
            Action::FailOver => {
                world.master = world.replica.clone();
                Arc::make_mut(&mut world.master).promoted(grace);
                world.replica = world.master.clone();
            }
            Action::Split => {
                let store = world.master.clone();
                world.old = Some(Old {
                    store,
                    accepts: true,
                });
                world.master = world.replica.clone();
                Arc::make_mut(&mut world.master).promoted(grace);
                world.replica = world.master.clone();
                for agent in &mut world.agents {
                    agent.on_old = true;
                }
            }
            Action::OldRefuses => {
                if let Some(old) = &mut world.old {
                    old.accepts = false;
                }
            }
            Action::OldEnds => {
                world.old = None;
                for agent in &mut world.agents {
                    agent.on_old = false;
                }
            }
            _ => {}
        }
    }

    /// A call of an agent to the Redis that it reaches; none if that accepts nothing.
    fn ask(&mut self, node: u8, call: &Call, commits: bool) -> Option<Reply> {
        let wait = self.scenario.has(Remedy::Wait);
        let agent = &self.world.agents[usize::from(node)];
        match &mut self.world.old {
            Some(old) if agent.on_old => {
                if !old.accepts {
                    return None;
                }
                let reply = Arc::make_mut(&mut old.store).apply(call);
                // No replica confirms it: the agent asks again.
                (!(commits && wait)).then_some(reply)
            }
            _ => {
                let reply = self.master().apply(call);
                if commits && wait {
                    self.world.replica = self.world.master.clone();
                }
                Some(reply)
            }
        }
    }

    fn pop(&mut self, node: u8) {
        if let Some(Reply::Pods(popped)) = self.ask(node, &Call::InboxPop { node }, false) {
            for pod in popped {
                self.world.agents[usize::from(node)].slot_mut(pod).work = Work::Look;
            }
        }
    }

    fn take(&mut self, node: u8, pod: PodKey) {
        let epoch = self.world.agents[usize::from(node)].epoch;
        let call = Call::PodTake { node, epoch, pod };
        if let Some(Reply::Taken(mut taken)) = self.ask(node, &call, true) {
            if taken == Taken::Unwanted && !self.scenario.has(Remedy::Tombstone) {
                taken = Taken::Absent;
            }
            let slot = self.world.agents[usize::from(node)].slot_mut(pod);
            slot.work = Work::Follow(taken, true);
            slot.life = match taken {
                Taken::Run(token, _) => Some(token),
                Taken::Absent => slot.life,
                _ => None,
            };
        }
    }

    fn follow(&mut self, node: u8, pod: PodKey) {
        let fences = self.scenario.fences();
        let asks = self.scenario.has(Remedy::Token);
        let agent = &mut self.world.agents[usize::from(node)];
        let slot = agent.slot_mut(pod);
        let Work::Follow(taken, fresh) = slot.work else {
            return;
        };
        match decide(taken, slot.container) {
            Deed::Create => {
                if let Taken::Run(token, _) = taken {
                    slot.container = Some((token, State::Created));
                }
            }
            Deed::Start => {
                let first = matches!(slot.container, Some((_, State::Created)));
                if (first || fences) && asks && !fresh {
                    slot.work = Work::Look;
                } else {
                    slot.container = slot.container.map(|(token, _)| (token, State::Running));
                }
            }
            Deed::Stop => {
                slot.container = slot.container.map(|(token, _)| (token, State::Exited));
            }
            Deed::Remove => slot.container = None,
            Deed::ReportStopped => {
                if let Taken::Stop(token) = taken {
                    slot.work = Work::Tell(token, Phase::Stopped);
                }
            }
            Deed::Done => {
                let running = matches!(slot.container, Some((_, State::Running)));
                match taken {
                    Taken::Run(token, phase) if running && phase != Phase::Running => {
                        slot.work = Work::Tell(token, Phase::Running);
                    }
                    _ => self.finish(node, pod, Token::default(), None),
                }
            }
        }
    }

    fn tell(&mut self, node: u8, pod: PodKey) {
        let work = self.world.agents[usize::from(node)].slot_mut(pod).work;
        if let Work::Tell(token, phase) = work {
            self.finish(node, pod, token, Some(phase));
        }
    }

    /// Reports, and drops the entry.
    fn finish(&mut self, node: u8, pod: PodKey, token: Token, phase: Option<Phase>) {
        let epoch = self.world.agents[usize::from(node)].epoch;
        let call = Call::PodReport {
            node,
            epoch,
            pod,
            token,
            phase,
            entry: Some(pod),
        };
        let Some(reply) = self.ask(node, &call, false) else {
            return;
        };
        let again = phase.is_some() && reply != Reply::Word("ok");
        let slot = self.world.agents[usize::from(node)].slot_mut(pod);
        slot.work = if again { Work::Look } else { Work::Idle };
    }

    fn beat(&mut self, node: u8) {
        let epoch = self.world.agents[usize::from(node)].epoch;
        let capacity = self.scenario.capacity;
        let call = match epoch {
            0 => Call::NodeRegister { node, capacity },
            _ => Call::NodeHeartbeat { node, epoch },
        };
        let Some(reply) = self.ask(node, &call, false) else {
            return;
        };
        let agent = &mut self.world.agents[usize::from(node)];
        match reply {
            Reply::Epoch(epoch) => agent.epoch = epoch,
            Reply::Word("unknown") => {
                agent.epoch = 0; // it registers again
                return;
            }
            Reply::Word("superseded") => return,
            _ => {}
        }
        if !agent.held {
            agent.held = true;
            for slot in &mut agent.slots {
                if let Work::Follow(taken, _) = slot.work {
                    slot.work = Work::Follow(taken, false);
                }
            }
        }
    }

    /// What concerns one machine alone.
    fn machine(&mut self, action: Action) {
        let world = &mut *self.world;
        match action {
            Action::Resync(node, pod) => {
                world.agents[usize::from(node)].slot_mut(pod).work = Work::Look;
            }
            Action::Revive(node, pod) => {
                let slot = world.agents[usize::from(node)].slot_mut(pod);
                slot.container = slot.container.map(|(token, _)| (token, State::Running));
            }
            Action::HeldEnds(node) => world.agents[usize::from(node)].held = false,
            Action::LeaseEnds(node) => {
                Arc::make_mut(&mut world.master).lease_ends(node);
                Arc::make_mut(&mut world.replica).lease_ends(node); // it heard no later
            }
            Action::Fence(node) | Action::Watchdog(node) => {
                for slot in &mut world.agents[usize::from(node)].slots {
                    if let Some((token, State::Running)) = slot.container {
                        slot.container = Some((token, State::Exited));
                    }
                }
            }
            Action::Crash(node) => {
                let agent = &mut world.agents[usize::from(node)];
                (agent.up, agent.epoch, agent.held) = (Up::Crashed, 0, false);
                for slot in &mut agent.slots {
                    (slot.work, slot.life) = (Work::Idle, None);
                }
            }
            Action::Restart(node) | Action::Resume(node) => {
                world.agents[usize::from(node)].up = Up::Running;
            }
            Action::Pause(node) => world.agents[usize::from(node)].up = Up::Paused,
            Action::Disconnect(node) => world.agents[usize::from(node)].connected = false,
            Action::Reconnect(node) => world.agents[usize::from(node)].connected = true,
            Action::Move(node) => world.agents[usize::from(node)].on_old = false,
            Action::GhostPop(node) => {
                Arc::make_mut(&mut world.master).apply(&Call::InboxPop { node });
            }
            Action::Exit(node, pod) => {
                let slot = world.agents[usize::from(node)].slot_mut(pod);
                slot.container = slot.container.map(|(token, _)| (token, State::Exited));
            }
            _ => {}
        }
    }
}

/// A scheduler claims what waits and gives one pod of it to a node.
fn place(store: &mut Store, nonce: u8, pod: PodKey, node: u8) {
    let batch = AT_ONCE;
    store.apply(&Call::PodClaim {
        batch,
        max: usize::MAX,
    });
    store.apply(&Call::PodAssign {
        batch,
        nonce,
        pairs: vec![(pod, node)],
    });
}
