//! Images as an engine tells of them: what is there, and how far a pull has come.

use crate::model::image::{DEFAULT_TAG, DOCKER_HUB, ImageReference};

/// Begins the names of images of Docker's own registry that have no owner.
const LIBRARY: &str = "library/";

/// An image of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The engine's id of it.
    pub id: String,
    /// Its names with tags, as the engine writes them; none where all tags have moved on.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
    /// A container is made from it, whether of ours or not, running or not.
    pub is_used: bool,
    /// Its label says that it must stay.
    pub is_kept: bool,
}

/// How far a pull has come, of what is known of it by then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes of all parts that are known.
    pub bytes_all: u64,
}

/// Told how far a pull has come, as often as the engine says so.
pub type OnProgress<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

/// The name that the engine shows for a reference: with its tag, without what goes without saying.
pub fn shown_name(image: &str) -> String {
    let Some(reference) = ImageReference::parse(image) else {
        return image.to_owned();
    };
    let repository = shown_repository(reference.repository);
    let tag = reference.tag.unwrap_or(DEFAULT_TAG);
    match reference.digest {
        Some(digest) => format!("{repository}@{digest}"),
        None => format!("{repository}:{tag}"),
    }
}

/// The same of a repository.
pub(super) fn shown_repository(repository: &str) -> &str {
    let hub = repository
        .strip_prefix(DOCKER_HUB)
        .and_then(|rest| rest.strip_prefix('/'));
    let path = hub.unwrap_or(repository);
    path.strip_prefix(LIBRARY).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_the_engine_shows_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, shown) in [
            ("nginx", "nginx:latest"),
            ("docker.io/library/nginx:1.27", "nginx:1.27"),
            ("docker.io/team/app", "team/app:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            (&format!("a:b@{digest}"), &format!("a@{digest}")),
        ] {
            assert_eq!(shown_name(image), shown);
        }
    }
}
