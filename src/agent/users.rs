//! The pods that use most of this node, told with its heartbeats while the node is under pressure.
//!
//! A node that is calm samples nothing and tells nothing. What is told is bounded: the first few by
//! each resource. It says nothing of what should become of them.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tokio::sync::watch;

use super::pressure::Sample;
use super::requests::Samples;
use super::worker::Workers;
use crate::container::ContainerState;
use crate::model::PodId;
use crate::store::PodUse;

/// Pods told, by each of cpu, memory and io.
const EACH: usize = 5;
/// Containers sampled at once: the engine is under the same pressure.
const AT_ONCE: usize = 8;
/// Most containers sampled in one look.
const CONTAINERS_MAX: usize = 500;
/// Percent of the last 60 s from which on a node tells: below any sensible threshold of schedulers.
const PRESSED_MIN: f64 = 5.0;

/// What was found last.
#[derive(Default)]
pub(super) struct Users {
    wanted: watch::Sender<bool>,
    found: Mutex<Vec<PodUse>>,
}

impl Users {
    /// Notes how the machine is; gives what is to be told.
    pub(super) fn told(&self, sample: &Sample) -> Vec<PodUse> {
        let wanted = is_pressed(sample);
        self.wanted.send_if_modified(|was| {
            let changes = *was != wanted;
            *was = wanted;
            changes
        });
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted {
            found.clear();
        }
        found.clone()
    }

    fn set(&self, users: Vec<PodUse>) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = users;
    }
}

fn is_pressed(sample: &Sample) -> bool {
    let pressure = &sample.pressure;
    let cpu = pressure.cpu_avg60 * sample.cpu_used.clamp(0.0, 1.0);
    let worst = cpu.max(pressure.memory_avg60).max(pressure.io_avg60);
    pressure.known && worst >= PRESSED_MIN
}

/// Looks every `interval` while the node is under pressure. Cancel-safe.
pub(super) async fn run(workers: &Arc<Workers>, interval: Duration) {
    let samples = Samples::default();
    let mut wanted = workers.users.wanted.subscribe();
    // The sender lives as long as the workers.
    while wanted.wait_for(|wanted| *wanted).await.is_ok() {
        workers.users.set(look(workers, &samples).await);
        tokio::time::sleep(interval).await;
    }
}

async fn look(workers: &Workers, samples: &Samples) -> Vec<PodUse> {
    let known = workers.known_pods().into_iter();
    let running = known.filter_map(|pod| {
        let container = workers.container(&pod)?;
        (container.state == ContainerState::Running).then_some((pod, container.id))
    });
    let one = |(pod, container): (PodId, String)| async move {
        // One that has just ended uses nothing.
        let (earlier, later) = samples.two(workers.runtime(), &container).await.ok()?;
        let ns = u128::from(later.at_ns.saturating_sub(earlier.at_ns).max(1));
        let rate = |earlier: u64, later: u64, unit: u128| {
            let rate = u128::from(later.saturating_sub(earlier)) * unit / ns;
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        let blocks = |sample: &crate::container::Sample| {
            let read = sample.block_read_bytes;
            read.saturating_add(sample.block_written_bytes)
        };
        Some(PodUse {
            pod,
            cpu_millis: rate(earlier.cpu_ns, later.cpu_ns, 1000),
            memory_bytes: later.memory_bytes,
            io_bytes: rate(blocks(&earlier), blocks(&later), 1_000_000_000),
        })
    };
    let looks = iter(running.take(CONTAINERS_MAX))
        .map(one)
        .buffer_unordered(AT_ONCE);
    let used: Vec<Option<PodUse>> = looks.collect().await;
    heaviest(used.into_iter().flatten().collect())
}

/// The first of each resource; one that uses nothing of it is none of these.
fn heaviest(mut pods: Vec<PodUse>) -> Vec<PodUse> {
    let of: [fn(&PodUse) -> u64; 3] = [
        |pod| pod.cpu_millis,
        |pod| pod.memory_bytes,
        |pod| pod.io_bytes,
    ];
    let mut found: Vec<PodUse> = Vec::new();
    for used in of {
        pods.sort_by(|one, other| {
            let order = Reverse(used(one)).cmp(&Reverse(used(other)));
            order.then_with(|| one.pod.cmp(&other.pod))
        });
        for pod in pods.iter().take(EACH).filter(|pod| used(pod) > 0) {
            if !found.contains(pod) {
                found.push(pod.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_resource_are_told_once() {
        let pod = |number: u64| PodUse {
            pod: PodId::parse(&format!("p{number:02}")).unwrap(),
            cpu_millis: number,
            memory_bytes: 100 - number,
            io_bytes: if number == 50 { 7 } else { 0 },
        };
        let told = heaviest((0..100).map(pod).collect());
        let told: Vec<&str> = told.iter().map(|user| user.pod.as_str()).collect();
        let expected = [
            "p99", "p98", "p97", "p96", "p95", "p00", "p01", "p02", "p03", "p04", "p50",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_calm_node_tells_nothing() {
        let users = Users::default();
        users.set(vec![PodUse {
            pod: PodId::parse("a").unwrap(),
            cpu_millis: 1,
            memory_bytes: 1,
            io_bytes: 1,
        }]);
        let mut sample = Sample::default();
        sample.pressure.known = true;
        sample.pressure.cpu_avg60 = 90.0;
        sample.cpu_used = 0.5;
        assert_eq!(users.told(&sample).len(), 1);
        sample.cpu_used = 0.0;
        assert_eq!(users.told(&sample), Vec::new());
    }
}
