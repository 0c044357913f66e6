//! `Idempotency-Key`: what it may be, and what tells the requests under one key apart.

use axum::http::HeaderMap;

use super::problem::Problem;
use crate::model::{ServiceSpec, Violation};

/// The header under which a request may be repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest idempotency key.
const IDEMPOTENCY_KEY_MAX: usize = 255;
/// What is allowed as an idempotency key.
const IDEMPOTENCY_KEY_RULE: &str = "1 to 255 visible ASCII characters";

/// The key of a request, if it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(key), None) = (given.next(), given.next()) else {
        return match headers.contains_key(IDEMPOTENCY_KEY) {
            false => Ok(None),
            true => Err(Problem::of_field(Violation::new(
                "Idempotency-Key",
                "several times",
                "once",
            ))),
        };
    };
    let bytes = key.as_bytes();
    let sound =
        (1..=IDEMPOTENCY_KEY_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    let key = String::from_utf8_lossy(bytes).into_owned();
    if sound {
        Ok(Some(key))
    } else {
        Err(Problem::of_field(Violation::new(
            "Idempotency-Key",
            key,
            IDEMPOTENCY_KEY_RULE,
        )))
    }
}

/// Tells requests under one idempotency key apart: FNV-1a of what is wanted. It guards against
/// mistakes, not against attackers, who could only hit their own key.
pub(super) fn fingerprint(spec: &ServiceSpec) -> String {
    let wanted = format!("{} {}", spec.replicas, spec.to_stored());
    let hash = wanted
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_stable_and_tell_wishes_apart() {
        let mut spec = ServiceSpec::new("a", "b");
        assert_eq!(fingerprint(&spec), "b0ea533f5140125b");
        spec.replicas = 2;
        assert_ne!(fingerprint(&spec), "b0ea533f5140125b");
    }
}
