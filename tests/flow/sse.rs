//! A stream of server-sent events, read as plainly as can be: what arrived, in its order.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

/// Longest wait for the next event.
const LIMIT: Duration = Duration::from_secs(20);

/// An event as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: Option<String>,
    pub(crate) data: Value,
}

/// A stream; the connection ends when it is dropped.
pub(crate) struct Stream {
    body: Incoming,
    /// What arrived and was not taken yet, each with where it leaves the reader.
    blocks: VecDeque<(Option<Frame>, Option<String>)>,
    rest: String,
    /// Where it stands: what a browser would come back with.
    pub(crate) position: Option<String>,
}

impl Stream {
    pub(crate) fn new(body: Incoming, position: Option<&str>) -> Stream {
        Stream {
            body,
            blocks: VecDeque::new(),
            rest: String::new(),
            position: position.map(str::to_owned),
        }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Frame {
        self.next_or_end().await.expect("the stream goes on")
    }

    /// The next event; `None` at the stream's end.
    pub(crate) async fn next_or_end(&mut self) -> Option<Frame> {
        // Signs of life do not count.
        let next = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(frame) = self.next_block().await? {
                    return Some(frame);
                }
            }
        });
        next.await.expect("an event in time")
    }

    /// Waits for a sign of life, which must be next, and gives the position it tells.
    pub(crate) async fn beat(&mut self) -> String {
        loop {
            let block = self.next_block().await.expect("the stream goes on");
            assert_eq!(block, None);
            if let Some(position) = &self.position {
                return position.clone();
            }
        }
    }

    /// The next event, or a block that is none.
    async fn next_block(&mut self) -> Option<Option<Frame>> {
        while self.blocks.is_empty() {
            let piece = self.body.frame().await?.expect("a connection");
            let bytes = piece.into_data().expect("no trailers");
            self.rest.push_str(std::str::from_utf8(&bytes).unwrap());
            let whole = std::mem::take(&mut self.rest);
            let (blocks, rest) = whole.rsplit_once("\n\n").unwrap_or(("", &whole));
            rest.clone_into(&mut self.rest);
            let blocks = blocks.split("\n\n").filter(|block| !block.is_empty());
            self.blocks.extend(blocks.map(read));
        }
        let (frame, position) = self.blocks.pop_front()?;
        if position.is_some() {
            self.position = position;
        }
        Some(frame)
    }
}

fn read(block: &str) -> (Option<Frame>, Option<String>) {
    let mut frame = Frame {
        event: "message".to_owned(),
        id: None,
        data: Value::Null,
    };
    for line in block.lines() {
        let (field, value) = line.split_once(": ").unwrap();
        match field {
            "id" => frame.id = Some(value.to_owned()),
            "event" => frame.event = value.to_owned(),
            "data" => frame.data = serde_json::from_str(value).unwrap(),
            "retry" | "" => {}
            other => panic!("{other}"),
        }
    }
    let position = frame.id.clone();
    (Some(frame).filter(|frame| !frame.data.is_null()), position)
}
