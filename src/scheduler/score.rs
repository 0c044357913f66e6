//! How good a node is for the next pod: terms between 0 and 1, weighted and summed; lower is better.
//!
//! Pure. Pressure is the higher of the kernel's 10 and 60 second averages: it rises at once and
//! falls slowly, so a node that calms down for a moment is not flooded. A container throttled by
//! its own cpu limit raises cpu pressure on an idle machine, so cpu pressure counts only in
//! proportion to real cpu use. It counts in whole steps: the noise between two alike machines must
//! not outweigh the pods they hold, and less than one step is calm.

use crate::settings::Weights;
use crate::store::NodeSnapshot;

/// Steps in which pressure counts: 5 % each.
const PRESSURE_STEPS: f64 = 20.0;

/// What a score is made of, each between 0 and 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// Pods over `pods_max`.
    pub pods: f64,
    /// Requested over offered cpu.
    pub cpu: f64,
    /// Requested over offered memory.
    pub memory: f64,
    /// PSI of memory.
    pub pressure_memory: f64,
    /// PSI of io.
    pub pressure_io: f64,
    /// PSI of cpu times real cpu use.
    pub pressure_cpu: f64,
    /// Pods placed since the last heartbeat over `pods_max`.
    pub placed: f64,
}

/// A score in millionths: whole numbers, so that equal input gives equal order everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(u64);

impl Score {
    /// As a whole number.
    pub fn millionths(self) -> u64 {
        self.0
    }
}

impl Terms {
    /// The terms of a node on which `placed` pods were placed since its last heartbeat.
    pub fn of(node: &NodeSnapshot, placed: u32) -> Terms {
        let capacity = &node.capacity;
        let pressure = &node.pressure;
        let share = |used: f64, offered: f64| {
            if offered > 0.0 {
                (used / offered).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        let stalled = |avg10: f64, avg60: f64, weight: f64| {
            let share = (avg10.max(avg60) / 100.0).clamp(0.0, 1.0) * weight;
            (share * PRESSURE_STEPS).floor() / PRESSURE_STEPS
        };
        let pods_max = f64::from(capacity.pods_max);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share needs no more than 52 bits"
        )]
        let (cpu, memory) = (
            share(node.cpu_requested as f64, capacity.cpu_millis as f64),
            share(node.memory_requested as f64, capacity.memory_bytes as f64),
        );
        Terms {
            pods: share(f64::from(node.pods), pods_max),
            cpu,
            memory,
            pressure_memory: stalled(pressure.memory_avg10, pressure.memory_avg60, 1.0),
            pressure_io: stalled(pressure.io_avg10, pressure.io_avg60, 1.0),
            pressure_cpu: stalled(
                pressure.cpu_avg10,
                pressure.cpu_avg60,
                node.cpu_used.clamp(0.0, 1.0),
            ),
            placed: share(f64::from(placed), pods_max),
        }
    }

    /// The weighted sum.
    pub fn score(&self, weights: &Weights) -> Score {
        let sum = self.pods * weights.pods
            + self.cpu * weights.cpu
            + self.memory * weights.memory
            + self.pressure_memory * weights.pressure_memory
            + self.pressure_io * weights.pressure_io
            + self.pressure_cpu * weights.pressure_cpu
            + self.placed * weights.placed;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "terms and weights are not negative, and a cast saturates"
        )]
        Score((sum * 1_000_000.0).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::cluster::tests::calm;

    #[test]
    fn cpu_pressure_of_an_idle_machine_does_not_count() {
        let mut node = calm("n");
        node.pressure.cpu_avg10 = 90.0;
        node.cpu_used = 0.0;
        assert_eq!(Terms::of(&node, 0).pressure_cpu, 0.0);
        node.cpu_used = 1.0;
        assert_eq!(Terms::of(&node, 0).pressure_cpu, 0.9);
    }

    #[test]
    fn noise_is_calm() {
        let mut node = calm("n");
        node.pressure.io_avg10 = 4.9;
        assert_eq!(Terms::of(&node, 0).pressure_io, 0.0);
        node.pressure.io_avg10 = 14.0;
        assert_eq!(Terms::of(&node, 0).pressure_io, 0.1);
    }

    proptest! {
        #[test]
        fn a_score_never_improves_when_a_pressure_rises(
            kind in 0..6usize, low in 0.0..100.0f64, rise in 0.0..100.0f64, used in 0.0..1.0f64,
        ) {
            let weights = Weights::default();
            let score = |value: f64| {
                let mut node = calm("n");
                node.cpu_used = used;
                let p = &mut node.pressure;
                *[&mut p.cpu_avg10, &mut p.cpu_avg60, &mut p.memory_avg10, &mut p.memory_avg60,
                  &mut p.io_avg10, &mut p.io_avg60][kind] = value;
                Terms::of(&node, 0).score(&weights)
            };
            prop_assert!(score(low + rise) >= score(low));
        }

        #[test]
        fn terms_lie_between_0_and_1(pods in 0..10_000u32, cpu in 0..u64::MAX / 2, avg in 0.0..1e6f64, placed in 0..10_000u32) {
            let mut node = calm("n");
            node.pods = pods;
            node.cpu_requested = cpu;
            node.pressure.io_avg60 = avg;
            let terms = Terms::of(&node, placed);
            for term in [terms.pods, terms.cpu, terms.memory, terms.pressure_memory, terms.pressure_io, terms.pressure_cpu, terms.placed] {
                prop_assert!((0.0..=1.0).contains(&term));
            }
        }
    }
}
