//! A planned fail-over that loses nothing: the master's writes are held until a replica has them all.
//!
//! Sentinel's own `SENTINEL FAILOVER` takes the master for lost: what it accepts until it is demoted,
//! seconds later, is gone. So its writes are paused first, and it is demoted here and not by Sentinel.
//!
//! Invariant: the pause ends by itself (`PAUSE`), should this process die at any step.
//! Invariant: until the replica is promoted every failure ends the pause, and nothing was changed.

mod choose;
mod error;
mod hands;
mod line;

use std::time::Duration;

use serde::Serialize;

pub use error::SwitchoverError;

use super::connection::Access;
use super::survey::Facts;
use crate::settings::RedisSettings;
use hands::Hands;
use line::Line;

/// What was done, and how long it took.
#[derive(Debug, Clone, Serialize)]
pub struct Switched {
    /// The old master.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Milliseconds until the replica had all writes.
    pub caught_up_ms: u64,
    /// Milliseconds in which no write was accepted: from the pause until the new master takes writes and a
    /// majority of the Sentinels names it.
    pub gap_ms: u64,
    /// True once the old master follows the new one.
    pub old_follows: bool,
}

/// Makes a replica the master: the one at `to`, or the one that is furthest. Up to ten seconds pass
/// before anything is held, until all Sentinels know whom to choose.
///
/// # Errors
/// It cannot be done, or failed; the error says what was changed.
pub async fn switch_over(
    settings: &RedisSettings,
    to: Option<&str>,
) -> Result<Switched, SwitchoverError> {
    if settings.sentinels.is_empty() {
        return Err(SwitchoverError::NoSentinels);
    }
    let access = Access::of(settings).map_err(SwitchoverError::Settings)?;
    let facts = Facts::read(settings, "", Duration::ZERO).await;
    let facts = facts.map_err(SwitchoverError::Settings)?;
    let (from, successor) = choose::choose(&facts, to)?;
    let mut hands = Hands {
        name: &access.master_name,
        from: &from,
        to: &successor,
        master: Line::open(&access, &from).await?,
        successor: Line::open(&access, &successor).await?,
        sentinels: Vec::new(),
    };
    for info in &access.sentinels {
        // Those that are away were found so before; a majority is there.
        if let Ok(sentinel) = access.open(info.clone()).await {
            hands.sentinels.push(sentinel);
        }
    }
    // Sentinel chooses by priority before all else, and else by what it heard up to ten seconds ago.
    let before = hands.prefer().await?;
    let result = hands.switch(access.sentinels.len()).await;
    hands.set_priority(before).await.ok();
    result
}
