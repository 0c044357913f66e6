//! What can go wrong between a face and the API, in words for the person who asked.

use std::time::Duration;

use serde::Deserialize;

/// A request that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{address:?} is no address of an API: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// Why.
        reason: &'static str,
    },
    /// Nobody answers there.
    #[error(
        "no API can be reached at {address}: start one with `leet dev` or `kubeleet-api`, or name another with --api URL or KUBELEET_API"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come.
    #[error(
        "the API at {address} did not answer within {waited:?}; what was asked for may be done or not"
    )]
    TimedOut {
        /// Where.
        address: String,
        /// For how long.
        waited: Duration,
    },
    /// Who answers there is no API of ours, or a newer one.
    #[error("what answers at {address} (status {status}) is no API that this version understands")]
    Foreign {
        /// Where.
        address: String,
        /// The status it answered.
        status: u16,
        /// What could not be read.
        source: serde_json::Error,
    },
    /// The API says no.
    #[error("{0}")]
    Refused(Box<ProblemAnswer>),
}

/// A problem, as the API answers it.
#[derive(Debug, Clone, Deserialize)]
pub struct ProblemAnswer {
    /// Stable name of the kind: `/problems/<name>`.
    pub r#type: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// The field at fault.
    pub field: Option<String>,
    /// What was given there.
    pub given: Option<String>,
    /// What is allowed there.
    pub allowed: Option<String>,
    /// The request's id, where the log tells more.
    pub request_id: Option<String>,
}

impl ProblemAnswer {
    /// Whether it is of the kind `/problems/<name>`.
    pub fn is(&self, name: &str) -> bool {
        self.r#type.strip_prefix("/problems/") == Some(name)
    }
}

impl std::fmt::Display for ProblemAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The detail names field, given and allowed of every broken rule.
        write!(f, "{}: {}", self.title, self.detail)?;
        match &self.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}
