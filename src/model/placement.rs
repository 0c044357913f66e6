//! Which nodes may run a service's pods, and which of them is taken: what users write, and its rules.
//!
//! Plain data. What of it holds for a node the scheduler decides.

mod constraint;
mod score;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Violation;
use super::name::is_name;
use super::node::{NAME_LABEL, NODE_LABEL_RULE, is_node_label};
pub use constraint::{CONSTRAINT_RULE, Condition, Constraint};
pub use score::{OwnScore, SCORE_TERMS};

/// Most constraints, affinities, spreads and tolerations of a service, each.
pub const PARTS_MAX: usize = 32;
/// Most that a wish counts that is no must.
pub const WEIGHT_MAX: u32 = 100;
/// Longest score of a user's own.
pub const SCORE_MAX: usize = 1000;
/// Most operators of a score: each takes a piece of the stack of whoever evaluates it.
pub const SCORE_STEPS_MAX: usize = 100;
/// Labels of a node that begin so keep pods away that do not tolerate it.
pub const TAINT: &str = "taint/";
/// The same, where any other node is better but none must be.
pub const SOFT_TAINT: &str = "taint-soft/";
/// A toleration of all taints.
pub const ANY_TAINT: &str = "*";

const TARGET_RULE: &str =
    "near or apart, and there a service, as NAME or NAMESPACE/NAME, or labels of services";
const TAINT_RULE: &str =
    "KEY or KEY=VALUE of a taint, of letters, digits, '-', '_', '.' and '/', or * for all";
const PLATFORM_RULE: &str = "OS/ARCH, such as linux/amd64 or linux/arm64";

/// Which nodes may run a service's pods, and which of them is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Labels that a node must have, with these values; `node` is every node's own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Conditions on a node's labels, all of which must hold: `zone in (eu, us)`, `disk != hdd`,
    /// `ssd` (is there), `!spot` (is not there), `cores >= 8`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub constraints: Vec<Constraint>,
    /// Platform of the image, `linux/arm64`: a node's labels `os` and `arch` must be these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Pods to be near to, or apart from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affinity: Vec<Affinity>,
    /// Labels over whose values the pods are spread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// Most pods of the service on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_node: Option<u32>,
    /// Taints that do not keep its pods away: `KEY`, `KEY=VALUE`, or `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<String>,
    /// Which of the nodes that may is taken; the cluster's default where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// A score of your own, in place of a strategy: an expression over terms of the node and the
    /// pod; the node with the lowest is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "price + 10 * pressure_memory")]
    pub score: Option<String>,
}

/// Pods to be near to, or apart from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// Pods to be where one of these is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near: Option<Target>,
    /// Or pods to be where none of these is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Target>,
    /// What counts as one place: a node, or all nodes with one value of this label.
    #[serde(default = "per_node", skip_serializing_if = "is_per_node")]
    pub per: String,
    /// How much it counts where it is no must, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// The services whose pods are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// One by name, of the same namespace, or as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// All of the same namespace that have these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A label over whose values the pods are spread.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The label.
    #[schema(example = "zone")]
    pub over: String,
    /// Most pods that one value may have more than another.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub max_skew: u32,
    /// How much it counts where it is no must, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Which of the nodes that may run a pod is taken.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The one that is pressed and used least.
    #[default]
    Pressure,
    /// The one with the fewest pods.
    Spread,
    /// The fullest: others stay empty.
    Binpack,
    /// One after another, by name, whichever scheduler places.
    RoundRobin,
    /// Any.
    Random,
    /// The first by name.
    FirstFit,
    /// The one with the most room.
    WorstFit,
    /// The one with the lowest price per hour.
    Cheapest,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 8] = [
        Strategy::Pressure,
        Strategy::Spread,
        Strategy::Binpack,
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::FirstFit,
        Strategy::WorstFit,
        Strategy::Cheapest,
    ];

    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Pressure => "pressure",
            Strategy::Spread => "spread",
            Strategy::Binpack => "binpack",
            Strategy::RoundRobin => "round-robin",
            Strategy::Random => "random",
            Strategy::FirstFit => "first-fit",
            Strategy::WorstFit => "worst-fit",
            Strategy::Cheapest => "cheapest",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Affinity {
    /// Whose pods are meant.
    pub fn target(&self) -> Option<&Target> {
        self.near.as_ref().or(self.apart.as_ref())
    }

    /// Whether their nearness is wanted.
    pub fn is_near(&self) -> bool {
        self.near.is_some()
    }

    fn is_sound(&self) -> bool {
        match (&self.near, &self.apart) {
            (Some(target), None) | (None, Some(target)) => target.is_sound(),
            _ => false,
        }
    }
}

