//! The task of one answer: asks agents, merges what they say, and writes it for as long as the
//! client reads.
//!
//! It waits for Redis and for the client, each with the sessions renewed meanwhile, so that a client
//! that stands still is not taken for one that is gone. What a client does not read stays with the
//! agents: each leaves a bounded amount unread.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::render::Render;
use super::source::Source;
use crate::api::App;
use crate::api::sessions::{self, Asked, STORE_LOST, TAKE_LIMIT};
use crate::model::{LogLine, LogWish, NodeRequest, Phase, Pod, PodId, ServiceKey, Since};
use crate::store::{
    Frame, Heard, Kept, Listener, PodFilter, SESSION_KEEP, SessionId, Side, StoreError,
};
use crate::telemetry;

/// Longest wait of one question to Redis.
pub(super) const WAIT: Duration = Duration::from_secs(5);
/// Time between two looks for pods that appeared, or run again, or have ended.
const LOOK: Duration = Duration::from_secs(2);
/// Time until an agent that could not be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Most pods of a service whose logs are read at once.
const PODS_MAX: usize = 100;
/// From so many pods on each leaves less unread: the sum is what counts for Redis.
const MANY: usize = 8;
/// What each of many leaves unread, in batches.
const UNREAD_OF_MANY: usize = 2;
/// Bytes that are written to the client at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Whose logs are read.
pub(super) enum Target {
    Pod(PodId),
    Service(ServiceKey),
}

/// Why the task ends before all was written.
enum Stop {
    /// Nobody reads any more.
    Left,
    /// The API ends.
    Ends,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Store(error)
    }
}

/// What is known of a pod whose log is read.
#[derive(Default)]
struct Seen {
    /// A source of it is open.
    is_open: bool,
    /// Its kept lines were shown, or need not be.
    past_is_shown: bool,
    /// The attempt whose log is or was read, and the time of its last line that was shown.
    attempt: u64,
    shown: Option<String>,
    /// The attempt whose log was read to its end.
    ended: Option<u64>,
    /// What was told last in place of lines, and when to try again.
    told: Option<String>,
    /// Where the pod is in its life.
    state: String,
    again: Option<Instant>,
}

pub(super) struct Follower {
    app: App,
    target: Target,
    wish: LogWish,
    render: Render,
    listener: Listener,
    sources: HashMap<SessionId, Source>,
    /// Those of them that are sessions.
    sessions: HashSet<SessionId>,
    pods: HashMap<PodId, Seen>,
    /// Pods that are seen from now on are new: all of their lines are.
    has_looked: bool,
    /// Nothing new can come but from open sources.
    is_complete: bool,
    out: Vec<u8>,
    pieces: mpsc::Sender<Bytes>,
    keep_at: Instant,
    look_at: Instant,
}

impl Follower {
    pub(super) fn new(
        app: App,
        target: Target,
        wish: LogWish,
        render: Render,
        listener: Listener,
        pieces: mpsc::Sender<Bytes>,
    ) -> Follower {
        let now = Instant::now();
        Follower {
            app,
            target,
            wish,
            render,
            listener,
            sources: HashMap::new(),
            sessions: HashSet::new(),
            pods: HashMap::new(),
            has_looked: false,
            is_complete: false,
            out: Vec::new(),
            pieces,
            keep_at: now + SESSION_KEEP,
            look_at: now,
        }
    }

    /// Writes the answer, and ends the sessions.
    pub(super) async fn run(mut self) {
        let why = match self.write_all().await {
            Ok(()) | Err(Stop::Left) => None,
            Err(Stop::Ends) => Some(sessions::API_ENDS),
            Err(Stop::Store(error)) => {
                tracing::warn!(error = telemetry::chain(&error), "logs are cut off");
                Some(sessions::lost(&error))
            }
        };
        if let Some(why) = why {
            self.render.error(&mut self.out, None, None, why);
            // A client that does not read now will find the answer cut off.
            let _ = self.pieces.try_send(Bytes::from(self.out));
        }
        drop(self.pieces);
        let open: Vec<SessionId> = self.sessions.into_iter().collect();
        sessions::end(&self.app.store, &open).await;
    }

