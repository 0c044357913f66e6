//! Variables in texts: `$NAME`, `${NAME}`, defaults, demands and replacements, nested; `$$` is a
//! dollar sign. The rules are those of the Compose Specification. Pure.

use std::collections::BTreeMap;

use super::node::{At, Content, Node};
use super::note::{Level, Notes};

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// Deepest nesting of `${A:-${B:-...}}`.
const DEPTH_MAX: usize = 32;

/// A text with its variables filled in, and the names of those that have no value.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Filled {
    pub(super) text: String,
    pub(super) unset: Vec<String>,
}

/// Fills in the variables of a text.
///
/// # Errors
///
/// What is wrong with the text, or what a variable that is needed says.
pub(super) fn fill(text: &str, variables: &Variables) -> Result<Filled, String> {
    let mut filled = Filled::default();
    fill_into(&mut filled, text, variables, 0)?;
    Ok(filled)
}

fn fill_into(
    filled: &mut Filled,
    text: &str,
    variables: &Variables,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("variables are nested deeper than {DEPTH_MAX}"));
    }
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        filled.text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            filled.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or("after ${ the } is missing")?;
            expression(filled, &after[..end], variables, depth)?;
            rest = &after[end + 1..];
        } else {
            let name = name_of(rest);
            if name.is_empty() {
                let text = "a name or { has to follow $; write $$ for a dollar sign";
                return Err(text.to_owned());
            }
            value(filled, name, variables);
            rest = &rest[name.len()..];
        }
    }
    filled.text.push_str(rest);
    Ok(())
}

/// What stands between the braces.
fn expression(
    filled: &mut Filled,
    inside: &str,
    variables: &Variables,
    depth: usize,
) -> Result<(), String> {
    let name = name_of(inside);
    let operation = &inside[name.len()..];
    if name.is_empty() {
        return Err("after ${ a variable's name is needed".to_owned());
    }
    if operation.is_empty() {
        value(filled, name, variables);
        return Ok(());
    }
    let given = variables.get(name).map(String::as_str);
    let (counts, operation) = match operation.strip_prefix(':') {
        // With a colon, empty is as unset.
        Some(operation) => (given.filter(|value| !value.is_empty()), operation),
        None => (given, operation),
    };
    let mut letters = operation.chars();
    let (letter, word) = (letters.next(), letters.as_str());
    match (letter, counts) {
        (Some('-' | '?'), Some(value)) => filled.text.push_str(value),
        (Some('-'), None) | (Some('+'), Some(_)) => fill_into(filled, word, variables, depth + 1)?,
        (Some('+'), None) => {}
        (Some('?'), None) => {
            let mut told = Filled::default();
            fill_into(&mut told, word, variables, depth + 1)?;
            let why = match told.text.as_str() {
                "" => "it is needed",
                text => text,
            };
            return Err(format!("the variable {name} has no value: {why}"));
        }
        _ => {
            return Err(format!(
                "after ${{{name} only }}, :-, -, :?, ?, :+ or + may follow"
            ));
        }
    }
    Ok(())
}

fn value(filled: &mut Filled, name: &str, variables: &Variables) {
    match variables.get(name) {
        Some(value) => filled.text.push_str(value),
        None => filled.unset.push(name.to_owned()),
    }
}

fn name_of(text: &str) -> &str {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !word(c)).unwrap_or(text.len());
    let name = &text[..end];
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    name
}

/// Where the brace ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'$', b'$', ..] => at += 1,
            [b'$', b'{', ..] => {
                depth += 1;
                at += 1;
            }
            [b'}', ..] if depth == 0 => return Some(at),
            [b'}', ..] => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Fills in the variables of all values below; keys are left as they are, as are `x-` parts.
pub(super) fn fill_all(node: &mut Node, variables: &Variables, notes: &mut Notes) {
    let mut changes = Vec::new();
    collect(&At::root(node), variables, notes, &mut changes);
    let mut changes = changes.into_iter();
    replace(node, &mut changes);
}

