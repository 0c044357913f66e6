//! A cluster: hosts, a Redis with Sentinels, APIs, schedulers, agents, and the engine beneath them.

mod clocks;
mod docker;
mod hosts;
mod lateness;
mod processes;
pub(crate) mod redis;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kubeleet_faults::logs::{Moment, now_ns, write_line};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use clocks::Clocks;
pub(crate) use hosts::{Cut, Hosts, Way};
use lateness::Lateness;
pub(crate) use processes::{Process, Program};

use crate::http;

/// The servers of Redis, each with a Sentinel beside it.
pub(crate) const SERVERS: [&str; 3] = ["r1", "r2", "r3"];
/// The nodes.
pub(crate) const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// The hosts of API and scheduler.
pub(crate) const CONTROLS: [&str; 2] = ["a1", "a2"];
/// The host of the clients, of this process too.
const CLIENT: &str = "c1";
/// The master's name among the Sentinels.
const MASTER: &str = "kubeleet";

/// Time between two beats of an agent.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// How long a beat holds.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
/// How long a recovery of a lost Redis lasts: not below the lease, where nothing may run twice.
pub(crate) const RECOVERY: Duration = Duration::from_secs(12);
/// Between two comparisons of everything.
const RESYNC: Duration = Duration::from_secs(2);
/// Longest time until all is well after everything was healed, where nothing else is said.
pub(crate) const SETTLE: Duration = Duration::from_secs(45);
/// Cores and memory that each node offers.
const NODE_CPU: &str = "8.0";
const NODE_MEMORY: &str = "8Gi";
/// Pods that each node takes.
const NODE_PODS: &str = "200";

/// Versions of the image that services run.
pub(crate) const IMAGES: usize = 3;

/// The image of a version.
pub(crate) fn image(version: usize) -> String {
    format!("kubeleet/sample:{version}")
}

/// What a cluster is made with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where its logs lie.
    pub(crate) dir: PathBuf,
    /// Where the programs lie.
    pub(crate) programs: PathBuf,
    /// Where those of the version before lie.
    pub(crate) old: Option<PathBuf>,
    /// What all dice are thrown with.
    pub(crate) seed: u64,
    /// Remedies that are switched off, with commas between them.
    pub(crate) remedies_off: String,
    /// What runs the containers.
    pub(crate) engines: Engines,
    /// How many replicas confirm a commit.
    pub(crate) durability: String,
    /// Longest time until all is well after everything was healed.
    pub(crate) settle: Duration,
    /// Services may be held by lost nodes; not where nodes are lost for good.
    pub(crate) hold: bool,
}

/// What runs the containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engines {
    /// Docker, played for all nodes by a process of its own.
    Played,
    /// The machine's Docker, which all agents share.
    Real,
    /// Each agent's own, which dies with it.
    Simulated,
}

/// A cluster that runs.
pub(crate) struct World {
    /// What it was made with.
    pub(crate) plan: Plan,
    /// Its hosts.
    pub(crate) hosts: Hosts,
    processes: BTreeMap<String, Process>,
    extras: Mutex<Vec<Process>>,
    disks: BTreeMap<String, PathBuf>,
    clocks: Clocks,
    round: AtomicU64,
    gone: Mutex<Vec<String>>,
    lateness: Lateness,
    was_ahead: AtomicBool,
}

