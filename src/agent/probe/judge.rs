//! The rule of a probe: how many answers in a row turn the verdict.

use std::time::Duration;

use crate::model::service::Probe;

/// Turns answers into a verdict. Pure.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    failures: u32,
    successes: u32,
    start_period: Duration,
    verdict: Option<bool>,
    /// Answers in a row that speak against the verdict, all of one kind.
    row: u32,
    row_is_good: bool,
}

impl Judge {
    /// The judge of a probe; `verdict` is what holds before the first answer, if anything does.
    pub(super) fn new(probe: &Probe, verdict: Option<bool>) -> Judge {
        Judge {
            failures: probe.failures,
            successes: probe.successes,
            start_period: probe.start_period.0,
            verdict,
            row: 0,
            row_is_good: true,
        }
    }

    /// Hears an answer of a container of that age; true if the verdict is another now.
    pub(super) fn hear(&mut self, good: bool, age: Duration) -> bool {
        if !good && age < self.start_period {
            self.row = 0; // it may fail yet, but it is no success in a row either
            return false;
        }
        if self.verdict == Some(good) {
            self.row = 0;
            return false;
        }
        if self.row_is_good != good {
            self.row = 0;
        }
        self.row_is_good = good;
        self.row = self.row.saturating_add(1);
        let needed = if good { self.successes } else { self.failures };
        if self.row < needed {
            return false;
        }
        self.row = 0;
        self.verdict = Some(good);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn probe(failures: u32, successes: u32, start_period: u64) -> Probe {
        serde_json::from_value(serde_json::json!({
            "tcp": {"port": 1}, "failures": failures, "successes": successes,
            "start_period": start_period,
        }))
        .unwrap()
    }

    #[test]
    fn failures_of_the_start_do_not_count() {
        let mut judge = Judge::new(&probe(2, 1, 10), Some(true));
        for age in 0..10 {
            assert!(!judge.hear(false, Duration::from_secs(age)));
        }
        assert!(!judge.hear(false, Duration::from_secs(10)));
        assert!(judge.hear(false, Duration::from_secs(11)));
    }

    #[test]
    fn a_first_verdict_needs_its_row_too() {
        let mut judge = Judge::new(&probe(3, 2, 0), None);
        let age = Duration::from_secs(1);
        assert!(!judge.hear(true, age));
        assert!(!judge.hear(false, age));
        assert!(!judge.hear(true, age));
        assert_eq!(judge.verdict, None);
        assert!(judge.hear(true, age));
        assert_eq!(judge.verdict, Some(true));
    }

    proptest! {
        /// Against the plainest model: the verdict turns exactly when the last answers say so.
        #[test]
        fn the_verdict_turns_when_enough_in_a_row_say_so(
            answers in prop::collection::vec(any::<bool>(), 0..60),
            failures in 1..4u32, successes in 1..4u32, start in 0..20usize,
            first in prop::option::of(any::<bool>()),
        ) {
            let mut judge = Judge::new(&probe(failures, successes, start as u64), first);
            let mut verdict = first;
            // Where the row that counts begins: after a turn, and after what does not count.
            let mut begin = 0;
            for at in 0..answers.len() {
                let told = judge.hear(answers[at], Duration::from_secs(at as u64));
                if !answers[at] && at < start {
                    begin = at + 1;
                }
                let needed = if answers[at] { successes } else { failures } as usize;
                let row = answers[begin.min(at + 1)..=at].iter().rev();
                let row = row.take_while(|it| **it == answers[at]).count();
                let turns = verdict != Some(answers[at]) && row >= needed;
                if turns {
                    verdict = Some(answers[at]);
                    begin = at + 1;
                }
                prop_assert_eq!(told, turns, "at {}", at);
                prop_assert_eq!(judge.verdict, verdict);
            }
        }
    }
}
