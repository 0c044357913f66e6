//! What holds the promises, by name, so that tests can show that each is needed.
//!
//! A development build leaves out those that the setting `remedies_off` names, and must then be caught
//! by the fault suite: a suite that does not notice is blind. Release builds never look.

use std::sync::OnceLock;

/// Every remedy: see `docs/reliability.md` for what breaks without it.
pub const REMEDIES: [&str; 7] = [
    "wait",     // a commit waits for replicas on its own connection
    "token",    // a placement is asked for again once the lease ran out
    "deadline", // the lease is looked at right before a start
    "fence",    // an agent without a lease stops what must never run twice
    "watchdog", // so does another process, if the agent is dead or held
    "resync",   // all is compared, whatever notices were lost
    "grace",    // leases get a full term after a fail-over
];

static OFF: OnceLock<Vec<String>> = OnceLock::new();

/// Leaves out the remedies named in `names`, with commas; development builds only.
pub fn leave_out(names: &str) {
    let names: Vec<String> = names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    if cfg!(debug_assertions) && !names.is_empty() {
        tracing::warn!(remedies = names.join(","), "left out: promises do not hold");
        let _ = OFF.set(names);
    }
}

/// Whether the remedy `name` is in force.
pub fn holds(name: &'static str) -> bool {
    debug_assert!(REMEDIES.contains(&name), "remedy {name} is not listed");
    !cfg!(debug_assertions) || !OFF.get().is_some_and(|off| off.iter().any(|it| it == name))
}
