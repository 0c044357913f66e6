//! A command inside a container, for its exit code and the beginning of what it writes.

use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use futures_util::{Stream, StreamExt};

use super::health::{SAID_BYTES_MAX, shortened};
use super::link::failure;
use super::{ASK_LIMIT, Docker, ORDER_LIMIT};
use crate::container::{Probed, RuntimeError, Verb};

/// Bytes read at once of what the command writes.
const READ_BYTES: usize = 1024;

impl Docker {
    pub(crate) async fn probe(&self, id: &str, command: &[String]) -> Result<Probed, RuntimeError> {
        let config = ExecConfig {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let made = self
            .link
            .call(Verb::Probe, ORDER_LIMIT, |client| async move {
                client.create_exec(id, config).await
            })
            .await;
        let exec = match made {
            Ok(made) => made.id,
            // Ended, gone, or paused: that is told elsewhere, and is no word of the program's.
            Err(failure) if matches!(failure.status, Some(404 | 409)) => {
                return Ok(Probed {
                    exit_code: None,
                    said: String::new(),
                });
            }
            Err(failure) => return Err(failure.error),
        };
        let (exec, options) = (
            exec.as_str(),
            StartExecOptions {
                output_capacity: Some(READ_BYTES),
                ..StartExecOptions::default()
            },
        );
        let started = self
            .link
            .call(Verb::Probe, ORDER_LIMIT, |client| async move {
                client.start_exec(exec, Some(options)).await
            })
            .await?;
        let said = match started {
            StartExecResults::Attached { output, .. } => read(output).await?,
            StartExecResults::Detached => String::new(),
        };
        let ended = self
            .link
            .call(Verb::Probe, ASK_LIMIT, |client| async move {
                client.inspect_exec(exec).await
            })
            .await;
        let exit_code = match ended {
            Ok(ended) => ended.exit_code,
            Err(failure) if failure.status == Some(404) => None,
            Err(failure) => return Err(failure.error),
        };
        Ok(Probed { exit_code, said })
    }
}

/// Reads to the end, and keeps the beginning: a command that nobody reads would stand still.
async fn read(
    mut output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
) -> Result<String, RuntimeError> {
    let mut said = Vec::new();
    while let Some(piece) = output.next().await {
        let piece = piece.map_err(|error| failure(Verb::Probe, error).error)?;
        let bytes = piece.into_bytes();
        let left = SAID_BYTES_MAX.saturating_sub(said.len());
        said.extend(bytes.iter().take(left));
    }
    Ok(shortened(&String::from_utf8_lossy(&said)))
}
