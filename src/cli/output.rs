//! The two streams of a command: data to stdout, words to stderr. A closed pipe is no fault.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For scripts: what the API answered
    Json,
}

/// The option that every command has.
#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// How the answer is shown
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(super) output: Format,
}

/// Why data could not be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    /// Nobody reads any more.
    #[error("the output was closed")]
    Closed,
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Write(std::io::Error),
    /// The API answered what this version cannot show.
    #[error("the API answered what this version cannot show ({0}); -o json shows it as it is")]
    Unknown(serde_json::Error),
}

/// Writes text to stdout, with a line's end.
pub(super) fn text(text: &str) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Write(error),
    })
}

/// Writes a value to stdout as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), OutputError> {
    let json = serde_json::to_string_pretty(value).map_err(OutputError::Unknown)?;
    text(&json)
}

/// Tells on stderr how a long work goes.
pub(super) fn tell(message: &str) {
    // There is nowhere left to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Tells on stderr what went wrong.
pub(super) fn complain(message: &str) {
    // There is nowhere left to tell that stderr is closed.
    let _ = writeln!(std::io::stderr(), "leet: {message}");
}

/// Tells on stderr how it goes.
pub(super) fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
