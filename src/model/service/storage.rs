//! What a container sees of disks: mounts, and files that come with the spec.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::model::resources::{MemoryAmount, some_bytes};

/// Most bytes of all files of a spec together.
pub const FILES_BYTES_MAX: usize = 512 * 1024;

/// Permissions of a file where none are said: for all to read.
const MODE_DEFAULT: u32 = 0o444;

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
    /// Size of a `tmpfs`: bytes, or text such as `64Mi`; without bound where none is said.
    #[serde(
        default,
        deserialize_with = "some_bytes",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<MemoryAmount>)]
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
    /// What it holds, in base 64 with padding.
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

impl File {
    /// What it holds; `None` if that was not told, or is no base 64.
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match (&self.content, &self.base64) {
            (Some(content), _) => Some(Cow::Borrowed(content.as_bytes())),
            (None, Some(base64)) => STANDARD.decode(base64).ok().map(Cow::Owned),
            (None, None) => None,
        }
    }

    /// Its permissions; those of the default if the text is none.
    pub fn mode_bits(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(MODE_DEFAULT)
    }
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
    format!("{MODE_DEFAULT:04o}")
}

fn is_default_mode(given: &str) -> bool {
    u32::from_str_radix(given, 8) == Ok(MODE_DEFAULT)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(value: serde_json::Value) -> File {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_file_holds_text_or_base_64() {
        let text = file(json!({"path": "/a", "content": "hi"}));
        assert_eq!(text.bytes().as_deref(), Some(b"hi".as_slice()));
        assert_eq!(text.mode_bits(), 0o444);
        let bytes = file(json!({"path": "/a", "base64": "AP8=", "mode": "0600"}));
        assert_eq!(bytes.bytes().as_deref(), Some([0, 255].as_slice()));
        assert_eq!(bytes.mode_bits(), 0o600);
        for other in ["AP8", "A P8=", "!!!!"] {
            assert_eq!(file(json!({"path": "/a", "base64": other})).bytes(), None);
        }
        assert_eq!(file(json!({"path": "/a"})).bytes(), None);
    }

    #[test]
    fn what_a_file_holds_is_not_shown() {
        let secret = file(json!({"path": "/a", "content": "hidden"}));
        let shown = format!("{secret:?}");
        assert!(shown.contains("/a") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn sizes_are_bytes_or_text() {
        for (size, bytes) in [
            (json!(4096), 4096),
            (json!("64k"), 65_536),
            (json!("1Mi"), 1 << 20),
        ] {
            let mount = json!({"type": "tmpfs", "target": "/a", "size": size});
            let mount: Mount = serde_json::from_value(mount).unwrap();
            assert_eq!(mount.size, Some(bytes));
            let shown = serde_json::to_value(&mount).unwrap();
            assert_eq!(shown["size"], bytes);
        }
        for bad in [json!(0), json!("x"), json!(-1), json!(1.5)] {
            let mount = json!({"type": "tmpfs", "target": "/a", "size": bad});
            assert!(serde_json::from_value::<Mount>(mount).is_err(), "{bad}");
        }
    }
}
