//! `/v1/pods`: listing and reading pods, and stopping those without an owner.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{PodPage, answer};
use super::attempt::{Effect, attempt};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::schema::{AbsentProblem, ConflictProblem, Problems};
use crate::model::name::POD_ID_RULE;
use crate::model::{Phase, Pod, PodId, ServiceKey, Violation};
use crate::store::{PodFilter, PodStopOutcome};

/// Largest offset in a cursor: far above any service, far below overflow.
const OFFSET_MAX: usize = 1 << 32;

/// List pods
///
/// Of a service in the order of replicas, of a node in the order of ids. All filters that are given
/// must hold.
#[utoipa::path(
    get,
    path = "/v1/pods",
    tag = "pods",
    params(
        ("service" = Option<String>, Query, description = "Only those of this service: its name, or `<namespace>/<name>`"),
        ("namespace" = Option<String>, Query, description = "Only those of this namespace; for `service`, `default` where none is said"),
        ("node" = Option<String>, Query, description = "Only those on this node"),
        ("phase" = Option<Phase>, Query, description = "Only those in this phase"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items, 100 where none is said"),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses((status = 200, description = "A page of pods", body = PodPage), Problems),
)]
pub(super) async fn list_pods(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let known = ["service", "namespace", "node", "phase", "limit", "cursor"];
    let mut parameters = Parameters::read(&uri, &known);
    let namespace = parameters.namespace();
    let service = parameters.service(namespace.as_deref());
    let node = parameters.node();
    let phases = format!("one of {}", Phase::ALL.map(Phase::as_str).join(", "));
    let phase = parameters.get("phase", &phases, Phase::parse);
    let limit = parameters.limit();
    let cursor = parameters.cursor(|text| is_cursor(text).then(|| text.to_owned()));
    parameters.check()?;
    let filter = PodFilter {
        namespace,
        service,
        node,
        phase,
    };
    let list = async || {
        let pods = app.store.pods();
        pods.list(&filter, cursor.as_deref(), limit).await
    };
    let page = attempt(Effect::Reads, list).await?.value;
    let body = PodPage {
        items: page.pods,
        cursor: page.cursor,
    };
    Ok(answer(StatusCode::OK, body))
}

/// Read a pod
#[utoipa::path(
    get,
    path = "/v1/pods/{id}",
    tag = "pods",
    params(("id" = String, Path, description = "The pod")),
    responses((status = 200, description = "The pod", body = Pod), Problems, AbsentProblem),
)]
pub(super) async fn get_pod(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = pod_id(&id, &uri)?;
    let get = async || app.store.pods().get(&id).await;
    match attempt(Effect::Reads, get).await?.value {
        Some(pod) => Ok(answer(StatusCode::OK, pod)),
        None => Err(absent(&id)),
    }
}

/// Stop a pod without an owner
///
/// A pod that was pushed by hand is told to stop, and forgotten when it has. A pod of a service
/// would only be made anew: scale or delete the service.
#[utoipa::path(
    delete,
    path = "/v1/pods/{id}",
    tag = "pods",
    params(("id" = String, Path, description = "The pod")),
    responses((status = 202, description = "The pod as it was, now being stopped", body = Pod), Problems, AbsentProblem, ConflictProblem),
)]
pub(super) async fn stop_pod(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = pod_id(&id, &uri)?;
    let get = async || app.store.pods().get(&id).await;
    let Some(mut pod) = attempt(Effect::Reads, get).await?.value else {
        return Err(absent(&id));
    };
    let stop = async || app.store.pods().stop(&id).await;
    let stopped = attempt(Effect::Changes, stop).await?;
    match stopped.value {
        // Absent after a first try that got no answer: that try did it.
        PodStopOutcome::Absent if !stopped.repeated => Err(absent(&id)),
        PodStopOutcome::Owned(owner) => {
            let owner = owner.replacen(':', " ", 1);
            let detail = format!("{id} belongs to {owner}: scale or delete that");
            Err(Problem::new(Kind::PodOwned, detail))
        }
        PodStopOutcome::Stopping | PodStopOutcome::Absent => {
            tracing::info!(pod.id = %id, "pod stopped by a user");
            pod.desired = crate::model::Desired::Stop;
            Ok(answer(StatusCode::ACCEPTED, pod))
        }
    }
}

pub(super) fn pod_id(id: &str, uri: &Uri) -> Result<PodId, Problem> {
    pod_id_of(id, Parameters::read(uri, &[]))
}

/// The pod of a path, where parameters were read too.
pub(super) fn pod_id_of(id: &str, mut parameters: Parameters) -> Result<PodId, Problem> {
    let parsed = PodId::parse(id);
    if parsed.is_none() {
        parameters.refuse(Violation::new("id", id, POD_ID_RULE));
    }
    parameters.check()?;
    // It was refused above if it is none.
    parsed.ok_or_else(Problem::internal)
}

pub(super) fn absent(id: &PodId) -> Problem {
    let detail = format!("there is no pod {id}, or it was stopped");
    Problem::new(Kind::PodNotFound, detail)
}

/// Whether the store wrote this cursor: `<service>~<offset>~<id>`. It takes what it cannot read
/// for the start, which would send a client round and round.
fn is_cursor(text: &str) -> bool {
    let parts: Vec<&str> = text.split('~').collect();
    let [service, offset, id] = parts.as_slice() else {
        return false;
    };
    (service.is_empty() || ServiceKey::parse(service).is_some())
        && offset
            .parse()
            .is_ok_and(|offset: usize| offset <= OFFSET_MAX)
        && (id.is_empty() || PodId::parse(id).is_some())
}
