//! The engine dies and comes back: containers run on, and what ended is started again.

use std::process::Command;

use kubeleet::model::{NodeState, Phase, Pod};
use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, LEET, MortalEngine, SOON, Timing, get, run};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn a_dead_engine_is_shown_and_what_ended_meanwhile_is_started_again() {
    let mut engine = MortalEngine::start().await;
    engine.build(IMAGE);
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::QUICK).await;
    let socket = engine.socket();
    let on_it = [("KUBELEET_NODE__DOCKER_SOCKET", socket.as_str())];
    let agent = cluster.agent("worker1", &on_it).await;
    let _scheduler = cluster.scheduler();
    let (_api, address) = cluster.api().await;
    for id in ["ends", "stays"] {
        let pod = json!({"name": id, "uuid": id, "image": IMAGE, "network": "none"});
        redis.must(&["LPUSH", "pq:worker1", &pod.to_string()]).await;
    }
    let before = cluster.all_run(2, SOON).await;
    let seen = |id: &str| -> Value {
        let pod = before.iter().find(|pod| pod.name == id).expect("its pod");
        let container = pod.container.as_deref().expect("its container");
        let seen = engine.docker(&["inspect", container]);
        let mut seen: Value = serde_json::from_str(&seen).expect("JSON");
        seen[0].take()
    };
    let (ends, stays) = (seen("ends"), seen("stays"));
    let process = |container: &Value| container["State"]["Pid"].to_string();

    engine.kill9();
    in_state(&address, NodeState::EngineDown).await;
    let url = format!("http://{address}");
    let nodes = run(Command::new(LEET).args(["--api", &url, "nodes"]));
    assert!(nodes.contains("engine-down"), "{nodes}");
    run(Command::new("kill").args(["-9", &process(&ends)]));
    let waits = cluster.submit("waits", 1).await;
    let processor_before = cpu_ticks(agent.id());
    eventually(SOON, "it waits for a node", async || {
        let pods = cluster.pods().await;
        let waiting = |pod: &&Pod| pod.service == Some(waits.to_string());
        match pods.iter().find(waiting) {
            Some(pod) if pod.phase == Phase::Waiting && pod.reason.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let used = cpu_ticks(agent.id()) - processor_before;
    assert!(used < 50, "{used} hundredths of a second while it waited");
    run(Command::new("kill").args(["-0", &process(&stays)]));

    engine.begin().await;
    in_state(&address, NodeState::Ready).await;
    let again = |pod: &Pod| pod.phase == Phase::Running && pod.restarts == 1;
    cluster.pod_is("ends", "running again", again).await;
    cluster.all_run(3, SOON).await;
    let now = engine.docker(&["inspect", stays["Id"].as_str().expect("an id")]);
    let now: Value = serde_json::from_str(&now).expect("JSON");
    let started = |container: &Value| container["State"]["StartedAt"].clone();
    assert_eq!(started(&now[0]), started(&stays), "it ran on");
    drop(agent); // before its engine
}

async fn in_state(address: &str, state: NodeState) {
    let wanted = serde_json::to_value(state).expect("a word");
    eventually(SOON, &format!("the node is {wanted}"), async || {
        let answer = get(address, "/v1/nodes/worker1").await;
        if answer.body["state"] == wanted {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
}

/// Processor time of a process so far, in hundredths of a second.
fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0)
}
