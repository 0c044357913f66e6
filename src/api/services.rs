//! `/v1/services`: listing, reading, scaling and deleting.

use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

use super::answer::{
    RevisionStatus, Revisions, ScaleRequest, ServicePage, ServiceStatus, answer, page_of,
};
use super::attempt::{Effect, attempt};
use super::precondition::{expected_revision, moved};
use super::problem::{Kind, Problem};
use super::query::{Parameters, service_key};
use super::schema::{
    AbsentProblem, BodyProblems, ConflictProblem, FullProblem, PreconditionProblem, Problems,
};
use super::submit::deleting;
use super::{App, body};
use crate::model::{PodId, Service, ServiceKey, Violation};
use crate::store::{ScaleOutcome, StoreError};

/// List services
#[utoipa::path(
    get,
    path = "/v1/services",
    tag = "services",
    params(
        ("namespace" = Option<String>, Query, description = "Only those of this namespace; of all where none is said"),
        ("label" = Option<String>, Query, description = "Only those with this label, as `name=value`"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Most items, 100 where none is said"),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses((status = 200, description = "A page of services", body = ServicePage), Problems),
)]
pub(super) async fn list_services(State(app): State<App>, uri: Uri) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(&uri, &["namespace", "label", "limit", "cursor"]);
    let namespace = parameters.namespace();
    let label = parameters.get("label", "name=value", |text| {
        let (name, value) = text.split_once('=')?;
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    });
    let limit = parameters.limit();
    let after = parameters.cursor(|text| {
        // A cursor of another namespace would show services of neither.
        let of = |key: &ServiceKey| namespace.as_ref().is_none_or(|name| *name == key.namespace);
        ServiceKey::parse(text).filter(of)
    });
    parameters.check()?;
    let read = async || {
        read_page(
            &app,
            namespace.as_deref(),
            label.as_ref(),
            after.as_ref(),
            limit,
        )
        .await
    };
    let items = attempt(Effect::Reads, read).await?.value;
    let (items, cursor) = page_of(items, limit, |item| {
        format!("{}/{}", item.service.namespace, item.service.name)
    });
    Ok(answer(StatusCode::OK, ServicePage { items, cursor }))
}

/// One service more than the page takes, unless there are no more.
async fn read_page(
    app: &App,
    namespace: Option<&str>,
    label: Option<&(String, String)>,
    after: Option<&ServiceKey>,
    limit: usize,
) -> Result<Vec<ServiceStatus>, StoreError> {
    let mut items: Vec<ServiceStatus> = Vec::new();
    let mut after = after.cloned();
    // A service that is deleted meanwhile makes a page short without its being the last.
    while items.len() <= limit {
        let wanted = limit + 1 - items.len();
        let services = app.store.services();
        let found = services.list(namespace, after.as_ref(), wanted).await?;
        let Some((last, _)) = found.last() else { break };
        after = Some(ServiceKey {
            namespace: last.namespace.clone(),
            name: last.name.clone(),
        });
        let has_label = |service: &Service| {
            label.is_none_or(|(name, value)| service.spec.labels.get(name) == Some(value))
        };
        let found = found.into_iter().filter(|(service, _)| has_label(service));
        items.extend(found.map(|(service, running)| ServiceStatus::new(service, running)));
    }
    Ok(items)
}

/// Read a service
#[utoipa::path(
    get,
    path = "/v1/services/{name}",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
    ),
    responses((status = 200, description = "The service", body = ServiceStatus), Problems, AbsentProblem),
)]
pub(super) async fn get_service(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let key = service_key(&name, &uri)?;
    match read(&app, &key).await? {
        Some(status) => Ok(answer(StatusCode::OK, status)),
        None => Err(absent(&key)),
    }
}

/// Delete a service
///
/// Its pods are told to stop; it is forgotten when the last of them is gone.
#[utoipa::path(
    delete,
    path = "/v1/services/{name}",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
        ("If-Match" = Option<String>, Header, description = "The revision the service must have"),
    ),
    responses((status = 202, description = "The service as it was, now being deleted", body = ServiceStatus), Problems, AbsentProblem, PreconditionProblem),
)]
pub(super) async fn delete_service(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let key = service_key(&name, request.uri())?;
    let expected = expected_revision(request.headers())?;
    let Some(mut status) = read(&app, &key).await? else {
        return Err(absent(&key));
    };
    let delete = async || app.store.services().delete(&key, expected).await;
    let deleted = attempt(Effect::ChangesInSteps, delete).await?;
    if let ScaleOutcome::Moved { revision } = deleted.value {
        return Err(moved(&key, expected, revision));
    }
    // Absent after a first try that got no answer: that try did it.
    if deleted.value == ScaleOutcome::Absent && !deleted.repeated {
        return Err(absent(&key));
    }
    tracing::info!(service = %key, "service deleted");
    status.service.deleting = true;
    status.service.replicas = 0;
    Ok(answer(StatusCode::ACCEPTED, status))
}

