//! Connections by URL: users, sockets, TLS, and servers that are silent, busy or no masters.

use std::time::{Duration, Instant};

use kubeleet::settings::{Durability, RedisSettings, Secret};
use kubeleet::store::connection::{Connection, ConnectionError, Redis, is_retryable};
use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, RedisResult};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Certificates, RedisOptions, RedisServer, eventually, free_port, shared_redis,
};

/// Long enough for anything that goes well.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn settings(url: impl AsRef<str>) -> RedisSettings {
    RedisSettings {
        url: Secret::from(url.as_ref()),
        pool_size: 4,
        connect_timeout: Duration::from_millis(800),
        response_timeout: Duration::from_millis(700),
        ..RedisSettings::default()
    }
}

pub(crate) fn connect(settings: &RedisSettings) -> Redis {
    Redis::connect(settings, CancellationToken::new())
}

pub(crate) async fn send<T: FromRedisValue>(
    connection: &mut impl ConnectionLike,
    words: &[&str],
) -> RedisResult<T> {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(connection).await
}

pub(crate) async fn ping(connection: &mut Connection) -> RedisResult<String> {
    send(connection, &["PING"]).await
}

/// Gets a connection and writes, until both succeed.
pub(crate) async fn recovers(redis: &Redis, limit: Duration) -> Connection {
    eventually(limit, "a write succeeds again", async || {
        let mut connection = redis.get().await.map_err(|error| format!("{error:?}"))?;
        let written: RedisResult<String> = send(&mut connection, &["SET", "recovered", "1"]).await;
        written.map_err(|error| error.to_string())?;
        Ok(connection)
    })
    .await
}

