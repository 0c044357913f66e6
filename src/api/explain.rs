//! What is wrong with a body that does not parse: the field, what was given, what is allowed.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::problem::{Kind, Problem};
use crate::model::Violation;

/// The problem of a body that is JSON, but no object.
pub(super) fn not_an_object(given: &str) -> Problem {
    Problem::of_field(Violation::new("", given, "a JSON object"))
}

/// The problem of a text that is no JSON.
pub(super) fn malformed(error: &serde_json::Error) -> Problem {
    let what = without_position(&error.to_string());
    let (line, column) = (error.line(), error.column());
    let detail = format!("line {line}, column {column}: {what}");
    Problem::new(Kind::MalformedJson, detail)
}

/// The problem of a body that is no JSON, or not what it has to be.
pub(super) fn failure(
    error: &serde_path_to_error::Error<serde_json::Error>,
    body: &[u8],
) -> Problem {
    let inner = error.inner();
    if !inner.is_data() {
        return malformed(inner);
    }
    // A wrong field may stand before what is no JSON at all: that is told first.
    let whole: Value = match serde_json::from_slice(body) {
        Ok(whole) => whole,
        Err(error) => return malformed(&error),
    };
    let message = without_position(&inner.to_string());
    Problem::of_field(violation(error.path(), &message, &whole))
}

