//! What can be wrong with settings, in words that say how to mend it.

use std::fmt;
use std::path::PathBuf;

use crate::model::Violation;
use crate::model::name::NODE_NAME_RULE;

/// One thing that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings file is not TOML.
    #[error("{}: is not TOML: {}", path.display(), source.to_string().trim_end())]
    NotToml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: config::ConfigError,
    },
    /// There is no such key.
    #[error("{given}: no such setting, the nearest is {nearest} (in {origin})")]
    Unknown {
        /// The key, written as it was given.
        given: String,
        /// The most alike key, written the same way.
        nearest: String,
        /// The file, or the environment.
        origin: String,
    },
    /// A value is not allowed.
    #[error("{violation} (in {origin})")]
    NotAllowed {
        /// Key, value and rule.
        violation: Violation,
        /// The file, or the environment.
        origin: String,
    },
    /// `node.name` is empty, and the host's name is none a node can have.
    #[error("node.name is empty and the host is called {0:?}; a node's name is {NODE_NAME_RULE}")]
    HostName(String),
}

/// Everything that is wrong with the settings; never empty.
#[derive(Debug)]
pub struct SettingsErrors {
    problems: Vec<Problem>,
}

impl SettingsErrors {
    pub(super) fn of(problems: Vec<Problem>) -> Option<SettingsErrors> {
        (!problems.is_empty()).then_some(SettingsErrors { problems })
    }

    /// All that is wrong, in the order it was found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for SettingsErrors {
    fn from(problem: Problem) -> SettingsErrors {
        SettingsErrors {
            problems: vec![problem],
        }
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings are not valid:")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingsErrors {}
