//! A plain client of HTTP: one request a connection, over TCP or a socket file.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Longest wait for an answer: above the API's own budget of five seconds.
const LIMIT: Duration = Duration::from_secs(7);

/// Status and body of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Its body; nothing if that is no JSON.
    pub(crate) body: Value,
}

/// Sends a request to `host:port`.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<Answer> {
    let sent = async {
        let stream = TcpStream::connect(address).await?;
        exchange(stream, address, method, path, key, body).await
    };
    let sent = tokio::time::timeout(LIMIT, sent).await;
    sent.with_context(|| format!("{address} did not answer in time"))?
}

/// Sends a request to a socket file.
pub(crate) async fn send_local(
    socket: &Path,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Answer> {
    let sent = async {
        let stream = UnixStream::connect(socket).await?;
        exchange(stream, "local", method, path, "", body).await
    };
    let sent = tokio::time::timeout(LIMIT, sent).await;
    sent.with_context(|| format!("{} did not answer in time", socket.display()))?
}

async fn exchange<S>(
    stream: S,
    host: &str,
    method: &str,
    path: &str,
    key: &str,
    body: &Value,
) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes())?)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json");
    if !key.is_empty() {
        request = request.header("idempotency-key", key);
    }
    let bytes = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let answer = sender.send_request(request.body(Full::new(bytes))?).await?;
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok(Answer {
        status,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    })
}
