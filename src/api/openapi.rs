//! Routes, and the `OpenAPI` 3.1 document that describes them: both from one list.

use std::sync::LazyLock;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, ProblemBody};
use super::{
    App, apply, dead, decisions, events, exec, health, logs, nodes, observe, pods, queue, rules,
    services, stats, submit, watch,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "kubeleet",
        description = "Containers on many machines, kept running. Every answer that is no success is a problem (RFC 9457).",
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "services", description = "What is kept running"),
        (name = "pods", description = "The containers, each on a node or waiting for one"),
        (name = "nodes", description = "The machines"),
        (name = "queue", description = "What waits for a node"),
        (name = "events", description = "What happened, and what is happening"),
        (name = "health", description = "This process"),
    ),
)]
struct Base;

/// Made once: the document does not change while the process runs.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let (_, document) = routes().split_for_parts();
    // The document has string keys and plain values, which always have a JSON form.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    rules::say(&mut document);
    serde_json::to_string_pretty(&document).unwrap_or_default()
});

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(submit::submit_service_short))
        .routes(routes!(services::list_services, submit::submit_service))
        .routes(routes!(
            services::get_service,
            apply::apply_service,
            services::delete_service
        ))
        .routes(routes!(
            services::scale_service,
            services::scale_service_by_post
        ))
        .routes(routes!(services::list_revisions))
        .routes(routes!(pods::list_pods))
        .routes(routes!(pods::get_pod, pods::stop_pod))
        .routes(routes!(decisions::explain_pod))
        .routes(routes!(decisions::list_decisions))
        .routes(routes!(logs::pod_logs))
        .routes(routes!(logs::service_logs))
        .routes(routes!(exec::exec))
        .routes(routes!(stats::pod_stats))
        .routes(routes!(stats::list_stats))
        .routes(routes!(nodes::list_nodes))
        .routes(routes!(
            nodes::get_node,
            nodes::marks::label_node,
            nodes::marks::remove_node
        ))
        .routes(routes!(nodes::marks::cordon_node))
        .routes(routes!(nodes::marks::uncordon_node))
        .routes(routes!(nodes::marks::drain_node))
        .routes(routes!(queue::get_queue))
        .routes(routes!(dead::list_dead))
        .routes(routes!(dead::get_dead, dead::drop_dead))
        .routes(routes!(dead::requeue_dead))
        .routes(routes!(events::list_events))
        .routes(routes!(watch::watch))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(openapi))
}

/// Every route, with what surrounds each request.
pub(super) fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    surrounded(router).with_state(app)
}

/// A panic becomes a problem, and all is seen by [`observe`].
fn surrounded<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .layer(CatchPanicLayer::custom(|_| {
            // The panic's own words are on stderr; this line has the request's id.
            tracing::error!("panic while serving a request");
            Problem::internal().into_response()
        }))
        .layer(middleware::from_fn(observe::observe))
}

/// The document as text.
pub(super) fn document_json() -> &'static str {
    &DOCUMENT
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "health",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json")),
)]
async fn openapi() -> Response {
    let mut response = document_json().into_response();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_is_a_problem_with_the_requests_id() {
        async fn panics() {
            panic!("a secret");
        }
        let router = surrounded(Router::new().route("/", get(panics)));
        let mut request = Request::new(Body::empty());
        let id = HeaderValue::from_static("my-id");
        request.headers_mut().insert("x-request-id", id);
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await;
        let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
        assert!(body.contains(r#""request_id":"my-id""#), "{body}");
        assert!(body.contains("/problems/internal") && !body.contains("secret"));
    }
}
