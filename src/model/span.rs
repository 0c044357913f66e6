//! Spans of time in a spec: how they are written, and what they are.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::digits::digits;

/// A span of time: text such as `"10s"`, `"1m30s"` or `"500ms"`, or a number of seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Longest span a spec can hold.
pub const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const RULE: &str =
    "a duration such as \"10s\", \"1m30s\" or \"500ms\", or a number of seconds, at most 24h";

impl Span {
    /// A span of so many seconds.
    pub const fn secs(seconds: u64) -> Span {
        Span(Duration::from_secs(seconds))
    }

    /// The span of a text; `None` if it is none, or longer than [`SPAN_MAX`].
    pub fn parse(text: &str) -> Option<Span> {
        let mut rest = text.trim();
        let mut sum = Duration::ZERO;
        if rest.is_empty() {
            return None;
        }
        if let Some(seconds) = digits(rest) {
            return Span(Duration::from_secs(seconds)).bounded();
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(digits);
            let end = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let unit = match unit {
                "us" => 0.000_001,
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
            let number: f64 = number.parse().ok()?;
            sum += Duration::try_from_secs_f64(number * unit).ok()?;
            rest = tail.trim_start();
        }
        Span(sum).bounded()
    }

    /// Whole microseconds of it, which is what it is written in.
    fn bounded(self) -> Option<Span> {
        let micros = u64::try_from(self.0.as_micros()).ok()?;
        (self.0 <= SPAN_MAX).then_some(Span(Duration::from_micros(micros)))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis();
        if self.0.subsec_nanos() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else if self.0.subsec_nanos().is_multiple_of(1_000_000) {
            write!(f, "{millis}ms")
        } else {
            write!(f, "{}us", self.0.as_micros())
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let span = match &given {
            Value::Number(seconds) => seconds
                .as_f64()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .and_then(|span| Span(span).bounded()),
            Value::String(text) => Span::parse(text),
            _ => None,
        };
        span.ok_or_else(|| {
            serde::de::Error::custom(format_args!("invalid value: {given}, expected {RULE}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, shown) in [
            ("10s", "10s"),
            ("1m30s", "90s"),
            ("1m 30s", "90s"),
            ("500ms", "500ms"),
            ("1.5s", "1500ms"),
            ("7", "7s"),
            ("24h", "86400s"),
            ("0s", "0s"),
        ] {
            assert_eq!(Span::parse(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "s", "10", "-1s", "1x", "25h", "1e3s", "10s5"] {
            let is_number = bad == "10";
            assert_eq!(Span::parse(bad).is_some(), is_number, "{bad}");
        }
    }
}
