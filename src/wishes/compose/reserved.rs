//! What a service's pods ask for of their nodes: reservations, and devices by kind.

use std::collections::BTreeMap;

use super::super::node::At;
use super::super::note::Notes;
use super::resources::{bytes, cpus};
use crate::model::Resources;
use crate::model::amounts::{DEVICE_KIND_RULE, GPU, is_device_kind};

const DEVICE_KEYS: [&str; 5] = ["driver", "count", "device_ids", "capabilities", "options"];
/// The driver of the devices that agents find by themselves.
const NVIDIA: &str = "nvidia";

/// Reads `deploy.resources.reservations`, `mem_reservation` and `gpus`.
pub(super) fn translate(
    resources: &mut Resources,
    at: &At,
    deploy: Option<&At>,
    notes: &mut Notes,
) {
    let reservations = deploy.and_then(|at| at.some("reservations"));
    let reservation = |key: &str| reservations.as_ref().and_then(|at| at.some(key));
    if let Some(at) = &reservations {
        at.known(notes, &["cpus", "memory", "devices", "generic_resources"]);
    }
    let requests = &mut resources.requests;
    let some = |amount: Option<u64>| amount.filter(|amount| *amount > 0);
    requests.cpu_millis = some(reservation("cpus").and_then(|at| cpus(&at, notes)));
    let memory = reservation("memory").or_else(|| at.some("mem_reservation"));
    requests.memory_bytes = some(memory.and_then(|at| bytes(&at, notes)));
    for at in [reservation("devices"), at.some("gpus")]
        .into_iter()
        .flatten()
    {
        if at.node.asks_for_nothing() {
            continue;
        }
        for device in at.list(notes) {
            nvidia(&mut resources.devices, &device, notes);
        }
    }
    if let Some(at) = reservation("generic_resources") {
        for one in at.list(notes) {
            generic(&mut resources.devices, &one, notes);
        }
    }
}

/// An entry of `devices`: only how many counts, for nodes say which.
fn nvidia(devices: &mut BTreeMap<String, u32>, at: &At, notes: &mut Notes) {
    at.known(notes, &DEVICE_KEYS);
    if let Some(driver) = at.some("driver")
        && driver.text(notes).is_some_and(|driver| driver != NVIDIA)
    {
        driver.refuse(
            notes,
            "is not possible here, nvidia is: declare other devices in agent.devices of the nodes, and ask for them with generic_resources",
        );
        return;
    }
    if let Some(ids) = at.some("device_ids") {
        ids.refuse(
            notes,
            "is not possible here: say how many with count, the node chooses which",
        );
        return;
    }
    if let Some(options) = at.some("options")
        && !options.node.asks_for_nothing()
    {
        options.warn(notes, "has no effect here");
    }
    let Some(count) = at.some("count") else {
        at.refuse(notes, "needs a count here: say how many");
        return;
    };
    let allowed =
        "a whole number from 1; `all` is not possible here, for nodes have different numbers";
    let number = |text: &str| text.parse().ok().filter(|count| *count > 0);
    let number = count.parsed(notes, allowed, number);
    add(devices, GPU, number);
}

/// An entry of `generic_resources`: `discrete_resource_spec: {kind: fpga, value: 1}`.
fn generic(devices: &mut BTreeMap<String, u32>, at: &At, notes: &mut Notes) {
    at.known(notes, &["discrete_resource_spec"]);
    let Some(spec) = at.some("discrete_resource_spec") else {
        at.refuse(notes, "needs discrete_resource_spec with kind and value");
        return;
    };
    spec.known(notes, &["kind", "value"]);
    let (Some(kind), Some(value)) = (spec.some("kind"), spec.some("value")) else {
        spec.refuse(notes, "needs kind and value");
        return;
    };
    let word = |text: &str| {
        let text = text.to_ascii_lowercase();
        is_device_kind(&text).then_some(text)
    };
    let kind = kind.parsed(notes, DEVICE_KIND_RULE, word);
    let count = value.number(notes);
    if let Some(kind) = kind {
        add(devices, &kind, count);
    }
}

fn add(devices: &mut BTreeMap<String, u32>, kind: &str, count: Option<u32>) {
    if let Some(count) = count {
        let sum = devices.entry(kind.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }
}
