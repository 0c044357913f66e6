//! Logs: where they go, how they look, and how an error is written into one.
//!
//! All binaries call [`init`] once. Logs go to stderr, because stdout is for data.

use std::error::Error;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use crate::settings::{LogFormat, LogSettings};

/// Sends logs to stderr from here on; a second call changes nothing.
pub fn init(settings: &LogSettings) {
    // Settings were checked by `is_filter`, so the fallback is for callers that skip the check.
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let human = match settings.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let builder = SubscriberBuilder::default()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // The only error is that logs are set up already, which tests in one process do many times.
    let _ = if human {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}

/// True for what [`init`] can filter by.
pub fn is_filter(filter: &str) -> bool {
    !filter.is_empty() && EnvFilter::try_new(filter).is_ok()
}

/// An error with all its sources: `step: cause: cause of that`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing into a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner(#[source] std::io::Error);

    #[test]
    fn chain_names_every_source() {
        let error = Outer(Inner(std::io::Error::other("root")));
        assert_eq!(chain(&error), "outer: inner: root");
    }

    #[test]
    fn filters_are_levels_or_directives() {
        assert!(is_filter("info"));
        assert!(is_filter("kubeleet::agent=debug,info"));
        assert!(!is_filter(""));
        assert!(!is_filter("kubeleet=loud"));
    }
}
