//! The store is lost: emptied, restored from an older copy, or failed over with the last writes
//! gone. Services, pods and nodes come back from the nodes; no container is restarted or doubled.

use std::collections::BTreeSet;
use std::time::Duration;

use kubeleet::model::{NodeState, Phase, Pod, PodId, Port, ServiceKey};
use kubeleet::store::Mark;
use redis::Cmd;

use crate::support::RedisServer;
use crate::support::cluster::{Cluster, IMAGE};
use crate::support::eventually;

/// What the design promises.
const BACK: Duration = Duration::from_secs(30);

/// Three nodes at work: `web` of revision 2 was scaled 4, 6, 5; `gone` was deleted; one by hand.
async fn at_work(server: &RedisServer) -> Cluster {
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.heartbeat.interval = Duration::from_millis(200);
        settings.redis.recovery_time = Duration::from_secs(1);
        settings.agent.resync_interval = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(3).await;
    cluster.add_scheduler();
    let web = cluster.submit("web", 4).await;
    cluster.all_in(&web, Phase::Running, 4).await;
    cluster
        .apply("web", |spec| spec.args = vec!["two".into()])
        .await;
    cluster.scale(&web, 6).await;
    revision_runs(&cluster, &web, 2, 6).await;
    cluster.scale(&web, 5).await;
    let other = cluster.submit("other", 3).await;
    cluster.all_in(&other, Phase::Running, 3).await;
    let gone = cluster.submit("gone", 3).await;
    cluster.all_in(&gone, Phase::Running, 3).await;
    cluster.store.services().delete(&gone, None).await.unwrap();
    cluster.gone(&gone).await;
    let raw = format!(r#"{{"name":"hand","uuid":"by-hand-1","image":"{IMAGE}"}}"#);
    cluster.push("sq", &raw).await;
    cluster
        .pod_in(&PodId::parse("by-hand-1").unwrap(), Phase::Running)
        .await;
    revision_runs(&cluster, &web, 2, 5).await;
    cluster
}

async fn revision_runs(cluster: &Cluster, service: &ServiceKey, revision: u64, count: usize) {
    eventually(BACK, "the revision runs", async || {
        let pods = cluster.pods(Some(service)).await;
        let good = pods
            .iter()
            .filter(|pod| pod.revision == revision && pod.ready);
        match good.count() == count && pods.len() == count {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    })
    .await;
}

type Placed = BTreeSet<(String, String, String, u64)>;

fn placed(pods: &[Pod]) -> Placed {
    let placed = pods.iter().map(|pod| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        (
            pod.id.to_string(),
            text(&pod.node),
            text(&pod.container),
            pod.attempt,
        )
    });
    placed.collect()
}

async fn everything(cluster: &Cluster) -> Vec<Pod> {
    let mut all = cluster.pods(None).await;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// All is as it was, and was never touched: the same containers, started once each.
async fn is_as_before(cluster: &Cluster, before: &[Pod], starts: u64) {
    let wanted = placed(before);
    eventually(BACK, "all is as before", async || {
        let now = everything(cluster).await;
        let running = now.iter().all(|pod| pod.phase == Phase::Running);
        match placed(&now) == wanted && running {
            true => Ok(()),
            false => Err(format!("{now:?}")),
        }
    })
    .await;
    eventually(BACK, "the recovery is over", async || {
        let compared = kubeleet::controller::compare(&cluster.store).await;
        compared.map_err(|error| error.to_string())
    })
    .await;
    cluster.settled().await;
    let now = everything(cluster).await;
    assert_eq!(placed(&now), wanted);
    cluster.assert_exactly_once(&now);
    assert_eq!(all_starts(cluster), starts, "no container was started");
    let key = |name: &str| ServiceKey::parse(&format!("default/{name}")).unwrap();
    let (web, running) = cluster.service(&key("web")).await.expect("it stands");
    assert_eq!((web.revision, web.replicas, running), (2, 5, 5));
    assert_eq!(web.spec.args, ["two"]);
    let (other, running) = cluster.service(&key("other")).await.expect("it stands");
    assert_eq!((other.replicas, running), (3, 3));
    assert!(cluster.service(&key("gone")).await.is_none());
}

fn all_starts(cluster: &Cluster) -> u64 {
    let engines = ["worker1", "worker2", "worker3"];
    let counts = engines.map(|name| cluster.engine(name).counts());
    counts.iter().map(|counts| counts.starts).sum()
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() {
    let server = RedisServer::start().await;
    let cluster = at_work(&server).await;
    let before = everything(&cluster).await;
    assert_eq!(before.len(), 9);
    let starts = all_starts(&cluster);
    for _ in 0..2 {
        let _: String = cluster.redis(&["FLUSHALL"]).await;
        is_as_before(&cluster, &before, starts).await;
    }
    // It goes on: changes, deletions and new services.
    let web = ServiceKey::parse("default/web").unwrap();
    cluster
        .apply("web", |spec| spec.args = vec!["three".into()])
        .await;
    revision_runs(&cluster, &web, 3, 5).await;
    cluster.store.services().delete(&web, None).await.unwrap();
    cluster.gone(&web).await;
    let new = cluster.submit("new", 3).await;
    cluster.all_in(&new, Phase::Running, 3).await;
    cluster.end().await;
}

/// Every key with its content.
async fn copy(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let mut copy = Vec::new();
    for key in cluster.keys_like("*").await {
        let redis::Value::BulkString(content) = cluster.redis(&["DUMP", &key]).await else {
            continue; // it expired, or was emptied
        };
        copy.push((key, content));
    }
    copy
}

/// Puts an older copy in place of everything, at once, as a restart on an old dump does.
async fn put_back(cluster: &Cluster, copy: &[(String, Vec<u8>)]) {
    let client = redis::Client::open(cluster.settings.redis.url.0.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut all = redis::pipe();
    all.atomic()
        .add_command(Cmd::new().arg("FLUSHALL").to_owned());
    for (key, content) in copy {
        let mut restore = Cmd::new();
        restore
            .arg("RESTORE")
            .arg(key)
            .arg(0)
            .arg(content.as_slice());
        all.add_command(restore);
    }
    let _: redis::Value = all
        .query_async(&mut connection)
        .await
        .expect("it is restored");
}

#[tokio::test]
async fn an_older_copy_is_brought_up_to_what_the_nodes_hold() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.heartbeat.interval = Duration::from_millis(200);
        settings.redis.recovery_time = Duration::from_secs(1);
        settings.agent.resync_interval = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(3).await;
    cluster.add_scheduler();
    let web = cluster.submit("web", 4).await;
    let gone = cluster.submit("gone", 3).await;
    cluster.all_in(&web, Phase::Running, 4).await;
    cluster.all_in(&gone, Phase::Running, 3).await;
    cluster.settled().await;
    let old = copy(&cluster).await;
    // What happens after the copy was made, and is to stay.
    cluster
        .apply("web", |spec| spec.args = vec!["two".into()])
        .await;
    cluster.scale(&web, 5).await;
    revision_runs(&cluster, &web, 2, 5).await;
    cluster.store.services().delete(&gone, None).await.unwrap();
    cluster.gone(&gone).await;
    let other = cluster.submit("other", 3).await;
    cluster.all_in(&other, Phase::Running, 3).await;
    let raw = format!(r#"{{"name":"hand","uuid":"by-hand-1","image":"{IMAGE}"}}"#);
    cluster.push("sq", &raw).await;
    cluster
        .pod_in(&PodId::parse("by-hand-1").unwrap(), Phase::Running)
        .await;
    // A comparison of every agent has seen the last wish.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = everything(&cluster).await;
    let starts = all_starts(&cluster);
    put_back(&cluster, &old).await;
    is_as_before(&cluster, &before, starts).await;
    cluster.end().await;
}

#[tokio::test]
async fn a_write_is_refused_while_the_store_recovers() {
    let server = RedisServer::start().await;
    let cluster = at_work(&server).await;
    let _: String = cluster.redis(&["FLUSHALL"]).await;
    let web = ServiceKey::parse("default/web").unwrap();
    let refused = cluster.store.services().scale(&web, 1, "s", None).await;
    let error = refused.expect_err("nothing is accepted on what may be old");
    assert!(error.is_retryable() && error.changed_nothing(), "{error}");
    eventually(BACK, "it is accepted again", async || {
        let scaled = cluster.store.services().scale(&web, 1, "s", None).await;
        scaled.map(drop).map_err(|error| error.to_string())
    })
    .await;
    revision_runs(&cluster, &web, 2, 1).await;
}

/// What stands in Redis of a node and does not change by itself.
async fn node_shown(cluster: &Cluster, name: &str) -> String {
    let Some(node) = cluster.node(name).await else {
        return format!("no {name}");
    };
    let ports: Option<String> = {
        let key = cluster.key(&format!("node:{name}"));
        cluster.redis(&["HGET", &key, "ports"]).await
    };
    let mut ports: Vec<&str> = ports.as_deref().unwrap_or_default().split(',').collect();
    ports.sort_unstable();
    format!(
        "{name} is {:?} {:?} with {} pods, {} cpu, {} memory, {ports:?}",
        node.state, node.labels, node.pods, node.cpu_requested_millis, node.memory_requested_bytes
    )
}

const NODES: [&str; 3] = ["worker1", "worker2", "worker3"];

async fn nodes_shown(cluster: &Cluster) -> Vec<String> {
    let mut shown = Vec::new();
    for name in NODES {
        shown.push(node_shown(cluster, name).await);
    }
    shown
}

/// Waits until every agent was told what stands there now: its first heartbeat from now on tells it,
/// and the second shows that it was heard.
async fn agents_were_told(cluster: &Cluster) {
    for _ in 0..2 {
        let (seconds, micros): (u64, u64) = cluster.redis(&["TIME"]).await;
        let now_ms = seconds * 1000 + micros / 1000;
        eventually(BACK, "all agents have beaten", async || {
            for name in NODES {
                let key = cluster.key(&format!("node:{name}"));
                let heard: u64 = cluster.redis(&["HGET", &key, "heartbeat_ms"]).await;
                if heard <= now_ms {
                    return Err(name.to_owned());
                }
            }
            Ok(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_users_said_of_nodes_and_what_is_taken_of_them_come_back() {
    let server = RedisServer::start().await;
    let mut cluster = Cluster::on(&server.url(), |settings| {
        settings.heartbeat.interval = Duration::from_millis(200);
        settings.redis.recovery_time = Duration::from_secs(1);
        settings.agent.resync_interval = Duration::from_millis(300);
    })
    .await;
    cluster.add_nodes(3).await;
    cluster.add_scheduler();
    let store = cluster.store.clone();
    let nodes = store.nodes();
    let label = async |node: &str, value: &str| {
        let labels = [("zone".to_owned(), Some(value.to_owned()))].into();
        nodes.label(node, &labels).await.unwrap();
    };
    let raw = format!(r#"{{"name":"hand","uuid":"by-hand-1","image":"{IMAGE}"}}"#);
    cluster.push("pq:worker1", &raw).await;
    let hand = PodId::parse("by-hand-1").unwrap();
    cluster.pod_in(&hand, Phase::Running).await;
    nodes.mark("worker1", Mark::Drain).await.unwrap();
    cluster.in_state("worker1", NodeState::Drained).await;
    assert_eq!(cluster.pod_in(&hand, Phase::Running).await.attempt, 2);
    let web = cluster
        .submit_spec("web", 2, |spec| {
            spec.ports = vec![Port::parse("8080:80").unwrap()];
            spec.resources.cpu_millis = 500;
            spec.resources.memory_bytes = 64 << 20;
        })
        .await;
    cluster.all_in(&web, Phase::Running, 2).await;
    label("worker2", "eu").await;
    let older = copy(&cluster).await;
    label("worker2", "us").await;
    nodes.mark("worker3", Mark::Cordon).await.unwrap();
    agents_were_told(&cluster).await;

    let (pods, before) = (everything(&cluster).await, nodes_shown(&cluster).await);
    let ports = before
        .iter()
        .filter(|node| node.contains("8080/tcp"))
        .count();
    assert_eq!(ports, 2, "{before:?}");
    for lost in ["emptied", "older"] {
        match lost {
            "emptied" => {
                let _: String = cluster.redis(&["FLUSHALL"]).await;
            }
            _ => put_back(&cluster, &older).await,
        }
        eventually(BACK, lost, async || {
            let now = nodes_shown(&cluster).await;
            let running = placed(&everything(&cluster).await) == placed(&pods);
            if now == before && running {
                Ok(())
            } else {
                Err(format!("{now:#?}"))
            }
        })
        .await;
        eventually(BACK, "the recovery is over", async || {
            let compared = kubeleet::controller::compare(&cluster.store).await;
            compared.map_err(|error| error.to_string())
        })
        .await;
        agents_were_told(&cluster).await;
        assert_eq!(nodes_shown(&cluster).await, before, "{lost}");
        cluster.assert_exactly_once(&everything(&cluster).await);
    }
    // The fixed port is taken still.
    cluster.scale(&web, 3).await;
    let reason = "1 have port 8080/tcp taken, 2 are cordoned";
    cluster.waits_because(&web, reason).await;
    cluster.store.services().delete(&web, None).await.unwrap();
    cluster.gone(&web).await;
    cluster.end().await;
}
