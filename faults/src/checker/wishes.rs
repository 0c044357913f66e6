//! What the users wished, as they were answered: the last clear word on each service.

use std::collections::BTreeMap;

use crate::logs::Asked;

/// What became of a service by the last clear answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It was accepted, with so many replicas.
    Stands(u64),
    /// It was deleted, or never accepted.
    Gone,
    /// The last call got no clear answer: both are right.
    Unknown,
}

/// A service that somebody asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The last word.
    pub word: Word,
    /// When the last answer came.
    pub since_ns: u64,
    /// When anything was asked of it: sent, and answered.
    pub touched: Vec<(u64, u64)>,
    /// Replicas that were ever asked for, and from when on: an unclear call may have had its effect.
    pub asked: Vec<(u64, u64)>,
}

/// The wishes, by `namespace/name`. `asked` is in the order in which it was sent.
pub fn wishes(asked: &[Asked]) -> BTreeMap<String, Wish> {
    let mut wishes: BTreeMap<String, Wish> = BTreeMap::new();
    for call in asked {
        let Some((service, verb)) = meant(call) else {
            continue;
        };
        let wish = wishes.entry(service).or_insert_with(|| Wish {
            word: Word::Gone,
            since_ns: 0,
            touched: Vec::new(),
            asked: Vec::new(),
        });
        wish.touched.push((call.sent_ns, call.done_ns));
        wish.since_ns = call.done_ns;
        let said = replicas(call);
        let stood = wish.asked.last().map_or(1, |(_, replicas)| *replicas);
        let meant = said.unwrap_or(if verb == Verb::Submit { 1 } else { stood });
        if verb != Verb::Delete {
            wish.asked.push((call.sent_ns, meant));
        }
        wish.word = match (call.status, verb) {
            (Some(200..=299), Verb::Delete) => Word::Gone,
            // Whoever asks again after an unclear answer is told that it is gone.
            (Some(404), _) => Word::Gone,
            (Some(200..=299), _) => Word::Stands(meant),
            (Some(400..=499), _) => wish.word,
            _ => Word::Unknown,
        };
    }
    wishes
}

/// Of which service a call is; nothing if it is of none.
pub fn service_of(call: &Asked) -> Option<String> {
    Some(meant(call)?.0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Submit,
    Change,
    Delete,
}

/// Of which service a call is, and what it wants.
fn meant(call: &Asked) -> Option<(String, Verb)> {
    let path = call.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let namespace = call.body["namespace"].as_str().unwrap_or("default");
    let full = |name: &str| format!("{namespace}/{name}");
    match (call.method.as_str(), parts.as_slice()) {
        ("POST", ["service"] | ["v1", "services"]) => {
            Some((full(call.body["name"].as_str()?), Verb::Submit))
        }
        ("PUT", ["v1", "services", name]) => Some((full(name), Verb::Change)),
        ("POST" | "PATCH", ["v1", "services", name, "scale"]) => Some((full(name), Verb::Change)),
        ("DELETE", ["v1", "services", name]) => Some((full(name), Verb::Delete)),
        _ => None,
    }
}

fn replicas(call: &Asked) -> Option<u64> {
    let said = |name: &str| call.body[name].as_u64();
    said("replicas").or_else(|| said("replica"))
}