fn violation(path: &Path, message: &str, whole: &Value) -> Violation {
    let field = field_of(path);
    if let Some(name) = quoted_after(message, "missing field ") {
        let field = join(&parent_of(path, name), name);
        return Violation::new(field, "nothing", "a value: it is needed");
    }
    if let Some(name) = quoted_after(message, "unknown field ") {
        let field = join(&parent_of(path, name), name);
        return Violation::new(field, name, nearest(name, message));
    }
    if let Some(name) = quoted_after(message, "duplicate field ") {
        let field = join(&parent_of(path, name), name);
        return Violation::new(field, "several times", "once, under one of its names");
    }
    if let Some(given) = quoted_after(message, "unknown variant ") {
        let allowed = message.split_once(", expected ");
        let allowed = allowed.map_or(message, |(_, allowed)| allowed);
        return Violation::new(field, given, allowed.replace('`', ""));
    }
    let told = ["invalid type: ", "invalid value: ", "invalid length: "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        // The rule is ours and holds no such words; what was given may.
        .and_then(|rest| rest.rsplit_once(", expected "));
    match told {
        Some((given, allowed)) => {
            let given = given_at(path, whole).unwrap_or_else(|| given.to_owned());
            Violation::new(field, given, in_json(allowed))
        }
        None => {
            let given = given_at(path, whole).unwrap_or_default();
            Violation::new(field, given, message)
        }
    }
}

/// Without the position, which serde puts last.
fn without_position(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

fn quoted_after<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = message.strip_prefix(prefix)?.strip_prefix('`')?;
    // A name may hold a backtick itself, the words after it do not.
    let end = rest
        .find("`, expected ")
        .or_else(|| rest.find("`, there are "))
        .or_else(|| rest.rfind('`'))?;
    Some(&rest[..end])
}

fn segments(path: &Path) -> impl Iterator<Item = &Segment> {
    let known = |segment: &&Segment| !matches!(segment, Segment::Unknown);
    path.iter().take_while(known)
}

fn field_of(path: &Path) -> String {
    segments(path).fold(String::new(), |field, segment| match segment {
        Segment::Seq { index } => format!("{field}[{index}]"),
        Segment::Map { key } => join(&field, key),
        _ => field,
    })
}

/// The object around a field, whether or not the path leads into the field itself.
fn parent_of(path: &Path, name: &str) -> String {
    let field = field_of(path);
    match field.strip_suffix(name) {
        Some("") => String::new(),
        Some(parent) if parent.ends_with('.') => parent[..parent.len() - 1].to_owned(),
        _ => field,
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// What stands at the path, as JSON.
fn given_at(path: &Path, whole: &Value) -> Option<String> {
    let at = segments(path).try_fold(whole, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        _ => Some(value),
    })?;
    Some(match at {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// What serde expects, in words of JSON.
fn in_json(expected: &str) -> String {
    match expected {
        "a string" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object of names and texts".to_owned(),
        _ if expected.starts_with("struct ") => "a JSON object".to_owned(),
        other => other.to_owned(),
    }
}

/// Least share of a name that must agree for it to be suggested.
const SIMILAR_MIN: f64 = 0.5;

/// What is allowed in place of an unknown name: the nearest known one, then all. The known ones
/// stand between backticks after the unknown one.
fn nearest(name: &str, message: &str) -> String {
    let known: Vec<&str> = message
        .split_once(", expected ")
        .map_or("", |(_, known)| known)
        .split('`')
        .skip(1)
        .step_by(2)
        .collect();
    of_known(name, &known)
}

/// What is allowed in place of an unknown name.
pub(super) fn of_known(name: &str, known: &[&str]) -> String {
    let similar = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let best = known
        .iter()
        .map(|known| (similar(known), *known))
        .filter(|(similarity, _)| *similarity >= SIMILAR_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let all = known.join(", ");
    match best {
        Some((_, best)) => format!("{best}? Known are {all}"),
        None if known.is_empty() => "none".to_owned(),
        None => format!("one of {all}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::parse;
    use crate::model::ServiceSpec;

    fn check(body: &str, field: &str, given: &str, allowed: &str) {
        let problem = parse::<ServiceSpec>(body.as_bytes()).unwrap_err();
        let problem = serde_json::to_value(&problem).unwrap();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("type"), "/problems/invalid-request", "{problem}");
        assert_eq!(text("field"), field, "{body}: {problem}");
        assert_eq!(text("given"), given, "{body}: {problem}");
        assert!(text("allowed").contains(allowed), "{body}: {problem}");
    }

    #[test]
    fn the_field_what_was_given_and_what_is_allowed_are_named() {
        check(
            r#"{"name":"a"}"#,
            "image",
            "nothing",
            "a value: it is needed",
        );
        check(
            r#"{"image":"a"}"#,
            "name",
            "nothing",
            "a value: it is needed",
        );
        check(
            r#"{"name":"a","image":"b","replcas":3}"#,
            "replcas",
            "replcas",
            "replica",
        );
        check(
            r#"{"name":"a","image":"b","x`y, expected":3}"#,
            "x`y, expected",
            "x`y, expected",
            "one of name",
        );
        check(r#"{"name":7,"image":"b"}"#, "name", "7", "a text");
        check(r#"{"name":null,"image":"b"}"#, "name", "null", "a text");
        check(
            r#"{"name":"a","image":"b","replicas":-1}"#,
            "replicas",
            "-1",
            "a whole number from 1",
        );
        check(
            r#"{"name":"a","image":"b","replica":1,"replicas":1}"#,
            "replicas",
            "several times",
            "once",
        );
        check(
            r#"{"name":"a","image":"b","args":"x"}"#,
            "args",
            "x",
            "a list",
        );
        check(
            r#"{"name":"a","image":"b","args":["x",5]}"#,
            "args[1]",
            "5",
            "a text",
        );
        check(
            r#"{"name":"a","image":"b","env":{"K":1}}"#,
            "env.K",
            "1",
            "a text",
        );
        check(
            r#"{"name":"a","image":"b","resources":{"memry":1}}"#,
            "resources.memry",
            "memry",
            "memory",
        );
        check(
            r#"{"name":"a","image":"b","resources":{"memory":"1"}}"#,
            "resources.memory",
            "1",
            "bytes as a whole number",
        );
        check(
            r#"{"name":"a","image":"b","ports":[0]}"#,
            "ports[0]",
            "0",
            "a port such as",
        );
        check(
            r#"{"name":"a","image":"b","priority":"urgent"}"#,
            "priority",
            "urgent",
            "high, normal, low",
        );
        check("[]", "", "a list", "a JSON object");
        check("7", "", "7", "a JSON object");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for (body, detail) in [
            ("", "empty"),
            (" \n", "empty"),
            ("{", "line 1, column 1: EOF"),
            ("{\"name\":\n}", "line 2, column 1: expected value"),
            ("{\"name\":\"a\",\"image\":\"b\"} x", "trailing characters"),
            ("\u{0}", "line 1, column 1"),
        ] {
            let problem = parse::<ServiceSpec>(body.as_bytes()).unwrap_err();
            let problem = serde_json::to_value(&problem).unwrap();
            assert_eq!(problem["type"], "/problems/malformed-json", "{body}");
            let given = problem["detail"].as_str().unwrap_or_default();
            assert!(given.contains(detail), "{body}: {given}");
        }
        let deep = "[".repeat(10_000);
        let body = format!(r#"{{"name":"a","image":"b","args":{deep}"#);
        assert!(parse::<ServiceSpec>(body.as_bytes()).is_err());
        assert!(parse::<ServiceSpec>(b"{\"name\":\"\xff\xfe\",\"image\":\"b\"}").is_err());
    }
}
