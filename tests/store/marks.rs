//! What users say of nodes: labels, cordon, drain, removal.

use std::collections::BTreeMap;
use std::time::Duration;

use kubeleet::model::{Node, NodeState, Phase, PodId};
use kubeleet::store::{
    AdoptOutcome, Assignment, Beat, EvictOutcome, From, LabelOutcome, Mark, Parked, RemoveOutcome,
    ReportOutcome, Taken,
};

use crate::by_hand::adopt;
use crate::cluster::{Cluster, LEASE, LONG, beat, pod, spec};
use crate::queue::shown;
use crate::wants::{push, with_ports};

async fn node(cluster: &Cluster) -> Node {
    let node = cluster.store.nodes().get("n", LEASE).await;
    node.expect("an answer").expect("a node")
}

async fn mark(cluster: &Cluster, mark: Mark) {
    assert!(
        cluster
            .store
            .nodes()
            .mark("n", mark)
            .await
            .expect("an answer")
    );
}

/// Starts a drain, and lets it come once around.
pub(crate) async fn evict(cluster: &Cluster, node: &str) -> u64 {
    let nodes = cluster.store.nodes();
    nodes.mark(node, Mark::Drain).await.expect("an answer");
    let (mut all, mut next) = (0, 0);
    loop {
        let step = nodes.evict(node, next, 100, true).await;
        let EvictOutcome::Moving { pods, cursor } = step.expect("an answer") else {
            panic!("{node} drains");
        };
        all += pods;
        if cursor == 0 {
            return all;
        }
        next = cursor;
    }
}

fn change(text: &str) -> BTreeMap<String, Option<String>> {
    let words = text.split(' ').map(|word| match word.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    });
    words.collect()
}

async fn label(cluster: &Cluster, text: &str) -> LabelOutcome {
    let labelled = cluster.store.nodes().label("n", &change(text)).await;
    labelled.expect("an answer")
}

async fn labels(cluster: &Cluster) -> String {
    let labels = node(cluster).await.labels;
    let listed = cluster.store.nodes().list(LEASE).await.expect("an answer");
    assert_eq!(listed[0].labels, labels, "a listing shows the same");
    kubeleet::model::node::labels_text(&labels)
}

#[tokio::test]
async fn labels_of_users_go_before_those_of_the_agent_and_stay() {
    let cluster = Cluster::new().await;
    assert_eq!(label(&cluster, "a=1").await, LabelOutcome::Absent);
    let labelled = |text: &str| Beat {
        labels: kubeleet::model::node::read_labels(text),
        ..beat(10)
    };
    let epoch = cluster.register("n", &labelled("disk=hdd,zone=eu")).await;
    assert_eq!(labels(&cluster).await, "disk=hdd,zone=eu");
    assert_eq!(
        label(&cluster, "disk=ssd rack=7 empty=").await,
        LabelOutcome::Labelled
    );
    let all = "disk=ssd,empty=,rack=7,zone=eu";
    assert_eq!(labels(&cluster).await, all);
    cluster
        .store
        .nodes()
        .heartbeat("n", epoch, &beat(10))
        .await
        .unwrap();
    assert_eq!(
        labels(&cluster).await,
        all,
        "a heartbeat says nothing of labels"
    );
    cluster
        .register("n", &labelled("disk=hdd,zone=us,new=1"))
        .await;
    assert_eq!(
        labels(&cluster).await,
        "disk=ssd,empty=,new=1,rack=7,zone=us"
    );
    // The agent's own appears again; what is not set is removed all the same.
    assert_eq!(
        label(&cluster, "disk rack empty zone none").await,
        LabelOutcome::Labelled
    );
    assert_eq!(labels(&cluster).await, "disk=hdd,new=1,zone=us");
    cluster.register("n", &beat(10)).await;
    assert_eq!(labels(&cluster).await, "");
}

#[tokio::test]
async fn labels_of_a_node_are_bounded() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let many = |from: u32, to: u32| {
        let words: Vec<String> = (from..to).map(|number| format!("k{number}=v")).collect();
        words.join(" ")
    };
    assert_eq!(label(&cluster, &many(0, 64)).await, LabelOutcome::Labelled);
    assert_eq!(label(&cluster, "one=more").await, LabelOutcome::Full);
    assert_eq!(label(&cluster, "one=more k0").await, LabelOutcome::Labelled);
    assert_eq!(node(&cluster).await.labels.len(), 64);
}

