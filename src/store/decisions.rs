//! Decisions in Redis: why pods are where they are, the newest of them.

use std::time::Duration;

use super::call::command;
use super::{Store, StoreError};
use crate::model::decision::RECORD_MAX;
use crate::model::{Decision, PodId};

/// Most decisions kept.
const KEPT_MAX: usize = 1000;
/// Most bytes of all that are kept.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long they are kept.
const TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Decisions read by one call.
const READ_STEP: usize = 32;

/// The port of decisions.
pub struct Decisions<'a>(pub(super) &'a Store);

/// What is known of how a pod came to where it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDecision {
    /// Name of the decision, if one is known to be there once.
    pub id: Option<String>,
    /// The pod was pushed on its node's list: nobody decided.
    pub by_hand: bool,
    /// The decision, if it is kept.
    pub decision: Option<Decision>,
}

impl Decisions<'_> {
    /// Keeps a decision; `waiting` are the pods that wait by it.
    ///
    /// # Errors
    /// It is not kept.
    pub async fn keep(&self, decision: Decision, waiting: &[PodId]) -> Result<(), StoreError> {
        let call = self.0.function("kl_decision_keep").arg(&decision.id);
        let call = call.arg(decision.to_json()).arg(KEPT_MAX);
        let call = call.arg(BYTES_MAX - RECORD_MAX); // the oldest may be kept for its last bytes
        let mut call = call.arg(TTL.as_secs());
        for pod in waiting {
            call = call.arg(pod.as_str());
        }
        self.0.call(call).await?.expect_word("kept")
    }

    /// The newest that were made at `since_ms` or later, newest first, at most `max`.
    ///
    /// # Errors
    /// Redis cannot be reached, or a key was given a wrong type by hand.
    pub async fn newest(&self, since_ms: u64, max: usize) -> Result<Vec<Decision>, StoreError> {
        let mut range = command("ZRANGE");
        range.arg(self.0.keys.decisions()).arg(0).arg(-1).arg("REV");
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (ids,): (Vec<String>,) = self.0.read("ZRANGE", &pipeline).await?;
        let mut found = Vec::new();
        for ids in ids.chunks(READ_STEP) {
            let read = self.read(ids).await?;
            let (some_are_older, wanted) = (
                read.iter().any(|decision| decision.time_ms < since_ms),
                read.into_iter().filter(|it| it.time_ms >= since_ms),
            );
            found.extend(wanted.take(max - found.len()));
            if some_are_older || found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// By which decision a pod is on its node, or waits.
    ///
    /// # Errors
    /// Redis cannot be reached, or a key was given a wrong type by hand.
    pub async fn of_pod(&self, pod: &PodId) -> Result<PodDecision, StoreError> {
        let mut get = command("HMGET");
        get.arg(self.0.keys.pod(pod));
        for field in ["phase", "nonce", "decision", "node", "pushed_to"] {
            get.arg(field);
        }
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        type Fields = (Vec<Option<String>>,);
        let (fields,): Fields = self.0.read("HMGET", &pipeline).await?;
        let mut fields = fields.into_iter();
        let mut next = || fields.next().flatten().filter(|text| !text.is_empty());
        let waits = next().as_deref() == Some("waiting");
        let (placed, waiting) = (next(), next());
        let node = next();
        let by_hand = node.is_some() && node == next() && !waits;
        let id = if waits { waiting } else { placed };
        let decision = match &id {
            Some(id) => self.read(std::slice::from_ref(id)).await?.pop(),
            None => None,
        };
        Ok(PodDecision {
            by_hand: by_hand && decision.is_none(),
            id,
            decision,
        })
    }

    /// Those of `ids` that are kept and can be read.
    async fn read(&self, ids: &[String]) -> Result<Vec<Decision>, StoreError> {
        let mut pipeline = redis::pipe();
        for id in ids {
            let mut get = command("GET");
            get.arg(self.0.keys.decision(id));
            pipeline.add_command(get);
        }
        let records: Vec<Option<Vec<u8>>> = self.0.read("GET", &pipeline).await?;
        let parse = |record: Vec<u8>| serde_json::from_slice(&record).ok();
        Ok(records.into_iter().flatten().filter_map(parse).collect())
    }
}
