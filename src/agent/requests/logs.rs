//! A container's log, as it is asked for: first what is there, then what is written from now on.
//!
//! Lines travel in batches. What is read from the engine waits here until the API has read enough of
//! what was sent before: a slow reader stops the reading, never the container.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use humantime_serde::re::humantime::{format_rfc3339_nanos, parse_rfc3339};
use tokio::time::Instant;

use super::talk::{Ear, Mouth, Over};
use crate::agent::worker::Workers;
use crate::container::{EngineLine, LogLines, LogRead, RuntimeError};
use crate::model::{LINE_BYTES_MAX, LogLine, LogWish, PodId, Since};
use crate::store::Frame;
use crate::telemetry::chain;

/// Most bytes of lines in one batch: one line of any length fits.
const BATCH_BYTES: usize = LINE_BYTES_MAX + 64;
/// Least time between two batches that are not full: however many lines a second come one by one,
/// they cost Redis 50 calls.
const LINGER: Duration = Duration::from_millis(20);

/// Answers a request for a log; gives the session's last frame.
pub(super) async fn answer(
    workers: &Workers,
    ear: Ear,
    mouth: &Mouth,
    pod: &PodId,
    wish: LogWish,
) -> Result<Frame, Over> {
    let Some(container) = workers.container(pod) else {
        return Ok(Frame::Absent);
    };
    let mut reading = Reading {
        mouth,
        batch: Vec::with_capacity(BATCH_BYTES),
        sent: None,
        last: None,
    };
    let read = Box::pin(reading.read(workers, &container.id, wish));
    let done = tokio::select! {
        done = read => done,
        never = ear.listen() => match never {},
        () = mouth.over() => return Err(Over),
    };
    Ok(match done {
        Ok(()) => Frame::End,
        Err(Stopped::Over) => return Err(Over),
        Err(Stopped::Engine(RuntimeError::ContainerMissing { .. })) => Frame::Absent,
        Err(Stopped::Engine(error)) => Frame::Error(chain(&error)),
    })
}

/// Why reading stopped early.
enum Stopped {
    Over,
    Engine(RuntimeError),
}

impl From<Over> for Stopped {
    fn from(_: Over) -> Stopped {
        Stopped::Over
    }
}

struct Reading<'a> {
    mouth: &'a Mouth,
    /// Lines that were not said yet.
    batch: Vec<u8>,
    /// When lines were said last.
    sent: Option<Instant>,
    /// Time of the last line, and how many lines had it.
    last: Option<(String, usize)>,
}

impl Reading<'_> {
    async fn read(
        &mut self,
        workers: &Workers,
        container: &str,
        wish: LogWish,
    ) -> Result<(), Stopped> {
        let runtime = workers.runtime();
        let floor = wish.since.as_ref().map(floor);
        let mut read = LogRead {
            follow: false,
            tail: wish.tail,
            since_s: floor.as_ref().and_then(|floor| seconds(&floor.time)),
        };
        if !(wish.follow && wish.tail == Some(0)) {
            let lines = runtime
                .logs(container, read)
                .await
                .map_err(Stopped::Engine)?;
            self.say_lines(lines, |line| {
                floor.as_ref().is_none_or(|floor| floor.admits(line))
            })
            .await?;
        }
        self.mouth.say(Frame::History).await?;
        if !wish.follow {
            return Ok(());
        }
        // Again from the last line on: what was written in between is there, and what was said is
        // left out. The engine looks at whole seconds.
        read.follow = true;
        let mut said = 0;
        if let Some((time, count)) = &self.last {
            said = *count;
            read.since_s = seconds(time);
            read.tail = None;
        } else if wish.tail != Some(0) {
            read.tail = None;
        }
        let last = self.last.take().map(|(time, _)| time);
        let lines = runtime
            .logs(container, read)
            .await
            .map_err(Stopped::Engine)?;
        let is_new = move |line: &LogLine<'_>| {
            if floor.as_ref().is_some_and(|floor| !floor.admits(line)) {
                return false;
            }
            match last.as_deref() {
                Some(last) if line.time < last => false,
                Some(last) if line.time == last && said > 0 => {
                    said -= 1;
                    false
                }
                _ => true,
            }
        };
        self.say_lines(lines, is_new).await
    }

    /// Says lines until there are no more.
    async fn say_lines(
        &mut self,
        mut lines: LogLines,
        mut wanted: impl FnMut(&LogLine<'_>) -> bool,
    ) -> Result<(), Stopped> {
        loop {
            let next = match lines.next().now_or_never() {
                Some(next) => next,
                None => match self.sent.filter(|_| !self.batch.is_empty()) {
                    None if self.batch.is_empty() => lines.next().await,
                    None => {
                        self.flush().await?;
                        continue;
                    }
                    Some(sent) => {
                        match tokio::time::timeout_at(sent + LINGER, lines.next()).await {
                            Ok(next) => next,
                            Err(_) => {
                                self.flush().await?;
                                continue;
                            }
                        }
                    }
                },
            };
            match next {
                Some(Ok(line)) => {
                    if wanted(&line.line()) {
                        self.add(&line).await?;
                    }
                }
                Some(Err(error)) => {
                    self.flush().await?;
                    return Err(Stopped::Engine(error));
                }
                None => return Ok(self.flush().await?),
            }
        }
    }

    async fn add(&mut self, line: &EngineLine) -> Result<(), Over> {
        let line = line.line();
        match &mut self.last {
            Some((time, count)) if time == line.time => *count += 1,
            last => *last = Some((line.time.to_owned(), 1)),
        }
        // Engines keep to this length themselves; whatever came, a batch has room for it.
        let mut rest = line.text;
        loop {
            let (piece, more) = rest.split_at(rest.len().min(LINE_BYTES_MAX));
            let piece = LogLine {
                text: piece,
                partial: line.partial || !more.is_empty(),
                ..line
            };
            let bytes = piece.text.len() + piece.time.len() + LogLine::FRAME_BYTES;
            if self.batch.len() + bytes > BATCH_BYTES {
                self.flush().await?;
            }
            piece.write_to(&mut self.batch);
            if more.is_empty() {
                return Ok(());
            }
            rest = more;
        }
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES));
        self.mouth.say(Frame::Lines(batch)).await?;
        self.sent = Some(Instant::now());
        Ok(())
    }
}

/// The first time that is wanted.
struct Floor {
    time: String,
    /// That time itself is not.
    is_behind: bool,
}

impl Floor {
    fn admits(&self, line: &LogLine<'_>) -> bool {
        // Texts of one form, so they compare as times do.
        match line.time.cmp(self.time.as_str()) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => !self.is_behind,
            std::cmp::Ordering::Greater => true,
        }
    }
}

fn floor(since: &Since) -> Floor {
    match since {
        Since::After(time) => Floor {
            time: time.clone(),
            is_behind: true,
        },
        Since::AgoMs(ms) => {
            #[expect(
                clippy::disallowed_methods,
                reason = "the engine wrote its lines by this machine's clock"
            )]
            let now = std::time::SystemTime::now();
            let time = now.checked_sub(Duration::from_millis(*ms));
            let time = time.unwrap_or(std::time::UNIX_EPOCH);
            Floor {
                time: format_rfc3339_nanos(time).to_string(),
                is_behind: false,
            }
        }
    }
}

fn seconds(time: &str) -> Option<u64> {
    let time = parse_rfc3339(time).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}