impl Placement {
    /// True where a pod may run anywhere, by the cluster's own strategy.
    pub fn is_open(&self) -> bool {
        *self == Placement::default()
    }

    /// True where it matters which pods run where.
    pub fn looks_at_pods(&self) -> bool {
        !self.affinity.is_empty() || !self.spread.is_empty() || self.max_per_node.is_some()
    }

    /// Every broken rule.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut broken = Vec::new();
        let mut require = |holds: bool, field: String, given: &dyn ToString, allowed: &str| {
            if !holds {
                broken.push(Violation::new(field, given.to_string(), allowed));
            }
        };
        let parts = [
            ("constraints", self.constraints.len()),
            ("affinity", self.affinity.len()),
            ("spread", self.spread.len()),
            ("tolerations", self.tolerations.len()),
        ];
        for (field, count) in parts {
            let allowed = format!("at most {PARTS_MAX} of them");
            let field = format!("placement.{field}");
            require(count <= PARTS_MAX, field, &count, &allowed);
        }
        for (key, value) in &self.labels {
            let (field, given) = ("placement.labels".to_owned(), format!("{key}={value}"));
            require(is_node_label(key, value), field, &given, NODE_LABEL_RULE);
        }
        if let Some(platform) = &self.platform {
            let field = "placement.platform".to_owned();
            require(
                platform_of(platform).is_some(),
                field,
                platform,
                PLATFORM_RULE,
            );
        }
        let weight_rule = format!("1 to {WEIGHT_MAX}, or nothing where it is a must");
        let weighs = |weight: Option<u32>| weight.is_none_or(|it| (1..=WEIGHT_MAX).contains(&it));
        for (index, affinity) in self.affinity.iter().enumerate().take(PARTS_MAX) {
            let field = format!("placement.affinity[{index}]");
            let service = affinity.target().and_then(|target| target.service.clone());
            let given = service.unwrap_or_default();
            require(affinity.is_sound(), field.clone(), &given, TARGET_RULE);
            let per = is_node_label(&affinity.per, "");
            require(per, format!("{field}.per"), &affinity.per, NODE_LABEL_RULE);
            let given = affinity.weight.unwrap_or_default();
            require(
                weighs(affinity.weight),
                format!("{field}.weight"),
                &given,
                &weight_rule,
            );
        }
        for (index, spread) in self.spread.iter().enumerate().take(PARTS_MAX) {
            let field = format!("placement.spread[{index}]");
            let over = is_node_label(&spread.over, "");
            require(over, format!("{field}.over"), &spread.over, NODE_LABEL_RULE);
            let (skew, given) = (spread.max_skew > 0, spread.max_skew);
            require(
                skew,
                format!("{field}.max_skew"),
                &given,
                "a whole number from 1",
            );
            let given = spread.weight.unwrap_or_default();
            require(
                weighs(spread.weight),
                format!("{field}.weight"),
                &given,
                &weight_rule,
            );
        }
        if let Some(count) = self.max_per_node {
            let field = "placement.max_per_node".to_owned();
            require(count > 0, field, &count, "a whole number from 1");
        }
        for taint in self.tolerations.iter().take(PARTS_MAX) {
            let (key, value) = taint.split_once('=').unwrap_or((taint, ""));
            let sound = taint == ANY_TAINT || is_node_label(key, value);
            require(sound, "placement.tolerations".to_owned(), taint, TAINT_RULE);
        }
        if let Some(score) = &self.score {
            let field = || "placement.score".to_owned();
            let allowed = format!("an expression of at most {SCORE_MAX} characters");
            let length = (1..=SCORE_MAX).contains(&score.len());
            require(length, field(), score, &allowed);
            if let Err(why) = OwnScore::parse(score) {
                let allowed = format!("an expression over terms; this {why}");
                require(false, field(), score, &allowed);
            }
            let one = "a strategy or a score, not both";
            require(self.strategy.is_none(), field(), score, one);
        }
        broken
    }

    /// The os and the architecture that a node must have.
    pub fn os_and_arch(&self) -> Option<(&str, &str)> {
        self.platform.as_deref().and_then(platform_of)
    }

    /// Whether a taint of this key and value is tolerated.
    pub fn tolerates(&self, key: &str, value: &str) -> bool {
        let mut tolerations = self.tolerations.iter();
        tolerations.any(|toleration| match toleration.split_once('=') {
            Some((wanted, of)) => wanted == key && of == value,
            None => toleration == ANY_TAINT || toleration == key,
        })
    }

    /// The one node that it is pinned to.
    pub fn pinned(&self) -> Option<&str> {
        self.labels.get(NAME_LABEL).map(String::as_str)
    }
}

