//! Bodies of successful answers.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{Decision, Event, Node, Phase, Pod, PodId, Position, Service, ServiceSpec};
use crate::store::{DeadLetter, Lost, QueueDepths, StoreMemory};

/// A service and how much of it runs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServiceStatus {
    #[serde(flatten)]
    pub(super) service: Service,
    /// How many of its pods run now.
    pub(super) running: u32,
}

impl ServiceStatus {
    /// A service as it is shown: without what is secret.
    pub(super) fn new(mut service: Service, running: u32) -> ServiceStatus {
        service.spec = service.spec.without_secrets();
        ServiceStatus { service, running }
    }
}

/// Revisions of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Revisions {
    /// Those that are kept, the current one last.
    pub(super) items: Vec<RevisionStatus>,
}

/// One revision of a service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevisionStatus {
    /// Its number.
    pub(super) revision: u64,
    /// When it was made, milliseconds since 1970 by Redis's clock.
    pub(super) created_ms: u64,
    /// What its pods run.
    pub(super) spec: ServiceSpec,
}

/// A service that was submitted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "name": "web", "namespace": "default", "revision": 1, "replicas": 2, "deleting": false,
    "created_ms": 1_795_160_000_000_u64,
    "spec": {"name": "web", "namespace": "default", "image": "nginx:1.27"},
    "running": 0, "pods": ["7h2k9m4xq0ws-0", "7h2k9m4xq0ws-1"],
}))]
pub(super) struct SubmittedService {
    #[serde(flatten)]
    pub(super) service: Service,
    /// How many of its pods run now.
    pub(super) running: u32,
    /// Ids of its pods.
    pub(super) pods: Vec<PodId>,
}

/// Some services, in the order of namespace and name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "name": "web", "namespace": "default", "revision": 1, "replicas": 2, "deleting": false,
        "created_ms": 1_795_160_000_000_u64,
        "spec": {"name": "web", "namespace": "default", "image": "nginx:1.27"}, "running": 2,
    }],
    "cursor": "default/web",
}))]
pub(super) struct ServicePage {
    /// The services.
    pub(super) items: Vec<ServiceStatus>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// Some pods. A page may hold few or none and still have a next one, when few pods match.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "id": "7h2k9m4xq0ws-0", "name": "web", "namespace": "default", "service": "default/web",
        "replica": 0, "revision": 1, "image": "nginx:1.27", "desired": "run", "phase": "running",
        "node": "node1", "attempt": 1, "created_ms": 1_795_160_000_000_u64,
        "changed_ms": 1_795_160_000_100_u64,
    }],
    "cursor": "default/web~1~",
}))]
pub(super) struct PodPage {
    /// The pods.
    pub(super) items: Vec<Pod>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// Why a pod is where it is, or why it waits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "pod": "7h2k9m4xq0ws-0", "service": "default/web", "phase": "waiting", "decision": null,
    "reason": "0 of 12 nodes: 12 lack memory (2048 MiB needed, at most 1228 MiB free)",
    "note": "the decision by which it waits is not kept any more",
}))]
pub(super) struct Explained {
    /// The pod.
    #[schema(value_type = String)]
    pub(super) pod: PodId,
    /// Its service, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<String>,
    /// Where it is in its life.
    pub(super) phase: Phase,
    /// The node it was given to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    /// Why it is there, where that needs saying: what a waiting pod lacks, why one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What the scheduler decided for it and the others of its batch, and what it knew then.
    pub(super) decision: Option<Decision>,
    /// Why there is no decision, or what it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// Decisions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DecisionList {
    /// The decisions.
    pub(super) items: Vec<Decision>,
}

/// Some nodes, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "name": "node1", "state": "pressed", "heartbeat_age_ms": 1200,
        "capacity": {"pods_max": 250, "cpu_millis": 8000, "memory_bytes": 17_179_869_184_u64},
        "pods": 1, "cpu_requested_millis": 500, "memory_requested_bytes": 67_108_864,
        "cpu_used": 0.25, "memory_used_bytes": 2_147_483_648_u64,
        "pressure": {
            "known": true, "cpu_avg10": 1.5, "cpu_avg60": 1.1, "memory_avg10": 0.0,
            "memory_avg60": 0.0, "io_avg10": 0.2, "io_avg60": 0.1,
        },
        "epoch": 1, "version": "0.1.0", "labels": {"disk": "ssd"},
        "cordoned": false, "draining": false,
        "pressed": "memory 45 %, its limit is 40 %",
    }],
}))]
pub(super) struct NodePage {
    /// The nodes.
    pub(super) items: Vec<Node>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// Labels to set, and with `null` to remove.
#[derive(Debug, serde::Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelRequest {
    /// Keys, each with its value, or `null` to remove it.
    #[schema(example = json!({"zone": "eu", "old": null}))]
    pub(super) labels: BTreeMap<String, Option<String>>,
}

