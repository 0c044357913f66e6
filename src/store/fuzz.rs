//! Fuzz targets of what Redis answers: a sound reply as nested lists of words, damaged.

use std::panic::RefUnwindSafe;

use redis::Value;
use serde_json::json;

use super::call::Reply;
use super::{events, nodes, pending, pods, queue, services, wishes};
use crate::fuzz::{Choices, made, text};
use crate::model::{EventFilter, PodId, ServiceKey};

/// Replies: a sound one, damaged.
fn replies(name: &str, seed: &serde_json::Value, property: impl Fn(&mut Reply) + RefUnwindSafe) {
    let seed = value_of(seed);
    let Value::Array(sound) = seed.clone() else {
        panic!("a reply is a list");
    };
    property(&mut Reply::new("fuzz", sound));
    let make = |choices: &mut Choices<'_>| {
        let mut items = vec![seed.clone()];
        while !choices.is_over() {
            damage(&mut items, choices, 0);
        }
        match items.pop() {
            Some(Value::Array(items)) => items,
            other => other.into_iter().collect(),
        }
    };
    made(name, make, |items| {
        property(&mut Reply::new("fuzz", items.clone()));
    });
}

fn value_of(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Array(items) => Value::Array(items.iter().map(value_of).collect()),
        serde_json::Value::String(text) => Value::BulkString(text.clone().into_bytes()),
        other => Value::BulkString(other.to_string().into_bytes()),
    }
}

/// One edit of a reply.
fn damage(items: &mut Vec<Value>, choices: &mut Choices<'_>, depth: usize) {
    let at = choices.below(items.len());
    if let Some(Value::Array(inner)) = items.get_mut(at)
        && (depth == 0 || !choices.next().is_multiple_of(4))
    {
        return damage(inner, choices, depth + 1);
    }
    let word = Value::BulkString(choices.word().to_vec());
    if items.is_empty() {
        items.push(word);
        return;
    }
    match choices.next() % 8 {
        0..=2 => items[at] = word,
        3 => drop(items.remove(at)),
        4 => items.insert(at, word),
        5 => items.insert(at, items[at].clone()),
        6 => items[at] = Value::Nil,
        _ => items[at] = Value::Array(vec![items[at].clone()]),
    }
}

#[test]
fn fuzz_taken() {
    for seed in [
        json!([
            "run",
            1,
            "nonce",
            "starting",
            0,
            "service:default/web",
            1,
            "{}",
            "c1",
            2,
            "",
            "gpu/0,gpu/1"
        ]),
        json!(["stop", 1, "nonce", "moves"]),
        json!(["ended", 1, "nonce", "failed"]),
    ] {
        replies("taken", &seed, |reply| drop(pending::read_taken(reply)));
    }
    let wish = json!(["default/web", "uid", 1, 2, 3, ""]);
    replies("wish", &wish, |reply| drop(pending::read_wish(reply)));
}

#[test]
fn fuzz_views() {
    let pod = json!([
        "p-1",
        0,
        "running",
        "run",
        1,
        "",
        "n1",
        1,
        2,
        "",
        0,
        0,
        "80/tcp",
        "gpu=1,disk=4",
        "",
        3,
        ""
    ]);
    let view = json!([
        1,
        2,
        3,
        4,
        0,
        "",
        "80/tcp",
        "{\"name\":\"a\",\"image\":\"b\"}",
        pod,
        pod
    ]);
    replies("view", &view, |reply| drop(wishes::read_view(reply)));
}

#[test]
fn fuzz_claims() {
    let claim = json!([
        ["p-1", 500, 1024, "p-2", 0, 0],
        ["raw"],
        ["p-1", "service:default/web", 1, "80/tcp", "n2", "gpu=1"]
    ]);
    replies("claim", &claim, |reply| drop(queue::read_claim(reply)));
}

#[test]
fn fuzz_node_records() {
    let record = json!([
        "n1",
        1,
        "ready",
        "up",
        4000,
        1024,
        10,
        500,
        64,
        0.5,
        32,
        "cpu=1.00/2.00 memory=0.00/0.00 io=0.00/0.00",
        1,
        "0.1.0",
        "zone=eu",
        ",80/tcp,",
        7,
        "linux/amd64",
        "disk=4096,pids=9",
        "pids=1",
        ",gpu/0,",
        ",gpu/0,",
        "cpu 1 %",
    ]);
    replies("node record", &record, |reply| {
        let Ok(snapshot) = nodes::record::read_snapshot(reply) else {
            return;
        };
        let node = nodes::record::describe(snapshot, 10, std::time::Duration::from_secs(20));
        let shown = serde_json::to_string(&node).expect("a node is shown");
        let read = serde_json::from_str::<crate::model::Node>(&shown);
        read.unwrap_or_else(|error| panic!("{error}: {shown}"));
    });
    text("users of a node", &["p-1 cpu 0.5 memory 12;p-2"], |text| {
        let _ = nodes::strain::read_users(text);
    });
}

#[test]
fn fuzz_pod_and_service_records() {
    let spec = r#"{"name":"a","image":"b"}"#;
    let fields = json!([
        "owner",
        "service:default/web",
        "phase",
        "running",
        "desired",
        "run",
        "replica",
        0,
        "revision",
        1,
        "spec",
        spec,
        "node",
        "n1",
        "attempt",
        1,
        "exit_code",
        -1,
        "ready",
        1,
        "restarts",
        2,
        "ports",
        "1:2/tcp",
        "price",
        "1.5",
        "devices",
        "gpu/0",
        "created_ms",
        1,
        "changed_ms",
        2,
        "replicas",
        3,
        "spec:1",
        spec,
        "running",
        1,
    ]);
    let id = PodId::parse("p-1").unwrap();
    let key = ServiceKey::parse("default/web").unwrap();
    replies("records", &fields, |reply| {
        let mut hash = std::collections::HashMap::new();
        while let (Ok(field), Ok(value)) = (reply.text_by_hand(), reply.text_by_hand()) {
            hash.insert(field, value);
        }
        if let Some(pod) = pods::read_pod(&id, &hash) {
            let shown = serde_json::to_string(&pod).unwrap();
            let again: crate::model::Pod = serde_json::from_str(&shown).unwrap();
            assert_eq!(again, pod);
        }
        let _ = services::read_service(&key, &hash);
    });
}

#[test]
fn fuzz_events() {
    let entry = json!([
        "7-0",
        "kind",
        "scheduled",
        "by",
        "hand",
        "owner",
        "each",
        "reason",
        "why",
        "p-1",
        "service:default/web n1",
        "p-2",
        "n2"
    ]);
    replies("events", &entry, |reply| {
        let mut texts = Vec::new();
        while let Ok(text) = reply.bytes() {
            texts.push(text);
        }
        if texts.is_empty() {
            return;
        }
        let id = String::from_utf8_lossy(&texts.remove(0)).into_owned();
        for event in events::entry::read(&(id, texts), &EventFilter::default()).unwrap_or_default()
        {
            let shown = serde_json::to_string(&event).unwrap();
            let again: crate::model::Event = serde_json::from_str(&shown).unwrap();
            assert_eq!(again, event);
        }
    });
}

#[test]
fn fuzz_cursors_of_pods() {
    text("cursors of pods", &["default/web~1~p-1", "~0~"], |text| {
        let position = pods::Position::parse(text);
        assert_eq!(pods::Position::parse(&position.to_string()), position);
    });
}
