//! Ports of a service, short and long.
//!
//! A published port is one of the node a pod runs on: fixed, or a free one. Addresses to listen on
//! cannot be chosen; to open a port to all that was meant for one is refused.

use super::super::node::{At, Content};
use super::super::note::Notes;
use crate::model::port::Protocol;
use crate::model::service::PORTS_MAX;
use crate::model::{Port, ServiceSpec};

const RULE: &str = "a port such as 80, \"8080:80\", \"53:53/udp\" or \"8000-8003:9000-9003\"";

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let Some(ports) = at.some("ports") else {
        return;
    };
    for at in ports.list(notes) {
        let more = match at.node.content {
            Content::Scalar { .. } => short(&at, notes),
            _ => long(&at, notes),
        };
        // The same port twice, as two files may say it, is one.
        for port in more {
            if !spec.ports.contains(&port) && spec.ports.len() <= PORTS_MAX {
                spec.ports.push(port);
            }
        }
    }
}

/// Several pods with one fixed port need as many nodes.
pub(super) fn check_copies(spec: &ServiceSpec, at: &At, notes: &mut Notes) {
    if spec.replicas > 1
        && !spec.host_ports().is_empty()
        && let Some(ports) = at.some("ports")
    {
        let text = format!(
            "{} pods with the same port of the node need as many nodes: leave the node's port out to get free ones",
            spec.replicas
        );
        ports.warn(notes, text);
    }
}

/// `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, where published and target may be ranges.
fn short(at: &At, notes: &mut Notes) -> Vec<Port> {
    let Some(text) = at.text(notes) else {
        return Vec::new();
    };
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, target) = numbers.rsplit_once(':').unwrap_or(("", numbers));
    // What is left of the last colon but one is an address, which may hold colons itself.
    let (address, published) = match rest.rsplit_once(':') {
        Some((address, published)) => (Some(address), published),
        None => (None, rest),
    };
    let ports = parts(target, published, protocol);
    let Some(ports) = ports else {
        at.refuse(notes, format!("{text:?} is given, allowed is {RULE}"));
        return Vec::new();
    };
    if let Some(address) = address {
        check_address(at, address, notes);
    }
    ports.unwrap_or_else(|problem| {
        at.refuse(notes, problem);
        Vec::new()
    })
}

fn long(at: &At, notes: &mut Notes) -> Vec<Port> {
    at.known(
        notes,
        &[
            "name",
            "mode",
            "host_ip",
            "target",
            "published",
            "protocol",
            "app_protocol",
        ],
    );
    let text = |key: &str, notes: &mut Notes| at.some(key).and_then(|at| at.text(notes));
    let (target, published) = (text("target", notes), text("published", notes));
    let protocol = text("protocol", notes).unwrap_or("tcp");
    let Some(target) = target else {
        at.refuse(notes, "the key target is needed");
        return Vec::new();
    };
    if let Some(host) = at.some("host_ip")
        && let Some(address) = host.text(notes)
    {
        check_address(&host, address, notes);
    }
    if let Some(mode) = at.some("mode")
        && mode.text(notes) == Some("ingress")
    {
        mode.warn(
            notes,
            "has no effect here: the port is open on the nodes that run a pod",
        );
    }
    for key in ["name", "app_protocol"] {
        if let Some(at) = at.some(key) {
            at.warn(notes, "has no effect here");
        }
    }
    match parts(target, published.unwrap_or_default(), protocol) {
        Some(Ok(ports)) => ports,
        Some(Err(problem)) => {
            at.refuse(notes, problem);
            Vec::new()
        }
        None => {
            at.refuse(
                notes,
                format!("target, published and protocol have to make {RULE}"),
            );
            Vec::new()
        }
    }
}

/// The ports of two ranges; none if they are no ports, a problem if they do not go together.
fn parts(target: &str, published: &str, protocol: &str) -> Option<Result<Vec<Port>, String>> {
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Some(Err("sctp is not possible here, tcp and udp are".to_owned())),
        _ => return None,
    };
    let (first, last) = range(target)?;
    let count = last - first;
    if usize::from(count) >= PORTS_MAX {
        return Some(Err(format!("a pod has at most {PORTS_MAX} ports")));
    }
    let host = match published {
        "" => None,
        published => Some(range(published)?),
    };
    if let Some((host, end)) = host
        && end - host != count
    {
        let text = "as many ports of the node as of the container are needed: name one, or none to get a free one";
        return Some(Err(text.to_owned()));
    }
    let port = |offset: u16| Port {
        container: first + offset,
        host: host.map(|(host, _)| host + offset),
        protocol,
    };
    Some(Ok((0..=count).map(port).collect()))
}

/// `80` or `80-85`.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn check_address(at: &At, address: &str, notes: &mut Notes) {
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if !matches!(address, "" | "0.0.0.0" | "::") {
        let text = format!(
            "to listen on {address} alone is not possible here: it would be open on every address of the node; leave the address out, or the port"
        );
        at.refuse(notes, text);
    }
}
