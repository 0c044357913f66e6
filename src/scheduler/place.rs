//! The placing loop: wake, claim, plan, assign, until the queue is empty.
//!
//! While one batch is being assigned the next is claimed, so planning and parsing overlap Redis.
//! Every step may be the last: a claim that is not settled is taken back after its lease.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::plan::{Plan, plan};
use crate::model::{PodId, Priority, RawPod};
use crate::process::failpoint;
use crate::settings::SchedulerSettings;
use crate::store::backoff::Backoff;
use crate::store::{
    Adopt, AdoptOutcome, AssignOutcome, Assignment, Claim, From, Parked, Store, StoreError,
};
use crate::telemetry::chain;

/// Longest block of one wait for arrivals; also how soon a queue is looked at without any sign.
const ARRIVAL_WAIT: Duration = Duration::from_secs(2);
/// How old the copy of the nodes may get while batches follow one another: their heartbeats are
/// seconds apart, and the assign call has the last word on room.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(200);
/// Pods of a batch that are told one by one; a large batch is told as a whole.
const TOLD_MAX: usize = 20;
/// First delay before a pod that fits nowhere is tried again; the library doubles it.
const PARKED_DELAY: Duration = Duration::from_secs(1);

/// Places pods until `shutdown`.
pub async fn run(
    store: &Store,
    settings: &SchedulerSettings,
    lease: Duration,
    shutdown: &CancellationToken,
) {
    let (wake, mut woken) = mpsc::channel(Priority::ALL.len());
    let watches = Priority::ALL.map(|priority| {
        tokio::spawn(watch(
            store.clone(),
            priority,
            wake.clone(),
            shutdown.clone(),
        ))
    });
    drop(wake);
    let mut placer = Placer::new(store, settings, lease);
    let mut backoff = Backoff::new();
    while let Some(drained) = woken.recv().await {
        match placer.drain(shutdown).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(error = chain(&error), "placing failed, trying again");
                placer.forget();
                backoff.wait(shutdown).await;
            }
        }
        // Only now may the watch look again: while the queue holds something it answers at once.
        drop(drained);
    }
    for watch in watches {
        let _ = watch.await;
    }
}

/// Sends a wake-up whenever the queue of `priority` holds something, then waits until the receiver
/// drops what came with it.
async fn watch(
    store: Store,
    priority: Priority,
    wake: mpsc::Sender<oneshot::Sender<()>>,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::new();
    let mut arrivals = None;
    while !shutdown.is_cancelled() {
        let result = async {
            let watch = match &mut arrivals {
                Some(watch) => watch,
                None => arrivals.insert(store.queue().arrivals(priority, ARRIVAL_WAIT).await?),
            };
            watch.wait().await
        };
        let found = tokio::select! {
            found = result => found,
            () = shutdown.cancelled() => return,
        };
        match found {
            Ok(found) => {
                backoff.reset();
                if found {
                    let (drained, until_drained) = oneshot::channel();
                    if wake.send(drained).await.is_err() {
                        return;
                    }
                    let _ = until_drained.await;
                }
            }
            Err(error) => {
                tracing::warn!(
                    queue = priority.as_str(),
                    error = chain(&error),
                    "watching the queue failed, trying again"
                );
                arrivals = None;
                backoff.wait(&shutdown).await;
            }
        }
    }
}

/// Claims, plans and assigns, with its copy of the nodes.
pub struct Placer<'a> {
    store: &'a Store,
    settings: &'a SchedulerSettings,
    lease: Duration,
    cluster: Cluster,
    /// Redis's clock at the last look at the nodes, and when that was.
    looked: Option<(u64, Instant)>,
    /// When all nodes were read last, and how long that took.
    looked_at_all: Option<(Instant, Duration)>,
}

