//! `/v1/nodes`: what the nodes offer, and how they are; in `marks` what users say of them.

pub(super) mod marks;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::answer::{NodePage, answer, page_of};
use super::attempt::{Effect, attempt};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::schema::{AbsentProblem, Problems};
use crate::model::name::{NODE_NAME_RULE, is_node_name};
use crate::model::{Node, Violation};

/// List nodes
///
/// Living and lost ones, in the order of their names.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    tag = "nodes",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items, 100 where none is said"),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses((status = 200, description = "A page of nodes", body = NodePage), Problems),
)]
pub(super) async fn list_nodes(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["limit", "cursor"]);
    let limit = parameters.limit();
    let after = parameters.cursor(|text| is_node_name(text).then(|| text.to_owned()));
    parameters.check()?;
    let list = async || app.store.nodes().list(app.lease).await;
    let mut nodes = attempt(Effect::Reads, list).await?.value;
    if let Some(after) = after {
        let first = nodes.partition_point(|node| node.name <= after);
        nodes.drain(..first);
    }
    let (items, cursor) = page_of(nodes, limit, |node| node.name.clone());
    Ok(answer(StatusCode::OK, NodePage { items, cursor }))
}

/// Read a node
#[utoipa::path(
    get,
    path = "/v1/nodes/{name}",
    tag = "nodes",
    params(("name" = String, Path, description = "The node")),
    responses((status = 200, description = "The node", body = Node), Problems, AbsentProblem),
)]
pub(super) async fn get_node(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    check_name(&name, Parameters::read(&uri, &[]))?;
    answer_node(&app, &name).await
}

fn check_name(name: &str, mut parameters: Parameters) -> Result<(), Problem> {
    if !is_node_name(name) {
        parameters.refuse(Violation::new("name", name, NODE_NAME_RULE));
    }
    parameters.check()
}

/// The node as it stands now.
async fn answer_node(app: &App, name: &str) -> Result<Response, Problem> {
    let get = async || app.store.nodes().get(name, app.lease).await;
    match attempt(Effect::Reads, get).await?.value {
        Some(node) => Ok(answer(StatusCode::OK, node)),
        None => Err(absent(name)),
    }
}

fn absent(name: &str) -> Problem {
    Problem::new(
        Kind::NodeNotFound,
        format!("there is no node {name}: no agent has registered it"),
    )
}
