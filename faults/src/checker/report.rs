//! What is told of a verdict.

use std::fmt::Write as _;

use super::promises::{Broken, Facts};

/// How far around a break the timeline is shown.
const AROUND_NS: u64 = 20_000_000_000;
/// Most moments of it.
const MOMENTS_MAX: usize = 40;

/// A broken promise: what, by what it is seen, and what was done to the cluster around it.
pub(super) fn broken(facts: &Facts, broken: &Broken) -> String {
    let mut text = format!("BROKEN {}: {}\n", broken.promise, broken.says);
    let seconds = |at_ns: u64| format!("{}.{:03}", at_ns / 1_000_000_000, at_ns / 1_000_000 % 1000);
    let _ = writeln!(
        text,
        "  at {}, in round {}",
        seconds(broken.at_ns),
        facts.round
    );
    for line in &broken.evidence {
        let _ = writeln!(text, "  seen: {line}");
    }
    let around = facts
        .run
        .moments
        .iter()
        .filter(|moment| moment.at_ns.abs_diff(broken.at_ns) < AROUND_NS);
    for moment in around.take(MOMENTS_MAX) {
        let _ = writeln!(
            text,
            "  timeline: {} {} {} {}",
            seconds(moment.at_ns),
            moment.what,
            moment.name,
            moment.detail
        );
    }
    text
}

/// What was looked at.
pub(super) fn held(facts: &Facts) -> String {
    let moved = facts.lives.iter().filter(|life| life.token.0 > 1).count();
    let running = facts
        .lives
        .iter()
        .filter(|life| life.to_ns.is_none())
        .count();
    format!(
        "HELD round {}: {} containers run, {} ran in all, {moved} of them after a move; {} services, {} pods, \
         {} keys, {} faults",
        facts.round,
        running,
        facts.lives.len(),
        facts.snapshot.services.len(),
        facts.snapshot.pods.len(),
        facts.snapshot.keys.len(),
        facts.faults_of_round().count(),
    )
}