impl<'a> Placer<'a> {
    /// A placer that has not looked at the nodes yet.
    pub fn new(store: &'a Store, settings: &'a SchedulerSettings, lease: Duration) -> Placer<'a> {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Placer {
            store,
            settings,
            lease,
            cluster: Cluster::new(settings.weights, lease_ms),
            looked: None,
            looked_at_all: None,
        }
    }

    /// Forgets the copy of the nodes: after an error nobody knows what was assigned.
    fn forget(&mut self) {
        *self = Placer::new(self.store, self.settings, self.lease);
    }

    /// Places until nothing waits.
    ///
    /// # Errors
    /// Redis failed; what was claimed comes back after its lease.
    pub async fn drain(&mut self, shutdown: &CancellationToken) -> Result<(), StoreError> {
        let mut claim = self.claim().await?;
        while !claim.batch.is_empty() {
            failpoint("scheduler.after_claim");
            self.look().await?;
            self.read_raw(&claim).await?;
            let mut decided = plan(&claim.pods, &mut self.cluster);
            // Room that was freed moves no heartbeat: before a pod is parked, all nodes are read.
            if !decided.parked.is_empty() && self.look_at_all().await? {
                decided = plan(&claim.pods, &mut self.cluster);
            }
            failpoint("scheduler.before_assign");
            let next = async {
                if shutdown.is_cancelled() {
                    return Ok(Claim::default());
                }
                self.claim().await
            };
            let (outcome, next) = tokio::join!(self.assign(&claim, &decided), next);
            self.settle(&claim, &decided, outcome?);
            claim = next?;
        }
        Ok(())
    }

    async fn claim(&self) -> Result<Claim, StoreError> {
        let queue = self.store.queue();
        queue
            .claim(self.settings.claim_lease, self.settings.batch)
            .await
    }

    /// Reads what changed among the nodes, unless that was a moment ago; at first, all of them.
    ///
    /// # Errors
    /// Redis failed.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        match self.looked {
            Some((now_ms, at)) if at.elapsed() < SNAPSHOT_AGE_MAX => {
                let elapsed = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.cluster.tick(now_ms.saturating_add(elapsed));
                Ok(())
            }
            Some((now_ms, _)) => self.hear_since(now_ms).await.map(drop),
            None => self.look_at_all().await.map(drop),
        }
    }

    /// Reads all nodes, unless that was a moment ago; answers whether it did. It takes at most a
    /// fifth of the time, however many nodes there are.
    async fn look_at_all(&mut self) -> Result<bool, StoreError> {
        if let Some((at, took)) = self.looked_at_all
            && at.elapsed() < SNAPSHOT_AGE_MAX.max(took * 4)
        {
            return Ok(false);
        }
        let asked = Instant::now();
        let mut known: HashSet<String> = self.store.nodes().lost().await?.into_iter().collect();
        known.extend(self.hear_since(0).await?);
        self.cluster.keep(|name| known.contains(name));
        self.looked_at_all = Some((asked, asked.elapsed()));
        Ok(true)
    }

    /// Reads the nodes heard since then; answers which these are.
    async fn hear_since(&mut self, since_ms: u64) -> Result<Vec<String>, StoreError> {
        let asked = Instant::now();
        let mut seen = self.store.nodes().seen_since(since_ms).await?;
        if seen.now_ms < since_ms {
            // Redis's clock went back, at a fail-over for one: who was heard last is not known.
            self.forget();
            seen = self.store.nodes().seen_since(0).await?;
        }
        let names = seen.nodes.iter().map(|node| node.name.clone()).collect();
        self.cluster.hear(seen.now_ms, seen.nodes);
        self.looked = Some((seen.now_ms, asked));
        Ok(names)
    }

    async fn assign(&self, claim: &Claim, plan: &Plan) -> Result<AssignOutcome, StoreError> {
        let mut assignment = Assignment::default();
        let mut positions = std::collections::HashMap::new();
        for (pod, at) in &plan.placed {
            let position = *positions.entry(*at).or_insert_with(|| {
                assignment.nodes.push(self.cluster.name(*at));
                assignment.nodes.len() - 1
            });
            assignment.pods.push((&claim.pods[*pod].id, position));
        }
        assignment
            .parked
            .extend(plan.parked.iter().map(|(pod, reason)| Parked {
                pod: &claim.pods[*pod].id,
                delay: PARKED_DELAY,
                reason: reason.clone(),
            }));
        let nonce = PodId::new_submission();
        let outcome = self
            .store
            .queue()
            .assign(&claim.batch, &nonce, self.lease, &assignment)
            .await;
        failpoint("scheduler.after_assign");
        outcome
    }

    /// Takes over what the assign call found.
    fn settle(&mut self, claim: &Claim, plan: &Plan, outcome: AssignOutcome) {
        match outcome {
            AssignOutcome::Assigned {
                count,
                given_back,
                room,
            } => {
                self.tell(claim, plan, count, given_back);
                let named: HashSet<&str> = room.iter().map(|room| room.node.as_str()).collect();
                let doubted: Vec<String> = plan
                    .placed
                    .iter()
                    .map(|(_, at)| self.cluster.name(*at))
                    .filter(|name| !named.contains(name))
                    .map(str::to_owned)
                    .collect();
                for name in doubted {
                    self.cluster.doubt(&name);
                }
                for room in &room {
                    self.cluster.set_room(room);
                }
            }
            AssignOutcome::Lapsed => {
                tracing::warn!(
                    batch = claim.batch,
                    "the claim's lease was over before it was assigned"
                );
                self.forget();
            }
        }
    }

    /// Each pod by name while they are few, so that one id leads through all logs.
    fn tell(&self, claim: &Claim, plan: &Plan, assigned: usize, given_back: usize) {
        for (pod, at) in plan.placed.iter().take(TOLD_MAX) {
            let pod = &claim.pods[*pod].id;
            tracing::info!(pod.id = %pod, node.id = self.cluster.name(*at), "pod assigned");
        }
        for (pod, reason) in plan.parked.iter().take(TOLD_MAX) {
            tracing::debug!(pod.id = %claim.pods[*pod].id, reason, "pod parked");
        }
        if assigned > TOLD_MAX || given_back > 0 {
            let (batch, parked) = (&claim.batch, plan.parked.len());
            tracing::info!(batch, assigned, parked, given_back, "batch assigned");
        }
    }

    /// Turns descriptions pushed by hand into pods, which come back through the queue, and rubbish
    /// into dead letters.
    async fn read_raw(&self, claim: &Claim) -> Result<(), StoreError> {
        let from = From::Claim(&claim.batch);
        for entry in &claim.raw {
            let why = match RawPod::parse(entry) {
                Ok(raw) => {
                    let nonce = "";
                    let adopt = Adopt {
                        from,
                        entry,
                        raw: &raw,
                        nonce,
                    };
                    match self.store.pending().adopt(adopt).await? {
                        AdoptOutcome::Adopted => {
                            failpoint("scheduler.after_adopt");
                            tracing::info!(pod.id = %raw.id, "pod pushed by hand is in the queue");
                            continue;
                        }
                        AdoptOutcome::Known => continue,
                        AdoptOutcome::Stopped => {
                            format!("pod {} was stopped: use another uuid", raw.id)
                        }
                        AdoptOutcome::Full(what) => format!("there is no room: {what}"),
                    }
                }
                Err(why) => why,
            };
            tracing::warn!(why, "an entry of the queue became a dead letter");
            self.store.bury(from, entry, &why).await?;
        }
        Ok(())
    }
}
