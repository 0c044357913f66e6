//! Frames: what API and agent say to each other within a session.

use crate::model::TerminalSize;

/// One thing said. Stored as a kind and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    // To the API.
    /// The agent has the session in hand.
    Taken,
    /// Lines of a log, as they travel ([`LogLine`](crate::model::LogLine)).
    Lines(Vec<u8>),
    /// All lines before this one were there when they were asked for.
    History,
    /// A piece of standard output.
    Stdout(Vec<u8>),
    /// A piece of standard error.
    Stderr(Vec<u8>),
    /// JSON of [`StatsAnswer`](crate::model::StatsAnswer)s.
    Stats(Vec<u8>),
    /// The command ended with this code. The last one.
    Exit(i64),
    /// Nothing follows. The last one.
    End,
    /// The node has no container of this pod. The last one.
    Absent,
    /// What was asked for cannot be done, or not any longer. The last one.
    Error(String),
    // To the agent.
    /// A piece of standard input.
    Stdin(Vec<u8>),
    /// Standard input has ended.
    StdinEnd,
    /// The terminal has another size.
    Resize(TerminalSize),
    // To both.
    /// What could not be written for want of room can be now.
    Room,
}

impl Frame {
    /// Whether the agent says nothing after it.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Frame::Exit(_) | Frame::End | Frame::Absent | Frame::Error(_)
        )
    }

    /// As it is stored.
    pub(super) fn parts(&self) -> (&'static str, Vec<u8>) {
        match self {
            Frame::Taken => ("taken", Vec::new()),
            Frame::Lines(lines) => ("lines", lines.clone()),
            Frame::History => ("history", Vec::new()),
            Frame::Stdout(bytes) => ("stdout", bytes.clone()),
            Frame::Stderr(bytes) => ("stderr", bytes.clone()),
            Frame::Stats(json) => ("stats", json.clone()),
            Frame::Exit(code) => ("exit", code.to_string().into_bytes()),
            Frame::End => ("end", Vec::new()),
            Frame::Absent => ("absent", Vec::new()),
            Frame::Error(why) => ("error", why.clone().into_bytes()),
            Frame::Stdin(bytes) => ("stdin", bytes.clone()),
            Frame::StdinEnd => ("stdin-end", Vec::new()),
            Frame::Resize(size) => {
                let words = format!("{} {}", size.columns, size.rows);
                ("resize", words.into_bytes())
            }
            Frame::Room => ("room", Vec::new()),
        }
    }

    /// As it was stored; `None` if it makes no sense.
    pub(super) fn read(kind: &[u8], data: Vec<u8>) -> Option<Frame> {
        let text = || std::str::from_utf8(&data).ok();
        Some(match kind {
            b"taken" => Frame::Taken,
            b"lines" => Frame::Lines(data),
            b"history" => Frame::History,
            b"stdout" => Frame::Stdout(data),
            b"stderr" => Frame::Stderr(data),
            b"stats" => Frame::Stats(data),
            b"exit" => Frame::Exit(text()?.parse().ok()?),
            b"end" => Frame::End,
            b"absent" => Frame::Absent,
            b"error" => Frame::Error(text()?.to_owned()),
            b"stdin" => Frame::Stdin(data),
            b"stdin-end" => Frame::StdinEnd,
            b"resize" => {
                let (columns, rows) = text()?.split_once(' ')?;
                Frame::Resize(TerminalSize {
                    columns: columns.parse().ok()?,
                    rows: rows.parse().ok()?,
                })
            }
            b"room" => Frame::Room,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back() {
        let size = TerminalSize {
            columns: 80,
            rows: 24,
        };
        let frames = [
            Frame::Taken,
            Frame::Lines(b"o 1 x\n".to_vec()),
            Frame::History,
            Frame::Stdout(vec![0, 255]),
            Frame::Stderr(Vec::new()),
            Frame::Stats(b"[]".to_vec()),
            Frame::Exit(-1),
            Frame::End,
            Frame::Absent,
            Frame::Error("why".to_owned()),
            Frame::Stdin(b"\n".to_vec()),
            Frame::StdinEnd,
            Frame::Resize(size),
            Frame::Room,
        ];
        for frame in frames {
            let (kind, data) = frame.parts();
            assert_eq!(Frame::read(kind.as_bytes(), data), Some(frame));
        }
        for (kind, data) in [("exit", "x"), ("resize", "80"), ("newer", "")] {
            assert_eq!(Frame::read(kind.as_bytes(), data.into()), None, "{kind}");
        }
    }
}
