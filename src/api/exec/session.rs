//! A client's session with the agent that runs its command: frames pass both ways, none is kept.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt as _;
use futures_util::stream::SplitStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::api::App;
use crate::api::sessions::{self, API_ENDS, Asked, STORE_LOST, TAKE_LIMIT};
use crate::model::{ExecFrame, NodeRequest};
use crate::store::{
    Frame, Heard, Kept, Listener, SESSION_KEEP, SessionId, Side, StoreError, UNREAD_MAX,
    WriteOutcome,
};
use crate::telemetry;

/// Longest wait of one question to Redis.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// Time between two signs of life to the client, without which proxies on the way cut it off. That
/// the client answers is seen to by the kernel, which tells one that is slow from one that is lost.
const PING: Duration = Duration::from_secs(15);
/// Most bytes of input in one frame.
const FRAME_BYTES: usize = 16 * 1024;
/// Longest wait for the word that there is room for input.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The two ends of a client's connection.
pub(super) struct Client {
    pub(super) incoming: SplitStream<WebSocket>,
    pub(super) outgoing: mpsc::Sender<Message>,
}

/// How a session ended.
enum Ended {
    /// With these words for the client.
    With(ExecFrame),
    /// The client has gone.
    Left,
}

impl Ended {
    fn error(why: impl Into<String>) -> Ended {
        Ended::With(ExecFrame::Error(why.into()))
    }

    fn store(error: &StoreError) -> Ended {
        tracing::warn!(error = telemetry::chain(error), "a command is cut off");
        Ended::error(sessions::lost(error))
    }
}

/// Runs a command for a client; the last frame for it, if it is still there.
pub(super) async fn run(
    app: &App,
    mut listener: Listener,
    client: Client,
    node: &str,
    request: &NodeRequest,
) -> Option<ExecFrame> {
    let session = match sessions::ask(app, node, request).await {
        Ok(Asked::Opened(session)) => session,
        Ok(Asked::Refused(why)) => return Some(ExecFrame::Error(why)),
        Err(error) => match Ended::store(&error) {
            Ended::With(frame) => return Some(frame),
            Ended::Left => return None,
        },
    };
    listener.add(session.clone());
    let Client { incoming, outgoing } = client;
    let talk = Talk {
        app,
        session: &session,
        node,
        room: Notify::new(),
    };
    let ended = tokio::select! {
        ended = talk.down(listener, &outgoing) => ended,
        ended = talk.up(incoming) => ended,
        ended = talk.keep() => ended,
        ended = ping(&outgoing) => ended,
        () = outgoing.closed() => Ended::Left,
        () = app.seats.ends.cancelled() => Ended::error(API_ENDS),
    };
    sessions::end(&app.store, &[session]).await;
    match ended {
        Ended::With(frame) => Some(frame),
        Ended::Left => None,
    }
}

struct Talk<'a> {
    app: &'a App,
    session: &'a SessionId,
    node: &'a str,
    /// The agent has read what was in the way.
    room: Notify,
}

impl Talk<'_> {
    /// What the agent says goes to the client.
    async fn down(&self, mut listener: Listener, client: &mpsc::Sender<Message>) -> Ended {
        let mut take_by = Some(Instant::now() + TAKE_LIMIT);
        loop {
            let longest = take_by.map_or(WAIT, |by| by.saturating_duration_since(Instant::now()));
            let heard = match listener.hear(longest).await {
                Ok(heard) => heard,
                Err(error) => return Ended::store(&error),
            };
            for heard in heard {
                let Heard::Said(_, entry, frame) = heard else {
                    continue;
                };
                take_by = None;
                let shown = match frame {
                    Some(Frame::Stdout(bytes)) => ExecFrame::Stdout(bytes),
                    Some(Frame::Stderr(bytes)) => ExecFrame::Stderr(bytes),
                    Some(Frame::Exit(code)) => return Ended::With(ExecFrame::Exit(code)),
                    Some(Frame::Error(why)) => return Ended::error(why),
                    Some(Frame::Absent) => {
                        return Ended::error(format!("node {} has no container of it", self.node));
                    }
                    other => {
                        if other == Some(Frame::Room) {
                            self.room.notify_one();
                        }
                        listener.has_read(self.session, entry);
                        continue;
                    }
                };
                if client
                    .send(Message::Binary(shown.to_bytes().into()))
                    .await
                    .is_err()
                {
                    return Ended::Left;
                }
                listener.has_read(self.session, entry);
            }
            if take_by.is_some_and(|by| Instant::now() >= by) {
                return Ended::error(sessions::not_taken(self.node));
            }
        }
    }

    /// What the client says goes to the agent.
    async fn up(&self, mut incoming: SplitStream<WebSocket>) -> Ended {
        loop {
            let Some(Ok(message)) = incoming.next().await else {
                return Ended::Left;
            };
            let frame = match message {
                Message::Binary(bytes) => ExecFrame::read(&bytes),
                Message::Close(_) => return Ended::Left,
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Text(_) => None,
            };
            let said = match frame {
                Some(ExecFrame::Stdin(bytes)) => {
                    let pieces = bytes.chunks(FRAME_BYTES);
                    pieces.map(|piece| Frame::Stdin(piece.to_vec())).collect()
                }
                Some(ExecFrame::StdinEnd) => vec![Frame::StdinEnd],
                Some(ExecFrame::Resize(size)) => vec![Frame::Resize(size)],
                _ => return Ended::error("a message is not understood: see the API's description"),
            };
            if let Some(ended) = self.say(&said).await {
                return ended;
            }
        }
    }

    /// Says frames to the agent, waiting for room; how the session ended, if it did.
    async fn say(&self, mut frames: &[Frame]) -> Option<Ended> {
        while !frames.is_empty() {
            let port = self.app.store.sessions();
            match port
                .write(self.session, Side::Api, frames, UNREAD_MAX)
                .await
            {
                Ok(WriteOutcome::Written(count)) => {
                    frames = frames.get(count..).unwrap_or_default();
                }
                Ok(WriteOutcome::Gone) => return Some(Ended::error(STORE_LOST)),
                Err(error) => return Some(Ended::store(&error)),
            }
            if !frames.is_empty() {
                // The word may be lost with its key; then a look tells.
                let _ = tokio::time::timeout(ROOM_WAIT, self.room.notified()).await;
            }
        }
        None
    }

    /// Renews the session until the agent is silent.
    async fn keep(&self) -> Ended {
        loop {
            tokio::time::sleep(SESSION_KEEP).await;
            let port = self.app.store.sessions();
            let sessions = std::slice::from_ref(self.session);
            match port.keep(Side::Api, sessions).await.as_deref() {
                Ok([Kept::Ok]) => {}
                Ok([Kept::Silent]) => return Ended::error(sessions::silent(self.node)),
                Ok(_) => return Ended::error(STORE_LOST),
                Err(error) => return Ended::store(error),
            }
        }
    }
}

/// Shows the client signs of life.
async fn ping(client: &mpsc::Sender<Message>) -> Ended {
    loop {
        tokio::time::sleep(PING).await;
        if client.send(Message::Ping(Vec::new().into())).await.is_err() {
            return Ended::Left;
        }
    }
}
