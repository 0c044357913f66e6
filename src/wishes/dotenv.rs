//! Files of variables, `.env` and the like: `NAME=value` lines with quotes, comments and variables.
//! The rules are those of the Compose Specification. Pure.

use std::sync::Arc;

use super::note::{Level, Note, Place};
use super::variables::{Variables, fill};

/// A file's variables in its order; none stands for a name without a value.
pub(super) type Lines = Vec<(String, Option<String>)>;

/// The variables of a file. `known` are those that others may refer to; earlier lines are too.
pub(super) fn parse(file: &Arc<str>, text: &str, known: &Variables) -> Result<Lines, Note> {
    let mut known = known.clone();
    let mut lines = Lines::new();
    let mut reader = Reader {
        file,
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 1,
    };
    while let Some(name) = reader.name()? {
        let value = match reader.value()? {
            None => None,
            Some((text, true)) => Some(text),
            Some((text, false)) => {
                let filled = fill(&text, &known).map_err(|problem| reader.refuse(problem))?;
                Some(filled.text)
            }
        };
        // A variable of the environment goes before one of the file, wherever it is referred to.
        if let Some(value) = &value {
            known.entry(name.clone()).or_insert_with(|| value.clone());
        }
        lines.push((name, value));
    }
    Ok(lines)
}

/// The variables of a file whose values are taken as they are.
pub(super) fn parse_raw(file: &Arc<str>, text: &str) -> Result<Lines, Note> {
    let mut lines = Lines::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.to_owned())),
            None => (line.trim_end(), None),
        };
        let line = index + 1;
        if !is_name(name) {
            return Err(refuse(file, line, NAME_NEEDED));
        }
        lines.push((name.to_owned(), value));
    }
    Ok(lines)
}

const NAME_NEEDED: &str = "a line has to be NAME=value";

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=' || c == '"')
}

fn refuse(file: &Arc<str>, line: usize, text: impl Into<String>) -> Note {
    let file = file.clone();
    Note {
        place: Place { file, line },
        field: String::new(),
        level: Level::Unreadable,
        text: text.into(),
    }
}

