//! A whole cluster: real Redis, the real stations, simulated engines that outlive their agents.
//!
//! Every cluster has a key prefix of its own. [`Cluster::end`] checks that nothing was left behind.

mod looks;
mod wishes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kubeleet::agent::{self, AgentError};
use kubeleet::container::{Runtime, Simulated};
use kubeleet::model::{PodId, Pressure};
use kubeleet::settings::{Secret, Settings};
use kubeleet::store::Store;
use kubeleet::store::connection::Redis;
use kubeleet::{controller, scheduler};
use tokio_util::sync::CancellationToken;

use super::eventually;
use super::proc_dir::{Pressed, ProcDir};
use super::process::Daemon;
use super::redis_server::shared_redis;
use super::station::Station;

/// The image that every engine has.
pub const IMAGE: &str = "spaster/alpine-sleep";
/// Longest wait for what takes a cluster well under a second on an idle machine.
pub const SOON: Duration = Duration::from_secs(20);

type Agent = Station<Result<(), AgentError>>;

/// A machine: its engine and its figures outlive its agent.
pub struct Machine {
    pub engine: Simulated,
    proc: ProcDir,
    agent: Option<Agent>,
}

/// A cluster; all its stations are killed on drop.
pub struct Cluster {
    pub store: Store,
    pub settings: Settings,
    machines: BTreeMap<String, Machine>,
    schedulers: Vec<Station<()>>,
}

impl Cluster {
    /// One on the shared Redis, of nodes `worker1` and so on and one scheduler.
    pub async fn start(nodes: usize) -> Cluster {
        let mut cluster = Cluster::empty().await;
        cluster.add_nodes(nodes).await;
        cluster.add_scheduler();
        cluster
    }

    /// One on the shared Redis, without any station yet.
    pub async fn empty() -> Cluster {
        Cluster::on(&shared_redis().await.url(), |_| {}).await
    }