/// The texts of all scalars below, in order: what they become, if variables are in them.
fn collect(at: &At, variables: &Variables, notes: &mut Notes, changes: &mut Vec<Option<String>>) {
    match &at.node.content {
        Content::Scalar { text, .. } if text.contains('$') => {
            let filled = fill(text, variables).unwrap_or_else(|problem| {
                notes.add(Level::Refused, at.place, &at.path, problem);
                Filled::default()
            });
            for name in filled.unset {
                let text = format!("the variable {name} has no value, nothing takes its place");
                at.warn(notes, text);
            }
            changes.push(Some(filled.text));
        }
        Content::Scalar { .. } => changes.push(None),
        Content::List(_) => {
            for item in at.list(notes) {
                collect(&item, variables, notes, changes);
            }
        }
        Content::Map(_) => {
            for entry in at.map(notes) {
                collect(&entry, variables, notes, changes);
            }
        }
    }
}

fn replace(node: &mut Node, changes: &mut impl Iterator<Item = Option<String>>) {
    match &mut node.content {
        Content::Scalar { text, plain } => {
            if let Some(Some(filled)) = changes.next() {
                *text = filled;
                // An empty value is an empty text, not nothing.
                *plain = false;
            }
        }
        Content::List(items) => items.iter_mut().for_each(|item| replace(item, changes)),
        Content::Map(entries) => entries
            .iter_mut()
            .filter(|entry| !entry.key.starts_with("x-"))
            .for_each(|entry| replace(&mut entry.value, changes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "a"), ("B", "b b"), ("E", ""), ("_N1", "n")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn check(text: &str, expected: &str, unset: &[&str]) {
        let filled = fill(text, &variables()).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (filled.text.as_str(), filled.unset.as_slice()),
            (
                expected,
                &*unset
                    .iter()
                    .map(|name| (*name).to_owned())
                    .collect::<Vec<_>>()
            ),
            "{text}"
        );
    }

    #[test]
    fn variables_are_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A-${B}", "a-b b"),
            ("$A/$_N1.x", "a/n.x"),
            ("$$A $${A} $$$A", "$A ${A} $a"),
            ("${X:-d} ${E:-d} ${A:-d}", "d d a"),
            ("${X-d} ${E-d} ${A-d}", "d  a"),
            ("${A:+r} ${E:+r} ${X:+r}", "r  "),
            ("${A+r} ${E+r} ${X+r}", "r r "),
            ("${A?no} ${E?no} ${A:?no}", "a  a"),
            ("${X:-${Y:-${A}}}", "a"),
            ("${X:-a:b-c?d}", "a:b-c?d"),
            ("${X:-$$}", "$"),
            ("${X:-{}}", "{}"),
            ("${A:+${B}-$A}", "b b-a"),
            ("ä$A", "äa"),
        ] {
            check(text, expected, &[]);
        }
        check("$X ${Y}", " ", &["X", "Y"]);
        check("${X:-$Y}", "", &["Y"]);
        // What is not used is not looked at.
        check("${A:-$Y}", "a", &[]);
        check("${A:-${Y:?never}}", "a", &[]);
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        for (text, part) in [
            ("${X:?say $A}", "X has no value: say a"),
            ("${X?}", "X has no value: it is needed"),
            ("${E:?x}", "E has no value: x"),
            ("${A", "} is missing"),
            ("${}", "name is needed"),
            ("${1}", "name is needed"),
            ("$", "$$ for a dollar sign"),
            ("$1", "$$ for a dollar sign"),
            ("${A/b/c}", "may follow"),
            ("${A:x}", "may follow"),
        ] {
            let error = fill(text, &variables()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = format!("{}x{}", "${X:-".repeat(100), "}".repeat(100));
        assert!(fill(&deep, &variables()).unwrap_err().contains("deeper"));
    }
}
