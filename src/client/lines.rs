//! An answer line by line, as it comes.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HeaderValue};

use super::{ANSWER_MAX, Client, ClientError};

/// The lines of an answer, which may never end.
pub struct Lines {
    address: String,
    body: Incoming,
    /// What came and was not given out, from `at` on.
    held: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Client {
    /// The lines at `path`, which is escaped already.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let mut request = Request::new(Full::new(Bytes::new()));
        let uri = format!("{}{path}", self.address);
        *request.uri_mut() = uri.parse().map_err(|_| ClientError::Address {
            address: uri,
            reason: "it is no address",
        })?;
        let accept = HeaderValue::from_static("application/x-ndjson");
        request.headers_mut().insert(ACCEPT, accept);
        let asked = async {
            let answer = self.http.request(request).await;
            let answer = answer.map_err(|error| self.unreachable(error.into()))?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer.into_body());
            }
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| self.unreachable(error))?;
            Err(self.refusal(status.as_u16(), &body.to_bytes()))
        };
        Ok(Lines {
            address: self.address.clone(),
            body: self.in_time(asked).await?,
            held: Vec::new(),
            at: 0,
            is_over: false,
        })
    }
}

impl Lines {
    /// Waits for more; false at the end of the answer.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn more(&mut self) -> Result<bool, ClientError> {
        self.held.drain(..self.at);
        self.at = 0;
        match self.body.frame().await {
            None => {
                self.is_over = true;
                Ok(false)
            }
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.held.extend_from_slice(bytes);
                }
                Ok(true)
            }
            Some(Err(error)) => Err(ClientError::CutOff {
                address: self.address.clone(),
                source: error.into(),
            }),
        }
    }

    /// The next line that has come, without its end.
    pub fn next_line(&mut self) -> Option<&[u8]> {
        let rest = &self.held[self.at..];
        let begin = self.at;
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                self.at += end + 1;
                Some(&self.held[begin..begin + end])
            }
            // The last line may lack its end.
            None if self.is_over && !rest.is_empty() => {
                self.at = self.held.len();
                Some(&self.held[begin..])
            }
            None => None,
        }
    }
}
