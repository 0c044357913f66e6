//! Compose files become wishes: loaded, merged, and translated service by service.
//!
//! The services of a project keep their names, in the namespace that is asked for; all carry the
//! label `project`. Volumes are named `<project>_<volume>`, as Compose does. Own types in place of
//! a Compose crate: those at hand know no lines, so that nothing could be named by its place.

mod deploy;
mod extends;
mod files;
mod health;
mod isolation;
mod merge;
mod mounts;
mod network;
mod not_here;
mod order;
mod ports;
mod process;
mod reserved;
mod resources;
mod service;
mod shapes;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::node::{At, Content, Node, unknown};
use super::note::{Level, Notes, Place};
use super::variables::{Variables, fill_all};
use super::{Options, Reader, Wish, dotenv, read_text};
use crate::model::ServiceKey;
use extends::Extends;

/// Keys that only a compose file has at its top.
const TOP_KEYS: [&str; 8] = [
    "services", "volumes", "networks", "secrets", "configs", "include", "models", "version",
];
/// What Compose reads variables from, beside the first file.
const ENV_FILE: &str = ".env";
const PROJECT_RULE: &str =
    "lower-case letters, digits, '-' and '_', beginning with a letter or digit";

/// The compose files of a command, as one project.
#[derive(Default)]
pub(super) struct Project {
    pub(super) name: Option<String>,
    pub(super) wishes: Vec<Wish>,
    /// Services whose profiles are off.
    pub(super) off: Vec<ServiceKey>,
}

/// What the translation of a service needs to know of its project.
struct Context<'a> {
    /// Name of the project.
    project: &'a str,
    /// Namespace of its services.
    namespace: &'a str,
    /// Folder that relative paths are relative to.
    folder: &'a Path,
    variables: &'a Variables,
    reader: &'a Reader<'a>,
    /// The merged file.
    root: At<'a>,
}

impl Context<'_> {
    /// An absolute path without `.` and `..`; `~` is the user's home.
    fn path(&self, text: &str) -> PathBuf {
        let home = self.variables.get("HOME").map(String::as_str);
        let whole = match (text.strip_prefix('~'), home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                Path::new(home).join(rest.trim_start_matches('/'))
            }
            _ => self.folder.join(text),
        };
        let mut path = PathBuf::new();
        for part in whole.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    path.pop();
                }
                part => path.push(part),
            }
        }
        path
    }
}

/// Whether a document is (a part of) a compose file.
pub(super) fn is_compose(document: &Node) -> bool {
    TOP_KEYS.iter().any(|key| document.get(key).is_some())
}

/// The services of compose files, later ones over earlier ones, each after those it depends on.
pub(super) fn read(
    files: Vec<(Node, PathBuf)>,
    options: &Options,
    reader: &Reader,
    notes: &mut Notes,
) -> Project {
    let folder = files
        .first()
        .map(|(_, folder)| folder.clone())
        .unwrap_or_default();
    let variables = variables(&folder, options, reader, notes);
    let mut merged: Option<Node> = None;
    for (mut file, _) in files {
        fill_all(&mut file, &variables, notes);
        let mut extends = Extends {
            reader,
            variables: &variables,
            folder: &folder,
            notes,
        };
        if let Content::Map(entries) = &mut file.content {
            let services = entries.iter_mut().find(|entry| entry.key == "services");
            if let Some(services) = services {
                services.value = extends.resolve(&services.value);
            }
        }
        merged = Some(match merged {
            Some(merged) => merge::file(merged, file),
            None => file,
        });
    }
    let Some(mut root) = merged else {
        return Project::default();
    };
    merge::strip(&mut root);
    let root = At::root(&root);
    check_top(&root, notes);
    let name = project_name(&root, options, &variables, &folder, notes);
    let Some(name) = name else {
        return Project::default();
    };
    let context = Context {
        project: &name,
        namespace: options
            .namespace
            .as_deref()
            .unwrap_or(ServiceKey::DEFAULT_NAMESPACE),
        folder: &folder,
        variables: &variables,
        reader,
        root,
    };
    let profiles = profiles(options, &variables);
    let (wishes, off) = service::all(&context, &profiles, notes);
    Project {
        name: Some(name),
        wishes,
        off,
    }
}

