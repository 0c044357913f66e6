//! The HTTP API: a service comes in, its pods stand in the queue.
//!
//! `kubeleet-api` and `leet dev` call [`run`]. Knows `model` and `store`; must never import the
//! scheduler, the controller or an agent, and never write a phase: users write wishes.
//!
//! Invariant: a request that is answered with a problem below 500 changed nothing in Redis
//! (`tests/flow/api_bad_input.rs`).
//! Invariant: every request is answered within the budget in `observe`, and every answer that
//! is no success is a problem (`tests/flow/api_faults.rs`).

mod answer;
mod apply;
mod attempt;
mod body;
mod dead;
mod decisions;
mod events;
mod explain;
mod health;
mod exec;
mod idempotency;
mod logs;
mod memory;
mod nodes;
mod observe;
mod openapi;
mod pods;
mod precondition;
mod problem;
mod query;
mod queue;
mod rules;
mod schema;
mod serve;
mod services;
mod sessions;
mod sse;
mod stats;
mod submit;
mod tail;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::model::{ServiceSpec, Violation};
use crate::settings::{ApiSettings, Settings};
use crate::signing::{Signer, SigningError};
use crate::store::Store;
use crate::store::backoff::Backoff;
use crate::telemetry::chain;
use sessions::Seats;

/// Why the API ended, other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The listener is of no use.
    #[error("reading the address the API listens on")]
    Listener(#[source] std::io::Error),
    /// The key of setting `api.signing_key_file` is of no use.
    #[error("the key that signs specs (setting api.signing_key_file)")]
    SigningKey(#[source] SigningError),
}

/// What every handler has at hand.
#[derive(Clone)]
struct App {
    store: Store,
    settings: Arc<ApiSettings>,
    /// A node whose last heartbeat is older is shown as lost.
    lease: Duration,
    /// What listens for users.
    seats: Seats,
    /// How full Redis is.
    memory: Arc<memory::Memory>,
    /// What is followed by streams.
    tail: Arc<tail::Tail>,
    /// The key that signs specs, if there is one.
    signer: Option<Arc<Signer>>,
}

impl App {
    /// All that is wrong with a spec that a user gave.
    fn violations(&self, spec: &ServiceSpec) -> Vec<Violation> {
        let mut violations = spec.violations(self.settings.replicas_max);
        if let Some(signature) = &spec.signature {
            let allowed = "nothing: the API signs by its own key";
            violations.push(Violation::new("signature", signature, allowed));
        }
        violations
    }

    /// Signs a spec that is as it is to be stored.
    fn sign(&self, spec: &mut ServiceSpec) {
        if let Some(signer) = &self.signer {
            signer.sign(spec);
        }
    }
}

/// Opens the cluster, so that requests are accepted also where nothing else runs yet, and sees a
/// loss of Redis where nothing else does.
async fn keep_open(store: &Store) {
    let mut backoff = Backoff::new();
    loop {
        let opened = async {
            store.open().await?;
            store.recovery().check().await
        };
        match opened.await {
            Ok(()) => {
                backoff.reset();
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "opening the cluster failed, trying again"
                );
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Time between two looks at whether Redis lost writes; schedulers and agents look more often.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Serves the API on `listener` until `shutdown`; then requests in flight get a bounded time.
///
/// # Errors
/// The listener cannot be used, or the key that signs specs.
pub async fn run(
    listener: TcpListener,
    store: Store,
    settings: &Settings,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let address = listener.local_addr().map_err(ApiError::Listener)?;
    let key_file = &settings.api.signing_key_file;
    let signer = match key_file.as_os_str().is_empty() {
        true => None,
        false => Some(Signer::read(key_file).map_err(ApiError::SigningKey)?),
    };
    if let Some(signer) = &signer {
        tracing::info!(key = signer.public_key(), "specs are signed");
    }
    let app = App {
        signer: signer.map(Arc::new),
        tail: tail::Tail::new(store.clone(), shutdown.clone()),
        store,
        memory: Arc::default(),
        settings: Arc::new(settings.api.clone()),
        lease: settings.heartbeat.lease,
        seats: Seats::new(shutdown.child_token()),
    };
    let seats = app.seats.clone();
    tracing::info!(api.address = %address, "API is listening");
    let (store, memory) = (app.store.clone(), app.memory.clone());
    tokio::select! {
        () = serve::serve(listener, openapi::router(app), shutdown) => {}
        _ = memory.watch(&store) => {}
        () = keep_open(&store) => {} // it has no end of its own: requests in flight need it
    }
    seats.drain().await;
    tracing::info!(api.address = %address, "API has ended");
    Ok(())
}
