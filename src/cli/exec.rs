//! `leet exec`: a command in a pod's container, with this terminal or these pipes.

mod terminal;

use std::io::{ErrorKind, IsTerminal as _, Read as _, Write};
use std::process::ExitCode;

use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{CliError, output};
use crate::client::{Client, ClientError, ExecOutgoing, escape, with_query};
use crate::model::name::is_name;
use crate::model::{ExecFrame, ExecWish, Phase, Pod};
use terminal::{RawTerminal, size};

pub(super) const EXAMPLES: &str = "Examples:
  leet exec -it web -- sh                 a shell in a running pod of the service
  leet exec 7h2k9m4xq0ws-0 -- ls -l       in this very pod
  tar c . | leet exec -i web -- tar x     with a pipe

The exit code is that of the command; 255 says that it was not run, or was cut off. The command is
ended when this one is.";

/// Exit code where the command has none to tell, as of ssh.
const NOT_RUN: u8 = 255;
/// Most bytes of input read at once.
const PIECE: usize = 16 * 1024;
/// Pieces of input that may wait.
const PIECES_MAX: usize = 4;

/// Arguments of `leet exec`.
#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    /// Pass the input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Namespace of the service [default: default]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// A service, or the id of a pod
    #[arg(value_name = "SERVICE|POD")]
    name: String,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

/// Runs the command; the exit code is its own.
pub(super) async fn exec(client: &Client, args: ExecArgs) -> ExitCode {
    match run(client, args).await {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(NOT_RUN)),
        // Whoever closed the pipe, such as `head`, has seen enough.
        Err(CliError::Output(output::OutputError::Closed)) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(NOT_RUN)
        }
    }
}

async fn run(client: &Client, args: ExecArgs) -> Result<i64, CliError> {
    if args.tty && !std::io::stdin().is_terminal() {
        return Err(CliError::NoTerminal);
    }
    let pod = find_pod(client, &args.name, args.namespace.as_deref()).await?;
    let wish = ExecWish {
        command: args.command,
        tty: args.tty,
        stdin: args.interactive,
        size: size().filter(|_| args.tty),
    };
    let (outgoing, mut incoming) = client.exec(&pod, &wish).await?;
    // Restored when it is dropped, whatever ends this.
    let raw = match wish.tty && wish.stdin {
        true => Some(RawTerminal::enter().map_err(CliError::Terminal)?),
        false => None,
    };
    let mut ends = Ends::listen().map_err(CliError::Terminal)?;
    let outgoing = say(outgoing, &wish);
    tokio::pin!(outgoing);
    let ended = loop {
        let frame = tokio::select! {
            frame = incoming.next() => frame,
            // The API tells why by itself, or that the command has ended.
            never = &mut outgoing => match never {},
            () = ends.next() => break Err(CliError::Ended),
        };
        match frame? {
            ExecFrame::Stdout(bytes) => write(&mut std::io::stdout().lock(), &bytes)?,
            ExecFrame::Stderr(bytes) => write(&mut std::io::stderr().lock(), &bytes)?,
            ExecFrame::Exit(code) => break Ok(code),
            ExecFrame::Error(why) => break Err(CliError::NotRun(why)),
            _ => {}
        }
    };
    drop(raw);
    ended
}

/// The pod that is named, or one of the service that runs.
async fn find_pod(
    client: &Client,
    name: &str,
    namespace: Option<&str>,
) -> Result<String, CliError> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Pod>,
    }
    let path = format!("/v1/pods/{}", escape(name));
    match client.get::<Pod>(&path).await {
        Ok(pod) => return Ok(pod.id.to_string()),
        Err(ClientError::Refused(problem)) if problem.status == 404 => {}
        Err(error) => return Err(error.into()),
    }
    if !is_name(name) {
        return Err(CliError::NeitherServiceNorPod(name.to_owned()));
    }
    for phase in [Phase::Running, Phase::Unhealthy] {
        let parameters = [
            ("service", Some(name)),
            ("namespace", namespace),
            ("phase", Some(phase.as_str())),
            ("limit", Some("1")),
        ];
        let page: Page = client.get(&with_query("/v1/pods", &parameters)).await?;
        if let Some(pod) = page.items.into_iter().next() {
            return Ok(pod.id.to_string());
        }
    }
    let path = format!("/v1/services/{}", escape(name));
    match client
        .get::<serde_json::Value>(&with_query(&path, &[("namespace", namespace)]))
        .await
    {
        Ok(_) => Err(CliError::NothingRuns(name.to_owned())),
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            Err(CliError::NeitherServiceNorPod(name.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says input and sizes to the command, for as long as the connection lasts.
async fn say(mut outgoing: ExecOutgoing, wish: &ExecWish) -> std::convert::Infallible {
    let mut input = wish.stdin.then(read_input);
    let mut resized = wish
        .tty
        .then(|| signal(SignalKind::window_change()).ok())
        .flatten();
    loop {
        let frame = tokio::select! {
            piece = next_piece(&mut input) => match piece {
                Some(bytes) => ExecFrame::Stdin(bytes),
                None => {
                    input = None;
                    ExecFrame::StdinEnd
                }
            },
            () = next_signal(&mut resized) => match size() {
                Some(size) => ExecFrame::Resize(size),
                None => continue,
            },
        };
        if outgoing.send(&frame).await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn next_piece(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

async fn next_signal(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Reads the input on a thread of its own: it cannot be told to stop, and must not hold up the end.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (pieces, received) = mpsc::channel(PIECES_MAX);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut piece = vec![0; PIECE];
        loop {
            let length = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if pieces.blocking_send(piece[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    received
}

/// Signals that end this process: what they would do at once is done here in order.
struct Ends {
    signals: [Signal; 3],
}

impl Ends {
    fn listen() -> std::io::Result<Ends> {
        let signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        Ok(Ends { signals })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), output::OutputError> {
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => output::OutputError::Closed,
        _ => output::OutputError::Write(error),
    })
}
