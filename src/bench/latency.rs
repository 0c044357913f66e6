//! From POST to assigned: one by one on an idle cluster, and under steady arrivals.
//!
//! API, scheduler and controller are the real ones, in this process; nodes exist only in Redis and
//! beat. On the idle cluster a pod counts as assigned when its node hears of it, as an agent does:
//! by a blocking pop of the inbox. Under arrivals nobody pops; the pods' own records say when they
//! were assigned, by Redis's clock, to the millisecond.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::beating::Beating;
use super::place::{assigned, placed_since};
use super::{Bench, Machine, Measured, PATIENCE, milliseconds, mix, percentile};
use crate::client::Client;
use crate::model::ServiceSpec;
use crate::settings::Settings;
use crate::store::Store;
use crate::{api, controller, scheduler};

/// Room on each node.
const PODS_MAX: u32 = 1_000_000;
/// Pause between two POSTs on the idle cluster: what the one before caused is over.
const PAUSE: Duration = Duration::from_millis(20);
/// POSTs that warm connections and caches, and do not count.
const WARM: u32 = 10;
/// Longest block of one pop.
const POP_WAIT: Duration = Duration::from_secs(2);

/// What arrives.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyWish {
    /// Nodes.
    pub nodes: u32,
    /// Services of one pod each, posted one by one on the idle cluster.
    pub posts: u32,
    /// Pods a second that arrive steadily.
    pub rate: u32,
    /// Pods of each service among these.
    pub pods_per_post: u32,
    /// Seconds of arrivals.
    pub seconds: u32,
}

/// How long it took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyFigures {
    /// What arrived.
    #[serde(flatten)]
    pub wish: LatencyWish,
    /// Milliseconds from POST to assigned, idle cluster.
    pub idle_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub idle_p99_ms: f64,
    /// Milliseconds from POST to its answer, idle cluster.
    pub idle_answer_p50_ms: f64,
    /// Pods a second that were assigned under steady arrivals.
    pub steady_pods_per_second: f64,
    /// Milliseconds from POST to assigned under steady arrivals.
    pub steady_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub steady_p99_ms: f64,
}

/// Measures it.
///
/// # Errors
/// Redis failed, or it took too long.
pub async fn latency(wish: LatencyWish) -> anyhow::Result<Measured<LatencyFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let mut settings = Settings {
        redis: bench.settings(),
        ..Settings::default()
    };
    settings.api.replicas_max = settings.api.replicas_max.max(wish.pods_per_post);
    let store = bench.fresh_cluster().await?;
    let lease = settings.heartbeat.lease;
    let all = 0..wish.nodes;
    let epochs = mix::register(&store, all, wish.nodes, lease, PODS_MAX).await?;
    let interval = settings.heartbeat.interval;
    let beating = Beating::start(&store, 0, &epochs, interval, PODS_MAX);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::new(&format!("http://{}", listener.local_addr()?))?;
    let ends = CancellationToken::new();
    let stations = {
        let (store, ends) = (store.clone(), ends.clone());
        tokio::spawn(async move {
            let _ = tokio::join!(
                api::run(listener, store.clone(), &settings, ends.clone()),
                scheduler::run(store.clone(), &settings, ends.clone()),
                controller::run(&store, &settings.scheduler, &ends),
            );
        })
    };
    let idle = measure_idle(&store, &client, wish).await;
    let steady = measure_steady(&store, &client, wish).await;
    ends.cancel();
    stations.await?;
    beating.stop().await?;
    bench.stop().await;
    let (idle, answers) = idle?;
    let (steady, took) = steady?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let rate = steady.len() as f64 / took.as_secs_f64();
    let figures = LatencyFigures {
        wish,
        idle_p50_ms: milliseconds(percentile(&idle, 0.5)),
        idle_p99_ms: milliseconds(percentile(&idle, 0.99)),
        idle_answer_p50_ms: milliseconds(percentile(&answers, 0.5)),
        steady_pods_per_second: rate.round(),
        steady_p50_ms: milliseconds(percentile(&steady, 0.5)),
        steady_p99_ms: milliseconds(percentile(&steady, 0.99)),
    };
    Ok(Measured { figures, machine })
}

/// Times from POST to assigned and to its answer, sorted.
async fn measure_idle(
    store: &Store,
    client: &Client,
    wish: LatencyWish,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let (heard, mut pods) = mpsc::unbounded_channel();
    let mut nodes = JoinSet::new();
    for number in 0..wish.nodes {
        let (store, heard) = (store.clone(), heard.clone());
        nodes.spawn(async move {
            let inbox = store.pending().inbox(&mix::node(number), POP_WAIT).await;
            let Ok(mut inbox) = inbox else { return };
            while let Ok(popped) = inbox.pop(0).await {
                let now = Instant::now();
                if popped
                    .into_iter()
                    .any(|pod| heard.send((pod, now)).is_err())
                {
                    return;
                }
            }
        });
    }
    let (mut times, mut answers) = (Vec::new(), Vec::new());
    for number in 0..WARM + wish.posts {
        let wish = serde_json::json!({"name": format!("idle-{number}"), "image": "bench"});
        let began = Instant::now();
        let created: serde_json::Value = client.submit(&wish).await?;
        let answered = began.elapsed();
        let id = created["pods"][0].as_str().unwrap_or_default().as_bytes();
        let heard = async {
            loop {
                match pods.recv().await {
                    Some((pod, at)) if pod == id => return anyhow::Ok(at),
                    Some(_) => {}
                    None => anyhow::bail!("no node hears"),
                }
            }
        };
        let at = tokio::time::timeout(PATIENCE, heard).await??;
        if number >= WARM {
            times.push(at.duration_since(began));
            answers.push(answered);
        }
        tokio::time::sleep(PAUSE).await;
    }
    times.sort();
    answers.sort();
    Ok((times, answers))
}

/// Times from POST to assigned of all pods, sorted, and the time from the first to the last.
async fn measure_steady(
    store: &Store,
    client: &Client,
    wish: LatencyWish,
) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let pause = Duration::from_secs(u64::from(wish.pods_per_post)) / wish.rate;
    let posts = wish.rate * wish.seconds / wish.pods_per_post;
    let clock = (store.clock_ms().await?, Instant::now());
    let mut under_way = JoinSet::new();
    let mut due = tokio::time::Instant::now();
    let mut begun = Vec::new();
    for number in 0..posts {
        tokio::time::sleep_until(due).await;
        // Late ones count from when they were to be made.
        begun.push(clock.0 + millis(due.into_std().saturating_duration_since(clock.1)));
        due += pause;
        let wish = serde_json::json!({
            "name": format!("steady-{number}"), "image": "bench", "replicas": wish.pods_per_post,
        });
        let client = client.clone();
        under_way.spawn(async move { client.submit::<serde_json::Value>(&wish).await });
    }
    while let Some(posted) = under_way.join_next().await {
        posted??;
    }
    assigned(store).await?;
    let took = clock.1.elapsed();
    let mut times = Vec::new();
    for (number, begun_ms) in begun.into_iter().enumerate() {
        let spec = ServiceSpec::new(format!("steady-{number}"), "bench");
        times.extend(placed_since(store, &spec.key(), begun_ms).await?);
    }
    times.sort();
    Ok((times, took))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
