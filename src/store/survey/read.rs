//! Asks each server and each Sentinel, all at once, none longer than its time-outs.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError, Value};

use super::{ClusterFacts, Facts, Sentinel, SentinelFacts, Server, info};
use crate::settings::RedisSettings;
use crate::store::call::command;
use crate::store::connection::{Access, ConnectionError, is_tls};
use crate::store::keys::Keys;
use crate::store::library::VERSION;
use crate::telemetry::chain;

/// What is asked of a server's configuration.
const CONFIG: [&str; 6] = [
    "appendfsync",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "tcp-keepalive",
    "busy-reply-threshold",
    "bind",
];

/// Answers of a pipeline in which some may be refused.
type Answers = Vec<redis::RedisResult<Value>>;

impl Facts {
    /// Asks everyone; what cannot be reached is among the facts. A node counts as heard within `lease`.
    ///
    /// # Errors
    /// The settings lead nowhere.
    pub async fn read(
        settings: &RedisSettings,
        prefix: &str,
        lease: Duration,
    ) -> Result<Facts, ConnectionError> {
        let access = Access::of(settings)?;
        let (sentinels, master) = read_sentinels(&access).await;
        let mut facts = Facts {
            by_sentinel: !access.sentinels.is_empty(),
            master_name: access.master_name.clone(),
            master,
            sentinels,
            ..Facts::default()
        };
        let Some(master) = facts.master.clone() else {
            return Ok(facts);
        };
        let master_info = access.master(&master)?;
        let keys = Keys::new(prefix);
        let (asked, cluster) = tokio::join!(
            read_server(&access, &master, Ok(master_info.clone())),
            read_cluster(&access, master_info, &keys, lease),
        );
        let mut replicas = replicas_of(&asked, &facts.sentinels);
        replicas.remove(&master);
        facts.cluster = cluster.ok();
        facts.servers.push(asked);
        let asked = replicas
            .iter()
            .map(|address| read_server(&access, address, access.at(address)));
        facts.servers.extend(join_all(asked).await);
        Ok(facts)
    }

    /// What a station may read of the master it works with; no replica is asked.
    pub(crate) async fn read_master(settings: &RedisSettings) -> Result<Facts, ConnectionError> {
        let access = Access::of(settings)?;
        let (sentinels, master) = read_sentinels(&access).await;
        let mut facts = Facts {
            by_sentinel: !access.sentinels.is_empty(),
            master_name: access.master_name.clone(),
            sentinels,
            ..Facts::default()
        };
        if let Some(master) = master {
            let info = access.master(&master);
            facts.servers = vec![read_server(&access, &master, info).await];
            facts.master = Some(master);
        }
        Ok(facts)
    }
}

/// Replicas that a Sentinel knows, or else the master: Sentinels may call by name what a master calls by
/// number, and then each would be there twice.
fn replicas_of(master: &Server, sentinels: &[Sentinel]) -> BTreeSet<String> {
    let told = sentinels.iter().filter_map(|one| one.facts.as_ref());
    let by_sentinels: BTreeSet<String> = told.flat_map(|facts| facts.replicas.clone()).collect();
    if !by_sentinels.is_empty() {
        return by_sentinels;
    }
    let by_master = master.facts.iter().flat_map(|facts| &facts.replicas);
    by_master.map(|replica| replica.address.clone()).collect()
}

/// Asks all Sentinels; the master is whom more than half of them name, or else that of the URL.
async fn read_sentinels(access: &Access) -> (Vec<Sentinel>, Option<String>) {
    let asked = access.sentinels.iter().map(|info| async {
        let answer = read_sentinel(access, info.clone()).await;
        let (facts, error) = parted(answer);
        Sentinel {
            address: info.addr().to_string(),
            facts,
            error,
        }
    });
    let sentinels = join_all(asked).await;
    let mut votes: HashMap<&str, usize> = HashMap::new();
    for facts in sentinels.iter().filter_map(|one| one.facts.as_ref()) {
        *votes.entry(facts.master.as_str()).or_default() += 1;
    }
    let agreed = votes
        .into_iter()
        .find(|(_, votes)| votes * 2 > sentinels.len())
        .map(|(address, _)| address.to_owned());
    let master = agreed.or_else(|| access.fixed_address());
    (sentinels, master)
}

