//! The plainest HTTP there is, over any stream: one request, one connection, one JSON answer.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer; a body that is no JSON is `Null`.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Asks the API at `address`, such as `127.0.0.1:8080`.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> std::io::Result<Answer> {
    exchange(TcpStream::connect(address).await?, method, path, body).await
}

/// `GET`, which must be answered.
pub(crate) async fn get(address: &str, path: &str) -> Answer {
    let answer = send(address, "GET", path, None).await;
    answer.unwrap_or_else(|error| panic!("GET {path} from {address}: {error}"))
}

/// `POST`, which must be answered.
pub(crate) async fn post(address: &str, path: &str, body: &Value) -> Answer {
    let answer = send(address, "POST", path, Some(body)).await;
    answer.unwrap_or_else(|error| panic!("POST {path} to {address}: {error}"))
}

/// One request and its answer.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> std::io::Result<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    // The older version: the answer ends with the connection, in one piece.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: kubeleet\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let broken = || std::io::Error::other(format!("no whole answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(broken)?,
        body: serde_json::from_str(body).unwrap_or_default(),
    })
}
