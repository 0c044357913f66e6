//! What must hold in every state, and where all must lead to.

use kubeleet::model::Phase;

use crate::actions::{Action, actions};
use crate::next::next;
use crate::reference::{PodKey, Store};
use crate::world::{Scenario, State, World};

/// I1: what the user was told to be accepted is there, until deleted.
pub const NOTHING_LOST: &str = "I1: nothing accepted is lost";
/// I2: a pod whose service says so never has two containers that run.
pub const NEVER_TWO: &str = "I2: never two containers of one pod";
/// I3, I4 and I5: where nothing more happens by itself, all is as wanted.
pub const NOTHING_STUCK: &str = "I3: nothing is stuck, left over or missing";
/// I5: there are never more pods than were ever wanted.
pub const NEVER_MORE: &str = "I5: never more pods than wanted";
/// I7: a node's pods never take more than it has.
pub const CAPACITY: &str = "I7: capacity is never exceeded";

/// Whether I1 holds.
pub fn nothing_lost(_: &Scenario, world: &World) -> bool {
    let user = &world.user;
    (0..).zip(&world.master.services).all(|(service, named)| {
        let accepted = user.accepted & (1 << service) != 0;
        let deleting = service == 0 && user.deleting;
        let stands = named.record.as_ref().is_some_and(|it| !it.deleting);
        !accepted || deleting || stands
    })
}

/// Whether I2 holds.
pub fn never_two(scenario: &Scenario, world: &World) -> bool {
    if !scenario.on_loss.is_exclusive() {
        return true;
    }
    let mut running: Vec<PodKey> = Vec::new();
    for node in 0..scenario.nodes {
        running.extend(world.running(node).map(|slot| slot.pod));
    }
    running.sort_unstable();
    running.windows(2).all(|two| two[0] != two[1])
}

/// Whether I5 holds while things move: pods that are to run, of a service that no node's loss has hit.
pub fn never_more(scenario: &Scenario, world: &World) -> bool {
    (0..).zip(&scenario.services).all(|(service, replicas)| {
        let scaled = scenario.scales.filter(|_| service == 0).unwrap_or_default();
        let most = usize::from(*replicas.max(&scaled));
        let store = &world.master;
        let live = |pod: &PodKey| {
            let pod = store.pod(*pod);
            pod.is_some_and(|pod| pod.run && !pod.phase.is_ended())
        };
        store
            .pods_of(service)
            .iter()
            .filter(|pod| live(pod))
            .count()
            <= most
    })
}

/// Whether I7 holds, in Redis; and among containers, where none outlives its node's lease.
pub fn capacity(scenario: &Scenario, world: &World) -> bool {
    let in_redis = |store: &Store| {
        (0..scenario.nodes).all(|node| store.taken_room(node) <= store.node(node).capacity)
    };
    let on_machines = |node: u8| world.running(node).count() <= usize::from(scenario.capacity);
    let fenced = scenario.on_loss.is_exclusive();
    in_redis(&world.master) && (!fenced || (0..scenario.nodes).all(on_machines))
}

/// Whether all is as the user wants it: every pod of a service runs, once, where Redis says, as far as there
/// is room, and nothing else does.
fn is_as_wanted(scenario: &Scenario, world: &World) -> bool {
    let store = &world.master;
    let mut wanted = 0;
    for (service, named) in (0..).zip(&store.services) {
        let pods = store.pods_of(service);
        match &named.record {
            None if pods.is_empty() => {}
            Some(record) if !record.deleting && pods.len() == usize::from(record.replicas) => {
                wanted += pods.len();
            }
            _ => return false,
        }
    }
    if world.user.deleted && store.services[0].record.is_some() {
        return false;
    }
    let runs = |pod: &crate::reference::Pod| {
        let node = pod.node.filter(|_| pod.phase == Phase::Running)?;
        let slot = world.agents[usize::from(node)].slot(pod.key)?;
        (slot.container == Some((pod.token, State::Running))).then_some(())
    };
    let live = store.pods.iter().filter(|pod| !pod.gone);
    let running = live.clone().filter(|pod| runs(pod).is_some()).count();
    let waiting = live.filter(|pod| pod.phase == Phase::Waiting).count();
    let room = usize::from(scenario.nodes * scenario.capacity);
    let containers: usize = world
        .agents
        .iter()
        .map(|agent| {
            agent
                .slots
                .iter()
                .filter(|it| it.container.is_some())
                .count()
        })
        .sum();
    running == wanted.min(room) && running + waiting == wanted && containers == running
}

/// Whether I3 holds: something happens by itself that leads on, or all is as wanted.
pub fn nothing_stuck(scenario: &Scenario, world: &World) -> bool {
    if is_as_wanted(scenario, world) {
        return true;
    }
    let mut possible: Vec<Action> = Vec::new();
    actions(scenario, world, &mut possible);
    possible.retain(|action| action.is_progress());
    possible
        .into_iter()
        .any(|action| next(scenario, world, action) != *world)
}
