//! A command in a container, with what it reads and writes; it ends when its client is gone.

use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::talk::{Ear, Mouth, Over};
use crate::agent::worker::Workers;
use crate::container::{Exec, ExecEnd, ExecEndOutcome, ExecOutput, Runtime, RuntimeError};
use crate::model::{ExecWish, LogStream, PodId, TerminalSize};
use crate::store::Frame;
use crate::telemetry::chain;

/// Most bytes of output in one frame.
const FRAME_BYTES: usize = 16 * 1024;
/// Tries to give a terminal its first size, and the time between two: it may take a moment until
/// there is one.
const RESIZE_TRIES: usize = 20;
const RESIZE_PAUSE: Duration = Duration::from_millis(25);
/// How a terminal is told to end what cannot be told otherwise: interrupt, and end of input.
const INTERRUPT_AND_END: &[u8] = b"\x03\x04";
/// Longest time for that.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs a command; gives the session's last frame.
pub(super) async fn answer(
    workers: &Workers,
    ear: Ear,
    mouth: &Mouth,
    pod: &PodId,
    wish: ExecWish,
) -> Result<Frame, Over> {
    let Some(container) = workers.container(pod) else {
        return Ok(Frame::Absent);
    };
    let runtime = workers.runtime();
    // Not cut off by the session's end: a command that was begun must be known, to be ended.
    let begun = runtime.exec(&container.id, &wish).await;
    let exec = match begun {
        Ok(exec) => exec,
        Err(RuntimeError::ContainerMissing { .. }) => return Ok(Frame::Absent),
        Err(error) => return Ok(Frame::Error(chain(&error))),
    };
    let Exec {
        id,
        output,
        mut input,
    } = exec;
    let done = {
        let first_size = wish.size.filter(|_| wish.tty);
        let feed = feed(runtime, &id, first_size, ear, &mut input);
        tokio::select! {
            done = say_output(mouth, output) => done,
            never = Box::pin(feed) => match never {},
            () = mouth.over() => Err(Stopped::Over),
        }
    };
    match done {
        Ok(()) => Ok(match runtime.exec_exit(&id).await {
            Ok(Some(code)) => Frame::Exit(code),
            Ok(None) => Frame::Error("the engine does not tell how the command ended".to_owned()),
            Err(error) => Frame::Error(chain(&error)),
        }),
        Err(stopped) => {
            end(runtime, &id, wish.tty.then_some(&mut input)).await;
            match stopped {
                Stopped::Over => Err(Over),
                Stopped::Engine(error) => Ok(Frame::Error(chain(&error))),
            }
        }
    }
}

enum Stopped {
    Over,
    Engine(RuntimeError),
}

/// Says what a command writes until it ends; pieces that are there already go out together.
async fn say_output(
    mouth: &Mouth,
    mut output: BoxStream<'static, Result<ExecOutput, RuntimeError>>,
) -> Result<(), Stopped> {
    let mut held: Option<(LogStream, Vec<u8>)> = None;
    loop {
        let next = if held.is_none() {
            output.next().await
        } else if let Some(next) = output.next().now_or_never() {
            next
        } else {
            say_piece(mouth, held.take()).await?;
            continue;
        };
        match next {
            Some(Ok(piece)) => match &mut held {
                Some((stream, bytes))
                    if *stream == piece.stream
                        && bytes.len() + piece.bytes.len() <= FRAME_BYTES =>
                {
                    bytes.extend_from_slice(&piece.bytes);
                }
                _ => {
                    let piece = Some((piece.stream, piece.bytes.to_vec()));
                    say_piece(mouth, std::mem::replace(&mut held, piece)).await?;
                }
            },
            Some(Err(error)) => return Err(Stopped::Engine(error)),
            None => return say_piece(mouth, held).await,
        }
    }
}

async fn say_piece(mouth: &Mouth, piece: Option<(LogStream, Vec<u8>)>) -> Result<(), Stopped> {
    let frame = match piece {
        None => return Ok(()),
        Some((LogStream::Stdout, bytes)) => Frame::Stdout(bytes),
        Some((LogStream::Stderr, bytes)) => Frame::Stderr(bytes),
    };
    mouth.say(frame).await.map_err(|Over| Stopped::Over)
}

/// Gives a command what its client says. Never ends by itself: a command may go on without input.
async fn feed(
    runtime: &Runtime,
    exec: &str,
    first_size: Option<TerminalSize>,
    mut ear: Ear,
    input: &mut (impl AsyncWrite + Unpin),
) -> std::convert::Infallible {
    if let Some(size) = first_size {
        for _ in 0..RESIZE_TRIES {
            if runtime.exec_resize(exec, size).await.is_ok() {
                break;
            }
            tokio::time::sleep(RESIZE_PAUSE).await;
        }
    }
    loop {
        // Whoever writes to a command that has closed its input is not told: it may still write.
        match ear.next().await {
            Frame::Stdin(bytes) => {
                let _ = input.write_all(&bytes).await;
                let _ = input.flush().await;
            }
            Frame::StdinEnd => {
                let _ = input.shutdown().await;
            }
            Frame::Resize(size) => {
                if let Err(error) = runtime.exec_resize(exec, size).await {
                    tracing::debug!(error = chain(&error), "a terminal kept its size");
                }
            }
            _ => {}
        }
    }
}

/// Ends a command whose client is gone: its terminal or input is closed, its process is hung up,
/// and killed if it does not care.
async fn end(runtime: &Runtime, exec: &str, terminal: Option<&mut (impl AsyncWrite + Unpin)>) {
    for how in [ExecEnd::HangUp, ExecEnd::Kill] {
        match runtime.exec_end(exec, how).await {
            Ok(ExecEndOutcome::Told) => {}
            Ok(ExecEndOutcome::Ended) => return,
            Ok(ExecEndOutcome::OutOfReach) => {
                tracing::warn!(
                    exec,
                    "a command whose client is gone may run on: its process cannot be reached from here; \
                     run the agent in the machine's own pid namespace"
                );
                if let Some(terminal) = terminal {
                    let told = terminal.write_all(INTERRUPT_AND_END);
                    let _ = tokio::time::timeout(FAREWELL, told).await;
                }
                return;
            }
            Err(error) => {
                tracing::warn!(exec, error = chain(&error), "a command may run on");
                return;
            }
        }
        // Waits a moment for the end.
        if matches!(runtime.exec_exit(exec).await, Ok(Some(_))) {
            return;
        }
    }
}
