//! What is wrong with data that is no spec: the field, what was given, what is allowed. The same
//! words for the body of a request and for a file.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Violation;

/// The broken rule behind an error of serde; `whole` is what was read.
pub fn violation(
    error: &serde_path_to_error::Error<serde_json::Error>,
    whole: &Value,
) -> Violation {
    let path = error.path();
    let message = without_position(&error.inner().to_string());
    let message = message.as_str();
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

/// Longest name that is compared with known ones, which takes its length times theirs.
pub(crate) const NAME_COMPARED_MAX: usize = 100;
/// Least share of a name that must agree for it to be suggested.
const SIMILAR_MIN: f64 = 0.5;

/// What is allowed in place of an unknown name: the nearest known one, then all. The known ones
/// stand between backticks after the unknown one.
fn nearest(name: &str, message: &str) -> String {
    let known: Vec<&str> = message
        .rsplit_once(", expected ") // the name itself may hold these words
        .map_or("", |(_, known)| known)
        .split('`')
        .skip(1)
        .step_by(2)
        .collect();
    of_known(name, &known)
}

/// What is allowed in place of an unknown name.
pub fn of_known(name: &str, known: &[&str]) -> String {
    let all = known.join(", ");
    match similar(name, known) {
        Some(best) => format!("{best}? Known are {all}"),
        None if known.is_empty() => "none".to_owned(),
        None => format!("one of {all}"),
    }
}

/// The known name that is most like `name`, if one is like it at all.
pub fn similar<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > NAME_COMPARED_MAX {
        return None;
    }
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    known
        .iter()
        .map(|known| (likeness(known), *known))
        .filter(|(likeness, _)| *likeness >= SIMILAR_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, best)| best)
}

/// An error's text without the position, which serde puts last.
pub fn without_position(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}
