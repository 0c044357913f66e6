//! A plain client of Redis and Sentinel: one question a connection.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A word or a text.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nil,
    /// Several.
    List(Vec<Reply>),
}

impl Reply {
    /// It as text; empty if it is none.
    pub(crate) fn text(&self) -> String {
        match self {
            Reply::Text(text) => text.clone(),
            Reply::Number(number) => number.to_string(),
            Reply::Nil | Reply::List(_) => String::new(),
        }
    }

    /// Its items.
    pub(crate) fn items(&self) -> &[Reply] {
        match self {
            Reply::List(items) => items,
            _ => &[],
        }
    }

    /// The value after a name in a list of names and values.
    pub(crate) fn field(&self, name: &str) -> String {
        let mut pairs = self.items().chunks(2);
        let pair = pairs.find(|pair| pair[0].text() == name);
        pair.and_then(|pair| pair.get(1))
            .map(Reply::text)
            .unwrap_or_default()
    }
}

/// Asks one question.
///
/// # Errors
/// It cannot be reached, does not answer, or answers with an error.
pub(crate) async fn ask(address: &str, words: &[&str]) -> Result<Reply> {
    let asked = tokio::time::timeout(LIMIT, ask_patiently(address, words));
    asked
        .await
        .with_context(|| format!("{address} did not answer {words:?} in time"))?
        .with_context(|| format!("{address} {words:?}"))
}

async fn ask_patiently(address: &str, words: &[&str]) -> Result<Reply> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    stream.write_all(&bytes).await?;
    read(&mut stream).await
}

async fn read(stream: &mut BufReader<TcpStream>) -> Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let Some((kind, rest)) = line.trim_end().split_at_checked(1) else {
        bail!("the connection was closed");
    };
    match kind {
        "+" => Ok(Reply::Text(rest.to_owned())),
        "-" => bail!("{rest}"),
        ":" => Ok(Reply::Number(rest.parse()?)),
        "$" => {
            let Ok(length) = usize::try_from(rest.parse::<i64>()?) else {
                return Ok(Reply::Nil);
            };
            let mut bytes = vec![0; length + 2];
            stream.read_exact(&mut bytes).await?;
            bytes.truncate(length);
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        "*" => {
            let Ok(length) = usize::try_from(rest.parse::<i64>()?) else {
                return Ok(Reply::Nil);
            };
            let mut items = Vec::new();
            for _ in 0..length {
                items.push(Box::pin(read(stream)).await?);
            }
            Ok(Reply::List(items))
        }
        _ => bail!("not an answer: {line:?}"),
    }
}
