//! What the loss of a node means for the pods that it had.

use serde::{Deserialize, Serialize};

/// What happens to a pod whose node is not heard any more.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnNodeLoss {
    /// It runs elsewhere as soon as the node's lease is over. Should the node be cut off and not dead,
    /// its container runs on there until the node is heard again: two for a while.
    #[default]
    Replace,
    /// It runs elsewhere too, but never two of a replica: a node that cannot renew its lease stops the
    /// container itself at three quarters of it, and so does the node's watchdog if its agent is dead
    /// or held. Changes stop the old container before the new one is made. While Redis is away for
    /// longer than that, it does not run.
    StopThenReplace,
    /// It stays the node's until that is heard again, or a person removes the node.
    Hold,
}

impl OnNodeLoss {
    /// Whether no two containers of a replica may run at once.
    pub fn is_exclusive(self) -> bool {
        self != OnNodeLoss::Replace
    }

    /// Whether its container must end with the node's lease.
    pub fn is_fenced(self) -> bool {
        self == OnNodeLoss::StopThenReplace
    }

    /// `1` where the sweep leaves its pods on a lost node, else empty.
    pub fn held(self) -> &'static str {
        if self == OnNodeLoss::Hold { "1" } else { "" }
    }
}
