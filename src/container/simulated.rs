//! Containers in memory: the same port without an engine, for tests and benchmarks of many nodes.
//!
//! Clones share their containers, so a restarted agent finds them again. Tests write the script:
//! what fails, what hangs, what ends. It must stay light: ten thousand live in one process.

mod attach;
mod script;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, watch};

use self::state::{Simulation, State, Watcher};
use super::{
    Changes, Container, ContainerSpec, Created, EngineInfo, NameHolder, RuntimeError, Verb,
};
use crate::settings::SimulatedSettings;

/// Cores of a simulated machine, in thousandths, if nothing else is said.
const CPU_MILLIS: u64 = 64_000;
/// Memory of a simulated machine, if nothing else is said.
const MEMORY_BYTES: u64 = 256 << 30;
/// Notices a subscriber may leave unread before it is cut off: more than a node has pods.
const UNREAD_MAX: usize = 4096;
/// Exit code of a process that a stop's signal ended: 128 and SIGTERM's number.
const EXIT_CODE_STOPPED: i64 = 143;

/// A simulated engine. Clones are the same engine.
#[derive(Debug, Clone)]
pub struct Simulated {
    engine: Arc<Engine>,
}

#[derive(Debug)]
struct Engine {
    id: String,
    settings: SimulatedSettings,
    state: Mutex<State>,
}

/// How often each verb succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Containers made, adopted ones not counted.
    pub creates: u64,
    /// Containers started.
    pub starts: u64,
    /// Containers stopped.
    pub stops: u64,
    /// Containers removed.
    pub removes: u64,
    /// Images pulled.
    pub pulls: u64,
    /// Subscriptions to news begun.
    pub subscriptions: u64,
    /// Containers that run now.
    pub live: u64,
    /// Lines of logs that were read.
    pub lines: u64,
    /// Commands in containers that run now.
    pub execs: u64,
}

