//! Whether the node is above its pressure limit: then it takes no more pods.
//!
//! Pure. It stops above a limit and takes again below [`AGAIN_BELOW`] of it, so that it does not go
//! back and forth around the limit.

use super::Sample;
use crate::settings::PressureLimits;

/// Share of a limit below which the node takes pods again.
const AGAIN_BELOW: f64 = 0.8;

/// The last judgement, on which the next depends.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Limit {
    limits: PressureLimits,
    is_above: bool,
}

impl Limit {
    pub(in crate::agent) fn new(limits: PressureLimits) -> Limit {
        Limit {
            limits,
            is_above: false,
        }
    }

    /// Judges the machine as it is now: what is above its limit, in words, if anything is.
    pub(in crate::agent) fn judge(&mut self, sample: &Sample) -> Option<String> {
        let (now, limits) = (&sample.pressure, &self.limits);
        let held = if self.is_above { AGAIN_BELOW } else { 1.0 };
        // Of an idle machine whose containers are throttled by their own limits nothing waits for it.
        let cpu = now.cpu_avg10 * sample.cpu_used.clamp(0.0, 1.0);
        let kinds = [
            ("memory", now.memory_avg10, limits.memory),
            ("io", now.io_avg10, limits.io),
            ("cpu", cpu, limits.cpu),
        ];
        let above = kinds
            .into_iter()
            .filter(|(_, percent, limit)| now.known && *limit > 0.0 && *percent > limit * held)
            .max_by(|one, other| (one.1 / one.2).total_cmp(&(other.1 / other.2)));
        self.is_above = above.is_some();
        above.map(|(kind, percent, limit)| format!("{kind} {percent:.0} %, its limit is {limit} %"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pressure;

    fn pressed(cpu: f64, memory: f64, io: f64) -> Sample {
        Sample {
            pressure: Pressure {
                known: true,
                cpu_avg10: cpu,
                memory_avg10: memory,
                io_avg10: io,
                ..Pressure::default()
            },
            cpu_used: 0.5,
            ..Sample::default()
        }
    }

    #[test]
    fn it_stops_above_the_limit_and_takes_again_well_below_it() {
        let mut limit = Limit::new(PressureLimits::default());
        let mut above = |percent| limit.judge(&pressed(0.0, percent, 0.0)).is_some();
        let course = [0.0, 40.0, 40.5, 39.0, 32.5, 31.9, 39.0, 41.0];
        let judged = course.map(&mut above);
        assert_eq!(judged, [false, false, true, true, true, false, false, true]);
    }

    #[test]
    fn the_worst_is_named() {
        let mut limit = Limit::new(PressureLimits::default());
        let told = limit.judge(&pressed(0.0, 41.0, 90.0));
        assert_eq!(told.as_deref(), Some("io 90 %, its limit is 60 %"));
        let told = limit.judge(&pressed(0.0, 80.0, 90.0));
        assert_eq!(told.as_deref(), Some("memory 80 %, its limit is 40 %"));
    }

    #[test]
    fn cpu_counts_as_far_as_it_is_used_and_no_limit_is_none() {
        let limits = PressureLimits {
            cpu: 40.0,
            memory: 0.0,
            io: 0.0,
        };
        let mut limit = Limit::new(limits);
        assert_eq!(limit.judge(&pressed(75.0, 99.0, 99.0)), None);
        assert!(limit.judge(&pressed(85.0, 0.0, 0.0)).is_some());
        let unknown = Sample {
            pressure: Pressure {
                cpu_avg10: 99.0,
                ..Pressure::default()
            },
            cpu_used: 1.0,
            ..Sample::default()
        };
        assert_eq!(limit.judge(&unknown), None);
    }
}
