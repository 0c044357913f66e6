//! What containers use: two samples of each, as many at once as the engine takes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::time::Instant;

use super::talk::{Mouth, Over};
use crate::agent::worker::Workers;
use crate::container::{Runtime, RuntimeError, Sample};
use crate::model::{PodId, StatsAnswer, Usage};
use crate::store::Frame;
use crate::telemetry::chain;

/// Containers sampled at once: the engine looks at all of them once a second anyway.
const AT_ONCE: usize = 256;
/// Time for all answers; the API waits a little longer.
const LIMIT: Duration = Duration::from_millis(2500);
/// Least time between two samples whose difference is a rate.
const APART_MIN: Duration = Duration::from_millis(400);
/// Oldest sample that is compared with: a rate of the last minute is still of now.
const APART_MAX: Duration = Duration::from_secs(60);
/// Answers in one frame, each of about 250 bytes.
const ANSWERS: usize = 50;

/// The last sample of each container that was asked about in the last minute.
#[derive(Default)]
pub(in crate::agent) struct Samples(Mutex<HashMap<String, (Instant, Sample)>>);

impl Samples {
    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, Sample)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a container uses.
    async fn usage(&self, runtime: &Runtime, container: &str) -> Result<Usage, RuntimeError> {
        let (earlier, later) = self.two(runtime, container).await?;
        Ok(usage(&earlier, &later))
    }

    /// Two samples of a container, the later one of now.
    pub(in crate::agent) async fn two(
        &self,
        runtime: &Runtime,
        container: &str,
    ) -> Result<(Sample, Sample), RuntimeError> {
        let now = Instant::now();
        let earlier = self.known().get(container).copied();
        let earlier = earlier.filter(|(at, _)| (APART_MIN..=APART_MAX).contains(&(now - *at)));
        let earlier = match earlier {
            Some((_, earlier)) => earlier,
            None => {
                let first = runtime.sample(container).await?;
                tokio::time::sleep(APART_MIN).await;
                first
            }
        };
        let later = runtime.sample(container).await?;
        let mut known = self.known();
        known.retain(|_, (at, _)| at.elapsed() < APART_MAX);
        known.insert(container.to_owned(), (Instant::now(), later));
        Ok((earlier, later))
    }
}

/// Answers what `pods` use, all of the node where none is named; gives the session's last frame.
pub(super) async fn answer(
    workers: &Workers,
    samples: &Samples,
    mouth: &Mouth,
    pods: Vec<PodId>,
) -> Result<Frame, Over> {
    let pods = if pods.is_empty() {
        let known = workers.known_pods().into_iter();
        known
            .filter(|pod| workers.container(pod).is_some())
            .collect()
    } else {
        pods
    };
    let deadline = Instant::now() + LIMIT;
    let one = |pod: PodId| async move {
        let usage = match workers.container(&pod) {
            None => Err("its node has no container of it".to_owned()),
            Some(container) => {
                let usage = samples.usage(workers.runtime(), &container.id);
                match tokio::time::timeout_at(deadline, usage).await {
                    Ok(Ok(usage)) => Ok(Usage {
                        pressure: workers.pressure_of(&container.id),
                        ..usage
                    }),
                    Ok(Err(RuntimeError::ContainerMissing { .. })) => {
                        Err("its container does not run".to_owned())
                    }
                    Ok(Err(error)) => Err(chain(&error)),
                    Err(_) => Err(format!("the engine did not tell within {LIMIT:?}")),
                }
            }
        };
        StatsAnswer { pod, usage }
    };
    let answers = iter(pods)
        .map(one)
        .buffer_unordered(AT_ONCE)
        .ready_chunks(ANSWERS);
    let mut answers = Box::pin(answers);
    let over = mouth.over();
    tokio::pin!(over);
    loop {
        let answers = tokio::select! {
            answers = answers.next() => answers,
            () = &mut over => return Err(Over),
        };
        let Some(answers) = answers else {
            return Ok(Frame::End);
        };
        // Plain values with string keys, which always have a JSON form.
        let json = serde_json::to_vec(&answers).unwrap_or_default();
        mouth.say(Frame::Stats(json)).await?;
    }
}

fn usage(earlier: &Sample, later: &Sample) -> Usage {
    let time = later.at_ns.saturating_sub(earlier.at_ns).max(1);
    let cpu = later.cpu_ns.saturating_sub(earlier.cpu_ns);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let cores = cpu as f64 / time as f64;
    Usage {
        cpu_cores: (cores * 1000.0).round() / 1000.0,
        memory_bytes: later.memory_bytes,
        memory_limit_bytes: later.memory_limit_bytes,
        network_received_bytes: later.network_received_bytes,
        network_sent_bytes: later.network_sent_bytes,
        block_read_bytes: later.block_read_bytes,
        block_written_bytes: later.block_written_bytes,
        pids: later.pids,
        pressure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_cpu_time_over_time() {
        let earlier = Sample {
            at_ns: 1_000_000_000,
            cpu_ns: 500,
            ..Sample::default()
        };
        let later = Sample {
            at_ns: 3_000_000_000,
            cpu_ns: 3_000_000_500,
            pids: 4,
            ..Sample::default()
        };
        let used = usage(&earlier, &later);
        assert!((used.cpu_cores - 1.5).abs() < 1e-9, "{used:?}");
        assert_eq!(used.pids, 4);
        // A container that was started again in between counts from zero.
        assert!(usage(&later, &earlier).cpu_cores < 1e-9);
    }
}
