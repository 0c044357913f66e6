//! `/healthz` and `/readyz`: whether this process lives, and whether it can serve.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::App;
use super::answer::{Health, answer};
use super::problem::{Kind, Problem};
use super::schema::Problems;
use crate::store::StoreError;
use crate::telemetry;

/// Longest time for Redis to answer a readiness probe: probes come every few seconds and should
/// not pile up.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Is the process alive
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, description = "It is", body = Health)),
)]
pub(super) async fn alive() -> Response {
    let status = "alive";
    let (cluster, memory) = (None, None);
    let health = Health {
        status,
        cluster,
        memory,
    };
    answer(StatusCode::OK, health)
}

/// Can it serve
///
/// Redis is reachable, and holds a schema and a function library that this version knows. How full it is is told
/// too: above 85 percent of its memory nothing new is accepted.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, description = "It can", body = Health), Problems),
)]
pub(super) async fn ready(State(app): State<App>) -> Result<Response, Problem> {
    let status = "ready";
    let unready = |detail: &str| Err(Problem::new(Kind::StoreUnavailable, detail));
    match tokio::time::timeout(READY_TIMEOUT, app.store.open()).await {
        Ok(Ok(cluster)) => {
            let health = Health {
                status,
                cluster: Some(cluster),
                memory: Some(app.memory.seen()),
            };
            Ok(answer(StatusCode::OK, health))
        }
        // A full Redis refuses only what creates: all else can be served, above all deletions.
        Ok(Err(error)) if error.is_full() => {
            let health = Health {
                status,
                cluster: None,
                memory: Some(app.memory.seen()),
            };
            Ok(answer(StatusCode::OK, health))
        }
        Ok(Err(error @ StoreError::Newer { .. })) => {
            tracing::error!(error = telemetry::chain(&error), "this version is too old");
            Err(Problem::new(Kind::StoreUnsupported, error.to_string()))
        }
        Ok(Err(error)) => {
            tracing::warn!(error = telemetry::chain(&error), "not ready");
            unready(if error.is_retryable() {
                "Redis is away or failing over"
            } else {
                "Redis does not hold what this version can serve; the log says more"
            })
        }
        Err(_) => unready("Redis did not answer in time"),
    }
}
