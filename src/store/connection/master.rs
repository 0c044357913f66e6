//! One generation: a master's address with the pool of connections to it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{
    self, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, TimeoutType,
};
use deadpool_redis::Runtime;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Client, RedisError, Value};
use tokio_util::sync::CancellationToken;

use super::address::Access;
use super::error::ConnectionError;

/// A connection checked this recently is given out without asking anything: one round trip less on
/// every call of a busy process, while an idle connection's death is still noticed before its use.
const CHECK_VALID_FOR: Duration = Duration::from_secs(1);

/// A master and its pool.
pub(super) struct Master {
    generation: u64,
    pool: Pool<Doorman>,
    door: Arc<Door>,
    /// Cancelled when this address is no longer the master's.
    over: CancellationToken,
}

/// What all connections of a generation share.
struct Door {
    address: String,
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
    timeouts: redis::AsyncConnectionConfig,
    /// Replicas connected to the master, as of the last check.
    replicas: AtomicUsize,
    /// When a check failed last: connections checked before are not worth a try of their own.
    distrusted: Mutex<Option<Instant>>,
}

/// Makes and checks the pool's connections.
pub(super) struct Doorman {
    maker: deadpool_redis::Manager,
    door: Arc<Door>,
}

/// A connection, and when it was last known to be to a master.
pub(super) struct Checked {
    pub(super) connection: MultiplexedConnection,
    at: Instant,
}

impl Master {
    pub(super) fn new(
        access: &Access,
        address: &str,
        generation: u64,
        over: CancellationToken,
    ) -> Result<Master, ConnectionError> {
        let unusable = |source| ConnectionError::Address {
            address: address.to_owned(),
            source,
        };
        let info = access.master(address)?;
        let timeouts = access.timeouts(Duration::ZERO);
        let maker = deadpool_redis::Manager::new_with_config(info.clone(), timeouts.clone());
        let door = Arc::new(Door {
            address: address.to_owned(),
            client: Client::open(info).map_err(unusable)?,
            connect_timeout: access.connect_timeout,
            response_timeout: access.response_timeout,
            timeouts,
            replicas: AtomicUsize::new(0),
            distrusted: Mutex::new(None),
        });
        let doorman = Doorman {
            maker: maker.map_err(unusable)?,
            door: Arc::clone(&door),
        };
        let pool = Pool::builder(doorman)
            .max_size(access.pool_size)
            // The last one used is the one that needs no check.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(access.connect_timeout))
            .create_timeout(Some(access.connect_timeout + access.response_timeout))
            .recycle_timeout(Some(access.response_timeout))
            .build()
            .map_err(|source| ConnectionError::Pool {
                address: address.to_owned(),
                source,
            })?;
        Ok(Master {
            generation,
            pool,
            door,
            over,
        })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn address(&self) -> &str {
        &self.door.address
    }

    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    pub(super) fn replicas(&self) -> usize {
        self.door.replicas.load(Ordering::Relaxed)
    }

    /// Idle connections are dropped now, those in use when they come back.
    pub(super) fn close(&self) {
        self.pool.close();
    }

    /// A connection of the pool.
    pub(super) async fn pooled(&self) -> Result<Object<Doorman>, ConnectionError> {
        let address = self.address().to_owned();
        let error = tokio::select! {
            biased;
            () = self.over.cancelled() => return Err(ConnectionError::Left { address }),
            taken = self.pool.get() => match taken {
                Ok(object) => return Ok(object),
                Err(error) => error,
            },
        };
        let connect = self.door.connect_timeout;
        Err(match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Wait) => ConnectionError::Exhausted {
                address,
                waited: connect,
            },
            PoolError::Timeout(_) => ConnectionError::TimedOut {
                address,
                waited: connect + self.door.response_timeout,
            },
            // No runtime and no hook can be missing: both are set right where the pool is built.
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                ConnectionError::Left { address }
            }
        })
    }

    /// A connection outside the pool.
    pub(super) async fn connect(
        &self,
        longest_block: Duration,
    ) -> Result<MultiplexedConnection, ConnectionError> {
        let door = &self.door;
        let made = async {
            let made = door
                .client
                .get_multiplexed_async_connection_with_config(&door.timeouts);
            let mut connection = made.await.map_err(|source| door.unreachable(source))?;
            door.check(&mut connection).await?;
            connection.set_response_timeout(longest_block + door.response_timeout);
            Ok(connection)
        };
        tokio::select! {
            biased;
            () = self.over.cancelled() => Err(ConnectionError::Left { address: door.address.clone() }),
            made = made => made,
        }
    }
}

impl Door {
    fn unreachable(&self, source: RedisError) -> ConnectionError {
        ConnectionError::Connect {
            address: self.address.clone(),
            source,
        }
    }

    /// Refuses what is no master, and what is still loading: PING is refused then, ROLE is not.
    async fn check(
        &self,
        connection: &mut (impl ConnectionLike + Send),
    ) -> Result<(), ConnectionError> {
        let mut asked = redis::Pipeline::new();
        asked.cmd("PING").ignore().cmd("ROLE");
        let answer: Result<(Vec<Value>,), _> = asked.query_async(connection).await;
        let (role,) = answer.map_err(|source| self.unreachable(source))?;
        let word = match role.first() {
            Some(Value::BulkString(word)) => String::from_utf8_lossy(word).into_owned(),
            _ => String::new(),
        };
        if word != "master" {
            return Err(ConnectionError::NotMaster {
                address: self.address.clone(),
                role: word,
            });
        }
        let replicas = match role.get(2) {
            Some(Value::Array(replicas)) => replicas.len(),
            _ => 0,
        };
        self.replicas.store(replicas, Ordering::Relaxed);
        Ok(())
    }

    fn distrusts(&self, checked: &Checked) -> bool {
        let distrusted = self.distrusted.lock();
        // A panic elsewhere cannot leave a half-written instant.
        let distrusted = *distrusted.unwrap_or_else(PoisonError::into_inner);
        distrusted.is_some_and(|since| checked.at <= since)
    }

    fn distrust(&self) {
        let mut distrusted = self
            .distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *distrusted = Some(Instant::now());
    }
}

/// Notes that a check began, and if it does not end well, in time-outs too, that it failed.
struct Trial<'a>(Option<&'a Door>);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(door) = self.0 {
            door.distrust();
        }
    }
}

impl managed::Manager for Doorman {
    type Type = Checked;
    type Error = ConnectionError;

    async fn create(&self) -> Result<Checked, ConnectionError> {
        let made = managed::Manager::create(&self.maker).await;
        let mut connection = made.map_err(|source| self.door.unreachable(source))?;
        self.door.check(&mut connection).await?;
        Ok(Checked {
            connection,
            at: Instant::now(),
        })
    }

    async fn recycle(
        &self,
        checked: &mut Checked,
        _: &Metrics,
    ) -> managed::RecycleResult<ConnectionError> {
        if self.door.distrusts(checked) {
            return Err(RecycleError::message(
                "another connection to this redis failed",
            ));
        }
        if checked.at.elapsed() < CHECK_VALID_FOR {
            return Ok(());
        }
        let mut trial = Trial(Some(&self.door));
        self.door.check(&mut checked.connection).await?;
        trial.0 = None;
        checked.at = Instant::now();
        Ok(())
    }
}
