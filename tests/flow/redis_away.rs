//! Redis away, or emptied: containers go on, nothing spins, all resumes by itself.

use std::time::{Duration, Instant};

use kubeleet::model::{NodeState, Phase};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;
use crate::support::process::Daemon;
use crate::support::{RedisOptions, RedisServer};

const API: &str = env!("CARGO_BIN_EXE_kubeleet-api");
const SCHEDULER: &str = env!("CARGO_BIN_EXE_kubeleet-scheduler");
const AGENT: &str = env!("CARGO_BIN_EXE_kubeleet");
/// Longest time a daemon may take to end in order.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long cpu use is watched.
const WATCHED: Duration = Duration::from_secs(3);
/// Most cpu time within it: 5 % of a core, and a release build takes a tenth.
const CPU_MAX: Duration = Duration::from_millis(150);

/// An agent of the real binary, with a simulated engine of its own.
fn agent(cluster: &Cluster, name: &str) -> Daemon {
    let variables = [
        ("KUBELEET_NODE__NAME", name),
        ("KUBELEET_NODE__RUNTIME", "simulated"),
    ];
    cluster.daemon(AGENT, &variables)
}

/// One of each daemon.
async fn all_three(cluster: &Cluster, node: &str) -> [Daemon; 3] {
    let (api, _) = Daemon::api(API, &cluster.settings, &[]).await;
    [cluster.daemon(SCHEDULER, &[]), agent(cluster, node), api]
}

/// Two nodes and a scheduler with 20 running pods, on a Redis of its own.
async fn at_work(server: &RedisServer) -> Cluster {
    // The lease is longer than Redis is away, but for a restart, which has its own grace.
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.heartbeat.lease = Duration::from_secs(6);
    })
    .await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 20).await;
    cluster.all_in(&service, Phase::Running, 20).await;
    cluster.settled().await;
    cluster
}

async fn all_goes_on(cluster: &Cluster) {
    let service = cluster.submit("after", 10).await;
    cluster.all_in(&service, Phase::Running, 10).await;
    let pods = cluster.all_running(SOON).await;
    assert_eq!(pods.len(), 30);
    assert!(pods.iter().all(|pod| pod.attempt == 1), "{pods:?}");
    cluster.assert_exactly_once(&pods);
}

#[tokio::test]
async fn containers_go_on_while_redis_does_not_answer() {
    let server = RedisServer::start().await;
    let cluster = at_work(&server).await;
    let before = cluster.live_ids();
    let waiting = waiting(&server).await;
    server.pause();
    little_cpu_is_used(&waiting).await;
    assert_eq!(cluster.live_ids(), before);
    server.resume();
    all_goes_on(&cluster).await;
    assert!(
        cluster.live_ids().is_superset(&before),
        "none was restarted"
    );
    cluster.end().await;
}

#[tokio::test]
async fn containers_go_on_while_redis_is_gone_and_back() {
    let mut server = RedisOptions::default().appendonly().start().await;
    let cluster = at_work(&server).await;
    let before = cluster.live_ids();
    let waiting = waiting(&server).await;
    server.kill9();
    little_cpu_is_used(&waiting).await;
    assert_eq!(cluster.live_ids(), before);
    server.restart().await;
    all_goes_on(&cluster).await;
    assert!(
        cluster.live_ids().is_superset(&before),
        "none was restarted"
    );
    cluster.end().await;
}

/// One of each daemon, in a cluster of their own on the same Redis.
async fn waiting(server: &RedisServer) -> [Daemon; 3] {
    let cluster = Cluster::on(&server.url(), |_| {}).await;
    let daemons = all_three(&cluster, "worker1").await;
    cluster.ready("worker1").await;
    daemons
}

