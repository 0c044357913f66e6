//! The rounds: at the pace of heartbeats, any number of schedulers look at the nodes that tell of pressure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Candidate, Choice, Pressed, choose, may_move, pressed};
use crate::settings::{RebalanceMode, RebalanceSettings};
use crate::store::backoff::Backoff;
use crate::store::{
    MoveMode, MoveOutcome, MoveRules, MoveWish, NodeSnapshot, PodUse, Store, StoreError,
};
use crate::telemetry::chain;

/// Fewest heartbeats in a row that make pressure last, however far apart they are.
const BEATS_MIN: u64 = 3;
/// Nodes looked at as targets for one pod; with more nodes, any of them.
const TARGETS_MAX: usize = 500;
/// Part of the time that makes pressure last, until a node is looked at again where nothing could be done.
const PAUSE_PART: u32 = 4;

/// Looks again and again until `shutdown`.
pub(in crate::scheduler) async fn run(
    store: &Store,
    settings: &RebalanceSettings,
    interval: Duration,
    lease: Duration,
    shutdown: &CancellationToken,
) {
    let mode = match settings.mode {
        RebalanceMode::Off => return,
        RebalanceMode::Suggest => MoveMode::Suggest,
        RebalanceMode::On => MoveMode::On,
    };
    let mut rounds = Rounds {
        store,
        settings,
        lease,
        rules: MoveRules {
            mode,
            per_minute: settings.moves_per_minute,
            rest: settings.rest,
        },
        paused: HashMap::new(),
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut backoff = Backoff::new();
    loop {
        tokio::select! {
            biased; // after a round that took long the next one is due already
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match shutdown.run_until_cancelled(rounds.next()).await {
            Some(Ok(())) => backoff.reset(),
            Some(Err(error)) => {
                tracing::warn!(error = chain(&error), "rebalancing failed, trying again");
                backoff.wait(shutdown).await;
            }
            None => return,
        }
    }
}

struct Rounds<'a> {
    store: &'a Store,
    settings: &'a RebalanceSettings,
    lease: Duration,
    rules: MoveRules,
    /// Nodes for which nothing could be done, until when: their targets need not be read each time.
    paused: HashMap<String, Instant>,
}

impl Rounds<'_> {
    async fn next(&mut self) -> Result<(), StoreError> {
        let nodes = self.store.nodes();
        let stayed = nodes.expire_moves(self.settings.patience).await?;
        if stayed > 0 {
            tracing::warn!(pods = stayed, "pods were to be moved, and stay after all");
        }
        let now = Instant::now();
        self.paused.retain(|_, until| *until > now);
        for (node, users) in nodes.strained().await? {
            let found = pressed(&node, &self.settings.threshold);
            let strain = nodes.strain(&node, found.is_some(), self.lease).await?;
            let (Some(pressed), Some(strain)) = (found, strain) else {
                continue;
            };
            let lasts = strain.beats >= BEATS_MIN && strain.lasts >= self.settings.lasting;
            if lasts && !self.paused.contains_key(&node.name) {
                self.relieve(&node, pressed, &users).await?;
            }
        }
        Ok(())
    }

    /// Has one pod leave a node, or suggests it, if one is worth it.
    async fn relieve(
        &mut self,
        node: &NodeSnapshot,
        pressed: Pressed,
        users: &[PodUse],
    ) -> Result<(), StoreError> {
        let candidates = self.candidates(node, users).await?;
        let mut others = Vec::new();
        if candidates.iter().any(may_move) {
            let seen = self.store.nodes().some(TARGETS_MAX).await?;
            others = seen.nodes;
            let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
            others.retain(|other| seen.now_ms.saturating_sub(other.heartbeat_ms) <= lease_ms);
        }
        let threshold = &self.settings.threshold;
        let choice = choose(node, pressed, &candidates, &others, threshold);
        let outcome = match &choice {
            Some(choice) => Some(self.carry_out(node, pressed, choice).await?),
            None => None,
        };
        if !matches!(outcome, Some(MoveOutcome::Moving | MoveOutcome::Suggested)) {
            let until = Instant::now() + self.settings.lasting / PAUSE_PART;
            self.paused.insert(node.name.clone(), until);
        }
        Ok(())
    }

    async fn candidates(
        &self,
        node: &NodeSnapshot,
        users: &[PodUse],
    ) -> Result<Vec<Candidate>, StoreError> {
        let nodes = self.store.nodes();
        let culprits = nodes.culprits(&node.name, self.settings.rest, users);
        let used = |pod| users.iter().find(|user| user.pod == pod).cloned();
        let candidates = culprits.await?.into_iter().filter_map(|culprit| {
            let used = used(culprit.pod.clone())?;
            Some(Candidate { culprit, used })
        });
        Ok(candidates.collect())
    }

    async fn carry_out(
        &self,
        node: &NodeSnapshot,
        pressed: Pressed,
        choice: &Choice<'_>,
    ) -> Result<MoveOutcome, StoreError> {
        let why = reason(node, pressed, choice);
        let culprit = &choice.candidate.culprit;
        let wish = MoveWish {
            pod: &culprit.pod,
            node: &node.name,
            attempt: culprit.attempt,
            why: &why,
        };
        let outcome = self.store.nodes().move_pod(&wish, &self.rules).await?;
        tracing::info!(pod.id = %culprit.pod, node.id = node.name, why, ?outcome, "pod to be moved");
        Ok(outcome)
    }
}

fn reason(node: &NodeSnapshot, pressed: Pressed, choice: &Choice<'_>) -> String {
    let (word, percent) = (pressed.scarce.word(), pressed.percent);
    let (share, target) = (choice.share * 100.0, choice.target);
    let node = &node.name;
    format!(
        "node {node} waits for {word} {percent:.0} % of the time, and this pod uses {share:.0} % of \
         what is used there; {target} could take it"
    )
}
