//! The connection to the engine: made at the first use, forgotten when no answer comes.
//!
//! Every request goes through [`Link::call`], which bounds its time and tells an engine that
//! refuses from one that does not answer.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::Docker as Client;
use bollard::errors::Error as ClientError;

use super::{CLIENT_SLACK, INFO_LIMIT, translate};
use crate::container::{RuntimeError, Verb};

/// The way to one engine.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    slot: Mutex<Option<Connection>>,
}

/// A connection whose version of the API is agreed upon.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// The engine has a program to run as process 1, which passes signals on and reaps.
    pub(super) has_init: bool,
}

/// A failed call: the error, and the HTTP status if the engine answered with one.
pub(super) struct Failure {
    pub(super) status: Option<u16>,
    pub(super) error: RuntimeError,
}

impl Failure {
    /// Whether a 404 means the container: its network can be missing too.
    pub(super) fn is_container_missing(&self) -> bool {
        self.status == Some(404) && self.says("no such container")
    }

    /// Whether a 404 means the image: a network or a volume can be missing too.
    pub(super) fn is_image_missing(&self) -> bool {
        self.status == Some(404) && self.says("no such image")
    }

    fn says(&self, words: &str) -> bool {
        matches!(&self.error, RuntimeError::Refused { message, .. }
            if message.to_ascii_lowercase().contains(words))
    }
}

impl Link {
    /// The way to the engine at `address`. Nothing is connected yet.
    pub(super) fn new(address: String) -> Link {
        Link {
            address,
            slot: Mutex::new(None),
        }
    }

    /// Where the engine is.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends one request, and forgets the connection if there is no answer.
    pub(super) async fn call<T, F>(
        &self,
        verb: Verb,
        limit: Duration,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let client = self.connection(verb).await?.client;
        let request = request(client.with_timeout(limit + CLIENT_SLACK));
        let result = bounded(verb, limit, request).await;
        if let Err(failure) = &result
            && failure.error.is_unreachable()
        {
            *self.slot() = None;
        }
        result
    }

    /// The connection, made if there is none.
    pub(super) async fn connection(&self, verb: Verb) -> Result<Connection, Failure> {
        let made = self.slot().clone();
        if let Some(connection) = made {
            return Ok(connection);
        }
        // Two callers may get here at once; the second connection replaces the first.
        let client = Client::connect_with_host(&self.address)
            .map_err(|error| failure(verb, error))?
            .with_timeout(INFO_LIMIT + CLIENT_SLACK);
        let client = bounded(verb, INFO_LIMIT, client.negotiate_version()).await?;
        let info = bounded(verb, INFO_LIMIT, client.info()).await?;
        let connection = Connection {
            client,
            has_init: translate::has_init(&info),
        };
        *self.slot() = Some(connection.clone());
        Ok(connection)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        // Only ever replaced as a whole, so a panic elsewhere leaves it sound.
        let slot = self.slot.lock();
        slot.unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> RuntimeError {
        failure.error
    }
}

async fn bounded<T>(
    verb: Verb,
    limit: Duration,
    request: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(result) => result.map_err(|error| failure(verb, error)),
        Err(_) => Err(Failure {
            status: None,
            error: RuntimeError::TimedOut { verb, limit },
        }),
    }
}

/// Tells an engine that answered from one that did not.
pub(super) fn failure(verb: Verb, error: ClientError) -> Failure {
    let (status, error) = match error {
        ClientError::DockerResponseServerError {
            status_code,
            message,
        } => (Some(status_code), RuntimeError::Refused { verb, message }),
        ClientError::DockerStreamError { error: message } => {
            (None, RuntimeError::Refused { verb, message })
        }
        unanswered @ (ClientError::RequestTimeoutError
        | ClientError::IOError { .. }
        | ClientError::HyperResponseError { .. }
        | ClientError::HyperLegacyError { .. }
        | ClientError::SocketNotFoundError(_)) => (
            None,
            RuntimeError::Unreachable {
                verb,
                source: unanswered.into(),
            },
        ),
        other => (
            None,
            RuntimeError::Garbled {
                verb,
                source: other.into(),
            },
        ),
    };
    Failure { status, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_counts_as_unreachable() {
        let limit = Duration::from_millis(1);
        let silence = bounded(Verb::List, limit, std::future::pending::<Result<(), _>>());
        let error = silence.await.err().unwrap().error;
        assert!(error.is_unreachable());
        assert_eq!(
            error.to_string(),
            "the container engine was asked to list containers and did not answer within 1ms"
        );
    }

    #[test]
    fn a_refusal_keeps_the_engines_words() {
        let refusal = ClientError::DockerResponseServerError {
            status_code: 500,
            message: "no space left on device".to_owned(),
        };
        let failure = failure(Verb::Create, refusal);
        assert_eq!(failure.status, Some(500));
        assert!(!failure.error.is_unreachable());
        assert_eq!(
            failure.error.to_string(),
            "the container engine could not create the container: no space left on device"
        );
    }
}
