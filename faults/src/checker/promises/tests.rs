//! Made-up runs that hold, and such as break each promise: a checker that cannot fail is worth nothing.

use serde_json::json;

use super::made_up::MadeUp;
use crate::logs::Did;

/// `a-0` is started on `n2` at 30 s, while it runs on `n1`, which is cut off from 20 s to `heal`.
fn moved(policy: &'static str, heal: u64) -> MadeUp {
    let mut made = MadeUp::with_policy(policy);
    let detail = json!({"nodes": ["n1"], "cuts": ["n1"], "pardon_moves": true});
    made.fault(20, heal, "partition", &detail);
    made.did(30, Did::Started, "n2", "c2", "a-0", 2);
    made.redis.pods.clear();
    made.redis.assigned.clear();
    made.redis.indexes.clear();
    made.redis
        .nodes
        .get_mut("n1")
        .unwrap()
        .insert("pods".to_owned(), "0".to_owned());
    made.redis
        .nodes
        .get_mut("n1")
        .unwrap()
        .insert("cpu_requested".to_owned(), "0".to_owned());
    made.placed("web", "a-0", "n2", 2);
    made.placed("web", "a-1", "n2", 1);
    made
}

#[test]
fn a_good_run_holds() {
    MadeUp::good().holds();
    MadeUp::with_policy("stop-then-replace").holds();
    let mut made = MadeUp::good();
    made.fault(20, 40, "fail-over", &json!({}));
    made.holds();
}

#[test]
fn two_for_a_while_are_right_for_replace_alone() {
    for (policy, promise) in [("stop-then-replace", "I2"), ("hold", "I2")] {
        let mut made = moved(policy, 50);
        made.did(52, Did::Ended, "n1", "c0", "a-0", 1);
        made.did(53, Did::Removed, "n1", "c0", "a-0", 1);
        made.breaks(promise, "two containers of a-0 ran at once");
    }
    let mut made = moved("replace", 50);
    made.did(52, Did::Ended, "n1", "c0", "a-0", 1);
    made.did(53, Did::Removed, "n1", "c0", "a-0", 1);
    made.holds();
}

#[test]
fn stopped_first_is_right_for_all() {
    let mut made = moved("stop-then-replace", 50);
    made.did(29, Did::Ended, "n1", "c0", "a-0", 1);
    made.did(53, Did::Removed, "n1", "c0", "a-0", 1);
    made.holds();
}

