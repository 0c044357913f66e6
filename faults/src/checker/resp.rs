//! A plain reader of Redis: asks, and reads what is answered. Reads only.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// Longest wait for a connection or an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Words, or a number in digits.
    Text(String),
    /// Several answers.
    Many(Vec<Reply>),
    /// Nothing is there.
    Nothing,
    /// Redis refuses.
    Refused(String),
}

impl Reply {
    /// The words of a list, in order; a lone word is a list of one.
    pub fn texts(self) -> Vec<String> {
        match self {
            Reply::Many(items) => items.into_iter().flat_map(Reply::texts).collect(),
            Reply::Text(text) => vec![text],
            Reply::Nothing => vec![String::new()],
            Reply::Refused(_) => Vec::new(),
        }
    }

    /// The words of a lone answer; empty for anything else.
    pub fn text(self) -> String {
        match self {
            Reply::Text(text) => text,
            _ => String::new(),
        }
    }
}

/// A connection.
pub struct Resp(BufReader<TcpStream>);

impl Resp {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: &str) -> anyhow::Result<Resp> {
        let places = address.to_socket_addrs()?;
        let place = places.into_iter().next();
        let place = place.ok_or_else(|| anyhow::anyhow!("{address} is no address"))?;
        let stream = TcpStream::connect_timeout(&place, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Resp(BufReader::new(stream)))
    }

    /// Asks one thing.
    ///
    /// # Errors
    /// The connection broke, or what came is no answer.
    pub fn ask(&mut self, words: &[&str]) -> anyhow::Result<Reply> {
        let reply = self.ask_all(&[words.iter().map(|word| (*word).to_owned()).collect()])?;
        Ok(reply.into_iter().next().unwrap_or(Reply::Nothing))
    }

    /// Asks many things at once.
    ///
    /// # Errors
    /// The connection broke, or what came is no answer.
    pub fn ask_all(&mut self, commands: &[Vec<String>]) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::with_capacity(commands.len());
        // Not more at once than both sides' buffers hold, or each would wait for the other.
        for some in commands.chunks(100) {
            let mut bytes = Vec::new();
            for words in some {
                write!(bytes, "*{}\r\n", words.len())?;
                for word in words {
                    write!(bytes, "${}\r\n{word}\r\n", word.len())?;
                }
            }
            self.0.get_mut().write_all(&bytes)?;
            for _ in some {
                replies.push(self.reply()?);
            }
        }
        Ok(replies)
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let line = line.trim_end();
        anyhow::ensure!(!line.is_empty(), "Redis closed the connection");
        let (kind, rest) = line.split_at(1);
        Ok(match kind {
            "+" | ":" => Reply::Text(rest.to_owned()),
            "-" => Reply::Refused(rest.to_owned()),
            "$" => match rest.parse::<i64>()? {
                length if length < 0 => Reply::Nothing,
                length => {
                    let mut bytes = vec![0; usize::try_from(length)? + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(bytes.len() - 2);
                    Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match rest.parse::<i64>()? {
                length if length < 0 => Reply::Nothing,
                length => {
                    let items = (0..length).map(|_| self.reply());
                    Reply::Many(items.collect::<anyhow::Result<_>>()?)
                }
            },
            _ => anyhow::bail!("Redis answered {line:?}"),
        })
    }
}
