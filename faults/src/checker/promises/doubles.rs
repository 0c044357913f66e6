//! I2 and I2': never two at once; or only while the older one's node cannot be heard.

use std::collections::BTreeMap;

use super::super::cuts::unexcused;
use super::super::lives::Life;
use super::{Broken, Facts};

/// I2: of a pod never two on one node; of a replica of a `stop-then-replace` or `hold` service never two
/// at all.
pub(super) fn never_two(facts: &Facts) -> Option<Broken> {
    let mut by_slot: BTreeMap<(&str, &str, u64), Vec<&Life>> = BTreeMap::new();
    for life in facts
        .lives
        .iter()
        .filter(|life| life.policy.is_strict() && !life.uid.is_empty())
    {
        by_slot
            .entry((&life.service, &life.uid, life.replica))
            .or_default()
            .push(life);
    }
    let in_slot = by_slot.values().flat_map(|lives| pairs(lives));
    let of_pod = by_pod(facts);
    let of_pod = of_pod
        .values()
        .flat_map(|lives| pairs(lives))
        .filter(|(one, two)| {
            one.node == two.node || (one.policy.is_strict() && two.policy.is_strict())
        });
    let mut found: Vec<_> = in_slot.chain(of_pod).collect();
    found.sort_by_key(|(_, two)| two.from_ns);
    let (one, two) = *found.first()?;
    let says = format!("two containers of {} ran at once", one.pod);
    Some(Broken::of("I2", two.from_ns, says).with([one, two]))
}

/// I2': two of a pod run only while the older one's node cannot be heard, and shortly after.
pub(super) fn two_for_a_while(facts: &Facts) -> Option<Broken> {
    let of_pod = by_pod(facts);
    let mut broken: Vec<Broken> = Vec::new();
    for (one, two) in of_pod.values().flat_map(|lives| pairs(lives)) {
        let Some((from_ns, to_ns)) = one.shared(two) else {
            continue;
        };
        // The one of the earlier attempt is too many.
        let old = if one.token.0 <= two.token.0 { one } else { two };
        let span = (from_ns, to_ns.unwrap_or(facts.now_ns));
        if let Some(at_ns) = unexcused(
            &facts.faults,
            |fault| fault.cuts(&old.node),
            span,
            facts.grace_ns,
        ) {
            let says = format!(
                "two containers of {} ran at once although {} could be heard",
                old.pod, old.node
            );
            broken.push(Broken::of("I2'", at_ns, says).with([one, two]));
        }
    }
    broken.into_iter().min_by_key(|broken| broken.at_ns)
}

/// I2: whoever runs later in a replica's place has a higher fence, by which what an earlier one still
/// writes is told from what counts.
pub(super) fn fences_grow(facts: &Facts) -> Option<Broken> {
    let mut by_slot: BTreeMap<(&str, &str, u64), Vec<&Life>> = BTreeMap::new();
    for life in facts.lives.iter().filter(|life| life.fence.is_some()) {
        by_slot
            .entry((&life.service, &life.uid, life.replica))
            .or_default()
            .push(life);
    }
    by_slot.values_mut().find_map(|lives| {
        lives.sort_by_key(|life| life.from_ns);
        let follows = |two: &&[&Life]| {
            let (one, two) = (two[0], two[1]);
            let later = if one.pod == two.pod {
                one.token.0 < two.token.0
            } else {
                one.to_ns.is_some_and(|to_ns| to_ns < two.from_ns)
            };
            // A lost store knows no fence that was given while its clock was ahead.
            let lost = facts.faults.iter().any(|fault| {
                fault.says("wiped") && one.from_ns < fault.from_ns && fault.round <= facts.round
            });
            later && one.fence >= two.fence && !lost
        };
        let two = lives.windows(2).find(follows)?;
        let says = format!(
            "{} has the fence {:?}, and {} had {:?} before it",
            two[1].pod, two[1].fence, two[0].pod, two[0].fence
        );
        Some(Broken::of("I2", two[1].from_ns, says).with(two))
    })
}

fn by_pod(facts: &Facts) -> BTreeMap<&str, Vec<&Life>> {
    let mut by_pod: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
    for life in &facts.lives {
        by_pod.entry(&life.pod).or_default().push(life);
    }
    by_pod
}

/// Pairs of different containers that ran at the same time, the earlier first.
fn pairs<'a>(lives: &[&'a Life]) -> Vec<(&'a Life, &'a Life)> {
    let mut sorted = lives.to_vec();
    sorted.sort_by_key(|life| life.from_ns);
    let mut pairs = Vec::new();
    for (at, one) in sorted.iter().enumerate() {
        let later = sorted[at + 1..].iter();
        let both = later.filter(|two| two.container != one.container && one.shared(two).is_some());
        pairs.extend(both.map(|two| (*one, *two)));
    }
    pairs
}
