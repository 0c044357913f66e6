//! Dead letters: entries that nobody could understand or run, kept with their reason.

use serde::{Deserialize, Serialize};

use super::call::command;
use super::{Store, StoreError};
use crate::model::RawPod;

/// Where an entry lies that is to be adopted or buried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From<'a> {
    /// In a scheduler's claim, by batch.
    Claim(&'a str),
    /// In a node's `rq:` list, by node.
    Inbox(&'a str),
}

impl<'a> From<'a> {
    pub(super) fn words(self) -> (&'static str, &'a str) {
        match self {
            From::Claim(batch) => ("claim", batch),
            From::Inbox(node) => ("inbox", node),
        }
    }
}

/// An entry that is to be buried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burial {
    /// As it was pushed.
    pub entry: Vec<u8>,
    /// What is wrong with it.
    pub why: String,
}

/// Most entries buried in one call.
pub const BURIED_MAX: usize = 500;

/// An entry that nobody could understand or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetter {
    /// Its id; letters of versions before 0.2 have none.
    #[serde(default)]
    pub id: String,
    /// The entry, shortened to 4 KiB, without its secrets; of a key that was moved away, its name now.
    pub entry: String,
    /// The list it was pushed on; `quarantine` of a key that was moved away, for it had a wrong type.
    pub r#where: String,
    /// What was wrong with it.
    pub why: String,
    /// When, milliseconds since 1970 by Redis's clock.
    pub when_ms: u64,
    /// The entry is kept as it was pushed, and can be pushed again.
    #[serde(default)]
    pub whole: bool,
}

/// The dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// The newest ones, as many as were asked for.
    pub letters: Vec<DeadLetter>,
    /// How many there are.
    pub count: u64,
    /// How many gave way to newer ones, ever.
    pub dropped: u64,
}

/// What became of pushing an entry again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequeueOutcome {
    /// It lies on this list.
    Requeued(String),
    /// There is no such letter.
    Gone,
    /// Its entry was too large to be kept whole.
    Cut,
    /// It tells of a key, and has no entry.
    OfKey,
    /// It was pushed to a node that is no more.
    Nowhere(String),
}

impl Store {
    /// Moves an entry to the dead letters, without the secrets that can be told in it: letters are
    /// for all to read.
    ///
    /// # Errors
    /// The entry stays where it is.
    pub async fn bury(&self, from: From<'_>, entry: &[u8], why: &str) -> Result<(), StoreError> {
        let (kind, place) = from.words();
        let call = self
            .function("kl_dead_add")
            .arg(kind)
            .arg(place)
            .arg(entry)
            .arg(why)
            .arg(RawPod::shown(entry).as_ref());
        self.call(call).await?.expect_word("dead")
    }

    /// The same for many, [`BURIED_MAX`] a call.
    ///
    /// # Errors
    /// Entries stay where they are, but for those of calls before.
    pub async fn bury_all(&self, from: From<'_>, burials: &[Burial]) -> Result<(), StoreError> {
        let (kind, place) = from.words();
        for burials in burials.chunks(BURIED_MAX) {
            let mut call = self.function("kl_dead_bury").arg(kind).arg(place);
            for Burial { entry, why } in burials {
                call = call.arg(entry).arg(why).arg(RawPod::shown(entry).as_ref());
            }
            self.call(call).await?.expect_word("dead")?;
        }
        Ok(())
    }

    /// The newest dead letters.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(self.dead(max).await?.letters)
    }

    /// The newest dead letters, and how many there are and were.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn dead(&self, max: usize) -> Result<DeadLetters, StoreError> {
        let mut range = command("LRANGE");
        range
            .arg(self.keys.dead())
            .arg(0)
            .arg(max.saturating_sub(1));
        let mut length = command("LLEN");
        length.arg(self.keys.dead());
        let mut dropped = command("HGET");
        dropped.arg(self.keys.dead_totals()).arg("dropped");
        let mut pipeline = redis::pipe();
        pipeline
            .add_command(range)
            .add_command(length)
            .add_command(dropped);
        let (letters, count, dropped): (Vec<Vec<u8>>, u64, Option<String>) =
            self.read("LRANGE", &pipeline).await?;
        let parse = |letter: &Vec<u8>| serde_json::from_str(&String::from_utf8_lossy(letter)).ok();
        Ok(DeadLetters {
            letters: letters.iter().filter_map(parse).collect(),
            count,
            dropped: dropped.and_then(|count| count.parse().ok()).unwrap_or(0),
        })
    }

    /// Pushes the entry of a dead letter once more where it came from, and forgets the letter.
    ///
    /// # Errors
    /// If the answer was lost, it may have been pushed.
    pub async fn requeue_dead(&self, id: &str) -> Result<RequeueOutcome, StoreError> {
        let call = self.function("kl_dead_requeue").arg(id);
        let mut reply = self.call(call).await?;
        let word = reply.text()?;
        Ok(match word.as_str() {
            "requeued" => RequeueOutcome::Requeued(reply.text()?),
            "gone" => RequeueOutcome::Gone,
            "cut" => RequeueOutcome::Cut,
            "kept" => RequeueOutcome::OfKey,
            "nowhere" => RequeueOutcome::Nowhere(reply.text()?),
            _ => return Err(reply.unknown(word)),
        })
    }

    /// Forgets a dead letter, and the key that it tells of, if it does; answers whether it was there.
    ///
    /// # Errors
    /// If the answer was lost, it may be forgotten.
    pub async fn drop_dead(&self, id: &str) -> Result<bool, StoreError> {
        let call = self.function("kl_dead_drop").arg(id);
        let mut reply = self.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "dropped" => Ok(true),
            "gone" => Ok(false),
            _ => Err(reply.unknown(word)),
        }
    }
}
