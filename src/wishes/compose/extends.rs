//! `extends`: a service takes over another one of the same file or of another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::node::{At, Content, Entry, Node};
use super::super::note::{Level, Notes, Place};
use super::super::variables::{Variables, fill_all};
use super::super::{Reader, read_text, yaml};
use super::merge;

/// Longest chain of services that extend one another.
const CHAIN_MAX: usize = 32;

/// What is needed to follow `extends` into other files.
pub(super) struct Extends<'a> {
    pub(super) reader: &'a Reader<'a>,
    pub(super) variables: &'a Variables,
    /// Folder that paths of the project are relative to.
    pub(super) folder: &'a Path,
    pub(super) notes: &'a mut Notes,
}

/// A service on the way along a chain.
#[derive(PartialEq)]
struct Link {
    file: Option<PathBuf>,
    service: String,
}

impl Extends<'_> {
    /// The services of a file, each with what it extends.
    pub(super) fn resolve(&mut self, services: &Node) -> Node {
        let Content::Map(entries) = &services.content else {
            return services.clone();
        };
        let resolve = |entry: &Entry| {
            let path = format!("services.{}", entry.key);
            let mut chain = vec![Link {
                file: None,
                service: entry.key.clone(),
            }];
            let value = self.service(&entry.value, services, &path, &mut chain);
            Entry {
                value,
                ..entry.clone()
            }
        };
        let entries = entries.iter().map(resolve).collect();
        Node::of(Content::Map(entries), &services.place)
    }

    fn service(&mut self, own: &Node, services: &Node, path: &str, chain: &mut Vec<Link>) -> Node {
        let Some(extends) = own.get("extends") else {
            return own.clone();
        };
        let mut rest = own.clone();
        if let Content::Map(entries) = &mut rest.content {
            entries.retain(|entry| entry.key != "extends");
        }
        let at = At {
            node: &extends.value,
            place: &extends.place,
            path: format!("{path}.extends"),
            key: "extends",
        };
        match self.base(&at, services, chain) {
            Some(base) => merge::service(base, rest),
            None => rest,
        }
    }

    /// The service that is extended, with what it extends itself.
    fn base(&mut self, at: &At, services: &Node, chain: &mut Vec<Link>) -> Option<Node> {
        let (name, file) = match &at.node.content {
            Content::Scalar { .. } => (at.text(self.notes)?, None),
            _ => {
                at.known(self.notes, &["service", "file"]);
                let Some(service) = at.some("service") else {
                    at.refuse(self.notes, "the key service is needed");
                    return None;
                };
                let file = at.some("file");
                let file = match &file {
                    Some(file) => Some(file.text(self.notes)?),
                    None => None,
                };
                (service.text(self.notes)?, file)
            }
        };
        let path = match file {
            Some(file) => Some(self.folder.join(file)),
            // The same file as the service before it in the chain.
            None => chain.last().and_then(|link| link.file.clone()),
        };
        let link = Link {
            file: path.clone(),
            service: name.to_owned(),
        };
        if chain.contains(&link) || chain.len() >= CHAIN_MAX {
            let names: Vec<&str> = chain.iter().map(|link| link.service.as_str()).collect();
            at.refuse(
                self.notes,
                format!("{} extend one another in a circle", names.join(", ")),
            );
            return None;
        }
        let loaded = match (file, &path) {
            (Some(file), Some(path)) => Some(self.load(at, file, path)?),
            _ => None,
        };
        let services = loaded.as_ref().unwrap_or(services);
        let Some(entry) = services.get(name) else {
            let file = file.unwrap_or("this file");
            at.refuse(self.notes, format!("there is no service {name} in {file}"));
            return None;
        };
        chain.push(link);
        let mut base = self.service(&entry.value, services, &format!("services.{name}"), chain);
        chain.pop();
        if let (Some(_), Some(folder)) = (file, path.as_deref().and_then(Path::parent)) {
            rebase(&mut base, folder);
        }
        Some(base)
    }

    /// The services of another file.
    fn load(&mut self, at: &At, file: &str, path: &Path) -> Option<Node> {
        let name: Arc<str> = file.into();
        let text = match read_text(self.reader, path) {
            Ok(text) => text,
            Err(problem) => {
                at.refuse(self.notes, format!("{file} cannot be read: {problem}"));
                return None;
            }
        };
        let mut documents = match yaml::documents(&name, &text) {
            Ok(documents) => documents,
            Err(note) => {
                self.notes.push(note);
                return None;
            }
        };
        let mut whole: Option<Node> = None;
        for document in &mut documents {
            fill_all(document, self.variables, self.notes);
            whole = Some(match whole {
                Some(whole) => merge::file(whole, document.clone()),
                None => document.clone(),
            });
        }
        let services = whole.as_ref().and_then(|whole| whole.get("services"));
        if services.is_none() {
            let place = Place {
                file: name,
                line: 1,
            };
            self.notes
                .add(Level::Refused, &place, "", "the file has no services");
        }
        services.map(|services| services.value.clone())
    }
}

/// Makes the paths of a service those of the folder of its file.
fn rebase(service: &mut Node, folder: &Path) {
    let Content::Map(entries) = &mut service.content else {
        return;
    };
    for entry in entries {
        let rebase: fn(&mut Node, &Path) = match entry.key.as_str() {
            "env_file" | "label_file" => rebase_file,
            "volumes" => rebase_bind,
            _ => continue,
        };
        match &mut entry.value.content {
            Content::List(items) => items.iter_mut().for_each(|item| rebase(item, folder)),
            _ => rebase(&mut entry.value, folder),
        }
    }
}

fn rebase_file(item: &mut Node, folder: &Path) {
    match &mut item.content {
        Content::Scalar { text, .. } => *text = joined(folder, text),
        Content::Map(entries) => {
            for entry in entries.iter_mut().filter(|entry| entry.key == "path") {
                rebase_file(&mut entry.value, folder);
            }
        }
        Content::List(_) => {}
    }
}

fn rebase_bind(item: &mut Node, folder: &Path) {
    match &mut item.content {
        Content::Scalar { text, .. } if text.starts_with('.') => *text = joined(folder, text),
        Content::Scalar { .. } | Content::List(_) => {}
        Content::Map(entries) => {
            for entry in entries.iter_mut().filter(|entry| entry.key == "source") {
                rebase_bind(&mut entry.value, folder);
            }
        }
    }
}

fn joined(folder: &Path, text: &str) -> String {
    folder.join(text).to_string_lossy().into_owned()
}
