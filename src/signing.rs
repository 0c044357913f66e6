//! Signed specs: with `agent.require_signed` a node starts only what an API's key signed.
//!
//! Who can write to Redis could else have any container started anywhere. The signature is over the exact
//! bytes that are stored, without the signature itself, which is their last field; they hold namespace and
//! name, and a pod of another owner is refused. What a writer of Redis can still do is to stop pods, to run
//! more of them, or an earlier revision: those were signed too.
//!
//! Pure but for reading key files. Private keys are never shown, logged or stored.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::model::ServiceSpec;
use crate::settings::AgentSettings;

/// What is signed begins with this: a signature made for anything else is none of a spec.
const CONTEXT: &[u8] = b"kubeleet spec 1\n";
/// How a public key begins as text.
const ALGORITHM: &str = "ed25519:";
/// Between a stored spec and its signature.
const FIELD: &str = ",\"signature\":\"";
/// What ends a stored spec that is signed.
const END: &str = "\"}";
/// Most bytes of a file with keys.
const FILE_MAX: u64 = 64 * 1024;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why a key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The file cannot be read.
    #[error("cannot read the key file {0}")]
    File(String, #[source] std::io::Error),
    /// It holds something else.
    #[error(
        "{0} holds no ed25519 key in PKCS#8 PEM: make one with `leet key generate FILE` or `openssl genpkey -algorithm ed25519`"
    )]
    NoPrivateKey(String),
    /// It is no public key.
    #[error(
        "{0:?} is no public key: one is `ed25519:` and 44 characters, as `leet key show FILE` prints it"
    )]
    NoPublicKey(String),
    /// The machine gives no random numbers.
    #[error("no random numbers can be had for a key")]
    Random,
}

/// An API's private key.
pub struct Signer(Ed25519KeyPair);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.public_key()).finish()
    }
}

impl Signer {
    /// The key in a file.
    ///
    /// # Errors
    /// It cannot be read, or holds none.
    pub fn read(path: &Path) -> Result<Signer, SigningError> {
        let shown = path.display().to_string();
        let text = read_text(path)?;
        let none = || SigningError::NoPrivateKey(shown.clone());
        let body = text.split_once(PEM_BEGIN).ok_or_else(none)?.1;
        let body = body.split_once(PEM_END).ok_or_else(none)?.0;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| none())?;
        // Without its public key, as openssl writes it, it is worked out.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der);
        pair.map(Signer).map_err(|_| none())
    }

    /// A new key, as the text of its file.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<String, SigningError> {
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let body = STANDARD.encode(der.map_err(|_| SigningError::Random)?.as_ref());
        let mut text = format!("{PEM_BEGIN}\n");
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = after;
        }
        text.push_str(PEM_END);
        text.push('\n');
        Ok(text)
    }

    /// What agents are to trust: `ed25519:…`.
    pub fn public_key(&self) -> String {
        let key = STANDARD.encode(self.0.public_key().as_ref());
        format!("{ALGORITHM}{key}")
    }

    /// Signs a spec; equal specs get equal signatures.
    pub fn sign(&self, spec: &mut ServiceSpec) {
        spec.signature = None;
        let signature = self.0.sign(&signed_bytes(&spec.to_stored()));
        spec.signature = Some(STANDARD.encode(signature.as_ref()));
    }
}

/// What a node's settings say about signatures.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    required: bool,
    keys: Vec<Vec<u8>>,
}

impl Trust {
    /// The trust of an agent's settings. A file that cannot be read any more gives no keys, so that nothing
    /// is started by them.
    pub fn of(settings: &AgentSettings) -> Trust {
        let mut keys = Vec::new();
        for given in &settings.trusted_keys {
            match public_keys(given) {
                Ok(read) => keys.extend(read),
                Err(error) => tracing::error!(%error, "a trusted key is left out"),
            }
        }
        Trust {
            required: settings.require_signed,
            keys,
        }
    }

    /// Whether nothing is started that is not signed.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Why node `node` does not start what is stored as `text` for a pod of `owner`, in words that say what
    /// to do; `None` if it does.
    pub fn refusal(
        &self,
        text: &str,
        owner: &str,
        spec: &ServiceSpec,
        node: &str,
    ) -> Option<String> {
        if !self.required {
            return None;
        }
        let refused = |why: &str| {
            Some(format!(
                "node {node} starts only what is signed (agent.require_signed): {why}"
            ))
        };
        if owner.is_empty() {
            return refused("a pod pushed by hand never is; submit it as a service");
        }
        let Some((bytes, signature)) = split(text) else {
            return refused(
                "its spec is not; set api.signing_key_file for the API, and give the service again",
            );
        };
        let message = signed_bytes(&bytes);
        let fits = |key: &Vec<u8>| {
            let key = UnparsedPublicKey::new(&ED25519, key);
            key.verify(&message, &signature).is_ok()
        };
        if !self.keys.iter().any(fits) {
            return refused(
                "its spec was changed after it was signed, or the key is none of agent.trusted_keys",
            );
        }
        let signed_for = format!("service:{}", spec.key());
        if signed_for != owner {
            return refused(&format!(
                "its spec was signed for {signed_for}, not for {owner}"
            ));
        }
        None
    }
}

