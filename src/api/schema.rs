//! Parts of the `OpenAPI` document that no type of ours derives.

use std::borrow::Cow;
use std::collections::BTreeMap;

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::schema::{Schema, SchemaFormat, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::problem::{Kind, PROBLEM_JSON};
use crate::model::service::RegistryLogin;
use crate::model::{Port, ServiceSpec};

/// The body of a submit: a [`ServiceSpec`] with the count, which is no part of what is stored.
pub(super) struct ServiceRequest;

impl PartialSchema for ServiceRequest {
    fn schema() -> RefOr<Schema> {
        let mut schema = ServiceSpec::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            let count = |description: &str| {
                ObjectBuilder::new()
                    .schema_type(Type::Integer)
                    .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
                    .minimum(Some(1))
                    .default(Some(1.into()))
                    .description(Some(description))
                    .build()
            };
            let replicas = count("How many pods; the most is a setting, 10,000 by default");
            let properties = &mut object.properties;
            properties.insert("replicas".to_owned(), replicas.into());
            let replica = count("The same as `replicas`; only one of them may be given");
            properties.insert("replica".to_owned(), replica.into());
            properties.insert("ports".to_owned(), ports().into());
            // Left out of what is shown, and so of the document's type of that.
            let registry = Ref::builder()
                .ref_location_from_schema_name(RegistryLogin::name())
                .description(Some("Login of the image's registry; the node's own where none is said. Never shown back."));
            properties.insert("registry".to_owned(), registry.build().into());
            object.description = Some("What is wanted; only name and image are needed.".into());
            object.examples = examples().into();
        }
        schema
    }
}

/// A short wish, and one with most of what can be said.
fn examples() -> [serde_json::Value; 2] {
    let short = serde_json::json!({
        "name": "web", "image": "nginx:1.27", "replicas": 3,
        "env": {"MODE": "live"}, "resources": {"cpu": 0.5, "memory": "64Mi"},
        "ports": ["8080:80"], "priority": "normal",
    });
    let long = serde_json::json!({
        "name": "shop", "image": "registry.example:5000/team/shop:1.2", "pull": "always",
        "registry": {"username": "reader", "password": "…"},
        "args": ["serve"], "working_dir": "/srv", "user": "1000:1000",
        "resources": {"memory": "256Mi", "memory_swap": "512Mi", "pids": 200, "shm": "64Mi", "disk": "10Gi",
            "requests": {"cpu": 0.1, "memory": "128Mi", "pids": 50}, "devices": {"gpu": 1}},
        "ports": [80, "53:53/udp", {"container": 443, "host": 8443}],
        "mounts": [
            {"type": "volume", "source": "shop-data", "target": "/data"},
            {"type": "tmpfs", "target": "/tmp", "size": "16Mi"},
        ],
        "files": [
            {"path": "/etc/shop/config.toml", "content": "mode = \"live\"", "mode": "0644"},
            {"path": "/run-secrets/key", "base64": "c2VjcmV0", "mode": "0400", "uid": 1000, "secret": true},
        ],
        "health": {
            "liveness": {"http": {"port": 80, "path": "/alive"}, "interval": "10s"},
            "readiness": {"tcp": {"port": 80}, "start_period": "5s"},
        },
        "restart": {"policy": "on-failure", "max": 5}, "stop": {"signal": "SIGINT", "grace": "30s"},
        "capabilities": {"drop": ["NET_RAW"]}, "ulimits": {"nofile": {"soft": 1024, "hard": 4096}},
        "dns": ["9.9.9.9"], "extra_hosts": {"db": "10.0.0.7"},
        "placement": {"labels": {"zone": "eu-1"}},
    });
    [short, long]
}

impl ToSchema for ServiceRequest {
    fn name() -> Cow<'static, str> {
        "ServiceRequest".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Port::name().into_owned(), Port::schema()));
        Port::schemas(schemas);
        schemas.push((RegistryLogin::name().into_owned(), RegistryLogin::schema()));
        ServiceSpec::schemas(schemas);
    }
}

