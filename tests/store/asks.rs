//! What pods ask for beside cpu and memory: disk, pids and devices. Sums never exceed what a node
//! offers, each device is one pod's, and all of it comes back.

use std::collections::BTreeMap;

use kubeleet::model::{Amounts, Phase, PodId, ServiceSpec, Token};
use kubeleet::store::{
    AdoptOutcome, AssignOutcome, Assignment, Beat, Claim, From, RestoredPod, SweepOutcome, Taken,
};

use crate::by_hand::adopt;
use crate::cluster::{Cluster, LEASE, LONG, beat, pod, report, service, spec};
use crate::marks::evict;
use crate::support::dice::Dice;
use crate::wants::push;

/// A beat of a node that offers this and has these devices.
fn offering(offers: &str, devices: &[&str]) -> Beat {
    Beat {
        offers: Amounts::parse(offers),
        devices: devices.iter().map(|&name| name.to_owned()).collect(),
        ..beat(1000)
    }
}

fn description(id: &str, resources: &str) -> String {
    format!(r#"{{"name":"test","uuid":"{id}","image":"an/image","resources":{resources}}}"#)
}

fn gpus(count: u32) -> ServiceSpec {
    let mut spec = spec("train", 1);
    spec.resources.devices.insert("gpu".to_owned(), count);
    spec
}

/// Amounts asked of a node and its devices in use, as its record says.
async fn stock(cluster: &Cluster, node: &str) -> (String, String) {
    let key = format!("node:{node}");
    let asked = cluster.field(&key, "asked").await;
    (asked, cluster.field(&key, "devices_used").await)
}

fn texts(asked: &str, used: &str) -> (String, String) {
    (asked.to_owned(), used.to_owned())
}

async fn devices(cluster: &Cluster, id: &PodId) -> String {
    cluster.field(&format!("pod:{id}"), "devices").await
}

#[tokio::test]
async fn the_first_free_devices_are_given_and_told_to_the_agent() {
    let cluster = Cluster::new().await;
    let offer = offering("disk=4096,pids=100", &["gpu/1", "fpga/a", "gpu/0", "gpu/2"]);
    let epoch = cluster.register("n", &offer).await;
    let asks = r#"{"disk":"1k","requests":{"pids":9},"devices":{"gpu":2,"fpga":1}}"#;
    push(
        &cluster,
        &[
            description("u", asks),
            description("v", r#"{"devices":{"gpu":1}}"#),
        ],
    )
    .await;
    let _: u64 = cluster.ask("HSET @node:n devices_used ,gpu/1,").await; // whoever has it
    let claim = cluster.claim(10).await;
    assert_eq!(
        cluster.assign(&claim, "n", &[pod("u"), pod("v")]).await,
        (1, 1)
    );
    assert_eq!(devices(&cluster, &pod("u")).await, "fpga/a,gpu/0,gpu/2");
    let used = ",gpu/1,fpga/a,gpu/0,gpu/2,";
    assert_eq!(stock(&cluster, "n").await, texts("disk=1024,pids=9", used));
    let taken = cluster.take("n", epoch, &[&pod("u")]).await;
    let Taken::Run(run) = &taken[0] else {
        panic!("{taken:?}")
    };
    assert_eq!(run.devices, ["fpga/a", "gpu/0", "gpu/2"]);
    let listed = cluster.store.nodes().list(LEASE).await.unwrap();
    assert_eq!(
        listed[0].offers.to_string(),
        "disk=4096,fpga=1,gpu=3,pids=100"
    );
    assert_eq!(listed[0].asked.to_string(), "disk=1024,fpga=1,gpu=3,pids=9");
    assert_eq!(listed[0].devices, ["gpu/1", "fpga/a", "gpu/0", "gpu/2"]);
    let shown = cluster.store.pods().get(&pod("u")).await.unwrap().unwrap();
    assert_eq!(shown.devices, ["fpga/a", "gpu/0", "gpu/2"]);
}

#[tokio::test]
async fn an_ordinary_pod_has_none_of_it() {
    let cluster = Cluster::new().await;
    let epoch = cluster
        .register("n", &offering("disk=4096", &["gpu/0"]))
        .await;
    let ids = cluster.submit(&spec("web", 1)).await;
    let claim = cluster.claim(10).await;
    assert_eq!(claim.pods[0].wants, None);
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (1, 0));
    let fields: Vec<String> = cluster.ask(&format!("HKEYS @pod:{}", ids[0])).await;
    assert!(
        !fields
            .iter()
            .any(|field| field == "asks" || field == "wants" || field == "devices")
    );
    let taken = cluster.take("n", epoch, &[&ids[0]]).await;
    assert!(
        matches!(&taken[0], Taken::Run(run) if run.devices.is_empty()),
        "{taken:?}"
    );
}

/// Gives all pods of a claim to one node.
async fn assign_all(
    cluster: &Cluster,
    claim: &Claim,
    node: &str,
) -> (usize, Option<(String, String)>) {
    let assignment = Assignment {
        nodes: vec![(node, 0)],
        pods: claim.pods.iter().map(|pod| (&pod.id, 0)).collect(),
        ..Assignment::default()
    };
    let queue = cluster.store.queue();
    let outcome = queue.assign(&claim.batch, "nonce", LEASE, &assignment);
    match outcome.await.expect("an answer") {
        AssignOutcome::Assigned { count, room, .. } => (count, room[0].stock.clone()),
        AssignOutcome::Lapsed => panic!("the claim is over"),
    }
}

#[tokio::test]
async fn of_schedulers_at_once_one_gets_the_last_device() {
    let cluster = Cluster::new().await;
    cluster.register("n", &offering("", &["gpu/0"])).await;
    let pods: Vec<String> = (0..4)
        .map(|number| description(&format!("p{number}"), r#"{"devices":{"gpu":1}}"#))
        .collect();
    push(&cluster, &pods).await;
    let mut claims = Vec::new();
    for _ in 0..4 {
        claims.push(cluster.claim(1).await);
    }
    let (one, two, three, four) = tokio::join!(
        assign_all(&cluster, &claims[0], "n"),
        assign_all(&cluster, &claims[1], "n"),
        assign_all(&cluster, &claims[2], "n"),
        assign_all(&cluster, &claims[3], "n")
    );
    let all = [one, two, three, four];
    assert_eq!(all.iter().map(|(count, _)| count).sum::<usize>(), 1);
    let told = Some(texts("", ",gpu/0,"));
    assert!(
        all.iter().all(|(_, stock)| *stock == told),
        "whoever was refused knows why: {all:?}"
    );
}

/// One pod with all of it on the node `n`, and its agent's epoch.
async fn placed(cluster: &Cluster) -> (PodId, u64) {
    cluster.end_grace().await;
    let epoch = cluster
        .register("n", &offering("disk=4096,pids=9", &["gpu/0"]))
        .await;
    let asks = r#"{"disk":"4k","requests":{"pids":9},"devices":{"gpu":1}}"#;
    push(cluster, &[description("u", asks)]).await;
    cluster.place("n").await;
    assert_eq!(
        stock(cluster, "n").await,
        texts("disk=4096,pids=9", ",gpu/0,")
    );
    (pod("u"), epoch)
}

#[tokio::test]
async fn all_of_it_comes_back_when_a_pod_ends_stops_or_moves() {
    let nothing = texts("", ",");
    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.report("n", epoch, &id, Phase::CrashLoop).await;
    assert_eq!(
        stock(&cluster, "n").await.1,
        ",gpu/0,",
        "it will be started again"
    );
    cluster.report("n", epoch, &id, Phase::Failed).await;
    assert_eq!(stock(&cluster, "n").await, nothing);

    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.store.pods().stop(&id).await.unwrap();
    assert_eq!(
        stock(&cluster, "n").await.1,
        ",gpu/0,",
        "until its container is gone"
    );
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    assert_eq!(stock(&cluster, "n").await, nothing);

    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    evict(&cluster, "n").await;
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    assert_eq!(stock(&cluster, "n").await, nothing);
    assert_eq!(devices(&cluster, &id).await, "", "they are that node's");
    cluster
        .register("m", &offering("disk=4096,pids=9", &["gpu/7"]))
        .await;
    cluster.place("m").await;
    assert_eq!(devices(&cluster, &id).await, "gpu/7");
}

#[tokio::test]
async fn all_of_it_comes_back_when_a_node_is_lost() {
    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.age("n", LONG).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert!(
        matches!(swept, SweepOutcome::Swept { pods: 1, .. }),
        "{swept:?}"
    );
    assert_eq!(stock(&cluster, "n").await, texts("", ","));
    assert_eq!(devices(&cluster, &id).await, "");
    let nodes = cluster.store.nodes();
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    assert_eq!(cluster.place("n").await, [id], "what it had is free for it");
}

#[tokio::test]
async fn all_of_it_is_counted_anew_where_the_record_does_not_tell() {
    let cluster = Cluster::new().await;
    let (id, _) = placed(&cluster).await;
    push(&cluster, &[description("v", r#"{"devices":{"gpu":1}}"#)]).await;
    for damage in [
        "HSET @node:n devices_used rubbish",
        "HDEL @node:n asked",
        "HDEL @node:n devices_used",
        "DEL @node:n",
    ] {
        let _: u64 = cluster.ask(damage).await;
        cluster
            .register("n", &offering("disk=4096,pids=9", &["gpu/0"]))
            .await;
        let claim = cluster.claim(10).await;
        assert_eq!(
            cluster.assign(&claim, "n", &[pod("v")]).await,
            (0, 1),
            "{damage}"
        );
    }
    for damage in [
        "HSET @node:n devices_used ,",
        "HSET @node:n asked disk=1",
        "HDEL @node:n asked devices_used",
    ] {
        let _: u64 = cluster.ask(damage).await;
        let compared = cluster.store.pending().compare("n").await.unwrap();
        assert_eq!(compared, std::slice::from_ref(&id));
        let whole = texts("disk=4096,pids=9", ",gpu/0,");
        assert_eq!(stock(&cluster, "n").await, whole, "{damage}");
    }
}

#[tokio::test]
async fn a_lost_store_is_filled_again_with_the_same_devices() {
    let cluster = Cluster::new().await;
    let epoch = cluster
        .register("n", &offering("disk=4096,pids=9", &["gpu/0", "gpu/1"]))
        .await;
    let mut asking = gpus(1);
    asking.resources.disk_bytes = 1024;
    let restored = |id: &str, attempt: u64, devices: &[&str]| RestoredPod {
        id: pod(id),
        token: Token {
            attempt,
            nonce: "n".to_owned(),
        },
        phase: Phase::Running,
        replica: 0,
        service: None,
        uid: String::new(),
        revision: 0,
        spec: asking.clone(),
        devices: devices.iter().map(|&name| name.to_owned()).collect(),
        container: "c".to_owned(),
        exit_code: None,
    };
    for _ in 0..2 {
        let pods = [restored("u", 1, &["gpu/1"])];
        assert!(
            cluster
                .store
                .recovery()
                .pods("n", epoch, &pods)
                .await
                .unwrap()
        );
        assert_eq!(stock(&cluster, "n").await, texts("disk=1024", ",gpu/1,"));
        assert_eq!(devices(&cluster, &pod("u")).await, "gpu/1");
    }
    push(&cluster, &[description("v", r#"{"devices":{"gpu":1}}"#)]).await;
    cluster.place("n").await;
    assert_eq!(devices(&cluster, &pod("v")).await, "gpu/0");
    // A later placement of it on another node takes the older one's back.
    let other = cluster
        .register("m", &offering("disk=4096", &["gpu/9"]))
        .await;
    let pods = [restored("u", 2, &["gpu/9"])];
    assert!(
        cluster
            .store
            .recovery()
            .pods("m", other, &pods)
            .await
            .unwrap()
    );
    assert_eq!(stock(&cluster, "n").await, texts("", ",gpu/0,"));
    assert_eq!(stock(&cluster, "m").await, texts("disk=1024", ",gpu/9,"));
}

#[tokio::test]
async fn services_ask_for_what_their_current_revision_says() {
    let cluster = Cluster::new().await;
    cluster
        .register("n", &offering("", &["gpu/0", "gpu/1"]))
        .await;
    let mut train = gpus(2);
    train.resources.cpu_millis = 4000;
    train.resources.requests.cpu_millis = Some(500);
    let ids = cluster.submit(&train).await;
    let claim = cluster.claim(10).await;
    assert_eq!(claim.pods[0].cpu_millis, 500, "less than its limit");
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (1, 0));
    assert_eq!(devices(&cluster, &ids[0]).await, "gpu/0,gpu/1");
    assert_eq!(
        cluster.field("service:default/train", "asks").await,
        "gpu=2"
    );
    let scaled = cluster
        .store
        .services()
        .scale(&service("train"), 2, "more", None)
        .await;
    scaled.unwrap();
    cluster.control().await;
    let claim = cluster.claim(10).await;
    let asks = claim.pods[0]
        .wants
        .as_ref()
        .map(|wants| wants.asks.to_string());
    assert_eq!(asks.as_deref(), Some("gpu=2"));
}

#[tokio::test]
async fn an_inbox_takes_no_description_that_asks_for_more_than_is_free() {
    let cluster = Cluster::new().await;
    placed(&cluster).await;
    for (id, asks, outcome) in [
        (
            "v",
            r#"{"devices":{"gpu":1}}"#,
            AdoptOutcome::Full("gpu".into()),
        ),
        ("w", r#"{"disk":1}"#, AdoptOutcome::Full("disk".into())),
        ("x", r#"{"pids":5}"#, AdoptOutcome::Adopted),
    ] {
        let entry = description(id, asks);
        cluster.push("rq:n", entry.as_bytes()).await;
        let adopted = adopt(&cluster, From::Inbox("n"), entry.as_bytes()).await;
        assert_eq!(adopted, outcome, "{id}");
    }
    assert_eq!(cluster.taken_room("n").await.0, 2);
    let epoch = cluster
        .register("m", &offering("disk=10", &["gpu/3"]))
        .await;
    let entry = description("y", r#"{"disk":10,"devices":{"gpu":1}}"#);
    cluster.push("rq:m", entry.as_bytes()).await;
    adopt(&cluster, From::Inbox("m"), entry.as_bytes()).await;
    assert_eq!(stock(&cluster, "m").await, texts("disk=10", ",gpu/3,"));
    assert_eq!(devices(&cluster, &pod("y")).await, "gpu/3");
    cluster.report("m", epoch, &pod("y"), Phase::Failed).await;
    assert_eq!(stock(&cluster, "m").await, texts("", ","));
}

#[tokio::test]
async fn a_node_that_offers_more_has_parked_pods_tried_at_once() {
    let cluster = Cluster::new().await;
    cluster.register("n", &offering("disk=10", &[])).await;
    push(&cluster, &[description("u", r#"{"devices":{"gpu":1}}"#)]).await;
    let claim = cluster.claim(10).await;
    cluster.park(&claim.batch, &pod("u"), "no gpu").await;
    assert!(cluster.claim(10).await.pods.is_empty());
    cluster
        .register("n", &offering("disk=10", &["gpu/0"]))
        .await;
    assert_eq!(cluster.place("n").await, [pod("u")]);
}

const NODES: [&str; 3] = ["a", "b", "c"];

/// What is wrong with the nodes' records: sums that exceed, devices given twice, sums that differ.
async fn wrong(cluster: &Cluster, pods: &[PodId]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut holders: BTreeMap<(String, String), PodId> = BTreeMap::new();
    let mut sums: BTreeMap<String, Amounts> = BTreeMap::new();
    for id in pods {
        let key = format!("pod:{id}");
        let (phase, node) = (cluster.phase(id).await, cluster.field(&key, "node").await);
        if node.is_empty() || ["failed", "succeeded", "stopped"].contains(&phase.as_str()) {
            continue;
        }
        for (word, amount) in Amounts::parse(&cluster.field(&key, "asks").await).iter() {
            sums.entry(node.clone()).or_default().add(word, amount);
        }
        for device in kubeleet::model::amounts::device_names(&devices(cluster, id).await) {
            if let Some(other) = holders.insert((node.clone(), device.clone()), id.clone()) {
                wrong.push(format!("{node}: {device} is {id}'s and {other}'s"));
            }
        }
    }
    let nodes = cluster.store.nodes().list(LEASE).await;
    for node in nodes.expect("Redis answers") {
        let held = sums.remove(&node.name).unwrap_or_default();
        if held != node.asked {
            wrong.push(format!(
                "{}: {held} is held, {} told",
                node.name, node.asked
            ));
        }
        for (word, amount) in held.iter() {
            if amount > node.offers.of(word) {
                wrong.push(format!("{}: {word} {amount} of {}", node.name, node.offers));
            }
        }
    }
    wrong
}

/// Random pods, placed by several schedulers at once without a look at room, ended, stopped and
/// swept: what is given never exceeds what is offered, and the sums are those of the pods.
#[tokio::test]
async fn sums_never_exceed_what_nodes_offer() {
    let cluster = Cluster::new().await;
    cluster.end_grace().await;
    let seed = rand::random::<u64>();
    let mut dice = Dice(seed);
    let mut below = |sides: u64| dice.roll(sides);
    let offer = offering("disk=100,pids=50", &["gpu/0", "gpu/1", "gpu/2", "fpga/a"]);
    let mut epochs = BTreeMap::new();
    for node in NODES {
        epochs.insert(node, cluster.register(node, &offer).await);
    }
    let mut pods: Vec<PodId> = Vec::new();
    let (mut given, mut tried) = (0, 0);
    for round in 0..12 {
        let mut fresh = Vec::new();
        for number in 0..8 {
            let mut asks = vec![format!(r#""disk":{}"#, 1 + below(40))];
            asks.extend((below(2) == 0).then(|| {
                let (gpu, fpga) = (1 + below(3), 1 + below(2));
                format!(r#""devices":{{"gpu":{gpu},"fpga":{fpga}}}"#)
            }));
            asks.extend((below(2) == 0).then(|| r#""requests":{"pids":20}"#.to_owned()));
            let id = format!("r{round}-{number}");
            fresh.push(description(&id, &format!("{{{}}}", asks.join(","))));
            pods.push(pod(&id));
        }
        push(&cluster, &fresh).await;
        let mut claims = Vec::new();
        for _ in 0..4 {
            claims.push((
                cluster.claim(6).await,
                NODES[usize::try_from(below(3)).unwrap()],
            ));
        }
        let assigns = claims.iter().filter(|(claim, _)| !claim.batch.is_empty());
        let assigns = assigns.map(|(claim, node)| assign_all(&cluster, claim, node));
        let outcomes = futures_util::future::join_all(assigns).await;
        given += outcomes.iter().map(|(count, _)| count).sum::<usize>();
        tried += claims
            .iter()
            .map(|(claim, _)| claim.pods.len())
            .sum::<usize>();
        assert_eq!(
            wrong(&cluster, &pods).await,
            Vec::<String>::new(),
            "seed {seed}"
        );
        for id in &pods {
            let node = cluster.field(&format!("pod:{id}"), "node").await;
            let (Some(epoch), 0) = (epochs.get(node.as_str()), below(4)) else {
                continue;
            };
            let phase = [Phase::Failed, Phase::Succeeded, Phase::Stopped]
                [usize::try_from(below(3)).unwrap()];
            if phase == Phase::Stopped {
                cluster.store.pods().stop(id).await.unwrap();
            }
            let ended = report(id, cluster.token(id).await, Some(phase));
            cluster.report_as(&node, *epoch, ended).await;
        }
        if below(3) == 0 {
            let node = NODES[usize::try_from(below(3)).unwrap()];
            cluster.age(node, LONG).await;
            cluster.store.nodes().sweep(LEASE, 2).await.unwrap();
            cluster.store.nodes().sweep(LEASE, 100).await.unwrap();
            epochs.insert(node, cluster.register(node, &offer).await);
        }
        assert_eq!(
            wrong(&cluster, &pods).await,
            Vec::<String>::new(),
            "seed {seed}"
        );
    }
    assert!(
        given > 0 && given < tried,
        "{given} of {tried}, seed {seed}"
    );
}
