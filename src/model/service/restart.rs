//! What follows when a container ends: restarts on its node, and how they are spaced.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Span;

/// Pause before the first restart; it doubles with each.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two restarts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5 * 60);
/// A container that was well for so long begins again at [`BACKOFF_FIRST`].
pub const BACKOFF_RESET: Duration = Duration::from_secs(10 * 60);

/// Whether a pod whose container ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// If it ended with another exit code than 0.
    OnFailure,
    /// Never: it ends as `succeeded` or `failed`.
    Never,
}

/// The restart rule of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// When a container is started again.
    #[serde(default)]
    pub policy: RestartPolicy,
    /// Most restarts in a row; after them the pod is `failed`. Without bound where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub max: Option<u32>,
}

impl Restart {
    /// Whether a container that ended with `exit_code` after `restarts` restarts in a row is
    /// started again.
    pub fn allows(self, exit_code: i64, restarts: u32) -> bool {
        let wanted = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        };
        wanted && self.max.is_none_or(|max| restarts < max)
    }
}

/// Pause before restart number `restarts` + 1 in a row, without jitter.
pub fn backoff(restarts: u32) -> Duration {
    doubled(BACKOFF_FIRST, BACKOFF_MAX, restarts)
}

/// `first`, doubled so many times, and at most `max`.
pub fn doubled(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(DOUBLINGS_MAX)).min(max)
}

/// Doublings that are counted: far above what any two bounds need, far below an overflow.
const DOUBLINGS_MAX: u32 = 16;

/// How a container is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Signal that asks it to end, such as `SIGTERM`; the image's where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGTERM")]
    pub signal: Option<String>,
    /// Time it gets before it is killed; the setting `agent.stop_grace` where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10s")]
    pub grace: Option<Span>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound() {
        assert_eq!(backoff(0), Duration::from_secs(1));
        assert_eq!(backoff(1), Duration::from_secs(2));
        assert_eq!(backoff(8), Duration::from_secs(256));
        assert_eq!(backoff(9), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn policies_allow_what_they_say() {
        let rule = |policy, max| Restart { policy, max };
        assert!(rule(RestartPolicy::Always, None).allows(0, 99));
        assert!(!rule(RestartPolicy::OnFailure, None).allows(0, 0));
        assert!(rule(RestartPolicy::OnFailure, Some(2)).allows(1, 1));
        assert!(!rule(RestartPolicy::OnFailure, Some(2)).allows(1, 2));
        assert!(!rule(RestartPolicy::Never, None).allows(1, 0));
    }
}
