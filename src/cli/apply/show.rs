//! What became of wishes, as lines and as differences.

use serde_json::Value;

use super::super::CliError;
use super::super::list::full_name;
use super::super::output::{self, Format};
use super::{Applied, Change};
use crate::model::ServiceKey;

pub(super) fn key_of(service: &Value) -> ServiceKey {
    let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
    ServiceKey {
        namespace: text("namespace"),
        name: text("name"),
    }
}

/// All of them; `mood` stands before what becomes of each.
pub(super) fn all(all: &[Applied], format: Format, mood: &str) -> Result<(), CliError> {
    if format == Format::Json {
        return Ok(output::json(&all)?);
    }
    for applied in all {
        output::text(&line(applied, mood))?;
    }
    Ok(())
}

/// One line: the service, what becomes of it, and which fields change.
pub(super) fn line(applied: &Applied, mood: &str) -> String {
    let name = full_name(&applied.service);
    let fields: Vec<&str> = applied
        .changes
        .iter()
        .map(|change| change.field.as_str())
        .collect();
    match applied.outcome.as_str() {
        "unchanged" => format!("service {name} unchanged"),
        "changed" => format!("service {name} {mood}changed: {}", fields.join(", ")),
        outcome => format!("service {name} {mood}{outcome}"),
    }
}

/// A service with every field that differs, before and after.
pub(super) fn difference(applied: &Applied) -> String {
    let name = full_name(&applied.service);
    let mut lines = match applied.outcome.as_str() {
        "created" => vec![format!("service {name} is new")],
        "deleted" => vec![format!(
            "service {name} is not in the files, and would be deleted"
        )],
        _ => vec![format!("service {name} would change")],
    };
    let whole;
    let changes = if applied.outcome == "created" {
        whole = fields_of(&applied.service);
        &whole
    } else {
        &applied.changes
    };
    for Change { field, from, to } in changes {
        for (sign, value) in [('-', from), ('+', to)] {
            if !value.is_null() {
                lines.push(format!("{sign} {field}: {}", shown(value)));
            }
        }
    }
    lines.join("\n")
}

/// The fields of a new service, as changes from nothing.
fn fields_of(service: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    flatten("", &service["spec"], &mut changes);
    let named = ["name", "namespace"];
    changes.retain(|change| !named.contains(&change.field.as_str()));
    let to = service["replicas"].clone();
    changes.push(Change {
        field: "replicas".to_owned(),
        from: Value::Null,
        to,
    });
    changes
}

fn flatten(path: &str, value: &Value, changes: &mut Vec<Change>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&path, value, changes);
            }
        }
        value => changes.push(Change {
            field: path.to_owned(),
            from: Value::Null,
            to: value.clone(),
        }),
    }
}

/// A text as it is where that is clear, all else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.is_empty() && text.trim() == text && !text.contains(char::is_control) =>
        {
            text.clone()
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(value: Value) -> Applied {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_line_tells_what_changes() {
        let service = json!({"name": "web", "namespace": "default"});
        let changes = json!([{"field": "image", "from": "a", "to": "b"}, {"field": "env.A", "from": null, "to": "x\ny"}]);
        let changed =
            applied(json!({"outcome": "changed", "service": service, "changes": changes}));
        assert_eq!(line(&changed, ""), "service web changed: image, env.A");
        assert_eq!(
            line(&changed, "would be "),
            "service web would be changed: image, env.A"
        );
        assert_eq!(
            difference(&changed),
            "service web would change\n- image: a\n+ image: b\n+ env.A: \"x\\ny\""
        );
        let other = json!({"name": "web", "namespace": "shop"});
        let unchanged = applied(json!({"outcome": "unchanged", "service": other}));
        assert_eq!(line(&unchanged, "would be "), "service shop/web unchanged");
    }

    #[test]
    fn a_new_service_is_shown_with_all_its_fields() {
        let service = json!({"name": "web", "namespace": "default", "replicas": 2, "spec": {
            "name": "web", "namespace": "default", "image": "a", "env": {"K": "v"}, "args": ["x"]}});
        let created = applied(json!({"outcome": "created", "service": service, "changes": []}));
        assert_eq!(
            difference(&created),
            "service web is new\n+ args: [\"x\"]\n+ env.K: v\n+ image: a\n+ replicas: 2"
        );
    }
}
