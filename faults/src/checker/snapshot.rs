//! What stood in Redis at the end of a round: plain data, kept beside the logs to be judged again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Fields of a hash.
pub type Fields = BTreeMap<String, String>;

/// What stood in Redis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it and the logs had been read.
    pub at_ns: u64,
    /// Of which server.
    pub server: String,
    /// Services by `namespace/name`.
    pub services: BTreeMap<String, Fields>,
    /// Ids of the pods of each service's index.
    pub indexes: BTreeMap<String, Vec<String>>,
    /// Pods without an owner.
    pub loose: Vec<String>,
    /// Every hash `pod:<id>`.
    pub pods: BTreeMap<String, Fields>,
    /// Milliseconds that are left to pods that expire.
    pub expiring: BTreeMap<String, i64>,
    /// Where pods wait: `sq`, `sq:high`, `sq:low`, `sq:claim:<batch>` and `sq:parked`.
    pub waiting: BTreeMap<String, Vec<String>>,
    /// Living nodes.
    pub living: Vec<String>,
    /// Every hash `node:<name>`.
    pub nodes: BTreeMap<String, Fields>,
    /// Ids in `cs:<node>`.
    pub assigned: BTreeMap<String, Vec<String>>,
    /// Entries of `pq:<node>` and `rq:<node>`.
    pub inboxes: BTreeMap<String, Vec<String>>,
    /// Dead letters, newest first.
    pub dead: Vec<String>,
    /// Entries of the stream `events`.
    pub events: u64,
    /// All keys, without the prefix, with their types.
    pub keys: BTreeMap<String, String>,
}

impl Snapshot {
    /// A field of a pod, or nothing.
    pub fn pod(&self, id: &str, field: &str) -> &str {
        let pod = self.pods.get(id);
        let value = pod.and_then(|pod| pod.get(field));
        value.map(String::as_str).unwrap_or_default()
    }

    /// In which places a pod waits.
    pub fn places(&self, id: &str) -> Vec<&str> {
        let mut places = Vec::new();
        for (place, entries) in &self.waiting {
            let count = entries.iter().filter(|entry| *entry == id).count();
            places.extend(std::iter::repeat_n(place.as_str(), count));
        }
        places
    }
}
