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

/// An entry that nobody could understand or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DeadLetter {
    /// The entry, shortened to 4 KiB, without its secrets.
    pub entry: String,
    /// The list it was pushed on.
    pub r#where: String,
    /// What was wrong with it.
    pub why: String,
    /// When, milliseconds since 1970 by Redis's clock.
    pub when_ms: u64,
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

    /// The newest dead letters.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let mut range = command("LRANGE");
        range
            .arg(self.keys.dead())
            .arg(0)
            .arg(max.saturating_sub(1));
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (letters,): (Vec<Vec<u8>>,) = self.read("LRANGE", &pipeline).await?;
        let parse = |letter: &Vec<u8>| serde_json::from_str(&String::from_utf8_lossy(letter)).ok();
        Ok(letters.iter().filter_map(parse).collect())
    }
}
