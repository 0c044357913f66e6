//! Request bodies: read with a bound, and turned into what they describe.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::explain;
use super::problem::{Kind, Problem};
use crate::model::Violation;

/// Longest time for a body to arrive, so that its own problem is told before the request's budget
/// is used up.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(4);
/// Bytes of a body that is too large which are read and forgotten, so that a client which sends
/// all before it listens still hears the answer.
const DRAINED_MAX: usize = 8 * 1024 * 1024;

/// The body's bytes, at most `bytes_max`.
pub(super) async fn read(request: Request<Body>, bytes_max: usize) -> Result<Bytes, Problem> {
    let (parts, mut body) = request.into_parts();
    check_type(&parts.headers)?;
    let read = async {
        let announced = parts.headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        let collected = if announced.is_some_and(|length| length > limit) {
            None
        } else {
            match Limited::new(&mut body, bytes_max).collect().await {
                Ok(collected) => Some(collected.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => None,
                Err(error) => {
                    tracing::debug!(error, "body not read");
                    return Err(Problem::new(
                        Kind::InvalidRequest,
                        "the body ended before it was complete",
                    ));
                }
            }
        };
        if let Some(bytes) = collected {
            return Ok(bytes);
        }
        // What is left of it may fail in any way.
        let _ = Limited::new(body, DRAINED_MAX).collect().await;
        let given = announced.map_or_else(
            || format!("more than {bytes_max} bytes"),
            |length| format!("{length} bytes"),
        );
        let allowed = format!("at most {bytes_max} bytes (setting api.body_bytes_max)");
        Err(Problem::of_violations(
            Kind::BodyTooLarge,
            vec![Violation::new("", given, allowed)],
        ))
    };
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(result) => result,
        Err(_) => Err(Problem::new(
            Kind::RequestTimeout,
            format!("the whole body has to arrive within {BODY_TIMEOUT:?}"),
        )),
    }
}

/// Plain, so that no small body is a large one; JSON by its type, or by curl's default for `-d`, which is what users type, or untyped.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let given = String::from_utf8_lossy(coding.as_bytes());
        return Err(unsupported("Content-Encoding", &given, "none, or identity"));
    }
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json || essence == "application/x-www-form-urlencoded" {
        return Ok(());
    }
    Err(unsupported("Content-Type", &given, "application/json"))
}

fn unsupported(header: &str, given: &str, allowed: &str) -> Problem {
    let violation = Violation::new(header, given, allowed);
    Problem::of_violations(Kind::UnsupportedMediaType, vec![violation])
}

/// What the bytes describe; the problem names the field, what was given and what is allowed.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => {
            let detail = "the body is empty, a JSON object is needed";
            return Err(Problem::new(Kind::MalformedJson, detail));
        }
        // Without this, lists would be read field by field.
        Some(b'[') => return Err(explain::not_an_object("a list")),
        Some(_) => {}
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| explain::failure(&error, body))?;
    json.end().map_err(|error| explain::malformed(&error))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::answer::{LabelRequest, ScaleRequest};
    use crate::fuzz;
    use crate::fuzz::targets::{SPECS, reads_back};
    use crate::model::ServiceSpec;

    /// Far above what explains a mistake, far below what a body may hold.
    const PROBLEM_BYTES_MAX: usize = 8192;

    fn parsed<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
        match parse(body) {
            Ok(value) => Some(value),
            Err(problem) => {
                let shown = serde_json::to_value(&problem).expect("a problem is shown");
                assert!(shown["status"] == 400, "{shown}");
                assert!(shown.to_string().len() < PROBLEM_BYTES_MAX, "{shown}");
                assert!(
                    shown["detail"]
                        .as_str()
                        .is_some_and(|detail| !detail.is_empty())
                );
                None
            }
        }
    }

    #[test]
    fn fuzz_body_of_a_service() {
        fuzz::bytes("body of a service", &SPECS.map(str::as_bytes), |body| {
            let Some(spec) = parsed::<ServiceSpec>(body) else {
                return;
            };
            let violations = spec.violations(100);
            if violations.is_empty() {
                reads_back(&spec);
            } else {
                let problem = Problem::of_violations(Kind::InvalidRequest, violations);
                assert!(
                    !serde_json::to_vec(&problem)
                        .expect("a problem is shown")
                        .is_empty()
                );
            }
        });
    }

    #[test]
    fn fuzz_small_bodies() {
        let seeds: [&[u8]; 2] = [
            br#"{"replicas":3}"#,
            br#"{"labels":{"zone":"eu","old":null}}"#,
        ];
        fuzz::bytes("small bodies", &seeds, |body| {
            let _ = parsed::<ScaleRequest>(body);
            let _ = parsed::<LabelRequest>(body);
        });
    }
}
