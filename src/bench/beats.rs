//! What the heartbeats of very many nodes cost Redis.
//!
//! Each heartbeat is a call of its own, as an agent's is, but they come on few connections: Redis
//! finds several at once in each of its turns, where very many connections would make it turn
//! more often.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::beating::Beating;
use super::{Bench, Machine, Measured, figure, mix, per};
use crate::settings::HeartbeatSettings;

/// Room on each node.
const PODS_MAX: u32 = 250;
/// Time before the measure begins.
const WARM: Duration = Duration::from_secs(1);

/// What beats.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BeatsWish {
    /// Nodes.
    pub nodes: u32,
    /// Seconds that are watched.
    pub seconds: u32,
}

/// What that costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BeatsFigures {
    /// What beat.
    #[serde(flatten)]
    pub wish: BeatsWish,
    /// Seconds between two heartbeats of a node.
    pub interval_s: f64,
    /// Heartbeats a second that so many nodes make.
    pub wanted_beats_per_second: f64,
    /// Heartbeats a second that came.
    pub beats_per_second: f64,
    /// Microseconds of Redis's cpu for each.
    pub redis_cpu_us_per_beat: f64,
    /// Share of Redis's one core that they take, at the rate wanted.
    pub redis_core_share: f64,
    /// Commands of Redis for each, those within functions too.
    pub redis_commands_per_beat: f64,
    /// Bytes of Redis's memory for each node without pods.
    pub redis_bytes_per_node: f64,
}

/// Measures it.
///
/// # Errors
/// Redis failed.
pub async fn beats(wish: BeatsWish) -> anyhow::Result<Measured<BeatsFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let store = bench.fresh_cluster().await?;
    let settings = HeartbeatSettings::default();
    let empty = store.load().await?;
    let all = 0..wish.nodes;
    let epochs = mix::register(&store, all, wish.nodes, settings.lease, PODS_MAX).await?;
    let beating = Beating::start(&store, 0, &epochs, settings.interval, PODS_MAX);
    tokio::time::sleep(WARM).await;
    let (before, beats_before) = (store.load().await?, beating.beats());
    let began = Instant::now();
    tokio::time::sleep(Duration::from_secs(u64::from(wish.seconds))).await;
    let (after, beats_after) = (store.load().await?, beating.beats());
    let took = began.elapsed().as_secs_f64();
    beating.stop().await?;
    bench.stop().await;
    let beats = u32::try_from(beats_after - beats_before)?;
    let wanted = f64::from(wish.nodes) / settings.interval.as_secs_f64();
    let cpu_s_per_beat = (after.cpu_s - before.cpu_s) / f64::from(beats.max(1));
    let figures = BeatsFigures {
        wish,
        interval_s: settings.interval.as_secs_f64(),
        wanted_beats_per_second: wanted,
        beats_per_second: (f64::from(beats) / took).round(),
        redis_cpu_us_per_beat: figure(cpu_s_per_beat * 1e6),
        redis_core_share: figure(cpu_s_per_beat * wanted),
        redis_commands_per_beat: figure(per(after.commands - before.commands, beats)),
        redis_bytes_per_node: per(
            after.memory_bytes.saturating_sub(empty.memory_bytes),
            wish.nodes,
        )
        .round(),
    };
    Ok(Measured { figures, machine })
}
