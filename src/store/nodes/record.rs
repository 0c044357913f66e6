//! A node's record in Redis: its fields, as they are read back.

use std::time::Duration;

use super::{NodeSnapshot, Stock};
use crate::model::amounts::{count_devices, device_names};
use crate::model::node::read_labels;
use crate::model::{Amounts, Capacity, EngineState, Node, NodeState, Pressure};
use crate::store::StoreError;
use crate::store::call::Reply;
use crate::store::queue::millis;

/// Order of the Lua library's `NODE_FIELDS`; a test compares them.
const NODE_FIELDS: [&str; 23] = [
    "heartbeat_ms",
    "state",
    "engine",
    "pods_max",
    "cpu",
    "memory",
    "pods",
    "cpu_requested",
    "memory_requested",
    "cpu_used",
    "memory_used",
    "pressure",
    "epoch",
    "version",
    "labels",
    "ports",
    "turn",
    "platform",
    "offers",
    "asked",
    "devices",
    "devices_used",
    "pressed",
];

pub(in crate::store) fn read_snapshot(flat: &mut Reply) -> Result<NodeSnapshot, StoreError> {
    let name = flat.text_by_hand()?;
    let mut fields = [const { String::new() }; NODE_FIELDS.len()];
    for field in &mut fields {
        *field = flat.text_by_hand()?;
    }
    let position = |field: &str| NODE_FIELDS.iter().position(|known| *known == field);
    Ok(snapshot_of(name, |field| {
        position(field).map(|at| fields[at].as_str())
    }))
}

/// A node from its stored fields; what is missing or unsound counts as nothing offered.
pub(super) fn snapshot_of<'a>(
    name: String,
    field: impl Fn(&str) -> Option<&'a str>,
) -> NodeSnapshot {
    fn number<T: std::str::FromStr + Default>(text: Option<&str>) -> T {
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }
    // A snapshot has no more than the state, which says less of a lost node than its whole record.
    let draining = field("draining").is_some() || field("state") == Some("draining");
    let cordoned = draining || field("cordoned").is_some() || field("state") == Some("cordoned");
    NodeSnapshot {
        heartbeat_ms: number(field("heartbeat_ms")),
        lost: field("state") == Some("lost"),
        engine: match field("engine") {
            Some("up") => EngineState::Up,
            _ => EngineState::Down,
        },
        capacity: Capacity {
            pods_max: number(field("pods_max")),
            cpu_millis: number(field("cpu")),
            memory_bytes: number(field("memory")),
        },
        pods: number(field("pods")),
        cpu_requested: number(field("cpu_requested")),
        memory_requested: number(field("memory_requested")),
        cpu_used: share(field("cpu_used").unwrap_or_default()).unwrap_or_default(),
        memory_used_bytes: number(field("memory_used")),
        pressure: read_pressure(field("pressure").unwrap_or_default()),
        epoch: number(field("epoch")),
        version: field("version").unwrap_or_default().to_owned(),
        labels: field("labels").unwrap_or_default().to_owned(),
        ports: field("ports").unwrap_or_default().to_owned(),
        turn: number(field("turn")),
        platform: field("platform").unwrap_or_default().to_owned(),
        stock: Stock {
            offers: field("offers").unwrap_or_default().to_owned(),
            asked: field("asked").unwrap_or_default().to_owned(),
            devices: field("devices").unwrap_or_default().to_owned(),
            devices_used: field("devices_used").unwrap_or_default().to_owned(),
        },
        cordoned,
        draining,
        pressed: field("pressed").unwrap_or_default().to_owned(),
        name,
    }
}

pub(in crate::store) fn describe(node: NodeSnapshot, now_ms: u64, lease: Duration) -> Node {
    let heartbeat_age_ms = now_ms.saturating_sub(node.heartbeat_ms);
    let state = if node.lost || heartbeat_age_ms > millis(lease) {
        NodeState::Lost
    } else if node.engine == EngineState::Down {
        NodeState::EngineDown
    } else if node.draining && node.pods == 0 {
        NodeState::Drained
    } else if node.draining {
        NodeState::Draining
    } else if node.cordoned {
        NodeState::Cordoned
    } else if !node.pressed.is_empty() {
        NodeState::Pressed
    } else {
        NodeState::Ready
    };
    let mut offers = Amounts::parse(&node.stock.offers);
    let mut asked = Amounts::parse(&node.stock.asked);
    for (amounts, devices) in [
        (&mut offers, &node.stock.devices),
        (&mut asked, &node.stock.devices_used),
    ] {
        for (kind, count) in count_devices(devices).iter() {
            amounts.add(kind, count);
        }
    }
    Node {
        name: node.name,
        state,
        heartbeat_age_ms,
        capacity: node.capacity,
        pods: node.pods,
        cpu_requested_millis: node.cpu_requested,
        memory_requested_bytes: node.memory_requested,
        cpu_used: node.cpu_used,
        memory_used_bytes: node.memory_used_bytes,
        pressure: node.pressure,
        epoch: node.epoch,
        version: node.version,
        platform: node.platform,
        labels: read_labels(&node.labels),
        offers,
        asked,
        devices: device_names(&node.stock.devices),
        devices_used: device_names(&node.stock.devices_used),
        cordoned: node.cordoned,
        draining: node.draining,
        pressed: Some(node.pressed).filter(|pressed| !pressed.is_empty()),
        suggestion: None,
    }
}

/// `cpu=<avg10>/<avg60> memory=… io=…`, or `unknown`: one field, readable in `redis-cli`.
pub(super) fn write_pressure(pressure: &Pressure) -> String {
    if !pressure.known {
        return "unknown".to_owned();
    }
    format!(
        "cpu={:.2}/{:.2} memory={:.2}/{:.2} io={:.2}/{:.2}",
        pressure.cpu_avg10,
        pressure.cpu_avg60,
        pressure.memory_avg10,
        pressure.memory_avg60,
        pressure.io_avg10,
        pressure.io_avg60,
    )
}

/// A figure of a node; none where it is no number that can be shown and compared.
fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share: &f64| share.is_finite())
}

fn read_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for word in text.split(' ') {
        let Some((kind, values)) = word.split_once('=') else {
            continue;
        };
        let Some((avg10, avg60)) = values.split_once('/') else {
            continue;
        };
        let (Some(avg10), Some(avg60)) = (share(avg10), share(avg60)) else {
            continue;
        };
        pressure.known = true;
        match kind {
            "cpu" => (pressure.cpu_avg10, pressure.cpu_avg60) = (avg10, avg60),
            "memory" => (pressure.memory_avg10, pressure.memory_avg60) = (avg10, avg60),
            "io" => (pressure.io_avg10, pressure.io_avg60) = (avg10, avg60),
            _ => {}
        }
    }
    pressure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_reads_back() {
        let pressure = Pressure {
            known: true,
            cpu_avg10: 1.5,
            cpu_avg60: 0.25,
            memory_avg10: 99.99,
            memory_avg60: 0.0,
            io_avg10: 3.0,
            io_avg60: 2.0,
        };
        assert_eq!(read_pressure(&write_pressure(&pressure)), pressure);
        assert_eq!(read_pressure("unknown"), Pressure::default());
        assert_eq!(read_pressure("cpu= rubbish"), Pressure::default());
    }
}
