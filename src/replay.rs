//! Recorded decisions, planned again: what would differ, and how all nodes looked to one pod.
//!
//! Pure, and wiring alone: the faces do not know the scheduler. Each decision is planned by itself,
//! from the nodes as they were recorded; what another plan would have left for the next is not
//! carried on.

use serde::Serialize;
use serde_json::Value;

use crate::model::decision::Kind;
use crate::model::{Decision, PodId, Strategy};
use crate::scheduler::record::Input;

/// What is to be different.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Weights of the score by name; others stay as they were.
    pub weights: Vec<(String, f64)>,
    /// Strategy of pods that say none.
    pub strategy: Option<Strategy>,
    /// Nodes that are left out.
    pub without: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Replayed {
    /// Decisions that were planned again.
    pub decisions: usize,
    /// Their pods.
    pub pods: usize,
    /// Decisions that could not be: they do not hold every node, or are of another version.
    pub left_out: usize,
    /// Pods that would be elsewhere.
    pub differ: Vec<Difference>,
}

/// A pod that would be elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The pod.
    pub pod: PodId,
    /// The decision.
    pub decision: String,
    /// Where it went; nothing if it waited.
    pub from: Option<String>,
    /// Where it would go; nothing if it would wait.
    pub to: Option<String>,
    /// Why it would wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Plans decisions again with something changed.
pub fn replay(decisions: &[Decision], changes: &Changes) -> Replayed {
    let mut replayed = Replayed::default();
    for decision in decisions {
        let Some((input, places)) = changed(decision, changes) else {
            replayed.left_out += 1;
            continue;
        };
        replayed.decisions += 1;
        replayed.pods += places.len();
        let pods = decision.pods.iter().zip(places).zip(input.plan());
        let elsewhere = pods.filter(|((_, before), now)| before.as_ref().ok() != now.as_ref().ok());
        let differ = elsewhere.map(|((pod, before), now)| Difference {
            pod: pod.id.clone(),
            decision: decision.id.clone(),
            from: before.ok(),
            reason: now.as_ref().err().cloned(),
            to: now.ok(),
        });
        replayed.differ.extend(differ);
    }
    replayed
}

/// How the nodes looked to a pod when its turn had come: found by planning those before it again,
/// or, where that cannot be, as they looked before the first that is alike.
pub fn at_turn(decision: &Decision, pod: &PodId) -> Option<Kind> {
    let position = decision.pods.iter().position(|told| told.id == *pod)?;
    let told = &decision.pods[position];
    let kept = told.kind.and_then(|kind| decision.kinds.get(kind));
    let Some((input, _)) = changed(decision, &Changes::default()) else {
        return kept.cloned();
    };
    let mut kind = input.kind_at(position)?;
    kind.pods = 1;
    let mut candidates = kind.candidates.iter_mut();
    if let Some(chosen) = candidates.find(|it| Some(&it.node) == told.node.as_ref()) {
        chosen.chosen = 1;
    }
    Some(kind)
}

/// The names of weights.
pub fn weight_names() -> Vec<String> {
    let weights = serde_json::to_value(crate::settings::Weights::default());
    match weights {
        Ok(Value::Object(fields)) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

type Changed = (Input, Vec<crate::scheduler::record::Place>);

fn changed(decision: &Decision, changes: &Changes) -> Option<Changed> {
    if !decision.whole {
        return None;
    }
    let mut decision = decision.clone();
    decision.weights.extend(changes.weights.iter().cloned());
    decision.strategy = changes.strategy.unwrap_or(decision.strategy);
    let (mut input, places) = Input::of(&decision).ok()?;
    let nodes = &mut input.state.nodes;
    nodes.retain(|known| !changes.without.contains(&known.node.name));
    Some((input, places))
}
