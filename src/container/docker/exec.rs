//! Commands run in containers, and their end.
//!
//! The engine ends no command of its own accord, and has no call for it: a command goes on when its
//! client is gone. So its process is told, which works where this agent sees the machine's processes.

use std::path::Path;
use std::time::Duration;

use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::hijack::{hijack, output};
use super::{ASK_LIMIT, Docker, ORDER_LIMIT};
use crate::container::{Exec, ExecEnd, ExecEndOutcome, RuntimeError, Verb};
use crate::model::{ExecWish, TerminalSize};

/// Longest time for an ended command's exit code to be told: its output ends a moment earlier.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// Longest time for a command that was begun to have a process.
const PROCESS_LIMIT: Duration = Duration::from_secs(2);
/// Time between two looks for either.
const LOOK: Duration = Duration::from_millis(20);

impl Docker {
    pub(in crate::container) async fn exec(
        &self,
        id: &str,
        wish: &ExecWish,
    ) -> Result<Exec, RuntimeError> {
        let size = wish
            .size
            .map(|size| vec![usize::from(size.rows), usize::from(size.columns)]);
        let config = ExecConfig {
            attach_stdin: Some(wish.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            console_size: size.filter(|_| wish.tty),
            tty: Some(wish.tty),
            cmd: Some(wish.command.clone()),
            ..ExecConfig::default()
        };
        let created = self
            .link
            .call(Verb::Exec, ASK_LIMIT, |client| async move {
                client.create_exec(id, config).await
            })
            .await;
        let exec = match created {
            Err(failure) if failure.status == Some(404) => {
                return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
            }
            other => other?.id,
        };
        let path = format!("/exec/{exec}/start");
        let body = serde_json::json!({ "Detach": false, "Tty": wish.tty }).to_string();
        let taken = hijack(self.link.address(), &path, body);
        // The inner result is a failure of the engine, as in every other call.
        let connection = tokio::time::timeout(ORDER_LIMIT, taken).await;
        let connection = connection.map_err(|_| RuntimeError::TimedOut {
            verb: Verb::Exec,
            limit: ORDER_LIMIT,
        })??;
        let (reader, writer) = tokio::io::split(connection);
        Ok(Exec {
            id: exec,
            output: output(reader, wish.tty),
            input: Box::pin(writer),
        })
    }

    pub(in crate::container) async fn exec_resize(
        &self,
        exec: &str,
        size: TerminalSize,
    ) -> Result<(), RuntimeError> {
        let options = ResizeExecOptionsBuilder::new()
            .h(i32::from(size.rows))
            .w(i32::from(size.columns))
            .build();
        let resized = self
            .link
            .call(Verb::Exec, ASK_LIMIT, |client| async move {
                client.resize_exec(exec, options).await
            })
            .await;
        Ok(resized?)
    }

    pub(in crate::container) async fn exec_exit(
        &self,
        exec: &str,
    ) -> Result<Option<i64>, RuntimeError> {
        let told = async {
            loop {
                let seen = self.inspect_exec(exec).await?;
                if seen.running == Some(false) && seen.exit_code.is_some() {
                    return Ok(seen.exit_code);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(EXIT_LIMIT, told)
            .await
            .unwrap_or(Ok(None))
    }

    pub(in crate::container) async fn exec_end(
        &self,
        exec: &str,
        end: ExecEnd,
    ) -> Result<ExecEndOutcome, RuntimeError> {
        let Some((pid, container)) = self.process_of(exec).await? else {
            return Ok(ExecEndOutcome::Ended);
        };
        let Some(pid) = pid.filter(|pid| is_in_container(*pid, &container)) else {
            return Ok(ExecEndOutcome::OutOfReach);
        };
        let signal = match end {
            ExecEnd::HangUp => Signal::HUP,
            ExecEnd::Kill => Signal::KILL,
        };
        // The engine makes each command the leader of a session and a group of its own.
        Ok(match kill_process_group(pid, signal) {
            Ok(()) => ExecEndOutcome::Told,
            Err(Errno::SRCH) => ExecEndOutcome::Ended,
            Err(_) => ExecEndOutcome::OutOfReach,
        })
    }

    /// The process of a command, if it has one we can name, and its container; `None` if it has ended.
    async fn process_of(&self, exec: &str) -> Result<Option<(Option<Pid>, String)>, RuntimeError> {
        let seen = async {
            loop {
                let seen = self.inspect_exec(exec).await?;
                if seen.running == Some(true) && seen.pid.is_some_and(|pid| pid > 0) {
                    let pid = seen.pid.and_then(|pid| i32::try_from(pid).ok());
                    let container = seen.container_id.unwrap_or_default();
                    return Ok(Some((pid.and_then(Pid::from_raw), container)));
                }
                if seen.exit_code.is_some() {
                    return Ok(None);
                }
                // It was begun a moment ago, and has no process yet.
                tokio::time::sleep(LOOK).await;
            }
        };
        let seen = tokio::time::timeout(PROCESS_LIMIT, seen).await;
        seen.unwrap_or(Ok(Some((None, String::new()))))
    }

    async fn inspect_exec(&self, exec: &str) -> Result<ExecInspectResponse, RuntimeError> {
        let inspected = self
            .link
            .call(Verb::Exec, ASK_LIMIT, |client| async move {
                client.inspect_exec(exec).await
            })
            .await;
        Ok(inspected?)
    }
}

/// Whether `pid`, as the engine knows it, is the process we see under that number: an agent in a
/// container of its own sees others, which must not be touched.
fn is_in_container(pid: Pid, container: &str) -> bool {
    let place = format!("{}/cgroup", pid.as_raw_nonzero());
    let cgroup = std::fs::read_to_string(Path::new("/proc").join(place));
    !container.is_empty() && cgroup.is_ok_and(|cgroup| cgroup.contains(container))
}
