//! Commands run in containers: how they are asked for, and what passes between them and a client.

use serde::{Deserialize, Serialize};

/// Longest command, its words together: it travels with the request.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// A command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecWish {
    /// Program and arguments.
    #[schema(min_items = 1)]
    pub command: Vec<String>,
    /// Give it a terminal: its two outputs are one then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// It gets an input.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// Size of the terminal at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

impl ExecWish {
    /// What is wrong with it, if anything is.
    pub fn violation(&self) -> Option<String> {
        let bytes: usize = self.command.iter().map(|word| word.len() + 1).sum();
        if self.command.first().is_none_or(String::is_empty) {
            return Some("command: is empty; a program to run is needed".to_owned());
        }
        if bytes > COMMAND_BYTES_MAX {
            return Some(format!(
                "command: {bytes} bytes are given, allowed are {COMMAND_BYTES_MAX}"
            ));
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Some("command: no word may hold a zero byte".to_owned());
        }
        None
    }
}

/// What a client of exec and the API say to each other: one message of a `WebSocket` each, a byte
/// that tells its kind and then its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFrame {
    /// 0: input.
    Stdin(Vec<u8>),
    /// 1: output.
    Stdout(Vec<u8>),
    /// 2: error output; with a terminal there is none.
    Stderr(Vec<u8>),
    /// 3: the input has ended.
    StdinEnd,
    /// 4: the terminal has another size, as JSON.
    Resize(TerminalSize),
    /// 5: the command ended with this exit code, as text. The last one.
    Exit(i64),
    /// 6: why it cannot be run, or was cut off, as text. The last one.
    Error(String),
}

impl ExecFrame {
    /// As it is sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let with = |kind: u8, data: &[u8]| {
            let mut bytes = Vec::with_capacity(data.len() + 1);
            bytes.push(kind);
            bytes.extend_from_slice(data);
            bytes
        };
        match self {
            ExecFrame::Stdin(data) => with(0, data),
            ExecFrame::Stdout(data) => with(1, data),
            ExecFrame::Stderr(data) => with(2, data),
            ExecFrame::StdinEnd => with(3, b""),
            ExecFrame::Resize(size) => {
                // Two numbers always have a JSON form.
                with(4, &serde_json::to_vec(size).unwrap_or_default())
            }
            ExecFrame::Exit(code) => with(5, code.to_string().as_bytes()),
            ExecFrame::Error(why) => with(6, why.as_bytes()),
        }
    }

    /// As it was sent; `None` if it makes no sense.
    pub fn read(bytes: &[u8]) -> Option<ExecFrame> {
        let (kind, data) = bytes.split_first()?;
        let text = || std::str::from_utf8(data).ok();
        Some(match kind {
            0 => ExecFrame::Stdin(data.to_vec()),
            1 => ExecFrame::Stdout(data.to_vec()),
            2 => ExecFrame::Stderr(data.to_vec()),
            3 => ExecFrame::StdinEnd,
            4 => ExecFrame::Resize(serde_json::from_slice(data).ok()?),
            5 => ExecFrame::Exit(text()?.parse().ok()?),
            6 => ExecFrame::Error(text()?.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_bounded() {
        let wish = |words: &[&str]| ExecWish {
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            ..ExecWish::default()
        };
        assert_eq!(wish(&["ls", "-l", ""]).violation(), None);
        for bad in [&[][..], &[""], &["a\0b"], &[&"x".repeat(COMMAND_BYTES_MAX)]] {
            assert!(wish(bad).violation().is_some(), "{bad:?}");
        }
    }

    #[test]
    fn frames_read_back() {
        let size = TerminalSize {
            columns: 80,
            rows: 24,
        };
        for (kind, frame) in [
            ExecFrame::Stdin(vec![0, 255]),
            ExecFrame::Stdout(Vec::new()),
            ExecFrame::Stderr(b"x".to_vec()),
            ExecFrame::StdinEnd,
            ExecFrame::Resize(size),
            ExecFrame::Exit(137),
            ExecFrame::Error("why".to_owned()),
        ]
        .into_iter()
        .enumerate()
        {
            let bytes = frame.to_bytes();
            assert_eq!(usize::from(bytes[0]), kind);
            assert_eq!(ExecFrame::read(&bytes), Some(frame));
        }
        for bad in [&b""[..], b"\x07", b"\x04{}", b"\x05x", b"\x06\xff"] {
            assert_eq!(ExecFrame::read(bad), None, "{bad:?}");
        }
    }
}
