//! Volumes, binds and tmpfs of a service.
//!
//! A named volume is `<project>_<name>` on each node that runs a pod; a bind is a path of that
//! node. Neither moves with a pod.

use super::super::node::{At, Content};
use super::super::note::Notes;
use super::Context;
use super::resources::bytes;
use crate::model::ServiceSpec;
use crate::model::service::{Mount, MountKind};

/// The label that every node has: its name.
const NODE_LABEL: &str = "node";

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, context: &Context, notes: &mut Notes) {
    if let Some(volumes) = at.some("volumes") {
        for at in volumes.list(notes) {
            let mount = match at.node.content {
                Content::Scalar { .. } => short(&at, &spec.name, context, notes),
                _ => long(&at, &spec.name, context, notes),
            };
            spec.mounts.extend(mount);
        }
    }
    if let Some(tmpfs) = at.some("tmpfs") {
        for at in tmpfs.one_or_more(notes) {
            if let Some(text) = at.text(notes) {
                spec.mounts.push(tmpfs_of(&at, text, notes));
            }
        }
    }
}

/// What a pod leaves behind when it moves to another node.
pub(super) fn check_node(spec: &ServiceSpec, at: &At, notes: &mut Notes) {
    let Some(volumes) = at.some("volumes") else {
        return;
    };
    let of = |kind| {
        let mounts = spec.mounts.iter().filter(move |mount| mount.kind == kind);
        let names: Vec<&str> = mounts.filter_map(|mount| mount.source.as_deref()).collect();
        names.join(", ")
    };
    let (volume, bind) = (of(MountKind::Volume), of(MountKind::Bind));
    let held = spec.placement.labels.contains_key(NODE_LABEL);
    if !volume.is_empty() && !held {
        let text = format!(
            "each node keeps a volume of its own ({volume}): a pod that moves finds another one; deploy.placement.constraints [node.hostname == NAME] holds it on a node"
        );
        volumes.warn(notes, text);
    }
    if !bind.is_empty() {
        let text = format!(
            "the path has to be on the nodes that run a pod, and allowed by their settings ({bind})"
        );
        volumes.warn(notes, text);
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(at: &At, service: &str, context: &Context, notes: &mut Notes) -> Option<Mount> {
    let text = at.text(notes)?;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            at.refuse(
                notes,
                format!("{text:?} is given, allowed is [SOURCE:]TARGET[:ro]"),
            );
            return None;
        }
    };
    let mut mount = mount(at, source, target, service, context, notes)?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => mount.read_only = true,
            // What is so already, and what only other machines need.
            "rw" | "cached" | "delegated" | "consistent" => {}
            "z" | "Z" => at.warn(
                notes,
                format!("{option} has no effect here: label the path on the nodes"),
            ),
            "nocopy" => at.warn(
                notes,
                "nocopy has no effect here: the engine fills a new volume from the image",
            ),
            _ => at.refuse(
                notes,
                format!("the option {option} is not possible here, ro is"),
            ),
        }
    }
    Some(mount)
}

/// A mount whose kind shows in its source.
fn mount(
    at: &At,
    source: &str,
    target: &str,
    service: &str,
    context: &Context,
    notes: &mut Notes,
) -> Option<Mount> {
    let (kind, source) = if source.is_empty() {
        (
            MountKind::Volume,
            anonymous(at, target, service, context, notes),
        )
    } else if source.starts_with(['/', '.', '~']) {
        (
            MountKind::Bind,
            context.path(source).to_string_lossy().into_owned(),
        )
    } else {
        (MountKind::Volume, volume(at, source, context, notes)?)
    };
    Some(Mount {
        kind,
        source: Some(source),
        target: target.to_owned(),
        read_only: false,
        size: None,
    })
}

