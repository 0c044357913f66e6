//! Events in Redis: reading the stream from a position, or its end, and waiting for what comes.
//!
//! Invariant: nothing is passed over in silence. Where Redis no longer has the entry that a position
//! speaks of, what lay behind it may be gone too, and the reader is told so (`tests/store/events.rs`).

pub(super) mod entry;

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, Value};

use super::call::command;
use super::connection::Connection;
use super::queue::millis;
use super::{Store, StoreError};
use crate::model::{EntryId, Event, EventFilter, Position};
use entry::{Raw, read};

/// Entries read by one call: some milliseconds of Redis when each holds a hundred pods.
pub const ENTRIES_PER_CALL: usize = 100;
/// Most entries looked at for one page: a rare event must not make one request read everything.
const LOOKED_AT_MAX: usize = 2000;

/// The port of events.
pub struct Events<'a>(pub(super) &'a Store);

/// Some events, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Behind everything that was looked at.
    pub position: Position,
    /// Whether there is more behind it now.
    pub more: bool,
}

/// Some events, and where to go on with earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierPage {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Up to where others may be found before these; `None` once the stream's beginning was reached.
    pub earlier: Option<Position>,
}

/// What became of reading from a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It was read.
    Read(EventPage),
    /// What lay behind the position is not known any more.
    Lost(Lost),
}

/// A position that Redis does not know any more, and where the stream begins and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The position.
    pub asked: Position,
    /// Before everything that is kept.
    pub oldest: Position,
    /// Behind everything that is kept.
    pub newest: Position,
    /// Whether older entries were dropped from this stream; if not, the position is of another one.
    pub was_trimmed: bool,
}

