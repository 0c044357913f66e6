//! The labels of our containers: written when one is made, read to find and rebuild it.
//!
//! Both engines use them. Reading never fails: what cannot be read is not ours.

use std::collections::HashMap;

use super::{ContainerSpec, GivenDevices, WishLabel};
use crate::model::amounts::device_names;
use crate::model::service::OnNodeLoss;
use crate::model::{PodId, Port, ServiceSpec, Token};

/// Says that a container is ours, together with [`ORCHESTRATOR_VALUE`].
pub(super) const ORCHESTRATOR: &str = "orchestrator";
/// See [`ORCHESTRATOR`].
pub(super) const ORCHESTRATOR_VALUE: &str = "kubeleet";
/// Begins all our other labels.
const PREFIX: &str = "kubeleet.";
/// The cluster's id.
pub(super) const CLUSTER: &str = "kubeleet.cluster";
/// The node's name.
pub(super) const NODE: &str = "kubeleet.node";
/// The pod's id.
pub(super) const POD: &str = "kubeleet.pod";
const ATTEMPT: &str = "kubeleet.attempt";
const NONCE: &str = "kubeleet.nonce";
const NAMESPACE: &str = "kubeleet.namespace";
const NAME: &str = "kubeleet.name";
const SERVICE: &str = "kubeleet.service";
const REPLICA: &str = "kubeleet.replica";
const REVISION: &str = "kubeleet.revision";
const SPEC: &str = "kubeleet.spec";
const WISH: &str = "kubeleet.wish";
const DEVICES: &str = "kubeleet.devices";

/// Which placement of which pod a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) node: String,
    pub(super) pod: PodId,
    pub(super) token: Token,
}

impl Identity {
    /// The identity in a container's labels; `None` if it is not ours.
    pub(super) fn read(labels: &HashMap<String, String>) -> Option<Identity> {
        if labels.get(ORCHESTRATOR)? != ORCHESTRATOR_VALUE {
            return None;
        }
        Some(Identity {
            cluster: labels.get(CLUSTER)?.clone(),
            node: labels.get(NODE)?.clone(),
            pod: PodId::parse(labels.get(POD)?)?,
            token: Token {
                attempt: labels.get(ATTEMPT)?.parse().ok()?,
                nonce: labels.get(NONCE)?.clone(),
            },
        })
    }

    /// The identity of a container made from `spec`.
    pub(super) fn of(spec: &ContainerSpec) -> Identity {
        Identity {
            cluster: spec.cluster.clone(),
            node: spec.node.clone(),
            pod: spec.pod.clone(),
            token: spec.token.clone(),
        }
    }
}

/// All labels of the container of `spec`: the user's and ours.
pub(super) fn write(spec: &ContainerSpec) -> HashMap<String, String> {
    let ours = [
        (ORCHESTRATOR, ORCHESTRATOR_VALUE.to_owned()),
        (CLUSTER, spec.cluster.clone()),
        (NODE, spec.node.clone()),
        (POD, spec.pod.to_string()),
        (ATTEMPT, spec.token.attempt.to_string()),
        (NONCE, spec.token.nonce.clone()),
        (NAMESPACE, spec.spec.namespace.clone()),
        (NAME, spec.spec.name.clone()),
        (REPLICA, spec.replica.to_string()),
        (REVISION, spec.revision.to_string()),
        // Whoever may speak to the engine reads labels, and so do many tools.
        (SPEC, spec.spec.without_secrets().to_stored()),
    ];
    let users = spec.spec.labels.iter();
    let mut labels: HashMap<String, String> = users
        .filter(|(key, _)| *key != ORCHESTRATOR && !key.starts_with(PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value)));
    if let Some(service) = &spec.service {
        labels.insert(SERVICE.to_owned(), service.clone());
    }
    if let Some(wish) = &spec.wish {
        let wish = format!("{} {} {}", wish.uid, wish.number, wish.replicas);
        labels.insert(WISH.to_owned(), wish);
    }
    if !spec.given.names.is_empty() {
        labels.insert(DEVICES.to_owned(), spec.given.names.join(","));
    }
    labels
}

/// What is shown of a container's spec in every look at it.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Wish {
    /// The image as the user wrote it: an engine shows a bare id once the tag has moved on.
    pub(super) image: Option<String>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) on_node_loss: OnNodeLoss,
}

/// What stands in a container's labels of that; nothing if they are damaged.
pub(super) fn wish(labels: &HashMap<String, String>) -> Wish {
    let spec = labels.get(SPEC).map(|spec| serde_json::from_str(spec));
    spec.and_then(Result::ok).unwrap_or_default()
}

/// What a container was made from but the secrets; `None` if it is not ours or its labels are damaged.
pub(super) fn read(labels: &HashMap<String, String>) -> Option<ContainerSpec> {
    let identity = Identity::read(labels)?;
    let spec: ServiceSpec = serde_json::from_str(labels.get(SPEC)?).ok()?;
    Some(ContainerSpec {
        node: identity.node,
        cluster: identity.cluster,
        pod: identity.pod,
        token: identity.token,
        replica: labels.get(REPLICA)?.parse().ok()?,
        spec: Box::new(spec),
        revision: labels.get(REVISION)?.parse().ok()?,
        service: labels.get(SERVICE).cloned(),
        wish: labels.get(WISH).and_then(|text| read_wish(text)),
        given: GivenDevices {
            names: devices(labels),
            ..GivenDevices::default()
        },
    })
}

