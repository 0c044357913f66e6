//! The runtime port: what an agent asks of a container engine, Docker's or a simulated one.
//!
//! Called by `agent` alone. All verbs take and give plain data; none retries and none waits
//! longer than its bound, so loops decide when to try again. Both engines pass the same
//! conformance tests (`tests/smoke/container.rs`).
//!
//! Invariant: a container without our labels is never listed, changed or removed.

mod attach;
mod docker;
mod error;
mod image;
mod labels;
mod simulated;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::BoxStream;

pub use attach::{
    EngineLine, Exec, ExecEnd, ExecEndOutcome, ExecOutput, LogLines, LogRead, Sample,
};
pub use docker::Docker;
pub use error::{RuntimeError, Verb};
pub use image::{Image, OnProgress, PullProgress, shown_name};
pub use simulated::{Counts, Simulated};

use crate::model::service::RegistryLogin;
use crate::model::{ExecWish, PodId, Port, ServiceSpec, TerminalSize, Token};
use crate::settings::{RuntimeKind, Settings};

/// A container engine. Cheap to clone; clones speak to the same engine.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Docker's engine.
    Docker(Docker),
    /// Containers in memory.
    Simulated(Simulated),
}

/// What an engine says of itself and its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// The engine's own id; stays over its restarts.
    pub id: String,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Its version, for people.
    pub version: String,
    /// Folder of the machine that holds its images and containers; `None` without any.
    pub data_dir: Option<PathBuf>,
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The engine's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The pod it runs.
    pub pod: PodId,
    /// The placement it was made for.
    pub token: Token,
    /// The image it was made from, as the user wrote it.
    pub image: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// The ports it was made with, each with the node's port as soon as it has one: those that
    /// the engine is to choose have none before the start.
    pub ports: Vec<Port>,
    /// Names of the devices it was given, such as `gpu/0`.
    pub devices: Vec<String>,
    /// What the engine's own check of it says; `None` if the image has none.
    pub health: Option<EngineHealth>,
    /// Where this machine reaches it while it runs; `None` if it has no network.
    pub address: Option<IpAddr>,
    /// Its limits are no longer those it was made with. Only an inspection tells.
    pub drifted: bool,
    /// It must end with the node's lease: never two of it may run.
    pub fenced: bool,
}

impl Container {
    /// Its process lives, paused or not.
    pub fn lives(&self) -> bool {
        matches!(self.state, ContainerState::Running | ContainerState::Paused)
    }

    /// Whether `listed`, which tells less than an inspection, shows the same.
    pub fn looks_like(&self, listed: &Container) -> bool {
        let state = match (&self.state, &listed.state) {
            (
                ContainerState::Exited { exit_code, .. },
                ContainerState::Exited {
                    exit_code: listed, ..
                },
            ) => exit_code == listed,
            (known, listed) => known == listed,
        };
        let health = |container: &Container| container.health.as_ref().map(|it| it.state);
        state && self.id == listed.id && health(self) == health(listed)
    }
}

/// What the engine's own check of a container says: the image's HEALTHCHECK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineHealth {
    /// The verdict.
    pub state: HealthState,
    /// What the last check said, where it failed; only an inspection tells.
    pub said: String,
}

/// The verdict of an engine's own check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthState {
    /// No check was good yet.
    Starting,
    /// The last one was good.
    Healthy,
    /// Too many in a row were not.
    Unhealthy,
}

/// What a command inside a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Its exit code; `None` if the container ended or was changed under it.
    pub exit_code: Option<i64>,
    /// The beginning of what it wrote.
    pub said: String,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, and never started with success.
    Created,
    /// Its process lives.
    Running,
    /// Its process lives and is held still.
    Paused,
    /// Its process has ended.
    Exited {
        /// The process's exit code; 128 and the signal's number if a signal ended it.
        exit_code: i64,
        /// What the engine says beyond the code, such as "out of memory".
        reason: Option<String>,
    },
    /// Someone is removing it; its exit code says nothing. Its end is told by the engine.
    Removing,
}

/// What a container is made from. All but the secrets stands in the container's labels, so that an
/// empty Redis can be filled again from what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Name of the node.
    pub node: String,
    /// Id of the cluster.
    pub cluster: String,
    /// The pod.
    pub pod: PodId,
    /// Its placement.
    pub token: Token,
    /// The pod's index among its siblings.
    pub replica: u32,
    /// What to run. In a box, for it is large and waits in many a future.
    pub spec: Box<ServiceSpec>,
    /// Revision of the service; 0 without one.
    pub revision: u64,
    /// Name of the service, if the pod has one.
    pub service: Option<String>,
    /// The wish behind it, if it has a service.
    pub wish: Option<WishLabel>,
    /// Devices of the node that it is given, beside those that its spec names.
    pub given: GivenDevices,
}