#[test]
fn the_second_copy_must_end_in_time() {
    let mut made = moved("replace", 50);
    made.did(66, Did::Ended, "n1", "c0", "a-0", 1);
    made.did(66, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I2'", "although n1 could be heard");
    // It runs still.
    moved("replace", 50).breaks("I2'", "although n1 could be heard");
    // The partition lasts still.
    let mut made = moved("replace", 50);
    made.run.moments.retain(|moment| moment.what != "heal");
    made.did(95, Did::Removed, "n1", "c0", "a-0", 1);
    made.holds();
}

#[test]
fn two_without_a_cut_are_never_right() {
    let mut made = moved("replace", 50);
    made.run.moments.retain(|moment| moment.what != "fault");
    made.did(32, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I2'", "although n1 could be heard");
    // An engine's fault is no cut.
    let mut made = moved("replace", 50);
    for moment in &mut made.run.moments {
        moment.detail["cuts"] = json!([]);
    }
    made.did(32, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I2'", "although n1 could be heard");
    // Nor are two on one node.
    let mut made = MadeUp::good();
    made.did(30, Did::Started, "n1", "c9", "a-0", 2);
    made.did(31, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I2", "a-0");
}

#[test]
fn a_strict_replica_is_one_across_pods() {
    let mut made = MadeUp::with_policy("stop-then-replace");
    made.did(30, Did::Started, "n2", "c9", "a-00", 1);
    made.run
        .deeds
        .last_mut()
        .unwrap()
        .labels
        .insert("kubeleet.replica".to_owned(), "0".to_owned());
    made.did(31, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I2", "ran at once");
}

#[test]
fn fences_grow() {
    let fenced = |last: u64| {
        let mut made = moved("stop-then-replace", 50);
        made.did(29, Did::Ended, "n1", "c0", "a-0", 1);
        made.did(53, Did::Removed, "n1", "c0", "a-0", 1);
        for deed in &mut made.run.deeds {
            let fence = if deed.labels["kubeleet.attempt"] == "2" {
                last
            } else {
                7
            };
            deed.env = vec![format!("KUBELEET_FENCE={fence}")];
        }
        made
    };
    fenced(8).holds();
    fenced(7).breaks("I2", "has the fence Some(7)");
}

#[test]
fn what_was_accepted_stands() {
    let mut made = MadeUp::good();
    made.redis.services.clear();
    made.breaks("I1", "was accepted and is not there");
    let mut made = MadeUp::good();
    made.redis
        .services
        .get_mut("default/web")
        .unwrap()
        .insert("replicas".to_owned(), "1".to_owned());
    made.breaks("I1", "was accepted with 2 replicas");
    let mut made = MadeUp::good();
    made.asked(50, "DELETE", "/v1/services/web", json!(null), Some(202));
    made.breaks("I1", "was deleted or refused and is there");
    // Nobody knows.
    let mut made = MadeUp::good();
    made.asked(50, "DELETE", "/v1/services/web", json!(null), None);
    made.holds();
    let mut made = MadeUp::good();
    made.asked(
        50,
        "POST",
        "/v1/services/web/scale",
        json!({"replicas": 3}),
        Some(200),
    );
    made.breaks("I1", "was accepted with 3 replicas");
    let mut made = MadeUp::good();
    made.asked(
        50,
        "POST",
        "/service",
        json!({"name": "odd", "replicas": 1}),
        Some(422),
    );
    made.stands("odd", 1);
    made.breaks("I1", "default/odd was deleted or refused");
}

#[test]
fn what_no_node_knew_may_be_lost_with_redis() {
    let mut made = MadeUp::good();
    made.asked(
        15,
        "POST",
        "/service",
        json!({"name": "new", "replicas": 1}),
        Some(201),
    );
    made.fault(
        20,
        25,
        "empty-redis",
        &json!({"wiped": true, "pardon_moves": true}),
    );
    made.holds();
    let mut made = MadeUp::good();
    made.fault(
        60,
        65,
        "empty-redis",
        &json!({"wiped": true, "pardon_moves": true}),
    );
    made.redis.services.clear();
    made.breaks("I1", "default/web was accepted and is not there");
}

#[test]
fn nothing_is_stuck() {
    let mut made = MadeUp::good();
    made.did(50, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I3", "default/web wants 2 and 1 run");
    let mut made = MadeUp::good();
    made.did(50, Did::Removed, "n1", "c0", "a-0", 1);
    made.breaks("I3", "a-0 is called running, and no such container runs");
    let mut made = MadeUp::good();
    made.set("a-0", "phase", "starting");
    made.breaks("I3", "a-0 is stuck in starting");
    let mut made = MadeUp::good();
    made.set("a-0", "desired", "stop");
    made.breaks("I3", "a-0 is to stop");
}

#[test]
fn only_what_fits_nowhere_may_wait() {
    let parked = |room: &str| {
        let mut made = MadeUp::good();
        made.asked(
            50,
            "POST",
            "/v1/services/web/scale",
            json!({"replicas": 3}),
            Some(200),
        );
        made.redis
            .services
            .get_mut("default/web")
            .unwrap()
            .insert("replicas".to_owned(), "3".to_owned());
        made.waits("web", "a-2");
        for node in made.redis.nodes.values_mut() {
            node.insert("cpu".to_owned(), room.to_owned());
        }
        made
    };
    parked("150").holds();
    parked("200").breaks("I3", "default/web wants 3 and 2 run");
}

#[test]
fn nothing_is_left_over() {
    let mut made = MadeUp::good();
    made.did(50, Did::Started, "n2", "c7", "b-0", 1);
    made.breaks("I4", "c7 of b-0 on n2");
    let mut made = MadeUp::good();
    made.did(50, Did::Ended, "n1", "c0", "a-0", 1);
    made.did(51, Did::Started, "n1", "c2", "a-0", 2);
    made.set("a-0", "attempt", "2");
    made.set("a-0", "nonce", "nonce2");
    made.breaks("I4", "c0 of a-0 on n1");
    let mut made = MadeUp::good();
    made.set("a-0", "nonce", "other");
    made.breaks("I4", "belongs to no placement");
    let mut made = MadeUp::good();
    made.did(50, Did::Removed, "n1", "theirs", "z-0", 1);
    made.run.deeds.last_mut().unwrap().labels.clear();
    made.breaks("I4", "which is not kubeleet's");
}

#[test]
fn the_count_is_right() {
    let mut made = MadeUp::good();
    made.did(50, Did::Started, "n2", "c2", "a-2", 1);
    made.breaks("I5", "default/web wants 2 and 3 run");
    let mut made = MadeUp::good();
    for at in 50..52 {
        made.did(
            at,
            Did::Started,
            "n2",
            &format!("c{at}"),
            &format!("a-{at}"),
            1,
        );
        made.did(
            60,
            Did::Removed,
            "n2",
            &format!("c{at}"),
            &format!("a-{at}"),
            1,
        );
    }
    made.breaks("I5", "wanted at most 2 and 4 ran");
}

#[test]
fn a_pod_is_in_one_place() {
    let mut made = MadeUp::good();
    made.redis
        .assigned
        .get_mut("n2")
        .unwrap()
        .push("a-0".to_owned());
    made.breaks("I6", "is in the sets of");
    let mut made = MadeUp::good();
    made.redis
        .waiting
        .insert("sq".to_owned(), vec!["a-0".to_owned()]);
    made.breaks("I6", "is running and waits in");
    let mut made = MadeUp::good();
    made.set("a-0", "phase", "sleeping");
    made.breaks("I6", "which there is not");
    let mut made = MadeUp::good();
    made.waits("web", "a-2");
    made.redis
        .waiting
        .insert("sq:parked".to_owned(), vec!["a-2".to_owned()]);
    made.breaks("I6", "waits in");
    let mut made = MadeUp::good();
    made.redis.pods.remove("a-1");
    made.breaks("I6", "of which there is no record");
}

#[test]
fn a_node_is_never_overfull() {
    let mut made = MadeUp::good();
    made.redis
        .nodes
        .get_mut("n1")
        .unwrap()
        .insert("cpu".to_owned(), "99".to_owned());
    made.breaks("I7", "n1 has 99 of cpu, and 100 are asked");
    let mut made = MadeUp::good();
    made.redis
        .nodes
        .get_mut("n1")
        .unwrap()
        .insert("pods".to_owned(), "3".to_owned());
    made.breaks("I7", "n1 says that 3 of its pods");
    let mut made = MadeUp::good();
    for at in 50..55 {
        made.did(
            at,
            Did::Started,
            "n2",
            &format!("c{at}"),
            &format!("b-{at}"),
            1,
        );
    }
    made.breaks("I7", "n2 takes 4 pods, and 6 containers run there");
}

#[test]
fn nothing_moves_without_a_reason() {
    let restarted = |detail| {
        let mut made = MadeUp::good();
        made.fault(20, 30, "fail-over", &detail);
        made.did(25, Did::Ended, "n1", "c0", "a-0", 1);
        made.did(26, Did::Started, "n1", "c0", "a-0", 1);
        made
    };
    restarted(json!({})).breaks("I8", "the round had only fail-over");
    restarted(json!({"pardon_moves": true})).holds();
    // The user wished something else.
    let mut made = restarted(json!({}));
    made.asked(
        22,
        "PUT",
        "/v1/services/web",
        json!({"replicas": 2}),
        Some(200),
    );
    made.holds();
}

#[test]
fn a_strict_one_may_stop_but_not_move_while_redis_is_away() {
    let stopped = |node: &str| {
        let mut made = MadeUp::with_policy("stop-then-replace");
        made.fault(20, 50, "no-redis", &json!({}));
        made.did(25, Did::Ended, "n1", "c0", "a-0", 1);
        made.did(55, Did::Removed, "n1", "c0", "a-0", 1);
        made.did(56, Did::Started, node, "c2", "a-0", 2);
        made.redis.assigned.get_mut("n1").unwrap().clear();
        made.redis
            .assigned
            .entry(node.to_owned())
            .or_default()
            .push("a-0".to_owned());
        for (field, value) in [("node", node), ("attempt", "2"), ("nonce", "nonce2")] {
            made.set("a-0", field, value);
        }
        made
    };
    stopped("n1").holds();
    stopped("n2").breaks("I8", "was touched");
}

#[test]
fn poison_is_found_again() {
    let poisoned = || {
        let mut made = MadeUp::good();
        made.fault(
            20,
            21,
            "poison",
            &json!({"poison": ["{\"name\": \"half"], "keys": ["odd"]}),
        );
        made
    };
    poisoned().breaks("I10", "is no dead letter");
    let mut made = poisoned();
    made.fault(20, 25, "fail-over", &json!({}));
    made.holds();
    let mut made = poisoned();
    let letter = json!({"entry": "{\"name\": \"half", "why": "it is no JSON"});
    made.redis.dead.push(letter.to_string());
    made.redis
        .keys
        .insert("odd".to_owned(), "string".to_owned());
    made.holds();
    let mut made = MadeUp::good();
    made.redis
        .inboxes
        .insert("rq:n1".to_owned(), vec!["a-0".to_owned()]);
    made.breaks("I10", "rq:n1 still has 1 entries");
}

#[test]
fn what_stands_is_bounded() {
    let mut made = MadeUp::good();
    made.redis.dead = vec!["{}".to_owned(); 1001];
    made.breaks("I11", "1001 dead letters");
    let mut made = MadeUp::good();
    made.redis.events = 20_000;
    made.breaks("I11", "20000 entries of events");
    let tombstone = |expires: bool| {
        let mut made = MadeUp::good();
        made.waits("web", "a-9");
        made.redis.waiting.clear();
        made.redis.indexes.get_mut("default/web").unwrap().pop();
        made.set("a-9", "phase", "stopped");
        made.set("a-9", "desired", "stop");
        if expires {
            made.redis.expiring.insert("a-9".to_owned(), 1000);
        }
        made
    };
    tombstone(true).holds();
    tombstone(false).breaks("I11", "pod:a-9 is in no index");
    let mut made = MadeUp::good();
    made.redis
        .keys
        .insert("stray".to_owned(), "string".to_owned());
    made.breaks("I11", "stray is no key of ours");
    let mut made = MadeUp::good();
    made.redis
        .waiting
        .insert("sq:claim:x".to_owned(), vec!["a-7".to_owned()]);
    made.breaks("I11", "sq:claim:x is still held");
}

#[test]
fn the_canary_runs() {
    let mut made = MadeUp::good();
    made.asked(
        90,
        "POST",
        "/service",
        json!({"name": "canary-1"}),
        Some(201),
    );
    made.stands("canary-1", 1);
    made.breaks("I14", "does not run");
}
