//! Logs by one follower: how fast lines come, beside the engine alone, and what that costs Redis.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Bench, LOOK, Machine, Measured, PATIENCE};
use crate::client::{Client, Lines};
use crate::container::{Docker, LogRead, Runtime};
use crate::model::{ExecFrame, ExecWish, Phase, Pod, PodId};
use crate::settings::{Secret, Settings};
use crate::store::{Store, StoreLoad};
use crate::{agent, api, controller, scheduler};

/// How long a follower is watched that has little to do.
const WATCHED: Duration = Duration::from_secs(10);
/// Reads of each kind, in turns; the middle one counts.
const ROUNDS: usize = 3;
/// Bytes of a line without its end.
const LINE_BYTES: u32 = 99;
const NODE: &str = "bench-node";

/// Rates of one reader, and what it costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LogFigures {
    /// Lines of 100 bytes each.
    pub lines: u32,
    /// Lines a second that the engine gives by itself.
    pub engine_lines_per_s: f64,
    /// Lines a second of a log that is there.
    pub read_lines_per_s: f64,
    /// Likewise, in millions of bytes of the lines' own.
    pub read_mb_per_s: f64,
    /// Share of the engine's rate.
    pub ratio: f64,
    /// Lines a second while they are written, as fast as the engine takes them.
    pub follow_lines_per_s: f64,
    /// Commands of Redis, those within functions too, for 1,000 lines of the log that is there.
    pub commands_per_1000_lines: f64,
    /// Bytes that went into Redis for each byte of the lines' own.
    pub bytes_in_per_byte: f64,
    /// Bytes that came out of Redis for each byte of the lines' own.
    pub bytes_out_per_byte: f64,
    /// Milliseconds of Redis's cpu for a million bytes.
    pub redis_cpu_ms_per_mb: f64,
    /// Commands a second, those within functions too, of the cluster at rest.
    pub idle_commands_per_s: f64,
    /// What a follower of a silent pod adds.
    pub silent_commands_per_s: f64,
    /// What a follower of a pod that writes ten lines a second adds.
    pub ten_lines_commands_per_s: f64,
}

/// Measures with `lines` lines in a container of `image`, which the engine must have and which has
/// `sh`, `yes`, `head` and `sleep`.
///
/// # Errors
/// Redis or the engine failed, or something took too long.
pub async fn logs(lines: u32, image: &str) -> anyhow::Result<Measured<LogFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let store = bench.fresh_cluster().await?;
    let cluster = store.open().await?;
    let mut settings = Settings::default();
    settings.redis.url = Secret(bench.server.url());
    let runtime = Runtime::Docker(Docker::new(&settings.node.docker_socket));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::new(&format!("http://{}", listener.local_addr()?))?;
    let ends = CancellationToken::new();
    let stations = {
        let (store, runtime, ends) = (store.clone(), runtime.clone(), ends.clone());
        tokio::spawn(async move {
            let _ = tokio::join!(
                api::run(listener, store.clone(), &settings, ends.clone()),
                scheduler::run(store.clone(), &settings, ends.clone()),
                controller::run(&store, &settings.scheduler, &ends),
                agent::run(store.clone(), runtime, NODE, &settings, ends.clone()),
            );
        })
    };
    let measured = measure(&store, &runtime, &client, lines, image).await;
    ends.cancel();
    stations.await?;
    for container in runtime.list(NODE, &cluster).await? {
        runtime.remove(&container.id).await?;
    }
    bench.stop().await;
    Ok(Measured {
        figures: measured?,
        machine,
    })
}

