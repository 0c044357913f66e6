//! What can go wrong between an agent and its engine.
//!
//! The messages become a pod's shown reason, so definite answers carry the engine's own words.

use std::time::Duration;

/// A verb of the port, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// [`info`](super::Runtime::info)
    Info,
    /// [`list`](super::Runtime::list)
    List,
    /// [`create`](super::Runtime::create)
    Create,
    /// [`pull`](super::Runtime::pull)
    Pull,
    /// [`images`](super::Runtime::images) and [`digest`](super::Runtime::digest)
    Images,
    /// [`remove_image`](super::Runtime::remove_image)
    RemoveImage,
    /// [`put_files`](super::Runtime::put_files)
    PutFiles,
    /// [`start`](super::Runtime::start)
    Start,
    /// [`stop`](super::Runtime::stop)
    Stop,
    /// [`remove`](super::Runtime::remove)
    Remove,
    /// [`unpause`](super::Runtime::unpause)
    Unpause,
    /// [`mend`](super::Runtime::mend)
    Mend,
    /// [`probe`](super::Runtime::probe)
    Probe,
    /// [`inspect`](super::Runtime::inspect) and [`describe`](super::Runtime::describe)
    Inspect,
    /// [`ended`](super::Runtime::ended)
    Watch,
    /// [`logs`](super::Runtime::logs)
    Logs,
    /// [`exec`](super::Runtime::exec) and what belongs to it
    Exec,
    /// [`sample`](super::Runtime::sample)
    Sample,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verb::Info => "describe itself",
            Verb::List => "list containers",
            Verb::Create => "create the container",
            Verb::Pull => "pull the image",
            Verb::Images => "tell of its images",
            Verb::RemoveImage => "remove the image",
            Verb::PutFiles => "put files into the container",
            Verb::Start => "start the container",
            Verb::Stop => "stop the container",
            Verb::Remove => "remove the container",
            Verb::Unpause => "let the container go on",
            Verb::Mend => "give the container its limits back",
            Verb::Probe => "run a command in the container",
            Verb::Inspect => "inspect the container",
            Verb::Watch => "send its events",
            Verb::Logs => "read the container's log",
            Verb::Exec => "run a command in the container",
            Verb::Sample => "tell what the container uses",
        })
    }
}

/// What went wrong, and at which verb.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine cannot be reached, or broke off.
    #[error("the container engine cannot be reached to {verb}")]
    Unreachable {
        /// What was asked.
        verb: Verb,
        /// What the connection says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine was asked and has not answered in time. It may still carry the order out.
    #[error("the container engine was asked to {verb} and did not answer within {limit:?}")]
    TimedOut {
        /// What was asked.
        verb: Verb,
        /// How long the answer was waited for.
        limit: Duration,
    },
    /// The engine answered that it could not.
    #[error("the container engine could not {verb}: {message}")]
    Refused {
        /// What was asked.
        verb: Verb,
        /// The engine's own words.
        message: String,
    },
    /// The engine answered something that makes no sense to us.
    #[error("the container engine was asked to {verb} and gave an answer that is not understood")]
    Garbled {
        /// What was asked.
        verb: Verb,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine does not have the image; it can be pulled.
    #[error("the image {image} is not on this machine")]
    ImageMissing {
        /// The image.
        image: String,
    },
    /// The registry says for certain that this image cannot be had: it does not exist, access is
    /// denied (registries do not tell these apart), or it is not made for this machine.
    #[error("the image {image} cannot be had: {message}")]
    ImageDenied {
        /// The image.
        image: String,
        /// The registry's own words.
        message: String,
    },
    /// The pod has a container of another placement, which must go first.
    #[error("the pod still has the container {id} of another placement")]
    Superseded {
        /// That container.
        id: String,
    },
    /// Both names the container could have belong to others.
    #[error("the container's name {name} is taken by a container that is not this pod's")]
    NameTaken {
        /// The second of the two names.
        name: String,
    },
    /// A port of the machine that the container is to have is another's.
    #[error("port {port} of the node is taken by another program or container: {message}")]
    PortTaken {
        /// The port.
        port: u16,
        /// The engine's own words.
        message: String,
    },
    /// There is no such container any more.
    #[error("there is no container {id}")]
    ContainerMissing {
        /// The container.
        id: String,
    },
}

impl RuntimeError {
    /// True where the engine gave no answer at all; the pod is then not to blame.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            RuntimeError::Unreachable { .. } | RuntimeError::TimedOut { .. }
        )
    }
}
