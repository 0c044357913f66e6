//! What one round's judgement hands on to the next, so that long runs are not read anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::promises::Facts;
use super::run::{Carried, Marks};
use super::wishes::{Word, service_of};

/// What ended longer ago matters no more.
const MATTERS_NS: u64 = 120_000_000_000;
/// Calls of a service that are kept.
const CALLS_MAX: usize = 6;

fn place(dir: &Path) -> PathBuf {
    dir.join("carry.json")
}

/// What earlier rounds have left; nothing where they left nothing, or a later one did.
pub(super) fn read(dir: &Path, round: u64) -> Carried {
    let text = std::fs::read(place(dir)).unwrap_or_default();
    let carried: Carried = serde_json::from_slice(&text).unwrap_or_default();
    if carried.round < round {
        carried
    } else {
        Carried::default()
    }
}

/// Leaves what later rounds need. Only a round that held may: what led to a break stays to be read.
pub(super) fn write(dir: &Path, facts: &Facts, marks: Marks) -> anyhow::Result<()> {
    let carried = Carried {
        round: facts.round,
        ..of(facts, marks)
    };
    let fresh = dir.join("carry.fresh");
    std::fs::write(&fresh, serde_json::to_vec(&carried)?)?;
    std::fs::rename(&fresh, place(dir))?;
    Ok(())
}

/// Containers that are there, ended lately, or ran when Redis was wiped last; of each service the last
/// calls.
fn of(facts: &Facts, marks: Marks) -> Carried {
    let since_ns = facts.now_ns.saturating_sub(MATTERS_NS);
    let wiped_ns = facts.wiped_ns();
    let there = facts
        .standing
        .iter()
        .map(|standing| standing.container.as_str());
    let lately = facts.lives.iter().filter(|life| {
        life.to_ns.is_none_or(|to_ns| to_ns > since_ns)
            || wiped_ns.is_some_and(|it| life.runs_at(it))
    });
    let kept: BTreeSet<&str> = there
        .chain(lately.map(|life| life.container.as_str()))
        .collect();
    let deeds = facts
        .run
        .deeds
        .iter()
        .filter(|deed| kept.contains(deed.container.as_str()));
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let mut asked = Vec::new();
    for call in facts.run.asked.iter().rev() {
        let Some(service) = service_of(call) else {
            continue;
        };
        let is_over = facts
            .wishes
            .get(&service)
            .is_some_and(|wish| wish.word == Word::Gone && wish.since_ns < since_ns);
        let count = calls.entry(service).or_default();
        *count += 1;
        if *count <= if is_over { 1 } else { CALLS_MAX } {
            let answer = serde_json::Value::Null;
            asked.push(crate::logs::Asked {
                answer,
                ..call.clone()
            });
        }
    }
    asked.reverse();
    Carried {
        round: 0,
        deeds: deeds.cloned().collect(),
        asked,
        marks,
    }
}
