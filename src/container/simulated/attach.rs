//! Logs, commands and use of simulated containers: a few of each, enough to try what reads them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use humantime_serde::re::humantime;
use hyper::body::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Simulated;
use crate::container::{
    ContainerState, EngineLine, Exec, ExecEnd, ExecEndOutcome, ExecOutput, LogLines, LogRead,
    RuntimeError, Sample, Verb,
};
use crate::model::{ExecWish, LogStream, TerminalSize};

/// Lines a simulated container remembers.
const LINES_MAX: usize = 1000;
/// Length of a line that a babbling container writes.
const BABBLE_BYTES: usize = 100;
/// Bytes a simulated command may leave unread.
const PIPE_BYTES: usize = 16 * 1024;
/// Exit code of a command that was killed.
const KILLED: i64 = 137;
/// Exit code of a command that does not exist.
const NOT_FOUND: i64 = 127;

/// A simulated container's log. Takes hardly any memory until something is written.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<Arc<(SystemTime, LogStream, String)>>,
    /// Lines that were written so far.
    written: u64,
    babbles: bool,
    ended: bool,
    news: Option<watch::Sender<()>>,
}

impl Log {
    pub(super) fn say(&mut self, stream: LogStream, text: &str) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines
            .push_back(Arc::new((now(), stream, text.to_owned())));
        self.written += 1;
        self.tell();
    }

    pub(super) fn babble(&mut self) {
        self.babbles = true;
        self.tell();
    }

    pub(super) fn begin(&mut self) {
        self.ended = false;
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        self.tell();
    }

    fn tell(&self) {
        if let Some(news) = &self.news {
            news.send_replace(());
        }
    }

    /// Number of the first line that is wanted.
    fn first(&self, read: LogRead) -> u64 {
        let since = UNIX_EPOCH + Duration::from_secs(read.since_s.unwrap_or(0));
        let early = self.lines.iter().filter(|line| line.0 < since).count();
        let tail = read.tail.map_or(usize::MAX, |tail| {
            usize::try_from(tail).unwrap_or(usize::MAX)
        });
        let kept = (self.lines.len() - early).min(tail);
        self.written - u64::try_from(kept).unwrap_or(0)
    }

    /// The line of this number, or the first after it that is remembered, and its number.
    fn line(&self, number: u64) -> Option<(u64, EngineLine)> {
        if self.babbles {
            return Some((number, babbled(number)?));
        }
        let forgotten = self.written - u64::try_from(self.lines.len()).unwrap_or(0);
        let number = number.max(forgotten);
        let line = self.lines.get(usize::try_from(number - forgotten).ok()?)?;
        let (time, stream, text) = &**line;
        let text = Bytes::copy_from_slice(text.as_bytes());
        Some((number, EngineLine::new(*stream, stamp(*time), text, false)?))
    }
}

fn babbled(number: u64) -> Option<EngineLine> {
    let text = format!("{number:0BABBLE_BYTES$}");
    EngineLine::new(LogStream::Stdout, stamp(now()), text.into(), false)
}

fn stamp(time: SystemTime) -> Bytes {
    humantime::format_rfc3339_nanos(time).to_string().into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "lines tell when they were written"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A simulated command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) container: String,
    killed: CancellationToken,
    exit_code: Option<i64>,
    size: watch::Sender<Option<TerminalSize>>,
}

impl Command {
    pub(super) fn kill(&self) {
        self.killed.cancel();
    }
}

impl Simulated {
    pub(in crate::container) async fn logs(
        &self,
        id: &str,
        read: LogRead,
    ) -> Result<LogLines, RuntimeError> {
        let mut state = self.answer(Verb::Logs)?;
        let Some(container) = state.containers.get_mut(id) else {
            let id = id.to_owned();
            return Ok(stream::once(async { Err(RuntimeError::ContainerMissing { id }) }).boxed());
        };
        let next = container.log.first(read);
        let news = container
            .log
            .news
            .get_or_insert_with(|| watch::Sender::new(()));
        let state = Some((self.clone(), id.to_owned(), next, news.subscribe()));
        let lines = stream::unfold(state, move |state| async move {
            let (engine, id, next, mut news) = state?;
            loop {
                match engine.line(&id, next, read.follow) {
                    Line::Is(number, line) => {
                        return Some((Ok(line), Some((engine, id, number + 1, news))));
                    }
                    Line::NotYet => {}
                    Line::End => return None,
                    Line::Error(error) => return Some((Err(error), None)),
                }
                news.changed().await.ok()?;
            }
        });
        Ok(lines.boxed())
    }

    fn line(&self, id: &str, number: u64, follow: bool) -> Line {
        let mut state = match self.answer(Verb::Logs) {
            Ok(state) => state,
            Err(error) => return Line::Error(error),
        };
        let Some(container) = state.containers.get(id) else {
            return Line::End;
        };
        let log = &container.log;
        let runs = container.state == ContainerState::Running;
        // Lines without end are no history: whoever does not follow would never be done.
        match log.line(number).filter(|_| follow || !log.babbles) {
            Some((number, line)) => {
                state.counts.lines += 1;
                Line::Is(number, line)
            }
            None if follow && runs && !log.ended => Line::NotYet,
            None => Line::End,
        }
    }

