//! What users say of a node: its labels, whether it gets pods, and that it is to be forgotten.

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::{absent, answer_node, check_name};
use crate::api::answer::{LabelRequest, NodeRemoved, answer};
use crate::api::attempt::{Effect, attempt};
use crate::api::problem::{Kind, Problem};
use crate::api::query::Parameters;
use crate::api::schema::{AbsentProblem, BodyProblems, ConflictProblem, Problems};
use crate::api::{App, body};
use crate::model::node::{LABELS_MAX, NAME_LABEL, NODE_LABEL_RULE, is_node_label};
use crate::model::{Node, Violation};
use crate::store::{LabelOutcome, Mark, RemoveOutcome};

/// Label a node
///
/// By its labels services choose nodes. What is set here goes before the labels of the agent's own
/// settings, which appear again when it is removed; it stays when the agent registers again.
#[utoipa::path(
    patch,
    path = "/v1/nodes/{name}",
    tag = "nodes",
    params(("name" = String, Path, description = "The node")),
    request_body(content = LabelRequest, content_type = "application/json"),
    responses((status = 200, description = "The node with its new labels", body = Node), Problems, AbsentProblem, BodyProblems),
)]
pub(in crate::api) async fn label_node(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    check_name(&name, Parameters::read(request.uri(), &[]))?;
    let body = body::read(request, app.settings.body_bytes_max).await?;
    let LabelRequest { labels } = body::parse(&body)?;
    let violations: Vec<Violation> = labels
        .iter()
        .filter_map(|(key, value)| label_violation(key, value.as_deref()))
        .collect();
    if !violations.is_empty() {
        return Err(Problem::of_violations(Kind::InvalidRequest, violations));
    }
    let too_many = |given: String| {
        let allowed = format!("at most {LABELS_MAX} labels of a node");
        Problem::of_field(Violation::new("labels", given, allowed))
    };
    if labels.len() > 2 * LABELS_MAX {
        return Err(too_many(format!("{} changes", labels.len())));
    }
    let label = async || app.store.nodes().label(&name, &labels).await;
    match attempt(Effect::Changes, label).await?.value {
        LabelOutcome::Labelled => {}
        LabelOutcome::Absent => return Err(absent(&name)),
        LabelOutcome::Full => return Err(too_many("more with those that are set".to_owned())),
    }
    tracing::info!(node.id = name, "node labelled");
    answer_node(&app, &name).await
}

fn label_violation(key: &str, value: Option<&str>) -> Option<Violation> {
    let field = format!("labels.{key}");
    if !is_node_label(key, value.unwrap_or_default()) {
        return Some(Violation::new(
            field,
            value.unwrap_or_default(),
            NODE_LABEL_RULE,
        ));
    }
    let rule = "another key: this one is every node's own name";
    (key == NAME_LABEL).then(|| Violation::new(field, value.unwrap_or("null"), rule))
}

/// Cordon a node
///
/// It gets no new pods, and keeps those it has; a drain ends by that.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/cordon",
    tag = "nodes",
    params(("name" = String, Path, description = "The node")),
    responses((status = 200, description = "The node, cordoned", body = Node), Problems, AbsentProblem),
)]
pub(in crate::api) async fn cordon_node(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    mark(&app, &name, &uri, Mark::Cordon).await
}

/// Uncordon a node
///
/// It gets pods again; a drain ends by that.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/uncordon",
    tag = "nodes",
    params(("name" = String, Path, description = "The node")),
    responses((status = 200, description = "The node, open", body = Node), Problems, AbsentProblem),
)]
pub(in crate::api) async fn uncordon_node(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    mark(&app, &name, &uri, Mark::Open).await
}

/// Drain a node
///
/// It gets no new pods, and those it has are moved: of a service one at a time, a new one healthy
/// elsewhere before the old one stops; a pod without a service stops first. The answer comes at
/// once; `pods` of the node says how many are left.
#[utoipa::path(
    post,
    path = "/v1/nodes/{name}/drain",
    tag = "nodes",
    params(("name" = String, Path, description = "The node")),
    responses((status = 200, description = "The node, draining", body = Node), Problems, AbsentProblem),
)]
pub(in crate::api) async fn drain_node(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    mark(&app, &name, &uri, Mark::Drain).await
}

/// Forget a node
///
/// Only one that is not heard and has no pods; by force any: its pods then wait for other nodes at
/// once, and an agent that is still alive registers it again as a new node.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{name}",
    tag = "nodes",
    params(
        ("name" = String, Path, description = "The node"),
        ("force" = Option<bool>, Query, description = "Also a node that is heard or has pods"),
    ),
    responses((status = 200, description = "It is forgotten", body = NodeRemoved), Problems, AbsentProblem, ConflictProblem),
)]
pub(in crate::api) async fn remove_node(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["force"]);
    let force = parameters.get("force", "true or false", |text| text.parse().ok());
    check_name(&name, parameters)?;
    let force = force.unwrap_or(false);
    let remove = async || app.store.nodes().remove(&name, app.lease, force).await;
    let removed = attempt(Effect::ChangesInSteps, remove).await?;
    let pods = match removed.value {
        RemoveOutcome::Removed { pods } => pods,
        // Absent after a first try that got no answer: that try did it.
        RemoveOutcome::Absent if removed.repeated => 0,
        RemoveOutcome::Absent => return Err(absent(&name)),
        RemoveOutcome::Heard(ago) => {
            let (ago, lease) = (ago.as_secs_f64(), app.lease.as_secs_f64());
            return Err(Problem::new(
                Kind::NodeInUse,
                format!(
                    "node {name} was heard {ago:.1} s ago: end its agent first, and should it not \
                     end in order, wait {lease} s until it counts as lost; or remove it by force"
                ),
            ));
        }
        RemoveOutcome::Occupied(pods) => {
            return Err(Problem::new(
                Kind::NodeInUse,
                format!(
                    "node {name} has {pods} pods: drain it first, or remove it by force, after \
                     which they wait for other nodes"
                ),
            ));
        }
    };
    tracing::info!(node.id = name, pods, "node removed");
    Ok(answer(StatusCode::OK, NodeRemoved { name, pods }))
}

async fn mark(app: &App, name: &str, uri: &Uri, mark: Mark) -> Result<Response, Problem> {
    check_name(name, Parameters::read(uri, &[]))?;
    let call = async || app.store.nodes().mark(name, mark).await;
    if !attempt(Effect::Changes, call).await?.value {
        return Err(absent(name));
    }
    tracing::info!(node.id = name, ?mark, "node marked");
    answer_node(app, name).await
}
