//! Where a service's image comes from: when it is pulled, and by which login.

use serde::{Deserialize, Serialize};

/// When a node fetches the image from its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Before each new container; a tag may have moved.
    Always,
    /// Only where the node does not have it.
    #[default]
    Missing,
    /// Never: it has to be on the node.
    Never,
}

impl PullPolicy {
    /// Every policy.
    pub const ALL: [PullPolicy; 3] = [PullPolicy::Always, PullPolicy::Missing, PullPolicy::Never];

    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "always",
            PullPolicy::Missing => "missing",
            PullPolicy::Never => "never",
        }
    }
}

/// A login of the image's registry. It is kept beside the spec, never in labels, logs or events,
/// and never shown back.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryLogin {
    /// Name of the user.
    pub username: String,
    /// Password or token.
    #[schema(format = Password, write_only)]
    pub password: String,
}

impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RegistryLogin({:?}, ***)", self.username)
    }
}