impl World {
    /// Builds the hosts and enters that of the clients. No thread but this one may run yet.
    pub(crate) fn found(plan: Plan) -> Result<World> {
        std::fs::create_dir_all(plan.dir.join("logs"))?;
        std::fs::create_dir_all(plan.dir.join("run"))?;
        if plan.dir.join("cluster.json").exists() {
            bail!(
                "{} holds a run already: name a fresh folder",
                plan.dir.display()
            );
        }
        let mut names: Vec<(&str, u8)> = vec![(CLIENT, 41)];
        for (hosts, first) in [(&SERVERS[..], 11), (&NODES[..], 21), (&CONTROLS[..], 31)] {
            names.extend(hosts.iter().copied().zip(first..));
        }
        let hosts = Hosts::build(&names)?;
        let mut disks = BTreeMap::new();
        for server in SERVERS {
            disks.insert(server.to_owned(), hosts.disk(server)?);
        }
        hosts.enter(CLIENT)?;
        let clocked = SERVERS.iter().chain(&NODES).chain(&CONTROLS).copied();
        let clocks = Clocks::make(&plan.dir, clocked)?;
        let world = World {
            plan,
            hosts,
            processes: BTreeMap::new(),
            extras: Mutex::default(),
            disks,
            clocks,
            round: AtomicU64::new(0),
            gone: Mutex::default(),
            lateness: Lateness::watch(),
            was_ahead: AtomicBool::new(false),
        };
        world.describe()?;
        Ok(world)
    }

