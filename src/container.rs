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
mod labels;
mod simulated;

use std::time::Duration;

use futures_util::stream::BoxStream;

pub use attach::{
    EngineLine, Exec, ExecEnd, ExecEndOutcome, ExecOutput, LogLines, LogRead, Sample,
};
pub use docker::Docker;
pub use error::{RuntimeError, Verb};
pub use simulated::{Counts, Simulated};

use crate::model::{ExecWish, PodId, ServiceSpec, TerminalSize, Token};
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
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, and never started with success.
    Created,
    /// Its process lives, though it may be paused.
    Running,
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

/// What a container is made from. All of it stands in the container's labels, so that an empty
/// Redis can be filled again from what runs.
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
    /// [`RuntimeError::ImageDenied`]: trying again is of no use. Any other may pass.
    pub async fn pull(&self, image: &str) -> Result<(), RuntimeError> {
        dispatch!(self, engine => engine.pull(image))
    }

    /// Starts a container. One that runs is left running.
    ///
    /// # Errors
    /// [`RuntimeError::ContainerMissing`]: it is gone. Else the engine does not answer, or refuses.
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

    /// One container; `None` if there is none of ours with this id.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn inspect(&self, id: &str) -> Result<Option<Container>, RuntimeError> {
        dispatch!(self, engine => engine.inspect(id))
    }

    /// What a container was made from, read back from its labels; `None` if there is none of ours
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
