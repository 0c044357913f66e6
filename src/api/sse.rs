//! Server-sent events: frames, and answers that go on until the client or the process ends.
//!
//! Invariant: a client that does not read costs one frame of memory, and that for a bounded time.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use crate::model::Position;
use crate::store::StoreError;
use crate::store::backoff::Backoff;
use crate::telemetry;

/// Content type of a stream.
pub(super) const EVENT_STREAM: &str = "text/event-stream";
/// Time between two signs of life: below the time after which proxies drop a silent connection.
pub(super) const BEAT: Duration = Duration::from_secs(10);
/// Longest time for a client to take a frame. One that is slower goes on later from its position.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Sent first: how soon a browser connects again, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";

/// Whether the client asks for a stream.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let mut texts = accepted.filter_map(|accepted| accepted.to_str().ok());
    texts.any(|text| text.contains(EVENT_STREAM))
}

/// Frames on their way to the client.
#[derive(Default)]
pub(super) struct Frames(String);

impl Frames {
    /// Adds an event. `id` is where the reader stands once it has this event.
    pub(super) fn event(&mut self, event: &str, id: Option<Position>, data: &impl Serialize) {
        if let Some(id) = id {
            self.0.push_str(&format!("id: {id}\n"));
        }
        // Bodies have string keys and plain values, which always have a JSON form, on one line.
        let data = serde_json::to_string(data).unwrap_or_default();
        self.0
            .push_str(&format!("event: {event}\ndata: {data}\n\n"));
    }

    /// Adds a sign of life that tells where the reader stands, though nothing was for it: else
    /// it would come back with a position that is long gone.
    pub(super) fn beat(&mut self, id: Position) {
        self.0.push_str(&format!(": beat\nid: {id}\n\n"));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The way to the client.
pub(super) struct Out(mpsc::Sender<Bytes>);

/// The client is gone, or too slow.
pub(super) struct Gone;

impl Out {
    /// Sends what there is, if anything.
    pub(super) async fn send(&self, frames: &mut Frames) -> Result<(), Gone> {
        if frames.0.is_empty() {
            return Ok(());
        }
        let bytes = Bytes::from(std::mem::take(&mut frames.0));
        let sent = tokio::time::timeout(TAKE_TIMEOUT, self.0.send(bytes)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// An answer whose frames `produce` sends, until it ends, the client goes, or `shutdown`.
pub(super) fn answer<F>(shutdown: CancellationToken, produce: impl FnOnce(Out) -> F) -> Response
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    // One frame waits while another is written: who does not read is not written for.
    let (frames, taken) = mpsc::channel(1);
    let client = frames.clone();
    let produced = produce(Out(frames));
    tokio::spawn(async move {
        tokio::select! {
            _ = produced => {}
            () = client.closed() => {}
            () = shutdown.cancelled() => {}
        }
    });
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(RETRY.as_bytes()))]);
    let rest = stream::unfold(taken, async |mut taken| {
        let frame = taken.recv().await?;
        Some((Ok(frame), taken))
    });
    let body = Body::from_stream(stream::StreamExt::chain(first, rest));
    let headers = [
        (CONTENT_TYPE, EVENT_STREAM),
        (CACHE_CONTROL, "no-store"),
        // nginx would keep frames back.
        (
            axum::http::HeaderName::from_static("x-accel-buffering"),
            "no",
        ),
    ];
    (headers, body).into_response()
}

/// Calls until Redis answers; a failure that no waiting mends is told, and ends the stream.
pub(super) async fn patiently<T, F>(out: &Out, mut call: impl FnMut() -> F) -> Result<T, Gone>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = telemetry::chain(&error), "a stream waits for Redis");
                tokio::time::sleep(backoff.next_pause()).await;
            }
            Err(error) => {
                tracing::error!(error = telemetry::chain(&error), "a stream failed");
                let mut frames = Frames::default();
                frames.event("problem", None, &Problem::internal());
                out.send(&mut frames).await?;
                return Err(Gone);
            }
        }
    }
}
