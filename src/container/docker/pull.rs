//! Pulling images: what is asked of the engine, and which answers are final.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use bollard::Docker as Client;

use super::link::{Failure, failure};
use super::{CLIENT_SLACK, Docker};
use crate::container::{RuntimeError, Verb};
use crate::model::ImageReference;

/// Longest silence during a pull: the engine shows each step, and layers are unpacked in silence.
const SILENCE_LIMIT: Duration = Duration::from_secs(180);
/// Longest pull as a whole, for tens of gigabytes over a slow line.
const PULL_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The tag where none is given; left out, the engine would fetch every tag there is.
const DEFAULT_TAG: &str = "latest";

impl Docker {
    pub(in crate::container) async fn pull(&self, image: &str) -> Result<(), RuntimeError> {
        let verb = Verb::Pull;
        let (repository, tag) = parts(image).ok_or_else(|| RuntimeError::ImageDenied {
            image: image.to_owned(),
            message: "it is no image reference".to_owned(),
        })?;
        let client = self.link.connection(verb).await?.client;
        let pull = pull_all(
            client.with_timeout(SILENCE_LIMIT + CLIENT_SLACK),
            repository,
            tag,
        );
        match tokio::time::timeout(PULL_LIMIT, pull).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(classify(image, failure)),
            Err(_) => Err(RuntimeError::TimedOut {
                verb,
                limit: PULL_LIMIT,
            }),
        }
    }
}

/// Reads the pull's progress to its end: the engine breaks off when nobody listens.
async fn pull_all(client: Client, repository: &str, tag: &str) -> Result<(), Failure> {
    let options = CreateImageOptionsBuilder::new()
        .from_image(repository)
        .tag(tag)
        .build();
    let mut progress = client.create_image(Some(options), None, None);
    loop {
        match tokio::time::timeout(SILENCE_LIMIT, progress.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(failure(Verb::Pull, error)),
            Err(_) => {
                return Err(Failure {
                    status: None,
                    error: RuntimeError::TimedOut {
                        verb: Verb::Pull,
                        limit: SILENCE_LIMIT,
                    },
                });
            }
        }
    }
}

/// The repository, and the digest or tag of it that is wanted; a digest says more than a tag.
fn parts(image: &str) -> Option<(&str, &str)> {
    let reference = ImageReference::parse(image)?;
    let tag = reference.digest.or(reference.tag).unwrap_or(DEFAULT_TAG);
    Some((reference.repository, tag))
}

/// Tells "never" from "not now". The engine gives a registry's answer as text and with an unsure
/// status, so the words decide, and what is not known counts as "not now".
fn classify(image: &str, failure: Failure) -> RuntimeError {
    const NEVER: [&str; 9] = [
        "pull access denied",
        "requested access to the resource is denied",
        "access forbidden",
        "unauthorized",
        "manifest unknown",
        "name unknown",
        "not found",
        "no matching manifest",
        "invalid reference format",
    ];
    let RuntimeError::Refused { verb, message } = failure.error else {
        return failure.error;
    };
    let words = message.to_ascii_lowercase();
    let overloaded = failure.status == Some(429) || words.contains("toomanyrequests");
    // "not found" is also what a resolver or a proxy may say of a registry's host.
    let network = ["dial tcp", "lookup ", "proxyconnect", "tls handshake"]
        .iter()
        .any(|trouble| words.contains(trouble));
    if !overloaded && !network && NEVER.iter().any(|never| words.contains(never)) {
        RuntimeError::ImageDenied {
            image: image.to_owned(),
            message,
        }
    } else {
        RuntimeError::Refused { verb, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_is_asked_for() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, repository, tag) in [
            ("nginx", "nginx", "latest"),
            ("nginx:1.27", "nginx", "1.27"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b", "c"),
            (&format!("a:b@{digest}"), "a", &digest),
        ] {
            assert_eq!(parts(image), Some((repository, tag)));
        }
        assert_eq!(parts("A B"), None);
    }

    #[test]
    fn final_answers_are_told_from_passing_ones() {
        let denied = |status, message: &str| {
            let failure = Failure {
                status,
                error: RuntimeError::Refused {
                    verb: Verb::Pull,
                    message: message.to_owned(),
                },
            };
            matches!(classify("a", failure), RuntimeError::ImageDenied { .. })
        };
        for message in [
            "pull access denied for a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            "manifest for nginx:nope not found: manifest unknown: manifest unknown",
            "no matching manifest for linux/arm64 in the manifest list entries",
            "Head \"https://r/v2/a/manifests/b\": unauthorized: authentication required",
        ] {
            assert!(denied(Some(404), message), "{message}");
            assert!(denied(None, message), "{message}");
        }
        for message in [
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
            "Get \"https://r/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "Get \"https://r/v2/\": dial tcp: lookup r: host not found",
            "toomanyrequests: You have reached your unauthenticated pull rate limit",
            "received unexpected HTTP status: 503 Service Unavailable",
            "write /var/lib/docker/tmp/x: no space left on device",
        ] {
            assert!(!denied(Some(500), message), "{message}");
        }
        assert!(!denied(Some(429), "not found"));
    }
}