impl Target {
    fn is_sound(&self) -> bool {
        match &self.service {
            Some(service) => {
                let parts: Vec<&str> = service.split('/').collect();
                let named = parts.len() <= 2 && parts.iter().all(|part| is_name(part));
                named && self.labels.is_empty()
            }
            None => {
                let plain = |(key, value): (&String, &String)| is_node_label(key, value);
                (1..=PARTS_MAX).contains(&self.labels.len()) && self.labels.iter().all(plain)
            }
        }
    }
}

/// The os and the architecture of `linux/arm64`; a variant behind it says nothing of a node.
fn platform_of(text: &str) -> Option<(&str, &str)> {
    let (os, arch) = text.split_once('/')?;
    let arch = arch.split('/').next()?;
    let word = |text: &str| !text.is_empty() && is_node_label("k", text);
    (word(os) && word(arch)).then_some((os, arch))
}

fn per_node() -> String {
    NAME_LABEL.to_owned()
}

fn is_per_node(per: &str) -> bool {
    per == NAME_LABEL
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Placement {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_said_reads_back_the_same() {
        let json = r#"{"labels":{"zone":"eu"},"constraints":["cores>=8","!spot"],"platform":"linux/arm64","affinity":[{"near":{"service":"db"},"per":"zone","weight":50},{"apart":{"labels":{"app":"web"}}}],"spread":[{"over":"zone","max_skew":2}],"max_per_node":1,"tolerations":["gpu","for=me"],"strategy":"round-robin"}"#;
        let placement = parse(json);
        assert_eq!(serde_json::to_string(&placement).unwrap(), json);
        assert_eq!(placement.violations(), []);
        assert!(!placement.is_open() && placement.looks_at_pods());
        assert!(parse("{}").is_open());
    }

    #[test]
    fn each_broken_rule_is_named() {
        let placement = parse(
            r#"{"labels":{"a b":"c"},"platform":"amd64","affinity":[{"near":{},"weight":0},
            {"apart":{"service":"a/b/c"},"per":""}],"spread":[{"over":"zone","max_skew":0,"weight":101}],
            "max_per_node":0,"tolerations":["a b"],"strategy":"spread","score":"1"}"#,
        );
        let broken: Vec<String> = placement
            .violations()
            .into_iter()
            .map(|it| it.field)
            .collect();
        let expected = [
            "placement.labels",
            "placement.platform",
            "placement.affinity[0]",
            "placement.affinity[0].weight",
            "placement.affinity[1]",
            "placement.affinity[1].per",
            "placement.spread[0].max_skew",
            "placement.spread[0].weight",
            "placement.max_per_node",
            "placement.tolerations",
            "placement.score",
        ];
        assert_eq!(broken, expected);
    }

    #[test]
    fn a_toleration_is_of_a_key_a_pair_or_all() {
        let placement = parse(r#"{"tolerations":["spot","for=me"]}"#);
        assert!(placement.tolerates("spot", "") && placement.tolerates("spot", "x"));
        assert!(placement.tolerates("for", "me") && !placement.tolerates("for", "you"));
        assert!(parse(r#"{"tolerations":["*"]}"#).tolerates("any", "thing"));
    }
}
