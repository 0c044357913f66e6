//! The placing loop: wake, claim, plan, assign, until the queue is empty.
//!
//! While one batch is being assigned the next is claimed, so planning and parsing overlap Redis.
//! Every step may be the last: a claim that is not settled is taken back after its lease.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::cluster::{Ask, Cluster};
use super::peers::Peer;
use super::plan::{Plan, plan};
use super::preempt::{Crowded, choose};
use super::record::Record;
use super::recorder::Recorder;
use super::rules::Rules;
use crate::model::{PodId, Priority, RawPod, Strategy};
use crate::process::failpoint;
use crate::settings::SchedulerSettings;
use crate::store::backoff::Backoff;
use crate::store::{
    Adopt, AdoptOutcome, AssignOutcome, Assignment, Burial, Claim, From, Parked, Store, StoreError,
    WaitingPod, Wants,
};
use crate::telemetry::chain;

/// Longest block of one wait for arrivals; also how soon a queue is looked at without any sign.
const ARRIVAL_WAIT: Duration = Duration::from_secs(2);
/// How old the copy of the nodes may get while batches follow one another: their heartbeats are
/// seconds apart, and the assign call has the last word on room.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(200);
/// Parked pods of a batch that have lower ones make room.
const PREEMPTIONS_MAX: usize = 10;
/// Nodes that are looked at for one of them.
const CROWDED_MAX: usize = 10;
/// Placements whose rules are kept; beyond that they are read anew.
const RULES_MAX: usize = 10_000;
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
    recorder: Recorder,
    cluster: Cluster,
    /// Rules by owner (of a pod without one, its id) and revision.
    rules: HashMap<(String, u64), (Arc<Rules>, Instant)>,
    /// Redis's clock at the last look at the nodes, and when that was.
    looked: Option<(u64, Instant)>,
    /// When all nodes were read last, and how long that took.
    looked_at_all: Option<(Instant, Duration)>,
    /// Since when it is known where pods are that others look at.
    counted: Option<Instant>,
}

