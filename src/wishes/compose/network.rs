//! Networks, name servers and hosts of a service.
//!
//! A container is in the engine's own network, or in one that the nodes have (`external`). Networks
//! are not made, so services are not kept apart by them.

use super::super::node::At;
use super::super::note::Notes;
use super::{Context, shapes};
use crate::model::ServiceSpec;

/// The network of services that name none.
const DEFAULT: &str = "default";

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, context: &Context, notes: &mut Notes) {
    match (at.some("network_mode"), at.some("networks")) {
        (Some(mode), Some(_)) => {
            mode.refuse(
                notes,
                "network_mode and networks exclude each other: leave one out",
            );
        }
        (Some(mode), None) => spec.network = network_mode(&mode, notes),
        (None, given) => spec.network = networks(given, context, notes),
    }
    if let Some(at) = at.some("dns") {
        let servers = at.one_or_more(notes);
        let servers = servers.iter().filter_map(|at| at.text(notes));
        spec.dns = servers.map(ToOwned::to_owned).collect();
    }
    if let Some(at) = at.some("extra_hosts") {
        let hosts = shapes::hosts(at.node);
        let hosts = At { node: &hosts, ..at };
        for host in hosts.map(notes) {
            if let Some(address) = host.text(notes) {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                spec.extra_hosts
                    .insert(host.key.to_owned(), address.to_owned());
            }
        }
    }
    if let Some(links) = at.some("links") {
        links.warn(
            notes,
            "only the order has an effect here: give the other service's address in environment",
        );
    }
}

fn network_mode(at: &At, notes: &mut Notes) -> Option<String> {
    let mode = at.text(notes)?;
    match mode {
        "bridge" | "none" | "host" => Some(mode.to_owned()),
        "default" | "" => None,
        _ => {
            let text = format!("{mode:?} is not possible here, bridge, none and host are");
            at.refuse(notes, text);
            None
        }
    }
}

/// The one network of the engine that a service is in, if it names one.
fn networks(given: Option<At>, context: &Context, notes: &mut Notes) -> Option<String> {
    let declared = context.root.some("networks");
    let declared = |name: &str| declared.as_ref().and_then(|at| at.get(name));
    let Some(given) = given else {
        let network = declared(DEFAULT)?;
        return engine_network(&network, notes).or_else(|| {
            not_made(&network, std::slice::from_ref(&network), notes);
            None
        });
    };
    let names = shapes::names(given.node);
    let given = At {
        node: &names,
        ..given
    };
    let mut networks = Vec::new();
    for at in given.map(notes) {
        options(&at, notes);
        match declared(at.key) {
            Some(network) => networks.push(network),
            None if at.key == DEFAULT => {}
            None => {
                let text = format!("there is no network {} at the top of the file", at.key);
                at.refuse(notes, text);
            }
        }
    }
    let engine: Vec<String> = networks
        .iter()
        .filter_map(|network| engine_network(network, notes))
        .collect();
    match engine.as_slice() {
        [] => {
            not_made(&given, &networks, notes);
            None
        }
        [one] if networks.len() == 1 => Some(one.clone()),
        _ => {
            given.refuse(notes, "a container is in one network here: name one");
            None
        }
    }
}

/// The name of a network that the nodes have.
fn engine_network(network: &At, notes: &mut Notes) -> Option<String> {
    let external = network
        .some("external")
        .is_some_and(|at| match at.node.entries() {
            [] => at.bool(notes),
            // The old form: `external: {name: X}`.
            _ => true,
        });
    if !external {
        return None;
    }
    let old = network.get("external").and_then(|at| at.some("name"));
    let name = network.some("name").or(old);
    let name = name.and_then(|at| at.text(notes)).unwrap_or(network.key);
    Some(name.to_owned())
}

/// Says what it means that the networks `at` names are not made.
fn not_made(at: &At, networks: &[At], notes: &mut Notes) {
    let is_internal = |at: &At| {
        at.get("internal")
            .is_some_and(|at| at.node.to_json() == true)
    };
    if !networks.is_empty() && networks.iter().all(is_internal) {
        at.refuse(
            notes,
            "networks are not made here, so an internal one would be open to the outside: use network_mode none, or leave internal out",
        );
        return;
    }
    for network in networks {
        if network.key != DEFAULT || !network.node.asks_for_nothing() {
            network.warn(
                notes,
                "networks are not made here: containers are in the engine's own network, and are not kept apart",
            );
        }
    }
}

/// What a service says of its place in a network.
fn options(at: &At, notes: &mut Notes) {
    for option in at.map(notes) {
        match option.key {
            "ipv4_address" | "ipv6_address" | "link_local_ips" => option.refuse(
                notes,
                "addresses cannot be chosen here: a pod gets one where it runs; leave it out",
            ),
            "aliases" => option.warn(notes, "has no effect here: names are not resolved"),
            _ => option.warn(notes, "has no effect here"),
        }
    }
}
