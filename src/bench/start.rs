//! From a submit to a running container on one idle node, beside the engine's own create and start.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Bench, Machine, Measured, milliseconds, percentile};
use crate::container::{ContainerSpec, Docker, GivenDevices, Runtime};
use crate::model::{Phase, PodId, ServiceSpec, Token};
use crate::settings::{Secret, Settings};
use crate::store::Store;
use crate::{agent, api, scheduler};

/// Time between two looks whether the pod runs: a look takes cpu from the engine, and half of this
/// is counted as ours.
const LOOK: Duration = Duration::from_millis(2);
/// Longest wait for one pod.
const PATIENCE: Duration = Duration::from_secs(30);
const NODE: &str = "bench-node";

/// Times of starts, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StartFigures {
    /// Starts of each kind.
    pub starts: usize,
    /// `POST /service` to the pod shown as running.
    pub post_to_running_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub post_to_running_p99_ms: f64,
    /// The engine's own create and start of the same container.
    pub engine_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub engine_p99_ms: f64,
    /// What kubeleet adds.
    pub added_p50_ms: f64,
    /// Likewise, 99 of 100.
    pub added_p99_ms: f64,
}

/// Measures `starts` starts of `image`, which the engine must have, in turns with the engine alone.
///
/// # Errors
/// Redis or the engine failed, or a pod did not run in time.
pub async fn start(starts: usize, image: &str) -> anyhow::Result<Measured<StartFigures>> {
    let mut bench = Bench::new().await?;
    let machine = Machine::of(&mut bench).await?;
    let store = bench.fresh_cluster().await?;
    let cluster = store.open().await?;
    let mut settings = Settings::default();
    settings.redis.url = Secret(bench.server.url());
    let runtime = Runtime::Docker(Docker::new(&settings.node.docker_socket));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let client = crate::client::Client::new(&format!("http://{}", listener.local_addr()?))?;
    let ends = CancellationToken::new();
    let stations = {
        let (store, runtime, settings, ends) = (
            store.clone(),
            runtime.clone(),
            settings.clone(),
            ends.clone(),
        );
        tokio::spawn(async move {
            let _ = tokio::join!(
                api::run(listener, store.clone(), &settings, ends.clone()),
                scheduler::run(store.clone(), &settings, ends.clone()),
                agent::run(store.clone(), runtime, NODE, &settings, ends.clone()),
            );
        })
    };
    let mut ours = Vec::new();
    let mut engines = Vec::new();
    // The first of each warms connections and caches, and does not count.
    for number in 0..=starts {
        let posted = through_kubeleet(&store, &client, image, number).await?;
        let alone = by_the_engine(&runtime, &cluster, image, number).await?;
        if number > 0 {
            ours.push(posted);
            engines.push(alone);
        }
    }
    ends.cancel();
    stations.await?;
    for container in runtime.list(NODE, &cluster).await? {
        runtime.remove(&container.id).await?;
    }
    bench.stop().await;
    ours.sort();
    engines.sort();
    let at = |sorted: &[Duration], share| percentile(sorted, share);
    let added = |share| {
        let difference = milliseconds(at(&ours, share)) - milliseconds(at(&engines, share));
        (difference * 1000.0).round() / 1000.0
    };
    let figures = StartFigures {
        starts,
        post_to_running_p50_ms: milliseconds(at(&ours, 0.5)),
        post_to_running_p99_ms: milliseconds(at(&ours, 0.99)),
        engine_p50_ms: milliseconds(at(&engines, 0.5)),
        engine_p99_ms: milliseconds(at(&engines, 0.99)),
        added_p50_ms: added(0.5),
        added_p99_ms: added(0.99),
    };
    Ok(Measured { figures, machine })
}

async fn through_kubeleet(
    store: &Store,
    client: &crate::client::Client,
    image: &str,
    number: usize,
) -> anyhow::Result<Duration> {
    let spec = ServiceSpec::new(format!("bench-{number}"), image);
    let began = Instant::now();
    let wish = serde_json::json!({"name": spec.name, "image": spec.image});
    let created: serde_json::Value = client.submit(&wish).await?;
    let pod = created["pods"][0].as_str().and_then(PodId::parse);
    let pod = pod.ok_or_else(|| anyhow::anyhow!("no pod was made"))?;
    let running = async {
        loop {
            let known = store.pods().get(&pod).await?;
            match known.map(|pod| (pod.phase, pod.reason)) {
                Some((Phase::Running, _)) => return anyhow::Ok(began.elapsed()),
                Some((Phase::Failed, reason)) => {
                    anyhow::bail!("the pod failed: {}", reason.unwrap_or_default())
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    let took = tokio::time::timeout(PATIENCE, running).await??;
    store.services().delete(&spec.key(), None).await?;
    let gone = async {
        while store.services().get(&spec.key()).await?.is_some() {
            tokio::time::sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await??;
    Ok(took)
}

async fn by_the_engine(
    runtime: &Runtime,
    cluster: &str,
    image: &str,
    number: usize,
) -> anyhow::Result<Duration> {
    let spec = ContainerSpec {
        node: "bench-engine".to_owned(),
        cluster: cluster.to_owned(),
        pod: PodId::of_submission(&PodId::new_submission(), 0),
        token: Token::default(),
        replica: 0,
        spec: Box::new(ServiceSpec::new(format!("bench-engine-{number}"), image)),
        revision: 1,
        service: None,
        wish: None,
        given: GivenDevices::default(),
    };
    let began = Instant::now();
    let id = runtime.create(&spec).await?.id;
    runtime.start(&id).await?;
    let took = began.elapsed();
    runtime.stop(&id, Duration::from_secs(1)).await?;
    runtime.remove(&id).await?;
    Ok(took)
}
