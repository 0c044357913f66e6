//! What surrounds every request: its id, its time budget, its one log line, its problem.

use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::problem::{Kind, Problem};

/// Longest time from a request's header to its answer. Longer than all tries of one call to Redis
/// ([`super::attempt::BUDGET`]), shorter than any client waits.
pub(super) const REQUEST_BUDGET: Duration = Duration::from_secs(5);
/// The header of a request's id, given by the user or made here.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most characters of a path in the log.
const PATH_SHOWN_MAX: usize = 300;
/// Longest id that is taken from the user.
const REQUEST_ID_MAX: usize = 128;

/// Serves one request within its span.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let span = tracing::info_span!("request", request.id = %id);
    serve(id, request, next).instrument(span).await
}

async fn serve(id: String, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let served = tokio::time::timeout(REQUEST_BUDGET, next.run(request)).await;
    let mut response = match served {
        Ok(response) => response,
        Err(_) => axum::response::IntoResponse::into_response(out_of_time(&method)),
    };
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    let failed = status.is_client_error() || status.is_server_error();
    // A library's own answer, such as the router's 404, becomes a problem too.
    if let Some(problem) = problem.or_else(|| failed.then(|| Problem::of_status(status, &path))) {
        let allow = response.headers_mut().remove(ALLOW);
        response = problem.answer(&id, allow);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let path: String = path.chars().take(PATH_SHOWN_MAX).collect();
    tracing::info!(%method, path, status = status.as_u16(), ms, "request served");
    response
}

fn out_of_time(method: &Method) -> Problem {
    if method.is_safe() {
        Problem::new(
            Kind::StoreUnavailable,
            format!("no answer within {REQUEST_BUDGET:?}; try again"),
        )
    } else {
        Problem::new(
            Kind::OutcomeUnknown,
            format!(
                "not finished within {REQUEST_BUDGET:?}; {}",
                super::attempt::REPEAT
            ),
        )
    }
}

/// The id the user gave, where it is fit for a log; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    given
        .filter(|id| (1..=REQUEST_ID_MAX).contains(&id.len()))
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned)
}
