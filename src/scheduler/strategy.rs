//! The order in which a strategy takes nodes: a key for each, the lowest first.
//!
//! Pure. Keys are whole numbers with the node's name as the last word, so that equal input gives
//! equal order everywhere.

use super::cluster::Entry;
use super::ranking::Alike;
use super::score::Terms;
use crate::model::Strategy;
use crate::model::placement::OwnScore;
use crate::settings::Weights;

/// The label that holds a node's price per hour.
pub const PRICE_LABEL: &str = "price";
/// Shares and prices count in millionths.
const MILLION: f64 = 1_000_000.0;

/// Where a node stands: the lowest is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Wishes that are no must and that it does not meet.
    pub unmet: u32,
    /// By the strategy.
    first: u64,
    /// Among equals of the strategy.
    second: u64,
    /// Its place in the order of names.
    order: u32,
}

/// Makes the keys of one ranking.
#[derive(Debug)]
pub(super) struct Orderer {
    strategy: Strategy,
    default: Strategy,
    weights: Weights,
    own: Option<OwnScore>,
    failed: bool,
    pod_cpu: f64,
    pod_memory: f64,
}

impl Orderer {
    pub(super) fn of(alike: &Alike, weights: &Weights, default: Strategy) -> Orderer {
        let own = alike.like.own_score();
        Orderer {
            strategy: alike.like.strategy(default),
            default,
            weights: *weights,
            failed: own.is_none() && alike.like.wants_own_score(),
            own,
            pod_cpu: float(alike.cpu_millis) / 1000.0,
            pod_memory: float(alike.memory_bytes) / GIB,
        }
    }

    pub(super) fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whether the user's own score gave no number for a node.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Orders by the cluster's default from now on.
    pub(super) fn fall_back(&mut self) {
        tracing::warn!(
            strategy = self.default.as_str(),
            "a service's own score gives no number for a node: its pods are placed by default"
        );
        self.own = None;
        self.strategy = self.default;
        self.failed = false;
    }

    pub(super) fn key(&mut self, unmet: u32, entry: &Entry) -> Key {
        let terms = Terms::of(&entry.node, entry.placed);
        let weights = self.weights;
        let pressure = || terms.score(&weights).millionths();
        let (first, second) = match (self.own.is_some(), self.strategy) {
            (true, _) => (self.own_key(entry, &terms), 0),
            (false, Strategy::Pressure) => (pressure(), 0),
            (false, Strategy::Spread) => (u64::from(entry.node.pods), pressure()),
            (false, Strategy::Binpack) => (u64::MAX - fullness(&terms), pressure()),
            (false, Strategy::WorstFit) => (fullness(&terms), pressure()),
            (false, Strategy::Cheapest) => {
                (price_of(entry).map_or(u64::MAX, millionths), pressure())
            }
            (false, Strategy::FirstFit | Strategy::RoundRobin | Strategy::Random) => (0, 0),
        };
        Key {
            unmet,
            first,
            second,
            order: entry.order,
        }
    }

    fn own_key(&mut self, entry: &Entry, terms: &Terms) -> u64 {
        let capacity = &entry.node.capacity;
        let value = self.own.as_ref().and_then(|own| {
            own.evaluate(|name| {
                Some(match name {
                    "pods" => terms.pods,
                    "cpu" => terms.cpu,
                    "memory" => terms.memory,
                    "pressure_memory" => terms.pressure_memory,
                    "pressure_io" => terms.pressure_io,
                    "pressure_cpu" => terms.pressure_cpu,
                    "placed" => terms.placed,
                    "price" => price_of(entry).unwrap_or_default(),
                    "node_pods" => f64::from(entry.node.pods),
                    "node_cpu" => float(capacity.cpu_millis) / 1000.0,
                    "node_memory" => float(capacity.memory_bytes) / GIB,
                    "pod_cpu" => self.pod_cpu,
                    "pod_memory" => self.pod_memory,
                    label => number_of(entry, label.strip_prefix("label_")?).unwrap_or_default(),
                })
            })
        });
        match value {
            Some(value) => ordered(value),
            None => {
                self.failed = true;
                u64::MAX
            }
        }
    }
}

const GIB: f64 = 1_073_741_824.0;

/// Share of the node that is asked for, the mean of cpu, memory and pods, in millionths.
fn fullness(terms: &Terms) -> u64 {
    millionths((terms.cpu + terms.memory + terms.pods) / 3.0)
}

/// A node's price per hour, as its label says.
fn price_of(entry: &Entry) -> Option<f64> {
    number_of(entry, PRICE_LABEL).filter(|price| *price >= 0.0)
}

fn number_of(entry: &Entry, label: &str) -> Option<f64> {
    let number: f64 = entry.labels.get(label)?.parse().ok()?;
    number.is_finite().then_some(number)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "neither negative nor nan, and a cast saturates"
)]
fn millionths(value: f64) -> u64 {
    (value * MILLION).round() as u64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a term needs no more than 52 bits"
)]
fn float(value: u64) -> f64 {
    value as f64
}

/// A number as one that sorts the same: negative ones are turned round, the others come behind them.
fn ordered(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits(); // no negative zero
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | 1 << 63
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_as_they_are() {
        let numbers = [-1e9, -2.0, -0.5, 0.0, 1e-9, 0.5, 2.0, 1e9];
        for pair in numbers.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]), "{pair:?}");
        }
        assert_eq!(ordered(-0.0), ordered(0.0));
    }
}