/// A node that is forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeRemoved {
    /// Its name.
    #[schema(example = "node1")]
    pub(super) name: String,
    /// Pods that were still on it, and wait for another node now.
    pub(super) pods: u64,
}

/// How much waits where.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "high": 0, "normal": 12, "low": 0, "claims": 1, "parked": 3, "dead": 1, "dead_dropped": 0,
    "dead_letters": [{
        "id": "1795160000000-7", "whole": true, "entry": "{\"name\":", "where": "sq", "when_ms": 1_795_160_000_000_u64,
        "why": "neither the id of a pod nor a JSON description: EOF while parsing a value",
    }],
}))]
pub(super) struct QueueStatus {
    #[serde(flatten)]
    pub(super) depths: QueueDepths,
    /// Dead letters that gave way to newer ones, ever.
    pub(super) dead_dropped: u64,
    /// The newest dead letters.
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// Some dead letters, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadPage {
    /// The letters.
    pub(super) items: Vec<DeadLetter>,
    /// How many there are, at most 1,000.
    pub(super) count: u64,
    /// How many gave way to newer ones, ever.
    pub(super) dropped: u64,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cursor: Option<String>,
}

/// A dead letter whose entry was pushed again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Requeued {
    /// Its id; the letter is no more.
    #[schema(example = "1795160000000-7")]
    pub(super) id: String,
    /// The list its entry lies on; absent where an earlier try did it.
    #[schema(example = "sq")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#where: Option<String>,
}

/// Some events, oldest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "items": [{
        "id": "1795160000000-0.1", "when_ms": 1_795_160_000_000_u64, "kind": "scheduled",
        "by": "scheduler", "subject": "pod", "pod": "7h2k9m4xq0ws-0", "service": "default/web",
        "namespace": "default", "node": "node1", "reason": "given to node1",
    }],
    "position": "1795160000000-0.1", "more": false,
}))]
pub(super) struct EventPage {
    /// The events.
    pub(super) items: Vec<Event>,
    /// Give it back as `after` for what comes behind this page, now or later.
    #[schema(value_type = String)]
    pub(super) position: Position,
    /// Whether there is more behind it already; a page may hold few or none where few match.
    pub(super) more: bool,
    /// There where earlier events may be found: give it back as `until`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(super) earlier: Option<Position>,
    /// There where `after` is not known any more: the page begins with the oldest that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reset: Option<Reset>,
}

/// A position is not known any more: what lay behind it, or a part of that, is lost.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Reset {
    /// Why.
    #[schema(example = "events are kept for a while, and these are gone")]
    pub(super) reason: &'static str,
    /// The position that was asked for.
    #[schema(value_type = String)]
    pub(super) asked: Position,
    /// Before everything that is kept.
    #[schema(value_type = String)]
    pub(super) oldest: Position,
    /// Behind everything that is kept.
    #[schema(value_type = String)]
    pub(super) newest: Position,
}

impl From<Lost> for Reset {
    fn from(lost: Lost) -> Reset {
        let Lost {
            asked,
            oldest,
            newest,
            was_trimmed,
        } = lost;
        Reset {
            reason: if asked < oldest && was_trimmed {
                "only the newest events are kept, and some behind this position are gone"
            } else {
                "Redis does not know this position: it was emptied, restored, or lost its last writes"
            },
            asked,
            oldest,
            newest,
        }
    }
}

/// Whether a process is well.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// `alive` or `ready`.
    #[schema(example = "ready")]
    pub(super) status: &'static str,
    /// Id of the cluster, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<String>,
    /// The memory of Redis as it was a moment ago, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<StoreMemory>,
}

/// The new number of replicas.
#[derive(Debug, serde::Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleRequest {
    /// How many pods are wanted; 0 keeps the service without pods. `replica` is accepted too.
    #[serde(alias = "replica", deserialize_with = "replica_count")]
    #[schema(example = 3)]
    pub(super) replicas: u32,
}

fn replica_count<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let given = <serde_json::Value as serde::Deserialize>::deserialize(deserializer)?;
    let count = given.as_u64().and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "invalid value: {given}, expected a whole number from 0"
        ))
    })
}

/// A body with its status.
pub(super) fn answer(status: StatusCode, body: impl Serialize) -> Response {
    (status, Json(body)).into_response()
}

/// The first `limit` of items of which one more was asked for, and the key of the last, if more follow.
pub(super) fn page_of<T>(
    mut items: Vec<T>,
    limit: usize,
    key: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let more = items.len() > limit;
    items.truncate(limit);
    let cursor = items.last().filter(|_| more).map(key);
    (items, cursor)
}
