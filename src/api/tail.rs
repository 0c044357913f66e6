//! The tail of the stream of events: one reader in this process, however many follow it.
//!
//! The reader exists only while somebody follows. A follower stands at a position of its own: it takes
//! what the reader tells where that joins on, and reads for itself where it does not, because it came
//! later or is slower. So no follower holds up another, and none misses anything.
//!
//! Invariant: a follower gets every event behind its position once, or is told that they are lost
//! (`tests/flow/events.rs`).

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::problem::{Kind, Problem};
use crate::model::{EntryId, Event, Position};
use crate::store::backoff::Backoff;
use crate::store::{EventPage, Lost, ReadOutcome, Store, StoreError};
use crate::telemetry;

/// Most streams at once: a quarter of the connections, since each costs one, and most of a megabyte
/// when it is behind.
const FOLLOWERS_MAX: usize = 200;
/// Entries read by one call: at most 1,000 events, some hundred kilobytes.
const ENTRIES_STEP: usize = 10;
/// Pages kept for slower followers: at most 32,000 events, some ten megabytes.
const NEWS_MAX: usize = 32;
/// Longest wait for news in one call. Then it is looked anyway: what came after FLUSHALL wakes nobody.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What this process knows of the stream's end.
pub(super) struct Tail {
    store: Store,
    shutdown: CancellationToken,
    slots: Arc<Semaphore>,
    hub: Mutex<Weak<Hub>>,
}

/// Where the reader tells its news; the reader ends with the last follower that holds it.
struct Hub {
    news: broadcast::Sender<News>,
    _ends: DropGuard,
}

#[derive(Clone)]
enum News {
    /// What lies between an entry and the page's position.
    Page(EntryId, Arc<EventPage>),
    /// The reader begins anew: what came before its first news, all look for themselves.
    Look,
}

/// One who follows the stream.
pub(super) struct Follower {
    store: Store,
    position: Position,
    /// Whether everything before the reader's next news was read.
    is_live: bool,
    news: broadcast::Receiver<News>,
    backoff: Backoff,
    _hub: Arc<Hub>,
    _slot: OwnedSemaphorePermit,
}

/// What came next.
pub(super) enum Followed {
    /// These events, at least one.
    Events(Vec<Event>),
    /// What lay behind the position is not known any more; it goes on with the oldest that is kept.
    Lost(Lost),
}

impl Tail {
    pub(super) fn new(store: Store, shutdown: CancellationToken) -> Arc<Tail> {
        Arc::new(Tail {
            store,
            shutdown,
            slots: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            hub: Mutex::default(),
        })
    }

    /// A place among those that follow.
    pub(super) fn slot(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.slots.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{FOLLOWERS_MAX} streams are open: try again, or ask another API");
            Problem::new(Kind::TooManyStreams, detail)
        })
    }

    /// Follows the stream from `position` on.
    pub(super) fn follow(&self, slot: OwnedSemaphorePermit, position: Position) -> Follower {
        let hub = self.hub();
        Follower {
            store: self.store.clone(),
            position,
            is_live: false,
            news: hub.news.subscribe(), // before its first look, so that the two join
            backoff: Backoff::new(),
            _hub: hub,
            _slot: slot,
        }
    }

    /// Ends every stream.
    pub(super) fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    fn hub(&self) -> Arc<Hub> {
        let mut known = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = known.upgrade() {
            return hub;
        }
        let (news, _) = broadcast::channel(NEWS_MAX);
        let ends = self.shutdown.child_token();
        let reads = read(self.store.clone(), news.clone());
        tokio::spawn({
            let ends = ends.clone();
            async move { ends.run_until_cancelled(reads).await }
        });
        let hub = Arc::new(Hub {
            news,
            _ends: ends.drop_guard(),
        });
        *known = Arc::downgrade(&hub);
        hub
    }
}

/// Tells news until it is dropped.
async fn read(store: Store, news: broadcast::Sender<News>) {
    let mut backoff = Backoff::new();
    let mut position = None;
    loop {
        let result = read_from(&store, &news, &mut position, &mut backoff).await;
        let Err(error) = result;
        tracing::warn!(
            error = telemetry::chain(&error),
            "reading events failed, trying again"
        );
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

async fn read_from(
    store: &Store,
    news: &broadcast::Sender<News>,
    known: &mut Option<Position>,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, StoreError> {
    let events = store.events();
    let mut arrivals = events.arrivals(LONGEST_WAIT).await?;
    loop {
        let position = match *known {
            Some(position) => position,
            None => {
                let newest = events.newest().await?;
                *known = Some(newest);
                // Nobody listens: they are about to leave.
                let _ = news.send(News::Look);
                newest
            }
        };
        match events.after(position, ENTRIES_STEP).await? {
            ReadOutcome::Read(page) => {
                backoff.reset();
                *known = Some(page.position);
                let more = page.more;
                if !page.events.is_empty() {
                    let _ = news.send(News::Page(position.entry, Arc::new(page)));
                }
                if !more {
                    let last = known.map_or(position.entry, |position| position.entry);
                    arrivals.wait(last).await?;
                }
            }
            ReadOutcome::Lost(_) => *known = None,
        }
    }
}

impl Follower {
    /// Where it stands: behind everything it gave.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// What comes next; waits for it, and for Redis, for as long as that takes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Followed {
        loop {
            let events = if self.is_live {
                self.hear().await
            } else {
                match self.look().await {
                    Ok(events) => events,
                    Err(lost) => return Followed::Lost(lost),
                }
            };
            if !events.is_empty() {
                return Followed::Events(events);
            }
        }
    }

    /// Goes on at another place.
    pub(super) fn go_to(&mut self, position: Position) {
        self.position = position;
        self.is_live = false;
    }

    /// Reads for itself.
    async fn look(&mut self) -> Result<Vec<Event>, Lost> {
        match self.store.events().after(self.position, ENTRIES_STEP).await {
            Ok(ReadOutcome::Read(page)) => {
                self.backoff.reset();
                self.position = page.position;
                self.is_live = !page.more;
                Ok(page.events)
            }
            Ok(ReadOutcome::Lost(lost)) => {
                self.position = lost.oldest;
                Err(lost)
            }
            Err(error) => {
                tracing::debug!(error = telemetry::chain(&error), "following events failed");
                tokio::time::sleep(self.backoff.next_pause()).await;
                Ok(Vec::new())
            }
        }
    }

    /// Hears what the reader tells.
    async fn hear(&mut self) -> Vec<Event> {
        match self.news.recv().await {
            // It was read already.
            Ok(News::Page(_, page)) if page.position <= self.position => Vec::new(),
            Ok(News::Page(behind, page)) if behind <= self.position.entry => {
                let events = page.events.iter();
                let events = events.filter(|event| event.id > self.position).cloned();
                let events = events.collect();
                self.position = page.position;
                events
            }
            // Something lies between, or was dropped because this one is slow.
            Ok(News::Page(..) | News::Look) | Err(RecvError::Lagged(_)) => {
                self.is_live = false;
                Vec::new()
            }
            // The process ends.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