impl<'a> Placer<'a> {
    /// A placer that has not looked at the nodes yet.
    pub fn new(store: &'a Store, settings: &'a SchedulerSettings, lease: Duration) -> Placer<'a> {
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Placer {
            store,
            settings,
            lease,
            recorder: Recorder::start(store.clone()),
            cluster: Cluster::new(settings.weights, settings.strategy, lease_ms),
            rules: HashMap::new(),
            looked: None,
            looked_at_all: None,
            counted: None,
        }
    }

    /// Forgets the copy of the nodes: after an error nobody knows what was assigned.
    fn forget(&mut self) {
        let mut new = Placer::new(self.store, self.settings, self.lease);
        std::mem::swap(&mut new.recorder, &mut self.recorder);
        *self = new;
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
            let asks = self.asks(&claim.pods).await?;
            self.look_at_pods(&asks).await?;
            let mut record = self.recorder.take(&claim.batch, &asks, &mut self.cluster);
            let mut decided = plan(&claim.batch, &asks, &mut self.cluster);
            // Room that was freed moves no heartbeat: before a pod is parked, all nodes are read.
            let mut is_fresh = false;
            if !decided.parked.is_empty() && self.look_at_all().await? {
                is_fresh = true;
                self.forget_counts();
                self.look_at_pods(&asks).await?;
                if let Some(record) = &mut record {
                    *record = Record::take(&claim.batch, &asks, &mut self.cluster);
                }
                decided = plan(&claim.batch, &asks, &mut self.cluster);
            }
            if let Some(record) = &mut record {
                record.decide(&decided, &self.cluster);
            }
            let nonce = PodId::new_submission();
            failpoint("scheduler.before_assign");
            let next = async {
                if shutdown.is_cancelled() {
                    return Ok(Claim::default());
                }
                self.claim().await
            };
            let assign = self.assign(&claim.batch, &nonce, &asks, &decided);
            let (outcome, next) = tokio::join!(assign, next);
            let outcome = outcome?;
            if let (Some(record), AssignOutcome::Assigned { given_back, .. }) = (record, &outcome) {
                self.recorder.send(record, nonce, *given_back);
            }
            self.settle(&claim, &asks, &decided, outcome);
            // What was freed a moment ago may not be known yet: nobody stops in vain for that.
            if is_fresh {
                self.preempt(&asks, &decided).await?;
            }
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

    /// The pods with their rules: of those that wish something, the spec is read once a revision.
    async fn asks<'p>(&mut self, pods: &'p [WaitingPod]) -> Result<Vec<Ask<'p>>, StoreError> {
        let unread = pods.iter().filter_map(|pod| {
            let wants = pod.wants.as_deref()?;
            let known = self.rules.get(&rules_key(pod, wants));
            let fresh = known.is_some_and(|(rules, at)| {
                !rules.looks_for_labels() || at.elapsed() < SNAPSHOT_AGE_MAX
            });
            (!fresh).then_some((pod, wants))
        });
        let unread: BTreeMap<(String, u64), (&WaitingPod, &Wants)> = unread
            .map(|(pod, wants)| (rules_key(pod, wants), (pod, wants)))
            .collect();
        if !unread.is_empty() {
            if self.rules.len() > RULES_MAX {
                self.rules.clear();
                return Box::pin(self.asks(pods)).await;
            }
            let of: Vec<(&PodId, &Wants)> = unread
                .values()
                .map(|(pod, wants)| (&pod.id, *wants))
                .collect();
            let specs = self.store.queue().specs(&of).await?;
            for ((key, (_, wants)), spec) in unread.into_iter().zip(specs) {
                let ports = wants.host_ports.clone();
                let rules = Rules::read(&wants.owner, wants.revision, ports, &spec);
                let mut rules = rules.asking(wants.asks.clone());
                self.find_targets(&mut rules).await?;
                self.rules.insert(key, (Arc::new(rules), Instant::now()));
            }
        }
        let with_rules = pods.iter().map(|pod| Ask {
            pod,
            rules: pod.wants.as_deref().and_then(|wants| {
                let (rules, _) = self.rules.get(&rules_key(pod, wants))?;
                Some(rules.clone())
            }),
        });
        Ok(with_rules.collect())
    }

    /// Which services the labels of affinities mean.
    async fn find_targets(&self, rules: &mut Rules) -> Result<(), StoreError> {
        for (which, affinity) in rules.placement.affinity.iter().enumerate() {
            let target = affinity.target();
            let labels = target
                .map(|target| &target.labels)
                .filter(|labels| !labels.is_empty());
            if let (Some(labels), Some(targets)) = (labels, rules.targets.get_mut(which)) {
                let queue = self.store.queue();
                *targets = queue.services_with(&rules.namespace, labels).await?;
            }
        }
        Ok(())
    }

    /// Counts where the pods are that these look at, unless that was done a moment ago.
    async fn look_at_pods(&mut self, asks: &[Ask<'_>]) -> Result<(), StoreError> {
        let strategy = self.settings.strategy;
        let bound = asks.iter().filter_map(|ask| ask.rules.as_ref());
        let bound: Vec<&Arc<Rules>> = bound.filter(|rules| rules.is_bound(strategy)).collect();
        let takes_turns = |ask: &Ask<'_>| match &ask.rules {
            Some(rules) => rules.like.strategy(strategy) == Strategy::RoundRobin,
            None => strategy == Strategy::RoundRobin,
        };
        if self
            .counted
            .is_some_and(|at| at.elapsed() >= SNAPSHOT_AGE_MAX)
        {
            self.forget_counts();
        }
        if asks.iter().any(takes_turns) {
            let last = self.store.queue().round_robin().await?;
            self.cluster.set_round_robin(last);
        }
        let peers: BTreeSet<Peer> = bound.iter().flat_map(|rules| rules.peers()).collect();
        for peer in peers {
            if !self.cluster.counts(&peer) {
                let queue = self.store.queue();
                let found = queue.service_nodes(&peer.service, peer.revision).await?;
                self.cluster.count(peer, found.placed, &found.counts);
                self.counted.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }

    /// Has lower pods make room for those of the parked ones that may ask for it.
    async fn preempt(&mut self, asks: &[Ask<'_>], plan: &Plan) -> Result<(), StoreError> {
        let parked = plan.parked.iter().map(|(pod, _)| &asks[*pod]);
        let may = parked.filter_map(|ask| Some((ask, ask.rules.as_ref()?.preempts?)));
        for (ask, standing) in may.take(PREEMPTIONS_MAX) {
            let mut crowded = Vec::new();
            let mut names = Vec::new();
            for (at, missing) in self.cluster.crowded(ask, CROWDED_MAX) {
                let name = self.cluster.name(at).to_owned();
                let lower = self.store.queue().lower(&name, standing).await?;
                crowded.push(Crowded { missing, lower });
                names.push(name);
            }
            if let Some((at, victims)) = choose(&crowded) {
                let queue = self.store.queue();
                let (pod, node) = (&ask.pod.id, &names[at]);
                if queue.preempt(pod, standing, node, &victims).await? {
                    let count = victims.len();
                    tracing::info!(pod.id = %pod, node.id = node, count, "lower pods make room");
                }
            }
        }
        Ok(())
    }

    fn forget_counts(&mut self) {
        self.cluster.forget_peers();
        self.counted = None;
    }

    async fn assign(
        &self,
        batch: &str,
        nonce: &str,
        asks: &[Ask<'_>],
        plan: &Plan,
    ) -> Result<AssignOutcome, StoreError> {
        let mut assignment = Assignment::default();
        let mut positions = HashMap::new();
        let bound_rules = |pod: usize| {
            let rules = asks[pod].rules.as_ref();
            rules.filter(|rules| rules.is_bound(self.settings.strategy))
        };
        let takes_turns = self.settings.strategy == Strategy::RoundRobin;
        let is_bound = |pod: usize| match &asks[pod].rules {
            Some(_) => bound_rules(pod).is_some(),
            None => takes_turns,
        };
        let (bound, free): (Vec<_>, Vec<_>) =
            plan.placed.iter().partition(|(pod, _)| is_bound(*pod));
        assignment.bound = bound.len();
        let rules = bound.iter().filter_map(|(pod, _)| bound_rules(*pod));
        assignment.guards = self.cluster.guards(rules, takes_turns && !bound.is_empty());
        for (pod, at) in free.into_iter().chain(bound) {
            let position = *positions.entry(at).or_insert_with(|| {
                assignment
                    .nodes
                    .push((self.cluster.name(at), self.cluster.turn(at)));
                assignment.nodes.len() - 1
            });
            assignment.pods.push((&asks[pod].pod.id, position));
        }
        assignment
            .parked
            .extend(plan.parked.iter().map(|(pod, reason)| Parked {
                pod: &asks[*pod].pod.id,
                delay: PARKED_DELAY,
                reason: reason.clone(),
            }));
        let outcome = self
            .store
            .queue()
            .assign(batch, nonce, self.lease, &assignment)
            .await;
        failpoint("scheduler.after_assign");
        outcome
    }

    /// Takes over what the assign call found.
    fn settle(&mut self, claim: &Claim, asks: &[Ask<'_>], plan: &Plan, outcome: AssignOutcome) {
        match outcome {
            AssignOutcome::Assigned {
                count,
                given_back,
                room,
                broken,
            } => {
                self.tell(claim, plan, count, given_back);
                if broken || given_back > 0 {
                    self.forget_counts();
                }
                let bound = plan
                    .placed
                    .iter()
                    .filter_map(|(pod, _)| asks[*pod].rules.as_ref());
                let bound = bound.filter(|rules| rules.is_bound(self.settings.strategy));
                let services: BTreeSet<String> = bound
                    .filter_map(|rules| rules.service.as_ref().map(ToString::to_string))
                    .collect();
                for service in services {
                    self.cluster.was_placed(&service);
                }
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
        let mut burials = Vec::new();
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
            let entry = entry.clone();
            burials.push(Burial { entry, why });
        }
        if let Some(Burial { why, .. }) = burials.first() {
            let entries = burials.len();
            tracing::warn!(entries, why, "entries of the queue become dead letters");
        }
        self.store.bury_all(from, &burials).await
    }
}

/// What the rules of a pod are kept by: all pods of a revision share them.
fn rules_key(pod: &WaitingPod, wants: &Wants) -> (String, u64) {
    if wants.owner.is_empty() {
        (pod.id.to_string(), 0)
    } else {
        (wants.owner.clone(), wants.revision)
    }
}
