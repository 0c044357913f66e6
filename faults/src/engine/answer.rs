//! Requests and answers of HTTP, as little of it as is needed.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

/// The body of an answer: of one piece, or streamed.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, std::convert::Infallible>;
/// An answer.
pub(super) type Answer = Response<AnyBody>;

/// A stream of pieces, which ends when its sender is dropped.
struct Pieces(UnboundedReceiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

fn with(status: u16, kind: &'static str, body: AnyBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let kind = hyper::header::HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// A JSON answer.
pub(super) fn json_answer(status: u16, body: &Value) -> Answer {
    let text = Full::new(Bytes::from(body.to_string()));
    with(status, "application/json", text.boxed_unsync())
}

/// An answer without a body.
pub(super) fn empty(status: u16) -> Answer {
    with(status, "text/plain", Full::new(Bytes::new()).boxed_unsync())
}

/// An answer in plain words.
pub(super) fn words(status: u16, words: &'static str) -> Answer {
    with(
        status,
        "text/plain",
        Full::new(Bytes::from_static(words.as_bytes())).boxed_unsync(),
    )
}

/// A refusal, as Docker words it.
pub(super) fn refused(status: u16, message: impl Into<String>) -> Answer {
    json_answer(status, &json!({ "message": message.into() }))
}

/// An answer that goes on until the pieces end.
pub(super) fn streamed(kind: &'static str, pieces: UnboundedReceiver<Bytes>) -> Answer {
    with(200, kind, Pieces(pieces).boxed_unsync())
}

/// The value of a query's parameter, decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(decoded(value))
}

/// Whether a parameter says yes.
pub(super) fn is_set(query: &str, name: &str) -> bool {
    parameter(query, name).is_some_and(|value| matches!(value.as_str(), "1" | "true" | "True"))
}

/// Text behind `%41` and `+`.
pub(super) fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "all=true&filters=%7B%22label%22%3A%5B%22a%3Db+c%22%5D%7D&t=3&odd=%4";
        assert!(is_set(query, "all"));
        let filters = parameter(query, "filters");
        assert_eq!(filters.as_deref(), Some("{\"label\":[\"a=b c\"]}"));
        assert_eq!(parameter(query, "odd").as_deref(), Some("%4"));
        assert_eq!(parameter(query, "none"), None);
    }
}
