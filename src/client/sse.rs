//! Following a stream of server-sent events: it goes on where it was, whatever happens to the
//! connection or to the API.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HeaderName, HeaderValue};
use hyper::{Request, Response};

use super::{ANSWER_MAX, Client, ClientError, ProblemAnswer, TIMEOUT};

/// Pause before connecting again.
const PAUSE: Duration = Duration::from_secs(1);
/// A stream that is silent for longer is dead: the API gives a sign of life every 10 s.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest line: far above any object.
const LINE_MAX: usize = 16 * 1024 * 1024;

/// An event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its name.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// A stream that is followed.
pub struct Follow {
    client: Client,
    path: String,
    last_id: Option<String>,
    was_open: bool,
    open: Option<Incoming>,
    parser: Parser,
}

impl Client {
    /// Follows the stream at `path`, which is escaped already.
    pub fn follow(&self, path: &str) -> Follow {
        Follow {
            client: self.clone(),
            path: path.to_owned(),
            last_id: None,
            was_open: false,
            open: None,
            parser: Parser::default(),
        }
    }
}

impl Follow {
    /// The next event. Once the stream was open, waits for as long as the API is away.
    ///
    /// # Errors
    /// The API says no, or cannot be reached at the start.
    pub async fn next(&mut self) -> Result<ServerEvent, ClientError> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(event);
            }
            let Some(body) = &mut self.open else {
                self.connect().await?;
                continue;
            };
            let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await;
            match frame {
                Ok(Some(Ok(frame))) if self.parser.rest.len() <= LINE_MAX => {
                    self.parser.add(frame.data_ref().unwrap_or(&Bytes::new()));
                }
                _ => {
                    self.open = None;
                    self.last_id = self.parser.last_id.clone();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        match self.ask().await {
            Ok(body) => {
                self.open = Some(body);
                self.was_open = true;
                self.parser = Parser {
                    last_id: self.last_id.clone(),
                    ..Parser::default()
                };
                Ok(())
            }
            Err(ClientError::Refused(problem)) if problem.status < 500 => {
                Err(ClientError::Refused(problem))
            }
            Err(_) if self.was_open => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn ask(&self) -> Result<Incoming, ClientError> {
        let asked = tokio::time::timeout(TIMEOUT, self.request()).await;
        let address = &self.client.address;
        let answer = asked.unwrap_or_else(|_| {
            Err(ClientError::TimedOut {
                address: address.clone(),
                waited: TIMEOUT,
            })
        })?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(answer.into_body());
        }
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect();
        let bytes = body.await.map_err(|source| ClientError::Unreachable {
            address: address.clone(),
            source,
        })?;
        let problem: Result<ProblemAnswer, _> = serde_json::from_slice(&bytes.to_bytes());
        let problem = problem.map_err(|source| ClientError::Foreign {
            address: address.clone(),
            status,
            source,
        })?;
        Err(ClientError::Refused(Box::new(problem)))
    }

    async fn request(&self) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        let uri = format!("{}{}", self.client.address, self.path);
        *request.uri_mut() = uri.parse().map_err(|_| ClientError::Address {
            address: uri,
            reason: "it is no address",
        })?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = self.last_id.as_deref()
            && let Ok(id) = HeaderValue::from_str(id)
        {
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let answer = self.client.http.request(request).await;
        answer.map_err(|source| ClientError::Unreachable {
            address: self.client.address.clone(),
            source: source.into(),
        })
    }
}

/// Bytes into events, as the HTML standard says, without what this API never sends.
#[derive(Default)]
struct Parser {
    /// What came after the last event that is whole.
    rest: Vec<u8>,
    last_id: Option<String>,
}

impl Parser {
    fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next event that is whole and has data.
    fn next(&mut self) -> Option<ServerEvent> {
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let mut event = ServerEvent::default();
            for line in String::from_utf8_lossy(&block).lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "id" => self.last_id = Some(value.to_owned()),
                    "event" => value.clone_into(&mut event.event),
                    "data" => event.data.push_str(value),
                    _ => {}
                }
            }
            if !event.data.is_empty() {
                return Some(event);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_any_pieces() {
        let text = "retry: 1000\n\n: beat\nid: 5-0\n\nid: 5-0.1\nevent: pod\ndata: {\"a\":\"\u{e4}\"}\n\n\
                    event: x\ndata:1\n\nevent: half\nda";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.add(piece);
                while let Some(event) = parser.next() {
                    found.push((event.event, event.data, parser.last_id.clone()));
                }
            }
            let id = Some("5-0.1".to_owned());
            let expected = [
                (
                    "pod".to_owned(),
                    "{\"a\":\"\u{e4}\"}".to_owned(),
                    id.clone(),
                ),
                ("x".to_owned(), "1".to_owned(), id),
            ];
            assert_eq!(found, expected, "pieces of {size}");
        }
    }
}
