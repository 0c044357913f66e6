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

use self::state::{Scripted, Simulation, State, Watcher};
use super::{
    Changes, Container, ContainerSpec, ContainerState, Created, EngineInfo, GivenDevices, Image,
    NameHolder, OnProgress, Probed, RuntimeError, Verb,
};
use crate::model::ServiceSpec;
use crate::model::service::RegistryLogin;
use crate::settings::SimulatedSettings;

/// Cores of a simulated machine, in thousandths, if nothing else is said.
const CPU_MILLIS: u64 = 64_000;
/// Memory of a simulated machine, if nothing else is said.
const MEMORY_BYTES: u64 = 256 << 30;
/// First of the ports that the machine gives where none is asked for.
const PORT_FIRST: u16 = 32_768;
/// Notices a subscriber may leave unread before it is cut off: more than a node has pods.
const UNREAD_MAX: usize = 4096;
/// Exit code of a process that a stop's signal ended: 128 and SIGTERM's number.
const EXIT_CODE_STOPPED: i64 = 143;
/// Exit code of a process that was killed after its grace.
const EXIT_CODE_KILLED: i64 = 137;

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
    /// Containers asked to end, ended since or not.
    pub stops_begun: u64,
    /// Containers removed.
    pub removes: u64,
    /// Commands run inside containers.
    pub probes: u64,
    /// Images pulled.
    pub pulls: u64,
    /// The same with pulls that failed.
    pub pulls_begun: u64,
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
            data_dir: None,
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

    pub(super) async fn known_cluster(&self, node: &str) -> Result<Option<String>, RuntimeError> {
        let state = self.answer(Verb::List)?;
        let mut of_node = state.containers.values().filter_map(|container| {
            let spec = container.spec.as_deref()?;
            (spec.node == node).then(|| spec.cluster.clone())
        });
        Ok(of_node.next())
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

    pub(super) async fn pull(
        &self,
        image: &str,
        _login: Option<&RegistryLogin>,
        progress: OnProgress<'_>,
    ) -> Result<(), RuntimeError> {
        let held = {
            let state = self.answer(Verb::Pull)?;
            state.pulls_held.as_ref().map(watch::Sender::subscribe)
        };
        if let Some(mut held) = held {
            // Ends with an error when the holder is dropped, which is the release.
            while held.changed().await.is_ok() {
                let come = *held.borrow_and_update();
                progress(come);
            }
        }
        pass(self.engine.settings.pull_time).await;
        let mut state = self.answer(Verb::Pull)?;
        state.counts.pulls_begun += 1;
        if let Some(message) = state.pull_failures.pop_front() {
            let verb = Verb::Pull;
            return Err(RuntimeError::Refused { verb, message });
        }
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

    pub(super) async fn digest(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        let state = self.answer(Verb::Images)?;
        if let Some((_, digest)) = image.split_once('@') {
            return Ok(Some(digest.to_owned()));
        }
        // Any digest will do, as long as it is always the same.
        let known = state.images.contains(image);
        Ok(known.then(|| format!("sha256:{:064x}", image.len())))
    }

    pub(super) async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let state = self.answer(Verb::Images)?;
        let specs = state.containers.values().filter_map(|it| it.spec.as_ref());
        let used: Vec<&str> = specs.map(|spec| spec.spec.image.as_str()).collect();
        let image = |name: &String| Image {
            id: name.clone(),
            names: vec![name.clone()],
            size: 0,
            is_used: used.contains(&name.as_str()),
            is_kept: false,
        };
        Ok(state.images.iter().map(image).collect())
    }

    pub(super) async fn remove_image(&self, image: &Image) -> Result<(), RuntimeError> {
        let mut state = self.answer(Verb::RemoveImage)?;
        let mut specs = state.containers.values().filter_map(|it| it.spec.as_ref());
        if specs.any(|spec| spec.spec.image == image.id) {
            return Err(RuntimeError::Refused {
                verb: Verb::RemoveImage,
                message: "a container uses it".to_owned(),
            });
        }
        state.images.remove(&image.id);
        Ok(())
    }

    pub(super) async fn put_files(
        &self,
        id: &str,
        _spec: &ServiceSpec,
    ) -> Result<(), RuntimeError> {
        let state = self.answer(Verb::PutFiles)?;
        if !state.containers.contains_key(id) {
            return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
        }
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

    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let end_time = {
            let mut state = self.answer(Verb::Stop)?;
            let lives = state.containers.get(id).is_some_and(Simulation::lives);
            state.counts.stops_begun += u64::from(lives);
            state.end_time.filter(|_| lives).unwrap_or_default()
        };
        pass(self.engine.settings.stop_time + end_time.min(grace)).await;
        let exit_code = if end_time > grace {
            EXIT_CODE_KILLED
        } else {
            EXIT_CODE_STOPPED
        };
        let mut state = self.answer(Verb::Stop)?;
        if state.end(id, exit_code, None) {
            state.counts.stops += 1;
        }
        Ok(())
    }

    pub(super) async fn unpause(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.answer(Verb::Unpause)?;
        let paused = |container: &&mut Simulation| container.state == ContainerState::Paused;
        if let Some(container) = state.containers.get_mut(id).filter(paused) {
            container.state = ContainerState::Running;
        }
        Ok(())
    }

    pub(super) async fn mend(&self, id: &str) -> Result<(), RuntimeError> {
        let mut state = self.answer(Verb::Mend)?;
        if let Some(container) = state.containers.get_mut(id) {
            container.drifted = false;
        }
        Ok(())
    }

    pub(super) async fn probe(
        &self,
        id: &str,
        _command: &[String],
    ) -> Result<Probed, RuntimeError> {
        let scripted = {
            let mut state = self.answer(Verb::Probe)?;
            state.counts.probes += 1;
            let running = |it: &&Simulation| it.state == ContainerState::Running;
            match state.containers.get(id).filter(running) {
                Some(container) => {
                    let pod = container.spec.as_ref().map(|spec| &spec.pod);
                    pod.and_then(|pod| state.probes.get(pod)).cloned()
                }
                None => {
                    return Ok(Probed {
                        exit_code: None,
                        said: String::new(),
                    });
                }
            }
        };
        match scripted {
            Some(Scripted::Hangs) => std::future::pending().await,
            Some(Scripted::Ends(exit_code, said)) => Ok(Probed {
                exit_code: Some(exit_code),
                said,
            }),
            None => Ok(Probed {
                exit_code: Some(0),
                said: String::new(),
            }),
        }
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
        let spec = found.and_then(|container| container.spec.as_deref());
        // As labels would: they hold no secrets.
        Ok(spec.map(|spec| ContainerSpec {
            spec: Box::new(spec.spec.without_secrets()),
            given: GivenDevices {
                names: spec.given.names.clone(),
                ..GivenDevices::default()
            },
            ..spec.clone()
        }))
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
