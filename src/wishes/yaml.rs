//! Text becomes values that know their lines: YAML 1.2 with anchors, aliases and merge keys, and
//! with it JSON.
//!
//! Built on the parser's events, because no value type of the crates at hand keeps lines through
//! aliases and merge keys. Must never build more than [`VALUES_MAX`] values: aliases of aliases
//! grow without bound.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::node::{Content, Entry, MergeTag, Node};
use super::note::{Level, Note, Place};

/// Most values of one file, with all aliases written out.
const VALUES_MAX: usize = 100_000;
/// Deepest nesting of values.
const DEPTH_MAX: usize = 64;
/// The key whose value is merged into the mapping around it.
const MERGE_KEY: &str = "<<";

/// The documents of a file that hold anything.
pub(super) fn documents(file: &Arc<str>, text: &str) -> Result<Vec<Node>, Note> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let joined;
    let text = if text.trim_start().starts_with(['{', '[']) {
        joined = join_pairs(text);
        &joined
    } else {
        text
    };
    let mut composer = Composer {
        text,
        parser: Parser::new_from_str(text),
        file: file.clone(),
        anchors: HashMap::new(),
        values: 0,
        depth: 0,
    };
    let mut documents = Vec::new();
    loop {
        let (event, span) = composer.next()?;
        match event {
            Event::StreamEnd => return Ok(documents),
            Event::DocumentStart(_) => {
                // Anchors are those of one document.
                composer.anchors.clear();
                let document = composer.value()?;
                if !document.is_null() {
                    documents.push(document);
                }
            }
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            _ => return Err(composer.refuse(span, "there is more than one value")),
        }
    }
}

/// Writes out what JSON escapes as two halves, such as `\ud83d\ude00`: YAML does not know halves.
fn join_pairs(text: &str) -> String {
    let half = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        joined.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = half(rest).zip(rest.get(6..).and_then(half));
        let letter = pair.and_then(|(high, low)| {
            let high = high.checked_sub(0xd800).filter(|high| *high < 0x400)?;
            let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            char::from_u32(0x10000 + high * 0x400 + low)
        });
        let length = match letter {
            Some(letter) => {
                joined.push(letter);
                12
            }
            // A backslash and what it escapes, which may be a backslash.
            None => {
                let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
                joined.push_str(&rest[..1 + escaped]);
                1 + escaped
            }
        };
        rest = &rest[length..];
    }
    joined.push_str(rest);
    joined
}

