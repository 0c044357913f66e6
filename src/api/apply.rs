//! `PUT /v1/services/{name}`: a wish is made or changed; the same again changes nothing.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{ServiceStatus, answer};
use super::attempt::{Effect, attempt};
use super::precondition::{expected_revision, moved};
use super::problem::{Kind, Problem};
use super::query::{Parameters, check_name};
use super::schema::{
    BodyProblems, ConflictProblem, FullProblem, PreconditionProblem, Problems, ServiceRequest,
};
use super::submit::{deleting, set_namespace};
use super::{App, body};
use crate::model::{PodId, Service, ServiceKey, ServiceSpec, Violation};
use crate::process::failpoint;
use crate::store::{Submit, SubmitMode, SubmitOutcome};

/// A service that was applied, or would be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppliedService {
    /// What became of it, or would: `created`, `changed` or `unchanged`.
    #[schema(example = "changed")]
    outcome: &'static str,
    /// The service as it stands then.
    service: ServiceStatus,
    /// What differs from the wish that stood before.
    changes: Vec<Change>,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Change {
    /// Path of the field, such as `env.MODE`.
    #[schema(example = "image")]
    field: String,
    /// What stood there; null for nothing.
    from: Value,
    /// What is wanted; null for nothing.
    to: Value,
}

/// Apply a service
///
/// Makes it, or changes the one that stands. The same wish again changes nothing. A changed spec is
/// the next revision, to which the pods are replaced one after another; where the body says no
/// `replicas`, their number stays.
#[utoipa::path(
    put,
    path = "/v1/services/{name}",
    tag = "services",
    params(
        ("name" = String, Path, description = "The service"),
        ("namespace" = Option<String>, Query, description = "Namespace, in place of the body's"),
        ("dry_run" = Option<bool>, Query, description = "Answer what would change, and change nothing"),
        ("If-Match" = Option<String>, Header, description = "The revision the service must have; 0 if it must not be there"),
    ),
    request_body(content = ServiceRequest, content_type = "application/json"),
    responses(
        (status = 201, description = "It is new", body = AppliedService),
        (status = 200, description = "It is changed, or stood so already; or this was a dry run", body = AppliedService),
        Problems,
        BodyProblems,
        ConflictProblem,
        PreconditionProblem,
        FullProblem,
    ),
)]
pub(super) async fn apply_service(
    State(app): State<App>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::read(request.uri(), &["namespace", "dry_run"]);
    let namespace = parameters.namespace();
    let dry_run = parameters.flag("dry_run");
    check_name(&mut parameters, &name);
    parameters.check()?;
    let expected = expected_revision(request.headers())?;
    let body = body::read(request, app.settings.body_bytes_max).await?;
    let given = with_name(&body, &name);
    let mut spec: ServiceSpec = body::parse(&given)?;
    if spec.name != name {
        let allowed = format!("{name}, as the address says, or leave it out");
        return Err(Problem::of_field(Violation::new(
            "name", &spec.name, allowed,
        )));
    }
    if let Some(namespace) = namespace {
        set_namespace(&mut spec, namespace, &given)?;
    }
    let keep_replicas = !says_replicas(&given);
    let violations = app.violations(&spec);
    if !violations.is_empty() {
        return Err(Problem::of_violations(Kind::InvalidRequest, violations));
    }
    let key = spec.key();
    let read = async || app.store.services().get_with_login(&key).await;
    let standing = attempt(Effect::Reads, read).await?.value;
    let changes = match &standing {
        Some((service, ..)) if service.deleting => return Err(deleting(&key)),
        Some((service, _, login)) => {
            if keep_replicas {
                spec.replicas = service.replicas;
            }
            let mut changes = differences(service, &spec);
            if *login != spec.registry {
                changes.push(hidden("registry", login.is_some(), spec.registry.is_some()));
            }
            changes
        }
        None => Vec::new(),
    };
    if dry_run {
        return dry_answer(
            standing.map(|(service, running, _)| (service, running)),
            spec,
            changes,
            expected,
        );
    }
    let stands = standing
        .as_ref()
        .map_or(0, |(service, ..)| service.replicas);
    if !app.memory.has_room() && spec.replicas > stands {
        return Err(app.memory.problem());
    }
    app.sign(&mut spec);
    let submission = PodId::new_submission();
    let submit = Submit {
        spec: &spec,
        submission: &submission,
        idempotency: None,
        mode: SubmitMode::Apply {
            keep_replicas,
            expected,
        },
    };
    failpoint("api.before_submit");
    let call = async || app.store.services().submit(&submit).await;
    let outcome = attempt(Effect::ChangesInSteps, call).await?.value;
    failpoint("api.after_submit");
    let (status, outcome, changes) = match outcome {
        SubmitOutcome::Created { .. } => (StatusCode::CREATED, "created", Vec::new()),
        SubmitOutcome::Changed { .. } => (StatusCode::OK, "changed", changes),
        SubmitOutcome::Exists { .. } | SubmitOutcome::Repeated { .. } => {
            (StatusCode::OK, "unchanged", Vec::new())
        }
        SubmitOutcome::Moved { revision } => return Err(moved(&key, expected, revision)),
        SubmitOutcome::Deleting => return Err(deleting(&key)),
        // Only a create conflicts, and no key was given.
        SubmitOutcome::Conflict | SubmitOutcome::KeyReused => return Err(Problem::internal()),
    };
    tracing::info!(service = %key, outcome, "service applied");
    let service = standing_now(&app, &key).await?;
    let body = AppliedService {
        outcome,
        service,
        changes,
    };
    Ok(answer(status, body))
}