/// The engine's name of a volume of the file.
fn volume(at: &At, name: &str, context: &Context, notes: &mut Notes) -> Option<String> {
    let declared = context.root.some("volumes").and_then(|at| at.get(name));
    let Some(volume) = declared else {
        let text =
            format!("there is no volume {name} at the top of the file; a path begins with / or ./");
        at.refuse(notes, text);
        return None;
    };
    volume.known(
        notes,
        &["driver", "driver_opts", "external", "labels", "name"],
    );
    if let Some(driver) = volume.some("driver")
        && driver.text(notes).is_some_and(|driver| driver != "local")
    {
        driver.refuse(
            notes,
            "is not possible here: make the volume on the nodes, and set external",
        );
    }
    if let Some(options) = volume.some("driver_opts")
        && !options.node.asks_for_nothing()
    {
        options.refuse(
            notes,
            "is not possible here: make the volume on the nodes, and set external",
        );
    }
    if let Some(labels) = volume.some("labels") {
        labels.warn(notes, "has no effect here");
    }
    let external = volume.some("external");
    let is_external = external.as_ref().is_some_and(|at| match at.node.entries() {
        [] => at.bool(notes),
        // The old form: `external: {name: X}`.
        _ => true,
    });
    if is_external {
        volume.warn(
            notes,
            "has to be on every node that runs a pod: where it is not, an empty one is made",
        );
    }
    let old = external.as_ref().and_then(|at| at.some("name"));
    let said = volume.some("name").or(old).and_then(|at| at.text(notes));
    Some(match said {
        Some(said) => said.to_owned(),
        None if is_external => name.to_owned(),
        None => format!("{}_{name}", context.project),
    })
}

/// A name for a volume that has none.
fn anonymous(at: &At, target: &str, service: &str, context: &Context, notes: &mut Notes) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = target.trim_matches('/').chars().map(plain).collect();
    let name = format!("{}_{service}_{name}", context.project);
    let text = format!(
        "a volume without a name is {name} here: the service's pods on a node share it, and it stays"
    );
    at.warn(notes, text);
    name
}

fn long(at: &At, service: &str, context: &Context, notes: &mut Notes) -> Option<Mount> {
    at.known(
        notes,
        &[
            "type",
            "source",
            "target",
            "read_only",
            "bind",
            "volume",
            "tmpfs",
            "consistency",
        ],
    );
    let text = |key: &str, notes: &mut Notes| at.some(key).and_then(|at| at.text(notes));
    let source = text("source", notes).unwrap_or_default();
    let Some(target) = text("target", notes) else {
        at.refuse(notes, "the key target is needed");
        return None;
    };
    let kind = text("type", notes);
    let mut mount = match kind {
        Some("bind") => Mount {
            kind: MountKind::Bind,
            source: Some(context.path(source).to_string_lossy().into_owned()),
            target: target.to_owned(),
            read_only: false,
            size: None,
        },
        Some("tmpfs") => tmpfs_at(target),
        Some("volume") if source.is_empty() => mount(at, "", target, service, context, notes)?,
        Some("volume") => Mount {
            kind: MountKind::Volume,
            source: Some(volume(at, source, context, notes)?),
            ..tmpfs_at(target)
        },
        _ => {
            let kind = kind.unwrap_or("nothing");
            at.refuse(
                notes,
                format!("type is {kind}, possible here are bind, volume and tmpfs"),
            );
            return None;
        }
    };
    if let Some(at) = at.some("read_only") {
        mount.read_only = at.bool(notes);
    }
    if let Some(size) = at.some("tmpfs").and_then(|at| at.some("size")) {
        mount.size = bytes(&size, notes);
    }
    options(at, notes);
    Some(mount)
}

/// Names the options of a long form that are not translated.
fn options(at: &At, notes: &mut Notes) {
    for key in ["bind", "volume", "tmpfs"] {
        let options = at.some(key).map(|at| at.map(notes)).unwrap_or_default();
        for option in options
            .iter()
            .filter(|option| !option.node.asks_for_nothing())
        {
            match option.key {
                "size" => {}
                "create_host_path" => {
                    option.warn(notes, "has no effect here: the path has to be on the node")
                }
                "selinux" | "nocopy" | "mode" | "labels" => {
                    option.warn(notes, "has no effect here")
                }
                _ => option.refuse(notes, "is not possible here"),
            }
        }
    }
}

/// `TARGET[:size=64m,mode=...]`.
fn tmpfs_of(at: &At, text: &str, notes: &mut Notes) -> Mount {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut mount = tmpfs_at(target);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => {
                mount.size = super::resources::parse_bytes(size);
                if mount.size.is_none() {
                    at.refuse(notes, format!("the size {size:?} is none such as 64m"));
                }
            }
            None if option == "ro" => mount.read_only = true,
            None if option == "rw" => {}
            _ => at.warn(notes, format!("{option} has no effect here, size has")),
        }
    }
    mount
}

fn tmpfs_at(target: &str) -> Mount {
    Mount {
        kind: MountKind::Tmpfs,
        source: None,
        target: target.to_owned(),
        read_only: false,
        size: None,
    }
}
