//! I3, I5 and I14: what should run does, as often as it was wished, and a new service too.

use super::super::cuts::{Fault, unexcused};
use super::super::lives::Life;
use super::super::snapshot::Fields;
use super::super::wishes::Word;
use super::{Broken, Facts};

/// A replica more is right while old ones make room for new ones.
const SURGE: u64 = 1;
/// A container that goes ends within this time.
const STOPPING_NS: u64 = 5_000_000_000;
/// So long after the number of replicas was lowered the old number is still right.
const LOWERED_NS: u64 = 60_000_000_000;

/// I3 and I5: each service that stands has as many containers as it wants.
pub(super) fn all_run(facts: &Facts) -> Option<Broken> {
    facts
        .snapshot
        .services
        .iter()
        .find_map(|(service, record)| {
            let wanted = match facts.wishes.get(service).map(|wish| wish.word) {
                Some(Word::Stands(wanted)) if !record.contains_key("deleting") => wanted,
                _ => return None,
            };
            let runs = |life: &&Life| life.service == *service && life.to_ns.is_none();
            let live: Vec<&Life> = facts.lives.iter().filter(runs).collect();
            let count = u64::try_from(live.len()).unwrap_or(u64::MAX);
            let is_job = facts
                .lives
                .iter()
                .any(|life| life.service == *service && life.is_job);
            if count > wanted {
                let says = format!("{service} wants {wanted} and {count} run");
                return Some(Broken::of("I5", facts.now_ns, says).with(live));
            }
            if count == wanted || is_job {
                return None;
            }
            let missing = waiting(facts, service);
            let excused = missing
                .iter()
                .filter(|id| !fits_somewhere(facts, id))
                .count();
            if count + u64::try_from(excused).unwrap_or(0) >= wanted {
                return None;
            }
            let says = format!("{service} wants {wanted} and {count} run");
            let index = facts.snapshot.indexes.get(service).into_iter().flatten();
            let shown = index.map(|id| shown(facts, id));
            Some(Broken::of("I3", facts.now_ns, says).with(shown))
        })
}

/// I3: what Redis calls running runs, on that node and by that placement, and the other way round.
pub(super) fn told_truly(facts: &Facts) -> Option<Broken> {
    facts.snapshot.pods.iter().find_map(|(id, pod)| {
        let field = |name: &str| pod.get(name).map(String::as_str).unwrap_or_default();
        let phase = field("phase");
        let loose = facts.snapshot.loose.contains(id);
        let moves = matches!(phase, "scheduled" | "starting");
        let stuck = moves || (loose && phase == "waiting" && fits_somewhere(facts, id));
        if stuck {
            let says = format!("{id} is stuck in {phase}");
            return Some(Broken::of("I3", facts.now_ns, says).with([shown(facts, id)]));
        }
        if field("desired") == "stop" && !matches!(phase, "stopped" | "succeeded" | "failed") {
            let says = format!("{id} is to stop and is {phase}");
            return Some(Broken::of("I3", facts.now_ns, says).with([shown(facts, id)]));
        }
        if !matches!(phase, "running" | "unhealthy") {
            return None;
        }
        let runs = facts.lives.iter().any(|life| {
            life.to_ns.is_none()
                && life.pod == *id
                && life.node == field("node")
                && is_placed(life, pod)
        });
        let broken = || {
            let says = format!("{id} is called {phase}, and no such container runs");
            let others = facts.lives.iter().filter(|life| life.pod == *id);
            Broken::of("I3", facts.now_ns, says)
                .with([shown(facts, id)])
                .with(others)
        };
        (!runs).then(broken)
    })
}