/// One message of a stream of server-sent events.
#[derive(serde::Serialize, ToSchema)]
#[allow(dead_code, reason = "describes streams for OpenAPI only")]
pub(super) struct StreamMessage {
    /// What kind of message it is.
    event: Option<String>,
    /// What it says, JSON.
    data: Option<String>,
    /// The position behind it.
    id: Option<String>,
    /// Milliseconds after which a client that lost the stream may come back.
    retry: Option<u64>,
}

/// Ports in each of the ways they may be written.
fn ports() -> utoipa::openapi::schema::Array {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(65535))
        .build();
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^([0-9]+:)?[0-9]+(/(tcp|udp))?$"))
        .build();
    let port = OneOfBuilder::new()
        .item(number)
        .item(text)
        .item(Ref::from_schema_name(Port::name()));
    ArrayBuilder::new()
        .items(port)
        .description(Some(
            "Ports: `80` or `\"80\"` (a free port of the node), `\"8080:80\"`, `\"53:53/udp\"`, or an object",
        ))
        .build()
}

/// Every type a problem can have.
pub(super) fn problem_types() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Kind::ALL.map(Kind::r#type)))
        .description(Some("Stable name of the kind of problem."))
}

/// Problems that any request of Redis can meet.
pub(super) struct Problems;
/// The problem of what is not there.
pub(super) struct AbsentProblem;
/// The problem of what stands in the way.
pub(super) struct ConflictProblem;
/// The problem of `If-Match`.
pub(super) struct PreconditionProblem;
/// Problems of requests with a body.
pub(super) struct BodyProblems;
/// The problem of an idempotency key.
pub(super) struct KeyProblem;
/// The problem of what would make Redis fuller.
pub(super) struct FullProblem;
/// Problems of a `WebSocket`.
pub(super) struct UpgradeProblems;

type Responses = BTreeMap<String, RefOr<Response>>;

fn problems<const N: usize>(of: [(&str, &str); N]) -> Responses {
    let problem = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = |description: &str| {
        ResponseBuilder::new()
            .description(description)
            .content(PROBLEM_JSON, problem.clone())
            .build()
    };
    of.map(|(status, description)| (status.to_owned(), response(description).into()))
        .into()
}

impl IntoResponses for Problems {
    fn responses() -> Responses {
        problems([
            ("400", "The request breaks a rule; `violations` names all"),
            ("500", "A mistake of kubeleet"),
            (
                "503",
                "Redis is away, failing over or full; `Retry-After` says when to try again",
            ),
        ])
    }
}

impl IntoResponses for AbsentProblem {
    fn responses() -> Responses {
        problems([("404", "It is not there")])
    }
}

impl IntoResponses for ConflictProblem {
    fn responses() -> Responses {
        problems([(
            "409",
            "Something else stands in the way; `detail` says what",
        )])
    }
}

impl IntoResponses for PreconditionProblem {
    fn responses() -> Responses {
        problems([("412", "The service has another revision than If-Match says")])
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> Responses {
        problems([
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            ("415", "The body is not JSON by its type"),
        ])
    }
}

impl IntoResponses for UpgradeProblems {
    fn responses() -> Responses {
        problems([
            ("403", "It comes from a page of another site"),
            ("426", "It is no `WebSocket`"),
        ])
    }
}

impl IntoResponses for FullProblem {
    fn responses() -> Responses {
        problems([(
            "507",
            "Redis has little memory left: nothing new is accepted",
        )])
    }
}

impl IntoResponses for KeyProblem {
    fn responses() -> Responses {
        problems([("422", "The idempotency key belongs to another request")])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_sound_wishes() {
        for example in examples() {
            let spec: ServiceSpec = serde_json::from_value(example).unwrap();
            assert_eq!(spec.violations(10), []);
        }
    }
}
