//! How lines look in an answer: JSON, or text.

use std::borrow::Cow;
use std::io::Write as _;

use serde::Serialize;

use crate::model::{LogItem, LogLine, LogStream};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Render {
    /// A [`LogItem`] a line.
    Json,
    /// As they were written.
    Text {
        /// Begin with the pod.
        shows_pods: bool,
        /// Begin with the time.
        timestamps: bool,
    },
}

/// A [`LogItem`] of a line, without copies of its texts.
#[derive(Serialize)]
struct Shown<'a> {
    pod: &'a str,
    node: &'a str,
    time: &'a str,
    stream: LogStream,
    line: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl Render {
    /// Appends a line of a log.
    pub(super) fn line(self, out: &mut Vec<u8>, pod: &str, node: &str, line: &LogLine<'_>) {
        match self {
            Render::Json => {
                let shown = Shown {
                    pod,
                    node,
                    time: line.time,
                    stream: line.stream,
                    line: String::from_utf8_lossy(line.text),
                    partial: line.partial,
                };
                // Writing texts into memory cannot fail.
                let _ = serde_json::to_writer(&mut *out, &shown);
            }
            Render::Text {
                shows_pods,
                timestamps,
            } => {
                for (shown, word) in [(timestamps, line.time), (shows_pods, pod)] {
                    if shown {
                        let _ = write!(out, "{word} ");
                    }
                }
                out.extend_from_slice(line.text);
            }
        }
        out.push(b'\n');
    }

    /// Appends why there are no lines, or no more.
    pub(super) fn error(self, out: &mut Vec<u8>, pod: Option<&str>, node: Option<&str>, why: &str) {
        match self {
            Render::Json => {
                let item = LogItem {
                    pod: pod.map(str::to_owned),
                    node: node.map(str::to_owned),
                    error: Some(why.to_owned()),
                    ..LogItem::default()
                };
                let _ = serde_json::to_writer(&mut *out, &item);
                out.push(b'\n');
            }
            Render::Text { .. } => {
                let of = pod.map(|pod| format!("pod {pod}: ")).unwrap_or_default();
                let _ = writeln!(out, "[{of}{why}]");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LogLine<'_> = LogLine {
        time: "2026Z",
        stream: LogStream::Stderr,
        partial: true,
        text: b"a \"b\" \xff",
    };

    #[test]
    fn a_line_of_json_is_an_item() {
        let mut out = Vec::new();
        Render::Json.line(&mut out, "p-0", "n", &LINE);
        let item: LogItem = serde_json::from_slice(&out).unwrap();
        let expected = LogItem {
            pod: Some("p-0".to_owned()),
            node: Some("n".to_owned()),
            time: Some("2026Z".to_owned()),
            stream: Some(LogStream::Stderr),
            line: Some("a \"b\" \u{fffd}".to_owned()),
            partial: true,
            error: None,
        };
        assert_eq!(item, expected);
        out.clear();
        Render::Json.error(&mut out, Some("p-0"), None, "why");
        assert_eq!(out, b"{\"pod\":\"p-0\",\"error\":\"why\"}\n");
    }

    #[test]
    fn text_is_what_was_written() {
        let text = |shows_pods, timestamps| Render::Text {
            shows_pods,
            timestamps,
        };
        for (render, head) in [
            (text(false, false), ""),
            (text(true, false), "p-0 "),
            (text(true, true), "2026Z p-0 "),
        ] {
            let mut out = Vec::new();
            render.line(&mut out, "p-0", "n", &LINE);
            assert_eq!(out, [head.as_bytes(), LINE.text, b"\n"].concat());
        }
    }
}
