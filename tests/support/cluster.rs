//! A whole cluster: real Redis, the real stations, simulated engines that outlive their agents.
//!
//! Every cluster has a key prefix of its own. [`Cluster::end`] checks that nothing was left behind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kubeleet::agent::{self, AgentError};
use kubeleet::container::{Container, Runtime, Simulated};
use kubeleet::model::{
    Node, NodeState, Phase, Pod, PodId, Pressure, Service, ServiceKey, ServiceSpec,
};
use kubeleet::settings::{Secret, Settings};
use kubeleet::store::connection::Redis;
use kubeleet::store::{
    DeadLetter, PAGE_MAX, PodFilter, ScaleOutcome, Store, Submit, SubmitOutcome,
};
use kubeleet::{controller, scheduler};
use redis::{Cmd, FromRedisValue};
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
                controller::run(&store, &shutdown),
            );
        }));
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
            Ok(std::time::Instant::now().checked_sub(age).expect("a time"))
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

    // Wishes.

    /// Submits a service of so many replicas.
    pub async fn submit(&self, name: &str, replicas: u32) -> ServiceKey {
        self.submit_spec(name, replicas, |_| {}).await
    }

    /// Submits a service with more in its spec.
    pub async fn submit_spec(
        &self,
        name: &str,
        replicas: u32,
        change: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceKey {
        let mut spec = ServiceSpec::new(name, IMAGE);
        spec.replicas = replicas;
        change(&mut spec);
        let submit = Submit {
            spec: &spec,
            submission: &PodId::new_submission(),
            idempotency: None,
        };
        let outcome = self.store.services().submit(&submit).await;
        assert!(
            matches!(outcome, Ok(SubmitOutcome::Created { .. })),
            "{outcome:?}"
        );
        spec.key()
    }

    pub async fn scale(&self, service: &ServiceKey, replicas: u32) {
        let submission = PodId::new_submission();
        let services = self.store.services();
        let scaled = services.scale(service, replicas, &submission).await;
        assert_eq!(scaled.expect("it is scaled"), ScaleOutcome::Done);
    }

    // What there is.

    /// The service and how many of its pods run.
    pub async fn service(&self, service: &ServiceKey) -> Option<(Service, u32)> {
        self.store
            .services()
            .get(service)
            .await
            .expect("a service is read")
    }

    /// Pods of a service; of all, if none is named.
    pub async fn pods(&self, service: Option<&ServiceKey>) -> Vec<Pod> {
        let filter = PodFilter {
            service: service.cloned(),
            ..PodFilter::default()
        };
        let (mut pods, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let port = self.store.pods();
            let page = port.list(&filter, cursor.as_deref(), PAGE_MAX).await;
            let page = page.expect("pods are listed");
            pods.extend(page.pods);
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return pods,
            }
        }
    }

    pub async fn pod(&self, id: &PodId) -> Option<Pod> {
        self.store.pods().get(id).await.expect("a pod is read")
    }

    pub async fn node(&self, name: &str) -> Option<Node> {
        let lease = self.settings.heartbeat.lease;
        self.store
            .nodes()
            .get(name, lease)
            .await
            .expect("a node is read")
    }

    pub async fn ready(&self, name: &str) {
        self.in_state(name, NodeState::Ready).await;
    }

    pub async fn in_state(&self, name: &str, state: NodeState) {
        eventually(SOON, &format!("{name} is {state:?}"), async || {
            match self.node(name).await {
                Some(node) if node.state == state => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until all pods of a service are in `phase`, and are so many.
    pub async fn all_in(&self, service: &ServiceKey, phase: Phase, count: usize) -> Vec<Pod> {
        self.all_in_within(SOON, service, phase, count).await
    }

    /// The same, with another limit.
    pub async fn all_in_within(
        &self,
        limit: Duration,
        service: &ServiceKey,
        phase: Phase,
        count: usize,
    ) -> Vec<Pod> {
        let what = format!("{count} pods of {service} are {phase}");
        eventually(limit, &what, async || {
            let pods = self.pods(Some(service)).await;
            if pods.len() == count && pods.iter().all(|pod| pod.phase == phase) {
                return Ok(pods);
            }
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for pod in &pods {
                let words = (pod.phase, pod.node.as_deref(), pod.reason.as_deref());
                *counts.entry(format!("{words:?}")).or_default() += 1;
            }
            Err(format!("{counts:?}"))
        })
        .await
    }

    /// Waits until a pod is in `phase`.
    pub async fn pod_in(&self, id: &PodId, phase: Phase) -> Pod {
        eventually(SOON, &format!("pod {id} is {phase}"), async || {
            match self.pod(id).await {
                Some(pod) if pod.phase == phase => Ok(pod),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until so many pods of a service are in `phase`, and gives these.
    pub async fn some_in(&self, service: &ServiceKey, phase: Phase, count: usize) -> Vec<Pod> {
        eventually(SOON, &format!("{count} are {phase}"), async || {
            let all = self.pods(Some(service)).await;
            let some: Vec<Pod> = all
                .iter()
                .filter(|pod| pod.phase == phase)
                .cloned()
                .collect();
            if some.len() == count {
                Ok(some)
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await
    }

    /// Waits until all waiting pods of a service, at least one, give this reason.
    pub async fn waits_because(&self, service: &ServiceKey, reason: &str) {
        eventually(
            SOON,
            &format!("{service} waits because {reason:?}"),
            async || {
                let mut pods = self.pods(Some(service)).await;
                pods.retain(|pod| pod.phase == Phase::Waiting);
                let told = |pod: &Pod| pod.reason.as_deref().is_some_and(|it| it.contains(reason));
                if !pods.is_empty() && pods.iter().all(told) {
                    Ok(())
                } else {
                    Err(format!("{pods:?}"))
                }
            },
        )
        .await;
    }

    /// Waits until the service is forgotten.
    pub async fn gone(&self, service: &ServiceKey) {
        eventually(SOON, &format!("{service} is gone"), async || {
            match self.service(service).await {
                None => Ok(()),
                Some(found) => Err(format!("{found:?}")),
            }
        })
        .await;
    }

    /// Waits until the engine of a machine has made so many starts, since it is there.
    pub async fn progress(&self, name: &str, starts: u64) {
        eventually(SOON, &format!("{starts} starts on {name}"), async || {
            let counts = self.engine(name).counts();
            if counts.starts >= starts {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await;
    }

    /// Waits until all engines together have so many containers, ended ones too.
    pub async fn containers_are(&self, count: usize) {
        eventually(SOON, &format!("{count} containers"), async || {
            let machines = self.machines.values();
            let all: usize = machines.map(|it| it.engine.containers().len()).sum();
            if all == count {
                Ok(())
            } else {
                Err(format!("{all} containers"))
            }
        })
        .await;
    }

    /// All containers that run on any machine, by node.
    pub fn live(&self) -> Vec<(String, Container)> {
        let machines = self.machines.iter();
        machines
            .flat_map(|(name, machine)| {
                let live = machine.engine.live().into_iter();
                live.map(|container| (name.clone(), container))
            })
            .collect()
    }

    /// Node and id of all containers that run.
    pub fn live_ids(&self) -> BTreeSet<(String, String)> {
        let live = self.live().into_iter();
        live.map(|(node, container)| (node, container.id)).collect()
    }

    /// How many containers run on each machine.
    pub fn live_by_node(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.machines.keys() {
            counts.insert(name.clone(), self.engine(name).live().len());
        }
        counts
    }

    /// Checks that exactly the containers of `pods` run, each once, where and as Redis says.
    pub fn assert_exactly_once(&self, pods: &[Pod]) {
        let mut wanted: HashMap<&PodId, &Pod> = pods.iter().map(|pod| (&pod.id, pod)).collect();
        for (node, container) in self.live() {
            let Some(pod) = wanted.remove(&container.pod) else {
                panic!("a double, or nobody's: {container:?} on {node}");
            };
            assert_eq!(pod.node.as_deref(), Some(node.as_str()), "{pod:?}");
            assert_eq!(pod.attempt, container.token.attempt, "{pod:?}");
            assert_eq!(
                pod.container.as_deref(),
                Some(container.id.as_str()),
                "{pod:?}"
            );
        }
        assert!(wanted.is_empty(), "without a container: {wanted:?}");
    }

    // Redis, past the code under test.

    /// A key with this cluster's prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings.key_prefix)
    }

    /// One command, over a connection of its own.
    pub async fn redis<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.settings.redis.url.0.as_str()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("a connection");
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = command.query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Pushes an entry by hand.
    pub async fn push(&self, list: &str, entry: &str) {
        let _: u64 = self.redis(&["LPUSH", &self.key(list), entry]).await;
    }

    /// Pushes entries by hand, all at once.
    pub async fn push_all(&self, list: &str, entries: impl Iterator<Item = String>) {
        let mut words = vec!["LPUSH".to_owned(), self.key(list)];
        words.extend(entries);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _: u64 = self.redis(&words).await;
    }

    /// When, in Redis's milliseconds, which pods were given to a node by a scheduler.
    pub async fn placed_on(&self, node: &str) -> Vec<(u64, String)> {
        let events: Vec<(String, Vec<String>)> =
            self.redis(&["XRANGE", &self.key("events"), "-", "+"]).await;
        let mut placed = Vec::new();
        for (id, fields) in events {
            if fields[..4] != ["kind", "scheduled", "by", "scheduler"] {
                continue;
            }
            let at_ms = id.split('-').next().and_then(|at| at.parse().ok());
            let there = fields[4..].chunks(2).filter(|pair| pair[1] == node);
            placed.extend(there.map(|pair| (at_ms.expect("a time"), pair[0].clone())));
        }
        placed
    }

    /// All keys of this cluster, without its prefix.
    pub async fn keys(&self) -> Vec<String> {
        let pattern = self.key("*");
        let keys: Vec<String> = self.redis(&["KEYS", &pattern]).await;
        let prefix = self.settings.key_prefix.as_str();
        let mut keys: Vec<String> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(prefix).map(str::to_owned))
            .collect();
        keys.sort();
        keys
    }

    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.store.dead_letters(1000).await;
        letters.expect("dead letters are read")
    }

    /// Waits until there are so many dead letters, and gives them.
    pub async fn dead_are(&self, count: usize) -> Vec<DeadLetter> {
        eventually(SOON, &format!("{count} dead letters"), async || {
            let letters = self.dead_letters().await;
            if letters.len() == count {
                Ok(letters)
            } else {
                Err(format!("{letters:?}"))
            }
        })
        .await
    }

    /// Waits until every list of work is empty, those of nodes without an agent left out; and
    /// checks that there are no dead letters.
    pub async fn settled(&self) {
        assert_eq!(self.dead_letters().await, [], "dead letters");
        self.settled_but_dead().await;
    }

    /// The same, where the test has looked at the dead letters itself.
    pub async fn settled_but_dead(&self) {
        eventually(SOON, "nothing is left behind", async || {
            let mut left = self.keys().await;
            left.retain(|key| {
                let node = key.strip_prefix("rq:").or(key.strip_prefix("pq:"));
                match node {
                    Some(node) => self.machines.get(node).is_none_or(|it| it.agent.is_some()),
                    None => key.starts_with("sq") || key == "services:splitting",
                }
            });
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }

    /// Waits until all pods run, whose they be, and gives them.
    pub async fn all_running(&self, limit: Duration) -> Vec<Pod> {
        eventually(limit, "all pods run", async || {
            let pods = self.pods(None).await;
            let rest: Vec<&Pod> = pods
                .iter()
                .filter(|pod| pod.phase != Phase::Running)
                .collect();
            match rest.first() {
                None => Ok(pods),
                Some(one) => Err(format!("{} do not, such as {one:?}", rest.len())),
            }
        })
        .await
    }

    /// Ends a test: nothing may be left behind.
    pub async fn end(self) {
        self.settled().await;
    }
}

fn connect(settings: &Settings) -> Store {
    let redis = Redis::connect(&settings.redis, CancellationToken::new());
    Store::new(redis, &settings.key_prefix)
}