/// The variables of the files: those of the process before those of `.env`.
fn variables(folder: &Path, options: &Options, reader: &Reader, notes: &mut Notes) -> Variables {
    let beside = [folder.join(ENV_FILE)];
    let given = !options.env_files.is_empty();
    let paths: &[PathBuf] = if given { &options.env_files } else { &beside };
    let mut all = Variables::new();
    for path in paths {
        let file: Arc<str> = if given {
            path.to_string_lossy()
        } else {
            ENV_FILE.into()
        }
        .into();
        let place = Place {
            file: file.clone(),
            line: 1,
        };
        if !given && is_missing(reader, path) {
            continue;
        }
        let text = match read_text(reader, path) {
            Ok(text) => text,
            Err(problem) => {
                let text = format!("the file of variables cannot be read: {problem}");
                notes.add(Level::Unreadable, &place, "", text);
                continue;
            }
        };
        // A later file may refer to an earlier one.
        let mut known = all.clone();
        known.extend(options.environment.clone());
        match dotenv::parse(&file, &text, &known) {
            Ok(lines) => {
                let some = lines
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)));
                all.extend(some);
            }
            Err(note) => notes.push(note),
        }
    }
    all.extend(options.environment.clone());
    all
}

fn is_missing(reader: &Reader, path: &Path) -> bool {
    reader(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn check_top(root: &At, notes: &mut Notes) {
    let mut known = TOP_KEYS.to_vec();
    known.push("name");
    for at in root.map(notes) {
        match at.key {
            "version" => at.warn(notes, "has no meaning any more: it can be left out"),
            "include" => at.refuse(
                notes,
                "is not followed here: name the other file with -f of its own",
            ),
            "models" if !at.node.asks_for_nothing() => {
                at.refuse(notes, "models are not run here: leave it out");
            }
            key if !known.contains(&key) => at.refuse(notes, unknown(key, &known)),
            _ => {}
        }
    }
}

/// `--project`, `COMPOSE_PROJECT_NAME`, the file's `name`, the folder's name.
fn project_name(
    root: &At,
    options: &Options,
    variables: &Variables,
    folder: &Path,
    notes: &mut Notes,
) -> Option<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sound = |name: &str| {
        name.starts_with(word) && name.chars().all(|c| word(c) || c == '-' || c == '_')
    };
    let variable = variables.get("COMPOSE_PROJECT_NAME");
    let said = options
        .project
        .as_ref()
        .or_else(|| variable.filter(|name| !name.is_empty()));
    if let Some(name) = said {
        if !sound(name) {
            let text = format!("the project is called {name:?}, allowed is {PROJECT_RULE}");
            notes.add(Level::Unreadable, root.place, "", text);
            return None;
        }
        return Some(name.clone());
    }
    if let Some(at) = root.some("name") {
        let name = at.text(notes)?;
        if !sound(name) {
            let text = format!("{name:?} is given, allowed is {PROJECT_RULE}");
            notes.add(Level::Unreadable, at.place, "name", text);
            return None;
        }
        return Some(name.to_owned());
    }
    let folder = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let name: String = folder
        .chars()
        .filter(|c| word(*c) || *c == '-' || *c == '_')
        .collect();
    let name = name.trim_start_matches(['-', '_']).to_owned();
    if name.is_empty() {
        let text = "the folder's name makes no name of a project: say one with --project";
        notes.add(Level::Unreadable, root.place, "", text);
        return None;
    }
    Some(name)
}

/// `--profile`, and those of `COMPOSE_PROFILES`.
fn profiles(options: &Options, variables: &Variables) -> Vec<String> {
    let more = variables.get("COMPOSE_PROFILES").map_or("", String::as_str);
    let more = more
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    options
        .profiles
        .iter()
        .cloned()
        .chain(more.map(ToOwned::to_owned))
        .collect()
}

#[cfg(test)]
mod tests;
