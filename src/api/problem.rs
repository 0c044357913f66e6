//! Problems: every answer that is no success, as RFC 9457 describes them.
//!
//! Below 500 a problem explains what to change. From 500 on it says a fixed text and the request's
//! id; the details are in the log. Must never show an error of Redis to a user.

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::model::Violation;

/// Content type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Seconds after which to try again: a fail-over takes a few, and asking is cheap.
const RETRY_AFTER_SECONDS: &str = "1";

/// Most broken rules that one answer tells.
const VIOLATIONS_MAX: usize = 50;

/// Every kind of problem; what [`Kind::parts`] says of each is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MalformedJson,
    InvalidRequest,
    NotFound,
    ServiceNotFound,
    PodNotFound,
    NodeNotFound,
    DeadLetterNotFound,
    DeadLetterCut,
    MethodNotAllowed,
    RequestTimeout,
    ServiceExists,
    ServiceDeleting,
    PodOwned,
    NodeInUse,
    PodNotRunning,
    OriginRefused,
    UpgradeRequired,
    RevisionMoved,
    BodyTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    Internal,
    StoreUnavailable,
    OutcomeUnknown,
    StoreFull,
    StoreNearlyFull,
    StoreUnsupported,
    NodeUnavailable,
    TooManyReaders,
    TooManyStreams,
}

impl Kind {
    /// Every kind, for the `OpenAPI` document.
    pub(super) const ALL: [Kind; 30] = [
        Kind::MalformedJson,
        Kind::InvalidRequest,
        Kind::NotFound,
        Kind::ServiceNotFound,
        Kind::PodNotFound,
        Kind::NodeNotFound,
        Kind::DeadLetterNotFound,
        Kind::DeadLetterCut,
        Kind::MethodNotAllowed,
        Kind::RequestTimeout,
        Kind::ServiceExists,
        Kind::ServiceDeleting,
        Kind::PodOwned,
        Kind::NodeInUse,
        Kind::PodNotRunning,
        Kind::OriginRefused,
        Kind::UpgradeRequired,
        Kind::RevisionMoved,
        Kind::BodyTooLarge,
        Kind::UnsupportedMediaType,
        Kind::IdempotencyKeyReused,
        Kind::Internal,
        Kind::StoreUnavailable,
        Kind::OutcomeUnknown,
        Kind::StoreFull,
        Kind::StoreNearlyFull,
        Kind::StoreUnsupported,
        Kind::NodeUnavailable,
        Kind::TooManyReaders,
        Kind::TooManyStreams,
    ];

    /// Type, status, title.
    fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Kind::MalformedJson => ("/problems/malformed-json", 400, "The body is not JSON"),
            Kind::InvalidRequest => (
                "/problems/invalid-request",
                400,
                "The request breaks a rule",
            ),
            Kind::NotFound => ("/problems/not-found", 404, "There is no such address"),
            Kind::ServiceNotFound => (
                "/problems/service-not-found",
                404,
                "There is no such service",
            ),
            Kind::PodNotFound => ("/problems/pod-not-found", 404, "There is no such pod"),
            Kind::NodeNotFound => ("/problems/node-not-found", 404, "There is no such node"),
            Kind::DeadLetterNotFound => (
                "/problems/dead-letter-not-found",
                404,
                "There is no such dead letter",
            ),
            Kind::DeadLetterCut => (
                "/problems/dead-letter-cut",
                409,
                "The dead letter has no entry that could be pushed again",
            ),
            Kind::MethodNotAllowed => (
                "/problems/method-not-allowed",
                405,
                "The address does not take this method",
            ),
            Kind::RequestTimeout => (
                "/problems/request-timeout",
                408,
                "The body did not arrive in time",
            ),
            Kind::ServiceExists => (
                "/problems/service-exists",
                409,
                "Another service has this name",
            ),
            Kind::ServiceDeleting => (
                "/problems/service-deleting",
                409,
                "The service is being deleted",
            ),
            Kind::PodOwned => ("/problems/pod-owned", 409, "The pod belongs to a service"),
            Kind::NodeInUse => ("/problems/node-in-use", 409, "The node is in use"),
            Kind::PodNotRunning => ("/problems/pod-not-running", 409, "The pod does not run"),
            Kind::OriginRefused => (
                "/problems/origin-refused",
                403,
                "The request comes from another site",
            ),
            Kind::UpgradeRequired => (
                "/problems/upgrade-required",
                426,
                "The address speaks WebSocket",
            ),
            Kind::RevisionMoved => (
                "/problems/revision-moved",
                412,
                "The service has another revision",
            ),
            Kind::BodyTooLarge => ("/problems/body-too-large", 413, "The body is too large"),
            Kind::UnsupportedMediaType => (
                "/problems/unsupported-media-type",
                415,
                "The body's type is not JSON",
            ),
            Kind::IdempotencyKeyReused => (
                "/problems/idempotency-key-reused",
                422,
                "The idempotency key belongs to another request",
            ),
            Kind::Internal => ("/problems/internal", 500, "kubeleet made a mistake"),
            Kind::StoreUnsupported => (
                "/problems/store-unsupported",
                503,
                "Redis holds what only a newer version knows; nothing was done",
            ),
            Kind::StoreUnavailable => (
                "/problems/store-unavailable",
                503,
                "Redis cannot be reached; nothing was done",
            ),
            Kind::OutcomeUnknown => (
                "/problems/outcome-unknown",
                503,
                "Redis was lost on the way; it may or may not have been done",
            ),
            Kind::TooManyStreams => (
                "/problems/too-many-streams",
                503,
                "As many streams are open as this process serves",
            ),
            Kind::StoreFull => (
                "/problems/store-full",
                503,
                "Redis has no memory left; nothing was done",
            ),
            Kind::StoreNearlyFull => (
                "/problems/store-nearly-full",
                507,
                "Redis has little memory left; nothing was done",
            ),
            Kind::NodeUnavailable => (
                "/problems/node-unavailable",
                503,
                "The pod's node cannot be asked",
            ),
            Kind::TooManyReaders => (
                "/problems/too-many-readers",
                503,
                "Too many requests of this kind are open",
            ),
        }
    }

    pub(super) fn r#type(self) -> &'static str {
        self.parts().0
    }

    fn status(self) -> StatusCode {
        StatusCode::from_u16(self.parts().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// An answer that is no success; boxed, because it is the error of every handler.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Problem(Box<ProblemBody>);

/// An answer that is no success.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "/problems/invalid-request", "title": "The request breaks a rule", "status": 400,
    "detail": "name: \"Web\" is given, allowed is 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    "field": "name", "given": "Web",
    "allowed": "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    "violations": [{
        "field": "name", "given": "Web",
        "allowed": "1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    }],
}))]
pub(super) struct ProblemBody {
    /// Stable name of the kind of problem: `/problems/<name>`.
    #[schema(schema_with = super::schema::problem_types)]
    r#type: &'static str,
    /// The kind in a few words.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this very request, and what to do.
    detail: String,
    /// The field, parameter or header at fault; of several the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// What was given there, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<String>,
    /// What is allowed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<String>,
    /// Every broken rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    violations: Vec<Violation>,
    /// From status 500 on: the request's id, under which the log tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    kind: Kind,
}

