//! Which decisions are recorded, and their way to Redis beside the placing.
//!
//! Records must not slow down what they explain: under load they are a sample, they are put together
//! and kept by a task of their own, and where that lags behind they are dropped.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::cluster::{Ask, Cluster};
use super::record::Record;
use crate::model::PodId;
use crate::store::Store;
use crate::telemetry::chain;

/// Time between two records, in the long run.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How many times as long as a record took in the placing none is taken: a thousandth of the time.
const PAUSE_TIMES: u32 = 1000;
/// So much of these pauses may still lie ahead: about 20 records at once after a while without any.
const AHEAD_MAX: Duration = Duration::from_secs(2);
/// Records on their way.
const WAITING_MAX: usize = 32;
/// How long the same reason of a pod that waits needs no new record.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Pods whose reasons are remembered.
const TOLD_MAX: usize = 10_000;

/// Takes records, and sends them off.
#[derive(Debug)]
pub(super) struct Recorder {
    /// When all pauses so far are over.
    rested: Option<Instant>,
    told: HashMap<PodId, (String, Instant)>,
    sender: mpsc::Sender<Finished>,
}

/// A record, the nonce of its assign call, and how many pods that gave back.
type Finished = (Record, String, usize);

impl Recorder {
    /// Starts the task, which ends with the recorder.
    pub(super) fn start(store: Store) -> Recorder {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(keep_all(store, receiver));
        Recorder {
            rested: None,
            told: HashMap::new(),
            sender,
        }
    }

    /// What the plan of a batch is about to depend on, if it is to be recorded.
    pub(super) fn take(
        &mut self,
        seed: &str,
        asks: &[Ask<'_>],
        cluster: &mut Cluster,
    ) -> Option<Record> {
        let began = Instant::now();
        let rested = self.rested.map_or(began, |rested| rested.max(began));
        if asks.is_empty() || rested - began >= AHEAD_MAX {
            return None;
        }
        let record = Record::take(seed, asks, cluster);
        let pause = PAUSE_MIN.max(began.elapsed() * PAUSE_TIMES);
        self.rested = Some(rested + pause);
        Some(record)
    }

    /// Sends a record off, unless it says of pods that wait what was said a moment ago.
    pub(super) fn send(&mut self, record: Record, nonce: String, given_back: usize) {
        if self.is_news(&record) {
            let _ = self.sender.try_send((record, nonce, given_back)); // full: dropped
        }
    }

    fn is_news(&mut self, record: &Record) -> bool {
        if self.told.len() > TOLD_MAX {
            self.told.clear();
        }
        let mut is_news = false;
        for (pod, place) in record.places() {
            let Err(reason) = place else {
                is_news = true;
                continue;
            };
            let told = self.told.get(pod);
            if told.is_none_or(|(told, at)| told != reason || at.elapsed() > TOLD_FOR) {
                is_news = true;
                self.told
                    .insert(pod.clone(), (reason.clone(), Instant::now()));
            }
        }
        is_news
    }
}

async fn keep_all(store: Store, mut receiver: mpsc::Receiver<Finished>) {
    while let Some((record, nonce, given_back)) = receiver.recv().await {
        let waiting = record.places().filter(|(_, place)| place.is_err());
        let waiting: Vec<PodId> = waiting.map(|(pod, _)| pod.clone()).collect();
        let decision = record.into_decision(nonce, given_back);
        if let Err(error) = store.decisions().keep(decision, &waiting).await {
            tracing::debug!(error = chain(&error), "a decision is not kept");
        }
    }
}