/// I5: while all converges, never more than are wanted, but for those on nodes that cannot be heard.
pub(super) fn never_many(facts: &Facts) -> Option<Broken> {
    // What began earlier was judged in its own round.
    let since_ns = facts
        .run
        .round(facts.round)
        .map_or(0, |(from_ns, _)| from_ns);
    let now = |life: &&Life| life.from_ns >= since_ns;
    let there = |life: &&Life| life.to_ns.is_none_or(|to_ns| to_ns > since_ns);
    let others: Vec<&Life> = facts.lives.iter().filter(there).collect();
    facts.lives.iter().filter(now).find_map(|life| {
        let wish = facts.wishes.get(&life.service)?;
        let at_ns = life.from_ns;
        let recent = |sent_ns: u64| sent_ns <= at_ns && sent_ns.saturating_add(LOWERED_NS) >= at_ns;
        let before = wish
            .asked
            .iter()
            .rev()
            .find(|(sent_ns, _)| *sent_ns <= at_ns);
        let lately = wish.asked.iter().filter(|(sent_ns, _)| recent(*sent_ns));
        // What was wished before a change still counts a while after it.
        let earlier = wish
            .asked
            .windows(2)
            .filter(|two| recent(two[1].0))
            .map(|two| &two[0]);
        let most = before
            .into_iter()
            .chain(lately)
            .chain(earlier)
            .map(|(_, replicas)| *replicas)
            .max()?;
        let excused = |other: &Life| {
            let span = (at_ns, at_ns + 1);
            let touched = |fault: &Fault| fault.touches(&other.node) || fault.cuts(&other.node);
            unexcused(&facts.faults, touched, span, facts.grace_ns).is_none()
        };
        // One that is being stopped makes room for a new one, and of another revision as it rolls.
        let stays = |other: &Life| {
            other.revision == life.revision
                && other.runs_at(at_ns)
                && other.to_ns.unwrap_or(u64::MAX) > at_ns.saturating_add(STOPPING_NS)
        };
        let others = others.iter().copied().filter(|other| {
            other.service == life.service
                && other.uid == life.uid
                && stays(other)
                && !excused(other)
        });
        let at_once: Vec<&Life> = others.collect();
        let count = u64::try_from(at_once.len()).unwrap_or(u64::MAX);
        let broken = || {
            let says = format!("{} wanted at most {most} and {count} ran", life.service);
            Broken::of("I5", at_ns, says).with(at_once)
        };
        (count > most + SURGE).then(broken)
    })
}

/// I14: the round's own new service runs.
pub(super) fn canary(facts: &Facts) -> Option<Broken> {
    let name = format!("default/canary-{}", facts.round);
    let asked = facts.wishes.get(&name)?;
    let runs = facts
        .lives
        .iter()
        .any(|life| life.service == name && life.to_ns.is_none());
    let gone = asked.word == Word::Gone && facts.lives.iter().any(|life| life.service == name);
    (!runs && !gone).then(|| {
        let says = format!(
            "{name}, asked for after the round's faults, does not run: {:?}",
            asked.word
        );
        let index = facts.snapshot.indexes.get(&name).into_iter().flatten();
        Broken::of("I14", facts.now_ns, says).with(index.map(|id| shown(facts, id)))
    })
}

fn is_placed(life: &Life, pod: &Fields) -> bool {
    let is = |name: &str, value: &str| pod.get(name).is_some_and(|it| it == value);
    is("attempt", &life.token.0.to_string()) && is("nonce", &life.token.1)
}

/// Pods of a service that wait.
fn waiting(facts: &Facts, service: &str) -> Vec<String> {
    let index = facts.snapshot.indexes.get(service).into_iter().flatten();
    let waits = index.filter(|id| facts.snapshot.pod(id, "phase") == "waiting");
    waits.cloned().collect()
}

/// A living node has room for a pod, as far as amounts tell.
fn fits_somewhere(facts: &Facts, id: &str) -> bool {
    let amount = |text: &str| text.parse::<u64>().unwrap_or(0);
    let wants = |name: &str| amount(facts.snapshot.pod(id, name));
    if !facts.snapshot.pod(id, "wants").is_empty() || !facts.snapshot.pod(id, "asks").is_empty() {
        return false;
    }
    facts.snapshot.living.iter().any(|name| {
        let Some(node) = facts.snapshot.nodes.get(name) else {
            return false;
        };
        let field = |name: &str| node.get(name).map(String::as_str).unwrap_or_default();
        let left = |has: &str, used: &str| amount(field(has)).saturating_sub(amount(field(used)));
        field("state") == "ready"
            && field("engine") != "down"
            && left("pods_max", "pods") > 0
            && left("cpu", "cpu_requested") >= wants("cpu")
            && left("memory", "memory_requested") >= wants("memory")
    })
}

/// A pod as Redis shows it.
pub(super) fn shown(facts: &Facts, id: &str) -> String {
    let field = |name: &str| facts.snapshot.pod(id, name);
    let places = facts.snapshot.places(id);
    format!(
        "{id}: {} (wanted: {}) on {:?}, attempt {} ({}), because {:?}; waits in {places:?}",
        field("phase"),
        field("desired"),
        field("node"),
        field("attempt"),
        field("nonce"),
        field("reason"),
    )
}