async fn read_sentinel(access: &Access, info: ConnectionInfo) -> Result<SentinelFacts, RedisError> {
    let mut connection = access.open(info).await?;
    let mut asked = redis::pipe();
    for what in ["MASTER", "REPLICAS", "SENTINELS"] {
        asked.cmd("SENTINEL").arg(what).arg(&access.master_name);
    }
    type Known = HashMap<String, String>;
    let (master, replicas, others): (Known, Vec<Known>, Vec<Known>) =
        asked.query_async(&mut connection).await?;
    let address = |known: &Known| {
        let part = |name: &str| known.get(name).cloned().unwrap_or_default();
        format!("{}:{}", part("ip"), part("port"))
    };
    let number = |name: &str| {
        let value = master.get(name).and_then(|value| value.parse().ok());
        value.unwrap_or_default()
    };
    Ok(SentinelFacts {
        master: address(&master),
        flags: master.get("flags").cloned().unwrap_or_default(),
        quorum: number("quorum"),
        others: others.iter().map(address).collect(),
        replicas: replicas.iter().map(address).collect(),
        down_after_ms: number("down-after-milliseconds"),
        failover_timeout_ms: number("failover-timeout"),
        parallel_syncs: number("parallel-syncs"),
    })
}

async fn read_server(
    access: &Access,
    address: &str,
    info: Result<ConnectionInfo, ConnectionError>,
) -> Server {
    let mut server = Server {
        address: address.to_owned(),
        ..Server::default()
    };
    let info = match info {
        Ok(info) => info,
        Err(error) => {
            server.error = Some(chain(&error));
            return server;
        }
    };
    server.tls = is_tls(&info);
    let (answer, is_open) = tokio::join!(
        ask_server(access, info.clone()),
        is_open(access, info.clone())
    );
    server.is_open = is_open;
    server.is_refused = answer
        .as_ref()
        .is_err_and(|error| error.code() == Some("NOPERM"));
    (server.facts, server.error) = parted(answer);
    server
}

async fn ask_server(
    access: &Access,
    info: ConnectionInfo,
) -> Result<super::ServerFacts, RedisError> {
    let mut connection = access.open(info).await?;
    let mut asked = redis::pipe();
    asked.cmd("INFO").cmd("CONFIG").arg("GET").arg(&CONFIG);
    asked.ignore_errors();
    let answers: Answers = asked.query_async(&mut connection).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    let text: String = redis::from_redis_value(next()?)?;
    let config = next().and_then(|value| Ok(redis::from_redis_value(value)?));
    Ok(info::facts(&text, config.ok().as_ref()))
}

/// Whether someone who names no user is let in. Unknown where not even a connection was to be had.
async fn is_open(access: &Access, info: ConnectionInfo) -> Option<bool> {
    if matches!(info.addr(), ConnectionAddr::Unix(_)) {
        return None;
    }
    let nobody = info.set_redis_settings(RedisConnectionInfo::default());
    match greet(access, nobody).await {
        Ok(()) => Some(true),
        Err(error) if error.code().is_some() => Some(false),
        Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => Some(false),
        Err(_) => None,
    }
}

async fn greet(access: &Access, info: ConnectionInfo) -> Result<(), RedisError> {
    let mut connection = access.open(info).await?;
    command("PING").query_async(&mut connection).await
}

async fn read_cluster(
    access: &Access,
    info: ConnectionInfo,
    keys: &Keys,
    lease: Duration,
) -> Result<ClusterFacts, RedisError> {
    let mut connection = access.open(info).await?;
    let now_ms = clock_ms(&mut connection).await?;
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let mut asked = redis::pipe();
    asked
        .cmd("HMGET")
        .arg(keys.cluster())
        .arg(&["id", "schema"])
        .cmd("FCALL_RO")
        .arg("kl_library_version")
        .arg(1)
        .arg(keys.cluster())
        .cmd("ZCOUNT")
        .arg(keys.nodes())
        .arg(now_ms.saturating_sub(lease_ms))
        .arg("+inf")
        .cmd("ZCARD")
        .arg(keys.nodes())
        .cmd("ZCARD")
        .arg(keys.nodes_lost());
    asked.ignore_errors();
    let answers: Answers = asked.query_async(&mut connection).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    // What somebody gave another type, or this user may not read, is as good as absent.
    let record: Result<(Option<String>, Option<u64>), RedisError> =
        next().and_then(|value| Ok(redis::from_redis_value(value)?));
    let (id, schema) = record.unwrap_or_default();
    let mut number = || {
        let value = next().and_then(|value| Ok(redis::from_redis_value::<u64>(value)?));
        value.ok()
    };
    let functions = number();
    let agents = number().unwrap_or(0);
    let known = number().unwrap_or(0) + number().unwrap_or(0);
    Ok(ClusterFacts {
        id,
        schema,
        functions,
        functions_here: VERSION,
        agents,
        agents_silent: known.saturating_sub(agents),
    })
}

async fn clock_ms(connection: &mut MultiplexedConnection) -> Result<u64, RedisError> {
    let (seconds, micros): (u64, u64) = command("TIME").query_async(connection).await?;
    Ok(seconds * 1000 + micros / 1000)
}

fn parted<T>(answer: Result<T, RedisError>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(facts) => (Some(facts), None),
        Err(error) => (None, Some(chain(&error))),
    }
}
