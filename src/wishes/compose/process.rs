//! What a service runs: program, variables, folder, user, labels, and how it is stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::node::{At, Content};
use super::super::note::Notes;
use super::super::{dotenv, read_text};
use super::{Context, shapes};
use crate::model::service::PullPolicy;
use crate::model::{ServiceSpec, Span};

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, context: &Context, notes: &mut Notes) {
    program(spec, at, notes);
    spec.env = variables_of(at, "env_file", "environment", context, notes);
    spec.labels = variables_of(at, "label_file", "labels", context, notes);
    let text = |key: &str, notes: &mut Notes| {
        let at = at.some(key)?;
        at.text(notes).map(ToOwned::to_owned)
    };
    spec.user = text("user", notes).filter(|user| !user.is_empty());
    spec.working_dir = text("working_dir", notes).filter(|folder| !folder.is_empty());
    spec.stop.signal = text("stop_signal", notes).filter(|signal| !signal.is_empty());
    if let Some(at) = at.some("stop_grace_period") {
        spec.stop.grace = span(&at, notes);
    }
    if let Some(at) = at.some("init") {
        spec.init = Some(at.bool(notes));
    }
    if let Some(at) = at.some("pull_policy") {
        spec.pull = pull(&at, notes);
    }
}

/// A duration of the Compose Specification.
pub(super) fn span(at: &At, notes: &mut Notes) -> Option<Span> {
    at.parsed(
        notes,
        "a duration such as 10s or 1m30s, at most 24h",
        Span::parse,
    )
}

/// Entrypoint and command are command and args here. As with the engine, an entrypoint takes the
/// image's command away.
fn program(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let entrypoint = at.some("entrypoint");
    let command = at.some("command");
    let words = |at: &Option<At>, notes: &mut Notes| {
        at.as_ref().map(|at| words(at, notes)).unwrap_or_default()
    };
    spec.command = words(&entrypoint, notes);
    spec.args = words(&command, notes);
    if let (Some(entrypoint), true) = (&entrypoint, spec.command.is_empty()) {
        // The image's entrypoint shall not be used: the command's first word takes its place.
        if spec.args.is_empty() {
            entrypoint.refuse(
                notes,
                "an empty entrypoint needs a command: nothing is left to run",
            );
        } else {
            spec.command = vec![spec.args.remove(0)];
        }
    } else if let (Some(command), None, true) = (&command, &entrypoint, spec.args.is_empty()) {
        command.warn(
            notes,
            "an empty command is the image's own here, as with the engine",
        );
    }
}

/// A list, or a text that is split as a shell does.
pub(super) fn words(at: &At, notes: &mut Notes) -> Vec<String> {
    if let Content::Scalar { .. } = &at.node.content {
        let allowed = "words with balanced quotes, or a list";
        return at
            .parsed(notes, allowed, |text| shell_words::split(text).ok())
            .unwrap_or_default();
    }
    let items = at.list(notes);
    items
        .iter()
        .filter_map(|item| item.text(notes))
        .map(ToOwned::to_owned)
        .collect()
}

/// Pairs of files, and those of the service itself, which go before them. A name without a value
/// has that of the environment, or is left out.
fn variables_of(
    at: &At,
    files: &str,
    own: &str,
    context: &Context,
    notes: &mut Notes,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: Option<String>| {
        match value.or_else(|| context.variables.get(name).cloned()) {
            Some(value) => variables.insert(name.to_owned(), value),
            None => variables.remove(name),
        };
    };
    if let Some(at) = at.some(files) {
        for file in at.one_or_more(notes) {
            for (name, value) in file_of(&file, context, notes) {
                set(&name, value);
            }
        }
    }
    if let Some(at) = at.some(own) {
        let pairs = shapes::pairs(at.node);
        let pairs = At { node: &pairs, ..at };
        for pair in pairs.map(notes) {
            let null = pair.node.is_null();
            let value = if null {
                None
            } else {
                pair.text(notes).map(ToOwned::to_owned)
            };
            match (null, own, value) {
                (true, "labels", _) => set(pair.key, Some(String::new())),
                (true, ..) => set(pair.key, None),
                (false, _, Some(value)) => set(pair.key, Some(value)),
                // Told already.
                (false, _, None) => {}
            }
        }
    }
    variables
}

/// The pairs of a file: a path, or a mapping with `path`, `required` and `format`.
fn file_of(at: &At, context: &Context, notes: &mut Notes) -> dotenv::Lines {
    let whole = matches!(at.node.content, Content::Map(_));
    let path = if whole {
        at.some("path")
    } else {
        Some(at.clone())
    };
    let (mut required, mut raw) = (true, false);
    if whole {
        at.known(notes, &["path", "required", "format"]);
        if let Some(at) = at.some("required") {
            required = at.bool(notes);
        }
        if let Some(at) = at.some("format") {
            raw = at
                .parsed(notes, "raw", |text| (text == "raw").then_some(true))
                .is_some();
        }
    }
    let Some(path) = path else {
        at.refuse(notes, "the key path is needed");
        return dotenv::Lines::new();
    };
    let Some(text) = path.text(notes) else {
        return dotenv::Lines::new();
    };
    let full = context.path(text);
    if !required && super::is_missing(context.reader, &full) {
        return dotenv::Lines::new();
    }
    let read = read_text(context.reader, &full);
    let content = match read {
        Ok(content) => content,
        Err(problem) => {
            path.refuse(notes, format!("{text} cannot be read: {problem}"));
            return dotenv::Lines::new();
        }
    };
    let name: Arc<str> = text.into();
    let lines = if raw {
        dotenv::parse_raw(&name, &content)
    } else {
        dotenv::parse(&name, &content, context.variables)
    };
    lines.unwrap_or_else(|note| {
        notes.push(note);
        dotenv::Lines::new()
    })
}

fn pull(at: &At, notes: &mut Notes) -> PullPolicy {
    let parse = |text: &str| match text {
        "always" => Some(PullPolicy::Always),
        "missing" | "if_not_present" => Some(PullPolicy::Missing),
        "never" => Some(PullPolicy::Never),
        // What is built has to be pushed, and is then pulled as any other.
        "build" => Some(PullPolicy::Missing),
        _ => None,
    };
    let policy = at.parsed(notes, "always, missing, if_not_present or never", parse);
    if at.text(notes) == Some("build") {
        at.warn(
            notes,
            "nothing is built here: the image is pulled where it is missing",
        );
    }
    policy.unwrap_or_default()
}
