//! How full Redis is.

use super::{Store, StoreError};

/// Percent of its memory from which Redis is filling: time to look.
pub const FILLING_PERCENT: u8 = 70;
/// Percent from which nothing new is made, so that what runs can be reported, moved and deleted.
pub const NEARLY_FULL_PERCENT: u8 = 85;

/// How full Redis is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryState {
    /// There is room.
    #[default]
    Calm,
    /// Above 70 percent.
    Filling,
    /// Above 85 percent: nothing new is accepted.
    NearlyFull,
}

/// The memory of Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct StoreMemory {
    /// How full it is.
    pub state: MemoryState,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Most bytes; 0 where Redis has no bound.
    pub max_bytes: u64,
}

impl Store {
    /// How full Redis is now; where that changed, an event tells it.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn check_memory_state(&self) -> Result<StoreMemory, StoreError> {
        let call = self.function("kl_memory_check");
        let call = call.arg(FILLING_PERCENT).arg(NEARLY_FULL_PERCENT);
        let mut reply = self.call(call).await?;
        let word = reply.text()?;
        Ok(StoreMemory {
            state: match word.as_str() {
                "calm" => MemoryState::Calm,
                "filling" => MemoryState::Filling,
                "nearly-full" => MemoryState::NearlyFull,
                _ => return Err(reply.unknown(word)),
            },
            used_bytes: reply.number()?,
            max_bytes: reply.number()?,
        })
    }
}