    /// Writes down what others need to know of it.
    fn describe(&self) -> Result<()> {
        let nodes: Vec<Value> = NODES
            .iter()
            .map(|name| {
                json!({"name": name, "cpu": 8.0, "memory_bytes": 8_u64 << 30, "pods_max": 200})
            })
            .collect();
        let redis: Vec<Value> = SERVERS
            .iter()
            .map(|name| json!({"name": name, "addr": self.redis(name)}))
            .collect();
        let apis: Vec<String> = CONTROLS.iter().map(|name| self.api(name)).collect();
        let text = json!({
            "seed": self.plan.seed, "redis": redis, "sentinels": self.sentinels(),
            "master": MASTER, "nodes": nodes, "apis": apis,
            "heartbeat_ms": millis(BEAT), "lease_ms": millis(LEASE),
            "recovery_ms": millis(RECOVERY), "resync_ms": millis(RESYNC), "key_prefix": "",
            "settle_seconds": self.plan.settle.as_secs(), "durability": self.plan.durability,
            "remedies_off": self.plan.remedies_off, "slot": self.hosts.namespace("net"),
        });
        let path = self.plan.dir.join("cluster.json");
        std::fs::write(&path, serde_json::to_string_pretty(&text)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts everything, and waits until all of it answers.
    pub(crate) async fn start(&mut self) -> Result<()> {
        for server in SERVERS {
            self.start_redis(server)?;
        }
        let deadline = Instant::now() + SETTLE;
        until(deadline, async || {
            for server in SERVERS {
                let keys = redis::ask(&self.redis(server), &["DBSIZE"]).await?;
                if keys.text() != "0" {
                    bail!("{server} is not empty at the start: {keys:?}");
                }
            }
            self.replication(self.redis("r1")).await
        })
        .await?;
        for server in SERVERS {
            self.start_sentinel(server)?;
        }
        until(deadline, async || {
            self.tune_sentinels().await;
            self.redis_is_well().await
        })
        .await?;
        match self.plan.engines {
            Engines::Played => self.start_engine().await?,
            Engines::Real => self.start_recorder()?,
            Engines::Simulated => {}
        }
        for host in CONTROLS {
            self.start_program(host, "api", Vec::new());
            self.start_program(host, "scheduler", Vec::new());
        }
        for node in NODES {
            self.start_program(node, "agent", self.agent_settings(node));
        }
        until(deadline, async || self.nodes_are_ready().await).await
    }

    fn start_redis(&mut self, server: &str) -> Result<()> {
        let disk = self.disks[server].clone();
        let mut text = format!(
            "port 6379\nbind 0.0.0.0\nprotected-mode no\ndir {}\nappendonly yes\n\
             appendfsync everysec\nsave \"\"\nmin-replicas-to-write 1\nmin-replicas-max-lag 3\n\
             repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-timeout 6\n\
             repl-ping-replica-period 1\nrepl-backlog-size 8mb\nmaxmemory-policy noeviction\n\
             auto-aof-rewrite-min-size 8mb\nenable-debug-command yes\n\
             busy-reply-threshold 1000\nhash-max-listpack-entries 128\n\
             hash-max-listpack-value 256\n",
            disk.display()
        );
        if server != SERVERS[0] {
            text += &format!("replicaof {} 6379\n", self.hosts.address(SERVERS[0]));
        }
        // Beside the disk, not on it: a full disk must not cost the configuration.
        let path = self.plan.dir.join(format!("redis-{server}.conf"));
        std::fs::write(&path, text)?;
        let command = vec!["redis-server".to_owned(), path.display().to_string()];
        // Longer than Sentinel's down-after: Sentinel decides.
        self.keep(
            server,
            server,
            command,
            self.clocks.variables(server),
            Duration::from_millis(1500),
        );
        Ok(())
    }

    fn start_sentinel(&mut self, server: &str) -> Result<()> {
        let folder = self.plan.dir.join(format!("sentinel-{server}"));
        std::fs::create_dir_all(&folder)?;
        let first = self.hosts.address(SERVERS[0]);
        let text = format!(
            "port 26379\nbind 0.0.0.0\nprotected-mode no\ndir {}\n\
             sentinel monitor {MASTER} {first} 6379 2\n\
             sentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 3000\n\
             sentinel parallel-syncs {MASTER} 2\n",
            folder.display()
        );
        let path = folder.join("sentinel.conf");
        std::fs::write(&path, text)?;
        let command = vec![
            "redis-server".to_owned(),
            path.display().to_string(),
            "--sentinel".to_owned(),
        ];
        let name = format!("sentinel-{server}");
        let clock = self.clocks.variables(server);
        self.keep(&name, server, command, clock, Duration::from_millis(500));
        Ok(())
    }

    async fn start_engine(&mut self) -> Result<()> {
        let program = self.plan.programs.join("engine");
        let dir = self.plan.dir.display().to_string();
        let mut command = vec![program.display().to_string(), "--dir".to_owned(), dir];
        for node in NODES {
            command.extend(["--node".to_owned(), node.to_owned()]);
        }
        for version in 0..IMAGES {
            command.extend(["--image".to_owned(), image(version)]);
        }
        self.keep("engine", "net", command, Vec::new(), Duration::from_secs(1));
        let deadline = Instant::now() + Duration::from_secs(10);
        until(deadline, async || {
            let names = NODES.iter().copied().chain(["control"]);
            for name in names {
                let socket = self.plan.dir.join(format!("{name}.sock"));
                if !socket.exists() {
                    bail!("the engine has made no {}", socket.display());
                }
            }
            Ok(())
        })
        .await
    }

    /// The machine's own Docker, watched.
    fn start_recorder(&mut self) -> Result<()> {
        docker::tag_images((0..IMAGES).map(image))?;
        let program = self.plan.programs.join("checker").display().to_string();
        let dir = self.plan.dir.display().to_string();
        let words = ["record".to_owned(), "--run".to_owned(), dir];
        let nodes = NODES
            .iter()
            .flat_map(|node| ["--node".to_owned(), (*node).to_owned()]);
        let command = std::iter::once(program).chain(words).chain(nodes).collect();
        self.keep(
            "recorder",
            "net",
            command,
            Vec::new(),
            Duration::from_secs(1),
        );
        Ok(())
    }

    fn start_program(&mut self, host: &str, what: &str, settings: Vec<(String, String)>) {
        let mut variables = self.settings();
        variables.extend(settings);
        variables.push((
            "KUBELEET_API__LISTEN".to_owned(),
            format!("{}:8080", self.hosts.address(host)),
        ));
        variables.extend(self.clocks.variables(host));
        let program = self.program(&self.plan.programs, what);
        let name = format!("{what}-{host}");
        self.keep(&name, host, program, variables, Duration::from_millis(400));
    }

    /// The command of a program of kubeleet.
    pub(crate) fn program(&self, programs: &Path, what: &str) -> Vec<String> {
        let name = match what {
            "api" => "kubeleet-api",
            "scheduler" => "kubeleet-scheduler",
            _ => "kubeleet",
        };
        vec![programs.join(name).display().to_string()]
    }

    fn agent_settings(&self, node: &str) -> Vec<(String, String)> {
        let played = self.plan.dir.join(format!("{node}.sock"));
        let (runtime, socket) = match self.plan.engines {
            Engines::Played => ("docker", played.display().to_string()),
            Engines::Real => ("docker", String::new()),
            Engines::Simulated => ("simulated", String::new()),
        };
        let run_dir = self.plan.dir.join("run").display().to_string();
        owned(&[
            ("KUBELEET_NODE__NAME", node),
            ("KUBELEET_NODE__RUNTIME", runtime),
            ("KUBELEET_NODE__RUN_DIR", &run_dir),
            ("KUBELEET_NODE__DOCKER_SOCKET", &socket),
            ("KUBELEET_NODE__CPU", NODE_CPU),
            ("KUBELEET_NODE__MEMORY", NODE_MEMORY),
            ("KUBELEET_NODE__DISK", "100Gi"),
            ("KUBELEET_NODE__PODS_MAX", NODE_PODS),
        ])
    }

    /// What all programs of kubeleet get: timings so short that a round takes seconds.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let sentinels = self.sentinels().join(",");
        let mut settings = owned(&[
            ("KUBELEET_REDIS__SENTINELS", sentinels.as_str()),
            ("KUBELEET_REDIS__MASTER", MASTER),
            ("KUBELEET_REDIS__DURABILITY", &self.plan.durability),
            ("KUBELEET_REDIS__CONNECT_TIMEOUT", "500ms"),
            ("KUBELEET_REDIS__RESPONSE_TIMEOUT", "1s"),
            ("KUBELEET_REDIS__COMMIT_TIMEOUT", "500ms"),
            ("KUBELEET_LOG__FORMAT", "human"),
            ("KUBELEET_AGENT__CONCURRENCY", "8"),
            ("KUBELEET_AGENT__STOP_GRACE", "1s"),
            ("KUBELEET_AGENT__RESTART_BACKOFF", "200ms"),
            ("KUBELEET_AGENT__RESTART_BACKOFF_MAX", "2s"),
            ("KUBELEET_AGENT__PRESSURE_LIMIT__MEMORY", "0"),
            ("KUBELEET_AGENT__PRESSURE_LIMIT__IO", "0"),
            ("KUBELEET_AGENT__IMAGE_DISK_HIGH", "1.0"),
            ("KUBELEET_SCHEDULER__REBALANCE__MODE", "off"),
            ("KUBELEET_SCHEDULER__CLAIM_LEASE", "2s"),
            ("KUBELEET_SCHEDULER__SWEEP_INTERVAL", "500ms"),
        ]);
        for (name, time) in [
            ("KUBELEET_HEARTBEAT__INTERVAL", BEAT),
            ("KUBELEET_HEARTBEAT__LEASE", LEASE),
            ("KUBELEET_REDIS__RECOVERY_TIME", RECOVERY),
            ("KUBELEET_SCHEDULER__COMPARE_INTERVAL", RESYNC),
            ("KUBELEET_AGENT__RESYNC_INTERVAL", RESYNC),
            ("KUBELEET_AGENT__DRIFT_INTERVAL", RESYNC),
        ] {
            settings.push((name.to_owned(), format!("{}ms", millis(time))));
        }
        if !self.plan.remedies_off.is_empty() {
            let off = self.plan.remedies_off.clone();
            settings.push(("KUBELEET_REMEDIES_OFF".to_owned(), off));
        }
        settings
    }

    fn keep(
        &mut self,
        name: &str,
        host: &str,
        command: Vec<String>,
        variables: Vec<(String, String)>,
        pause: Duration,
    ) {
        let process = self.launch(name, host, command, variables, pause);
        self.processes.insert(name.to_owned(), process);
    }

    fn launch(
        &self,
        name: &str,
        host: &str,
        command: Vec<String>,
        variables: Vec<(String, String)>,
        pause: Duration,
    ) -> Process {
        Process::start(Program {
            name: name.to_owned(),
            namespace: self.hosts.namespace(host),
            command,
            variables,
            log: self.plan.dir.join("logs").join(format!("{name}.log")),
            pause,
        })
    }

    /// Another scheduler on a host, until all is healed.
    pub(crate) fn extra_scheduler(&self, host: &str, number: usize) {
        let program = self.program(&self.plan.programs, "scheduler");
        let name = format!("scheduler-{host}-{number}");
        let pause = Duration::from_millis(100);
        let process = self.launch(&name, host, program, self.settings(), pause);
        self.extras().push(process);
    }

    /// The schedulers that were started beyond the usual ones.
    pub(crate) fn extras(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.extras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process by its name, such as `agent-n1`, `r1`, `sentinel-r1`, `api-a1`.
    pub(crate) fn process(&self, name: &str) -> &Process {
        &self.processes[name]
    }

    /// All processes.
    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.values()
    }

    /// The folder of a server's data.
    pub(crate) fn disk(&self, server: &str) -> &Path {
        &self.disks[server]
    }

    /// Address of a server.
    pub(crate) fn redis(&self, server: &str) -> String {
        format!("{}:6379", self.hosts.address(server))
    }

    /// Address of an API.
    pub(crate) fn api(&self, host: &str) -> String {
        format!("{}:8080", self.hosts.address(host))
    }

    /// Addresses of the Sentinels.
    pub(crate) fn sentinels(&self) -> Vec<String> {
        let of = |name: &&str| format!("{}:26379", self.hosts.address(name));
        SERVERS.iter().map(of).collect()
    }

    /// The server that a majority of Sentinels names.
    pub(crate) async fn master(&self) -> Result<&'static str> {
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for sentinel in self.sentinels() {
            let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
            if let Ok(answer) = redis::ask(&sentinel, &words).await
                && let Some(address) = answer.items().first()
            {
                *votes.entry(address.text()).or_default() += 1;
            }
        }
        let named = votes.into_iter().find(|(_, votes)| *votes >= 2);
        let (address, _) = named.context("no majority of Sentinels names a master")?;
        let is_it = |name: &&&str| self.hosts.address(name).to_string() == address;
        let master = SERVERS.iter().find(is_it);
        master.copied().context("the Sentinels name a stranger")
    }

