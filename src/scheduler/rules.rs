//! What a service's placement means for a node by itself: labels, constraints, platform, taints.
//!
//! Pure. What it means in view of other pods is `peers`'s.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::Deserialize;

use crate::model::placement::{OwnScore, Placement, SOFT_TAINT, TAINT};
use crate::model::service::standing;
use crate::model::{Priority, ServiceKey, Strategy};

/// The placement of one revision of a service, or of a pod without one, ready to be planned with.
#[derive(Debug)]
pub struct Rules {
    /// The service, if it has one.
    pub service: Option<ServiceKey>,
    /// Its revision.
    pub revision: u64,
    /// Namespace of the services that affinities name.
    pub namespace: String,
    /// Fixed ports of the node that each pod takes.
    pub host_ports: Vec<String>,
    /// All that was said.
    pub placement: Placement,
    /// Where its pods stand when room is short, if they may take that of lower ones.
    pub preempts: Option<u32>,
    /// What is the same for all whose nodes are ranked alike.
    pub like: Arc<Like>,
    /// Services by each target of the affinities, in their order, `namespace/name`.
    pub targets: Vec<Vec<String>>,
}

/// What decides, by itself, which nodes may be taken and in which order: all pods alike in this share
/// one ranking.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Like {
    placement: Placement,
    host_ports: Vec<String>,
}

/// What is read of a stored spec.
#[derive(Default, Deserialize)]
struct Stored {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    placement: Placement,
    #[serde(default)]
    priority: Priority,
    #[serde(default)]
    rank: u16,
    #[serde(default)]
    preempts: bool,
}

/// Why a node by itself does not suit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unsuited {
    /// It lacks a label: this one of those that are wanted.
    Label(usize),
    /// It does not meet a constraint: this one.
    Constraint(usize),
    /// It is of another platform.
    Platform,
    /// It has a taint that is not tolerated.
    Taint,
}

impl Rules {
    /// The rules of a stored spec. What cannot be read wishes for nothing: its agent says what is wrong.
    pub fn read(owner: &str, revision: u64, host_ports: Vec<String>, spec: &str) -> Rules {
        let stored: Stored = serde_json::from_str(spec).unwrap_or_default();
        let service = owner.strip_prefix("service:").and_then(ServiceKey::parse);
        let namespace = match &service {
            Some(service) => service.namespace.clone(),
            None if stored.namespace.is_empty() => ServiceKey::DEFAULT_NAMESPACE.to_owned(),
            None => stored.namespace,
        };
        let standing = standing(stored.priority, stored.rank);
        Rules {
            preempts: stored.preempts.then_some(standing),
            ..Rules::of(service, revision, namespace, host_ports, stored.placement)
        }
    }

    /// The rules of a placement.
    pub fn of(
        service: Option<ServiceKey>,
        revision: u64,
        namespace: String,
        host_ports: Vec<String>,
        placement: Placement,
    ) -> Rules {
        let by_itself = Placement {
            affinity: Vec::new(),
            spread: Vec::new(),
            max_per_node: None,
            ..placement.clone()
        };
        let named = |service: &String| match service.split_once('/') {
            Some(_) => service.clone(),
            None => format!("{namespace}/{service}"),
        };
        let targets = placement.affinity.iter().map(|affinity| {
            let service = affinity.target().and_then(|target| target.service.as_ref());
            service.map(named).into_iter().collect()
        });
        Rules {
            targets: targets.collect(),
            like: Arc::new(Like {
                placement: by_itself,
                host_ports: host_ports.clone(),
            }),
            service,
            revision,
            namespace,
            host_ports,
            placement,
            preempts: None,
        }
    }

    /// Whether labels say which services an affinity means: there may be others in a moment.
    pub fn looks_for_labels(&self) -> bool {
        let targets = self
            .placement
            .affinity
            .iter()
            .filter_map(|affinity| affinity.target());
        targets.into_iter().any(|target| !target.labels.is_empty())
    }

    /// Whether it matters which pods run where, or which node had its turn last: then what others
    /// place meanwhile may spoil the plan.
    pub fn is_bound(&self, default: Strategy) -> bool {
        self.placement.looks_at_pods() || self.like.strategy(default) == Strategy::RoundRobin
    }
}

impl Like {
    /// Of a pod that wishes for nothing.
    pub fn nothing() -> Like {
        Like {
            placement: Placement::default(),
            host_ports: Vec::new(),
        }
    }

    /// Its strategy, or the cluster's.
    pub fn strategy(&self, default: Strategy) -> Strategy {
        self.placement.strategy.unwrap_or(default)
    }