    async fn write_all(&mut self) -> Result<(), Stop> {
        loop {
            let now = Instant::now();
            if now >= self.look_at && !self.is_complete {
                self.look().await?;
                self.look_at = Instant::now() + LOOK;
            }
            if now >= self.keep_at {
                self.keep().await?;
            }
            self.give_up_silent_agents();
            self.merge().await?;
            while self.close_ended().await? {
                self.merge().await?; // what was kept of those
            }
            self.flush().await?;
            if self.sources.is_empty() && self.is_complete {
                return Ok(());
            }
            self.hear().await?;
        }
    }

    /// Waits until something is said, or something else is to be done.
    async fn hear(&mut self) -> Result<(), Stop> {
        let takes = self.sources.values().filter_map(|source| source.take_by);
        let looks = (!self.is_complete).then_some(self.look_at);
        let until = takes.chain(looks).fold(self.keep_at, Instant::min);
        let longest = until.saturating_duration_since(Instant::now()).min(WAIT);
        let is_alone = self.sessions.is_empty();
        let hear = async {
            if is_alone {
                tokio::time::sleep(longest).await;
                return Ok(Vec::new());
            }
            self.listener.hear(longest).await
        };
        let heard = tokio::select! {
            heard = hear => heard?,
            () = self.pieces.closed() => return Err(Stop::Left),
            () = self.app.seats.ends.cancelled() => return Err(Stop::Ends),
        };
        for heard in heard {
            if let Heard::Said(session, entry, frame) = heard
                && let Some(source) = self.sources.get_mut(&session)
                && let Some(read) = source.note(entry, frame)
            {
                self.listener.has_read(&session, read);
            }
        }
        Ok(())
    }

    /// Writes the lines at hand, oldest first, as long as no older ones may come.
    async fn merge(&mut self) -> Result<(), Stop> {
        while !self.sources.values().any(Source::holds_up) {
            let next = self.sources.iter().filter_map(|(session, source)| {
                let line = source.line()?;
                Some((line.time, session))
            });
            let Some((_, session)) = next.min_by_key(|(time, _)| *time) else {
                return Ok(());
            };
            let session = session.clone();
            let alone = self.sources.len() == 1;
            let Some(source) = self.sources.get_mut(&session) else {
                return Ok(());
            };
            while let Some(line) = source.line() {
                self.render
                    .line(&mut self.out, source.pod.as_str(), &source.node, &line);
                let used_up = source.advance();
                let is_full = self.out.len() >= PIECE_BYTES;
                if let Some(read) = used_up {
                    self.listener.has_read(&session, read);
                }
                if !alone || is_full {
                    break;
                }
            }
            if self.out.len() >= PIECE_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hands what was written to the client, and waits until it takes it.
    async fn flush(&mut self) -> Result<(), Stop> {
        if self.out.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.out));
        loop {
            let pieces = self.pieces.clone();
            tokio::select! {
                permit = pieces.reserve() => match permit {
                    Ok(permit) => {
                        permit.send(piece);
                        return Ok(());
                    }
                    Err(_) => return Err(Stop::Left),
                },
                () = tokio::time::sleep_until(self.keep_at) => {}
                () = self.app.seats.ends.cancelled() => return Err(Stop::Ends),
            }
            self.keep().await?;
        }
    }

    /// Renews the sessions; those whose agent is silent end.
    async fn keep(&mut self) -> Result<(), Stop> {
        self.keep_at = Instant::now() + SESSION_KEEP;
        let open: Vec<SessionId> = self.sessions.iter().cloned().collect();
        if open.is_empty() {
            return Ok(());
        }
        let found = self.app.store.sessions().keep(Side::Api, &open).await?;
        for (session, kept) in open.iter().zip(found) {
            let Some(source) = self.sources.get_mut(session) else {
                continue;
            };
            match kept {
                Kept::Ok => {}
                Kept::Silent => source.end(Frame::Error(sessions::silent(&source.node))),
                Kept::Gone => source.end(Frame::Error(STORE_LOST.to_owned())),
            }
        }
        Ok(())
    }

    fn give_up_silent_agents(&mut self) {
        let now = Instant::now();
        for source in self.sources.values_mut() {
            if source.take_by.is_some_and(|take_by| now >= take_by) {
                source.end(Frame::Error(sessions::not_taken(&source.node)));
            }
        }
    }

