//! A connection taken over: the engine's HTTP upgraded to a stream of bytes both ways.
//!
//! Not by `bollard`, whose decoder takes a terminal's byte below 3 for the head of a message of up
//! to 4 GiB, and waits for that: a command may write any bytes.

use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf};
use tokio::net::{TcpStream, UnixStream};

use super::link::Failure;
use crate::container::{ExecOutput, RuntimeError, Verb};
use crate::model::LogStream;

/// Most bytes of an answer that is no stream.
const ANSWER_MAX: usize = 64 * 1024;
/// Most bytes read at once.
const PIECE_MAX: usize = 16 * 1024;
/// Bytes of a message's head: its stream, and its length.
const HEAD: usize = 8;

/// Posts `body` to `path`, and takes the connection over.
pub(super) async fn hijack(
    address: &str,
    path: &str,
    body: String,
) -> Result<TokioIo<Upgraded>, Failure> {
    if let Some(path_of_socket) = address.strip_prefix("unix://") {
        let stream = UnixStream::connect(path_of_socket).await;
        return over(stream.map_err(away)?, path, body).await;
    }
    let place = address.split_once("://").map_or(address, |(_, rest)| rest);
    let stream = TcpStream::connect(place.trim_end_matches('/')).await;
    over(stream.map_err(away)?, path, body).await
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
    body: String,
) -> Result<TokioIo<Upgraded>, Failure> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(away)?;
    // Ends when the connection was taken over, or failed.
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(path)
        .header(HOST, "docker")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)));
    let request = request.map_err(away)?;
    let response = sender.send_request(request).await.map_err(away)?;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(response).await.map_err(away)?;
        return Ok(TokioIo::new(upgraded));
    }
    let answer = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let answer = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
    let verb = Verb::Exec;
    Err(Failure {
        status: Some(status.as_u16()),
        error: RuntimeError::Refused {
            verb,
            message: message_of(&answer),
        },
    })
}

/// The engine's words: `{"message": "…"}`.
fn message_of(answer: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(refusal) => refusal.message,
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    }
}

fn away(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure {
        status: None,
        error: unreachable(error),
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RuntimeError {
    RuntimeError::Unreachable {
        verb: Verb::Exec,
        source: error.into(),
    }
}

/// What comes over a connection, piece by piece.
pub(super) fn output<R>(
    reader: ReadHalf<R>,
    tty: bool,
) -> BoxStream<'static, Result<ExecOutput, RuntimeError>>
where
    R: AsyncRead + Send + 'static,
{
    let head = (!tty).then(Head::default);
    let state = Some((reader, head));
    stream::unfold(state, |state| async move {
        let (mut reader, mut head) = state?;
        match piece(&mut reader, head.as_mut()).await {
            Ok(Some(piece)) => Some((Ok(piece), Some((reader, head)))),
            Ok(None) => None,
            Err(error) => Some((Err(unreachable(error)), None)),
        }
    })
    .boxed()
}

/// The message that is being read, where there are messages.
#[derive(Default)]
struct Head {
    stream: u8,
    left: usize,
}

/// The next piece; `None` at the end.
async fn piece<R: AsyncRead + Unpin>(
    reader: &mut R,
    head: Option<&mut Head>,
) -> std::io::Result<Option<ExecOutput>> {
    let (stream, most) = match head {
        None => (LogStream::Stdout, PIECE_MAX),
        Some(head) => {
            while head.left == 0 {
                let mut bytes = [0; HEAD];
                match reader.read_exact(&mut bytes).await {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
                let [stream, _, _, _, length @ ..] = bytes;
                head.stream = stream;
                head.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            }
            let stream = match head.stream {
                2 => LogStream::Stderr,
                _ => LogStream::Stdout,
            };
            let most = head.left.min(PIECE_MAX);
            let bytes = read(reader, most).await?;
            head.left -= bytes.len();
            return Ok((!bytes.is_empty()).then_some(ExecOutput { stream, bytes }));
        }
    };
    let bytes = read(reader, most).await?;
    Ok((!bytes.is_empty()).then_some(ExecOutput { stream, bytes }))
}

async fn read<R: AsyncRead + Unpin>(reader: &mut R, most: usize) -> std::io::Result<Bytes> {
    let mut bytes = vec![0; most];
    let length = reader.read(&mut bytes).await?;
    bytes.truncate(length);
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All pieces of what an engine sends, those of one stream joined.
    async fn pieces(sent: &[u8], tty: bool) -> Vec<(LogStream, Vec<u8>)> {
        let (near, mut far) = tokio::io::duplex(64);
        let sent = sent.to_vec();
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut far, &sent).await;
        });
        let (reader, _writer) = tokio::io::split(near);
        let mut pieces: Vec<(LogStream, Vec<u8>)> = Vec::new();
        let mut output = output(reader, tty);
        while let Some(piece) = output.next().await {
            let piece = piece.unwrap();
            match pieces.last_mut() {
                Some((stream, bytes)) if *stream == piece.stream => bytes.extend(piece.bytes),
                _ => pieces.push((piece.stream, piece.bytes.to_vec())),
            }
        }
        pieces
    }

    #[tokio::test]
    async fn messages_are_taken_apart() {
        let long = vec![b'x'; 100_000];
        let mut sent = vec![1, 0, 0, 0, 0, 0, 0, 2, b'o', b'k', 2, 0, 0, 0, 0, 0, 0, 0];
        sent.extend([2, 0, 0, 0]);
        sent.extend(u32::try_from(long.len()).unwrap().to_be_bytes());
        sent.extend(&long);
        let ok = (LogStream::Stdout, b"ok".to_vec());
        assert_eq!(
            pieces(&sent, false).await,
            [ok.clone(), (LogStream::Stderr, long)]
        );
        // Cut off within a message, and within a head.
        assert_eq!(
            pieces(&sent[..9], false).await,
            [(LogStream::Stdout, b"o".to_vec())]
        );
        assert_eq!(pieces(&sent[..13], false).await, [ok]);
    }

    #[tokio::test]
    async fn a_terminal_may_show_any_bytes() {
        let bytes = [0, 0, 0, 0, 255, 255, 255, 255, 1, 2];
        assert_eq!(
            pieces(&bytes, true).await,
            [(LogStream::Stdout, bytes.to_vec())]
        );
    }
}
