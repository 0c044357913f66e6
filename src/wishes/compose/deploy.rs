//! `deploy` and its older siblings: how many pods, where, and what follows when one ends.

use super::super::node::At;
use super::super::note::Notes;
use crate::model::ServiceSpec;
use crate::model::placement::{Condition, Constraint, Spread, WEIGHT_MAX};
use crate::model::service::{Restart, RestartPolicy};

const KEYS: [&str; 9] = [
    "mode",
    "replicas",
    "endpoint_mode",
    "labels",
    "update_config",
    "rollback_config",
    "resources",
    "restart_policy",
    "placement",
];

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let deploy = at.some("deploy");
    let option = |key: &str| deploy.as_ref().and_then(|at| at.some(key));
    if let Some(at) = &deploy {
        at.known(notes, &KEYS);
    }
    if let Some(mode) = option("mode")
        && mode.text(notes).is_some_and(|mode| mode != "replicated")
    {
        mode.refuse(
            notes,
            "is not possible here: pods are replicated, say how many with replicas",
        );
    }
    replicas(spec, option("replicas"), at.some("scale"), notes);
    for key in [
        "endpoint_mode",
        "labels",
        "update_config",
        "rollback_config",
    ] {
        if let Some(at) = option(key)
            && !at.node.asks_for_nothing()
        {
            at.warn(notes, "has no effect here");
        }
    }
    spec.restart = match (option("restart_policy"), at.some("restart")) {
        (Some(policy), _) => restart_policy(&policy, notes),
        (None, Some(restart)) => self::restart(&restart, notes),
        (None, None) => {
            at.warn(
                notes,
                "says no restart, so its pods are not started again when they end: set restart: always to keep it running",
            );
            never()
        }
    };
    if let Some(at) = at.some("platform") {
        spec.placement.platform = at.text(notes).map(str::to_owned);
    }
    if let Some(placement) = option("placement") {
        self::placement(spec, &placement, notes);
    }
}

/// Whether a service says how many pods it has.
pub(super) fn says_replicas(at: &At) -> bool {
    let deploy = at.some("deploy");
    at.some("scale").is_some() || deploy.is_some_and(|at| at.some("replicas").is_some())
}

fn replicas(spec: &mut ServiceSpec, deploy: Option<At>, scale: Option<At>, notes: &mut Notes) {
    let said = deploy.as_ref().map(|at| at.number(notes));
    let scaled = scale.as_ref().map(|at| at.number(notes));
    if let (Some(said), Some(scaled), Some(scale)) = (said, scaled, &scale)
        && said != scaled
    {
        scale.refuse(notes, "deploy.replicas says another number: leave one out");
    }
    if let Some(count) = said.or(scaled).flatten() {
        spec.replicas = count;
    }
}

fn never() -> Restart {
    Restart {
        policy: RestartPolicy::Never,
        max: None,
    }
}

fn restart(at: &At, notes: &mut Notes) -> Restart {
    let allowed = "no, always, on-failure[:N] or unless-stopped";
    let restart = at.parsed(notes, allowed, |text| {
        let (policy, max) = match text {
            "no" | "" => (RestartPolicy::Never, None),
            "always" | "unless-stopped" => (RestartPolicy::Always, None),
            "on-failure" => (RestartPolicy::OnFailure, None),
            text => {
                let max = text.strip_prefix("on-failure:")?.parse().ok()?;
                (RestartPolicy::OnFailure, Some(max))
            }
        };
        Some(Restart { policy, max })
    });
    restart.unwrap_or_default()
}

fn restart_policy(at: &At, notes: &mut Notes) -> Restart {
    at.known(notes, &["condition", "delay", "max_attempts", "window"]);
    let allowed = "none, on-failure or any";
    let policy = at.some("condition").and_then(|at| {
        at.parsed(notes, allowed, |text| match text {
            "none" => Some(RestartPolicy::Never),
            "on-failure" => Some(RestartPolicy::OnFailure),
            "any" => Some(RestartPolicy::Always),
            _ => None,
        })
    });
    for key in ["delay", "window"] {
        if let Some(at) = at.some(key) {
            at.warn(notes, "has no effect here: pauses grow from 1 s to 5 min");
        }
    }
    let max = at.some("max_attempts").and_then(|at| at.number(notes));
    Restart {
        policy: policy.unwrap_or_default(),
        max,
    }
}

fn placement(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    at.known(
        notes,
        &["constraints", "preferences", "max_replicas_per_node"],
    );
    if let Some(at) = at.some("max_replicas_per_node") {
        spec.placement.max_per_node = at.number(notes).filter(|max: &u32| *max > 0);
    }
    let list = |key: &str, notes: &mut Notes| {
        let at = at.some(key);
        at.map(|at| at.list(notes)).unwrap_or_default()
    };
    for at in list("preferences", notes) {
        let spread = at.some("spread").and_then(|at| at.text(notes));
        match spread.and_then(|text| label_of(text.trim())) {
            // The first counts most.
            Some(over) => spec.placement.spread.push(Spread {
                over: over.to_owned(),
                max_skew: 1,
                weight: Some(WEIGHT_MAX >> spec.placement.spread.len().min(6)),
            }),
            None => at.refuse(notes, "is not possible here, spread: node.labels.KEY is"),
        }
    }
    for at in list("constraints", notes) {
        let Some(text) = at.text(notes) else { continue };
        match constraint(text) {
            Some(Constraint { key, condition }) => match condition {
                Condition::In(mut values) => label(spec, &at, key, values.remove(0), notes),
                condition => spec
                    .placement
                    .constraints
                    .push(Constraint { key, condition }),
            },
            None => at.refuse(
                notes,
                "is not possible here, == and != of node.labels.KEY, node.hostname, \
                 node.platform.os and node.platform.arch are",
            ),
        }
    }
}

/// `node.labels.KEY == VALUE` and its like as a constraint.
fn constraint(text: &str) -> Option<Constraint> {
    let (sign, (key, value)) = match text.split_once("!=") {
        Some(sides) => ("!=", sides),
        None => ("=", text.split_once("==")?),
    };
    let key = label_of(key.trim())?;
    let value = match (key, value.trim()) {
        ("arch", "x86_64") => "amd64",
        ("arch", "aarch64") => "arm64",
        (_, value) => value,
    };
    Constraint::parse(&format!("{key}{sign}{value}"))
}

/// The label of a node that a name of Swarm's means.
fn label_of(name: &str) -> Option<&str> {
    match name {
        "node.hostname" => Some("node"),
        "node.platform.os" => Some("os"),
        "node.platform.arch" => Some("arch"),
        name => name.strip_prefix("node.labels."),
    }
}

fn label(spec: &mut ServiceSpec, at: &At, key: String, value: String, notes: &mut Notes) {
    if let Some(other) = spec.placement.labels.insert(key, value.clone())
        && other != value
    {
        at.refuse(notes, format!("cannot be {other} and {value} at once"));
    }
}