#[tokio::test]
async fn a_cordoned_node_gets_no_pods_until_it_is_opened() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.submit(&spec("kept", 1)).await;
    cluster.place("n").await;
    let ids = cluster.submit(&spec("web", 1)).await;
    let refused = async || {
        let claim = cluster.claim(10).await;
        assert_eq!(cluster.assign(&claim, "n", &ids).await, (0, 1));
        node(&cluster).await.state
    };
    mark(&cluster, Mark::Cordon).await;
    assert_eq!(refused().await, NodeState::Cordoned);
    let nodes = cluster.store.nodes();
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    assert_eq!(refused().await, NodeState::Cordoned);
    let epoch = cluster.register("n", &beat(10)).await;
    assert_eq!(refused().await, NodeState::Cordoned);
    assert!(nodes.seen_since(0).await.unwrap().nodes[0].cordoned);
    // Not by being lost for a while either.
    cluster.end_grace().await;
    cluster.age("n", LONG).await;
    assert_eq!(node(&cluster).await.state, NodeState::Lost);
    nodes.sweep(LEASE, 10).await.unwrap();
    assert!(node(&cluster).await.cordoned, "a lost node too shows it");
    nodes.heartbeat("n", epoch, &beat(10)).await.unwrap();
    let claim = cluster.claim(10).await;
    assert_eq!(cluster.assign(&claim, "n", &ids).await, (0, 2));
    mark(&cluster, Mark::Open).await;
    assert_eq!(node(&cluster).await.state, NodeState::Ready);
    assert_eq!(cluster.place("n").await.len(), 2);
    assert!(!nodes.mark("none", Mark::Cordon).await.unwrap());
}

#[tokio::test]
async fn parked_pods_are_tried_at_once_when_a_node_changes_for_them() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let ids = cluster.submit(&spec("web", 30)).await;
    let parked = async || cluster.store.queue().depths().await.unwrap().parked;
    let park = async || {
        let claim = cluster.claim(100).await;
        assert_eq!(claim.pods.len(), 30);
        let parked_ones = ids.iter().map(|pod| Parked {
            pod,
            delay: Duration::from_secs(1),
            reason: "no label".to_owned(),
        });
        let assignment = Assignment {
            parked: parked_ones.collect(),
            ..Assignment::default()
        };
        let queue = cluster.store.queue();
        let assigned = queue.assign(&claim.batch, "nonce", LEASE, &assignment);
        assigned.await.unwrap();
        assert_eq!(parked().await, 30);
    };
    park().await;
    label(&cluster, "disk=ssd").await;
    assert_eq!(parked().await, 0);
    for id in &ids {
        assert_eq!(
            cluster.field(&format!("pod:{id}"), "tries").await,
            "",
            "as new ones"
        );
    }
    park().await;
    label(&cluster, "disk=ssd").await;
    mark(&cluster, Mark::Cordon).await;
    assert_eq!(parked().await, 30, "nothing changed for them");
    mark(&cluster, Mark::Open).await;
    assert_eq!(parked().await, 0);
}