/// Names of the devices that a container was given.
pub(super) fn devices(labels: &HashMap<String, String>) -> Vec<String> {
    let names = labels.get(DEVICES).map(|names| device_names(names));
    names.unwrap_or_default()
}

fn read_wish(text: &str) -> Option<WishLabel> {
    let mut parts = text.split(' ');
    Some(WishLabel {
        uid: parts.next()?.to_owned(),
        number: parts.next()?.parse().ok()?,
        replicas: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        let mut spec = ServiceSpec::new("web", "nginx:1.27");
        spec.labels.insert("team".to_owned(), "blue".to_owned());
        spec.env.insert("KEY".to_owned(), "a \"b\"\nc".to_owned());
        ContainerSpec {
            node: "worker1".to_owned(),
            cluster: "c1".to_owned(),
            pod: PodId::parse("abcdefghijkl-2").unwrap(),
            token: Token {
                attempt: 3,
                nonce: "n0nce".to_owned(),
            },
            replica: 2,
            spec: Box::new(spec),
            revision: 7,
            service: Some("web".to_owned()),
            wish: Some(WishLabel {
                uid: "u".to_owned(),
                number: 17,
                replicas: 3,
            }),
            given: GivenDevices {
                names: vec!["fpga/a".to_owned(), "gpu/0".to_owned()],
                ..GivenDevices::default()
            },
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let spec = spec();
        let labels = write(&spec);
        assert_eq!(labels["team"], "blue");
        assert_eq!(labels["kubeleet.attempt"], "3");
        assert_eq!(Identity::read(&labels), Some(Identity::of(&spec)));
        assert_eq!(read(&labels), Some(spec));
    }

    #[test]
    fn secrets_are_in_no_label() {
        let mut spec = spec();
        let wish = serde_json::json!({
            "name": "web", "image": "nginx:1.27", "ports": ["8080:80", "53/udp"],
            "registry": {"username": "u", "password": "hidden-1"},
            "files": [
                {"path": "/a", "content": "hidden-2", "secret": true},
                {"path": "/b", "base64": "aGlkZGVu", "secret": true},
                {"path": "/c", "content": "shown"},
            ],
        });
        spec.spec = serde_json::from_value(wish).unwrap();
        let labels = write(&spec);
        let all = format!("{labels:?}");
        assert!(all.contains("shown") && !all.contains("hidden") && !all.contains("aGlkZGVu"));
        spec.spec = Box::new(spec.spec.without_secrets());
        assert_eq!(read(&labels), Some(spec));
        let wish = super::wish(&labels);
        assert_eq!(wish.image.as_deref(), Some("nginx:1.27"));
        let ports: Vec<String> = wish.ports.iter().map(Port::to_string).collect();
        assert_eq!(ports, ["8080:80/tcp", "53/udp"]);
    }

    #[test]
    fn users_cannot_write_our_labels() {
        let mut spec = spec();
        spec.service = None;
        for key in [ORCHESTRATOR, POD, SERVICE] {
            spec.spec.labels.insert(key.to_owned(), "x".to_owned());
        }
        let labels = write(&spec);
        assert_eq!(Identity::read(&labels), Some(Identity::of(&spec)));
        assert_eq!(labels.get(SERVICE), None);
    }

    #[test]
    fn what_is_damaged_is_not_ours() {
        for key in [ORCHESTRATOR, CLUSTER, NODE, POD, ATTEMPT, NONCE] {
            let mut labels = write(&spec());
            labels.remove(key);
            assert_eq!(Identity::read(&labels), None, "{key}");
        }
        for (key, value) in [(POD, "a/b"), (ATTEMPT, "x"), (ORCHESTRATOR, "other")] {
            let mut labels = write(&spec());
            labels.insert(key.to_owned(), value.to_owned());
            assert_eq!(Identity::read(&labels), None, "{key}");
        }
        let mut labels = write(&spec());
        labels.insert(SPEC.to_owned(), "{".to_owned());
        assert_eq!(read(&labels), None);
    }

    #[test]
    fn fuzz_labels() {
        let sound = write(&spec());
        let names: Vec<String> = sound.keys().cloned().collect();
        let make = |choices: &mut crate::fuzz::Choices<'_>| {
            let mut labels = sound.clone();
            while !choices.is_over() {
                let name = names[choices.below(names.len())].clone();
                let word = String::from_utf8_lossy(choices.word()).into_owned();
                labels.insert(name, word);
            }
            labels
        };
        crate::fuzz::made("labels", make, |labels| {
            let _ = wish(labels);
            if let Some(spec) = read(labels) {
                assert_eq!(read(&write(&spec)), Some(spec));
            }
        });
    }
}
