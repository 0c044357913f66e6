//! What separates a service's containers from the machine: capabilities, devices, privileges. All
//! of it is subject to what the nodes' settings allow.

use super::super::node::{At, Content};
use super::super::note::Notes;
use crate::model::ServiceSpec;
use crate::model::service::{Device, Ulimit};

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let texts = |key: &str, notes: &mut Notes| -> Vec<String> {
        let items = at.some(key).map(|at| at.list(notes)).unwrap_or_default();
        let items = items.iter().filter_map(|at| at.text(notes));
        items.map(ToOwned::to_owned).collect()
    };
    spec.capabilities.add = texts("cap_add", notes);
    spec.capabilities.drop = texts("cap_drop", notes);
    if let Some(at) = at.some("read_only") {
        spec.read_only = at.bool(notes);
    }
    if let Some(at) = at.some("privileged") {
        spec.privileged = at.bool(notes);
    }
    if let Some(at) = at.some("devices") {
        for at in at.list(notes) {
            spec.devices.extend(device(&at, notes));
        }
    }
    if let Some(at) = at.some("ulimits") {
        for at in at.map(notes) {
            if let Some(limit) = ulimit(&at, notes) {
                spec.ulimits.insert(at.key.to_owned(), limit);
            }
        }
    }
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, or a mapping.
fn device(at: &At, notes: &mut Notes) -> Option<Device> {
    let (host, container, permissions) = if let Content::Scalar { .. } = at.node.content {
        let mut parts = at.text(notes)?.split(':');
        (parts.next()?, parts.next(), parts.next())
    } else {
        at.known(notes, &["source", "target", "permissions"]);
        let text = |key: &str, notes: &mut Notes| at.some(key).and_then(|at| at.text(notes));
        let Some(source) = text("source", notes) else {
            at.refuse(notes, "the key source is needed");
            return None;
        };
        (source, text("target", notes), text("permissions", notes))
    };
    if !host.starts_with('/') {
        let text = format!("{host:?} is no path of a device: names of CDI are not possible here");
        at.refuse(notes, text);
        return None;
    }
    Some(Device {
        host: host.to_owned(),
        container: container
            .filter(|inside| *inside != host)
            .map(ToOwned::to_owned),
        permissions: permissions.unwrap_or("rwm").to_owned(),
    })
}

/// A number for both bounds, or a mapping of `soft` and `hard`.
fn ulimit(at: &At, notes: &mut Notes) -> Option<Ulimit> {
    if let Content::Scalar { .. } = at.node.content {
        let both = at.number(notes)?;
        return Some(Ulimit {
            soft: both,
            hard: both,
        });
    }
    at.known(notes, &["soft", "hard"]);
    match (at.some("soft"), at.some("hard")) {
        (Some(soft), Some(hard)) => Some(Ulimit {
            soft: soft.number(notes)?,
            hard: hard.number(notes)?,
        }),
        _ => {
            at.refuse(notes, "the keys soft and hard are needed");
            None
        }
    }
}
