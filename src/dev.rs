//! A whole cluster in one process, for trying kubeleet, for demos and for tests.
//!
//! The same stations as the daemons', wired side by side; without a Redis given it starts a
//! private one and ends it with itself.

pub(crate) mod private_redis;

use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::{Container, Runtime};
use crate::model::NodeState;
use crate::settings::{RuntimeKind, Secret, Settings};
use crate::store::Store;
use crate::store::connection::Redis;
use crate::telemetry::chain;
use crate::{agent, api, controller, scheduler};
use private_redis::PrivateRedis;

/// Longest wait until all nodes have registered.
const READY: Duration = Duration::from_secs(30);
/// Time between two looks whether they have.
const READY_LOOK: Duration = Duration::from_millis(20);
/// Containers removed at once at the end.
const REMOVALS: usize = 8;

/// What a development cluster is made of.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// How many nodes, called node1, node2 and so on.
    pub nodes: usize,
    /// Start a Redis of its own, in place of the settings' one.
    pub private_redis: bool,
    /// Leave the containers running at the end.
    pub keep: bool,
}

/// Why a development cluster did not come up, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The private Redis did not come up.
    #[error("the private Redis did not start: {0}")]
    Redis(String),
    /// The given or private Redis cannot be used.
    #[error("Redis cannot be used")]
    Store(#[source] crate::store::StoreError),
    /// The API's address cannot be listened on.
    #[error("cannot listen on {address}: choose another by --listen")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The engine does not answer.
    #[error("the container engine does not answer; start it, or use --runtime simulated")]
    Engine(#[source] crate::container::RuntimeError),
    /// An agent ended by itself.
    #[error("the agent of a node ended")]
    Agent(#[source] agent::AgentError),
    /// Not all nodes registered in time.
    #[error("only {0} nodes registered in time")]
    NotReady(usize),
}

/// Runs a cluster until `shutdown`; `ready` is told the API's address, the URL of Redis and the
/// number of nodes once all parts are.
///
/// # Errors
/// A part did not come up, or ended by itself.
pub async fn run(
    mut settings: Settings,
    options: DevOptions,
    ready: impl FnOnce(&str, &str, usize),
    shutdown: CancellationToken,
) -> Result<(), DevError> {
    let private = if options.private_redis {
        Some(PrivateRedis::start().await.map_err(DevError::Redis)?)
    } else {
        None
    };
    if let Some(private) = &private {
        settings.redis.url = Secret(private.url());
        settings.redis.sentinels.clear();
        private.directory().clone_into(&mut settings.node.run_dir);
    }
    let store = Store::new(
        Redis::connect(&settings.redis, CancellationToken::new()),
        &settings.key_prefix,
    );
    let cluster = store.open().await.map_err(DevError::Store)?;
    let runtimes: Vec<(String, Runtime)> = (1..=options.nodes)
        .map(|number| format!("node{number}"))
        .map(|name| {
            (
                name.clone(),
                Runtime::of(&settings, &format!("{cluster}-{name}")),
            )
        })
        .collect();
    if settings.node.runtime == RuntimeKind::Docker {
        // One engine for all: better told now than waited for.
        if let Some((_, runtime)) = runtimes.first() {
            runtime.info().await.map_err(DevError::Engine)?;
        }
    }
    let address = &settings.api.listen;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| DevError::Listen {
        address: address.clone(),
        source,
    })?;
    let listening = listener
        .local_addr()
        .map_or_else(|_| address.clone(), |address| address.to_string());

    let ends = shutdown.child_token();
    let tasks = TaskTracker::new();
    let (failed, mut failures) = tokio::sync::mpsc::channel(1);
    {
        let (store, settings, ends) = (store.clone(), settings.clone(), ends.clone());
        tasks.spawn(async move { api::run(listener, store, &settings, ends).await });
    }
    {
        let (store, settings, ends) = (store.clone(), settings.clone(), ends.clone());
        tasks.spawn(async move {
            tokio::join!(
                scheduler::run(store.clone(), &settings, ends.clone()),
                controller::run(&store, &settings.scheduler, &ends),
            )
        });
    }
    for (name, runtime) in runtimes.clone() {
        let (store, settings, ends, failed) = (
            store.clone(),
            settings.clone(),
            ends.clone(),
            failed.clone(),
        );
        tasks.spawn(async move {
            if let Err(error) = agent::run(store, runtime, &name, &settings, ends).await {
                let _ = failed.try_send(error);
            }
        });
    }
    let come_up = async {
        wait_until_ready(&store, &settings, options.nodes).await?;
        ready(&listening, &settings.redis.url.0, options.nodes);
        Ok::<(), DevError>(())
    };
    let result = tokio::select! {
        result = async { come_up.await?; ends.cancelled().await; Ok(()) } => result,
        Some(error) = failures.recv() => Err(DevError::Agent(error)),
        () = ends.cancelled() => Ok(()),
    };
    ends.cancel();
    tasks.close();
    tasks.wait().await;
    if !options.keep {
        remove_containers(&runtimes, &cluster).await;
    }
    if let Some(private) = private {
        private.stop().await;
    }
    result
}

async fn wait_until_ready(
    store: &Store,
    settings: &Settings,
    nodes: usize,
) -> Result<(), DevError> {
    let mut registered = 0;
    let all = async {
        while registered < nodes {
            let known = store
                .nodes()
                .list(settings.heartbeat.lease)
                .await
                .map_err(DevError::Store)?;
            let ours = |name: &str| {
                let number = name
                    .strip_prefix("node")
                    .and_then(|number| number.parse::<usize>().ok());
                number.is_some_and(|number| (1..=nodes).contains(&number))
            };
            registered = known
                .iter()
                .filter(|node| ours(&node.name) && node.state == NodeState::Ready)
                .count();
            tokio::time::sleep(READY_LOOK).await;
        }
        Ok(())
    };
    match tokio::time::timeout(READY, all).await {
        Ok(result) => result,
        Err(_) => Err(DevError::NotReady(registered)),
    }
}

/// Removes the containers of this cluster's nodes, some at once.
async fn remove_containers(runtimes: &[(String, Runtime)], cluster: &str) {
    for (node, runtime) in runtimes {
        let containers = match runtime.list(node, cluster).await {
            Ok(containers) => containers,
            Err(error) => {
                tracing::warn!(
                    node.id = node,
                    error = chain(&error),
                    "containers may be left"
                );
                continue;
            }
        };
        let remove = |container: Container| async move {
            if let Err(error) = runtime.remove(&container.id).await {
                tracing::warn!(
                    container.id = container.id,
                    error = chain(&error),
                    "a container is left"
                );
            }
        };
        iter(containers).for_each_concurrent(REMOVALS, remove).await;
    }
}