impl Problem {
    /// A problem that has no field to point to.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        let (r#type, status, title) = kind.parts();
        Problem(Box::new(ProblemBody {
            r#type,
            title,
            status,
            detail: detail.into(),
            field: None,
            given: None,
            allowed: None,
            violations: Vec::new(),
            request_id: None,
            kind,
        }))
    }

    /// A problem of fields; the detail lists them. Of many the first are told.
    pub(super) fn of_violations(kind: Kind, mut violations: Vec<Violation>) -> Problem {
        let more = violations.len().saturating_sub(VIOLATIONS_MAX);
        violations.truncate(VIOLATIONS_MAX);
        let mut shown: Vec<String> = violations.iter().map(Violation::to_string).collect();
        if more > 0 {
            shown.push(format!("and {more} more"));
        }
        let mut problem = Problem::new(kind, shown.join("; "));
        if let Some(first) = violations.first() {
            problem.0.field = Some(first.field.clone());
            problem.0.given = Some(first.given.clone());
            problem.0.allowed = Some(first.allowed.clone());
        }
        problem.0.violations = violations;
        problem
    }

    /// A problem of one field.
    pub(super) fn of_field(violation: Violation) -> Problem {
        Problem::of_violations(Kind::InvalidRequest, vec![violation])
    }

    /// In place of what the detail would say by itself.
    pub(super) fn with_detail(mut self, detail: impl Into<String>) -> Problem {
        self.0.detail = detail.into();
        self
    }

    /// The problem of an answer that a library made: its status, its words where they explain.
    pub(super) fn of_status(status: StatusCode, path: &str) -> Problem {
        match status {
            StatusCode::NOT_FOUND => Problem::new(
                Kind::NotFound,
                format!("{path} is no address of this API; /openapi.json describes all"),
            ),
            StatusCode::METHOD_NOT_ALLOWED => Problem::new(
                Kind::MethodNotAllowed,
                format!("{path} takes the methods that the header Allow names"),
            ),
            status if status.is_client_error() => Problem::new(
                Kind::InvalidRequest,
                format!("{path} or a parameter in it is not text in UTF-8"),
            ),
            _ => Problem::internal(),
        }
    }

    /// A mistake of ours; what it was is in the log.
    pub(super) fn internal() -> Problem {
        Problem::new(
            Kind::Internal,
            "the log of the API tells more under the id of this request",
        )
    }

    /// As an answer to the request of this id; `allow` is the header of a 405.
    pub(super) fn answer(mut self, request_id: &str, allow: Option<HeaderValue>) -> Response {
        let status = self.0.kind.status();
        if status.is_server_error() {
            self.0.request_id = Some(request_id.to_owned());
        }
        // A problem has string keys and plain values, which always have a JSON form.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(allow) = allow {
            headers.insert(ALLOW, allow);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || self.0.kind == Kind::ServiceDeleting {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// Leaves the problem for [`super::observe`], which knows the request's id and writes the answer.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.0.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_types_of_their_own() {
        let types: std::collections::BTreeSet<_> = Kind::ALL.map(Kind::r#type).into();
        assert_eq!(types.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert!(kind.r#type().starts_with("/problems/"));
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
        }
    }
}
