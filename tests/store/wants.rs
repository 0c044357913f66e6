//! What pods want of their node: fixed ports, labels, nodes to avoid; and that ports come back.

use std::collections::BTreeMap;

use kubeleet::model::{Phase, PodId};
use kubeleet::store::{
    AdoptOutcome, AssignOutcome, Assignment, Claim, From, Guard, ServiceNodes, Suits, SweepOutcome,
    Wants,
};

use crate::by_hand::adopt;
use crate::cluster::{Cluster, LEASE, LONG, beat, pod, spec};
use crate::marks::evict;

/// A description of a pod that wants these ports of its node.
pub(crate) fn with_ports(id: &str, ports: &str) -> String {
    format!(r#"{{"name":"test","uuid":"{id}","image":"an/image","ports":[{ports}]}}"#)
}

/// Makes waiting pods of descriptions.
pub(crate) async fn push(cluster: &Cluster, descriptions: &[String]) {
    for entry in descriptions {
        cluster.push("sq", entry.as_bytes()).await;
    }
    let claim = cluster.claim(1000).await;
    for entry in descriptions {
        let adopted = adopt(cluster, From::Claim(&claim.batch), entry.as_bytes()).await;
        assert_eq!(adopted, AdoptOutcome::Adopted, "{entry}");
    }
    cluster.assign(&claim, "none", &[]).await;
}

async fn ports(cluster: &Cluster, node: &str) -> String {
    cluster.field(&format!("node:{node}"), "ports").await
}

#[tokio::test]
async fn a_claim_tells_what_pods_want_of_their_node() {
    let cluster = Cluster::new().await;
    cluster.submit(&spec("ordinary", 2)).await;
    let entry = r#"{"name":"test","uuid":"u","image":"an/image","ports":["8080:80","53:53/udp","90"],
        "placement":{"labels":{"zone":"eu","disk":"ssd"}}}"#;
    push(&cluster, &[entry.to_owned(), with_ports("v", "\"80\"")]).await;
    let _: u64 = cluster.ask("HSET @pod:u avoid a,b").await;
    let claim = cluster.claim(10).await;
    let wants: BTreeMap<&str, Option<&Wants>> = claim
        .pods
        .iter()
        .map(|pod| (pod.id.as_str(), pod.wants.as_deref()))
        .collect();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let wanted = Wants {
        owner: String::new(),
        revision: 0,
        host_ports: words(&["8080/tcp", "53/udp"]),
        avoid: words(&["a", "b"]),
    };
    assert_eq!(wants.len(), 4);
    assert_eq!(wants["u"], Some(&wanted));
    let others = wants.iter().filter(|(id, _)| **id != "u");
    assert!(
        others.clone().all(|(_, wants)| wants.is_none()),
        "{wants:?}"
    );
}

#[tokio::test]
async fn schedulers_at_once_give_a_port_of_a_node_to_one_pod() {
    let cluster = Cluster::new().await;
    for node in ["a", "b"] {
        cluster.register(node, &beat(10)).await;
    }
    let descriptions: Vec<String> = (0..12)
        .map(|number| with_ports(&format!("p{number}"), "\"8080:80\""))
        .collect();
    push(&cluster, &descriptions).await;
    let mut claims = Vec::new();
    for _ in 0..4 {
        claims.push(cluster.claim(3).await);
    }
    let assign = async |claim: &Claim| {
        let pods = claim.pods.iter().enumerate();
        let assignment = Assignment {
            nodes: vec![("a", 0), ("b", 0)],
            pods: pods.map(|(at, pod)| (&pod.id, at % 2)).collect(),
            ..Assignment::default()
        };
        let queue = cluster.store.queue();
        let outcome = queue
            .assign(&claim.batch, "nonce", LEASE, &assignment)
            .await;
        match outcome.expect("an answer") {
            AssignOutcome::Assigned {
                count,
                given_back,
                room,
                ..
            } => {
                // Whoever was refused knows why.
                let told: Vec<_> = room.into_iter().filter_map(|room| room.suits).collect();
                let full = Suits {
                    turn: 0,
                    ports: ",8080/tcp,".to_owned(),
                    labels: String::new(),
                };
                assert_eq!(told, [full.clone(), full]);
                (count, given_back)
            }
            AssignOutcome::Lapsed => panic!("the claim is over"),
        }
    };
    let (one, two, three, four) = tokio::join!(
        assign(&claims[0]),
        assign(&claims[1]),
        assign(&claims[2]),
        assign(&claims[3])
    );
    let all = [one, two, three, four];
    assert_eq!(all.iter().map(|(count, _)| count).sum::<usize>(), 2);
    assert_eq!(all.iter().map(|(_, back)| back).sum::<usize>(), 10);
}