struct Reader<'a> {
    file: &'a Arc<str>,
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
        taken
    }

    fn line_end(&self) -> usize {
        self.rest.find('\n').unwrap_or(self.rest.len())
    }

    fn refuse(&self, text: impl Into<String>) -> Note {
        refuse(self.file, self.line, text)
    }

    /// The next name; what follows it is left.
    fn name(&mut self) -> Result<Option<String>, Note> {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.take(blank);
            if !self.rest.starts_with('#') {
                break;
            }
            self.take(self.line_end());
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.take("export".len() + after.len() - after.trim_start_matches([' ', '\t']).len());
        }
        let end = self.rest.find(['=', '\n']).unwrap_or(self.rest.len());
        let name = self.rest[..end].trim();
        let name = name.split(" #").next().unwrap_or_default().trim_end();
        if !is_name(name) {
            return Err(self.refuse(NAME_NEEDED));
        }
        let name = name.to_owned();
        self.take(end);
        Ok(Some(name))
    }

    /// The value after a name; true where it is to be taken as it is.
    fn value(&mut self) -> Result<Option<(String, bool)>, Note> {
        if !self.rest.starts_with('=') {
            return Ok(None);
        }
        self.take(1);
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.take(blank);
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => self.quoted(quote).map(Some),
            _ => {
                let line = self.take(self.line_end()).trim_end_matches('\r');
                let comment = line.find([' ', '\t']).into_iter().flat_map(|_| {
                    let starts = line.match_indices('#').map(|(start, _)| start);
                    starts.filter(|start| line[..*start].ends_with([' ', '\t']))
                });
                let end = if line.starts_with('#') {
                    Some(0)
                } else {
                    comment.min()
                };
                let value = &line[..end.unwrap_or(line.len())];
                Ok(Some((value.trim_end().to_owned(), false)))
            }
        }
    }

    /// A value between quotes, which may go over several lines. Only within double quotes have
    /// backslashes a meaning, besides that of the quote itself.
    fn quoted(&mut self, quote: char) -> Result<(String, bool), Note> {
        let start = self.line;
        self.take(1);
        let mut value = String::new();
        let mut letters = self.rest.char_indices();
        let end = loop {
            let Some((at, letter)) = letters.next() else {
                return Err(refuse(
                    self.file,
                    start,
                    format!("the closing {quote} is missing"),
                ));
            };
            if letter == quote {
                break at + 1;
            }
            if letter != '\\' {
                value.push(letter);
                continue;
            }
            let escaped = letters.next().map(|(_, escaped)| escaped);
            match (quote, escaped) {
                (_, Some(escaped)) if escaped == quote => value.push(quote),
                ('"', Some('n')) => value.push('\n'),
                ('"', Some('r')) => value.push('\r'),
                ('"', Some('t')) => value.push('\t'),
                ('"', Some('\\')) => value.push('\\'),
                // A dollar sign that is none of a variable.
                ('"', Some('$')) => value.push_str("$$"),
                (_, escaped) => {
                    value.push('\\');
                    value.extend(escaped);
                }
            }
        };
        self.take(end);
        let after = self.take(self.line_end()).trim();
        if !after.is_empty() && !after.starts_with('#') {
            let text = "after the closing quote only a comment may follow";
            return Err(refuse(self.file, start, text));
        }
        Ok((value, quote == '\''))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Variables {
        [
            ("HOST".to_owned(), "db".to_owned()),
            ("A".to_owned(), "env".to_owned()),
        ]
        .into()
    }

    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let lines = parse(&".env".into(), text, &known());
        let lines = lines.unwrap_or_else(|note| panic!("{text:?}: {note}"));
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        assert_eq!(lines, expected, "{text:?}");
    }

    #[test]
    fn lines_are_read_as_the_specification_says() {
        check("", &[]);
        check(
            "# c\n\n  X=1\r\nY = 2 \n",
            &[("X", Some("1")), ("Y", Some("2"))],
        );
        check(
            "X=\nY\nexport Z=3\nexported=4\n",
            &[
                ("X", Some("")),
                ("Y", None),
                ("Z", Some("3")),
                ("exported", Some("4")),
            ],
        );
        check(
            "X=VAL # c\nY=VAL# no\nZ=#x\nU=a#b #c",
            &[
                ("X", Some("VAL")),
                ("Y", Some("VAL# no")),
                ("Z", Some("")),
                ("U", Some("a#b")),
            ],
        );
        check(
            "X=\"VAL # no\" # c\nY='$HOST'\nZ=\"$HOST\"\n",
            &[
                ("X", Some("VAL # no")),
                ("Y", Some("$HOST")),
                ("Z", Some("db")),
            ],
        );
        check(
            r#"X='Let\'s go!'
Y="{\"a\": \"b\"}"
Z="a\tb\\\n"
U='a\tb'
V=a\tb
W="\$HOST""#,
            &[
                ("X", Some("Let's go!")),
                ("Y", Some(r#"{"a": "b"}"#)),
                ("Z", Some("a\tb\\\n")),
                ("U", Some(r"a\tb")),
                ("V", Some(r"a\tb")),
                ("W", Some("$HOST")),
            ],
        );
        check(
            "X=\"one\ntwo\"\nY=${X}-${HOST:-no}-${N:-no}\n",
            &[("X", Some("one\ntwo")), ("Y", Some("one\ntwo-db-no"))],
        );
        // The environment goes before the file.
        check("A=file\nB=$A\n", &[("A", Some("file")), ("B", Some("env"))]);
    }

    #[test]
    fn raw_values_are_taken_as_they_are() {
        let lines = parse_raw(&"f".into(), "# c\nX=\"$A\" # no\nY\n").unwrap();
        assert_eq!(
            lines,
            [
                ("X".to_owned(), Some("\"$A\" # no".to_owned())),
                ("Y".to_owned(), None)
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, part) in [
            ("X=1\nnot a name=2\n", 2, "NAME=value"),
            ("=1", 1, "NAME=value"),
            ("X=1\nY=\"two\nthree\n", 2, "closing \" is missing"),
            ("X=\"a\" b\n", 1, "only a comment"),
            ("X=\"a\nb\"\nY=${N:?say}", 3, "N has no value: say"),
        ] {
            let note = parse(&".env".into(), text, &known()).unwrap_err();
            assert_eq!(note.place.line, line, "{text:?}: {note}");
            assert!(note.text.contains(part), "{text:?}: {note}");
        }
    }
}
