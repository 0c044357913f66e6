//! What parameters may be, in words of JSON Schema: the document says what the handlers check.
//!
//! Kept by the parameters' names, so that an endpoint cannot say one thing and another the next.

use serde_json::{Value, json};

const NAME: &str = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
const NODE: &str = "[A-Za-z0-9][A-Za-z0-9._-]{0,252}";
const POD: &str = "[A-Za-z0-9][A-Za-z0-9_-]{0,79}";
const ENTRY: &str = "[0-9]{1,19}-[0-9]{1,19}";
const KINDS: &str = "(services|pods|nodes)";

/// The pattern of a parameter that is a text; `path` tells apart what has the same name.
fn pattern(path: &str, place: &str, name: &str) -> Option<String> {
    let is_node = path.starts_with("/v1/nodes");
    Some(match (place, name) {
        ("path", "name") if is_node => NODE.to_owned(),
        ("path", "name") | ("query", "namespace") => NAME.to_owned(),
        ("path", "id") if path.starts_with("/v1/dead") => ENTRY.to_owned(),
        ("path", "id") | ("query", "pod") => POD.to_owned(),
        ("query", "service") => format!("({NAME}/)?{NAME}"),
        ("query", "node") => NODE.to_owned(),
        ("query", "cursor") if is_node => NODE.to_owned(),
        ("query", "cursor") if path == "/v1/services" => format!("{NAME}/{NAME}"),
        ("query", "cursor") if path == "/v1/dead" => ENTRY.to_owned(),
        ("query", "cursor") => format!("({NAME}/{NAME})?~[0-9]{{1,9}}~({POD})?"),
        ("query", "kind") if path == "/v1/watch" => format!("{KINDS}(,{KINDS})*"),
        ("query", "kind") => "[a-z-]{1,40}".to_owned(),
        ("query", "label") => "[^=]+=.*".to_owned(),
        ("query", "after" | "until") => format!("{ENTRY}(\\.[0-9]{{1,9}})?"),
        // An empty one is none.
        ("header", "Last-Event-ID") => format!("({ENTRY}(\\.[0-9]{{1,9}})?)?"),
        ("header", "If-Match") => "[0-9]{1,19}|\"[0-9]{1,19}\"".to_owned(),
        ("header", "Idempotency-Key") => "[!-~]{1,255}".to_owned(),
        _ => return None,
    })
}

/// Adds to a document what its parameters may be.
pub(super) fn say(document: &mut Value) {
    let Some(Value::Object(paths)) = document.get_mut("paths") else {
        return;
    };
    for (path, methods) in paths {
        for operation in methods
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
        {
            let parameters = operation
                .get_mut("parameters")
                .and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                say_of(path, parameter);
            }
        }
    }
}

fn say_of(path: &str, parameter: &mut Value) {
    let text =
        |parameter: &Value, field: &str| parameter[field].as_str().unwrap_or_default().to_owned();
    let (place, name) = (text(parameter, "in"), text(parameter, "name"));
    // A parameter that need not be given is left out, and not `null`.
    if let Some(kind) = parameter["schema"]["type"].as_array() {
        let kind = kind.iter().find(|kind| *kind != "null").cloned();
        parameter["schema"]["type"] = kind.unwrap_or_default();
    }
    if let Some(choices) = parameter["schema"]["oneOf"].as_array() {
        let choice = choices
            .iter()
            .find(|choice| choice["type"] != "null")
            .cloned();
        parameter["schema"] = choice.unwrap_or_default();
    }
    if let Some(pattern) = pattern(path, &place, &name) {
        parameter["schema"]["pattern"] = json!(format!("^({pattern})$"));
    }
    match name.as_str() {
        "since" if path == "/v1/decisions" => {}
        // A duration or a time: a pattern of both would tell nobody more than their form.
        "since" => parameter["schema"]["examples"] = json!(["10m", "2026-11-20T10:00:00Z"]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_a_rule() {
        let document: Value = serde_json::from_str(super::super::openapi::document_json()).unwrap();
        let mut without = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for operation in methods.as_object().unwrap().values() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let schema = &parameter["schema"];
                    assert!(!schema["type"].is_array(), "{path}: {parameter}");
                    if schema["type"] == "string" && schema.get("pattern").is_none() {
                        without.push(parameter["name"].as_str().unwrap().to_owned());
                    }
                }
            }
        }
        without.dedup();
        assert_eq!(without, ["since"; 1]);
    }
}
