//! Probes: whether a container lives, and whether it is ready, as its spec has it asked.
//!
//! [`Judge`] is the rule, pure; `ask` makes one request; [`run`] asks again and again while the
//! container runs. A probe that is still under way is never asked a second time, so what hangs in a
//! container hangs once.

mod ask;
mod judge;

use std::time::{Duration, Instant};

use self::ask::{Answer, Asked};
use self::judge::Judge;
use super::worker::{Kind, Probing};
use crate::model::service::Probe;

/// Longest pause while a new container was not ready even once: an update waits for it.
const EAGER: Duration = Duration::from_secs(1);

/// Asks one probe of a container until it is dropped, and tells each verdict that is new.
pub(super) async fn run(probing: Probing, kind: Kind, probe: Probe, fresh: bool) {
    let began = Instant::now();
    let verdict = match kind {
        // It is alive until it proves otherwise.
        Kind::Liveness => Some(true),
        // One that ran before this agent came keeps the verdict that Redis has.
        Kind::Readiness => fresh.then_some(false),
    };
    let mut judge = Judge::new(&probe, verdict);
    let mut eager = fresh && kind == Kind::Readiness;
    let first = if fresh {
        probe.interval.0.min(EAGER)
    } else {
        probe.interval.0
    };
    // Containers that began together are asked at different times.
    tokio::time::sleep(first.mul_f64(rand::random_range(0.0..=1.0))).await;
    let mut asked = Asked::new(&probe);
    loop {
        let at = Instant::now();
        match asked.next(&probing).await {
            Answer::Good => {
                eager = false;
                if judge.hear(true, began.elapsed()) {
                    probing.tell(kind, true, String::new());
                }
            }
            Answer::Bad(words) => {
                if judge.hear(false, began.elapsed()) {
                    probing.tell(kind, false, words);
                }
            }
            Answer::None => {}
        }
        let pause = if eager {
            probe.interval.0.min(EAGER)
        } else {
            probe.interval.0
        };
        tokio::time::sleep_until((at + pause).into()).await;
    }
}