#[tokio::test]
async fn a_pod_without_an_owner_leaves_a_draining_node_only_when_its_container_is_gone() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    push(&cluster, &[with_ports("u", ""), with_ports("ended", "")]).await;
    cluster.submit(&spec("web", 1)).await;
    let ids = cluster.place("n").await;
    let (id, ended) = (pod("u"), pod("ended"));
    let web = ids
        .iter()
        .find(|known| ![&id, &ended].contains(known))
        .unwrap();
    cluster.report("n", epoch, &id, Phase::Running).await;
    cluster.report("n", epoch, &ended, Phase::Failed).await;
    let _: u64 = cluster.ask("DEL @pq:n").await;

    assert_eq!(evict(&cluster, "n").await, 1);
    assert_eq!(evict(&cluster, "n").await, 0, "told once");
    assert_eq!(cluster.served("pq:n").await, ["u"]);
    assert_eq!(node(&cluster).await.state, NodeState::Draining);
    assert_eq!(
        shown(&cluster, &id).await.reason.as_deref(),
        Some("node n drains")
    );
    let taken = cluster.take("n", epoch, &[&id, &ended, web]).await;
    assert!(matches!(taken[0], Taken::Move(_)), "{taken:?}");
    assert!(matches!(taken[1], Taken::Ended(..)), "{taken:?}");
    assert!(
        matches!(taken[2], Taken::Run(_)),
        "its controller makes another first: {taken:?}"
    );
    // What its container does meanwhile is told as ever.
    cluster.report("n", epoch, &id, Phase::Unhealthy).await;
    assert_eq!(cluster.taken_room("n").await.0, 2);

    let waiting = cluster.submit(&spec("later", 1)).await;
    assert_eq!(
        cluster.report("n", epoch, &id, Phase::Stopped).await,
        ReportOutcome::Ok
    );
    let left = shown(&cluster, &id).await;
    assert_eq!(
        (left.phase, left.node, left.container),
        (Phase::Waiting, None, None)
    );
    assert_eq!(
        left.reason.as_deref(),
        Some("moved off node n, which drains")
    );
    assert_eq!(cluster.taken_room("n").await.0, 1);
    assert!(matches!(
        cluster.take("n", epoch, &[&id]).await[0],
        Taken::Stale
    ));
    cluster.register("m", &beat(10)).await;
    assert_eq!(
        cluster.place("m").await,
        [id.clone(), waiting[0].clone()],
        "it is served first"
    );
    assert_eq!(cluster.field("pod:u", "moving").await, "");
    assert_eq!(cluster.token(&id).await.attempt, 2);
}

#[tokio::test]
async fn a_pod_on_its_way_may_be_stopped_or_lose_its_node() {
    let cluster = Cluster::new().await;
    cluster.end_grace().await;
    let epoch = cluster.register("n", &beat(10)).await;
    push(&cluster, &["a", "b", "c"].map(|id| with_ports(id, ""))).await;
    cluster.place("n").await;
    assert_eq!(evict(&cluster, "n").await, 3);
    // The user wants it no more: it does not wait again.
    cluster.store.pods().stop(&pod("a")).await.unwrap();
    cluster.report("n", epoch, &pod("a"), Phase::Stopped).await;
    assert_eq!(cluster.phase(&pod("a")).await, "stopped");
    // Its container ended by itself.
    cluster
        .report("n", epoch, &pod("b"), Phase::Succeeded)
        .await;
    assert_eq!(cluster.phase(&pod("b")).await, "succeeded");
    cluster.age("n", LONG).await;
    cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert_eq!(cluster.phase(&pod("c")).await, "waiting");
    assert_eq!(cluster.field("pod:c", "moving").await, "");
    assert_eq!(cluster.served("sq").await, ["c"]);
}

#[tokio::test]
async fn a_drain_goes_on_in_steps_and_ends_when_it_is_taken_back() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1000)).await;
    let descriptions: Vec<String> = (0..700)
        .map(|number| with_ports(&format!("p{number}"), ""))
        .collect();
    push(&cluster, &descriptions).await;
    cluster.place("n").await;
    let nodes = cluster.store.nodes();
    assert_eq!(nodes.draining().await.unwrap(), Vec::<String>::new());
    assert_eq!(
        nodes.evict("n", 0, 100, true).await.unwrap(),
        EvictOutcome::Rests
    );
    mark(&cluster, Mark::Drain).await;
    assert_eq!(nodes.draining().await.unwrap(), ["n"]);
    let EvictOutcome::Moving { pods, cursor } = nodes.evict("n", 0, 100, false).await.unwrap()
    else {
        panic!("it drains");
    };
    assert!(
        (50..300).contains(&pods) && cursor > 0,
        "{pods} in a step, then {cursor}"
    );
    assert_eq!(pods + evict(&cluster, "n").await, 700);
    // A cordon keeps what is left; a wrong type makes way.
    mark(&cluster, Mark::Cordon).await;
    assert_eq!(nodes.draining().await.unwrap(), Vec::<String>::new());
    let _: String = cluster.ask("SET @nodes:draining rubbish").await;
    assert_eq!(nodes.draining().await.unwrap(), Vec::<String>::new());
    mark(&cluster, Mark::Open).await;
    mark(&cluster, Mark::Drain).await;
    assert_eq!(nodes.draining().await.unwrap(), ["n"]);
}

