//! Pods: one container instance each, their ids, owners and placement tokens.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::{POD_ID_RULE, is_pod_id};
use super::{Desired, Phase, ServiceKey, ServiceSpec, Violation};

/// Id of a pod: `<submission>-<replica>` for ours, the given `uuid` for one pushed by hand.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct PodId(String);

impl PodId {
    /// Length of a submission's random part.
    const SUBMISSION_LEN: usize = 12;
    /// Length of the short form, as it ends a container's name.
    const SHORT_LEN: usize = 8;
    /// Letters and digits without those that look alike (Crockford's base 32).
    const ALPHABET: &'static [u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// The pod id `text`; `None` if it breaks the rule.
    pub fn parse(text: &str) -> Option<PodId> {
        is_pod_id(text).then(|| PodId(text.to_owned()))
    }

    /// The id of replica `replica` of a submission; the Lua library builds the same.
    pub fn of_submission(submission: &str, replica: u32) -> PodId {
        PodId(format!("{submission}-{replica}"))
    }

    /// A random name for a submission, 60 bits: the pods made by one create or scale share it.
    pub fn new_submission() -> String {
        let random: u64 = rand::random();
        (0..Self::SUBMISSION_LEN)
            .map(|position| {
                let letter = (random >> (position * 5)) & 31;
                char::from(Self::ALPHABET[usize::try_from(letter).unwrap_or(0)])
            })
            .collect()
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first characters, enough to tell pods of one replica apart.
    pub fn short(&self) -> &str {
        let end = self.0.len().min(Self::SHORT_LEN);
        self.0[..end].trim_end_matches(['-', '_'])
    }
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Who made a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A service.
    Service(ServiceKey),
    /// Nobody: it was pushed by hand.
    Nobody,
}

impl Owner {
    /// The owner of a stored word: `service:<namespace>/<name>`, or empty.
    pub fn parse(text: &str) -> Option<Owner> {
        match text.strip_prefix("service:") {
            Some(key) => ServiceKey::parse(key).map(Owner::Service),
            None => text.is_empty().then_some(Owner::Nobody),
        }
    }
}

/// A placement's fence: which attempt, and a random word, since a counter alone can roll back at
/// a fail-over of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Token {
    /// The how-manieth placement of the pod.
    pub attempt: u64,
    /// Random word of the assign call.
    pub nonce: String,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.attempt, self.nonce)
    }
}

/// A pod as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Pod {
    /// The pod's id.
    pub id: PodId,
    /// Name of its service, or the name given by hand.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service, if it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// Its index among its siblings.
    pub replica: u32,
    /// Revision of its service; 0 without one.
    pub revision: u64,
    /// Image it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// What is wanted of it.
    pub desired: Desired,
    /// Where it is.
    pub phase: Phase,
    /// Why it is there, where that needs saying: what a waiting pod lacks, why one failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Node it was given to.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub node: Option<String>,
    /// How often it was placed.
    pub attempt: u64,
    /// The engine's id of its container.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
    /// Exit code of its container, once it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<i64>,
    /// It is ready for work: it runs, and its probes say so.
    #[serde(default)]
    pub ready: bool,
    /// How often its container was started again on its node.
    #[serde(default)]
    pub restarts: u32,
    /// The node's ports it has, such as `32768:80/tcp`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ports: Vec<String>,
    /// Digest of the image it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<String>,
    /// What its node costs per hour, by the node's label `price` when it was placed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub price: Option<String>,
    /// Devices of its node that it was given, such as `gpu/0`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub devices: Vec<String>,
    /// When it was made, milliseconds since 1970 by Redis's clock.
    pub created_ms: u64,
    /// When its phase last changed, likewise.
    pub changed_ms: u64,
}

/// A pod described by hand: a JSON text pushed on `sq` or `pq:<node>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPod {
    /// Its id, from the field `uuid`.
    pub id: PodId,
    /// Its index among its siblings, from the field `replica`; 0 where none is said.
    pub replica: u32,
    /// What it runs.
    pub spec: ServiceSpec,
}

impl RawPod {
    /// Longest description that is read.
    pub const BYTES_MAX: usize = 1024 * 1024;

    /// Reads a description. The error says what is wrong, for the dead letter.
    pub fn parse(entry: &[u8]) -> Result<RawPod, String> {
        if entry.len() > Self::BYTES_MAX {
            return Err(format!(
                "{} bytes are given, allowed are {}",
                entry.len(),
                Self::BYTES_MAX
            ));
        }
        let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(entry)
            .map_err(|error| format!("neither the id of a pod nor a JSON description: {error}"))?;
        let broken =
            |field: &str, given: &Value, rule: &str| Violation::new(field, given, rule).to_string();
        let id = match fields.remove("uuid") {
            None => return Err("uuid: is missing".to_owned()),
            Some(Value::String(id)) if is_pod_id(&id) => PodId(id),
            Some(given) => return Err(broken("uuid", &given, POD_ID_RULE)),
        };
        let replica = match fields.remove("replica") {
            None => 0,
            Some(given) => given
                .as_u64()
                .and_then(|index| u32::try_from(index).ok())
                .ok_or_else(|| {
                    broken("replica", &given, "the pod's index: a whole number from 0")
                })?,
        };
        let spec: ServiceSpec = serde_path_to_error::deserialize(Value::Object(fields))
            .map_err(|error| error.to_string())?;
        match spec.violations(u32::MAX).first() {
            Some(violation) => Err(violation.to_string()),
            None => Ok(RawPod { id, replica, spec }),
        }
    }

