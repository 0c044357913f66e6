//! What can go wrong with a connection, and what an error says about the one it was met on.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The settings lead nowhere; only another start of the process can help.
    #[error("the settings lead to no redis: {reason}")]
    Settings {
        /// Why.
        reason: String,
    },
    /// An address is none.
    #[error("reading the address {address}")]
    Address {
        /// Which, without its password.
        address: String,
        /// Why.
        source: RedisError,
    },
    /// The file of `redis.ca_file`, `redis.cert_file` or `redis.key_file` cannot be read.
    #[error("reading certificates or a key from {}", path.display())]
    CertificateFile {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The pool cannot be built.
    #[error("building the pool for redis at {address}")]
    Pool {
        /// Of which master.
        address: String,
        /// Why.
        source: deadpool::managed::BuildError,
    },
    /// No majority of the Sentinels names a master.
    #[error("no redis master is known: {reason}")]
    NoMaster {
        /// What the Sentinels said.
        reason: String,
    },
    /// The connection cannot be made.
    #[error("connecting to redis at {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        source: RedisError,
    },
    /// It is a replica.
    #[error("redis at {address} is not a master, but {role:?}")]
    NotMaster {
        /// Where.
        address: String,
        /// What it calls itself.
        role: String,
    },
    /// All of the pool's connections are in use.
    #[error("no connection to redis at {address} became free within {waited:?}")]
    Exhausted {
        /// Where.
        address: String,
        /// For how long.
        waited: Duration,
    },
    /// Nothing came back.
    #[error("redis at {address} did not answer within {waited:?}")]
    TimedOut {
        /// Where.
        address: String,
        /// For how long.
        waited: Duration,
    },
    /// The master moved meanwhile.
    #[error("redis at {address} was left meanwhile")]
    Left {
        /// Where it was.
        address: String,
    },
}

impl ConnectionError {
    /// True where the same call can succeed later without anyone changing settings.
    pub fn is_retryable(&self) -> bool {
        match self {
            ConnectionError::Settings { .. }
            | ConnectionError::Address { .. }
            | ConnectionError::CertificateFile { .. }
            | ConnectionError::Pool { .. } => false,
            ConnectionError::Connect { source, .. } => is_retryable(source),
            _ => true,
        }
    }
}

/// What an error says about the connection it was met on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: the command was at fault.
    None,
    /// The connection is broken, and others to the same place may be.
    Broken,
    /// The server is no master, or not yet: every connection to it is of no use.
    NotMaster,
}

/// Answers of a server that is no master, or no longer, or not yet.
const NOT_MASTER: &[&str] = &["READONLY", "LOADING", "MASTERDOWN", "UNBLOCKED"];
/// Answers of a master that cannot take the command now, and may soon.
const NOT_NOW: &[&str] = &[
    "NOREPLICAS",
    "BUSY",
    "OOM",
    "MISCONF",
    "TRYAGAIN",
    "CLUSTERDOWN",
];

impl Fault {
    pub(super) fn of(error: &RedisError) -> Fault {
        if has_code(error, NOT_MASTER) {
            Fault::NotMaster
        } else if matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse) {
            Fault::Broken
        } else {
            Fault::None
        }
    }
}

/// True where the same command may succeed later: it failed for the state of the server or of the
/// connection, not for what it said. Whether it was done already is unknown after a broken connection.
pub fn is_retryable(error: &RedisError) -> bool {
    Fault::of(error) != Fault::None || has_code(error, NOT_NOW)
}

/// True where Redis has no memory left for what creates.
pub fn is_full(error: &RedisError) -> bool {
    has_code(error, &["OOM"])
}

/// True where the user of this connection may not do what was asked.
pub fn is_forbidden(error: &RedisError) -> bool {
    has_code(error, &["NOPERM"])
}

/// True where a key holds another type than the command works on.
pub fn is_wrong_type(error: &RedisError) -> bool {
    has_code(error, &["WRONGTYPE"])
}

/// True where Redis does not have the function that was called.
pub fn is_function_absent(error: &RedisError) -> bool {
    let absent = |text: Option<&str>| text.is_some_and(|text| text.contains("Function not found"));
    match error.clone().into_server_errors() {
        Some(errors) => errors.iter().any(|(_, error)| absent(error.details())),
        None => absent(error.detail()),
    }
}

/// True where the server refused the command, or the first of a pipeline: it changed nothing.
pub fn is_refusal(error: &RedisError) -> bool {
    match error.clone().into_server_errors() {
        Some(errors) => errors.iter().any(|(position, _)| *position == 0),
        None => error.code().is_some(),
    }
}

/// A pipeline's error holds one for each failed command, so each is looked at.
fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    match error.clone().into_server_errors() {
        Some(errors) => errors
            .iter()
            .any(|(_, error)| codes.contains(&error.code())),
        None => error.code().is_some_and(|code| codes.contains(&code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str) -> RedisError {
        redis::make_extension_error(code.to_owned(), None)
    }

    #[test]
    fn errors_tell_what_to_do_with_the_connection() {
        for code in NOT_MASTER {
            assert_eq!(Fault::of(&answer(code)), Fault::NotMaster, "{code}");
            assert!(is_retryable(&answer(code)), "{code}");
        }
        for code in NOT_NOW {
            assert_eq!(Fault::of(&answer(code)), Fault::None, "{code}");
            assert!(is_retryable(&answer(code)), "{code}");
        }
        for code in ["WRONGTYPE", "NOAUTH", "KLBADARG"] {
            assert_eq!(Fault::of(&answer(code)), Fault::None, "{code}");
            assert!(!is_retryable(&answer(code)), "{code}");
        }
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(Fault::of(&io), Fault::Broken);
        assert!(is_retryable(&io));
    }
}
