//! Pauses, policies and ends, without an engine and without waiting.

use proptest::prelude::*;

use super::*;
use crate::model::service::RestartPolicy;

const PACE: Pace = Pace {
    first: Duration::from_secs(1),
    max: Duration::from_secs(300),
    reset: Duration::from_secs(600),
};

fn rule(policy: RestartPolicy, max: Option<u32>) -> Restart {
    Restart { policy, max }
}

fn new() -> Restarts {
    Restarts::taken_up(0, Phase::Starting, Restart::default(), PACE)
}

const ALWAYS: Restart = Restart {
    policy: RestartPolicy::Always,
    max: None,
};

#[test]
fn pauses_grow_and_begin_again_after_a_time_of_being_well() {
    let mut restarts = new();
    let mut now = Instant::now();
    restarts.started(now);
    for (number, whole) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        .into_iter()
        .enumerate()
    {
        now += Duration::from_secs(1);
        restarts.ended(1, None, ALWAYS, now);
        let waiting = restarts.waiting().unwrap().clone();
        let (pause, whole) = (waiting.due - now, Duration::from_secs(whole));
        assert!(
            pause <= whole && pause >= whole.mul_f64(JITTER),
            "{pause:?}"
        );
        assert_eq!(waiting.phase, Some(Phase::CrashLoop));
        let words = format!("exited with code 1; restart {} in ", number + 1);
        assert!(waiting.reason.starts_with(&words), "{}", waiting.reason);
        restarts.ended(1, None, ALWAYS, now + pause / 2);
        assert_eq!(restarts.waiting(), Some(&waiting), "an end counts once");
        now = waiting.due;
        restarts.started(now);
        assert_eq!(restarts.total() as usize, number + 1);
    }
    now += PACE.reset;
    restarts.ended(137, Some("out of memory"), ALWAYS, now);
    let waiting = restarts.waiting().unwrap();
    assert!(waiting.due - now <= PACE.first);
    let words = "exited with code 137: out of memory; restart 12 in 1s";
    assert_eq!(waiting.reason, words);
}

#[test]
fn a_rule_that_allows_no_restart_ends_the_placement() {
    let now = Instant::now();
    for (policy, code, phase) in [
        (RestartPolicy::Never, 0, Phase::Succeeded),
        (RestartPolicy::Never, 3, Phase::Failed),
        (RestartPolicy::OnFailure, 0, Phase::Succeeded),
    ] {
        let mut restarts = new();
        restarts.started(now);
        restarts.ended(code, None, rule(policy, None), now);
        let end = restarts.end().unwrap();
        assert_eq!((end.phase, end.exit_code), (phase, Some(code)));
        assert_eq!(end.reason, format!("exited with code {code}"));
    }
    let mut restarts = new();
    restarts.started(now);
    let twice = rule(RestartPolicy::OnFailure, Some(2));
    for _ in 0..2 {
        restarts.ended(1, None, twice, now);
        assert!(restarts.end().is_none());
        restarts.started(now);
    }
    restarts.ended(1, None, twice, now);
    assert_eq!(restarts.end().unwrap().phase, Phase::Failed);
    assert_eq!(restarts.total(), 2);
}

#[test]
fn an_unhealthy_end_is_a_failure_whatever_its_code() {
    let now = Instant::now();
    let mut restarts = new();
    restarts.started(now);
    restarts.condemn("GET / answered 500".to_owned(), now);
    restarts.ended(0, None, rule(RestartPolicy::OnFailure, None), now);
    let waiting = restarts.waiting().unwrap();
    let words = "unhealthy: GET / answered 500; restart 1 in 1s";
    assert_eq!(
        (waiting.reason.as_str(), waiting.exit_code),
        (words, Some(0))
    );
    restarts.started(now);
    restarts.condemn("again".to_owned(), now);
    restarts.ended(0, None, rule(RestartPolicy::Never, None), now);
    assert_eq!(restarts.end().unwrap().phase, Phase::Failed);
}

#[test]
fn a_refusal_is_tried_again_and_then_left_to_another_node() {
    let now = Instant::now();
    let mut restarts = new();
    for number in 1..START_TRIES_MAX {
        restarts.refused("no space".to_owned(), now);
        let waiting = restarts.waiting().unwrap();
        assert_eq!(waiting.phase, None, "it never ran: it is starting still");
        let whole = Duration::from_secs(1 << (number - 1));
        assert!(waiting.due - now <= whole);
        assert!(waiting.reason.starts_with("no space; next try in "));
    }
    restarts.refused("no space".to_owned(), now);
    let end = restarts.end().unwrap();
    assert_eq!(
        (end.phase, end.reason.as_str(), end.exit_code),
        (Phase::Failed, "no space", None)
    );

    let mut restarts = new();
    restarts.started(now);
    restarts.ended(7, None, ALWAYS, now);
    restarts.refused("no space".to_owned(), now);
    let waiting = restarts.waiting().unwrap();
    assert_eq!(waiting.phase, Some(Phase::CrashLoop), "it ran once");
    assert_eq!(waiting.exit_code, Some(7));
    restarts.started(now);
    assert_eq!(restarts.total(), 1, "the refusal was no restart");
}

#[test]
fn counts_are_taken_up_from_redis() {
    let now = Instant::now();
    let max = rule(RestartPolicy::OnFailure, Some(3));
    let mut looping = Restarts::taken_up(2, Phase::CrashLoop, max, PACE);
    looping.ended(1, None, max, now);
    let waiting = looping.waiting().unwrap();
    assert!(
        waiting.due - now > Duration::from_secs(3),
        "the third pause"
    );
    assert!(waiting.reason.contains("restart 3 in "));
    looping.started(now);
    looping.ended(1, None, max, now);
    assert!(looping.end().is_some(), "three in a row");

    let mut long_lived = Restarts::taken_up(50, Phase::Running, max, PACE);
    long_lived.ended(1, None, max, now);
    assert!(long_lived.waiting().unwrap().due - now <= PACE.first);
    assert_eq!(long_lived.total(), 50);
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Starts,
    Ends(i64),
    Refuses,
    Runs,
}

proptest! {
    #[test]
    fn whatever_happens_one_thing_follows(
        happens in prop::collection::vec(prop_oneof![
            Just(Happens::Starts), (0..3i64).prop_map(Happens::Ends),
            Just(Happens::Refuses), Just(Happens::Runs),
        ], 0..60),
        max in prop::option::of(0..4u32),
    ) {
        let rule = rule(RestartPolicy::OnFailure, max);
        let mut restarts = Restarts::taken_up(0, Phase::Starting, rule, PACE);
        let now = Instant::now();
        let mut total = 0;
        for what in happens {
            let over = restarts.end().cloned();
            match what {
                _ if over.is_some() => break,
                Happens::Starts => restarts.started(now),
                Happens::Ends(code) => restarts.ended(code, None, rule, now),
                Happens::Refuses => restarts.refused("no".to_owned(), now),
                Happens::Runs => restarts.runs(now),
            }
            prop_assert!(restarts.end().is_none() || restarts.waiting().is_none());
            prop_assert!(restarts.total() >= total, "a count never goes back");
            total = restarts.total();
            if let Some(max) = max {
                prop_assert!(total <= max, "nothing here was ever well for long");
            }
        }
    }
}
