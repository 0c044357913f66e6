//! Lines of a container's log: as an engine tells them, as they travel, and as the API shows them.

use serde::{Deserialize, Serialize};

/// Most bytes of a line in one piece; a longer one comes in several. What engines use themselves.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of a container's last lines that can be kept.
pub const TAIL_BYTES_MAX: usize = 1024 * 1024;

/// Which output of a process a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a container's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When, by the clock of its node: RFC 3339 in UTC with nine digits, so that texts compare as
    /// times do.
    pub time: &'a str,
    /// Where it was written to.
    pub stream: LogStream,
    /// More of this line follows in the next.
    pub partial: bool,
    /// What was written, without the line's end.
    pub text: &'a [u8],
}

impl<'a> LogLine<'a> {
    /// Bytes of the line as it travels, beside its text and time.
    pub const FRAME_BYTES: usize = 4;

    /// Appends the line as it travels: `<o or e> <time> <text>`, upper case if more follows.
    pub fn write_to(&self, batch: &mut Vec<u8>) {
        let mark = match (self.stream, self.partial) {
            (LogStream::Stdout, false) => b'o',
            (LogStream::Stdout, true) => b'O',
            (LogStream::Stderr, false) => b'e',
            (LogStream::Stderr, true) => b'E',
        };
        batch.extend_from_slice(&[mark, b' ']);
        batch.extend_from_slice(self.time.as_bytes());
        batch.push(b' ');
        batch.extend_from_slice(self.text);
        batch.push(b'\n');
    }

    /// The lines of a batch; what is none is left out.
    pub fn read_all(batch: &'a [u8]) -> impl Iterator<Item = LogLine<'a>> {
        batch
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(LogLine::read)
    }

    /// A line as it travels, with its end.
    pub fn read(line: &'a [u8]) -> Option<LogLine<'a>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let (mark, rest) = line.split_first()?;
        let rest = rest.strip_prefix(b" ")?;
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (stream, partial) = match mark {
            b'o' => (LogStream::Stdout, false),
            b'O' => (LogStream::Stdout, true),
            b'e' => (LogStream::Stderr, false),
            b'E' => (LogStream::Stderr, true),
            _ => return None,
        };
        Some(LogLine {
            time: std::str::from_utf8(&rest[..end]).ok()?,
            stream,
            partial,
            text: &rest[end + 1..],
        })
    }
}

/// One line of an answer: a line of a pod's log, or what kept it from being read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(example = json!({
    "pod": "7h2k9m4xq0ws-0", "node": "node1", "time": "2026-11-20T10:21:22.123456789Z",
    "stream": "stdout", "line": "listening on :80",
}))]
pub struct LogItem {
    /// The pod; absent where all are meant.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<String>,
    /// The node it runs or ran on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// When it was written, by the clock of the node.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<String>,
    /// Where it was written to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<LogStream>,
    /// What was written; what is no UTF-8 in it is replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<String>,
    /// The line was too long for one piece: more of it follows.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub partial: bool,
    /// In place of a line: why there are none, or no more, of this pod.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-20T10:21:22.000000001Z";

    #[test]
    fn lines_travel_unchanged() {
        let line = |stream, partial, text| LogLine {
            time: TIME,
            stream,
            partial,
            text,
        };
        let lines = [
            line(LogStream::Stdout, false, &b"plain"[..]),
            line(LogStream::Stderr, true, b" spaces \xff\x00\r"),
            line(LogStream::Stdout, true, b""),
            line(LogStream::Stderr, false, b""),
        ];
        let mut batch = Vec::new();
        for line in &lines {
            line.write_to(&mut batch);
        }
        assert_eq!(LogLine::read_all(&batch).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_is_no_line_is_left_out() {
        let batch = b"\nrubbish\no\no time\nx 1 text\no 1 text\n";
        let lines: Vec<_> = LogLine::read_all(batch).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].time, lines[0].text), ("1", &b"text"[..]));
    }
}
