//! The health check of a service, as liveness and readiness: a container that fails it is not
//! counted on, and is started anew. Where nothing is said, times are those of the Compose
//! Specification.

use super::super::node::{At, Content};
use super::super::note::Notes;
use super::process::span;
use crate::model::service::{Health, Probe};
use crate::model::{ServiceSpec, Span};

/// Between two checks, and for one, where nothing is said.
const PERIOD: Span = Span::secs(30);
/// Failures in a row, where nothing is said.
const RETRIES: u32 = 3;
const KEYS: [&str; 7] = [
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "start_interval",
    "disable",
];

/// What a test says.
enum Test {
    /// No checks, neither this nor the image's.
    Off,
    /// A command in the container.
    Exec(Vec<String>),
}

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let Some(at) = at.some("healthcheck") else {
        return;
    };
    at.known(notes, &KEYS);
    let disabled = at.some("disable").is_some_and(|at| at.bool(notes));
    let test = match at.some("test") {
        _ if disabled => Some(Test::Off),
        Some(test) => self::test(&test, notes),
        None => {
            at.refuse(
                notes,
                "times without a test are not possible here: repeat the image's test",
            );
            None
        }
    };
    let period = |key: &str, default: Span, notes: &mut Notes| {
        let said = at.some(key).and_then(|at| span(&at, notes));
        said.unwrap_or(default)
    };
    if let Some(at) = at.some("start_interval") {
        at.warn(notes, "has no effect here: interval counts from the start");
    }
    spec.health = match test {
        None => None,
        Some(Test::Off) => Some(Health {
            liveness: None,
            readiness: None,
            engine: false,
        }),
        Some(Test::Exec(command)) => {
            let probe = Probe {
                exec: Some(command),
                http: None,
                tcp: None,
                start_period: period("start_period", Span::secs(0), notes),
                interval: period("interval", PERIOD, notes),
                timeout: period("timeout", PERIOD, notes),
                failures: at
                    .some("retries")
                    .and_then(|at| at.number(notes))
                    .unwrap_or(RETRIES),
                successes: 1,
            };
            Some(Health {
                liveness: Some(probe.clone()),
                readiness: Some(probe),
                // The image's own check is replaced.
                engine: false,
            })
        }
    };
}

fn test(at: &At, notes: &mut Notes) -> Option<Test> {
    let shell = |command: &str| ["/bin/sh", "-c", command].map(ToOwned::to_owned).to_vec();
    if let Content::Scalar { .. } = at.node.content {
        return at.text(notes).map(|command| Test::Exec(shell(command)));
    }
    let items = at.list(notes);
    let words: Vec<&str> = items.iter().filter_map(|at| at.text(notes)).collect();
    match words.as_slice() {
        ["NONE"] => Some(Test::Off),
        ["CMD", command @ ..] if !command.is_empty() => Some(Test::Exec(
            command.iter().map(|word| (*word).to_owned()).collect(),
        )),
        ["CMD-SHELL", command] => Some(Test::Exec(shell(command))),
        _ => {
            at.refuse(
                notes,
                "a text, [NONE], [CMD, ...] or [CMD-SHELL, command] is needed",
            );
            None
        }
    }
}