/// One pod with two fixed ports on the node `n`, and its agent's epoch.
async fn placed(cluster: &Cluster) -> (PodId, u64) {
    cluster.end_grace().await;
    let epoch = cluster.register("n", &beat(10)).await;
    push(cluster, &[with_ports("u", r#""8080:80","53:53/udp""#)]).await;
    cluster.place("n").await;
    assert_eq!(ports(cluster, "n").await, ",8080/tcp,53/udp,");
    (pod("u"), epoch)
}

#[tokio::test]
async fn ports_come_back_when_a_pod_ends_stops_or_moves() {
    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.report("n", epoch, &id, Phase::Failed).await;
    assert_eq!(ports(&cluster, "n").await, ",");

    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.store.pods().stop(&id).await.unwrap();
    assert_eq!(
        ports(&cluster, "n").await,
        ",8080/tcp,53/udp,",
        "until its container is gone"
    );
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    assert_eq!(ports(&cluster, "n").await, ",");

    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    evict(&cluster, "n").await;
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    assert_eq!(ports(&cluster, "n").await, ",");
    assert_eq!(cluster.phase(&id).await, "waiting");
    // Nor are they lost: elsewhere it has them again.
    cluster.register("m", &beat(10)).await;
    cluster.place("m").await;
    assert_eq!(ports(&cluster, "m").await, ",8080/tcp,53/udp,");
}

#[tokio::test]
async fn ports_come_back_when_a_node_is_lost() {
    let cluster = Cluster::new().await;
    let (id, epoch) = placed(&cluster).await;
    cluster.age("n", LONG).await;
    let swept = cluster.store.nodes().sweep(LEASE, 10).await.unwrap();
    assert!(
        matches!(
            swept,
            SweepOutcome::Swept {
                pods: 1,
                done: true,
                ..
            }
        ),
        "{swept:?}"
    );
    assert_eq!(ports(&cluster, "n").await, ",");
    cluster
        .store
        .nodes()
        .heartbeat("n", epoch, &beat(10))
        .await
        .unwrap();
    assert_eq!(
        cluster.place("n").await,
        [id],
        "its own port is free for it"
    );
}

#[tokio::test]
async fn ports_are_counted_anew_where_the_record_does_not_tell() {
    let cluster = Cluster::new().await;
    placed(&cluster).await;
    push(&cluster, &[with_ports("v", "\"53:5353/udp\"")]).await;
    for damage in [
        "HSET @node:n ports rubbish",
        "HDEL @node:n ports",
        "DEL @node:n",
    ] {
        let _: u64 = cluster.ask(damage).await;
        cluster.register("n", &beat(10)).await;
        let claim = cluster.claim(10).await;
        assert_eq!(
            cluster.assign(&claim, "n", &[pod("v")]).await,
            (0, 1),
            "{damage}"
        );
    }
    push(&cluster, &[with_ports("w", "\"54:54/udp\"")]).await;
    let claim = cluster.claim(10).await;
    assert_eq!(cluster.assign(&claim, "n", &[pod("w")]).await, (1, 1));
    let used = ports(&cluster, "n").await;
    let used: std::collections::BTreeSet<&str> =
        used.split(',').filter(|port| !port.is_empty()).collect();
    assert_eq!(used, ["53/udp", "54/udp", "8080/tcp"].into());
}

#[tokio::test]
async fn an_inbox_takes_no_description_whose_port_is_taken() {
    let cluster = Cluster::new().await;
    placed(&cluster).await;
    for (id, ports, outcome) in [
        (
            "v",
            "\"8080:80\"",
            AdoptOutcome::Full("port 8080/tcp".into()),
        ),
        ("w", "\"8080:80/udp\"", AdoptOutcome::Adopted),
    ] {
        let entry = with_ports(id, ports);
        cluster.push("rq:n", entry.as_bytes()).await;
        let adopted = adopt(&cluster, From::Inbox("n"), entry.as_bytes()).await;
        assert_eq!(adopted, outcome, "{id}");
    }
    assert_eq!(ports(&cluster, "n").await, ",8080/tcp,53/udp,8080/udp,");
    assert_eq!(cluster.taken_room("n").await.0, 2);
}

#[tokio::test]
async fn labels_that_changed_since_the_plan_are_no_base_for_it() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let labels = async |text: &str| {
        let labels = kubeleet::model::node::read_labels(text).into_iter();
        let labels = labels.map(|(key, value)| (key, Some(value).filter(|value| value != "-")));
        let labels = labels.collect();
        cluster.store.nodes().label("n", &labels).await.unwrap();
    };
    let wanting = |id: &str, placement: &str| {
        format!(r#"{{"name":"test","uuid":"{id}","image":"an/image","placement":{placement}}}"#)
    };
    let zone = wanting("u", r#"{"constraints":["zone=eu"]}"#);
    push(&cluster, &[zone, wanting("v", "{}")]).await;
    labels("zone=eu,price=0.25").await;
    let assign = async |turn: u64| {
        let claim = cluster.claim(10).await;
        let pods = claim.pods.iter().map(|pod| (&pod.id, 0));
        let assignment = Assignment {
            nodes: vec![("n", turn)],
            pods: pods.collect(),
            ..Assignment::default()
        };
        let queue = cluster.store.queue();
        let assigned = queue.assign(&claim.batch, "nonce", LEASE, &assignment);
        assigned.await.expect("an answer")
    };
    // Planned before the labels changed: who wished for nothing has its node.
    let AssignOutcome::Assigned {
        count,
        given_back,
        room,
        ..
    } = assign(0).await
    else {
        panic!("the claim is over");
    };
    assert_eq!((count, given_back), (1, 1));
    let told = room[0].suits.clone().expect("it is told");
    assert_eq!((told.turn, told.labels.as_str()), (1, "price=0.25,zone=eu"));
    assert_eq!(cluster.phase(&pod("u")).await, "waiting");
    let again = assign(1).await;
    assert!(
        matches!(again, AssignOutcome::Assigned { count: 1, .. }),
        "{again:?}"
    );
    assert_eq!(cluster.phase(&pod("u")).await, "scheduled");
    assert_eq!(
        cluster.field("pod:u", "price").await,
        "0.25",
        "what it costs there"
    );
    labels("zone=-").await;
    assert_eq!(
        cluster.phase(&pod("u")).await,
        "scheduled",
        "nobody moves for that"
    );
}

/// Assigns what is claimed to the node `n` as bound pods.
async fn assign_bound(cluster: &Cluster, guards: Vec<Guard>) -> (usize, usize, bool) {
    let claim = cluster.claim(1).await;
    let assignment = Assignment {
        nodes: vec![("n", 0)],
        pods: claim.pods.iter().map(|pod| (&pod.id, 0)).collect(),
        bound: claim.pods.len(),
        guards,
        ..Assignment::default()
    };
    let queue = cluster.store.queue();
    let assigned = queue.assign(&claim.batch, "nonce", LEASE, &assignment);
    match assigned.await.expect("an answer") {
        AssignOutcome::Assigned {
            count,
            given_back,
            broken,
            ..
        } => (count, given_back, broken),
        AssignOutcome::Lapsed => panic!("the claim is over"),
    }
}

#[tokio::test]
async fn a_plan_that_looked_at_pods_stands_only_while_nobody_places_others() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let mut spec = spec("web", 3);
    spec.placement.max_per_node = Some(2);
    cluster.submit(&spec).await;
    let guard = |known: &str| Guard::Placed {
        service: "default/web".to_owned(),
        known: known.to_owned(),
    };
    let nodes = async |revision| {
        let queue = cluster.store.queue();
        queue.service_nodes("default/web", revision).await.unwrap()
    };
    let counted = |placed: &str, counts: &[(&str, u32)]| ServiceNodes {
        placed: placed.to_owned(),
        counts: counts
            .iter()
            .map(|(node, count)| ((*node).to_owned(), *count))
            .collect(),
    };
    assert_eq!(nodes(None).await, counted("0", &[]));
    assert_eq!(
        assign_bound(&cluster, vec![guard("0")]).await,
        (1, 0, false)
    );
    assert_eq!(nodes(None).await, counted("1", &[("n", 1)]));
    // Another scheduler that had looked before.
    assert_eq!(assign_bound(&cluster, vec![guard("0")]).await, (0, 1, true));
    assert_eq!(
        assign_bound(&cluster, vec![guard("1")]).await,
        (1, 0, false)
    );
    assert_eq!(nodes(Some(1)).await, counted("2", &[("n", 2)]));
    assert_eq!(
        nodes(Some(2)).await,
        counted("2", &[]),
        "of another revision"
    );
}

#[tokio::test]
async fn turns_are_taken_once() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(10)).await;
    let mut spec = spec("web", 2);
    spec.placement.strategy = Some(kubeleet::model::Strategy::RoundRobin);
    cluster.submit(&spec).await;
    let turn = |known: &str| Guard::RoundRobin {
        known: known.to_owned(),
        next: "n".to_owned(),
    };
    assert_eq!(cluster.store.queue().round_robin().await.unwrap(), "");
    assert_eq!(assign_bound(&cluster, vec![turn("")]).await, (1, 0, false));
    assert_eq!(cluster.store.queue().round_robin().await.unwrap(), "n");
    assert_eq!(assign_bound(&cluster, vec![turn("")]).await, (0, 1, true));
    assert_eq!(assign_bound(&cluster, vec![turn("n")]).await, (1, 0, false));
}

#[tokio::test]
async fn services_are_found_by_their_labels_until_they_are_gone() {
    let cluster = Cluster::new().await;
    let label = |spec: &mut kubeleet::model::ServiceSpec, key: &str, value: &str| {
        spec.labels.insert(key.to_owned(), value.to_owned());
    };
    let mut web = spec("web", 1);
    label(&mut web, "tier", "front");
    label(&mut web, "app", "shop");
    label(&mut web, "free text", "finds, nothing");
    cluster.submit(&web).await;
    let mut db = spec("db", 1);
    label(&mut db, "app", "shop");
    cluster.submit(&db).await;
    let with = async |labels: &str| {
        let labels = kubeleet::model::node::read_labels(labels);
        let queue = cluster.store.queue();
        queue.services_with("default", &labels).await.unwrap()
    };
    assert_eq!(with("app=shop").await, ["default/db", "default/web"]);
    assert_eq!(with("app=shop,tier=front").await, ["default/web"]);
    assert_eq!(with("app=other").await, [""; 0]);
    // Lost by hand, and found by the comparison.
    let _: u64 = cluster.ask("DEL @services:with:default/app=shop").await;
    let all = kubeleet::store::Comparison::default();
    let compared = cluster.store.wishes().compare(&all, 500, LEASE, 5).await;
    assert!(compared.unwrap().done);
    assert_eq!(with("app=shop").await, ["default/db", "default/web"]);
    for service in [&web, &db] {
        cluster
            .store
            .services()
            .delete(&service.key(), None)
            .await
            .unwrap();
    }
    assert_eq!(with("app=shop").await, [""; 0]);
    assert_eq!(
        cluster
            .ask::<u64>("EXISTS @services:with:default/app=shop")
            .await,
        0
    );
}
