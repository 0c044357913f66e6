//! The plainest HTTP there is, for tests that talk to a real binary: one request a connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Status and body of an answer; an error if the connection ended without one.
pub async fn post(
    address: &str,
    path: &str,
    idempotency_key: &str,
    body: &str,
) -> Result<(u16, String), String> {
    ask("POST", address, path, idempotency_key, body).await
}

/// The same with any method; no key is sent where it is empty.
pub async fn ask(
    method: &str,
    address: &str,
    path: &str,
    idempotency_key: &str,
    body: &str,
) -> Result<(u16, String), String> {
    let key = match idempotency_key {
        "" => String::new(),
        key => format!("idempotency-key: {key}\r\n"),
    };
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         {key}content-length: {length}\r\n\r\n{body}"
    );
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(ANSWER_LIMIT, exchange).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = status.ok_or_else(|| format!("no answer: {answer:?}"))?;
    Ok((status, body.to_owned()))
}
