//! A document of a service file: exactly the body of `POST /v1/services`, and as strict. Pure.

use serde_json::{Value, json};

use super::node::{Content, Node};
use super::note::{Level, Notes, Place};
use super::{Options, PROJECT_LABEL, Wish};
use crate::model::{ServiceKey, ServiceSpec, Violation, explain};

/// Most wrong fields that are told of one document.
const PROBLEMS_MAX: usize = 50;

/// The wish of document `number` of a file; none where it does not even say a name.
pub(super) fn read(
    document: &Node,
    number: usize,
    options: &Options,
    notes: &mut Notes,
) -> Option<Wish> {
    let mut refuse = |place: &Place, field: &str, text: String| {
        let text = if number > 1 {
            format!("{text} (document {number})")
        } else {
            text
        };
        notes.add(Level::Refused, place, field, text);
    };
    let mut body = document.to_json();
    if !body.is_object() {
        let text =
            "a mapping is needed: a service file has name and image, a compose file has services";
        refuse(&document.place, "", text.to_owned());
        return None;
    }
    if let Some(namespace) = &options.namespace {
        match &body["namespace"] {
            Value::Null => body["namespace"] = json!(namespace),
            Value::String(given) if given == namespace => {}
            given => {
                let text =
                    format!("{given} is given, --namespace says {namespace:?}: leave one out");
                refuse(place_of(document, "namespace"), "namespace", text);
            }
        }
    }
    if let Some(project) = &options.project {
        let label = body["labels"][PROJECT_LABEL].clone();
        match label.as_str() {
            None if body["labels"].is_null() => body["labels"] = json!({ PROJECT_LABEL: project }),
            None if body["labels"].is_object() => body["labels"][PROJECT_LABEL] = json!(project),
            Some(given) if given == project => {}
            _ => {
                let field = format!("labels.{PROJECT_LABEL}");
                let text = format!("{label} is given, --project says {project:?}: leave one out");
                refuse(place_of(document, &field), &field, text);
            }
        }
    }
    let (spec, broken) = judge(&body);
    for violation in broken {
        let Violation {
            field,
            given,
            allowed,
        } = violation;
        let text = format!("{given:?} is given, allowed is {allowed}");
        refuse(place_of(document, &field), &field, text);
    }
    let text = |field: &str| body[field].as_str().map(ToOwned::to_owned);
    let key = match &spec {
        Some(spec) => spec.key(),
        None => ServiceKey {
            namespace: text("namespace")
                .unwrap_or_else(|| ServiceKey::DEFAULT_NAMESPACE.to_owned()),
            name: text("name")?,
        },
    };
    let project = body["labels"][PROJECT_LABEL]
        .as_str()
        .map(ToOwned::to_owned);
    let place = document.place.clone();
    Some(Wish {
        place,
        key,
        body,
        project,
        after: Vec::new(),
    })
}

/// The spec, and everything that is wrong with it.
fn judge(body: &Value) -> (Option<ServiceSpec>, Vec<Violation>) {
    match serde_path_to_error::deserialize::<_, ServiceSpec>(body) {
        Ok(spec) => {
            // How many replicas are allowed is a setting of the API.
            let broken = spec.violations(u32::MAX);
            (Some(spec), broken)
        }
        // Reading ends at the first wrong part: each is read alone, so that all are told.
        Err(error) => {
            let mut broken = parts(body);
            let first = explain::violation(&error, body);
            if !broken.iter().any(|other| other.field == first.field) {
                broken.insert(0, first);
            }
            broken.truncate(PROBLEMS_MAX);
            (None, broken)
        }
    }
}

/// What is wrong with fields, items of lists and entries of mappings, each read alone.
fn parts(body: &Value) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut read = |field: &str, part: Value, index: Option<usize>| {
        let mut alone = json!({"name": "a", "image": "a"});
        alone[field] = part;
        if let Err(error) = serde_path_to_error::deserialize::<_, ServiceSpec>(&alone) {
            let mut violation = explain::violation(&error, &alone);
            if let Some(index) = index {
                let rest = violation
                    .field
                    .strip_prefix(&format!("{field}[0]"))
                    .unwrap_or_default();
                violation.field = format!("{field}[{index}]{rest}");
            }
            broken.push(violation);
        }
    };
    let fields = body.as_object().into_iter().flatten();
    for (field, value) in fields {
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    read(field, json!([item]), Some(index));
                }
            }
            Value::Object(entries) => {
                for (key, value) in entries {
                    read(field, json!({ key: value }), None);
                }
            }
            value => read(field, value.clone(), None),
        }
    }
    // What is missing beside a part is missing in the whole, or it is not.
    broken.retain(|violation| violation.given != "nothing");
    broken
}

/// The line of a path, or of the last part of it that is there.
pub(super) fn place_of<'a>(document: &'a Node, field: &str) -> &'a Place {
    let mut place = &document.place;
    let mut node = document;
    let mut rest = field;
    while !rest.is_empty() {
        rest = rest.trim_start_matches(['.', '[', ']']);
        let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
        match &node.content {
            Content::List(items) => {
                let item = rest[..end]
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index));
                let Some(item) = item else { break };
                (place, node, rest) = (&item.place, item, &rest[end..]);
            }
            Content::Map(entries) => {
                // A key may hold dots itself: the longest that fits counts.
                let fits = |key: &str| {
                    let after = rest.strip_prefix(key);
                    after.is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                };
                let found = entries.iter().filter(|entry| fits(&entry.key));
                let Some(entry) = found.max_by_key(|entry| entry.key.len()) else {
                    break;
                };
                (place, node) = (&entry.place, &entry.value);
                rest = &rest[entry.key.len()..];
            }
            Content::Scalar { .. } => break,
        }
    }
    place
}
