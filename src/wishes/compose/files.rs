//! Secrets and configs of a service: files that are put into its containers.
//!
//! Their content is read where the command runs, and becomes a part of the wish.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::node::{At, Content};
use super::super::note::Notes;
use super::super::read_bytes;
use super::Context;
use crate::model::ServiceSpec;
use crate::model::service::File;

/// Folder of secrets that say no other.
const SECRETS: &str = "/run/secrets/";
/// Permissions where none are said.
const MODE: &str = "0444";

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, context: &Context, notes: &mut Notes) {
    for (key, secret) in [("secrets", true), ("configs", false)] {
        let Some(given) = at.some(key) else { continue };
        for at in given.list(notes) {
            spec.files.extend(file(&at, key, secret, context, notes));
        }
    }
}

/// A name, or a mapping of `source`, `target`, `uid`, `gid` and `mode`.
fn file(at: &At, key: &str, secret: bool, context: &Context, notes: &mut Notes) -> Option<File> {
    let long = !matches!(at.node.content, Content::Scalar { .. });
    if long {
        at.known(notes, &["source", "target", "uid", "gid", "mode"]);
    }
    let option = |key: &str| if long { at.some(key) } else { None };
    let name = if long {
        option("source")
    } else {
        Some(at.clone())
    };
    let Some(name) = name else {
        at.refuse(notes, "the key source is needed");
        return None;
    };
    let name = name.text(notes)?;
    let target = option("target").and_then(|at| at.text(notes));
    let path = match (target, secret) {
        (Some(target), _) if target.starts_with('/') => target.to_owned(),
        (Some(target), true) => format!("{SECRETS}{target}"),
        (None, true) => format!("{SECRETS}{name}"),
        (Some(target), false) => format!("/{target}"),
        (None, false) => format!("/{name}"),
    };
    let mode = option("mode").and_then(|at| at.parsed(notes, MODE_RULE, mode));
    let bytes = content(at, name, key, context, notes)?;
    let (content, base64) = match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(other) => (None, Some(BASE64_STANDARD.encode(other.into_bytes()))),
    };
    Some(File {
        path,
        content,
        base64,
        mode: mode.unwrap_or_else(|| MODE.to_owned()),
        uid: option("uid").and_then(|at| at.number(notes)).unwrap_or(0),
        gid: option("gid").and_then(|at| at.number(notes)).unwrap_or(0),
        secret,
    })
}

const MODE_RULE: &str = "permissions in octal with a leading zero, such as 0440";

/// Octal, as `0440` or `0o440`. Without the zero it is a decimal number to YAML, which nobody means.
fn mode(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'))?;
    let mode = u32::from_str_radix(digits, 8).ok()?;
    (mode <= 0o7777).then(|| format!("{mode:04o}"))
}

/// What a secret or config of the file holds.
fn content(
    at: &At,
    name: &str,
    key: &str,
    context: &Context,
    notes: &mut Notes,
) -> Option<Vec<u8>> {
    let declared = context.root.some(key).and_then(|at| at.get(name));
    let Some(declared) = declared else {
        at.refuse(
            notes,
            format!("there is nothing named {name} under {key} at the top of the file"),
        );
        return None;
    };
    declared.known(
        notes,
        &[
            "file",
            "environment",
            "content",
            "external",
            "name",
            "labels",
            "driver",
            "driver_opts",
            "template_driver",
        ],
    );
    for option in ["external", "driver", "driver_opts", "template_driver"] {
        if let Some(option) = declared.some(option)
            && !option.node.asks_for_nothing()
        {
            option.refuse(
                notes,
                "is not possible here: say the content with file, environment or content",
            );
            return None;
        }
    }
    if let Some(labels) = declared.some("labels") {
        labels.warn(notes, "has no effect here");
    }
    let sources = [
        declared.some("file"),
        declared.some("environment"),
        declared.some("content"),
    ];
    match sources {
        [Some(file), None, None] => {
            let text = file.text(notes)?;
            let read = read_bytes(context.reader, &context.path(text));
            let refuse = |problem| file.refuse(notes, format!("{text} cannot be read: {problem}"));
            read.map_err(refuse).ok()
        }
        [None, Some(variable), None] => {
            let name = variable.text(notes)?;
            let value = context.variables.get(name);
            if value.is_none() {
                variable.refuse(notes, format!("the variable {name} has no value"));
            }
            value.map(|value| value.clone().into_bytes())
        }
        [None, None, Some(content)] => content.text(notes).map(|text| text.as_bytes().to_vec()),
        _ => {
            declared.refuse(notes, "one of file, environment and content is needed");
            None
        }
    }
}
