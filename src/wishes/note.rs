//! Notes: what is to be said about a line of a file. Must never hold the value of a secret.

use std::sync::Arc;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a note means for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What runs is what is meant; this part of the file has no effect here.
    Warning,
    /// What would run is not what is meant: nothing is applied.
    Refused,
    /// It is not even known what is meant.
    Unreadable,
}

/// Something to say about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where.
    pub place: Place,
    /// Path of the field, such as `services.web.build`; empty for the file as a whole.
    pub field: String,
    /// What follows.
    pub level: Level,
    /// What is wrong, and what to do.
    pub text: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.text)
    }
}

/// All notes of one reading, in the order they were made; each once.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    pub(super) fn push(&mut self, note: Note) {
        // A part that several services share is told once.
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub(super) fn add(
        &mut self,
        level: Level,
        place: &Place,
        field: impl Into<String>,
        text: impl Into<String>,
    ) {
        self.push(Note {
            place: place.clone(),
            field: field.into(),
            level,
            text: text.into(),
        });
    }

    /// In the order of files and lines, as an editor walks through them.
    pub(super) fn sorted(mut self) -> Vec<Note> {
        let mut files: Vec<Arc<str>> = Vec::new();
        for note in &self.0 {
            if !files.contains(&note.place.file) {
                files.push(note.place.file.clone());
            }
        }
        let order = |note: &Note| files.iter().position(|file| *file == note.place.file);
        self.0.sort_by_key(|note| (order(note), note.place.line));
        self.0
    }
}
