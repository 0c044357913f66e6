//! Connections to the Redis that is the master now.
//!
//! All are made from one *generation*: an address with its pool, swapped as a whole. Where Sentinels
//! are given, a guard task follows them and starts the generations; else the address is fixed.
//!
//! Invariant: each new connection is checked to be to a master, by URL too.
//! Invariant: when the master moves, every connection to the old one fails, those in use included,
//! because an old master goes on taking writes for seconds, and forgets them.
//! Never waits without limit: each wait is bounded by a setting.

mod address;
mod error;
mod exclusive;
mod guard;
mod master;

use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use error::{
    ConnectionError, is_forbidden, is_full, is_function_absent, is_refusal, is_retryable,
    is_wrong_type,
};
pub use exclusive::Connection;

use crate::settings::{Durability, RedisSettings};
pub(crate) use address::{Access, is_tls};
use error::Fault;
use exclusive::Link;
use master::Master;

/// How often `get` begins anew when the generation it waits in is left meanwhile.
const GENERATIONS_TRIED: usize = 3;

/// The way to the master. A clone is cheap and is the same way.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    /// Ends the guard with the last clone.
    _guard: Arc<DropGuard>,
}

struct Shared {
    settings: RedisSettings,
    /// `Err` holds why the settings lead nowhere.
    access: Result<Access, String>,
    place: watch::Sender<Place>,
    /// Counted up to have the guard ask all Sentinels at once.
    ask: watch::Sender<u64>,
}

/// Where the master is, as far as is known.
struct Place {
    /// Number of the last generation.
    generation: u64,
    now: Now,
    /// Address of the last generation.
    address: String,
    /// Cancelled when that address is no longer the master's.
    over: CancellationToken,
}

enum Now {
    /// The guard is asking the Sentinels.
    Asking,
    /// At a known address.
    At(Arc<Master>),
    /// Nobody knows, and this is why.
    Nowhere(String),
}

impl Redis {
    /// The way to the Redis of `settings`. Never fails because that is away: `get` does.
    ///
    /// Must be called in a tokio runtime, which carries the guard until `shutdown`.
    pub fn connect(settings: &RedisSettings, shutdown: CancellationToken) -> Redis {
        let access = Access::of(settings).map_err(|error| crate::telemetry::chain(&error));
        let now = match &access {
            Ok(_) => Now::Asking,
            Err(reason) => Now::Nowhere(reason.clone()),
        };
        let place = Place {
            generation: 0,
            now,
            address: String::new(),
            over: CancellationToken::new(),
        };
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            access,
            place: watch::Sender::new(place),
            ask: watch::Sender::new(0),
        });
        let ends = shutdown.child_token();
        if let Ok(access) = &shared.access {
            match access.fixed_address() {
                Some(address) => shared.arrive(&address),
                None => guard::start(&shared, access, &ends),
            }
        }
        Redis {
            shared,
            _guard: Arc::new(ends.drop_guard()),
        }
    }

    /// A connection of the pool, for one user at a time; it goes back when dropped.
    ///
    /// # Errors
    ///
    /// No master is known or reachable, or no connection became free within the connect time-out.
    pub async fn get(&self) -> Result<Connection, ConnectionError> {
        for _ in 1..GENERATIONS_TRIED {
            match self.try_get().await {
                Err(ConnectionError::Left { .. }) => {}
                result => return result,
            }
        }
        self.try_get().await
    }

    async fn try_get(&self) -> Result<Connection, ConnectionError> {
        let master = self.shared.master().await?;
        let link = Link::Pooled(master.pooled().await.inspect_err(|error| {
            self.shared.note_failed_connect(&master, error);
        })?);
        Ok(Connection::new(link, master, Arc::clone(&self.shared)))
    }

    /// A connection of its own, outside the pool, for commands that block up to `longest_block`.
    /// Drop it on any error.
    ///
    /// # Errors
    ///
    /// No master is known or reachable.
    pub async fn dedicated(&self, longest_block: Duration) -> Result<Connection, ConnectionError> {
        let master = self.shared.master().await?;
        let made = master.connect(longest_block).await;
        let link = Link::Own(made.inspect_err(|error| {
            self.shared.note_failed_connect(&master, error);
        })?);
        Ok(Connection::new(link, master, Arc::clone(&self.shared)))
    }

    /// Tells of an error met in `generation`. [`Connection`] does so by itself for every answer; this
    /// is for errors found elsewhere, such as inside a function's reply.
    pub fn report_error(&self, generation: u64, error: &RedisError) {
        self.shared.report_error(generation, error);
    }

    /// How long a recovery lasts after Redis lost writes.
    pub fn recovery_time(&self) -> Duration {
        self.shared.settings.recovery_time
    }

    /// Longest wait for replicas to confirm a commit.
    pub fn commit_timeout(&self) -> Duration {
        self.shared.settings.commit_timeout
    }
}

