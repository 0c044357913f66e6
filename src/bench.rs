//! What `leet bench` measures, against a real Redis of its own.
//!
//! Figures are ratios taken in one run where they can be: machines differ and are noisy. Each
//! round uses keys of its own, so rounds are alike.

mod beating;
mod beats;
mod converge;
mod fleet;
mod latency;
mod logs;
mod loss;
mod machine;
mod memory;
mod mix;
mod place;
mod run;
mod start;

pub use beats::{BeatsFigures, BeatsWish, beats};
pub use converge::{ConvergeFigures, ConvergeWish, converge};
pub use latency::{LatencyFigures, LatencyWish, latency};
pub use logs::{LogFigures, logs};
pub use loss::{LossFigures, LossWish, loss};
pub use machine::{Machine, Measured};
pub use memory::{MemoryFigures, MemoryWish, memory};
pub use mix::Constraints;
pub use place::{PlaceFigures, PlaceWish, place};
pub use run::{RunFigures, RunWish, run};
pub use start::{StartFigures, start};

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::dev::private_redis::PrivateRedis;
use crate::settings::{RedisSettings, Secret};
use crate::store::Store;
use crate::store::connection::Redis;

/// Time between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(10);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(300);

/// A private Redis, and a door to it for each round.
struct Bench {
    server: PrivateRedis,
    redis: Redis,
    rounds: u32,
}

impl Bench {
    async fn new() -> anyhow::Result<Bench> {
        let server = PrivateRedis::start().await.map_err(anyhow::Error::msg)?;
        let redis = Redis::connect(&settings_of(&server), CancellationToken::new());
        Ok(Bench {
            server,
            redis,
            rounds: 0,
        })
    }

    /// How the server is reached.
    fn settings(&self) -> RedisSettings {
        settings_of(&self.server)
    }

    /// A cluster that holds nothing yet.
    async fn fresh_cluster(&mut self) -> anyhow::Result<Store> {
        self.rounds += 1;
        let store = Store::new(self.redis.clone(), &self.prefix());
        store.open().await?;
        Ok(store)
    }

    /// What the keys of the newest cluster begin with.
    fn prefix(&self) -> String {
        format!("round{}:", self.rounds)
    }

    async fn stop(self) {
        self.server.stop().await;
    }
}

fn settings_of(server: &PrivateRedis) -> RedisSettings {
    RedisSettings {
        url: Secret(server.url()),
        pool_size: 64,
        // Thousands of agents that start at once share this pool.
        connect_timeout: Duration::from_secs(30),
        // A split of many pods waits its turn behind the others.
        response_timeout: Duration::from_secs(30),
        ..RedisSettings::default()
    }
}

/// The value below which `share` of the sorted values lie.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a short list"
    )]
    let at = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A figure as it is shown: three digits after the point.
fn figure(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A share of a sum for each of so many.
fn per(sum: u64, count: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let sum = sum as f64;
    sum / f64::from(count.max(1))
}
