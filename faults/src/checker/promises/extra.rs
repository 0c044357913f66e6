//! I4: no container is left over, and nobody else's is touched.

use super::super::lives::is_ours;
use super::running::shown;
use super::{Broken, Facts};
use crate::logs::Did;

/// I4: each container of ours is the one of a pod's present placement.
pub(super) fn nothing_extra(facts: &Facts) -> Option<Broken> {
    facts.standing.iter().find_map(|standing| {
        let field = |name: &str| facts.snapshot.pod(&standing.pod, name);
        let placed = field("node") == standing.node
            && field("attempt") == standing.token.0.to_string()
            && field("nonce") == standing.token.1;
        let wanted = field("desired") == "run" && !matches!(field("phase"), "succeeded" | "failed");
        let fault = match (placed, standing.runs && !wanted) {
            (false, _) => "belongs to no placement that stands",
            (true, true) => "runs and is not to",
            (true, false) => return None,
        };
        let short = standing.container.get(..12).unwrap_or(&standing.container);
        let (attempt, nonce) = &standing.token;
        let says = format!(
            "the container {short} of {} on {}, attempt {attempt} ({nonce}), {fault}",
            standing.pod, standing.node
        );
        let broken = Broken::of("I4", standing.since_ns, says);
        Some(broken.with([shown(facts, &standing.pod)]))
    })
}

/// I4: containers without our label are not touched.
pub(super) fn foreign_untouched(facts: &Facts) -> Option<Broken> {
    let mut foreign = facts.run.deeds.iter().filter(|deed| !is_ours(deed));
    let touched = foreign.find(|deed| matches!(deed.did, Did::Ended | Did::Removed))?;
    let says = format!(
        "the container {} on {}, which is not kubeleet's, has {:?}",
        touched.container, touched.node, touched.did
    );
    Some(Broken::of("I4", touched.at_ns, says))
}
