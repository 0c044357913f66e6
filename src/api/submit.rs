//! `POST /service`: a wish is checked as a whole, then submitted in one call.

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{SubmittedService, answer};
use super::attempt::{Effect, attempt};
use super::problem::{Kind, Problem};
use super::query::Parameters;
use super::schema::{
    BodyProblems, ConflictProblem, FullProblem, KeyProblem, Problems, ServiceRequest,
};
use super::services::read as standing;
use super::{App, body, idempotency};
use crate::model::{PodId, Service, ServiceKey, ServiceSpec, Violation};
use crate::process::failpoint;
use crate::store::{
    Idempotency, PAGE_MAX, PodFilter, StoreError, Submit, SubmitMode, SubmitOutcome,
};

/// A submit of at most this many pods is one call of the store, whose step is larger.
const ONE_CALL_PODS: u32 = 100;

/// Submit a service
///
/// The service is split into pods, which wait in the queue for a node. Only `name` and `image` are
/// needed. The same wish again is answered with 200 and makes nothing new.
#[utoipa::path(
    post,
    path = "/v1/services",
    tag = "services",
    params(
        ("namespace" = Option<String>, Query, description = "Namespace, in place of the body's"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters. A repeat of the request under the same key is answered as the first was"),
    ),
    request_body(content = ServiceRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "The service and its pods are made", body = SubmittedService,
            headers(("Location" = String, description = "Address of the service"))),
        (status = 200, description = "The very same wish stands already", body = SubmittedService),
        Problems,
        BodyProblems,
        ConflictProblem,
        KeyProblem,
        FullProblem,
    ),
)]
pub(super) async fn submit_service(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    submit(&app, request).await
}

/// Submit a service
///
/// The same as `POST /v1/services`.
#[utoipa::path(
    post,
    path = "/service",
    tag = "services",
    params(
        ("namespace" = Option<String>, Query, description = "Namespace, in place of the body's"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters. A repeat of the request under the same key is answered as the first was"),
    ),
    request_body(content = ServiceRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "The service and its pods are made", body = SubmittedService,
            headers(("Location" = String, description = "Address of the service"))),
        (status = 200, description = "The very same wish stands already", body = SubmittedService),
        Problems,
        BodyProblems,
        ConflictProblem,
        KeyProblem,
        FullProblem,
    ),
)]
pub(super) async fn submit_service_short(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    submit(&app, request).await
}

async fn submit(app: &App, request: Request) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(request.uri(), &["namespace"]);
    let namespace = parameters.namespace();
    parameters.check()?;
    let key = idempotency::key(request.headers())?;
    let body = body::read(request, app.settings.body_bytes_max).await?;
    let mut spec: ServiceSpec = body::parse(&body)?;
    if let Some(namespace) = namespace {
        set_namespace(&mut spec, namespace, &body)?;
    }
    let violations = app.violations(&spec);
    if !violations.is_empty() {
        return Err(Problem::of_violations(Kind::InvalidRequest, violations));
    }
    let ttl = app.settings.idempotency_ttl;
    let idempotency = key.map(|key| Idempotency {
        key,
        request: idempotency::fingerprint(&spec),
        ttl,
    });
    app.sign(&mut spec);
    let submission = PodId::new_submission();
    let submit = Submit {
        spec: &spec,
        submission: &submission,
        idempotency,
        mode: SubmitMode::Create,
    };
    let effect = if spec.replicas <= ONE_CALL_PODS {
        Effect::Changes
    } else {
        Effect::ChangesInSteps
    };
    if !app.memory.has_room() && standing(app, &spec.key()).await?.is_none() {
        return Err(app.memory.problem());
    }
    failpoint("api.before_submit");
    let outcome = attempt(effect, || submit_whole(app, &submit)).await?.value;
    failpoint("api.after_submit");
    answer_outcome(app, &spec, &submission, outcome).await
}

/// Submits, and makes sure that all pods of a wish that stood already are made: the process that
/// began may have died on the way.
async fn submit_whole(app: &App, submit: &Submit<'_>) -> Result<SubmitOutcome, StoreError> {
    let services = app.store.services();
    let outcome = services.submit(submit).await?;
    if let SubmitOutcome::Exists { .. } | SubmitOutcome::Repeated { .. } = &outcome {
        services.split(&submit.spec.key()).await?;
    }
    Ok(outcome)
}