impl Events<'_> {
    /// Behind the newest event.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn newest(&self) -> Result<Position, StoreError> {
        let (newest,): (Vec<Raw>,) = self.ask(vec![self.range("XREVRANGE", "+", "-", 1)]).await?;
        Ok(edge(&newest).map_or(Position::START, Position::behind))
    }

    /// All events behind `position`, of at most `entries_max` entries.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn after(
        &self,
        position: Position,
        entries_max: usize,
    ) -> Result<ReadOutcome, StoreError> {
        let all = EventFilter::default();
        self.step(&all, position, entries_max).await
    }

    /// Up to `limit` events behind `position` that `filter` wants; fewer, with more to come, where
    /// few are wanted.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn page(
        &self,
        filter: &EventFilter,
        position: Position,
        limit: usize,
    ) -> Result<ReadOutcome, StoreError> {
        let mut page = EventPage {
            events: Vec::new(),
            position,
            more: true,
        };
        let mut looked_at = 0;
        while page.more && page.events.len() < limit && looked_at < LOOKED_AT_MAX {
            match self.step(filter, page.position, ENTRIES_PER_CALL).await? {
                ReadOutcome::Read(next) => {
                    page.events.extend(next.events);
                    (page.position, page.more) = (next.position, next.more);
                }
                // Trimmed while it was read: the next request is told.
                ReadOutcome::Lost(_) if looked_at > 0 => break,
                lost @ ReadOutcome::Lost(_) => return Ok(lost),
            }
            looked_at += ENTRIES_PER_CALL;
        }
        if page.events.len() > limit {
            page.events.truncate(limit);
            page.more = true;
        }
        if page.more
            && page.events.len() == limit
            && let Some(last) = page.events.last()
        {
            page.position = last.id;
        }
        Ok(ReadOutcome::Read(page))
    }

    /// The last events up to `position` that `filter` wants, at most `limit`; fewer, with more before
    /// them, where few are wanted.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn last(
        &self,
        filter: &EventFilter,
        position: Position,
        limit: usize,
    ) -> Result<EarlierPage, StoreError> {
        let mut found: Vec<Event> = Vec::new();
        let mut from = position.entry.to_string();
        let mut earlier = Some(position);
        let mut looked_at = 0;
        while let Some(reached) = earlier
            && found.len() < limit
            && looked_at < LOOKED_AT_MAX
        {
            let range = self.range("XREVRANGE", &from, "-", ENTRIES_PER_CALL);
            let (entries,): (Vec<Raw>,) = self.ask(vec![range]).await?;
            for raw in &entries {
                let mut events = read(raw, filter)?;
                events.retain(|event| event.id <= reached);
                found.extend(events.into_iter().rev());
            }
            let last = edge(&entries[entries.len().saturating_sub(1)..]);
            let last = last.filter(|_| entries.len() == ENTRIES_PER_CALL);
            earlier = last.map(Position::before);
            from = last.map(|last| format!("({last}")).unwrap_or_default();
            looked_at += ENTRIES_PER_CALL;
        }
        if let Some(next) = found.get(limit) {
            earlier = Some(next.id);
            found.truncate(limit);
        }
        found.reverse();
        Ok(EarlierPage {
            events: found,
            earlier,
        })
    }

    /// A watch of the stream, on a connection of its own.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn arrivals(&self, longest: Duration) -> Result<EventArrivals, StoreError> {
        let dedicated = self.0.redis.dedicated(longest).await;
        let connection = dedicated.map_err(StoreError::Unreachable)?;
        Ok(EventArrivals {
            store: self.0.clone(),
            connection,
            key: self.0.keys.events(),
            longest,
        })
    }

    /// Reads from the entry of `position` on: that it is still there proves that nothing behind it
    /// was dropped.
    async fn step(
        &self,
        filter: &EventFilter,
        position: Position,
        entries_max: usize,
    ) -> Result<ReadOutcome, StoreError> {
        let from_start = position.entry == EntryId::START;
        let (from, count) = if from_start {
            ("-".to_owned(), entries_max)
        } else {
            (position.entry.to_string(), entries_max + 1)
        };
        let (entries,): (Vec<Raw>,) = self
            .ask(vec![self.range("XRANGE", &from, "+", count)])
            .await?;
        let whole = if from_start {
            entries.is_empty() || self.has_its_first().await?
        } else {
            edge(&entries) == Some(position.entry)
        };
        if !whole {
            return Ok(ReadOutcome::Lost(self.lost(position).await?));
        }
        let mut events = Vec::new();
        for raw in &entries {
            events.extend(read(raw, filter)?);
        }
        events.retain(|event| event.id > position);
        let last = edge(&entries[entries.len().saturating_sub(1)..]);
        Ok(ReadOutcome::Read(EventPage {
            events,
            position: last.map_or(position, Position::behind),
            more: entries.len() == count,
        }))
    }

    /// Whether the stream still has the first entry that was ever added to it.
    async fn has_its_first(&self) -> Result<bool, StoreError> {
        let mut info = command("XINFO");
        info.arg("STREAM").arg(self.0.keys.events());
        let (info,): (HashMap<String, Value>,) = self.ask(vec![info]).await?;
        Ok(info.get("length") == info.get("entries-added"))
    }

    async fn lost(&self, asked: Position) -> Result<Lost, StoreError> {
        let ends = vec![
            self.range("XRANGE", "-", "+", 1),
            self.range("XREVRANGE", "+", "-", 1),
        ];
        let (oldest, newest): (Vec<Raw>, Vec<Raw>) = self.ask(ends).await?;
        Ok(Lost {
            asked,
            oldest: edge(&oldest).map_or(Position::START, Position::before),
            newest: edge(&newest).map_or(Position::START, Position::behind),
            was_trimmed: !oldest.is_empty() && !self.has_its_first().await?,
        })
    }

    fn range(&self, name: &str, from: &str, to: &str, count: usize) -> Cmd {
        let mut range = command(name);
        let key = self.0.keys.events();
        range.arg(key).arg(from).arg(to).arg("COUNT").arg(count);
        range
    }

    async fn ask<T: redis::FromRedisValue>(&self, commands: Vec<Cmd>) -> Result<T, StoreError> {
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command);
        }
        self.0.read("XRANGE", &pipeline).await
    }
}

/// A watch of the stream of events: tells that something came, and carries nothing.
pub struct EventArrivals {
    store: Store,
    connection: Connection,
    key: String,
    longest: Duration,
}

impl EventArrivals {
    /// Waits until there is an entry behind `last`, at most the time given at the start; answers
    /// whether there is. A stream that was emptied may hold older ids: look after a time-out too.
    ///
    /// # Errors
    /// The connection is of no use any more; make another watch. Cancel-safe likewise: after a
    /// cancelled wait the watch must be dropped.
    pub async fn wait(&mut self, last: EntryId) -> Result<bool, StoreError> {
        let mut read = command("XREAD");
        read.arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(millis(self.longest));
        read.arg("STREAMS").arg(&self.key).arg(last.to_string());
        let arrived: Result<Value, _> = read.query_async(&mut self.connection).await;
        match arrived {
            Ok(entries) => Ok(entries != Value::Nil),
            Err(source) => {
                let generation = self.connection.generation();
                let keys = [self.key.as_str()];
                let failed = self.store.failed_at(&keys, generation, "XREAD", source);
                Err(failed.await)
            }
        }
    }
}

/// Id of the first of these entries.
fn edge(entries: &[Raw]) -> Option<EntryId> {
    entries.first().and_then(|(id, _)| EntryId::parse(id))
}
