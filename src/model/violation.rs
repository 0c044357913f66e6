//! One broken rule in what a user gave: which field, what was given, what is allowed.

use serde::{Deserialize, Serialize};

/// A broken rule, in words a user can act on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Violation {
    /// Path of the field, such as `resources.memory`, shortened likewise; empty for the body as a whole.
    pub field: String,
    /// What was given, shortened to [`Violation::GIVEN_MAX`] characters.
    pub given: String,
    /// What is allowed there.
    pub allowed: String,
}

impl Violation {
    /// Longest piece of the user's input that is shown back.
    pub const GIVEN_MAX: usize = 200;

    /// A violation of `field`; both that and `given` are shortened, for a field may be a user's own word.
    pub fn new(
        field: impl Into<String>,
        given: impl ToString,
        allowed: impl Into<String>,
    ) -> Violation {
        Violation {
            field: shortened(field.into()),
            given: shortened(given.to_string()),
            allowed: allowed.into(),
        }
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(Violation::GIVEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{:?} is given, allowed is {}", self.given, self.allowed)
    }
}
