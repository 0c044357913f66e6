//! `If-Match`: the revision that a service must have for a write to be carried out.

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;

use super::problem::{Kind, Problem};
use crate::model::digits::digits;
use crate::model::{ServiceKey, Violation};

/// The revision of `If-Match`, if it is given: `3` or `"3"`; 0 for a service that must not be there.
pub(super) fn expected_revision(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let given = String::from_utf8_lossy(given.as_bytes());
    let quoted = given
        .strip_prefix('"')
        .and_then(|given| given.strip_suffix('"'));
    match digits(quoted.unwrap_or(&given)) {
        Some(revision) => Ok(Some(revision)),
        None => Err(Problem::of_field(Violation::new(
            "If-Match",
            given,
            "a service's revision, such as 3",
        ))),
    }
}

/// The problem of a service that moved on.
pub(super) fn moved(key: &ServiceKey, expected: Option<u64>, revision: u64) -> Problem {
    let expected = expected.unwrap_or(0);
    let stands = match revision {
        0 => format!("there is no service {key}"),
        _ => format!("service {key} has revision {revision}"),
    };
    let detail =
        format!("{stands}, not {expected} as If-Match says: look at it, and send it again");
    Problem::new(Kind::RevisionMoved, detail)
}