async fn measure(
    store: &Store,
    runtime: &Runtime,
    client: &Client,
    lines: u32,
    image: &str,
) -> anyhow::Result<LogFigures> {
    let pod = running(store, client, image).await?;
    let container = pod.container.clone().unwrap_or_default();
    let pod = &pod.id;
    let idle = watch(store).await?;
    let path = format!("/v1/pods/{pod}/logs");
    let following = client.lines(&format!("{path}?follow=true&tail=0")).await?;
    let silent = watch(store).await?;
    let slow = "while :; do sleep 0.1; echo line; done >/proc/1/fd/1";
    let writer = client.exec(pod.as_str(), &command(slow)).await?;
    let ten = watch(store).await?;
    drop((writer, following));

    let mut following = client.lines(&format!("{path}?follow=true&tail=0")).await?;
    let fast = format!(
        "yes $(head -c {LINE_BYTES} /dev/zero | tr '\\0' x) | head -n {lines} >/proc/1/fd/1"
    );
    let (_outgoing, mut writer) = client.exec(pod.as_str(), &command(&fast)).await?;
    let followed = timed(&mut following, lines).await?;
    while !matches!(writer.next().await?, ExecFrame::Exit(_)) {}
    drop(following);

    let tail = format!("{path}?tail={lines}");
    let before = store.load().await?;
    let mut reads = vec![timed(&mut client.lines(&tail).await?, lines).await?];
    let after = store.load().await?;
    let mut engines = vec![by_the_engine(runtime, &container, lines).await?];
    while reads.len() < ROUNDS {
        reads.push(timed(&mut client.lines(&tail).await?, lines).await?);
        engines.push(by_the_engine(runtime, &container, lines).await?);
    }
    let (read, engine) = (middle(reads), middle(engines));

    let per_s = |time: Duration| f64::from(lines) / time.as_secs_f64();
    let bytes = f64::from(lines) * f64::from(LINE_BYTES + 1);
    let share = |after: u64, before: u64| difference(after, before) / bytes;
    Ok(LogFigures {
        lines,
        engine_lines_per_s: per_s(engine).round(),
        read_lines_per_s: per_s(read).round(),
        read_mb_per_s: rounded(bytes / 1e6 / read.as_secs_f64()),
        ratio: rounded(engine.as_secs_f64() / read.as_secs_f64()),
        follow_lines_per_s: per_s(followed).round(),
        commands_per_1000_lines: rounded(
            difference(after.commands, before.commands) * 1000.0 / f64::from(lines),
        ),
        bytes_in_per_byte: rounded(share(after.bytes_in, before.bytes_in)),
        bytes_out_per_byte: rounded(share(after.bytes_out, before.bytes_out)),
        redis_cpu_ms_per_mb: rounded((after.cpu_s - before.cpu_s) * 1e3 / (bytes / 1e6)),
        idle_commands_per_s: rounded(idle),
        silent_commands_per_s: rounded(silent - idle),
        ten_lines_commands_per_s: rounded(ten - idle),
    })
}

fn command(script: &str) -> ExecWish {
    ExecWish {
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        ..ExecWish::default()
    }
}

/// A running pod that writes nothing by itself.
async fn running(store: &Store, client: &Client, image: &str) -> anyhow::Result<Pod> {
    let wish = serde_json::json!({
        "name": "bench-logs", "image": image, "command": ["sleep", "1000000"],
    });
    let created: serde_json::Value = client.submit(&wish).await?;
    let pod = created["pods"][0].as_str().and_then(PodId::parse);
    let pod = pod.ok_or_else(|| anyhow::anyhow!("no pod was made"))?;
    let running = async {
        loop {
            match store.pods().get(&pod).await? {
                Some(pod) if pod.phase == Phase::Running => return anyhow::Ok(pod),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, running).await?
}

/// Commands a second that Redis carries out now.
async fn watch(store: &Store) -> anyhow::Result<f64> {
    tokio::time::sleep(Duration::from_secs(1)).await; // what was begun is under way
    let before: StoreLoad = store.load().await?;
    tokio::time::sleep(WATCHED).await;
    let after = store.load().await?;
    Ok(difference(after.commands, before.commands) / WATCHED.as_secs_f64())
}

/// Reads so many lines; the time from the first to the last.
async fn timed(lines: &mut Lines, count: u32) -> anyhow::Result<Duration> {
    let mut first = None;
    let mut seen = 0;
    let read = async {
        while seen < count {
            anyhow::ensure!(lines.more().await?, "it ends after {seen} lines");
            first.get_or_insert_with(Instant::now);
            while lines.next_line().is_some() {
                seen += 1;
            }
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, read).await??;
    Ok(first.map_or(Duration::ZERO, |first| first.elapsed()))
}

async fn by_the_engine(runtime: &Runtime, container: &str, count: u32) -> anyhow::Result<Duration> {
    let read = LogRead {
        tail: Some(count),
        ..LogRead::default()
    };
    let mut lines = runtime.logs(container, read).await?;
    // On a thread of the runtime, as the agent's: the main one is woken from another for each line.
    let reading = tokio::spawn(async move {
        let mut first = None;
        while let Some(line) = lines.next().await {
            line?;
            first.get_or_insert_with(Instant::now);
        }
        anyhow::Ok(first.map_or(Duration::ZERO, |first| first.elapsed()))
    });
    reading.await?
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn difference(after: u64, before: u64) -> f64 {
    after.saturating_sub(before) as f64
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
