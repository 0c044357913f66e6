//! Heartbeats: they register the node, renew its lease, and tell what it offers and how it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::AgentError;
use super::lease::Moment;
use super::offer::Offer;
use super::pressure::Sampler;
use super::pressure::limit::Limit;
use super::restore;
use super::worker::Workers;
use crate::model::EngineState;
use crate::model::node::read_labels;
use crate::settings::{HeartbeatSettings, Settings};
use crate::store::backoff::Backoff;
use crate::store::{Beat, BeatOutcome, ClusterSeen, RegisterOutcome, StoreError};
use crate::telemetry::chain;

/// Longest wait before a failed heartbeat is tried again: well within the lease.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Registers and beats for one node.
pub(super) struct Heart {
    workers: Arc<Workers>,
    settings: HeartbeatSettings,
    engine_id: String,
    offer: Offer,
    labels: BTreeMap<String, String>,
    sampler: Sampler,
    limit: Limit,
    frozen: bool,
    /// The loss of Redis after which this agent told what its node holds.
    told: u64,
    recovering: bool,
    /// What users said of this node, as Redis told it last.
    said: String,
}

impl Heart {
    pub(super) fn new(
        workers: &Arc<Workers>,
        settings: &Settings,
        engine_id: String,
        offer: Offer,
    ) -> Heart {
        Heart {
            workers: workers.clone(),
            settings: settings.heartbeat.clone(),
            engine_id,
            offer,
            labels: read_labels(&settings.node.labels.join(",")),
            sampler: Sampler::new(&settings.node.proc_dir),
            limit: Limit::new(settings.agent.pressure_limit),
            frozen: false,
            told: 0,
            recovering: false,
            said: String::new(),
        }
    }

    /// Registers, waiting as long as it takes. Cancel-safe.
    pub(super) async fn register(mut self) -> Result<Heart, AgentError> {
        let mut backoff = Backoff::new();
        loop {
            match self.try_register().await {
                Ok(true) => return Ok(self),
                Ok(false) => {}
                Err(error @ StoreError::Newer { .. }) => return Err(AgentError::Store(error)),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "registering failed, trying again");
                }
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Beats until another agent counts. Cancel-safe.
    pub(super) async fn run(mut self) -> Result<(), AgentError> {
        let mut backoff = Backoff::new();
        let mut engine = self.workers.engine_up.subscribe();
        loop {
            let pause = match self.beat().await {
                Ok(true) => {
                    backoff.reset();
                    self.settings.interval
                }
                Ok(false) => return Ok(()),
                Err(error @ StoreError::Newer { .. }) => return Err(AgentError::Store(error)),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "heartbeat failed, trying again");
                    backoff.next_pause().min(RETRY_MAX)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = engine.changed() => {} // the schedulers should know at once
            }
        }
    }

    fn sample(&mut self) -> Beat {
        let sample = self.sampler.sample();
        let pressed = self.limit.judge(&sample);
        self.workers.set_pressed(pressed.clone());
        let engine = if *self.workers.engine_up.borrow() {
            EngineState::Up
        } else {
            EngineState::Down
        };
        Beat {
            engine,
            capacity: self.offer.capacity,
            cpu_used: sample.cpu_used,
            memory_used_bytes: sample.memory_used_bytes,
            pressure: sample.pressure,
            pressed: pressed.unwrap_or_default(),
            users: self.workers.users.told(&sample),
            told: self.recovering.then_some(self.told),
            ..Beat::default()
        }
    }

    async fn try_register(&mut self) -> Result<bool, StoreError> {
        let mut beat = self.sample();
        beat.labels.clone_from(&self.labels);
        beat.offers.clone_from(&self.offer.amounts);
        beat.devices = self.offer.devices.names();
        beat.platform = platform();
        let node = self.workers.node();
        let sent = Moment::now();
        let nodes = self.workers.store().nodes();
        match nodes
            .register(node, &self.engine_id, self.settings.lease, &beat)
            .await?
        {
            RegisterOutcome::Registered { epoch, cluster } => {
                self.workers.set_epoch(epoch);
                if self.renew(sent, &cluster.id) {
                    self.restore(&cluster).await;
                }
                Ok(true)
            }
            RegisterOutcome::Taken { left } => {
                tracing::error!(
                    node.id = node,
                    left_ms = left.as_millis(),
                    "the agent of another engine holds this node's name: waiting for its lease to end"
                );
                Ok(false)
            }
        }
    }

    /// One heartbeat; false if another agent counts now.
    async fn beat(&mut self) -> Result<bool, StoreError> {
        if self.frozen && self.workers.store().open().await? != self.workers.cluster() {
            return Ok(true); // a node of ours would be given pods of the other cluster
        }
        let beat = self.sample();
        let sent = Moment::now();
        let nodes = self.workers.store().nodes();
        match nodes
            .heartbeat(self.workers.node(), self.workers.epoch(), &beat)
            .await?
        {
            BeatOutcome::Renewed {
                cluster,
                returned,
                said,
            } => {
                if self.renew(sent, &cluster.id) {
                    if returned {
                        tracing::warn!(
                            "this node had been given up for lost: comparing all its containers"
                        );
                        // It may have said of those that are held that they do not serve.
                        self.workers.tell_again();
                        self.workers.compare_all();
                    }
                    self.restore(&cluster).await;
                    // What stands there while all is put back may be older.
                    if let Some(said) =
                        said.filter(|_| cluster.lost_ms == self.told && !self.recovering)
                    {
                        self.said = said;
                    }
                }
                Ok(true)
            }
            BeatOutcome::Unknown => {
                // Redis lost the node. Nobody joins a foreign cluster by that: open() only makes a
                // cluster where there is none, and a new id freezes this agent.
                tracing::warn!("Redis does not know this node any more: registering again");
                self.workers.store().recovery().check().await?;
                let cluster = self.workers.store().open().await?;
                if cluster == self.workers.cluster() {
                    self.try_register().await?;
                    self.workers.compare_all();
                } else {
                    self.freeze(&cluster);
                }
                Ok(true)
            }
            BeatOutcome::Superseded => {
                self.workers.supersede();
                Ok(false)
            }
        }
    }

    /// After a loss of Redis tells it what this node holds; after the recovery all is compared.
    async fn restore(&mut self, cluster: &ClusterSeen) {
        if cluster.lost_ms != self.told
            && restore::tell_said(&self.workers, &self.said).await
            && restore::tell(&self.workers).await
        {
            self.told = cluster.lost_ms;
        }
        let recovering = !cluster.recovering.is_zero();
        if self.recovering && !recovering {
            self.workers.compare_all();
        }
        self.recovering = recovering;
    }

    /// Renews the lease if the cluster is still ours.
    fn renew(&mut self, sent: Moment, cluster: &str) -> bool {
        if cluster != self.workers.cluster() {
            self.freeze(cluster);
            return false;
        }
        self.workers.lease.renew(sent, self.settings.lease);
        if std::mem::take(&mut self.frozen) {
            tracing::warn!("Redis holds this node's cluster again");
            self.workers.compare_all(); // what was left undone meanwhile
        }
        true
    }

    fn freeze(&mut self, cluster: &str) {
        self.workers.lease.revoke();
        if !std::mem::replace(&mut self.frozen, true) {
            tracing::error!(
                ours = self.workers.cluster(),
                theirs = cluster,
                "Redis holds another cluster: containers run on, none is started or stopped; \
                 restart the agent to join the other cluster"
            );
        }
    }
}

/// This machine's platform, in the words that images use.
fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    };
    format!("{}/{arch}", std::env::consts::OS)
}