    /// How many fail-overs there were.
    pub(crate) async fn failovers(&self) -> u64 {
        let mut most = 0;
        for sentinel in self.sentinels() {
            if let Ok(state) = redis::ask(&sentinel, &["SENTINEL", "MASTER", MASTER]).await {
                most = most.max(state.field("config-epoch").parse().unwrap_or(0));
            }
        }
        most
    }

    /// Orders a fail-over.
    pub(crate) async fn fail_over(&self) -> Result<()> {
        let sentinel = &self.sentinels()[0];
        redis::ask(sentinel, &["SENTINEL", "FAILOVER", MASTER]).await?;
        Ok(())
    }

    /// Sentinels look more often than they can be configured to.
    pub(crate) async fn tune_sentinels(&self) {
        for sentinel in self.sentinels() {
            let words = "SENTINEL DEBUG INFO-PERIOD 1000 PING-PERIOD 300 PUBLISH-PERIOD 500 \
                TILT-PERIOD 2000 SLAVE-RECONF-TIMEOUT 3000 MIN-LINK-RECONNECT-PERIOD 2000 ELECTION-TIMEOUT 2000";
            let words: Vec<&str> = words.split_whitespace().collect();
            let _ = redis::ask(&sentinel, &words).await;
        }
    }

    async fn replication(&self, master: String) -> Result<()> {
        let info = redis::ask(&master, &["INFO", "replication"]).await?.text();
        let online = info.matches("state=online").count();
        if !info.contains("role:master") || online != 2 {
            bail!(
                "{master} is not a master of two: {}",
                info.replace("\r\n", " ")
            );
        }
        Ok(())
    }

