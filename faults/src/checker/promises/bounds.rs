//! I10 and I11: poison ends in `dead`, and what stands in Redis is bounded.

use std::collections::BTreeSet;

use super::{Broken, Facts};

/// Most dead letters.
const DEAD_MAX: usize = 1000;
/// Bytes of a dead letter's entry that are kept.
const DEAD_ENTRY_MAX: usize = 4096;
/// Most entries of the stream of events, which Redis cuts in pieces of 100.
const EVENTS_MAX: u64 = 10_100;
/// Every key that may be there: whole, or by its beginning.
const KEYS: [&str; 24] = [
    "cluster",
    "services",
    "services:changed",
    "services:wake",
    "pods",
    "sq",
    "sq:high",
    "sq:low",
    "sq:ranked",
    "sq:high:ranked",
    "sq:low:ranked",
    "sq:claims",
    "sq:parked",
    "nodes",
    "nodes:lost",
    "nodes:draining",
    "nodes:strained",
    "moves",
    "dead",
    "dead:entries",
    "dead:totals",
    "quarantine",
    "events",
    "decisions",
];
/// See [`KEYS`].
const BEGINNINGS: [&str; 16] = [
    "services:with:",
    "service:",
    "idempotency:",
    "pod:",
    "sq:claim:",
    "node:",
    "cs:",
    "pq:",
    "rq:",
    "nq:",
    "sessions:",
    "session:",
    "logs",
    "decision:",
    "quarantine:",
    "call:",
];

/// I10: what nobody could understand ends in `dead`.
pub(super) fn poison_is_dead(facts: &Facts) -> Option<Broken> {
    // What is pushed by hand is confirmed by nobody: another fault of the round may have lost it.
    let alone = facts.faults_of_round().count() == 1;
    for fault in facts.faults_of_round().filter(|_| alone) {
        let entries = fault.detail["poison"].as_array();
        for entry in entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.as_str())
        {
            let bytes = entry.len().min(DEAD_ENTRY_MAX);
            let start = entry.get(..bytes).unwrap_or(entry);
            let quoted = serde_json::to_string(start).unwrap_or_default();
            let quoted = quoted.trim_matches('"');
            if !facts
                .snapshot
                .dead
                .iter()
                .any(|letter| letter.contains(quoted))
            {
                let start: String = start.chars().take(200).collect();
                let says = format!("the poison {start:?} is no dead letter");
                return Some(Broken::of("I10", fault.from_ns, says));
            }
        }
    }
    let busy = facts
        .snapshot
        .inboxes
        .iter()
        .find(|(_, entries)| !entries.is_empty());
    busy.map(|(key, entries)| {
        let says = format!("{key} still has {} entries", entries.len());
        Broken::of("I10", facts.now_ns, says).with(entries)
    })
}

/// I11: lists and streams are bounded, no pod is left over, and every key is one of ours.
pub(super) fn bounded(facts: &Facts) -> Option<Broken> {
    let snapshot = &facts.snapshot;
    let says = |words: String| Some(Broken::of("I11", facts.now_ns, words));
    if snapshot.dead.len() > DEAD_MAX {
        return says(format!("there are {} dead letters", snapshot.dead.len()));
    }
    if snapshot.events > EVENTS_MAX {
        return says(format!("there are {} entries of events", snapshot.events));
    }
    let listed = snapshot.indexes.values().flatten().chain(&snapshot.loose);
    let listed: BTreeSet<&String> = listed.collect();
    let left_over = |id: &&String| !listed.contains(id) && !snapshot.expiring.contains_key(*id);
    if let Some(id) = snapshot.pods.keys().find(left_over) {
        return says(format!("pod:{id} is in no index and never expires"));
    }
    let claims = snapshot
        .waiting
        .iter()
        .find(|(place, entries)| place.starts_with("sq:claim:") && !entries.is_empty());
    if let Some((claim, entries)) = claims {
        return says(format!(
            "{claim} is still held, with {} entries",
            entries.len()
        ));
    }
    let ours = |key: &str| {
        KEYS.contains(&key)
            || BEGINNINGS
                .iter()
                .any(|beginning| key.starts_with(beginning))
    };
    let stranger = snapshot
        .keys
        .keys()
        .find(|key| !ours(key) && !strangers(facts).contains(*key));
    if let Some(key) = stranger {
        return says(format!("{key} is no key of ours"));
    }
    let idle = ["sq", "sq:high", "sq:low"].into_iter().find_map(|queue| {
        let entries = snapshot.waiting.get(queue)?;
        let unknown = entries
            .iter()
            .find(|entry| !snapshot.pods.contains_key(*entry))?;
        Some((queue, unknown))
    });
    if let Some((queue, unknown)) = idle {
        let start: String = unknown.chars().take(200).collect();
        return says(format!("{queue} still has the entry {start:?}"));
    }
    None
}

/// Keys that the suite itself wrote.
fn strangers(facts: &Facts) -> BTreeSet<String> {
    let keys = facts
        .faults
        .iter()
        .filter_map(|fault| fault.detail["keys"].as_array());
    let keys = keys.flatten().filter_map(|key| key.as_str());
    keys.map(str::to_owned).collect()
}
