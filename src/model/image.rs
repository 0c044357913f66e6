//! Image references, by the grammar of the OCI distribution specification.
//!
//! `[host[:port]/]path[:tag][@algorithm:hex]`; nothing is looked up here.

use super::digits::digits;

/// Longest repository name, host included: the limit Docker's engine has.
const REPOSITORY_MAX: usize = 255;
/// Longest tag.
const TAG_MAX: usize = 128;

/// The tag of images that name none.
pub const DEFAULT_TAG: &str = "latest";
/// The registry of images that name none.
pub const DOCKER_HUB: &str = "docker.io";

/// What [`ImageReference::parse`] allows, for messages.
pub const IMAGE_RULE: &str = "an image reference such as nginx, nginx:1.27 or registry.example:5000/team/app@sha256:<64 hex digits>";

/// The parts of an image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference<'a> {
    /// Host, port and path, as given.
    pub repository: &'a str,
    /// The tag, if one was given.
    pub tag: Option<&'a str>,
    /// `algorithm:hex`, if one was given.
    pub digest: Option<&'a str>,
}

impl<'a> ImageReference<'a> {
    /// The parts of `image`, or `None` if it is no image reference.
    pub fn parse(image: &'a str) -> Option<ImageReference<'a>> {
        let (rest, digest) = match image.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (image, None),
        };
        // A ':' after the last '/' begins the tag; one before it belongs to a host's port.
        let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match rest[path_start..].split_once(':') {
            Some((last, tag)) => (&rest[..path_start + last.len()], Some(tag)),
            None => (rest, None),
        };
        let sound = repository.len() <= REPOSITORY_MAX
            && is_repository(repository)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        sound.then_some(ImageReference {
            repository,
            tag,
            digest,
        })
    }

    /// The registry that `image` names, with its port; `None` if it names none, or is no reference.
    pub fn host_of(image: &str) -> Option<&str> {
        let reference = ImageReference::parse(image)?;
        host_and_path(reference.repository).0
    }
}

fn is_repository(repository: &str) -> bool {
    let (host, path) = host_and_path(repository);
    host.is_none_or(is_host) && path.split('/').all(is_path_component)
}

fn host_and_path(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':']) || first == "localhost" || has_upper(first) =>
        {
            (Some(first), path)
        }
        _ => (None, repository),
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|port| digits::<u16>(port).is_some())
}

/// Lower-case letters and digits, with single separators `.`, `_`, `__` or dashes between them.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    edges
        && bytes.split(alphanumeric).all(|separator| match separator {
            [] | [b'.'] | [b'_'] | [b'_', b'_'] => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        })
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    bytes.len() <= TAG_MAX
        && bytes
            .first()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
}

fn is_digest(digest: &str) -> bool {
    let hex = |hex: &str, length: usize| {
        hex.len() == length
            && hex
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    match digest.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let full = format!("localhost:5000/team/app:1.2@{digest}");
        assert_eq!(
            ImageReference::parse(&full),
            Some(ImageReference {
                repository: "localhost:5000/team/app",
                tag: Some("1.2"),
                digest: Some(&digest),
            })
        );
        for good in [
            "nginx",
            "spaster/alpine-sleep",
            "nginx:1.27",
            "gcr.io/a/b__c/d.e:v1",
            "Registry.example/app",
        ] {
            assert!(ImageReference::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn a_registry_is_a_host_and_no_folder() {
        for (image, host) in [
            ("nginx", None),
            ("team/app:1.2", None),
            ("localhost/app", Some("localhost")),
            ("localhost:5000/app", Some("localhost:5000")),
            ("r.example/team/app@x", None),
            ("r.example/team/app:1", Some("r.example")),
        ] {
            assert_eq!(ImageReference::host_of(image), host, "{image}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(5000);
        for bad in [
            "",
            "Nginx",
            "a b",
            "http://x",
            "$(id)",
            "a:",
            "a@sha256:1",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "-a",
            "a:b:c",
            "a@b@c",
            "nginx:\n",
            &long,
        ] {
            assert!(ImageReference::parse(bad).is_none(), "{bad}");
        }
    }
}
