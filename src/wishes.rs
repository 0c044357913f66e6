//! Files become wishes: service files, and compose files.
//!
//! Everything that is wrong or has no effect is a [`Note`] with file and line, so that one look
//! shows all; nothing is dropped in silence. Pure: what a file refers to is read by the function
//! that is given. Must never ask the API.

mod compose;
mod dotenv;
mod node;
mod note;
mod service_file;
mod variables;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::model::ServiceKey;
use note::Notes;

pub use note::{Level, Note, Place};
pub use variables::Variables;

/// The label by which the services of a project are found.
pub const PROJECT_LABEL: &str = "project";
/// Most bytes of one file.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Reads a file that another one refers to.
pub type Reader<'a> = dyn Fn(&Path) -> std::io::Result<Vec<u8>> + 'a;

/// A file that was given.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name as the user gave it.
    pub name: String,
    /// The folder it is in, as an absolute path.
    pub folder: PathBuf,
    /// What it holds.
    pub text: String,
}

/// What was said beside the files.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name of the project.
    pub project: Option<String>,
    /// Namespace of services that name none.
    pub namespace: Option<String>,
    /// Profiles that are on; `*` is all.
    pub profiles: Vec<String>,
    /// Files in place of `.env`.
    pub env_files: Vec<PathBuf>,
    /// Variables of the process.
    pub environment: Variables,
}

/// A service that a file wishes for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Where it stands.
    pub place: Place,
    /// What it is called.
    pub key: ServiceKey,
    /// The body that asks for it.
    pub body: Value,
    /// The project it belongs to.
    pub project: Option<String>,
    /// What has to be so before it is asked for.
    pub after: Vec<After>,
}

/// A state of another service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// The other service.
    pub key: ServiceKey,
    /// Its state.
    pub condition: Condition,
    /// Whether it is asked for at all without it.
    pub required: bool,
}

/// States that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its pods run, or have run.
    Started,
    /// Its pods are ready.
    Healthy,
    /// Its pods ended with exit code 0.
    Completed,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Condition::Started => "started",
            Condition::Healthy => "healthy",
            Condition::Completed => "completed",
        })
    }
}

/// What the files say.
#[derive(Debug, Default)]
pub struct Reading {
    /// The services, each after those it depends on. Those that cannot be applied are among them:
    /// see the notes.
    pub wishes: Vec<Wish>,
    /// Services that the files name and leave out, because their profiles are off.
    pub off: Vec<ServiceKey>,
    /// The project, where one was said or a compose file makes one.
    pub project: Option<String>,
    /// All there is to say, by file and line.
    pub notes: Vec<Note>,
}

impl Reading {
    /// The gravest note.
    pub fn level(&self) -> Option<Level> {
        self.notes.iter().map(|note| note.level).max()
    }
}

/// Reads files together: compose files are one project, later ones over earlier ones.
pub fn read(sources: &[Source], options: &Options, reader: &Reader) -> Reading {
    let mut notes = Notes::default();
    let mut reading = Reading {
        project: options.project.clone(),
        ..Reading::default()
    };
    let mut files = Vec::new();
    // The wishes of all compose files stand where the first of them does.
    let mut compose_at = None;
    for source in sources {
        let name: Arc<str> = source.name.as_str().into();
        let documents = match yaml::documents(&name, &source.text) {
            Ok(documents) => documents,
            Err(note) => {
                notes.push(note);
                continue;
            }
        };
        for (index, document) in documents.into_iter().enumerate() {
            if compose::is_compose(&document) {
                compose_at.get_or_insert(reading.wishes.len());
                files.push((document, source.folder.clone()));
            } else {
                let number = index + 1;
                let wish = service_file::read(&document, number, options, &mut notes);
                reading.wishes.extend(wish);
            }
        }
    }
    if let Some(at) = compose_at {
        let project = compose::read(files, options, reader, &mut notes);
        reading.project = project.name.or(reading.project);
        reading.wishes.splice(at..at, project.wishes);
        reading.off = project.off;
    }
    refuse_repeated(&reading.wishes, &mut notes);
    reading.notes = notes.sorted();
    reading
}

fn refuse_repeated(wishes: &[Wish], notes: &mut Notes) {
    let mut seen: BTreeMap<&ServiceKey, &Place> = BTreeMap::new();
    for wish in wishes {
        if let Some(first) = seen.insert(&wish.key, &wish.place) {
            let text = format!("the service {} stands at {first} too", wish.key);
            notes.add(Level::Refused, &wish.place, "", text);
        }
    }
}

/// The text of a file that another one refers to.
fn read_text(reader: &Reader, path: &Path) -> Result<String, String> {
    let bytes = read_bytes(reader, path)?;
    String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())
}

fn read_bytes(reader: &Reader, path: &Path) -> Result<Vec<u8>, String> {
    let bytes = reader(path).map_err(|error| error.to_string())?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