    /// Whether it has a score of its own.
    pub fn wants_own_score(&self) -> bool {
        self.placement.score.is_some()
    }

    /// Its own score, compiled; `None` if what stands in Redis is none.
    pub fn own_score(&self) -> Option<OwnScore> {
        let text = self.placement.score.as_deref()?;
        OwnScore::parse(text).ok()
    }

    /// The fixed ports of the node that each pod takes.
    pub fn host_ports(&self) -> &[String] {
        &self.host_ports
    }

    /// The one node that it is pinned to.
    pub fn pinned(&self) -> Option<&str> {
        self.placement.pinned()
    }

    /// Whether a node with these labels suits: how many soft taints it has, or why it does not.
    pub fn suits(&self, labels: &BTreeMap<String, String>) -> Result<u32, Unsuited> {
        let placement = &self.placement;
        let mut wanted = placement.labels.iter();
        if let Some(lacks) = wanted.position(|(key, value)| labels.get(key) != Some(value)) {
            return Err(Unsuited::Label(lacks));
        }
        let mut constraints = placement.constraints.iter();
        if let Some(unmet) = constraints.position(|constraint| !constraint.holds(labels)) {
            return Err(Unsuited::Constraint(unmet));
        }
        if let Some((os, arch)) = placement.os_and_arch() {
            let is = |key: &str, value: &str| labels.get(key).is_some_and(|has| has == value);
            if !is("os", os) || !is("arch", arch) {
                return Err(Unsuited::Platform);
            }
        }
        let mut soft = 0;
        let from = (Bound::Included("taint"), Bound::Unbounded);
        for (key, value) in labels.range::<str, _>(from) {
            if let Some(key) = key.strip_prefix(TAINT) {
                if !placement.tolerates(key, value) {
                    return Err(Unsuited::Taint);
                }
            } else if let Some(key) = key.strip_prefix(SOFT_TAINT) {
                soft += u32::from(!placement.tolerates(key, value));
            } else if !key.starts_with("taint") {
                break;
            }
        }
        Ok(soft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::read_labels;

    /// Taints and tolerations as users of Kubernetes know them from its documentation.
    #[test]
    fn taints_and_tolerations() {
        for (taints, tolerations, suits) in [
            ("", "[]", Ok(0)),
            ("taint/key1=value1", "[]", Err(Unsuited::Taint)),
            ("taint/key1=value1", r#"["key1=value1"]"#, Ok(0)),
            ("taint/key1=value1", r#"["key1"]"#, Ok(0)),
            (
                "taint/key1=value1",
                r#"["key1=value2"]"#,
                Err(Unsuited::Taint),
            ),
            (
                "taint/key1=value1,taint/key2=value2",
                r#"["key1"]"#,
                Err(Unsuited::Taint),
            ),
            (
                "taint/key1=value1,taint/key2=value2",
                r#"["key1","key2=value2"]"#,
                Ok(0),
            ),
            ("taint/key1=value1,taint/key2=value2", r#"["*"]"#, Ok(0)),
            ("taint-soft/key1=value1", "[]", Ok(1)),
            ("taint-soft/key1=value1", r#"["key1"]"#, Ok(0)),
            (
                "taint-soft/key1=a,taint/key2=b,zone=eu",
                r#"["key2"]"#,
                Ok(1),
            ),
        ] {
            let json = format!(r#"{{"tolerations":{tolerations}}}"#);
            let like = Like {
                placement: serde_json::from_str(&json).unwrap(),
                host_ports: Vec::new(),
            };
            assert_eq!(
                like.suits(&read_labels(taints)),
                suits,
                "{taints} {tolerations}"
            );
        }
    }

    #[test]
    fn labels_constraints_and_platform() {
        let json =
            r#"{"labels":{"zone":"eu"},"constraints":["cores>=8"],"platform":"linux/arm64"}"#;
        let like = Like {
            placement: serde_json::from_str(json).unwrap(),
            host_ports: Vec::new(),
        };
        for (labels, suits) in [
            ("zone=us", Err(Unsuited::Label(0))),
            ("zone=eu,cores=4", Err(Unsuited::Constraint(0))),
            (
                "zone=eu,cores=8,os=linux,arch=amd64",
                Err(Unsuited::Platform),
            ),
            ("zone=eu,cores=8", Err(Unsuited::Platform)),
            ("zone=eu,cores=8,os=linux,arch=arm64", Ok(0)),
        ] {
            assert_eq!(like.suits(&read_labels(labels)), suits, "{labels}");
        }
    }
}