    /// Closes sources that gave all they had, and shows what was kept of those that had nothing; false
    /// if there were none.
    async fn close_ended(&mut self) -> Result<bool, Stop> {
        let ended = self.sources.iter().filter_map(|(session, source)| {
            let last = source.ended()?.clone();
            Some((session.clone(), last))
        });
        let ended: Vec<(SessionId, Frame)> = ended.collect();
        if ended.is_empty() {
            return Ok(false);
        }
        let mut over = Vec::new();
        for (session, last) in ended {
            let Some(source) = self.sources.remove(&session) else {
                continue;
            };
            self.listener.remove(&session);
            if self.sessions.remove(&session) {
                over.push(session);
            }
            let (pod, node) = (source.pod.clone(), source.node.clone());
            let seen = self.pods.entry(pod.clone()).or_default();
            seen.is_open = false;
            if let Some(shown) = source.into_shown() {
                seen.shown = Some(shown);
            }
            match last {
                Frame::Error(why) => {
                    seen.again = Some(Instant::now() + ASK_AGAIN);
                    self.tell(&pod, Some(&node), why);
                    self.show_past(&pod).await?;
                }
                Frame::Absent => {
                    let has_nothing = !self.show_past(&pod).await? && !self.wish.follow;
                    if has_nothing {
                        let state = self.pods.get(&pod).map(|seen| seen.state.clone());
                        let why = format!("it has no container: {}", state.unwrap_or_default());
                        self.tell(&pod, Some(&node), why);
                    }
                }
                _ => {}
            }
        }
        sessions::end(&self.app.store, &over).await;
        Ok(true)
    }

    /// Looks which pods there are, and asks the agents of those whose log is not read yet.
    async fn look(&mut self) -> Result<(), Stop> {
        let (pods, is_gone) = match &self.target {
            Target::Pod(id) => {
                let pod = self.app.store.pods().get(id).await?;
                if pod.is_none() {
                    let id = id.clone();
                    self.show_past(&id).await?;
                }
                let is_over = pod.as_ref().is_none_or(|pod| pod.phase.is_ended());
                (Vec::from_iter(pod), is_over)
            }
            Target::Service(key) => {
                let filter = PodFilter {
                    service: Some(key.clone()),
                    ..PodFilter::default()
                };
                let found = self.app.store.pods().list(&filter, None, PODS_MAX).await?;
                if found.cursor.is_some() && self.pods.is_empty() {
                    let why = format!(
                        "the service has more than {PODS_MAX} pods: those of the first are shown; ask for the others by pod"
                    );
                    self.render.error(&mut self.out, None, None, &why);
                }
                let is_gone = self.app.store.services().get(key).await?.is_none();
                (found.pods, is_gone)
            }
        };
        let many = pods.len() >= MANY;
        for pod in &pods {
            self.look_at(pod, many).await?;
        }
        self.has_looked = true;
        self.is_complete = is_gone || !self.wish.follow;
        Ok(())
    }

    /// Asks the agent of a pod, if that has something to tell.
    async fn look_at(&mut self, pod: &Pod, many: bool) -> Result<(), Stop> {
        self.note_a_move(pod);
        let seen = self.pods.entry(pod.id.clone()).or_default();
        let was_read = seen.ended == Some(pod.attempt) && pod.phase.is_ended();
        if seen.is_open || was_read || seen.again.is_some_and(|again| Instant::now() < again) {
            return Ok(());
        }
        if pod.phase.is_ended() {
            seen.ended = Some(pod.attempt);
        }
        seen.state = match &pod.reason {
            Some(reason) => format!("it is {}: {reason}", pod.phase),
            None => format!("it is {}", pod.phase),
        };
        let Some(node) = pod.node.as_deref() else {
            let why = seen.state.clone();
            self.tell(&pod.id, None, why);
            self.show_past(&pod.id).await?;
            return Ok(());
        };
        if matches!(pod.phase, Phase::Scheduled) && self.wish.follow {
            return Ok(()); // nothing was made yet
        }
        let mut wish = wish_after(&self.wish, seen.shown.clone());
        if self.has_looked {
            wish.tail = None;
        }
        let request = NodeRequest::Logs {
            pod: pod.id.clone(),
            wish,
            unread_max: many.then_some(UNREAD_OF_MANY),
        };
        match sessions::ask(&self.app, node, &request).await? {
            Asked::Opened(session) => {
                let take_by = Instant::now() + TAKE_LIMIT;
                let source = Source::asked(pod.id.clone(), node.to_owned(), take_by);
                self.listener.add(session.clone());
                self.sources.insert(session.clone(), source);
                self.sessions.insert(session);
                self.pods.entry(pod.id.clone()).or_default().is_open = true;
                Ok(())
            }
            Asked::Refused(why) => {
                self.pods.entry(pod.id.clone()).or_default().again =
                    Some(Instant::now() + ASK_AGAIN);
                self.tell(&pod.id, Some(node), why);
                self.show_past(&pod.id).await?;
                Ok(())
            }
        }
    }

