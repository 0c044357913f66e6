//! The last lines of containers that ended, for when container and node are gone.

use std::time::Duration;

use super::call::command;
use super::{Store, StoreError};
use crate::model::PodId;

/// Most pods whose lines are kept; with 64 KiB each they take 64 MiB at most.
const PODS_MAX: usize = 1000;
/// How long they are kept.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The last lines of a pod's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLogs {
    /// The node it ran on.
    pub node: String,
    /// The lines, as they travel ([`LogLine::read_all`](crate::model::LogLine::read_all)).
    pub lines: Vec<u8>,
}

impl Store {
    /// Keeps a pod's last lines, in place of those kept before.
    ///
    /// # Errors
    /// They are not kept.
    pub async fn keep_logs(&self, pod: &PodId, node: &str, lines: &[u8]) -> Result<(), StoreError> {
        let call = self
            .function("kl_logs_keep")
            .arg(pod.as_str())
            .arg(node)
            .arg(lines)
            .arg(PODS_MAX)
            .arg(TTL.as_secs());
        self.call(call).await?.expect_word("kept")
    }

    /// A pod's last lines, if there are any.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn kept_logs(&self, pod: &PodId) -> Result<Option<KeptLogs>, StoreError> {
        let mut get = command("HMGET");
        get.arg(self.keys.kept_logs(pod)).arg("node").arg("lines");
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        type Fields = (Option<Vec<u8>>, Option<Vec<u8>>);
        let (fields,): (Fields,) = self.read("HMGET", &pipeline).await?;
        let (Some(node), Some(lines)) = fields else {
            return Ok(None);
        };
        Ok(Some(KeptLogs {
            node: String::from_utf8_lossy(&node).into_owned(),
            lines,
        }))
    }
}