    /// An entry as it may be shown: without passwords and what secret files hold. Of one that cannot be
    /// read as a whole, what begins with such a word is left out.
    pub fn shown(entry: &[u8]) -> Cow<'_, [u8]> {
        let Ok(mut whole) = serde_json::from_slice(entry) else {
            let text = SECRET_WORDS.iter().filter_map(|word| {
                let word = word.as_bytes();
                entry.windows(word.len()).position(|part| part == word)
            });
            return Cow::Borrowed(text.min().map_or(entry, |end| &entry[..end]));
        };
        let Value::Object(fields) = &mut whole else {
            return Cow::Borrowed(entry);
        };
        let mut hidden = fields.remove("registry").is_some();
        if let Some(Value::Array(files)) = fields.get_mut("files") {
            let files = files.iter_mut().filter_map(Value::as_object_mut);
            let secret = |file: &&mut serde_json::Map<String, Value>| {
                file.get("secret").is_some_and(|secret| *secret != false)
            };
            for file in files.filter(secret) {
                hidden |= file.remove("content").is_some() | file.remove("base64").is_some();
            }
        }
        // A login may stand where none belongs, by a slip of the pen.
        hidden |= remove_passwords(&mut whole);
        if hidden {
            Cow::Owned(whole.to_string().into_bytes())
        } else {
            Cow::Borrowed(entry)
        }
    }
}

/// Where secrets begin in a description that cannot be read.
const SECRET_WORDS: [&str; 3] = ["password", "content", "base64"];

fn remove_passwords(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let found = fields.remove("password").is_some();
            let inner = fields.values_mut().map(remove_passwords);
            inner.fold(found, |found, inner| found | inner)
        }
        Value::Array(items) => {
            let inner = items.iter_mut().map(remove_passwords);
            inner.fold(false, |found, inner| found | inner)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_of_the_design_is_read() {
        let entry = br#"{"name":"test","uuid":"djkfghsdjkfhjksdghfjksdjkfhsd","image":"spaster/alpine-sleep","replica":3}"#;
        let raw = RawPod::parse(entry).unwrap();
        assert_eq!(raw.id.as_str(), "djkfghsdjkfhjksdghfjksdjkfhsd");
        assert_eq!(raw.id.short(), "djkfghsd");
        assert_eq!(raw.replica, 3);
        assert_eq!(raw.spec, ServiceSpec::new("test", "spaster/alpine-sleep"));
    }

    #[test]
    fn what_is_no_description_says_why() {
        for (entry, why) in [
            ("", "neither the id"),
            ("{", "neither the id"),
            ("null", "neither the id"),
            ("[]", "neither the id"),
            ("{}", "uuid: is missing"),
            (r#"{"uuid":7}"#, "uuid"),
            (r#"{"uuid":"../x","name":"a","image":"b"}"#, "uuid"),
            (r#"{"uuid":"u","image":"b"}"#, "missing field `name`"),
            (r#"{"uuid":"u","name":"a"}"#, "missing field `image`"),
            (r#"{"uuid":"u","name":"A","image":"b"}"#, "name"),
            (
                r#"{"uuid":"u","name":"a","image":"b","replica":-1}"#,
                "replica",
            ),
            (
                r#"{"uuid":"u","name":"a","image":"b","privilegd":true}"#,
                "privilegd",
            ),
            ("\u{0}\u{1}", "neither the id"),
        ] {
            let error = RawPod::parse(entry.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{entry}: {error}");
        }
        assert!(RawPod::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn an_entry_is_shown_without_its_secrets() {
        for (entry, shown) in [
            (
                r#"{"uuid": "a", "registri": {"password": "p"}}"#,
                r#"{"registri":{},"uuid":"a"}"#,
            ),
            (
                r#"{"uuid": "a", "registry": {"password": "p"}"#,
                r#"{"uuid": "a", "registry": {""#,
            ),
        ] {
            assert_eq!(RawPod::shown(entry.as_bytes()), shown.as_bytes());
        }
        for same in [
            "",
            "{",
            "[1]",
            r#"{"uuid": "a",  "files": [{"path": "/a"}]}"#,
        ] {
            assert_eq!(RawPod::shown(same.as_bytes()), same.as_bytes());
        }
        let entry = r#"{"uuid": "a", "registry": {"username": "u", "password": "hidden"}, "files": [
            {"path": "/a", "content": "hidden", "secret": true}, {"path": "/b", "base64": "hidden", "secret": "yes"},
            {"path": "/c", "content": "open", "secret": false}, {"path": "/d", "content": "open"}, 7]}"#;
        let shown = RawPod::shown(entry.as_bytes());
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        let expected = serde_json::json!({"uuid": "a", "files": [
            {"path": "/a", "secret": true}, {"path": "/b", "secret": "yes"},
            {"path": "/c", "content": "open", "secret": false}, {"path": "/d", "content": "open"}, 7]});
        assert_eq!(shown, expected);
    }

    #[test]
    fn submissions_have_ids_that_are_pod_ids() {
        let submission = PodId::new_submission();
        let id = PodId::of_submission(&submission, 17);
        assert_eq!(PodId::parse(id.as_str()), Some(id.clone()));
        assert!(id.as_str().ends_with("-17"));
        assert_ne!(submission, PodId::new_submission());
    }

    #[test]
    fn owners_are_read_back() {
        assert_eq!(Owner::parse(""), Some(Owner::Nobody));
        let key = ServiceKey::parse("default/web").unwrap();
        assert_eq!(
            Owner::parse("service:default/web"),
            Some(Owner::Service(key))
        );
        assert_eq!(Owner::parse("job:x"), None);
    }
}
