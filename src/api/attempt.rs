//! Tries of a call to Redis within a request, and what a failure in the end means to the user.
//!
//! The store never retries; a request does, a few times and with the same ids, so that a fail-over
//! of a second is not seen by users.

use std::time::{Duration, Instant};

use super::problem::{Kind, Problem};
use crate::store::StoreError;
use crate::store::backoff::Backoff;
use crate::telemetry;

/// Most tries of one call.
const TRIES_MAX: usize = 3;
/// Time for all tries of one call.
pub(super) const BUDGET: Duration = Duration::from_secs(3);

/// What to do after an outcome that is unknown.
pub(super) const REPEAT: &str =
    "send the same request again: what was done already is not done twice";

/// Whether a call changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It only reads.
    Reads,
    /// It changes something, in one call of the store.
    Changes,
    /// Likewise, in several calls: even a refused one says nothing of those before it.
    ChangesInSteps,
}

/// What a call answered, and whether an earlier try may have been carried out.
pub(super) struct Answered<T> {
    pub(super) value: T,
    pub(super) repeated: bool,
}

/// Calls until it works, at most [`TRIES_MAX`] times within [`BUDGET`].
pub(super) async fn attempt<T, F>(
    effect: Effect,
    mut call: impl FnMut() -> F,
) -> Result<Answered<T>, Problem>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + BUDGET;
    let mut backoff = Backoff::new();
    let mut repeated = false;
    for tried in 1.. {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match tokio::time::timeout(left, call()).await {
            Ok(Ok(value)) => return Ok(Answered { value, repeated }),
            Ok(Err(error)) => error,
            Err(_) => {
                tracing::warn!(tried, "no answer from Redis in time");
                return Err(given_up(
                    effect != Effect::Reads,
                    "Redis did not answer in time",
                ));
            }
        };
        if error.is_full() {
            tracing::warn!(error = telemetry::chain(&error), "Redis is full");
            return Err(Problem::new(
                Kind::StoreFull,
                "Redis has reached its memory limit: delete services, or raise maxmemory",
            ));
        }
        if let StoreError::Newer { .. } = error {
            tracing::error!(error = telemetry::chain(&error), "this version is too old");
            return Err(Problem::new(Kind::StoreUnsupported, error.to_string()));
        }
        if !error.is_retryable() {
            tracing::error!(error = telemetry::chain(&error), "call to Redis failed");
            return Err(Problem::internal());
        }
        if let StoreError::Recovering { .. } = error {
            tracing::warn!(tried, error = telemetry::chain(&error), "Redis recovers");
            if tried >= TRIES_MAX || Instant::now() >= deadline {
                let detail = format!("{error}; the request was not carried out: try again");
                return Err(Problem::new(Kind::StoreUnavailable, detail));
            }
        }
        repeated |= may_be_done(effect, &error);
        let pause = backoff.next_pause();
        if tried >= TRIES_MAX || Instant::now() + pause >= deadline {
            tracing::warn!(tried, error = telemetry::chain(&error), "Redis is away");
            return Err(given_up(repeated, "Redis is away or failing over"));
        }
        tokio::time::sleep(pause).await;
    }
    // The loop ends by its returns alone.
    Err(Problem::internal())
}

fn given_up(may_be_done: bool, why: &str) -> Problem {
    if may_be_done {
        let detail = format!("{why}; the request may or may not have been carried out: {REPEAT}");
        Problem::new(Kind::OutcomeUnknown, detail)
    } else {
        let detail = format!("{why}; the request was not carried out: try again");
        Problem::new(Kind::StoreUnavailable, detail)
    }
}

/// Whether a failed try may have changed something: not if it was never sent, or was refused.
fn may_be_done(effect: Effect, error: &StoreError) -> bool {
    if let StoreError::Recovering { .. } = error {
        return false; // refused as a whole
    }
    match effect {
        Effect::Reads => false,
        Effect::Changes => !error.changed_nothing(),
        Effect::ChangesInSteps => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::connection::ConnectionError;

    fn away() -> StoreError {
        let reason = "a test".to_owned();
        StoreError::Unreachable(ConnectionError::NoMaster { reason })
    }

    fn unconfirmed() -> StoreError {
        StoreError::Unconfirmed {
            function: "kl_service_submit",
            confirmed: 0,
            wanted: 1,
        }
    }

    async fn given_up(effect: Effect, error: fn() -> StoreError) -> (u32, String) {
        let mut tries = 0;
        let call = || {
            tries += 1;
            async move { Err::<(), _>(error()) }
        };
        let problem = attempt(effect, call).await.err().unwrap();
        let problem = serde_json::to_value(problem).unwrap();
        (tries, problem["type"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn the_problem_says_whether_it_may_be_done() {
        for (effect, error, tries, kind) in [
            (Effect::Reads, away as fn() -> _, 3, "store-unavailable"),
            (Effect::Reads, unconfirmed, 3, "store-unavailable"),
            (Effect::Changes, away, 3, "store-unavailable"),
            (Effect::Changes, unconfirmed, 3, "outcome-unknown"),
            (Effect::ChangesInSteps, away, 3, "outcome-unknown"),
        ] {
            let expected = (tries, format!("/problems/{kind}"));
            assert_eq!(given_up(effect, error).await, expected, "{effect:?}");
        }
        let broken = || StoreError::Protocol {
            function: "kl_service_submit",
            what: "rubbish".to_owned(),
        };
        let expected = (1, "/problems/internal".to_owned());
        assert_eq!(given_up(Effect::Changes, broken).await, expected);
    }

    #[tokio::test]
    async fn a_later_try_may_succeed_and_knows_of_the_earlier() {
        let mut errors = vec![unconfirmed()];
        let call = || {
            let error = errors.pop();
            async move { error.map_or(Ok(7), Err) }
        };
        let answered = attempt(Effect::Changes, call).await.ok().unwrap();
        assert_eq!((answered.value, answered.repeated), (7, true));
    }
}