    /// A pod that was given to another node, or waits for one, has another log: the open one ends.
    fn note_a_move(&mut self, pod: &Pod) {
        let seen = self.pods.entry(pod.id.clone()).or_default();
        let has_moved = pod.attempt != seen.attempt || pod.node.is_none();
        if seen.is_open && has_moved {
            let mut left = Vec::new();
            for source in self
                .sources
                .values_mut()
                .filter(|source| source.pod == pod.id)
            {
                source.end(Frame::End);
                left.push(source.node.clone());
            }
            for node in left {
                self.tell(
                    &pod.id,
                    Some(&node),
                    format!("it is not on node {node} any more"),
                );
            }
            return;
        }
        if pod.attempt != seen.attempt {
            seen.attempt = pod.attempt;
            seen.shown = None;
        }
    }

    /// Tells why there are no lines of a pod, once.
    fn tell(&mut self, pod: &PodId, node: Option<&str>, why: String) {
        let seen = self.pods.entry(pod.clone()).or_default();
        if seen.told.as_ref() != Some(&why) {
            self.render
                .error(&mut self.out, Some(pod.as_str()), node, &why);
            seen.told = Some(why);
        }
    }

    /// Shows the lines that were kept of a pod behind those that were shown; whether anything was
    /// shown of it, now or before.
    async fn show_past(&mut self, pod: &PodId) -> Result<bool, Stop> {
        let seen = self.pods.entry(pod.clone()).or_default();
        let shown = seen.shown.clone();
        if std::mem::replace(&mut seen.past_is_shown, true) {
            return Ok(true);
        }
        let Some(kept) = self.app.store.kept_logs(pod).await? else {
            return Ok(shown.is_some());
        };
        let lines = wanted(&kept.lines, &wish_after(&self.wish, shown.clone()));
        if lines.is_empty() {
            return Ok(shown.is_some());
        }
        let nobody = SessionId::with(&kept.node);
        let source = Source::kept(pod.clone(), kept.node, lines);
        self.sources.insert(nobody, source);
        Ok(true)
    }
}

/// What is still wanted once lines up to a time were shown.
fn wish_after(wish: &LogWish, shown: Option<String>) -> LogWish {
    match shown {
        None => wish.clone(),
        Some(shown) => LogWish {
            follow: wish.follow,
            tail: None,
            since: Some(Since::After(shown)),
        },
    }
}

/// Those of kept lines that are wanted.
fn wanted(kept: &[u8], wish: &LogWish) -> Vec<u8> {
    let after = match &wish.since {
        None => String::new(),
        Some(Since::After(time)) => time.clone(),
        Some(Since::AgoMs(ms)) => ago(*ms),
    };
    let lines: Vec<LogLine<'_>> = LogLine::read_all(kept)
        .filter(|line| line.time > after.as_str())
        .collect();
    let tail = wish.tail.map_or(usize::MAX, |tail| {
        usize::try_from(tail).unwrap_or(usize::MAX)
    });
    let mut wanted = Vec::new();
    for line in &lines[lines.len().saturating_sub(tail)..] {
        line.write_to(&mut wanted);
    }
    wanted
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of a node that is gone cannot be asked"
)]
fn ago(ms: u64) -> String {
    let time = std::time::SystemTime::now().checked_sub(Duration::from_millis(ms));
    let time = time.unwrap_or(std::time::UNIX_EPOCH);
    humantime_serde::re::humantime::format_rfc3339_nanos(time).to_string()
}