/// Devices of a node that a container is given. Of these the names stand in a label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenDevices {
    /// Their names, such as `gpu/0`.
    pub names: Vec<String>,
    /// Their paths on the machine, which are the same in the container.
    pub paths: Vec<String>,
    /// Variables that tell the program what it was given; they go before those of the spec.
    pub env: BTreeMap<String, String>,
}

/// What a container's labels say of the wish it was made for, for the case that nobody knows more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WishLabel {
    /// Name of the submission that made the service.
    pub uid: String,
    /// Number of the wish.
    pub number: u64,
    /// How many pods it wanted.
    pub replicas: u32,
}

/// A container that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The engine's id of it.
    pub id: String,
    /// It was there already, and may run or have ended.
    pub adopted: bool,
}

/// Pods whose container changed, by whomever. A hint to look, never the whole truth: it may repeat
/// and, after an error, it ends; the caller then subscribes again and compares everything.
pub type Changes = BoxStream<'static, Result<PodId, RuntimeError>>;

/// Sends the verb to whichever engine this is.
macro_rules! dispatch {
    ($runtime:expr, $engine:ident => $call:expr) => {
        match $runtime {
            Runtime::Docker($engine) => $call.await,
            Runtime::Simulated($engine) => $call.await,
        }
    };
}

impl Runtime {
    /// The engine of the settings; a simulated one is empty, and `id` is its own.
    pub fn of(settings: &Settings, id: &str) -> Runtime {
        match settings.node.runtime {
            RuntimeKind::Docker => Runtime::Docker(Docker::new(&settings.node.docker_socket)),
            RuntimeKind::Simulated => {
                Runtime::Simulated(Simulated::new(id, settings.simulated.clone()))
            }
        }
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn info(&self) -> Result<EngineInfo, RuntimeError> {
        dispatch!(self, engine => engine.info())
    }

    /// All containers of this node of this cluster, running or not.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn list(&self, node: &str, cluster: &str) -> Result<Vec<Container>, RuntimeError> {
        dispatch!(self, engine => engine.list(node, cluster))
    }

