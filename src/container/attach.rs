//! What passes through an engine while a container runs: its log, commands run in it, its use.

use futures_util::stream::BoxStream;
use hyper::body::Bytes;
use tokio::io::AsyncWrite;

use super::RuntimeError;
use crate::model::{LogLine, LogStream};

/// Which lines of a log are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogRead {
    /// Go on with what is written, until the container ends.
    pub follow: bool,
    /// Only the last ones, this many.
    pub tail: Option<u32>,
    /// Only those from this second on, since 1970 by the engine's clock.
    pub since_s: Option<u64>,
}

/// Lines of a log. Dropping it ends the reading.
pub type LogLines = BoxStream<'static, Result<EngineLine, RuntimeError>>;

/// A line of a log in the bytes that the engine sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineLine {
    stream: LogStream,
    partial: bool,
    /// The time, as ASCII.
    time: Bytes,
    text: Bytes,
}

impl EngineLine {
    /// A line; `None` if `time` is no word.
    pub fn new(stream: LogStream, time: Bytes, text: Bytes, partial: bool) -> Option<EngineLine> {
        let is_word = !time.is_empty() && time.iter().all(u8::is_ascii_graphic);
        is_word.then_some(EngineLine {
            stream,
            partial,
            time,
            text,
        })
    }

    /// What it says.
    pub fn line(&self) -> LogLine<'_> {
        LogLine {
            // It was checked to be ASCII.
            time: std::str::from_utf8(&self.time).unwrap_or_default(),
            stream: self.stream,
            partial: self.partial,
            text: &self.text,
        }
    }
}

/// A command that runs in a container.
pub struct Exec {
    /// The engine's id of it.
    pub id: String,
    /// What it writes, piece by piece; ends when the command has.
    pub output: BoxStream<'static, Result<ExecOutput, RuntimeError>>,
    /// What it reads. Shutting it down ends its input.
    pub input: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
}

/// A piece of what a command writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Where it was written to; with a terminal always standard output.
    pub stream: LogStream,
    /// The bytes.
    pub bytes: Bytes,
}

/// How hard a command is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecEnd {
    /// As when its terminal is closed: it may ignore that.
    HangUp,
    /// It cannot ignore this.
    Kill,
}

/// What became of ending a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecEndOutcome {
    /// It was told; its whole process group was.
    Told,
    /// It has ended already.
    Ended,
    /// Its process cannot be reached from here, as from an agent in a container of its own.
    OutOfReach,
}

/// What a container has used so far, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// The moment, in nanoseconds since 1970 by the engine's clock.
    pub at_ns: u64,
    /// Nanoseconds of cpu time since its start.
    pub cpu_ns: u64,
    /// Bytes in memory, without what the kernel can drop at once.
    pub memory_bytes: u64,
    /// Most it may have.
    pub memory_limit_bytes: u64,
    /// Bytes received.
    pub network_received_bytes: u64,
    /// Bytes sent.
    pub network_sent_bytes: u64,
    /// Bytes read from disks.
    pub block_read_bytes: u64,
    /// Bytes written to disks.
    pub block_written_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}
