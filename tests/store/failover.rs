//! Connections by Sentinel: a master that dies, one that is replaced on purpose, and Sentinels away.

use std::time::{Duration, Instant};

use kubeleet::settings::{RedisSettings, Secret};
use kubeleet::store::connection::{ConnectionError, Redis};
use kubeleet::store::survey::Facts;
use kubeleet::store::switchover::{SwitchoverError, switch_over};
use redis::RedisResult;

use crate::connection::{LIMIT, connect, ping, recovers, send, settings};
use crate::support::{Certificates, RedisOptions, SentinelSet, eventually, free_port};

/// As short as Sentinel does well on a busy machine.
const DOWN_AFTER: Duration = Duration::from_secs(1);

fn by_sentinel(sentinels: &[String]) -> RedisSettings {
    RedisSettings {
        sentinels: sentinels
            .iter()
            .map(|address| Secret::from(address.as_str()))
            .collect(),
        ..settings("redis://127.0.0.1:1")
    }
}

/// The port of the server that `redis` is connected to.
async fn port(redis: &Redis) -> Result<String, String> {
    let mut connection = redis.get().await.map_err(|error| format!("{error:?}"))?;
    let info: RedisResult<(String, String)> =
        send(&mut connection, &["CONFIG", "GET", "port"]).await;
    Ok(info.map_err(|error| error.to_string())?.1)
}

#[tokio::test]
async fn a_killed_master_is_followed() {
    let mut set = SentinelSet::start_with(DOWN_AFTER).await;
    let redis = connect(&by_sentinel(&set.addresses()));
    let held = recovers(&redis, LIMIT).await;
    assert_eq!(held.replicas_to_confirm(), 1);
    let before = port(&redis).await.unwrap();

    let began = Instant::now();
    set.kill_master().await;
    let error = redis.get().await.err();
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{error:?} after {:?}",
        began.elapsed()
    );
    recovers(&redis, DOWN_AFTER + Duration::from_secs(4)).await;
    assert_ne!(port(&redis).await.unwrap(), before);
    assert!(held.is_over(), "the old master's connection goes on");
}