async fn standing_now(app: &App, key: &ServiceKey) -> Result<ServiceStatus, Problem> {
    let get = async || app.store.services().get(key).await;
    let found = attempt(Effect::Reads, get).await?.value;
    let (service, running) = found.ok_or_else(|| super::services::absent(key))?;
    Ok(ServiceStatus::new(service, running))
}

fn dry_answer(
    standing: Option<(Service, u32)>,
    spec: ServiceSpec,
    changes: Vec<Change>,
    expected: Option<u64>,
) -> Result<Response, Problem> {
    let revision = standing.as_ref().map_or(0, |(service, _)| service.revision);
    if expected.is_some_and(|expected| expected != revision) {
        return Err(moved(&spec.key(), expected, revision));
    }
    let only_count = changes
        .iter()
        .all(|change| ["replicas", "registry"].contains(&change.field.as_str()));
    let (outcome, service, running) = match standing {
        None => ("created", Service::first(spec), 0),
        Some((service, running)) if changes.is_empty() => ("unchanged", service, running),
        Some((mut service, running)) => {
            service.revision += u64::from(!only_count);
            service.replicas = spec.replicas;
            service.spec = spec;
            ("changed", service, running)
        }
    };
    let body = AppliedService {
        outcome,
        service: ServiceStatus::new(service, running),
        changes,
    };
    Ok(answer(StatusCode::OK, body))
}

/// What differs between a service and a wish for it, field by field, without what is secret.
fn differences(service: &Service, spec: &ServiceSpec) -> Vec<Change> {
    let mut changes = Vec::new();
    let (from, to) = (service.spec.without_secrets(), spec.without_secrets());
    let json = |spec: &ServiceSpec| serde_json::to_value(spec).unwrap_or(Value::Null);
    compare("", &json(&from), &json(&to), &mut changes);
    let secret = service.spec.to_stored() != spec.to_stored();
    if secret && changes.iter().all(|change| change.field != "files") && from == to {
        changes.push(hidden("files", true, true));
    }
    if service.replicas != spec.replicas {
        changes.push(Change {
            field: "replicas".to_owned(),
            from: service.replicas.into(),
            to: spec.replicas.into(),
        });
    }
    changes
}

fn hidden(field: &str, from: bool, to: bool) -> Change {
    let shown = |there, text: &str| if there { text.into() } else { Value::Null };
    Change {
        field: field.to_owned(),
        from: shown(from, "(secret)"),
        to: shown(to, "(another secret)"),
    }
}

/// Objects are compared field by field, all else as a whole.
fn compare(path: &str, from: &Value, to: &Value, changes: &mut Vec<Change>) {
    match (from, to) {
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let side = |fields: &serde_json::Map<String, Value>| {
                    fields.get(name).cloned().unwrap_or(Value::Null)
                };
                compare(&path, &side(before), &side(after), changes);
            }
        }
        // What one side lacks altogether is told as its parts, as if it stood there empty.
        (Value::Null, Value::Object(_)) if !path.is_empty() => {
            compare(path, &Value::Object(serde_json::Map::new()), to, changes);
        }
        (Value::Object(_), Value::Null) if !path.is_empty() => {
            compare(path, from, &Value::Object(serde_json::Map::new()), changes);
        }
        _ if from != to => changes.push(Change {
            field: path.to_owned(),
            from: from.clone(),
            to: to.clone(),
        }),
        _ => {}
    }
}

/// The body with the name of the address, where it says none itself.
fn with_name(body: &Bytes, name: &str) -> Bytes {
    match serde_json::from_slice::<serde_json::Map<String, Value>>(body) {
        Ok(mut fields) if !fields.contains_key("name") => {
            fields.insert("name".to_owned(), name.into());
            Value::Object(fields).to_string().into()
        }
        _ => body.clone(),
    }
}

fn says_replicas(body: &Bytes) -> bool {
    let fields = serde_json::from_slice::<serde_json::Map<String, Value>>(body);
    fields.is_ok_and(|fields| {
        ["replicas", "replica"]
            .iter()
            .any(|name| fields.contains_key(*name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_field_by_field() {
        let parse = |json: &str| serde_json::from_str::<ServiceSpec>(json).unwrap();
        let from = parse(r#"{"name":"a","image":"b:1","env":{"K":"1","L":"2"},"args":["x"]}"#);
        let to = parse(
            r#"{"name":"a","image":"b:2","env":{"K":"1","M":"3"},"args":["x","y"],"replicas":2,
                "resources":{"cpu":1}}"#,
        );
        let service = Service {
            replicas: 1,
            ..Service::first(from)
        };
        let told: Vec<String> = differences(&service, &to)
            .into_iter()
            .map(|change| format!("{} {} {}", change.field, change.from, change.to))
            .collect();
        let expected = [
            r#"args ["x"] ["x","y"]"#,
            r#"env.L "2" null"#,
            r#"env.M null "3""#,
            r#"image "b:1" "b:2""#,
            "resources.cpu null 1",
            "replicas 1 2",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_changed_secret_is_told_without_being_shown() {
        let spec = |content: &str| {
            let json = serde_json::json!({"name": "a", "image": "b", "files": [
                {"path": "/k", "content": content, "secret": true}]});
            serde_json::from_value::<ServiceSpec>(json).unwrap()
        };
        let service = Service::first(spec("one"));
        let changes = differences(&service, &spec("two"));
        assert_eq!(changes, [hidden("files", true, true)]);
        assert!(differences(&service, &spec("one")).is_empty());
    }
}
