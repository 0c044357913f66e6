//! One condition on a node's labels, as users write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::node::is_node_label;

/// What [`Constraint::parse`] reads, for messages.
pub const CONSTRAINT_RULE: &str = "KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A, B), KEY not in (A, B), or KEY<N, KEY<=N, KEY>N, KEY>=N with a number";

/// One condition on a node's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// The label.
    pub key: String,
    /// What is to hold for it.
    pub condition: Condition,
}

/// What is to hold for a label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is there, with one of these values.
    In(Vec<String>),
    /// It is not there, or with another value than these.
    NotIn(Vec<String>),
    /// Its value is a number below this one, in thousandths.
    Below(i64),
    /// Or equal.
    AtMost(i64),
    /// Its value is a number above this one, in thousandths.
    Above(i64),
    /// Or equal.
    AtLeast(i64),
}

impl Constraint {
    /// Reads `zone in (eu, us)`; see [`CONSTRAINT_RULE`].
    pub fn parse(text: &str) -> Option<Constraint> {
        let text = text.trim();
        let of = |key: &str, condition| {
            let key = key.trim();
            is_node_label(key, "").then(|| Constraint {
                key: key.to_owned(),
                condition,
            })
        };
        let value = |text: &str| {
            let value = text.trim();
            is_node_label("k", value).then(|| value.to_owned())
        };
        if let Some(key) = text.strip_prefix('!')
            && !key.starts_with('=')
        {
            return of(key, Condition::Absent);
        }
        if let Some((left, right)) = text.split_once('(') {
            let left = left.trim_end();
            let values = right.strip_suffix(')')?.split(',').map(value);
            let values: Vec<String> = values.collect::<Option<_>>()?;
            let words: Vec<&str> = left.split_whitespace().collect();
            return match words[..] {
                [key, "in"] => of(key, Condition::In(values)),
                [key, "not", "in"] | [key, "notin"] => of(key, Condition::NotIn(values)),
                _ => None,
            };
        }
        for (sign, condition) in [
            ("<=", Condition::AtMost as fn(i64) -> Condition),
            (">=", Condition::AtLeast),
            ("<", Condition::Below),
            (">", Condition::Above),
        ] {
            if let Some((key, number)) = text.split_once(sign) {
                return of(key, condition(thousandths(number.trim())?));
            }
        }
        if let Some((key, right)) = text.split_once("!=") {
            return of(key, Condition::NotIn(vec![value(right)?]));
        }
        if let Some((key, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return of(key, Condition::In(vec![value(right)?]));
        }
        of(text, Condition::Exists)
    }

    /// Whether a node with these labels meets it.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| thousandths(value));
        match &self.condition {
            Condition::Exists => value.is_some(),
            Condition::Absent => value.is_none(),
            Condition::In(values) => value.is_some_and(|value| values.contains(value)),
            Condition::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Condition::Below(bound) => number().is_some_and(|number| number < *bound),
            Condition::AtMost(bound) => number().is_some_and(|number| number <= *bound),
            Condition::Above(bound) => number().is_some_and(|number| number > *bound),
            Condition::AtLeast(bound) => number().is_some_and(|number| number >= *bound),
        }
    }
}

/// A decimal in thousandths, so that it can be compared and hashed; `None` if it is none.
fn thousandths(text: &str) -> Option<i64> {
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    if !text.bytes().all(plain) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be far below 2^53"
    )]
    (number.abs() < 1e12).then(|| (number * 1000.0).round() as i64)
}

fn decimal(thousandths: i64) -> String {
    let sign = if thousandths < 0 { "-" } else { "" };
    let (whole, rest) = (thousandths.abs() / 1000, thousandths.abs() % 1000);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let rest = format!("{rest:03}");
    format!("{sign}{whole}.{}", rest.trim_end_matches('0'))
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = &self.key;
        match &self.condition {
            Condition::Exists => write!(f, "{key}"),
            Condition::Absent => write!(f, "!{key}"),
            Condition::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Condition::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Condition::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            Condition::NotIn(values) => write!(f, "{key} not in ({})", values.join(", ")),
            Condition::Below(bound) => write!(f, "{key}<{}", decimal(*bound)),
            Condition::AtMost(bound) => write!(f, "{key}<={}", decimal(*bound)),
            Condition::Above(bound) => write!(f, "{key}>{}", decimal(*bound)),
            Condition::AtLeast(bound) => write!(f, "{key}>={}", decimal(*bound)),
        }
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Constraint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Constraint, D::Error> {
        let text = String::deserialize(deserializer)?;
        Constraint::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "invalid value: {text:?}, expected {CONSTRAINT_RULE}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::read_labels;

    #[test]
    fn conditions_hold_or_do_not() {
        let labels = read_labels("zone=eu,disk=ssd,cores=16,price=0.25,empty=");
        for (text, holds) in [
            ("zone=eu", true),
            ("zone == us", false),
            ("zone != us", true),
            ("rack != us", true),
            ("zone in (us, eu)", true),
            ("rack in (us, eu)", false),
            ("zone not in (us,eu)", false),
            ("rack notin (us)", true),
            ("disk", true),
            ("rack", false),
            ("! disk", false),
            ("!rack", true),
            ("cores>8", true),
            ("cores>16", false),
            ("cores >= 16", true),
            ("cores<16", false),
            ("cores <= 16.5", true),
            ("price<0.3", true),
            ("zone<1", false),
            ("rack<1", false),
            ("empty=", true),
        ] {
            let constraint = Constraint::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(constraint.holds(&labels), holds, "{text}");
            let again = Constraint::parse(&constraint.to_string());
            assert_eq!(again, Some(constraint), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for text in [
            "",
            "!",
            "a b",
            "a=b=c",
            "a in b",
            "a in (b",
            "a near (b)",
            "a<b",
            "a<",
            "=b",
            "a in (b c)",
            "!=b",
            "a<1e3",
            "a<9999999999999999",
        ] {
            assert_eq!(Constraint::parse(text), None, "{text}");
        }
    }
}
