//! `/v1/pods/{id}/stats` and `/v1/stats`: what containers use, asked of their nodes when it is asked for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::App;
use super::answer::answer;
use super::attempt::{Effect, attempt};
use super::pods::{absent, pod_id};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::schema::{AbsentProblem, ConflictProblem, Problems};
use super::sessions::{self, Asked, STORE_LOST};
use crate::model::name::{NAME_RULE, NODE_NAME_RULE, is_name, is_node_name};
use crate::model::request::STATS_PODS_MAX;
use crate::model::{NodeRequest, Pod, PodId, PodStats, ServiceKey, StatsAnswer, Usage};
use crate::store::{Frame, Heard, Listener, PodFilter, SessionId, StoreError};
use crate::telemetry;

/// Time for all nodes to answer.
const LIMIT: Duration = Duration::from_secs(3);

/// What pods use, those of one node together.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsList {
    /// The running pods, each with what it uses or why that is not known.
    items: Vec<PodStats>,
    /// More pods run than are asked about at once: these are the first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_cut: bool,
}

/// Read what a pod uses
///
/// Its node is asked, which takes up to 3 s.
#[utoipa::path(
    get,
    path = "/v1/pods/{id}/stats",
    tag = "pods",
    params(("id" = String, Path, description = "The pod")),
    responses(
        (status = 200, description = "What it uses", body = PodStats),
        Problems, AbsentProblem, ConflictProblem,
    ),
)]
pub(super) async fn pod_stats(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = pod_id(&id, &uri)?;
    let get = async || app.store.pods().get(&id).await;
    let Some(pod) = attempt(Effect::Reads, get).await?.value else {
        return Err(absent(&id));
    };
    if !pod.phase.runs() {
        let detail = format!("pod {id} is {}: it uses nothing", pod.phase);
        return Err(Problem::new(Kind::PodNotRunning, detail));
    }
    let mut stats = ask_nodes(&app, vec![pod]).await?;
    let stats = stats.pop().ok_or_else(|| absent(&id))?;
    match stats.error {
        Some(why) => Err(Problem::new(Kind::NodeUnavailable, why)),
        None => Ok(answer(StatusCode::OK, stats)),
    }
}

/// Read what running pods use
///
/// All filters that are given must hold. The nodes are asked all at once, which takes up to 3 s; of a
/// node that cannot be asked each pod says so.
#[utoipa::path(
    get,
    path = "/v1/stats",
    tag = "pods",
    params(
        ("node" = Option<String>, Query, description = "Only pods on this node"),
        ("service" = Option<String>, Query, description = "Only pods of this service: its name, or `<namespace>/<name>`"),
        ("namespace" = Option<String>, Query, description = "Only pods of this namespace; for `service`, `default` where none is said"),
    ),
    responses((status = 200, description = "What they use", body = StatsList), Problems),
)]
pub(super) async fn list_stats(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["node", "service", "namespace"]);
    let namespace = parameters.namespace();
    let node = parameters.get("node", NODE_NAME_RULE, |text| {
        is_node_name(text).then(|| text.to_owned())
    });
    let service = parameters.get("service", NAME_RULE, |text| {
        if text.contains('/') {
            return ServiceKey::parse(text);
        }
        let namespace = namespace
            .as_deref()
            .unwrap_or(ServiceKey::DEFAULT_NAMESPACE);
        is_name(text).then(|| ServiceKey {
            namespace: namespace.to_owned(),
            name: text.to_owned(),
        })
    });
    parameters.check()?;
    let filter = PodFilter {
        namespace,
        service,
        node,
        phase: None,
    };
    let list = async || running(&app, &filter).await;
    let (pods, is_cut) = attempt(Effect::Reads, list).await?.value;
    let items = ask_nodes(&app, pods).await?;
    Ok(answer(StatusCode::OK, StatsList { items, is_cut }))
}