    /// Understands `echo WORDS`, `cat`, `sleep`, `exit CODE` and `size`.
    pub(in crate::container) async fn exec(
        &self,
        id: &str,
        wish: &ExecWish,
    ) -> Result<Exec, RuntimeError> {
        let mut state = self.answer(Verb::Exec)?;
        let Some(container) = state.containers.get(id) else {
            return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
        };
        if container.state != ContainerState::Running {
            let message = format!("container {id} is not running");
            let verb = Verb::Exec;
            return Err(RuntimeError::Refused { verb, message });
        }
        let exec = format!("exec-{:016x}", rand::random::<u64>());
        let killed = CancellationToken::new();
        let size = watch::Sender::new(wish.size);
        let sizes = size.subscribe();
        let command = Command {
            container: id.to_owned(),
            killed: killed.clone(),
            exit_code: None,
            size,
        };
        state.commands.insert(exec.clone(), command);
        state.counts.execs += 1;
        drop(state);
        let (input, reader) = tokio::io::duplex(PIPE_BYTES);
        let (mut writer, output) = tokio::io::duplex(PIPE_BYTES);
        let (engine, name, words) = (self.clone(), exec.clone(), wish.command.clone());
        tokio::spawn(async move {
            let code = tokio::select! {
                code = perform(&words, reader, &mut writer, sizes) => code,
                () = killed.cancelled() => KILLED,
            };
            engine.end_command(&name, code);
            drop(writer); // whoever reads its end may ask for the code at once
        });
        let pieces = stream::unfold(output, |mut output| async move {
            let mut bytes = vec![0; PIPE_BYTES];
            let length = output
                .read(&mut bytes)
                .await
                .ok()
                .filter(|length| *length > 0)?;
            bytes.truncate(length);
            let stream = LogStream::Stdout;
            let bytes = Bytes::from(bytes);
            Some((Ok(ExecOutput { stream, bytes }), output))
        });
        Ok(Exec {
            id: exec,
            output: pieces.boxed(),
            input: Box::pin(input),
        })
    }

    fn end_command(&self, exec: &str, code: i64) {
        let mut state = self.state();
        state.counts.execs -= 1;
        if let Some(command) = state.commands.get_mut(exec) {
            command.exit_code = Some(code);
        }
    }

    pub(in crate::container) async fn exec_resize(
        &self,
        exec: &str,
        size: TerminalSize,
    ) -> Result<(), RuntimeError> {
        let state = self.answer(Verb::Exec)?;
        if let Some(command) = state.commands.get(exec) {
            command.size.send_replace(Some(size));
        }
        Ok(())
    }

    pub(in crate::container) async fn exec_exit(
        &self,
        exec: &str,
    ) -> Result<Option<i64>, RuntimeError> {
        let mut state = self.answer(Verb::Exec)?;
        let code = state
            .commands
            .get(exec)
            .and_then(|command| command.exit_code);
        if code.is_some() {
            state.commands.remove(exec);
        }
        Ok(code)
    }

    pub(in crate::container) async fn exec_end(
        &self,
        exec: &str,
        _: ExecEnd,
    ) -> Result<ExecEndOutcome, RuntimeError> {
        let mut state = self.answer(Verb::Exec)?;
        match state.commands.remove(exec) {
            Some(command) if command.exit_code.is_none() => {
                command.kill();
                Ok(ExecEndOutcome::Told)
            }
            _ => Ok(ExecEndOutcome::Ended),
        }
    }

    /// Half a core since its start, and 16 MiB, if nothing else is said.
    pub(in crate::container) async fn sample(&self, id: &str) -> Result<Sample, RuntimeError> {
        let state = self.answer(Verb::Sample)?;
        let container = state.containers.get(id);
        let runs = |state: &ContainerState| *state == ContainerState::Running;
        let Some(container) = container.filter(|container| runs(&container.state)) else {
            return Err(RuntimeError::ContainerMissing { id: id.to_owned() });
        };
        let said = container.spec.as_ref();
        let said = said.and_then(|spec| state.uses.get(&spec.pod)).copied();
        let (cpu_millis, memory_bytes) = said.unwrap_or((500, 16 << 20));
        let now = now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ns = u64::try_from(now.as_nanos()).unwrap_or(0);
        Ok(Sample {
            at_ns,
            cpu_ns: at_ns / 1000 * cpu_millis,
            memory_bytes,
            memory_limit_bytes: 64 << 20,
            network_received_bytes: 1000,
            network_sent_bytes: 2000,
            block_read_bytes: 3000,
            block_written_bytes: 4000,
            pids: 1,
        })
    }
}

enum Line {
    Is(u64, EngineLine),
    NotYet,
    End,
    Error(RuntimeError),
}

/// Carries a command out; its exit code.
async fn perform(
    words: &[String],
    mut input: DuplexStream,
    output: &mut DuplexStream,
    mut sizes: watch::Receiver<Option<TerminalSize>>,
) -> i64 {
    let (program, rest) = words
        .split_first()
        .map_or(("", words), |(program, rest)| (program.as_str(), rest));
    match program {
        "echo" => {
            let line = format!("{}\n", rest.join(" "));
            let _ = output.write_all(line.as_bytes()).await;
            0
        }
        "cat" => i64::from(tokio::io::copy(&mut input, output).await.is_err()),
        "sleep" => std::future::pending().await,
        "exit" => rest.first().and_then(|code| code.parse().ok()).unwrap_or(0),
        // Each size that it is told, as `stty size` shows it, until its input ends.
        "size" => loop {
            let size = *sizes.borrow_and_update();
            if let Some(TerminalSize { columns, rows }) = size {
                let line = format!("{rows} {columns}\n");
                let _ = output.write_all(line.as_bytes()).await;
            }
            let mut ignored = [0; 1];
            tokio::select! {
                changed = sizes.changed() => if changed.is_err() { break 0 },
                read = input.read(&mut ignored) => if !matches!(read, Ok(1..)) { break 0 },
            }
        },
        _ => NOT_FOUND,
    }
}
