//! Pulling images: what is asked of the engine, how far it has come, and which answers are final.

use std::collections::HashMap;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as ClientError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::{Stream, StreamExt};

use super::link::{Failure, failure};
use super::{CLIENT_SLACK, Docker};
use crate::container::{OnProgress, PullProgress, RuntimeError, Verb};
use crate::model::ImageReference;
use crate::model::image::{DEFAULT_TAG, DOCKER_HUB};
use crate::model::service::RegistryLogin;

/// Longest silence during a pull: the engine shows each step, and layers are unpacked in silence.
const SILENCE_LIMIT: Duration = Duration::from_secs(180);
/// Longest pull as a whole, for tens of gigabytes over a slow line.
const PULL_LIMIT: Duration = Duration::from_secs(60 * 60);

impl Docker {
    pub(in crate::container) async fn pull(
        &self,
        image: &str,
        login: Option<&RegistryLogin>,
        progress: OnProgress<'_>,
    ) -> Result<(), RuntimeError> {
        let verb = Verb::Pull;
        let (repository, tag) = parts(image).ok_or_else(|| RuntimeError::ImageDenied {
            image: image.to_owned(),
            message: "it is no image reference".to_owned(),
        })?;
        let options = CreateImageOptionsBuilder::new()
            .from_image(repository)
            .tag(tag)
            .build();
        let client = self.link.connection(verb).await?.client;
        let client = client.with_timeout(SILENCE_LIMIT + CLIENT_SLACK);
        let steps = client.create_image(Some(options), None, credentials(image, login));
        match tokio::time::timeout(PULL_LIMIT, follow(steps, progress)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(classify(image, failure)),
            Err(_) => Err(RuntimeError::TimedOut {
                verb,
                limit: PULL_LIMIT,
            }),
        }
    }
}

fn credentials(image: &str, login: Option<&RegistryLogin>) -> Option<DockerCredentials> {
    login.map(|login| DockerCredentials {
        username: Some(login.username.clone()),
        password: Some(login.password.clone()),
        serveraddress: Some(
            ImageReference::host_of(image)
                .unwrap_or(DOCKER_HUB)
                .to_owned(),
        ),
        ..DockerCredentials::default()
    })
}

/// Follows a pull to its end: the engine breaks off when nobody listens.
async fn follow(
    steps: impl Stream<Item = Result<CreateImageInfo, ClientError>>,
    progress: OnProgress<'_>,
) -> Result<(), Failure> {
    let mut steps = std::pin::pin!(steps);
    let mut layers = Layers::default();
    loop {
        match tokio::time::timeout(SILENCE_LIMIT, steps.next()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(step))) => {
                if let Some(come) = layers.take(step) {
                    progress(come);
                }
            }
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

/// How far each layer of an image has come; the size of one is known when its download begins.
#[derive(Default)]
struct Layers(HashMap<String, PullProgress>);

impl Layers {
    /// What is known after a step that changed it.
    fn take(&mut self, step: CreateImageInfo) -> Option<PullProgress> {
        let detail = step.progress_detail.unwrap_or_default();
        let bytes = |amount: Option<i64>| u64::try_from(amount.unwrap_or(0)).unwrap_or(0);
        match step.status?.as_str() {
            "Downloading" => {
                let layer = PullProgress {
                    bytes: bytes(detail.current),
                    bytes_all: bytes(detail.total),
                };
                self.0.insert(step.id?, layer);
            }
            "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete" => {
                let layer = self.0.get_mut(&step.id?)?;
                if layer.bytes == layer.bytes_all {
                    return None;
                }
                layer.bytes = layer.bytes_all;
            }
            _ => return None,
        }
        let sum = |of: fn(&PullProgress) -> u64| self.0.values().map(of).sum();
        Some(PullProgress {
            bytes: sum(|layer| layer.bytes),
            bytes_all: sum(|layer| layer.bytes_all),
        })
    }
}

/// The repository, and the digest or tag of it that is wanted; a digest says more than a tag. With
/// neither, the engine would fetch every tag there is.
fn parts(image: &str) -> Option<(&str, &str)> {
    let reference = ImageReference::parse(image)?;
    let tag = reference.digest.or(reference.tag).unwrap_or(DEFAULT_TAG);
    Some((reference.repository, tag))
}

/// Tells "never" from "not now". The engine gives a registry's answer as text and with an unsure
/// status, so the words decide, and what is not known counts as "not now".
fn classify(image: &str, failure: Failure) -> RuntimeError {
    const NEVER: [&str; 10] = [
        "pull access denied",
        "requested access to the resource is denied",
        "access forbidden",
        "unauthorized",
        "no basic auth credentials",
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
    use bollard::models::ProgressDetail;

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
    fn progress_is_the_sum_of_the_layers() {
        let mut layers = Layers::default();
        let mut step = |id: &str, status: &str, detail: Option<(i64, i64)>| {
            let come = layers.take(CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: detail.map(|(current, total)| ProgressDetail {
                    current: Some(current),
                    total: Some(total),
                }),
                ..CreateImageInfo::default()
            });
            come.map(|come| (come.bytes, come.bytes_all))
        };
        assert_eq!(step("1.0", "Pulling from library/nginx", None), None);
        assert_eq!(step("a", "Pulling fs layer", None), None);
        assert_eq!(step("a", "Downloading", Some((10, 100))), Some((10, 100)));
        assert_eq!(step("b", "Downloading", Some((5, 50))), Some((15, 150)));
        assert_eq!(step("a", "Download complete", None), Some((105, 150)));
        assert_eq!(step("a", "Extracting", Some((3, 100))), None);
        assert_eq!(step("c", "Already exists", None), None);
        assert_eq!(step("c", "Download complete", None), None);
        assert_eq!(step("b", "Pull complete", None), Some((150, 150)));
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
            "Head \"http://127.0.0.1:5000/v2/a/manifests/b\": no basic auth credentials",
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
