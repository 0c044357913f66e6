//! Reading a container's log.

use bollard::container::LogOutput;
use bollard::errors::Error as ClientError;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::{StreamExt as _, stream};
use hyper::body::Bytes;

use super::link::failure;
use super::{ASK_LIMIT, CLIENT_SLACK, Docker};
use crate::container::{EngineLine, LogLines, LogRead, RuntimeError, Verb};
use crate::model::LogStream;

impl Docker {
    pub(in crate::container) async fn logs(
        &self,
        id: &str,
        read: LogRead,
    ) -> Result<LogLines, RuntimeError> {
        let client = self.link.connection(Verb::Logs).await?.client;
        let client = client.with_timeout(ASK_LIMIT + CLIENT_SLACK);
        let mut options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(read.follow);
        if let Some(tail) = read.tail {
            options = options.tail(&tail.to_string());
        }
        if let Some(since_s) = read.since_s {
            options = options.since(i32::try_from(since_s).unwrap_or(i32::MAX));
        }
        let messages = client.logs(id, Some(options.build()));
        let id = id.to_owned();
        let lines = messages.flat_map(move |message| {
            let lines: Vec<_> = match message {
                Ok(message) => lines_of(message).map(Ok).collect(),
                Err(error) => vec![Err(missing_or(&id, error))],
            };
            stream::iter(lines)
        });
        Ok(lines.boxed())
    }
}

fn missing_or(id: &str, error: ClientError) -> RuntimeError {
    let failure = failure(Verb::Logs, error);
    match failure.status {
        // 409 while it is being removed.
        Some(404 | 409) => RuntimeError::ContainerMissing { id: id.to_owned() },
        _ => failure.error,
    }
}

/// The lines of a message: `<time> <text>`, nearly always one.
fn lines_of(message: LogOutput) -> impl Iterator<Item = EngineLine> {
    let (stream, message) = match message {
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        LogOutput::StdOut { message }
        | LogOutput::StdIn { message }
        | LogOutput::Console { message } => (LogStream::Stdout, message),
    };
    let end = message.iter().position(|byte| *byte == b' ');
    let end = end.unwrap_or(message.len());
    let time = message.slice(..end);
    let mut rest = Some(message.slice((end + 1).min(message.len())..));
    std::iter::from_fn(move || {
        let mut text: Bytes = rest.take()?;
        let partial = match text.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let more = text.slice(end + 1..);
                rest = (!more.is_empty()).then_some(more);
                text.truncate(end);
                false
            }
            // The engine splits long lines, and marks them by leaving out the end.
            None => true,
        };
        EngineLine::new(stream, time.clone(), text, partial)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &'static str) -> Vec<(String, String, bool)> {
        let message = LogOutput::StdOut {
            message: Bytes::from_static(message.as_bytes()),
        };
        let shown = |line: EngineLine| {
            let line = line.line();
            let text = String::from_utf8_lossy(line.text).into_owned();
            (line.time.to_owned(), text, line.partial)
        };
        lines_of(message).map(shown).collect()
    }

    #[test]
    fn messages_are_lines() {
        let line = |text: &str, partial| ("2026Z".to_owned(), text.to_owned(), partial);
        assert_eq!(shown("2026Z a b\n"), [line("a b", false)]);
        assert_eq!(shown("2026Z \n"), [line("", false)]);
        assert_eq!(shown("2026Z cut"), [line("cut", true)]);
        assert_eq!(
            shown("2026Z a\n\nb\n"),
            ["a", "", "b"].map(|text| line(text, false))
        );
        assert_eq!(shown(""), []);
        assert_eq!(shown("2026Z"), [line("", true)]);
    }
}