/// The signed part of a stored spec, and its signature.
fn split(text: &str) -> Option<(String, Vec<u8>)> {
    let (bytes, signature) = text.strip_suffix(END)?.rsplit_once(FIELD)?;
    let signature = STANDARD.decode(signature).ok()?;
    Some((format!("{bytes}}}"), signature))
}

fn signed_bytes(stored: &str) -> Vec<u8> {
    [CONTEXT, stored.as_bytes()].concat()
}

/// The public keys that a setting names: one, or those of a file, one a line.
///
/// # Errors
/// It is neither.
pub fn public_keys(given: &str) -> Result<Vec<Vec<u8>>, SigningError> {
    if !given.starts_with('/') {
        return Ok(vec![public_key(given)?]);
    }
    let text = read_text(Path::new(given))?;
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    keys.map(public_key).collect()
}

fn public_key(text: &str) -> Result<Vec<u8>, SigningError> {
    let none = || SigningError::NoPublicKey(text.chars().take(64).collect());
    let key = text.strip_prefix(ALGORITHM).ok_or_else(none)?;
    let key = STANDARD.decode(key).map_err(|_| none())?;
    if key.len() == ring::signature::ED25519_PUBLIC_KEY_LEN {
        Ok(key)
    } else {
        Err(none())
    }
}

fn read_text(path: &Path) -> Result<String, SigningError> {
    use std::io::Read;
    let failed = |error| SigningError::File(path.display().to_string(), error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), Signer::generate().unwrap()).unwrap();
        Signer::read(file.path()).unwrap()
    }

    fn trust(signers: &[&Signer]) -> Trust {
        Trust::of(&AgentSettings {
            require_signed: true,
            trusted_keys: signers.iter().map(|it| it.public_key()).collect(),
            ..AgentSettings::default()
        })
    }

    fn signed(signer: &Signer) -> ServiceSpec {
        let mut spec = ServiceSpec::new("web", "image");
        spec.env.insert("A".into(), "\",\"signature\":\"".into());
        signer.sign(&mut spec);
        spec
    }

    const OWNER: &str = "service:default/web";

    #[test]
    fn what_a_trusted_key_signed_is_started_whichever_of_them_it_is() {
        let (old, new) = (signer(), signer());
        for key in [&old, &new] {
            let spec = signed(key);
            let trust = trust(&[&old, &new]);
            assert_eq!(trust.refusal(&spec.to_stored(), OWNER, &spec, "n"), None);
        }
        let none = Trust::of(&AgentSettings::default());
        assert_eq!(
            none.refusal("{}", "", &signed(&old), "n"),
            None,
            "nothing is required"
        );
    }

    #[test]
    fn all_else_is_refused_and_says_why() {
        let key = signer();
        let spec = signed(&key);
        let text = spec.to_stored();
        let trust = trust(&[&key]);
        let refused = |text: &str, owner: &str, words: &str| {
            let spec = serde_json::from_str(text).unwrap();
            let refusal = trust.refusal(text, owner, &spec, "n").expect("a refusal");
            assert!(refusal.contains(words), "{refusal}");
        };
        refused(
            &text.replace("\"image\":\"image\"", "\"image\":\"evil\""),
            OWNER,
            "was changed",
        );
        refused(
            &text.replace("\"name\":\"web\"", "\"name\":\"web2\""),
            "service:default/web2",
            "was changed",
        );
        refused(
            &text,
            "service:default/other",
            "was signed for service:default/web",
        );
        refused(&text, "", "pushed by hand");
        refused(
            &signed(&signer()).to_stored(),
            OWNER,
            "none of agent.trusted_keys",
        );
        refused(
            &ServiceSpec::new("web", "image").to_stored(),
            OWNER,
            "its spec is not",
        );
        // The same fields in another order, or twice, are other bytes.
        let twice = text.replacen('{', "{\"privileged\":true,", 1);
        refused(&twice, OWNER, "was changed");
    }

    #[test]
    fn a_key_of_openssl_is_read_and_none_is_shown() {
        let key = signer();
        assert_eq!(public_keys(&key.public_key()).unwrap().len(), 1);
        assert!(format!("{key:?}").starts_with("Signer(\"ed25519:"));
        let file = tempfile::NamedTempFile::new().unwrap();
        // PKCS#8 of version 1: the private key alone.
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend([7; 32]);
        let text = format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der));
        std::fs::write(file.path(), text).unwrap();
        let own = Signer::read(file.path()).unwrap();
        let spec = signed(&own);
        assert_eq!(
            trust(&[&own]).refusal(&spec.to_stored(), OWNER, &spec, "n"),
            None
        );
        for wrong in ["ed25519:AAAA", "rsa:AAAA", "/nowhere"] {
            public_keys(wrong).unwrap_err();
        }
    }
}
