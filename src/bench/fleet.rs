//! Simulated machines with real agents, and the stations beside them, all in this process.
//!
//! Some agents share one pool of connections, which each would have of its own; the two connections
//! on which an agent waits for work and for requests are its own here too.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Bench, PATIENCE, mix};
use crate::container::{Runtime, Simulated};
use crate::model::ServiceKey;
use crate::settings::{RedisSettings, RuntimeKind, Settings};
use crate::store::Store;
use crate::store::connection::Redis;
use crate::{agent, controller, scheduler};

/// The image that every machine has.
pub(super) const IMAGE: &str = "bench";
/// Agents that start in a row before there is a pause: their heartbeats must not all fall together.
const START_STEP: u32 = 100;
/// Agents that share one pool, and its connections.
const POOL_AGENTS: u32 = 100;
const POOL_SIZE: usize = 4;
/// The pause: 2,000 agents start in a second.
const START_PAUSE: Duration = Duration::from_millis(50);
/// Time between two looks at all nodes or services.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for the stations' orderly end.
const END: Duration = Duration::from_secs(20);
/// Most services that one look reads.
const SERVICES_LOOKED_AT: usize = 500;

/// The machines and stations of one cluster.
pub(super) struct Fleet {
    pub(super) store: Store,
    prefix: String,
    settings: Arc<Settings>,
    engines: Vec<Simulated>,
    ends: CancellationToken,
    tasks: TaskTracker,
    folder: PathBuf,
}

impl Fleet {
    /// A cluster without nodes, with one controller and so many schedulers.
    pub(super) async fn new(
        bench: &mut Bench,
        mut settings: Settings,
        schedulers: u32,
    ) -> anyhow::Result<Fleet> {
        let folder = std::env::temp_dir().join(format!("kubeleet-bench-{}", std::process::id()));
        calm_machine(&folder)?;
        if settings.node.runtime == RuntimeKind::Simulated {
            settings.node.proc_dir.clone_from(&folder);
        }
        settings.redis = bench.settings();
        let fleet = Fleet {
            store: bench.fresh_cluster().await?,
            prefix: bench.prefix(),
            settings: Arc::new(settings),
            engines: Vec::new(),
            ends: CancellationToken::new(),
            tasks: TaskTracker::new(),
            folder,
        };
        for number in 0..schedulers {
            let (store, settings, ends) = fleet.parts();
            fleet.tasks.spawn(async move {
                let placing = scheduler::run(store.clone(), &settings, ends.clone());
                if number == 0 {
                    tokio::join!(placing, controller::run(&store, &settings.scheduler, &ends));
                } else {
                    placing.await;
                }
            });
        }
        Ok(fleet)
    }

    fn parts(&self) -> (Store, Arc<Settings>, CancellationToken) {
        (self.store.clone(), self.settings.clone(), self.ends.clone())
    }

    /// Starts the agents of `nodes` simulated machines, and waits until all are registered.
    pub(super) async fn start_agents(&mut self, nodes: u32) -> anyhow::Result<()> {
        let pool = RedisSettings {
            pool_size: POOL_SIZE,
            ..self.settings.redis.clone()
        };
        let mut store = self.store.clone();
        for number in 0..nodes {
            if number % POOL_AGENTS == 0 {
                let redis = Redis::connect(&pool, CancellationToken::new());
                store = Store::new(redis, &self.prefix);
            }
            let engine = Simulated::new(mix::node(number), self.settings.simulated.clone());
            engine.add_image(IMAGE);
            self.engines.push(engine.clone());
            let runtime = Runtime::Simulated(engine);
            self.start_agent(store.clone(), mix::node(number), runtime);
            if number % START_STEP == START_STEP - 1 {
                tokio::time::sleep(START_PAUSE).await;
            }
        }
        self.until_registered(nodes).await
    }

    /// Waits until so many nodes are registered.
    pub(super) async fn until_registered(&self, nodes: u32) -> anyhow::Result<()> {
        self.until(async || {
            let seen = self.store.nodes().seen_since(0).await?;
            Ok(seen.nodes.len() >= nodes as usize)
        })
        .await
    }

    /// Starts one agent.
    pub(super) fn start_agent(&self, store: Store, name: String, runtime: Runtime) {
        let (_, settings, ends) = self.parts();
        self.tasks.spawn(async move {
            // What ends an agent early shows as pods that do not run.
            let _ = agent::run(store, runtime, &name, &settings, ends).await;
        });
    }

    /// Containers that run.
    pub(super) fn live(&self) -> u64 {
        self.engines.iter().map(|it| it.counts().live).sum()
    }

    /// Containers started so far.
    pub(super) fn starts(&self) -> u64 {
        self.engines.iter().map(|it| it.counts().starts).sum()
    }

    /// Waits until Redis says of all these services that so many of their pods run.
    pub(super) async fn until_running(
        &self,
        services: &[ServiceKey],
        pods: u32,
    ) -> anyhow::Result<()> {
        self.until(async || {
            let mut all = 0;
            for some in services.chunks(SERVICES_LOOKED_AT) {
                let known = self.store.services().get_all(some).await?;
                all += known.iter().map(|(_, running)| running).sum::<u32>();
            }
            Ok(all == pods)
        })
        .await
    }

    /// Looks again and again until it is so.
    pub(super) async fn until(
        &self,
        mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let looking = async {
            while !is_so().await? {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, looking).await?
    }

    /// Ends all stations; simulated containers go with them.
    pub(super) async fn stop(self) {
        self.ends.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(END, self.tasks.wait()).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A `proc` folder of a machine at rest, for all: many machines' kernels are not this one.
fn calm_machine(folder: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("pressure"))?;
    let calm = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n";
    for kind in ["cpu", "memory", "io"] {
        std::fs::write(folder.join("pressure").join(kind), calm)?;
    }
    let cpu = "cpu  100 0 0 100 0 0 0 0 0 0\ncpu0 100 0 0 100 0 0 0 0 0 0\n";
    let rest = "intr 1 1\nctxt 5\nbtime 1700000000\nprocesses 7\n";
    std::fs::write(folder.join("stat"), format!("{cpu}{rest}"))?;
    let memory = "MemTotal: 1000000 kB\nMemAvailable: 900000 kB\n";
    std::fs::write(folder.join("meminfo"), memory)
}