#[tokio::test]
async fn a_planned_switch_is_followed_and_the_old_master_left() {
    let set = SentinelSet::start_with(DOWN_AFTER).await;
    let redis = connect(&by_sentinel(&set.addresses()));
    let mut held = recovers(&redis, LIMIT).await;
    let mut blocked = redis.dedicated(Duration::from_secs(60)).await.unwrap();
    let before = port(&redis).await.unwrap();
    let blocking = tokio::spawn(async move {
        let words = ["BLMOVE", "a", "b", "LEFT", "RIGHT", "60"];
        send::<Option<String>>(&mut blocked, &words).await
    });

    set.sentinels[0]
        .must(&["SENTINEL", "FAILOVER", "kubeleet"])
        .await;
    // Redis tells the other Sentinels by a message every 2 s, and a replica is asked every second.
    eventually(
        Duration::from_secs(6),
        "the new master is used",
        async || {
            let now = port(&redis).await?;
            if now == before { Err(now) } else { Ok(()) }
        },
    )
    .await;
    assert!(
        ping(&mut held).await.is_err(),
        "the old master's connection goes on"
    );
    let unblocked = tokio::time::timeout(Duration::from_secs(1), blocking).await;
    assert!(unblocked.expect("the blocked call ends").unwrap().is_err());
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn a_minority_of_sentinels_is_no_word() {
    let mut set = SentinelSet::start_with(DOWN_AFTER).await;
    let redis = connect(&by_sentinel(&set.addresses()));
    let held = recovers(&redis, LIMIT).await;
    set.sentinels[0].kill9();
    set.sentinels[1].kill9();
    eventually(LIMIT, "there is no master any more", async || {
        match redis.get().await {
            Err(ConnectionError::NoMaster { reason }) if reason.contains("no majority") => Ok(()),
            Err(error) => Err(format!("{error:?}")),
            Ok(_) => Err("there is a connection".to_owned()),
        }
    })
    .await;
    assert!(held.is_over());
    set.sentinels[0].restart().await;
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn silent_sentinels_say_nothing_and_the_master_is_left_within_seconds() {
    let set = SentinelSet::start_with(Duration::from_secs(60)).await;
    let redis = connect(&by_sentinel(&set.addresses()));
    let mut held = recovers(&redis, LIMIT).await;
    // One that hangs is no reason to stop.
    set.sentinels[0].pause();
    let longer_than_answers_count = Instant::now() + Duration::from_secs(2);
    while Instant::now() < longer_than_answers_count {
        ping(&mut held).await.expect("the master is known still");
    }

    let began = Instant::now();
    set.sentinels[1].pause();
    eventually(LIMIT, "the connection is over", async || {
        if held.is_over() {
            Ok(())
        } else {
            Err("it goes on".to_owned())
        }
    })
    .await;
    // Answers count for 1.25 s; the rest is the machine's.
    assert!(
        began.elapsed() < Duration::from_millis(2500),
        "{:?}",
        began.elapsed()
    );
    assert!(redis.get().await.is_err());
    set.sentinels[0].resume();
    set.sentinels[1].resume();
    recovers(&redis, LIMIT).await;
}

#[tokio::test]
async fn sentinels_that_are_away_are_an_error_at_once() {
    let addresses: Vec<_> = (0..3)
        .map(|_| format!("127.0.0.1:{}", free_port()))
        .collect();
    let redis = connect(&by_sentinel(&addresses));
    let began = Instant::now();
    let error = redis.get().await.err();
    assert!(
        matches!(error, Some(ConnectionError::NoMaster { .. })),
        "{error:?}"
    );
    assert!(format!("{error:?}").contains(&addresses[2]), "{error:?}");
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let server = RedisOptions::default().password("of-server").start().await;
    let sentinel = RedisOptions::default()
        .sentinel()
        .password("of-sentinel")
        .line(format!(
            "sentinel monitor kubeleet 127.0.0.1 {} 1",
            server.port()
        ))
        .line("sentinel auth-pass kubeleet of-server")
        .start()
        .await;
    let address = format!("redis://:of-sentinel@127.0.0.1:{}", sentinel.port());
    let mut settings = by_sentinel(&[address]);
    settings.url = Secret::from("redis://:of-server@unused");
    let mut connection = connect(&settings).get().await.unwrap();
    assert_eq!(ping(&mut connection).await.unwrap(), "PONG");

    settings.sentinels = vec![Secret::from(
        format!("127.0.0.1:{}", sentinel.port()).as_str(),
    )];
    let error = connect(&settings).get().await.err();
    assert!(
        matches!(error, Some(ConnectionError::NoMaster { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_switchover_that_fails_leaves_all_as_it_was_and_writes_go_on() {
    let set = SentinelSet::start_with(Duration::from_secs(60)).await;
    for sentinel in &set.sentinels {
        let faster = ["SENTINEL", "DEBUG", "INFO-PERIOD", "1000"];
        sentinel.must(&faster).await;
        let forbid = ["ACL", "SETUSER", "default", "-sentinel|failover"];
        sentinel.must(&forbid).await;
    }
    let settings = by_sentinel(&set.addresses());
    let before = set.master_addr().await;
    let error = switch_over(&settings, None).await.unwrap_err();
    assert!(matches!(error, SwitchoverError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    // Were it paused still, this would take the rest of ten seconds.
    let began = Instant::now();
    set.servers[0].must(&["SET", "k", "v"]).await;
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(set.master_addr().await, before);
    for server in &set.servers {
        let priority = server.must(&["CONFIG", "GET", "replica-priority"]).await;
        let (_, priority): (String, u32) = redis::from_redis_value(priority).unwrap();
        assert_eq!(priority, 100);
    }

    // Whoever is the only replica, and has lost its master, is no successor.
    let nowhere = free_port().to_string();
    for replica in &set.servers[1..] {
        replica.must(&["REPLICAOF", "127.0.0.1", &nowhere]).await;
    }
    let error = switch_over(&settings, None).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("no replica is in sync"), "{words}");
}

#[tokio::test]
async fn sentinels_and_servers_that_ask_for_certificates_are_followed() {
    let certificates = Certificates::make();
    let options = RedisOptions::default().mutual_tls(&certificates);
    let mut set = SentinelSet::start_from(options, DOWN_AFTER).await;
    let mut settings = by_sentinel(&set.addresses());
    settings.url = Secret::from("rediss://unused");
    settings.ca_file = certificates.authority();
    // Without ours no Sentinel says a word.
    let error = connect(&settings).get().await.err();
    assert!(
        matches!(error, Some(ConnectionError::NoMaster { .. })),
        "{error:?}"
    );
    settings.cert_file = certificates.file("client.crt");
    settings.key_file = certificates.file("client.key");
    let redis = connect(&settings);
    recovers(&redis, LIMIT).await;
    let before = set.servers[0].url();

    let facts = Facts::read(&settings, "", Duration::ZERO).await.unwrap();
    assert!(facts.servers.len() == 3 && facts.servers.iter().all(|one| one.tls));
    assert!(facts.servers.iter().all(|one| one.facts.is_some()));
    assert!(facts.sentinels.iter().all(|one| one.facts.is_some()));

    set.kill_master().await;
    recovers(&redis, DOWN_AFTER + Duration::from_secs(6)).await;
    let facts = Facts::read(&settings, "", Duration::ZERO).await.unwrap();
    let after = facts.master.expect("they agree");
    assert!(!before.ends_with(&after), "{after}");
}
