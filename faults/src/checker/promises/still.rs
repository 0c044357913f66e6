//! I8, I9 and I12: where nothing that runs was broken, nothing that runs is touched.

use super::super::lives::{Life, Policy};
use super::{Broken, Facts};

/// In a round whose faults give no reason to move a pod, no container of a service starts or ends that
/// its user left alone. A `stop-then-replace` one may be stopped by its own node while Redis is away,
/// but is not moved.
pub(super) fn untouched(facts: &Facts) -> Option<Broken> {
    let (from_ns, to_ns) = facts.run.round(facts.round)?;
    let to_ns = to_ns.unwrap_or(facts.now_ns);
    let mut faults = facts.faults_of_round().peekable();
    faults.peek()?;
    if faults.any(|fault| fault.says("pardon_moves")) {
        return None;
    }
    let left_alone = |life: &&Life| {
        let wish = facts.wishes.get(&life.service);
        !life.is_job
            && wish.is_some_and(|wish| {
                let mut touched = wish.touched.iter();
                !touched.any(|(sent_ns, done_ns)| *sent_ns < to_ns && *done_ns > from_ns)
            })
    };
    let within = |at_ns: u64| from_ns < at_ns && at_ns < to_ns;
    let mut lives = facts.lives.iter().filter(left_alone);
    let (life, at_ns) = lives.find_map(|life| {
        let stopped = life.to_ns.filter(|to_ns| within(*to_ns));
        let ended = stopped.filter(|_| life.policy != Policy::StopThenReplace);
        let started = within(life.from_ns).then_some(life.from_ns);
        let started =
            started.filter(|_| life.policy != Policy::StopThenReplace || is_elsewhere(facts, life));
        Some((life, ended.or(started)?))
    })?;
    let names: Vec<&str> = facts
        .faults_of_round()
        .map(|fault| fault.name.as_str())
        .collect();
    let says = format!(
        "a container of {} was touched, and the round had only {}",
        life.service,
        names.join(", ")
    );
    let of_pod = facts.lives.iter().filter(|other| other.pod == life.pod);
    Some(Broken::of("I8", at_ns, says).with(of_pod))
}

/// The replica ran on another node before.
fn is_elsewhere(facts: &Facts, life: &Life) -> bool {
    let same = |other: &&Life| {
        other.service == life.service
            && other.uid == life.uid
            && other.replica == life.replica
            && other.from_ns < life.from_ns
    };
    let before = facts
        .lives
        .iter()
        .filter(same)
        .max_by_key(|other| other.from_ns);
    before.is_some_and(|before| before.node != life.node)
}