/// Watches processes that cannot reach Redis.
async fn little_cpu_is_used(daemons: &[Daemon]) {
    let used = || -> Vec<Duration> { daemons.iter().map(|it| it.cpu_time()).collect() };
    let (begun, before) = (Instant::now(), used());
    eventually(SOON, "time passes", async || {
        if begun.elapsed() > WATCHED {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    for ((before, after), daemon) in before.into_iter().zip(used()).zip(daemons) {
        let used = after - before;
        assert!(used < CPU_MAX, "{used:?} of {WATCHED:?}:\n{}", daemon.log());
    }
}

#[tokio::test]
async fn a_redis_of_another_cluster_stops_no_container() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.agent.resync_interval = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(2).await;
    cluster.add_scheduler();
    let service = cluster.submit("web", 20).await;
    cluster.all_in(&service, Phase::Running, 20).await;
    let before = cluster.live_ids();
    let script = "redis.call('FLUSHALL') \
        redis.call('HSET', KEYS[1], 'id', 'another', 'schema', 1, 'lost_ms', 1)";
    let key = cluster.key("cluster");
    server.must(&["EVAL", script, "1", &key]).await;
    // Long enough for many heartbeats and comparisons.
    let begun = Instant::now();
    eventually(SOON, "time passes", async || {
        assert_eq!(cluster.live_ids(), before);
        if begun.elapsed() > Duration::from_secs(3) {
            Ok(())
        } else {
            Err(String::new())
        }
    })
    .await;
    // They froze: another cluster's id stands in Redis now, and nobody joins that by himself.
    assert_eq!(cluster.node("worker1").await, None);
    for name in ["worker1", "worker2"] {
        assert!(
            cluster.agent(name).is_running(),
            "{name}: it waits, and does not end"
        );
    }
    // A restart joins the new cluster, and leaves containers of the old one alone.
    cluster.take_agent("worker1").kill();
    cluster.start_agent("worker1");
    cluster.ready("worker1").await;
    let service = cluster.submit("new", 5).await;
    let pods = cluster.all_in(&service, Phase::Running, 5).await;
    assert!(
        pods.iter()
            .all(|pod| pod.node.as_deref() == Some("worker1"))
    );
    let now = cluster.live_ids();
    assert!(now.is_superset(&before));
    assert_eq!(now.len(), 25);
    cluster.end().await;
}

#[tokio::test]
async fn sigterm_ends_every_daemon_in_order() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server.url(), |_| {}).await;
    let mut daemons = all_three(&cluster, "worker1").await;
    cluster.ready("worker1").await;
    let service = cluster.submit("web", 5).await;
    cluster.all_in(&service, Phase::Running, 5).await;
    sigterm(&mut daemons).await;
    let left = cluster.node("worker1").await.unwrap();
    assert_eq!(left.state, NodeState::EngineDown, "it said that it left");
    cluster.settled().await;
}

#[tokio::test]
async fn sigterm_ends_every_daemon_while_redis_is_away() {
    let server = RedisServer::start().await;
    let cluster = Cluster::on(&server.url(), |_| {}).await;
    let mut daemons = all_three(&cluster, "worker1").await;
    cluster.ready("worker1").await;
    server.pause();
    sigterm(&mut daemons).await;

    // So do those that have never reached it.
    let mut daemons = all_three(&cluster, "worker2").await;
    daemons[1].logged(SOON, "Redis does not answer yet").await;
    daemons[0].logged(SOON, "trying again").await;
    sigterm(&mut daemons).await;
    server.resume();
}

#[tokio::test]
async fn sigterm_ends_every_daemon_while_redis_is_gone() {
    let mut server = RedisServer::start().await;
    let cluster = Cluster::on(&server.url(), |_| {}).await;
    let mut daemons = all_three(&cluster, "worker1").await;
    daemons[1].logged(SOON, "agent is ready").await; // Redis knows it a moment earlier
    server.kill9();
    daemons[1].logged(SOON, "heartbeat failed").await;
    sigterm(&mut daemons).await;
}

async fn sigterm(daemons: &mut [Daemon]) {
    let asked = Instant::now();
    for daemon in daemons.iter() {
        daemon.signal("TERM");
    }
    for daemon in daemons {
        let status = daemon.ended(END_LIMIT).await;
        assert!(status.success(), "{status}:\n{}", daemon.log());
    }
    assert!(asked.elapsed() < END_LIMIT, "{:?}", asked.elapsed());
}
