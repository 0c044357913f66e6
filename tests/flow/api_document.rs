//! The `OpenAPI` document names everything that is served.

use serde_json::Value;

use crate::api::TestApi;

#[tokio::test]
async fn the_document_is_whole() {
    let api = TestApi::start("document").await;
    let answer = api.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let document = &answer.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for (path, methods) in [
        ("/service", vec!["post"]),
        ("/v1/services", vec!["get", "post"]),
        ("/v1/services/{name}", vec!["delete", "get", "put"]),
        ("/v1/services/{name}/scale", vec!["patch", "post"]),
        ("/v1/services/{name}/revisions", vec!["get"]),
        ("/v1/pods", vec!["get"]),
        ("/v1/pods/{id}", vec!["delete", "get"]),
        ("/v1/pods/{id}/explain", vec!["get"]),
        ("/v1/decisions", vec!["get"]),
        ("/v1/pods/{id}/logs", vec!["get"]),
        ("/v1/pods/{id}/exec", vec!["get"]),
        ("/v1/pods/{id}/stats", vec!["get"]),
        ("/v1/services/{name}/logs", vec!["get"]),
        ("/v1/stats", vec!["get"]),
        ("/v1/nodes", vec!["get"]),
        ("/v1/nodes/{name}", vec!["delete", "get", "patch"]),
        ("/v1/nodes/{name}/cordon", vec!["post"]),
        ("/v1/nodes/{name}/uncordon", vec!["post"]),
        ("/v1/nodes/{name}/drain", vec!["post"]),
        ("/v1/queue", vec!["get"]),
        ("/v1/dead", vec!["get"]),
        ("/v1/dead/{id}", vec!["delete", "get"]),
        ("/v1/dead/{id}/requeue", vec!["post"]),
        ("/v1/events", vec!["get"]),
        ("/v1/watch", vec!["get"]),
        ("/healthz", vec!["get"]),
        ("/readyz", vec!["get"]),
        ("/openapi.json", vec!["get"]),
    ] {
        let mut known: Vec<&String> = document["paths"][path]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        known.sort();
        assert_eq!(known, methods, "{path}");
    }
    assert_eq!(document["paths"].as_object().unwrap().len(), 28);
    // Every reference leads somewhere.
    let mut references = Vec::new();
    collect(document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    // The body of a submit has every field that is read, and no other.
    let request = &document["components"]["schemas"]["ServiceRequest"];
    let mut fields: Vec<&String> = request["properties"].as_object().unwrap().keys().collect();
    fields.sort();
    let refused = api
        .post("/service", r#"{"name":"a","image":"b","zzzzzzzzzzzz":1}"#)
        .await;
    let allowed = refused.body["allowed"].as_str().unwrap();
    let mut known: Vec<&str> = allowed
        .strip_prefix("one of ")
        .unwrap()
        .split(", ")
        .collect();
    // What only the API itself writes is no field of a request, and refused in one.
    known.retain(|field| *field != "signature");
    known.sort_unstable();
    assert_eq!(fields, known);
    let signed = api.post("/service", r#"{"name":"a","image":"b","signature":"x"}"#);
    let signed = signed.await;
    signed.assert_problem(400, "invalid-request");
    assert_eq!(signed.body["field"], "signature");
    for path in ["/service", "/v1/services"] {
        let post = &document["paths"][path]["post"];
        assert_eq!(
            post["requestBody"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/ServiceRequest"
        );
        for status in ["200", "201", "400", "409", "413", "415", "422", "503"] {
            assert!(post["responses"][status].is_object(), "{path} {status}");
        }
    }
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(reference) if name == "$ref" => references.push(reference),
                    value => collect(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        _ => {}
    }
}
