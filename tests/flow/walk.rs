//! A random walk over a whole cluster: what users ask for, and whatever may go wrong beside it.
//!
//! Each walk has a Redis of its own, simulated engines and the real stations. After each leg every
//! fault ends, and within [`HEALED`] all must be as was wished, and rest there.
//!
//! `WALK_SEED=<number>` walks that seed alone; `WALK_MINUTES=<number>` (`make walk`) walks new
//! seeds for so long. A failing walk prints its seed and its last steps. One seed always rolls the
//! same dice, but the stations run beside the walker: a failure may need a few tries to come back.

mod damage;
mod deeds;
mod door;
mod faults;
mod judge;
mod loss;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::deeds::Wish;
use self::door::Door;
use self::loss::Copy;
use crate::support::RedisServer;
use crate::support::cluster::Cluster;
use crate::support::dice::Dice;
use crate::support::station::Frozen;

/// Some that failed once, and some more.
const SEEDS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Walks at once: most of their time they wait.
const PARALLEL: usize = 8;
const LEGS: u64 = 3;
const STEPS: u64 = 140;
/// The longest pause between two steps, in ms: some meet the stations at work, some at rest.
const PAUSE_MAX_MS: u64 = 20;
const NODES: [&str; 3] = ["worker1", "worker2", "worker3"];
/// Time between two comparisons, here of all parts.
const RESYNC: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_millis(1500);
/// Longer than it takes all to reach a Redis that started again.
const RECOVERY: Duration = Duration::from_secs(3);
/// All must be as wished so long after the last fault: the one resync that is promised.
const HEALED: Duration = Duration::from_secs(30);
/// Steps that a failing walk shows.
const JOURNAL_MAX: usize = 200;

/// One walk.
pub(crate) struct Walk {
    dice: Dice,
    /// Before the cluster: a frozen agent cannot be killed.
    frozen: BTreeMap<String, Frozen>,
    door: Door,
    cluster: Cluster,
    redis: RedisServer,
    /// What was answered with success, by name of the service.
    wishes: BTreeMap<String, Wish>,
    /// Services of which nobody can say, since the store was lost, whether they stand.
    unsure: BTreeSet<String>,
    /// An older copy of the store.
    copy: Option<Copy>,
    /// Pods pushed by hand that were seen in Redis, and that nobody stopped or damaged since.
    by_hand: BTreeSet<String>,
    /// Pods whose records were damaged.
    damaged: BTreeSet<String>,
    /// Pods whose entry in their owner's index was taken away.
    unled: BTreeSet<String>,
    /// Containers that are not ours, by node.
    strangers: BTreeMap<String, BTreeSet<String>>,
    /// How often containers of a service failed since its last change: each failure doubles a pause.
    failures: BTreeMap<String, u32>,
    step: u64,
    journal: Journal,
}

/// What was done last, shown if the walk fails.
struct Journal {
    seed: u64,
    lines: VecDeque<String>,
}

impl Journal {
    fn note(&mut self, line: String) {
        if self.lines.len() == JOURNAL_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl Drop for Journal {
    #[expect(clippy::print_stderr, reason = "a failed walk must be seen")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.lines {
                eprintln!("  {line}");
            }
            eprintln!("walk it again with WALK_SEED={}", self.seed);
        }
    }
}

/// What all walks together came to.
#[derive(Default)]
struct Totals {
    walks: AtomicU64,
    steps: AtomicU64,
    losses: AtomicU64,
    /// The longest that all took to be as wished, in ms.
    healed_ms: AtomicU64,
}

#[expect(clippy::disallowed_methods, reason = "not settings: for whoever tests")]
fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "figures for whoever runs it with --nocapture"
)]
fn after_the_last_fault_all_is_as_wished() {
    let totals = Totals::default();
    let began = Instant::now();
    match (number_of("WALK_SEED"), number_of("WALK_MINUTES")) {
        (Some(seed), _) => walk_all([seed].into_iter(), &totals),
        (None, Some(minutes)) => {
            let until = began + Duration::from_secs(minutes * 60);
            let first = rand::random::<u32>();
            let seeds = (u64::from(first)..).take_while(|_| Instant::now() < until);
            walk_all(seeds, &totals);
        }
        (None, None) => walk_all(SEEDS.into_iter(), &totals),
    }
    println!(
        "{} walks, {} steps and {} losses in {:?}; healed within {} ms",
        totals.walks.into_inner(),
        totals.steps.into_inner(),
        totals.losses.into_inner(),
        began.elapsed(),
        totals.healed_ms.into_inner(),
    );
}

fn walk_all(seeds: impl Iterator<Item = u64> + Send, totals: &Totals) {
    let seeds = std::sync::Mutex::new(seeds);
    let next = || seeds.lock().expect("no walk fails here").next();
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(Box::pin(walk(seed, totals)));
                }
            });
        }
    });
}

async fn walk(seed: u64, totals: &Totals) {
    let mut walk = Walk::start(seed).await;
    for _ in 0..LEGS {
        for _ in 0..STEPS {
            walk.step += 1;
            walk.go().await;
            let pause = walk.dice.roll(PAUSE_MAX_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        walk.end_faults().await;
        let healed = walk.judge().await;
        let healed_ms = u64::try_from(healed.as_millis()).expect("a short time");
        totals.healed_ms.fetch_max(healed_ms, Ordering::Relaxed);
        let lost = u64::from(walk.lose_the_store().await);
        totals.losses.fetch_add(lost, Ordering::Relaxed);
        totals.steps.fetch_add(STEPS, Ordering::Relaxed);
    }
    totals.walks.fetch_add(1, Ordering::Relaxed);
}

impl Walk {
    async fn start(seed: u64) -> Walk {
        let journal = Journal {
            seed,
            lines: VecDeque::new(),
        };
        let redis = RedisServer::start().await;
        let mut cluster = Cluster::on(&redis.url(), |settings| {
            settings.redis.response_timeout = Duration::from_millis(500);
            settings.redis.recovery_time = RECOVERY;
            settings.heartbeat.interval = Duration::from_millis(100);
            settings.heartbeat.lease = LEASE;
            settings.scheduler.claim_lease = Duration::from_millis(500);
            settings.scheduler.sweep_interval = Duration::from_millis(50);
            settings.scheduler.compare_interval = RESYNC;
            settings.agent.resync_interval = RESYNC;
        })
        .await;
        cluster.add_nodes(NODES.len()).await;
        cluster.add_scheduler();
        let door = Door::open(&cluster.settings);
        Walk {
            dice: Dice(seed),
            frozen: BTreeMap::new(),
            door,
            cluster,
            redis,
            wishes: BTreeMap::new(),
            unsure: BTreeSet::new(),
            copy: None,
            by_hand: BTreeSet::new(),
            damaged: BTreeSet::new(),
            unled: BTreeSet::new(),
            strangers: BTreeMap::new(),
            failures: BTreeMap::new(),
            step: 0,
            journal,
        }
    }

    /// One step: a deed of a user's, or a fault.
    async fn go(&mut self) {
        match self.dice.roll(100) {
            0..40 => self.deed().await,
            40..70 => self.fault().await,
            _ => self.damage().await,
        }
    }

    fn note(&mut self, line: impl std::fmt::Display) {
        let line = format!("{:>4} {line}", self.step);
        tracing::info!("walk: {line}");
        self.journal.note(line);
    }

    /// A node's name.
    fn node(&mut self) -> &'static str {
        self.dice.of(&NODES).expect("there are some")
    }
}
