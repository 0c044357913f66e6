//! What a container sees of disks: mounts, and files that come with the spec.

use serde::{Deserialize, Serialize};

/// Most bytes of all files of a spec together.
pub const FILES_BYTES_MAX: usize = 512 * 1024;

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// The node's path of a `bind`, the name of a `volume`; none for a `tmpfs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Absolute path inside the container.
    #[schema(example = "/data")]
    pub target: String,
    /// Mounted for reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Size of a `tmpfs` in bytes; without bound where none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Kinds of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A path of the node; only where the node's settings allow it.
    Bind,
    /// A named volume of the node's engine; made where there is none.
    Volume,
    /// Memory that goes with the container.
    Tmpfs,
}

/// A file that is put into the container before it starts: configuration, or a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path inside the container.
    #[schema(example = "/etc/app/config.toml")]
    pub path: String,
    /// What it holds, as text; or else `base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What it holds, in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Permissions as an octal text.
    #[serde(default = "mode", skip_serializing_if = "is_default_mode")]
    #[schema(example = "0444")]
    pub mode: String,
    /// Owner's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// Group's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Its content is never shown back, nor written into a container's labels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // May be a secret.
        f.debug_struct("File")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

fn mode() -> String {
    "0444".to_owned()
}

fn is_default_mode(given: &str) -> bool {
    given == "0444"
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