fn error_of(result: Result<Connection, ConnectionError>) -> ConnectionError {
    match result {
        Ok(_) => panic!("there is a connection"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn user_and_password_of_the_url_are_used() {
    let server = RedisOptions::default()
        .line("user default off")
        .line("user someone on >pass@word ~* +@all")
        .start()
        .await;
    let url = |password: &str| format!("redis://someone:{password}@127.0.0.1:{}", server.port());
    let mut connection = connect(&settings(url("pass%40word"))).get().await.unwrap();
    let user: String = send(&mut connection, &["ACL", "WHOAMI"]).await.unwrap();
    assert_eq!(user, "someone");

    let error = error_of(connect(&settings(url("wrong"))).get().await);
    assert!(
        matches!(error, ConnectionError::Connect { .. }),
        "{error:?}"
    );
    assert!(!error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?}").contains("wrong@"), "{error:?}");
}

#[tokio::test]
async fn a_unix_socket_is_an_address() {
    let server = RedisOptions::default().password("secret").start().await;
    for scheme in ["unix", "redis+unix"] {
        let url = format!("{scheme}://{}?pass=secret", server.socket().display());
        let mut connection = connect(&settings(url)).get().await.unwrap();
        assert_eq!(ping(&mut connection).await.unwrap(), "PONG");
    }
}

#[tokio::test]
async fn tls_is_checked_against_the_given_authority() {
    let certificates = Certificates::make();
    let server = RedisOptions::default().tls(&certificates).start().await;
    let mut trusting = settings(server.url());
    trusting.ca_file = certificates.authority();
    let mut connection = connect(&trusting).get().await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");

    let error = error_of(connect(&settings(server.url())).get().await);
    assert!(
        matches!(error, ConnectionError::Connect { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_ours() {
    let certificates = Certificates::make();
    let server = RedisOptions::default()
        .mutual_tls(&certificates)
        .start()
        .await;
    let mut settings = settings(server.url());
    settings.ca_file = certificates.authority();
    let error = error_of(connect(&settings).get().await);
    assert!(
        matches!(error, ConnectionError::Connect { .. }),
        "{error:?}"
    );
    settings.cert_file = certificates.file("client.crt");
    settings.key_file = certificates.file("client.key");
    let mut connection = connect(&settings).get().await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");

    // One that another authority signed is none.
    let foreign = Certificates::make();
    settings.cert_file = foreign.file("client.crt");
    settings.key_file = foreign.file("client.key");
    assert!(connect(&settings).get().await.is_err());
    settings.key_file = certificates.file("client.key");
    let error = error_of(connect(&settings).get().await);
    assert!(!format!("{error:?}").contains("PRIVATE KEY"), "{error:?}");
    settings.cert_file = "/nowhere/client.crt".into();
    let error = error_of(connect(&settings).get().await);
    assert!(!error.is_retryable(), "{error:?}");
    assert!(format!("{error:?}").contains("/nowhere"), "{error:?}");
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once_and_no_error_later() {
    let port = free_port();
    let redis = connect(&settings(format!("redis://127.0.0.1:{port}")));
    let began = Instant::now();
    let error = error_of(redis.get().await);
    assert!(error.is_retryable(), "{error:?}");
    assert!(redis.dedicated(Duration::ZERO).await.is_err());
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );

    let _server = RedisOptions::default().port(port).start().await;
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn settings_that_lead_nowhere_are_no_reason_to_retry() {
    let error = error_of(connect(&settings("http://nowhere")).get().await);
    assert!(!error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let mut server = RedisServer::start().await;
    let redis = connect(&settings(server.url()));
    let mut held = redis.get().await.unwrap();
    server.kill9();
    let error = ping(&mut held).await.unwrap_err();
    assert!(is_retryable(&error), "{error:?}");
    assert!(held.is_over());
    assert!(redis.get().await.is_err());
    server.restart().await;
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn a_master_made_replica_is_refused_until_it_is_master_again() {
    let (server, other) = (RedisServer::start().await, RedisServer::start().await);
    let redis = connect(&settings(server.url()));
    let (mut writer, mut blocked) = (
        redis.get().await.unwrap(),
        redis.dedicated(Duration::from_secs(20)).await.unwrap(),
    );
    let port = other.port().to_string();
    let blocking = tokio::spawn(async move {
        let popped: RedisResult<Option<String>> =
            send(&mut blocked, &["BLMOVE", "a", "b", "LEFT", "RIGHT", "20"]).await;
        popped
    });
    eventually(LIMIT, "a client is blocked", async || {
        let info = server.must(&["INFO", "clients"]).await;
        let info: String = redis::from_redis_value(info).map_err(|error| error.to_string())?;
        if info.contains("blocked_clients:1") {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    server.must(&["REPLICAOF", "127.0.0.1", &port]).await;

    // The blocked one is told by the server; the idle one at its first write, or by the first.
    let unblocked = blocking.await.unwrap().unwrap_err();
    assert!(is_retryable(&unblocked), "{unblocked:?}");
    let written: RedisResult<String> = send(&mut writer, &["SET", "k", "v"]).await;
    assert!(is_retryable(&written.unwrap_err()));
    let error = error_of(redis.get().await);
    assert!(
        matches!(error, ConnectionError::NotMaster { .. }),
        "{error:?}"
    );

    server.must(&["REPLICAOF", "NO", "ONE"]).await;
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn readonly_inside_a_pipeline_is_noticed_too() {
    let (server, other) = (RedisServer::start().await, RedisServer::start().await);
    let redis = connect(&settings(server.url()));
    let mut writer = redis.get().await.unwrap();
    let port = other.port().to_string();
    server.must(&["REPLICAOF", "127.0.0.1", &port]).await;
    let mut pipeline = redis::Pipeline::new();
    pipeline.cmd("PING").cmd("SET").arg("k").arg("v");
    let written: RedisResult<(String, String)> = pipeline.query_async(&mut writer).await;
    assert!(is_retryable(&written.unwrap_err()));
    assert!(writer.is_over());
}

#[tokio::test]
async fn a_loading_server_is_refused_until_it_has_loaded() {
    let mut server = RedisOptions::default().line("save 3600 1").start().await;
    server
        .must(&["DEBUG", "POPULATE", "2000", "key", "100"])
        .await;
    server.must(&["SAVE"]).await;
    // 2000 keys at 10 ms each are 20 s, unless told otherwise.
    server.add_line("key-load-delay 10000");
    server.add_line("loading-process-events-interval-bytes 1024");
    let redis = connect(&settings(server.url()));
    server.restart().await;
    let error = error_of(redis.get().await);
    assert!(error.is_retryable(), "{error:?}");
    assert!(
        format!("{error:?}").to_lowercase().contains("loading"),
        "{error:?}"
    );
    server.must(&["CONFIG", "SET", "key-load-delay", "0"]).await;
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn a_silent_server_is_an_error_within_the_time_outs() {
    let server = RedisServer::start().await;
    let settings = settings(server.url());
    let redis = connect(&settings);
    let mut held = redis.get().await.unwrap();
    let mut dedicated = redis.dedicated(Duration::from_millis(100)).await.unwrap();
    server.pause();
    let began = Instant::now();
    let (held, dedicated) = tokio::join!(ping(&mut held), ping(&mut dedicated));
    assert!(held.unwrap_err().is_timeout() && dedicated.unwrap_err().is_timeout());
    let answers = Duration::from_millis(100) + settings.response_timeout;
    assert!(
        began.elapsed() < answers + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    let began = Instant::now();
    assert!(redis.get().await.is_err());
    let connects = settings.connect_timeout + settings.response_timeout;
    assert!(
        began.elapsed() < connects + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    server.resume();
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn an_exhausted_pool_is_an_error_within_the_wait_time() {
    let settings = settings(shared_redis().await.url());
    let redis = connect(&settings);
    let mut held = Vec::new();
    for _ in 0..settings.pool_size {
        held.push(redis.get().await.unwrap());
    }
    let began = Instant::now();
    let error = error_of(redis.get().await);
    assert!(
        matches!(error, ConnectionError::Exhausted { .. }),
        "{error:?}"
    );
    assert!(began.elapsed() < settings.connect_timeout + Duration::from_secs(1));
    held.pop();
    redis.get().await.unwrap();
}

#[tokio::test]
async fn a_blocking_command_may_take_its_time() {
    let redis = connect(&settings(shared_redis().await.url()));
    let mut dedicated = redis.dedicated(Duration::from_secs(2)).await.unwrap();
    let began = Instant::now();
    let words = ["BLMOVE", "blocking:a", "blocking:b", "LEFT", "RIGHT", "1.5"];
    let popped: Option<String> = send(&mut dedicated, &words).await.unwrap();
    assert_eq!(popped, None);
    assert!(began.elapsed() >= Duration::from_millis(1500));
    assert_eq!(ping(&mut dedicated).await.unwrap(), "PONG");
}

#[tokio::test]
async fn an_abandoned_command_takes_its_connection_along() {
    let server = RedisServer::start().await;
    let redis = connect(&settings(server.url()));
    let mut connection = redis.get().await.unwrap();
    let words = ["BLPOP", "queue", "0"];
    let popped = send::<Option<(String, String)>>(&mut connection, &words);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), popped)
            .await
            .is_err()
    );
    assert!(ping(&mut connection).await.is_err());
    drop(connection);
    // Where the connection had stayed open, its BLPOP would take the item away.
    eventually(LIMIT, "the blocked client is gone", async || {
        let info = server.must(&["INFO", "clients"]).await;
        let info: String = redis::from_redis_value(info).map_err(|error| error.to_string())?;
        if info.contains("blocked_clients:0") {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    let mut next = redis.get().await.unwrap();
    let pushed: u64 = send(&mut next, &["RPUSH", "queue", "item"]).await.unwrap();
    let waiting: u64 = send(&mut next, &["LLEN", "queue"]).await.unwrap();
    assert_eq!((pushed, waiting), (1, 1));
}

#[tokio::test]
async fn a_busy_connection_is_not_checked_again_and_again() {
    let server = RedisServer::start().await;
    let redis = connect(&settings(server.url()));
    for _ in 0..50 {
        let mut connection = redis.get().await.unwrap();
        let _: u64 = send(&mut connection, &["INCR", "n"]).await.unwrap();
    }
    let stats = server.must(&["INFO", "commandstats"]).await;
    let stats: String = redis::from_redis_value(stats).unwrap();
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_role:calls="));
    let calls: u32 = calls.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls < 10, "{calls} checks for 50 uses");
}

#[tokio::test]
async fn commits_wait_for_replicas_where_there_are_any() {
    let master = RedisServer::start().await;
    let mut settings = settings(master.url());
    let alone = connect(&settings).get().await.unwrap();
    assert_eq!(alone.replicas_to_confirm(), 0);

    let _replicas = (
        RedisOptions::default()
            .replica_of(master.port())
            .start()
            .await,
        RedisOptions::default()
            .replica_of(master.port())
            .start()
            .await,
    );
    for (durability, expected) in [
        (None, 1),
        (Some(Durability::None), 0),
        (Some(Durability::One), 1),
        (Some(Durability::All), 2),
    ] {
        settings.durability = durability;
        let redis = connect(&settings);
        eventually(LIMIT, "the replicas count", async || {
            // A new way each time: the count is as old as the last check of a connection.
            let replicas = connect(&settings)
                .get()
                .await
                .unwrap()
                .replicas_to_confirm();
            if replicas == expected {
                Ok(())
            } else {
                Err(replicas.to_string())
            }
        })
        .await;
        drop(redis);
    }
}