    /// Whether one master has two replicas, and all Sentinels agree and see one another.
    pub(crate) async fn redis_is_well(&self) -> Result<()> {
        let master = self.master().await?;
        for sentinel in self.sentinels() {
            let state = redis::ask(&sentinel, &["SENTINEL", "MASTER", MASTER]).await?;
            let seen =
                ["ip", "flags", "num-slaves", "num-other-sentinels"].map(|of| state.field(of));
            let address = self.hosts.address(master).to_string();
            if seen != [&address, "master", "2", "2"] {
                bail!("{sentinel} sees {seen:?}, the master is {address}");
            }
            for kind in ["REPLICAS", "SENTINELS"] {
                let others = redis::ask(&sentinel, &["SENTINEL", kind, MASTER]).await?;
                for other in others.items() {
                    let (name, flags) = (other.field("name"), other.field("flags"));
                    let link = other.field("master-link-status");
                    if flags.contains("down") || flags.contains("disconnected") || link == "err" {
                        bail!("{sentinel} sees {name} as {flags}, link {link}");
                    }
                }
            }
        }
        self.replication(self.redis(master)).await
    }

    /// Whether every node is ready, as an API says.
    pub(crate) async fn nodes_are_ready(&self) -> Result<()> {
        let answer = self.get("/v1/nodes").await?;
        let items = answer["items"].as_array().context("no list of nodes")?;
        let ready = items.iter().filter(|node| node["state"] == "ready").count();
        if ready != NODES.len() - self.gone().len() {
            let states: Vec<String> = items
                .iter()
                .map(|node| format!("{} {}", node["name"], node["state"]))
                .collect();
            bail!("nodes: {}", states.join(", "));
        }
        Ok(())
    }

