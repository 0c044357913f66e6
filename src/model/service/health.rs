//! Probes: how a container shows that it lives, and that it is ready for work.

use serde::{Deserialize, Serialize};

use crate::model::Span;

/// What is asked of a pod's container while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A container that fails it is `unhealthy`, and started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// A container that fails it is not ready: it runs on, and no update counts on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// Heed the image's own HEALTHCHECK where there is one, as liveness and readiness.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub engine: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// One probe: exactly one of `exec`, `http` and `tcp`, and how often and how strictly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// A command inside the container; exit code 0 is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// A request to the container; 200 to 399 is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// A connection to the container; made is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpProbe>,
    /// Failures in the first time of a container do not count.
    #[serde(default)]
    #[schema(value_type = String, example = "0s")]
    pub start_period: Span,
    /// Time between two probes.
    #[serde(default = "ten_seconds")]
    #[schema(value_type = String, example = "10s")]
    pub interval: Span,
    /// Longest wait for an answer.
    #[serde(default = "one_second")]
    #[schema(value_type = String, example = "1s")]
    pub timeout: Span,
    /// Failures in a row that make it fail.
    #[serde(default = "three")]
    #[schema(minimum = 1)]
    pub failures: u32,
    /// Successes in a row that make it good again.
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub successes: u32,
}

fn ten_seconds() -> Span {
    Span::secs(10)
}

fn one_second() -> Span {
    Span::secs(1)
}

fn three() -> u32 {
    3
}

fn one() -> u32 {
    1
}

/// A request that a probe makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// Port inside the container.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Path with its query.
    #[serde(default = "root")]
    pub path: String,
}

fn root() -> String {
    "/".to_owned()
}

/// A connection that a probe makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// Port inside the container.
    #[schema(minimum = 1)]
    pub port: u16,
}
