//! All states of small clusters: no promise is ever broken, and each remedy is needed for that.
//!
//! `PROOF=large` (`make proof`) walks further, which takes minutes.
#![expect(
    clippy::print_stdout,
    reason = "what was walked through is to be seen with --nocapture"
)]

use std::time::Instant;

use kubeleet::model::service::OnNodeLoss;
use kubeleet_proof::Walk;
use kubeleet_proof::actions::Action;
use kubeleet_proof::next::next;
use kubeleet_proof::promise::{NEVER_TWO, NOTHING_LOST, NOTHING_STUCK};
use kubeleet_proof::world::{Fault, Remedy, Scenario, World};
use stateright::{Checker, HasDiscoveries, Model};

/// Whether to walk as far as minutes allow.
#[expect(
    clippy::disallowed_methods,
    reason = "how far a test goes is no setting"
)]
fn large() -> bool {
    std::env::var("PROOF").is_ok_and(|how| how == "large")
}

/// A broken promise, and a way to it.
type Broken = (&'static str, Vec<Action>);

/// Walks until a promise is broken, at most so many steps from the start; of several that one state breaks
/// tells of `rather`.
fn search(
    scenario: &Scenario,
    steps_max: Option<usize>,
    rather: &str,
) -> (Option<Broken>, usize, usize) {
    let checker = Walk(scenario.clone()).checker();
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = match steps_max {
        Some(steps) => checker.target_max_depth(steps + 1),
        None => checker,
    };
    let checker = checker.spawn_bfs().join();
    let mut found: Vec<_> = checker.discoveries().into_iter().collect();
    found.sort_by_key(|(promise, _)| (*promise != rather, *promise));
    let broken = found.into_iter().next();
    let broken = broken.map(|(promise, path)| (promise, path.into_actions()));
    (broken, checker.unique_state_count(), checker.max_depth())
}

/// A trace up to where the promise is broken first.
fn trimmed(scenario: &Scenario, promise: &str, trace: Vec<Action>) -> Vec<Action> {
    let walk = Walk(scenario.clone());
    let properties = walk.properties();
    let property = properties.iter().find(|it| it.name == promise);
    let property = property.expect("a promise of the walk");
    let mut world = World::new(scenario);
    let mut kept = Vec::new();
    for action in trace {
        if !(property.condition)(&walk, &world) {
            break;
        }
        world = next(scenario, &world, action);
        kept.push(action);
    }
    kept
}

fn walk(name: &str, scenario: &Scenario, rather: &str) -> Option<Broken> {
    let begun = Instant::now();
    let (broken, states, steps) = search(scenario, None, rather);
    let took = begun.elapsed();
    println!("{name}: {states} states, up to {steps} steps, {took:.1?}");
    let (promise, trace) = broken?;
    let mut trace = trimmed(scenario, promise, trace);
    // The search tells of any state of its last round, so there may be a shorter way.
    while let (Some((found, shorter)), ..) = search(scenario, Some(trace.len() - 1), rather) {
        if found != promise {
            break;
        }
        trace = trimmed(scenario, promise, shorter);
    }
    Some((promise, trace))
}

fn tell(trace: &[Action]) -> String {
    let lines: Vec<String> = trace
        .iter()
        .map(|action| format!("    {action:?}"))
        .collect();
    lines.join("\n")
}

/// Walks through all of it: no promise is broken.
fn holds(name: &str, scenario: Scenario) {
    if let Some((promise, trace)) = walk(name, &scenario, "") {
        panic!("{name} breaks {promise}:\n{}", tell(&trace));
    }
}

/// Walks until the promise is broken.
fn breaks(name: &str, scenario: Scenario, promise: &str) {
    let broken = walk(name, &scenario, promise);
    let (found, trace) = broken.unwrap_or_else(|| panic!("{name}: nothing breaks"));
    println!("{name} breaks {found}:\n{}", tell(&trace));
    assert_eq!(found, promise, "{name}:\n{}", tell(&trace));
}

/// One of each kind of fault, so many of them together.
fn faults(mut scenario: Scenario, small: u8, big: u8) -> Scenario {
    let kinds = [
        Fault::FailOver,
        Fault::Crash,
        Fault::Disconnect,
        Fault::Pause,
        Fault::GhostPop,
    ];
    for kind in kinds {
        scenario.faults[kind as usize] = 1;
    }
    scenario.faults_max = if large() { big } else { small };
    scenario.symmetric = true;
    scenario
}

#[test]
fn one_pod_on_two_nodes_keeps_every_promise() {
    holds("one pod", faults(Scenario::small(), 2, 4));
    let mut held = Scenario::small();
    held.on_loss = OnNodeLoss::Hold;
    holds("one pod, held", faults(held, 2, 3));
    let mut replaced = Scenario::small().with(Fault::Exit, 1);
    replaced.on_loss = OnNodeLoss::Replace;
    holds("one pod, replaced", faults(replaced, 2, 3));
}

#[test]
fn each_remedy_is_needed() {
    let small = Scenario::small;
    let without = |remedy| {
        let scenario = match remedy {
            Remedy::Wait => small().with(Fault::FailOver, 1),
            Remedy::Token | Remedy::Deadline | Remedy::Fence => small().with(Fault::Disconnect, 1),
            Remedy::Watchdog => small().with(Fault::Crash, 1),
            Remedy::Resync => small().with(Fault::GhostPop, 1),
            _ => small().with(Fault::FailOver, 1).with(Fault::Disconnect, 1),
        };
        let promise = match remedy {
            Remedy::Wait => NOTHING_LOST,
            Remedy::Resync => NOTHING_STUCK,
            _ => NEVER_TWO,
        };
        holds(&format!("with {remedy:?}"), scenario.clone());
        breaks(
            &format!("without {remedy:?}"),
            scenario.without(remedy),
            promise,
        );
    };
    Remedy::SEVEN.into_iter().for_each(without);
}

#[test]
fn two_pods_never_take_more_than_there_is() {
    let mut two = Scenario::small();
    two.services = vec![1, 1];
    holds("two services of a pod", faults(two.clone(), 1, 2));
    two.services = vec![2];
    holds("a service of two pods", faults(two, 1, 2));
}

#[test]
fn two_schedulers_place_a_pod_once() {
    let mut two = Scenario::small().with(Fault::HandDies, 1);
    (two.hands, two.hands_place) = (2, true);
    (two.symmetric, two.capacity) = (true, 2);
    two.services = vec![2];
    holds("two schedulers, two pods", two.clone());
    two.services = vec![1];
    let cut = two.with(Fault::Disconnect, 1);
    holds("two schedulers, a node cut off", cut);
}

#[test]
fn two_controllers_come_to_exactly_as_many_as_wanted() {
    let mut two = Scenario::small().with(Fault::HandDies, 1);
    (two.hands, two.hands_plan) = (2, true);
    (two.nodes, two.capacity) = (1, 2);
    two.scales = Some(2);
    holds("two controllers, scaled up", two.clone());
    two.services = vec![2];
    two.scales = Some(1);
    holds("two controllers, scaled down", two.clone());
    two.scales = None;
    two.deletes = true;
    holds("two controllers, deleted", two);
}

#[test]
fn what_is_deleted_leaves_nothing_behind() {
    let mut deleted = Scenario::small();
    deleted.deletes = true;
    holds("delete against start", faults(deleted.clone(), 1, 3));
    let without = deleted
        .with(Fault::Disconnect, 1)
        .without(Remedy::Tombstone);
    breaks("without tombstones", without, NOTHING_STUCK);
}

#[test]
fn two_masters_at_once_break_nothing() {
    let split = Scenario::small().with(Fault::Split, 1);
    let mut alike = split.clone();
    alike.symmetric = true;
    holds("two masters", alike.clone());
    if large() {
        holds(
            "two masters, an agent cut off",
            alike.with(Fault::Disconnect, 1),
        );
    }
    let without = |remedy, promise| {
        breaks(
            &format!("two masters without {remedy:?}"),
            split.clone().without(remedy),
            promise,
        );
    };
    without(Remedy::Wait, NOTHING_LOST);
    without(Remedy::MinReplicas, NEVER_TWO);
}

#[test]
fn what_was_fenced_starts_again_by_the_lease_alone() {
    let cut = Scenario::small().with(Fault::Disconnect, 1);
    breaks(
        "without asking again",
        cut.without(Remedy::AskAgain),
        NEVER_TWO,
    );
}