    /// Reads from an API.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let mut last = None;
        for host in CONTROLS {
            match http::send(&self.api(host), "GET", path, "", &Value::Null).await {
                Ok(answer) if answer.status == 200 => return Ok(answer.body),
                Ok(answer) => last = Some(format!("{} {}", answer.status, answer.body)),
                Err(error) => last = Some(format!("{error:#}")),
            }
        }
        bail!("GET {path}: {}", last.unwrap_or_default())
    }

    /// Orders something of an API.
    pub(crate) async fn post(&self, path: &str) -> Result<()> {
        let answer = http::send(&self.api(CONTROLS[0]), "POST", path, "", &Value::Null).await?;
        if answer.status >= 300 {
            bail!("POST {path}: {} {}", answer.status, answer.body);
        }
        Ok(())
    }

    /// Tells the engine to misbehave.
    pub(crate) async fn engine(&self, order: &Value) -> Result<()> {
        self.engine_call("/fault", order).await
    }

    async fn engine_call(&self, path: &str, order: &Value) -> Result<()> {
        let socket = self.plan.dir.join("control.sock");
        let answer = http::send_local(&socket, "POST", path, order).await?;
        if answer.status >= 300 {
            bail!(
                "the engine refused {order}: {} {}",
                answer.status,
                answer.body
            );
        }
        Ok(())
    }

    /// Whether engines can be told to misbehave.
    pub(crate) fn has_engine(&self) -> bool {
        self.plan.engines == Engines::Played
    }

    /// Whether containers outlive their agent, and are watched.
    pub(crate) fn is_checked(&self) -> bool {
        self.plan.engines != Engines::Simulated
    }

    /// The number of the round.
    pub(crate) fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    /// Writes down what happens.
    pub(crate) fn note(&self, what: &str, name: &str, detail: Value) {
        let moment = Moment {
            at_ns: now_ns(),
            round: self.round(),
            what: what.to_owned(),
            name: name.to_owned(),
            detail,
        };
        let _ = write_line(&self.plan.dir.join("timeline.jsonl"), &moment);
    }

    /// The longest time for which this machine kept a process waiting, since last asked.
    pub(crate) fn late(&self) -> Duration {
        self.lateness.take()
    }

    /// Begins a round.
    pub(crate) fn next_round(&self) -> u64 {
        self.round.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Undoes every fault there is.
    pub(crate) async fn heal(&self) -> Result<()> {
        for extra in self.extras().drain(..) {
            extra.end();
        }
        for host in SERVERS.iter().chain(&NODES).chain(&CONTROLS) {
            self.hosts.heal(host)?;
        }
        for server in SERVERS {
            // A filled disk goes first: nothing starts on it.
            let _ = std::fs::remove_file(self.disk(server).join("filler"));
            self.set_clock(server, 0)?;
        }
        for host in CONTROLS.iter().chain(&NODES) {
            self.set_clock(host, 0)?;
        }
        for node in NODES {
            let _ = self.signal_watchdog(node, Signal::CONT);
        }
        for process in self.processes() {
            process.variables(Vec::new());
            if process.command(None) {
                process.signal(Signal::KILL);
            }
            process.disarm();
            if !self.gone().iter().any(|gone| gone == process.name()) {
                process.release();
            }
        }
        for server in SERVERS {
            let _ = redis::ask(&self.redis(server), &["CONFIG", "SET", "maxmemory", "0"]).await;
        }
        if self.has_engine() {
            self.engine_call("/heal", &json!({"node": "*"})).await?;
        }
        Ok(())
    }

    /// Processes that ended though nobody told them to, and panics in the logs.
    pub(crate) fn deaths(&self) -> Vec<String> {
        self.processes()
            .flat_map(|process| process.deaths())
            .collect()
    }

    /// Moves a host's wall clock to so many seconds from the true time.
    pub(crate) fn set_clock(&self, host: &str, seconds: i64) -> Result<()> {
        if seconds > 0 && SERVERS.contains(&host) {
            self.was_ahead.store(true, Ordering::Relaxed);
        }
        self.clocks.set(host, seconds)
    }

    /// Whether the clock of a server of Redis was ever ahead.
    pub(crate) fn was_ahead(&self) -> bool {
        self.was_ahead.load(Ordering::Relaxed)
    }

    /// Ends everything.
    pub(crate) fn end(&self) {
        for process in self.processes() {
            process.end();
        }
        for extra in self.extras().drain(..) {
            extra.end();
        }
        if self.plan.engines == Engines::Real {
            let _ = docker::remove_containers(&self.plan.dir, &NODES);
        }
    }

    fn gone(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a node's agent for good: nothing heals that.
    pub(crate) fn lose_node(&self, node: &str) {
        let agent = format!("agent-{node}");
        self.process(&agent).hold(Signal::KILL);
        self.gone().push(agent);
    }

    /// Sends a signal to the watchdog of a node, which its agent started.
    pub(crate) fn signal_watchdog(&self, node: &str, signal: Signal) -> Result<()> {
        let mut found = false;
        for (pid, command) in self.hosts.processes(node)? {
            if command.contains("\0watchdog\0") {
                found = true;
                kill_process(pid, signal)?;
            }
        }
        if !found && !self.plan.remedies_off.contains("watchdog") {
            bail!("{node} has no watchdog");
        }
        Ok(())
    }

    /// Kills a process of a host; its supervisor starts it again.
    pub(crate) fn kill(&self, name: &str, signal: Signal) {
        self.process(name).signal(signal);
    }
}

/// Tries again until it works or the deadline is past; then says why not.
pub(crate) async fn until(
    deadline: Instant,
    mut holds: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    loop {
        let Err(error) = holds().await else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}
