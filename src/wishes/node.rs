//! A YAML value that knows its lines, and how what it holds is read.
//!
//! The path of a value is kept beside it while walking ([`At`]), so that every note names file,
//! line and field.

use serde_json::{Map, Number, Value};

use super::note::{Level, Notes, Place};
use crate::model::explain::similar;

/// A value and the line it begins on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) place: Place,
    /// What it does to the value of an earlier file.
    pub(super) merge: MergeTag,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// `plain` is false for what was quoted, which is always a text.
    Scalar { text: String, plain: bool },
    /// Values in order.
    List(Vec<Node>),
    /// Values by key, in the order of the file; each key once.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// The tags of the Compose Specification for what overrides an earlier file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum MergeTag {
    /// The usual rules.
    #[default]
    Merge,
    /// `!reset`: the earlier value goes.
    Reset,
    /// `!override`: this value takes its place as a whole.
    Override,
}

impl Node {
    pub(super) fn text(text: impl Into<String>, place: &Place) -> Node {
        Node::of(
            Content::Scalar {
                text: text.into(),
                plain: false,
            },
            place,
        )
    }

    pub(super) fn null(place: &Place) -> Node {
        let text = String::new();
        Node::of(Content::Scalar { text, plain: true }, place)
    }

    pub(super) fn of(content: Content, place: &Place) -> Node {
        Node {
            content,
            place: place.clone(),
            merge: MergeTag::Merge,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if is_null(text))
    }

    /// Null, false, empty: it asks for nothing.
    pub(super) fn asks_for_nothing(&self) -> bool {
        match &self.content {
            Content::Scalar { text, .. } => self.is_null() || text.is_empty() || text == "false",
            Content::List(items) => items.is_empty(),
            Content::Map(entries) => entries.is_empty(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// As JSON, by the core schema of YAML 1.2.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain } => scalar(text, *plain),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => {
                let json = |entry: &Entry| (entry.key.clone(), entry.value.to_json());
                Value::Object(entries.iter().map(json).collect::<Map<_, _>>())
            }
        }
    }

    /// What kind of value it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Scalar { .. } if self.is_null() => "nothing",
            Content::Scalar { .. } => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn scalar(text: &str, plain: bool) -> Value {
    let string = || Value::String(text.to_owned());
    if !plain {
        return string();
    }
    match text {
        _ if is_null(text) => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(string, Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        u64::from_str_radix(digits, radix).ok().map(Number::from)
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number);
    }
    let known = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    if !text.chars().all(known) {
        return None;
    }
    let whole = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = whole.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = whole.parse::<i64>() {
        return Some(number.into());
    }
    Number::from_f64(whole.parse().ok()?)
}

/// A value, the path to it, and the line to point to: that of its key.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub(super) node: &'a Node,
    pub(super) place: &'a Place,
    pub(super) path: String,
    /// Its key in the mapping around it; empty elsewhere.
    pub(super) key: &'a str,
}

impl<'a> At<'a> {
    pub(super) fn root(node: &'a Node) -> At<'a> {
        At {
            node,
            place: &node.place,
            path: String::new(),
            key: "",
        }
    }

    pub(super) fn entry(&self, entry: &'a Entry) -> At<'a> {
        let path = match self.path.as_str() {
            "" => entry.key.clone(),
            path => format!("{path}.{}", entry.key),
        };
        At {
            node: &entry.value,
            place: &entry.place,
            path,
            key: &entry.key,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        self.node.get(key).map(|entry| self.entry(entry))
    }

    /// As [`At::get`], where there is more than nothing.
    pub(super) fn some(&self, key: &str) -> Option<At<'a>> {
        self.get(key).filter(|at| !at.node.is_null())
    }

    pub(super) fn warn(&self, notes: &mut Notes, text: impl Into<String>) {
        notes.add(Level::Warning, self.place, &self.path, text);
    }

    pub(super) fn refuse(&self, notes: &mut Notes, text: impl Into<String>) {
        notes.add(Level::Refused, self.place, &self.path, text);
    }

    /// The entries of a mapping; nothing counts as an empty one.
    pub(super) fn map(&self, notes: &mut Notes) -> Vec<At<'a>> {
        match &self.node.content {
            Content::Map(entries) => entries
                .iter()
                .filter(|entry| !entry.key.starts_with("x-"))
                .map(|entry| self.entry(entry))
                .collect(),
            _ if self.node.is_null() => Vec::new(),
            _ => self.wrong(notes, "a mapping is needed"),
        }
    }

    /// The items of a list; nothing counts as an empty one.
    pub(super) fn list(&self, notes: &mut Notes) -> Vec<At<'a>> {
        match &self.node.content {
            Content::List(items) => self.numbered(items),
            _ if self.node.is_null() => Vec::new(),
            _ => self.wrong(notes, "a list is needed"),
        }
    }

    /// The items of a list; a single value counts as a list of one.
    pub(super) fn one_or_more(&self, notes: &mut Notes) -> Vec<At<'a>> {
        match &self.node.content {
            Content::Scalar { .. } if !self.node.is_null() => vec![self.clone()],
            _ => self.list(notes),
        }
    }

    /// How many items a list has.
    pub(super) fn count(&self) -> usize {
        match &self.node.content {
            Content::List(items) => items.len(),
            _ => 0,
        }
    }

    fn numbered(&self, items: &'a [Node]) -> Vec<At<'a>> {
        let at = |(index, node): (usize, &'a Node)| At {
            node,
            place: &node.place,
            path: format!("{}[{index}]", self.path),
            key: "",
        };
        items.iter().enumerate().map(at).collect()
    }

    fn wrong<T: Default>(&self, notes: &mut Notes, needed: &str) -> T {
        self.refuse(notes, format!("{needed}, {} is given", self.node.kind()));
        T::default()
    }

    /// The text of a single value, which may be empty.
    pub(super) fn text(&self, notes: &mut Notes) -> Option<&'a str> {
        match &self.node.content {
            Content::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => self.wrong(notes, "a text is needed"),
        }
    }

    /// What `parse` makes of the text; it is refused with what is allowed where that is nothing.
    pub(super) fn parsed<T>(
        &self,
        notes: &mut Notes,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(notes)?;
        let parsed = parse(text);
        if parsed.is_none() {
            self.refuse(notes, format!("{text:?} is given, allowed is {allowed}"));
        }
        parsed
    }

    pub(super) fn bool(&self, notes: &mut Notes) -> bool {
        let parse = |text: &str| match text {
            "true" | "True" | "TRUE" | "yes" | "on" => Some(true),
            "false" | "False" | "FALSE" | "no" | "off" | "" => Some(false),
            _ => None,
        };
        !self.node.is_null() && self.parsed(notes, "true or false", parse).unwrap_or(false)
    }

    pub(super) fn number<T: std::str::FromStr>(&self, notes: &mut Notes) -> Option<T> {
        self.parsed(notes, "a whole number", |text| text.parse().ok())
    }

    /// Refuses keys of a mapping other than these; the nearest known one is named.
    pub(super) fn known(&self, notes: &mut Notes, known: &[&str]) {
        for at in self.map(notes) {
            if !known.contains(&at.key) {
                at.refuse(notes, unknown(at.key, known));
            }
        }
    }
}

/// What is said of an unknown key.
pub(super) fn unknown(key: &str, known: &[&str]) -> String {
    match similar(key, known) {
        Some(name) => format!("there is no such key, meant is perhaps {name}"),
        None => "there is no such key".to_owned(),
    }
}