struct Composer<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    file: Arc<str>,
    anchors: HashMap<usize, Node>,
    values: usize,
    depth: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Note> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let line = error.marker().line();
                // The parser points to the value before the line that is indented by a tab.
                if let Some(line) = self.tab_after(line) {
                    let text = "a tab cannot indent a line of YAML: use spaces";
                    return Err(self.note(line, text));
                }
                let column = error.marker().col() + 1;
                let text = format!("this is no YAML: {}, at column {column}", error.info());
                Err(self.note(line, text))
            }
            None => Err(self.note(1, "the file ends too early")),
        }
    }

    fn value(&mut self) -> Result<Node, Note> {
        let event = self.next()?;
        self.value_of(event)
    }

    fn value_of(&mut self, (event, span): (Event<'a>, Span)) -> Result<Node, Note> {
        self.count(1, span)?;
        let place = self.place(span);
        let (content, anchor, tag) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let text = text.into_owned();
                (Content::Scalar { text, plain }, anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => {
                self.enter(span)?;
                let items = self.items()?;
                (Content::List(items), anchor, tag)
            }
            Event::MappingStart(anchor, tag) => {
                self.enter(span)?;
                let entries = self.entries()?;
                (Content::Map(entries), anchor, tag)
            }
            _ => return Err(self.refuse(span, "a value is needed here")),
        };
        let mut node = Node::of(content, &place);
        if let Some(tag) = tag {
            self.apply(&tag, &mut node, span)?;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn enter(&mut self, span: Span) -> Result<(), Note> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let text = format!("values are nested deeper than {DEPTH_MAX}");
            return Err(self.refuse(span, text));
        }
        Ok(())
    }

    fn items(&mut self) -> Result<Vec<Node>, Note> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                self.depth -= 1;
                return Ok(items);
            }
            items.push(self.value_of((event, span))?);
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Note> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                self.depth -= 1;
                // What stands in the mapping itself goes before what is merged into it.
                merged.retain(|entry| !lines.contains_key(&entry.key));
                entries.extend(merged);
                return Ok(entries);
            }
            let key = self.value_of((event, span))?;
            let Content::Scalar { text: key, plain } = key.content else {
                return Err(self.refuse(span, "a key has to be a single value"));
            };
            let value = self.value()?;
            if plain && key == MERGE_KEY {
                self.merge_key(value, &mut merged, span)?;
                continue;
            }
            let place = self.place(span);
            if let Some(first) = lines.insert(key.clone(), place.line) {
                let text = format!("the key {key:?} stands on line {first} too");
                return Err(self.refuse(span, text));
            }
            entries.push(Entry { key, place, value });
        }
    }

    /// A mapping, or several of which the first that has a key gives its value.
    fn merge_key(&self, value: Node, merged: &mut Vec<Entry>, span: Span) -> Result<(), Note> {
        let sources = match value.content {
            Content::List(items) => items,
            _ => vec![value],
        };
        for source in sources {
            let Content::Map(entries) = source.content else {
                return Err(self.refuse(span, "what << merges has to be a mapping"));
            };
            for entry in entries {
                if !merged.iter().any(|earlier| earlier.key == entry.key) {
                    merged.push(entry);
                }
            }
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Note> {
        // An anchor is known once its value is complete.
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self.refuse(span, "an alias cannot stand within its own anchor"));
        };
        self.count(size(&node), span)?;
        Ok(node)
    }

    fn count(&mut self, values: usize, span: Span) -> Result<(), Note> {
        self.values += values;
        if self.values > VALUES_MAX {
            let text = format!("the file has more than {VALUES_MAX} values, aliases written out");
            return Err(self.refuse(span, text));
        }
        Ok(())
    }

    fn apply(&self, tag: &Tag, node: &mut Node, span: Span) -> Result<(), Note> {
        let suffix = tag.suffix.as_str();
        if tag.is_yaml_core_schema() {
            match (&mut node.content, suffix) {
                (Content::Scalar { plain, .. }, "str") => *plain = false,
                (_, "null" | "bool" | "int" | "float" | "seq" | "map") => {}
                _ => return Err(self.refuse(span, format!("the tag {tag} is not known here"))),
            }
            return Ok(());
        }
        node.merge = match (tag.handle.as_str(), suffix) {
            ("!", "reset") => MergeTag::Reset,
            ("!", "override") => MergeTag::Override,
            _ => return Err(self.refuse(span, format!("the tag {tag} is not known here"))),
        };
        Ok(())
    }

    /// This line or the next, if a tab indents it.
    fn tab_after(&self, line: usize) -> Option<usize> {
        let lines = self.text.lines().enumerate().skip(line.saturating_sub(1));
        let blank = |line: &str| line.len() - line.trim_start().len();
        let mut lines = lines
            .take(2)
            .map(|(index, line)| (index + 1, &line[..blank(line)]));
        lines
            .find(|(_, blank)| blank.contains('\t'))
            .map(|(line, _)| line)
    }

    fn place(&self, span: Span) -> Place {
        Place {
            file: self.file.clone(),
            line: span.start.line(),
        }
    }

    fn refuse(&self, span: Span, text: impl Into<String>) -> Note {
        self.note(span.start.line(), text)
    }

    fn note(&self, line: usize, text: impl Into<String>) -> Note {
        Note {
            place: Place {
                file: self.file.clone(),
                line: line.max(1),
            },
            field: String::new(),
            level: Level::Unreadable,
            text: text.into(),
        }
    }
}

fn size(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Content::Map(entries) => {
            let sizes = entries.iter().map(|entry| 1 + size(&entry.value));
            1 + sizes.sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests;