impl Simulated {
    /// An engine with the id `id`, of 64 cores and 256 GiB, which has no image yet.
    pub fn new(id: impl Into<String>, settings: SimulatedSettings) -> Simulated {
        Simulated {
            engine: Arc::new(Engine {
                id: id.into(),
                settings,
                state: Mutex::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is made in one piece, so a panic elsewhere leaves it sound.
        let state = self.engine.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if the engine answers.
    fn answer(&self, verb: Verb) -> Result<MutexGuard<'_, State>, RuntimeError> {
        let state = self.state();
        if state.is_down {
            return Err(unreachable(verb));
        }
        Ok(state)
    }

    pub(super) async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        let state = self.answer(Verb::Info)?;
        let (cpu_millis, memory_bytes) = state.capacity.unwrap_or((CPU_MILLIS, MEMORY_BYTES));
        Ok(EngineInfo {
            id: self.engine.id.clone(),
            cpu_millis,
            memory_bytes,
            version: "simulated".to_owned(),
        })
    }

    pub(super) async fn list(
        &self,
        node: &str,
        cluster: &str,
    ) -> Result<Vec<Container>, RuntimeError> {
        let state = self.answer(Verb::List)?;
        let ours = |spec: &ContainerSpec| spec.node == node && spec.cluster == cluster;
        Ok(state.shown(|spec, _| ours(spec)))
    }

    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<Created, RuntimeError> {
        let mut state = self.answer(Verb::Create)?;
        if !state.images.contains(&spec.spec.image) {
            let image = spec.spec.image.clone();
            return Err(RuntimeError::ImageMissing { image });
        }
        for name in [spec.name(), spec.long_name()] {
            let Some(id) = state.names.get(&name) else {
                state.counts.creates += 1;
                let id = state.add(name, Some(Arc::new(spec.clone())));
                return Ok(Created { id, adopted: false });
            };
            let holder = state.containers.get(id).and_then(Simulation::identity);
            match spec.judge(holder.as_ref()) {
                NameHolder::Same => {
                    let id = id.clone();
                    return Ok(Created { id, adopted: true });
                }
                NameHolder::OtherToken => return Err(RuntimeError::Superseded { id: id.clone() }),
                NameHolder::Stranger => {}
            }
        }
        Err(RuntimeError::NameTaken {
            name: spec.long_name(),
        })
    }

    pub(super) async fn pull(&self, image: &str) -> Result<(), RuntimeError> {
        let held = {
            let state = self.answer(Verb::Pull)?;
            state.pulls_held.as_ref().map(watch::Sender::subscribe)
        };
        if let Some(mut held) = held {
            // Ends with an error when the holder is dropped, which is the release.
            let _ = held.changed().await;
        }
        pass(self.engine.settings.pull_time).await;
        let mut state = self.answer(Verb::Pull)?;
        if state.images_denied.contains(image) {
            return Err(RuntimeError::ImageDenied {
                image: image.to_owned(),
                message: "no registry has it".to_owned(),
            });
        }
        state.counts.pulls += 1;
        state.images.insert(image.to_owned());
        Ok(())
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        drop(self.answer(Verb::Start)?);
        pass(self.engine.settings.start_time).await;
        let mut state = self.answer(Verb::Start)?;
        if !state.containers.contains_key(id) {
            return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
        }
        let scripted = state.start_failures.pop_front();
        let failure_rate = self.engine.settings.failure_rate;
        let by_chance = failure_rate > 0.0 && rand::random::<f64>() < failure_rate;
        let failure = scripted.or_else(|| by_chance.then(|| "a simulated failure".to_owned()));
        if let Some(message) = failure {
            let verb = Verb::Start;
            return Err(RuntimeError::Refused { verb, message });
        }
        state.run(id);
        Ok(())
    }

    pub(super) async fn stop(&self, id: &str, _grace: Duration) -> Result<(), RuntimeError> {
        drop(self.answer(Verb::Stop)?);
        pass(self.engine.settings.stop_time).await;
        let mut state = self.answer(Verb::Stop)?;
        if state.end(id, EXIT_CODE_STOPPED, None) {
            state.counts.stops += 1;
        }
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.answer(Verb::Remove)?;
        state.end(id, EXIT_CODE_STOPPED, None);
        if let Some(mut removed) = state.containers.remove(id) {
            state.names.remove(&removed.name);
            removed.log.end();
            state.counts.removes += 1;
            state.notify(removed.spec.as_deref());
        }
        Ok(())
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        let state = self.answer(Verb::Inspect)?;
        let found = state.containers.get(id);
        Ok(found.and_then(|container| container.shown(id)))
    }

    pub(super) async fn describe(&self, id: &str) -> Result<Option<ContainerSpec>, RuntimeError> {
        let state = self.answer(Verb::Inspect)?;
        let found = state.containers.get(id);
        Ok(found.and_then(|container| container.spec.as_deref().cloned()))
    }

    pub(super) async fn ended(&self, node: &str, cluster: &str) -> Result<Changes, RuntimeError> {
        let mut state = self.answer(Verb::Watch)?;
        let (sender, notices) = mpsc::channel(UNREAD_MAX);
        state.counts.subscriptions += 1;
        if state.refuses_news {
            return Ok(stream::once(async { Err(unreachable(Verb::Watch)) }).boxed());
        }
        state
            .watchers
            .retain(|watcher| !watcher.notices.is_closed());
        state.watchers.push(Watcher {
            node: node.to_owned(),
            cluster: cluster.to_owned(),
            notices: sender,
        });
        let changes = stream::unfold(Some(notices), |notices| async move {
            let mut notices = notices?;
            match notices.recv().await {
                Some(pod) => Some((Ok(pod), Some(notices))),
                None => Some((Err(unreachable(Verb::Watch)), None)),
            }
        });
        Ok(changes.boxed())
    }
}

/// Lets simulated work take its time; none at all where that is zero.
async fn pass(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

fn unreachable(verb: Verb) -> RuntimeError {
    RuntimeError::Unreachable {
        verb,
        source: "the simulated engine is down".into(),
    }
}

#[cfg(test)]
mod tests;
