//! What is wrong with a body that does not parse: the field, what was given, what is allowed.

use serde_json::Value;

use super::problem::{Kind, Problem};
use crate::model::Violation;
use crate::model::explain::{violation, without_position};

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
    Problem::of_field(violation(error, &whole))
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