/// Running pods, not more than are asked about at once, and whether there are more.
async fn running(app: &App, filter: &PodFilter) -> Result<(Vec<Pod>, bool), StoreError> {
    let mut running = Vec::new();
    let mut cursor = None;
    loop {
        let pods = app.store.pods();
        let page = pods.list(filter, cursor.as_deref(), STATS_PODS_MAX).await?;
        running.extend(page.pods.into_iter().filter(|pod| pod.phase.runs()));
        cursor = page.cursor;
        if running.len() > STATS_PODS_MAX || cursor.is_none() {
            let is_cut = running.len() > STATS_PODS_MAX;
            running.truncate(STATS_PODS_MAX);
            return Ok((running, is_cut));
        }
    }
}

/// Asks the nodes of pods; an answer for each, in the order of their nodes.
async fn ask_nodes(app: &App, pods: Vec<Pod>) -> Result<Vec<PodStats>, Problem> {
    let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in pods {
        by_node
            .entry(pod.node.clone().unwrap_or_default())
            .or_default()
            .push(pod);
    }
    if by_node.is_empty() {
        return Ok(Vec::new());
    }
    let _seat = app.seats.take()?;
    let listener = sessions::listen(app, LIMIT).await?;
    let mut asking = Asking {
        listener,
        open: HashMap::new(),
        refused: HashMap::new(),
        usages: HashMap::new(),
    };
    let asked = asking.ask(app, &by_node).await;
    let open: Vec<SessionId> = asking.open.keys().cloned().collect();
    sessions::end(&app.store, &open).await;
    if let Err(error) = asked {
        tracing::warn!(
            error = telemetry::chain(&error),
            "nodes are not asked to the end"
        );
        return Err(Problem::new(Kind::StoreUnavailable, STORE_LOST));
    }
    let mut stats = Vec::new();
    for (node, pods) in by_node {
        for pod in pods {
            let usage = asking.usages.remove(&pod.id).unwrap_or_else(|| {
                let refused = asking.refused.get(&node).cloned();
                Err(refused
                    .unwrap_or_else(|| format!("node {node} did not answer within {LIMIT:?}")))
            });
            stats.push(PodStats {
                pod: pod.id,
                service: pod.service,
                node: pod.node,
                usage: usage.as_ref().ok().copied(),
                error: usage.err(),
            });
        }
    }
    Ok(stats)
}

struct Asking {
    listener: Listener,
    /// Sessions with their nodes, until these have answered.
    open: HashMap<SessionId, String>,
    /// Why a node told nothing.
    refused: HashMap<String, String>,
    usages: HashMap<PodId, Result<Usage, String>>,
}

impl Asking {
    async fn ask(
        &mut self,
        app: &App,
        by_node: &BTreeMap<String, Vec<Pod>>,
    ) -> Result<(), StoreError> {
        let deadline = Instant::now() + LIMIT;
        for (node, pods) in by_node {
            let request = NodeRequest::Stats {
                pods: pods.iter().map(|pod| pod.id.clone()).collect(),
            };
            match sessions::ask(app, node, &request).await? {
                Asked::Opened(session) => {
                    self.listener.add(session.clone());
                    self.open.insert(session, node.clone());
                }
                Asked::Refused(why) => {
                    self.refused.insert(node.clone(), why);
                }
            }
        }
        let mut answered = Vec::new();
        while answered.len() < self.open.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            for heard in self.listener.hear(left).await? {
                if let Heard::Said(session, entry, frame) = heard
                    && self.note(&session, entry, frame)
                {
                    self.listener.remove(&session);
                    answered.push(session);
                }
            }
        }
        Ok(())
    }

    /// Notes what a node said; true if that was all.
    fn note(&mut self, session: &SessionId, entry: String, frame: Option<Frame>) -> bool {
        match frame {
            Some(Frame::Stats(json)) => {
                let answers: Vec<StatsAnswer> = serde_json::from_slice(&json).unwrap_or_default();
                let answers = answers.into_iter().map(|answer| (answer.pod, answer.usage));
                self.usages.extend(answers);
            }
            Some(Frame::Error(why)) => {
                if let Some(node) = self.open.get(session) {
                    self.refused
                        .insert(node.clone(), format!("node {node}: {why}"));
                }
                return true;
            }
            Some(frame) if frame.is_last() => return true,
            _ => {}
        }
        self.listener.has_read(session, entry);
        false
    }
}