#[tokio::test]
async fn a_description_on_the_inbox_of_a_draining_node_goes_to_the_queue() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    mark(&cluster, Mark::Drain).await;
    let entry = with_ports("u", "\"80:80\"");
    cluster.push("rq:n", entry.as_bytes()).await;
    let adopted = adopt(&cluster, From::Inbox("n"), entry.as_bytes()).await;
    assert_eq!(adopted, AdoptOutcome::Adopted);
    assert_eq!(cluster.served("rq:n").await, Vec::<String>::new());
    assert_eq!(cluster.served("sq").await, ["u"]);
    assert!(matches!(
        cluster.take("n", epoch, &[&pod("u")]).await[0],
        Taken::Stale
    ));
    assert_eq!(node(&cluster).await.state, NodeState::Drained);
}

async fn remove(cluster: &Cluster, force: bool) -> RemoveOutcome {
    let removed = cluster.store.nodes().remove("n", LEASE, force).await;
    removed.expect("an answer")
}

#[tokio::test]
async fn a_node_is_forgotten_when_it_is_gone_and_empty() {
    let cluster = Cluster::new().await;
    assert_eq!(remove(&cluster, true).await, RemoveOutcome::Absent);
    let epoch = cluster.register("n", &beat(10)).await;
    label(&cluster, "disk=ssd").await;
    mark(&cluster, Mark::Drain).await;
    let heard = remove(&cluster, false).await;
    assert!(
        matches!(heard, RemoveOutcome::Heard(ago) if ago < Duration::from_secs(5)),
        "{heard:?}"
    );
    // An agent that ended in order need not be waited for, but its pods.
    mark(&cluster, Mark::Open).await;
    cluster.submit(&spec("web", 2)).await;
    cluster.place("n").await;
    cluster.store.nodes().leave("n", epoch).await.unwrap();
    assert_eq!(remove(&cluster, false).await, RemoveOutcome::Occupied(2));
    cluster.end_grace().await;
    cluster.age("n", LONG).await;
    assert_eq!(
        remove(&cluster, false).await,
        RemoveOutcome::Occupied(2),
        "not swept yet"
    );
    cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert_eq!(
        remove(&cluster, false).await,
        RemoveOutcome::Removed { pods: 0 }
    );
    assert_eq!(remove(&cluster, false).await, RemoveOutcome::Absent);
    assert!(cluster.store.nodes().list(LEASE).await.unwrap().is_empty());
    let left: Vec<String> = cluster.ask("KEYS @*n").await;
    assert_eq!(left, Vec::<String>::new());
    // Who comes back is a new node.
    let beat_again = cluster.store.nodes().heartbeat("n", epoch, &beat(10)).await;
    assert_eq!(beat_again.unwrap(), kubeleet::store::BeatOutcome::Unknown);
    assert_eq!(cluster.register("n", &beat(10)).await, 1);
    let node = node(&cluster).await;
    assert_eq!((node.state, node.labels.len()), (NodeState::Ready, 0));
}

#[tokio::test]
async fn by_force_its_pods_wait_again_at_once() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(1300)).await;
    let spec = kubeleet::model::ServiceSpec {
        replicas: 1000,
        ..spec("web", 1)
    };
    let ids: Vec<PodId> = cluster.submit(&spec).await;
    cluster.place("n").await;
    cluster.store.pods().stop(&pod("none")).await.unwrap();
    cluster.report("n", epoch, &ids[0], Phase::Running).await;
    cluster
        .push("pq:n", b"{\"uuid\":\"nobody took this yet\"}")
        .await;
    assert_eq!(
        remove(&cluster, true).await,
        RemoveOutcome::Removed { pods: 1000 }
    );
    let waiting = shown(&cluster, &ids[0]).await;
    assert_eq!((waiting.phase, waiting.node), (Phase::Waiting, None));
    assert_eq!(waiting.reason.as_deref(), Some("node n was removed"));
    let depths = cluster.store.queue().depths().await.unwrap();
    assert_eq!(
        (depths.normal, depths.dead),
        (1001, 0),
        "a description that its agent has not read waits too"
    );
}