    /// The cluster that this node's containers are of, running ones first; `None` if it has none.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn known_cluster(&self, node: &str) -> Result<Option<String>, RuntimeError> {
        dispatch!(self, engine => engine.known_cluster(node))
    }

    /// Makes a container; if there is one of the same pod and token, adopts that one. Does not
    /// start it.
    ///
    /// # Errors
    /// [`RuntimeError::ImageMissing`]: pull it first. [`RuntimeError::Superseded`]: remove that
    /// container first. Else the engine does not answer, or refuses.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Created, RuntimeError> {
        dispatch!(self, engine => engine.create(spec))
    }

    /// Fetches an image; fetched anew even if the machine has one, for a tag may have moved.
    ///
    /// # Errors
    /// [`RuntimeError::ImageDenied`]: trying again soon is of no use. Any other may pass.
    pub async fn pull(
        &self,
        image: &str,
        login: Option<&RegistryLogin>,
        progress: OnProgress<'_>,
    ) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.pull(image, login, progress))
    }

    /// Digest of the image that this name stands for now, as its registry counts it; `None` if it
    /// is not here, or came from no registry.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn digest(&self, image: &str) -> Result<Option<String>, RuntimeError> {
        dispatch!(self, engine => engine.digest(image))
    }

    /// All images of the machine.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        dispatch!(self, engine => engine.images())
    }

    /// Removes an image by all its names; never one that a container is made from. One that is gone
    /// is fine.
    ///
    /// # Errors
    /// The engine does not answer, or refuses: somebody uses it by now.
    pub async fn remove_image(&self, image: &Image) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.remove_image(image))
    }

    /// Puts the files of a spec into a container that was never started; again is fine.
    ///
    /// # Errors
    /// [`RuntimeError::ContainerMissing`]: it is gone. Else the engine does not answer, or refuses.
    pub async fn put_files(&self, id: &str, spec: &ServiceSpec) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.put_files(id, spec))
    }

    /// Starts a container. One that runs is left running.
    ///
    /// # Errors
    /// [`RuntimeError::ContainerMissing`]: it is gone. [`RuntimeError::PortTaken`]: somebody else
    /// has a port that it is to have. Else the engine does not answer, or refuses.
    pub async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.start(id))
    }

    /// Asks a container to end, and kills it after `grace`. One that ended or is gone is fine.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.stop(id, grace))
    }

    /// Removes a container, killing it if it runs. One that is gone is fine.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.remove(id))
    }

    /// Lets a paused container go on. One that is not paused is fine.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn unpause(&self, id: &str) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.unpause(id))
    }

    /// Gives a container the limits back that it was made with, while it runs.
    ///
    /// # Errors
    /// The engine does not answer, or refuses.
    pub async fn mend(&self, id: &str) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.mend(id))
    }

    /// Runs a command inside a container and waits for its end, which is the caller's to bound: it
    /// may come only with the container's. Dropped, the command goes on.
    ///
    /// # Errors
    /// The engine does not answer, or refuses: there is no such program, or it may not be run.
    pub async fn probe(&self, id: &str, command: &[String]) -> Result<Probed, RuntimeError> {
        dispatch!(self, engine => engine.probe(id, command))
    }

    /// One container; `None` if there is none of ours with this id.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn inspect(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        dispatch!(self, engine => engine.inspect(id))
    }

    /// What a container was made from but the secrets, read back from its labels; `None` if there is none of ours
    /// with this id, or its labels are damaged.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn describe(&self, id: &str) -> Result<Option<ContainerSpec>, RuntimeError> {
        dispatch!(self, engine => engine.describe(id))
    }

    /// Pods of this node of this cluster whose container changes from now on. Cancel-safe to poll.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn ended(&self, node: &str, cluster: &str) -> Result<Changes, RuntimeError> {
        dispatch!(self, engine => engine.ended(node, cluster))
    }

    /// Lines of a container's log, of a running or an ended one, oldest first.
    ///
    /// # Errors
    /// The engine does not answer. What goes wrong later, [`RuntimeError::ContainerMissing`] too,
    /// is the last item.
    pub async fn logs(&self, id: &str, read: LogRead) -> Result<LogLines, RuntimeError> {
        dispatch!(self, engine => engine.logs(id, read))
    }

    /// Runs a command in a running container.
    ///
    /// # Errors
    /// [`RuntimeError::ContainerMissing`]: it is gone. Else the engine does not answer, or refuses:
    /// the container does not run.
    pub async fn exec(&self, id: &str, wish: &ExecWish) -> Result<Exec, RuntimeError> {
        dispatch!(self, engine => engine.exec(id, wish))
    }

    /// Gives the terminal of a command another size.
    ///
    /// # Errors
    /// The engine does not answer, or the command has ended.
    pub async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.exec_resize(exec, size))
    }

    /// Exit code of a command; `None` while it runs.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn exec_exit(&self, exec: &str) -> Result<Option<i64>, RuntimeError> {
        dispatch!(self, engine => engine.exec_exit(exec))
    }

    /// Ends a command that runs.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn exec_end(&self, exec: &str, end: ExecEnd) -> Result<ExecEndOutcome, RuntimeError> {
        dispatch!(self, engine => engine.exec_end(exec, end))
    }

    /// What a running container has used so far. Takes up to a second.
    ///
    /// # Errors
    /// [`RuntimeError::ContainerMissing`]: it is gone. Else the engine does not answer, or refuses.
    pub async fn sample(&self, id: &str) -> Result<Sample, RuntimeError> {
        dispatch!(self, engine => engine.sample(id))
    }
}

impl ContainerSpec {
    /// Name of the container: `<name>-<replica>-<short id>`.
    pub fn name(&self) -> String {
        format!("{}-{}-{}", self.spec.name, self.replica, self.pod.short())
    }

    /// Name of the container where another has taken [`ContainerSpec::name`]: with the whole id.
    pub fn long_name(&self) -> String {
        format!("{}-{}-{}", self.spec.name, self.replica, self.pod)
    }

    /// What to do with the container that has the name this one wants; `holder` is what that one
    /// was made from, if it is one of ours.
    fn judge(&self, holder: Option<&labels::Identity>) -> NameHolder {
        match holder {
            Some(held)
                if held.pod == self.pod
                    && held.node == self.node
                    && held.cluster == self.cluster =>
            {
                if held.token == self.token {
                    NameHolder::Same
                } else {
                    NameHolder::OtherToken
                }
            }
            _ => NameHolder::Stranger,
        }
    }
}

/// Who has a container's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameHolder {
    /// The very container that is wanted.
    Same,
    /// The same pod's container of another placement.
    OtherToken,
    /// Anybody else's.
    Stranger,
}
