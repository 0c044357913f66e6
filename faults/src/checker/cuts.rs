//! What was broken, from when to when, as the timeline tells it.

use serde_json::Value;

use crate::logs::Moment;

/// A fault, from its beginning to its healing.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its name.
    pub name: String,
    /// Its round.
    pub round: u64,
    /// To what, and how.
    pub detail: Value,
    /// When it began.
    pub from_ns: u64,
    /// When it was healed; nothing while it lasts.
    pub to_ns: Option<u64>,
}

impl Fault {
    /// While it lasted, this node could not be heard.
    pub fn cuts(&self, node: &str) -> bool {
        let named = self.names("cuts", node);
        named.unwrap_or_else(|| self.touches(node))
    }

    /// It was done to this node, or to its engine.
    pub fn touches(&self, node: &str) -> bool {
        self.names("nodes", node) == Some(true)
    }

    /// Whether a list of its detail names a node, if there is that list.
    fn names(&self, list: &str, node: &str) -> Option<bool> {
        let nodes = self.detail[list].as_array()?;
        Some(nodes.iter().any(|name| name == node))
    }

    /// Whether its detail says yes to something.
    pub fn says(&self, word: &str) -> bool {
        self.detail[word] == Value::Bool(true)
    }
}

/// All faults. A `heal` ends the oldest open fault of its name and its nodes.
pub fn faults(moments: &[Moment]) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for moment in moments {
        match moment.what.as_str() {
            "fault" => faults.push(Fault {
                name: moment.name.clone(),
                round: moment.round,
                detail: moment.detail.clone(),
                from_ns: moment.at_ns,
                to_ns: None,
            }),
            "heal" => {
                let mut open = faults.iter_mut().filter(|fault| {
                    fault.to_ns.is_none()
                        && fault.name == moment.name
                        && fault.detail["nodes"] == moment.detail["nodes"]
                });
                if let Some(fault) = open.next() {
                    fault.to_ns = Some(moment.at_ns);
                }
            }
            _ => {}
        }
    }
    faults
}

/// The first moment from `from_ns` on, before `to_ns`, that no fault of those `meant` excuses: all are
/// healed, and have been for longer than `grace_ns`.
pub fn unexcused(
    faults: &[Fault],
    meant: impl Fn(&Fault) -> bool,
    (from_ns, to_ns): (u64, u64),
    grace_ns: u64,
) -> Option<u64> {
    let mut at_ns = from_ns;
    let mut cuts: Vec<&Fault> = faults.iter().filter(|fault| meant(fault)).collect();
    cuts.sort_by_key(|fault| fault.from_ns);
    for cut in cuts {
        let until_ns = cut
            .to_ns
            .map_or(u64::MAX, |to_ns| to_ns.saturating_add(grace_ns));
        if cut.from_ns <= at_ns && at_ns < until_ns {
            at_ns = until_ns;
        }
    }
    (at_ns < to_ns).then_some(at_ns)
}
