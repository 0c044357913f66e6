//! An agent's side of one session: what it hears, what it says, and when it is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::store::{Frame, SessionId, Side, Store, UNREAD_MAX, WriteOutcome};
use crate::telemetry::chain;

/// Frames that may wait for the session's task. The API leaves fewer unread; with more of them it
/// does not keep to that.
const WAITING_MAX: usize = 64;
/// Frames after which the API is told that they were read, even if more wait.
const READ_MAX: usize = 8;
/// Longest wait for the word that there is room, which may be lost with a key.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The session is over: nobody listens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over;

type Passed = (String, Option<Frame>);

/// The end of a session that the listening loop holds.
pub(super) struct Other {
    frames: mpsc::Sender<Passed>,
    over: CancellationToken,
}

/// Hears what the API says.
pub(super) struct Ear {
    store: Store,
    session: SessionId,
    frames: mpsc::Receiver<Passed>,
    room: Arc<Notify>,
    /// The last frame that was handed out, and how many since the API was told.
    unread: Option<(String, usize)>,
}

/// Says something to the API.
pub(super) struct Mouth {
    store: Store,
    session: SessionId,
    room: Arc<Notify>,
    over: CancellationToken,
    unread_max: usize,
}

/// The three ends of a session, which is over with `ends` at the latest.
pub(super) fn talk(
    store: &Store,
    session: &SessionId,
    ends: &CancellationToken,
) -> (Other, Ear, Mouth) {
    let (sender, frames) = mpsc::channel(WAITING_MAX);
    let over = ends.child_token();
    let room = Arc::new(Notify::new());
    let ear = Ear {
        store: store.clone(),
        session: session.clone(),
        frames,
        room: room.clone(),
        unread: None,
    };
    let mouth = Mouth {
        store: store.clone(),
        session: session.clone(),
        room,
        over: over.clone(),
        unread_max: UNREAD_MAX,
    };
    let frames = sender;
    (Other { frames, over }, ear, mouth)
}

impl Other {
    /// Passes a frame on, in order.
    pub(super) fn pass(&self, entry: String, frame: Option<Frame>) {
        if self.frames.try_send((entry, frame)).is_err() {
            self.end();
        }
    }

    pub(super) fn end(&self) {
        self.over.cancel();
    }
}

impl Ear {
    /// The next frame that is for the session's task; waits for ever when there are no more.
    /// Not cancel-safe: a frame may be lost.
    pub(super) async fn next(&mut self) -> Frame {
        loop {
            let Some((entry, frame)) = self.take().await else {
                return std::future::pending().await;
            };
            let count = self.unread.as_ref().map_or(0, |(_, count)| *count);
            self.unread = Some((entry, count + 1));
            match frame {
                Some(Frame::Room) => self.room.notify_one(),
                Some(frame) => return frame,
                None => {}
            }
        }
    }

    /// Hears nothing but that there is room.
    pub(super) async fn listen(mut self) -> std::convert::Infallible {
        loop {
            self.next().await;
        }
    }

    /// Takes a frame; before it waits for one it tells what was read.
    async fn take(&mut self) -> Option<Passed> {
        if self
            .unread
            .as_ref()
            .is_some_and(|(_, count)| *count < READ_MAX)
            && let Ok(passed) = self.frames.try_recv()
        {
            return Some(passed);
        }
        if let Some((entry, _)) = self.unread.take() {
            let sessions = self.store.sessions();
            if let Err(error) = sessions.read(Side::Agent, &self.session, &entry).await {
                tracing::debug!(session = %self.session, error = chain(&error), "not told what was read");
            }
        }
        self.frames.recv().await
    }
}

impl Mouth {
    /// Leaves fewer frames unread than usual, where that is wanted.
    pub(super) fn keep_unread_below(&mut self, unread_max: Option<usize>) {
        self.unread_max = unread_max.unwrap_or(UNREAD_MAX).clamp(1, UNREAD_MAX);
    }

    /// Says something, waiting for room.
    pub(super) async fn say(&self, frame: Frame) -> Result<(), Over> {
        self.say_all(&[frame]).await
    }

    /// Says several things in few calls.
    pub(super) async fn say_all(&self, mut frames: &[Frame]) -> Result<(), Over> {
        while !frames.is_empty() {
            let sessions = self.store.sessions();
            let written = tokio::select! {
                written = sessions.write(&self.session, Side::Agent, frames, self.unread_max) => written,
                () = self.over.cancelled() => return Err(Over),
            };
            let count = match written {
                Ok(WriteOutcome::Written(count)) => count,
                Ok(WriteOutcome::Gone) => return Err(Over),
                Err(error) => {
                    tracing::warn!(session = %self.session, error = chain(&error), "a session is given up");
                    return Err(Over);
                }
            };
            frames = frames.get(count..).unwrap_or_default();
            if !frames.is_empty() {
                tokio::select! {
                    () = self.room.notified() => {}
                    () = tokio::time::sleep(ROOM_WAIT) => {}
                    () = self.over.cancelled() => return Err(Over),
                }
            }
        }
        Ok(())
    }

    /// Waits until the session is over. Cancel-safe.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}