impl Shared {
    /// The master; waits only while the Sentinels are being asked.
    async fn master(&self) -> Result<Arc<Master>, ConnectionError> {
        let mut place = self.place.subscribe();
        let known = place.wait_for(|place| !matches!(place.now, Now::Asking));
        let limit = self.settings.connect_timeout;
        let Ok(Ok(place)) = tokio::time::timeout(limit, known).await else {
            let reason = format!("the Sentinels did not answer within {limit:?}");
            return Err(ConnectionError::NoMaster { reason });
        };
        match &place.now {
            Now::At(master) => Ok(Arc::clone(master)),
            Now::Nowhere(reason) if self.access.is_err() => Err(ConnectionError::Settings {
                reason: reason.clone(),
            }),
            Now::Nowhere(reason) => Err(ConnectionError::NoMaster {
                reason: reason.clone(),
            }),
            Now::Asking => Err(ConnectionError::NoMaster {
                reason: "the Sentinels are being asked".to_owned(),
            }),
        }
    }

    /// The master is at `address`: begins a generation there, if that is not where it is already.
    fn arrive(&self, address: &str) {
        let Ok(access) = &self.access else { return };
        self.place.send_if_modified(|place| {
            if let Now::At(master) = &place.now {
                if master.address() == address {
                    return false;
                }
                master.close();
            }
            // A pool replaced at the same place is no news: a Redis that is away causes many.
            if place.address != address || matches!(place.now, Now::Nowhere(_)) {
                tracing::info!(redis.address = address, "redis master found");
            }
            if place.address != address {
                place.over.cancel();
                place.over = CancellationToken::new();
                address.clone_into(&mut place.address);
            }
            place.generation += 1;
            place.now = match Master::new(access, address, place.generation, place.over.clone()) {
                Ok(master) => Now::At(Arc::new(master)),
                Err(error) => Now::Nowhere(crate::telemetry::chain(&error)),
            };
            true
        });
    }

    /// Nobody knows the master any more: an old one must not be used, it may have been replaced.
    fn lose(&self, reason: String) {
        self.place.send_if_modified(|place| {
            match &place.now {
                Now::Nowhere(known) if *known == reason => return false,
                Now::At(master) => {
                    tracing::warn!(
                        redis.address = master.address(),
                        reason,
                        "redis master lost"
                    );
                    master.close();
                    place.over.cancel();
                    place.over = CancellationToken::new();
                }
                _ => {}
            }
            place.now = Now::Nowhere(reason);
            true
        });
    }

    /// Leaves `generation`, if it is still the current one.
    fn leave(&self, generation: u64, fault: Fault) {
        let mut stay_at = None;
        let left = self.place.send_if_modified(|place| {
            let Now::At(master) = &place.now else {
                return false;
            };
            if master.generation() != generation {
                return false;
            }
            master.close();
            if fault == Fault::NotMaster {
                place.over.cancel();
                place.over = CancellationToken::new();
            }
            if let Ok(access) = &self.access {
                stay_at = access.fixed_address();
            }
            place.now = Now::Asking;
            true
        });
        if !left {
            return;
        }
        match stay_at {
            Some(address) => self.arrive(&address),
            None => self.ask.send_modify(|asked| *asked += 1),
        }
    }

    fn report_error(&self, generation: u64, error: &RedisError) {
        let fault = Fault::of(error);
        if fault != Fault::None {
            self.leave(generation, fault);
        }
    }

    /// A connection could not be made: those that exist are as doubtful, and there may be another
    /// master by now.
    fn note_failed_connect(&self, master: &Master, error: &ConnectionError) {
        match error {
            ConnectionError::NotMaster { .. } => self.leave(master.generation(), Fault::NotMaster),
            ConnectionError::Connect { source, .. } => {
                self.report_error(master.generation(), source);
            }
            ConnectionError::TimedOut { .. } => self.leave(master.generation(), Fault::Broken),
            _ => {}
        }
    }

    /// How many replicas must confirm a commit made on a connection of `master`.
    fn replicas_to_confirm(&self, master: &Master) -> usize {
        if !crate::remedies::holds("wait") {
            return 0;
        }
        let by_sentinel = !self.settings.sentinels.is_empty();
        let connected = master.replicas();
        match self.settings.durability {
            Some(Durability::None) => 0,
            Some(Durability::One) => 1,
            Some(Durability::All) => connected.max(1),
            None => usize::from(by_sentinel || connected > 0),
        }
    }
}
