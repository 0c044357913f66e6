//! What `leet bench` measures, against a real Redis of its own.
//!
//! Figures are ratios taken in one run where they can be: machines differ and are noisy. Each
//! round uses keys of its own, so rounds are alike.

mod logs;
mod place;
mod start;

pub use logs::{LogFigures, logs};
pub use place::{PlaceFigures, place};
pub use start::{StartFigures, start};

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::dev::private_redis::PrivateRedis;
use crate::settings::{RedisSettings, Secret};
use crate::store::Store;
use crate::store::connection::Redis;

/// A private Redis, and a door to it for each round.
struct Bench {
    server: PrivateRedis,
    redis: Redis,
    rounds: u32,
}

impl Bench {
    async fn new() -> anyhow::Result<Bench> {
        let server = PrivateRedis::start().await.map_err(anyhow::Error::msg)?;
        let settings = RedisSettings {
            url: Secret(server.url()),
            pool_size: 64,
            // A split of many pods waits its turn behind the others.
            response_timeout: Duration::from_secs(30),
            ..RedisSettings::default()
        };
        let redis = Redis::connect(&settings, CancellationToken::new());
        Ok(Bench {
            server,
            redis,
            rounds: 0,
        })
    }

    /// A cluster that holds nothing yet.
    async fn fresh_cluster(&mut self) -> anyhow::Result<Store> {
        self.rounds += 1;
        let store = Store::new(self.redis.clone(), &format!("round{}:", self.rounds));
        store.open().await?;
        Ok(store)
    }

    async fn stop(self) {
        self.server.stop().await;
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