async fn answer_outcome(
    app: &App,
    spec: &ServiceSpec,
    submission: &str,
    outcome: SubmitOutcome,
) -> Result<Response, Problem> {
    let key = spec.key();
    let of = |submission: &str| -> Vec<PodId> {
        let replicas = 0..spec.replicas;
        replicas
            .map(|replica| PodId::of_submission(submission, replica))
            .collect()
    };
    let (status, revision, created_ms, running, pods) = match outcome {
        SubmitOutcome::Created {
            revision,
            created_ms,
        } => {
            tracing::info!(service = %key, submission, replicas = spec.replicas, "service submitted");
            (StatusCode::CREATED, revision, created_ms, 0, of(submission))
        }
        // Word for word what the first request was answered, when nothing ran yet.
        SubmitOutcome::Repeated {
            submission,
            revision,
            created_ms,
        } => (
            StatusCode::CREATED,
            revision,
            created_ms,
            0,
            of(&submission),
        ),
        SubmitOutcome::Exists {
            revision,
            created_ms,
        } => {
            let (running, pods) = standing_pods(app, &key).await?;
            (StatusCode::OK, revision, created_ms, running, pods)
        }
        SubmitOutcome::Conflict => return Err(conflict(app, spec).await?),
        SubmitOutcome::Deleting => return Err(deleting(&key)),
        // A create changes nothing that stands, and expects no revision.
        SubmitOutcome::Changed { .. } | SubmitOutcome::Moved { .. } => {
            return Err(Problem::internal());
        }
        SubmitOutcome::KeyReused => {
            return Err(Problem::new(
                Kind::IdempotencyKeyReused,
                "a request with another body was sent under this Idempotency-Key: use a new key",
            ));
        }
    };
    let service = Service {
        name: spec.name.clone(),
        namespace: spec.namespace.clone(),
        revision,
        replicas: spec.replicas,
        deleting: false,
        created_ms,
        spec: spec.without_secrets(),
    };
    let body = SubmittedService {
        service,
        running,
        pods,
    };
    let mut response = answer(status, body);
    let location = format!("/v1/services/{}?namespace={}", key.name, key.namespace);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Running count and pod ids of a service that stands already.
async fn standing_pods(app: &App, key: &ServiceKey) -> Result<(u32, Vec<PodId>), Problem> {
    let read = async || -> Result<(u32, Vec<PodId>), StoreError> {
        let running = app.store.services().get(key).await?;
        let running = running.map_or(0, |(_, running)| running);
        let filter = PodFilter {
            service: Some(key.clone()),
            ..PodFilter::default()
        };
        let mut ids = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let pods = app.store.pods();
            let page = pods.list(&filter, cursor.as_deref(), PAGE_MAX).await?;
            ids.extend(page.pods.into_iter().map(|pod| pod.id));
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok((running, ids));
            }
        }
    };
    Ok(attempt(Effect::Reads, read).await?.value)
}

/// The problem of another wish under the same name: what differs, and what to do.
async fn conflict(app: &App, spec: &ServiceSpec) -> Result<Problem, Problem> {
    let key = spec.key();
    let standing = attempt(Effect::Reads, async || app.store.services().get(&key).await);
    let mut differing = Vec::new();
    if let Some((standing, _)) = standing.await?.value {
        let (theirs, ours) = (fields_of(spec), fields_of(&standing.spec));
        // Who may not see a secret must not be shown it for having guessed another.
        let (open_theirs, open_ours) = (
            fields_of(&spec.without_secrets()),
            fields_of(&standing.spec.without_secrets()),
        );
        let names: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
        let shown = |value: Option<&Value>| match value {
            None => "nothing".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        for name in names {
            let (given, stands) = (theirs.get(name), ours.get(name));
            if given != stands {
                let allowed = format!("{}, as it stands", shown(open_ours.get(name)));
                let given = shown(open_theirs.get(name));
                differing.push(Violation::new(name, given, allowed));
            }
        }
        if standing.replicas != spec.replicas {
            let allowed = format!("{}, as it stands", standing.replicas);
            differing.push(Violation::new("replicas", spec.replicas, allowed));
        }
    }
    let what: Vec<&str> = differing
        .iter()
        .map(|broken| broken.field.as_str())
        .collect();
    let detail = match what.as_slice() {
        ["replicas"] => format!(
            "{key} stands with another number of replicas: scale it with PATCH /v1/services/{}/scale",
            key.name
        ),
        [] => format!("{key} stood with another wish a moment ago: look, and send it again"),
        what => format!(
            "{key} stands with another {}: change it with PUT /v1/services/{}, or choose another name",
            what.join(", "),
            key.name
        ),
    };
    Ok(Problem::of_violations(Kind::ServiceExists, differing).with_detail(detail))
}

/// The problem of a service that is being deleted.
pub(super) fn deleting(key: &ServiceKey) -> Problem {
    let detail = format!("{key} is being deleted, its pods are being stopped: try again later");
    Problem::new(Kind::ServiceDeleting, detail)
}

fn fields_of(spec: &ServiceSpec) -> serde_json::Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

/// The namespace of the query is the body's too: both may be given, if they agree.
pub(super) fn set_namespace(
    spec: &mut ServiceSpec,
    namespace: String,
    body: &Bytes,
) -> Result<(), Problem> {
    #[derive(Deserialize)]
    struct Given {
        namespace: Option<serde::de::IgnoredAny>,
    }
    let given = serde_json::from_slice::<Given>(body);
    let given = given.is_ok_and(|given| given.namespace.is_some());
    if given && spec.namespace != namespace {
        let allowed = format!("{namespace}, as ?namespace= says, or leave one of them out");
        let violation = Violation::new("namespace", &spec.namespace, allowed);
        return Err(Problem::of_field(violation));
    }
    spec.namespace = namespace;
    Ok(())
}