/// Scale a service
#[utoipa::path(
    patch,
    path = "/v1/services/{name}/scale",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
        ("If-Match" = Option<String>, Header, description = "The revision the service must have"),
    ),
    request_body(content = ScaleRequest, content_type = "application/json"),
    responses((status = 200, description = "The service with its new number of replicas", body = ServiceStatus), Problems, AbsentProblem, ConflictProblem, PreconditionProblem, BodyProblems, FullProblem),
)]
pub(super) async fn scale_service(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    scale(&app, &name, request).await
}

/// Scale a service
///
/// The same as `PATCH`.
#[utoipa::path(
    post,
    path = "/v1/services/{name}/scale",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
        ("If-Match" = Option<String>, Header, description = "The revision the service must have"),
    ),
    request_body(content = ScaleRequest, content_type = "application/json"),
    responses((status = 200, description = "The service with its new number of replicas", body = ServiceStatus), Problems, AbsentProblem, ConflictProblem, PreconditionProblem, BodyProblems, FullProblem),
)]
pub(super) async fn scale_service_by_post(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    scale(&app, &name, request).await
}

async fn scale(app: &App, name: &str, request: Request) -> Result<Response, Problem> {
    let key = service_key(name, request.uri())?;
    let expected = expected_revision(request.headers())?;
    let body = body::read(request, app.settings.body_bytes_max).await?;
    let ScaleRequest { replicas } = body::parse(&body)?;
    let replicas_max = app.settings.replicas_max;
    if replicas > replicas_max {
        let allowed = format!("0 to {replicas_max} (setting api.replicas_max)");
        return Err(Problem::of_field(Violation::new(
            "replicas", replicas, allowed,
        )));
    }
    if !app.memory.has_room()
        && let Some(standing) = read(app, &key).await?
        && standing.service.replicas < replicas
    {
        return Err(app.memory.problem());
    }
    let submission = PodId::new_submission();
    let scale = async || {
        app.store
            .services()
            .scale(&key, replicas, &submission, expected)
            .await
    };
    let scaled = attempt(Effect::ChangesInSteps, scale).await?.value;
    let status = match scaled {
        ScaleOutcome::Done => read(app, &key).await?,
        ScaleOutcome::Deleting => return Err(deleting(&key)),
        ScaleOutcome::Moved { revision } => return Err(moved(&key, expected, revision)),
        ScaleOutcome::Absent => None,
    };
    let status = status.ok_or_else(|| absent(&key))?;
    tracing::info!(service = %key, replicas, "service scaled");
    Ok(answer(StatusCode::OK, status))
}

/// That there is such a service.
pub(super) async fn must_be_there(app: &App, key: &ServiceKey) -> Result<(), Problem> {
    let found = read(app, key).await?;
    found.map(drop).ok_or_else(|| absent(key))
}

/// List revisions
///
/// How many are kept is the setting `scheduler.revisions_kept`.
#[utoipa::path(
    get,
    path = "/v1/services/{name}/revisions",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Its namespace, `default` where none is said"),
    ),
    responses((status = 200, description = "The revisions that are kept, the current one last", body = Revisions), Problems, AbsentProblem),
)]
pub(super) async fn list_revisions(
    State(app): State<App>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let key = service_key(&name, &uri)?;
    let read = async || app.store.services().revisions(&key).await;
    let found = attempt(Effect::Reads, read).await?.value;
    let found = found.ok_or_else(|| absent(&key))?.into_iter();
    let items = found.map(|revision| RevisionStatus {
        revision: revision.revision,
        created_ms: revision.created_ms,
        spec: revision.spec.without_secrets(),
    });
    let items = items.collect();
    Ok(answer(StatusCode::OK, Revisions { items }))
}

/// A service as it is shown, if it is there.
pub(super) async fn read(app: &App, key: &ServiceKey) -> Result<Option<ServiceStatus>, Problem> {
    let get = async || app.store.services().get(key).await;
    let found = attempt(Effect::Reads, get).await?.value;
    Ok(found.map(|(service, running)| ServiceStatus::new(service, running)))
}

pub(super) fn absent(key: &ServiceKey) -> Problem {
    Problem::new(
        Kind::ServiceNotFound,
        format!(
            "there is no service {} in namespace {}",
            key.name, key.namespace
        ),
    )
}