    /// One on the Redis at `url`, without any station yet.
    pub async fn on(url: &str, change: impl FnOnce(&mut Settings)) -> Cluster {
        let mut settings = Settings {
            key_prefix: format!("{}:", PodId::new_submission()),
            ..Settings::default()
        };
        settings.redis.url = Secret(url.to_owned());
        settings.heartbeat.interval = Duration::from_millis(250);
        settings.heartbeat.lease = Duration::from_secs(3);
        settings.scheduler.claim_lease = Duration::from_secs(1);
        settings.scheduler.sweep_interval = Duration::from_millis(100);
        change(&mut settings);
        #[expect(
            clippy::disallowed_methods,
            reason = "not a setting: for whoever debugs a test"
        )]
        if let Ok(filter) = std::env::var("TEST_LOG") {
            settings.log.filter = filter;
            kubeleet::telemetry::init(&settings.log);
        }
        let redis = Redis::connect(&settings.redis, CancellationToken::new());
        let store = Store::new(redis, &settings.key_prefix);
        store.open().await.expect("Redis answers");
        Cluster {
            store,
            settings,
            machines: BTreeMap::new(),
            schedulers: Vec::new(),
        }
    }

    // Stations.

    /// Adds nodes `worker1` to `worker<count>`, and waits until all are ready.
    pub async fn add_nodes(&mut self, count: usize) {
        for number in 1..=count {
            self.add_machine(&format!("worker{number}"));
        }
        for number in 1..=count {
            self.start_agent(&format!("worker{number}"));
        }
        for number in 1..=count {
            self.ready(&format!("worker{number}")).await;
        }
    }

    /// Adds one node, and waits until it is ready.
    pub async fn add_node(&mut self, name: &str) {
        self.add_machine(name);
        self.start_agent(name);
        self.ready(name).await;
    }

    /// Adds a calm machine without an agent.
    pub fn add_machine(&mut self, name: &str) {
        let engine = Simulated::new(format!("engine-{name}"), self.settings.simulated.clone());
        engine.add_image(IMAGE);
        let machine = Machine {
            engine,
            proc: ProcDir::calm(),
            agent: None,
        };
        self.machines.insert(name.to_owned(), machine);
    }

    /// Starts the agent of a machine, and keeps it.
    pub fn start_agent(&mut self, name: &str) {
        let agent = self.agent_of(name, self.machine(name).engine.clone());
        let machine = self.machines.get_mut(name).expect("the machine");
        machine.agent = Some(agent);
    }

    /// An agent that calls itself `name`, on `engine`.
    pub fn agent_of(&self, name: &str, engine: Simulated) -> Agent {
        let mut settings = self.settings.clone();
        self.machine(name)
            .proc
            .path()
            .clone_into(&mut settings.node.proc_dir);
        let name = name.to_owned();
        Station::start(async move |shutdown| {
            let store = connect(&settings);
            agent::run(
                store,
                Runtime::Simulated(engine),
                &name,
                &settings,
                shutdown,
            )
            .await
        })
    }

    /// The agent of a machine; the machine has none any more.
    pub fn take_agent(&mut self, name: &str) -> Agent {
        let machine = self.machines.get_mut(name).expect("the machine");
        machine.agent.take().expect("its agent")
    }

    /// Whether a machine has an agent.
    pub fn has_agent(&self, name: &str) -> bool {
        self.machine(name).agent.is_some()
    }

    /// The agent of a machine.
    pub fn agent(&self, name: &str) -> &Agent {
        self.machine(name).agent.as_ref().expect("its agent")
    }

    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.get(name).expect("the machine")
    }

    pub fn engine(&self, name: &str) -> &Simulated {
        &self.machine(name).engine
    }

    /// Starts a scheduler with the controller's loops.
    pub fn add_scheduler(&mut self) {
        let settings = self.settings.clone();
        self.schedulers.push(Station::start(async move |shutdown| {
            let store = connect(&settings);
            tokio::join!(
                scheduler::run(store.clone(), &settings, shutdown.clone()),
                controller::run(&store, &settings.scheduler, &shutdown),
            );
        }));
    }

    /// How many schedulers there are.
    pub fn schedulers(&self) -> usize {
        self.schedulers.len()
    }

    /// Kills the oldest scheduler where it stands.
    pub fn kill_scheduler(&mut self) {
        self.schedulers.remove(0).kill();
    }

    /// Stops all schedulers of this process in order.
    pub async fn stop_schedulers(&mut self) {
        for scheduler in self.schedulers.drain(..) {
            scheduler.stop().await;
        }
    }

    /// A real binary of this cluster, with more variables.
    pub fn daemon(&self, program: &str, variables: &[(&str, &str)]) -> Daemon {
        Daemon::start(program, &self.settings, variables)
    }

    /// Takes all pressure off a machine.
    pub fn calm(&self, name: &str) {
        for pressed in [Pressed::Memory, Pressed::Io, Pressed::IdleCpu] {
            self.machine(name).proc.press(pressed, 0);
        }
    }

    /// Puts a machine under pressure, and waits until two heartbeats told so.
    pub async fn press(&self, name: &str, pressed: Pressed, percent: u32) {
        self.machine(name).proc.press(pressed, percent);
        let pressure = |of: &Pressure| match pressed {
            Pressed::Memory => of.memory_avg10,
            Pressed::Io => of.io_avg10,
            Pressed::Cpu | Pressed::IdleCpu => of.cpu_avg10,
        };
        let told = async || {
            let node = self.node(name).await.ok_or("no such node")?;
            if pressure(&node.pressure) < f64::from(percent) {
                return Err(format!("{:?}", node.pressure));
            }
            let age = Duration::from_millis(node.heartbeat_age_ms);
            Ok(Instant::now().checked_sub(age).expect("a time"))
        };
        let first = eventually(SOON, "the pressure is told", &told).await;
        eventually(SOON, "the pressure is told again", async || {
            let last = told().await?;
            let between = last.saturating_duration_since(first);
            if between > self.settings.heartbeat.interval / 2 {
                Ok(())
            } else {
                Err(String::new())
            }
        })
        .await;
    }
}

fn connect(settings: &Settings) -> Store {
    let redis = Redis::connect(&settings.redis, CancellationToken::new());
    Store::new(redis, &settings.key_prefix)
}
