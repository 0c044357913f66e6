//! I1: what was accepted stands, and what was deleted or refused does not.

use super::super::wishes::{Wish, Word};
use super::{Broken, Facts};

/// A wish that was answered so shortly before Redis was wiped, beyond a comparison, may be one that no
/// node has heard of, and only what a node has heard of comes back.
const HEARD_MS: u64 = 500;
/// Time between two comparisons where nobody says so.
const COMPARED_MS: u64 = 30_000;

/// I1.
pub(super) fn nothing_lost(facts: &Facts) -> Option<Broken> {
    facts.wishes.iter().find_map(|(service, wish)| {
        let record = facts.snapshot.services.get(service);
        let replicas = record.and_then(|record| record.get("replicas")?.parse::<u64>().ok());
        let deleting = record.is_some_and(|record| record.contains_key("deleting"));
        let fault = match wish.word {
            Word::Unknown => None,
            _ if wiped_after(facts, service, wish) => None,
            Word::Stands(_) if record.is_none() => Some("was accepted and is not there".to_owned()),
            Word::Stands(_) if deleting => Some("was accepted and is being deleted".to_owned()),
            Word::Stands(wanted) if replicas != Some(wanted) => Some(format!(
                "was accepted with {wanted} replicas and has {replicas:?}"
            )),
            Word::Gone if record.is_some() => {
                Some("was deleted or refused and is there".to_owned())
            }
            _ => None,
        };
        fault.map(|fault| {
            let last = facts.run.asked.iter().rev();
            let calls = last.filter(|call| {
                let name = service.rsplit('/').next().unwrap_or_default();
                call.path.contains(name) || call.body["name"] == name
            });
            let shown = calls.map(|call| {
                format!(
                    "{} {} {} was answered {:?}",
                    call.method, call.path, call.body, call.status
                )
            });
            Broken::of("I1", wish.since_ns, format!("{service} {fault}")).with(shown.take(3))
        })
    })
}

/// Redis was wiped after this wish was answered, and no node can tell of it.
fn wiped_after(facts: &Facts, service: &str, wish: &Wish) -> bool {
    facts.wiped_ns().is_some_and(|wiped_ns| {
        let mut held = facts.lives.iter().filter(|life| life.service == *service);
        let resync_ms = facts.run.built.resync_ms.unwrap_or(COMPARED_MS);
        let heard_ns = (resync_ms + HEARD_MS) * 1_000_000;
        let unheard = wiped_ns < wish.since_ns.saturating_add(heard_ns);
        wiped_ns > wish.since_ns && (unheard || !held.any(|life| life.runs_at(wiped_ns)))
    })
}
