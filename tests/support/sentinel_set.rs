//! A master, two replicas and three Sentinels that agree about them.

use std::collections::HashMap;
use std::time::Duration;

use super::eventually;
use super::redis_server::{RedisOptions, RedisServer};

/// The master's name among the Sentinels.
pub const MASTER_NAME: &str = "kubeleet";
/// Longest time until all know one another: they say hello every 2 s.
const FORM_LIMIT: Duration = Duration::from_secs(20);

/// A highly available Redis; all its processes are killed on drop.
pub struct SentinelSet {
    /// The three servers, the first master at first.
    pub servers: Vec<RedisServer>,
    /// The three Sentinels.
    pub sentinels: Vec<RedisServer>,
}

impl SentinelSet {
    /// Starts it with a down-after of one second.
    pub async fn start() -> SentinelSet {
        SentinelSet::start_with(Duration::from_secs(1)).await
    }

    /// Starts it: a master that is silent for `down_after` is replaced.
    pub async fn start_with(down_after: Duration) -> SentinelSet {
        SentinelSet::start_from(RedisOptions::default(), down_after).await
    }

    /// The same, every server and Sentinel as `options` say.
    pub async fn start_from(options: RedisOptions, down_after: Duration) -> SentinelSet {
        let guarded = || {
            options
                .clone()
                .appendonly()
                .line("min-replicas-to-write 1")
                .line("min-replicas-max-lag 3")
        };
        let master = guarded().start().await;
        let port = master.port();
        let mut servers = vec![master];
        for _ in 0..2 {
            servers.push(guarded().replica_of(port).start().await);
        }
        // Sentinels learn of replicas at their start, or ten seconds later.
        eventually(FORM_LIMIT, "both replicas are connected", async || {
            let info: String = text(&servers[0], &["INFO", "replication"]).await;
            let online = info.matches("state=online").count();
            if online == 2 { Ok(()) } else { Err(info) }
        })
        .await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let sentinel = options
                .clone()
                .sentinel()
                .line(format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {port} 2"))
                .line(format!(
                    "sentinel down-after-milliseconds {MASTER_NAME} {}",
                    down_after.as_millis()
                ))
                .line(format!("sentinel failover-timeout {MASTER_NAME} 10000"))
                .line(format!("sentinel parallel-syncs {MASTER_NAME} 1"));
            sentinels.push(sentinel.start().await);
        }
        let set = SentinelSet { servers, sentinels };
        set.wait_until_formed().await;
        set
    }

    async fn wait_until_formed(&self) {
        for sentinel in &self.sentinels {
            eventually(FORM_LIMIT, "the Sentinels know one another", async || {
                let known = sentinel.command(&["SENTINEL", "MASTER", MASTER_NAME]).await;
                let known = known.map_err(|error| error.to_string())?;
                let known: HashMap<String, String> =
                    redis::from_redis_value(known).map_err(|error| error.to_string())?;
                let number = |key: &str| known.get(key).cloned().unwrap_or_default();
                let seen = (
                    number("num-slaves"),
                    number("num-other-sentinels"),
                    number("flags"),
                );
                match (seen.0.as_str(), seen.1.as_str(), seen.2.as_str()) {
                    ("2", "2", "master") => Ok(()),
                    _ => Err(format!("replicas, other Sentinels, flags: {seen:?}")),
                }
            })
            .await;
        }
    }

    /// `host:port` of each Sentinel.
    pub fn addresses(&self) -> Vec<String> {
        let ports = self.sentinels.iter().map(RedisServer::port);
        ports.map(|port| format!("127.0.0.1:{port}")).collect()
    }

    /// `host:port` of the master, as the first Sentinel says.
    pub async fn master_addr(&self) -> String {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
        let answer = self.sentinels[0].must(&words).await;
        let (host, port): (String, u16) = redis::from_redis_value(answer).expect("host and port");
        format!("{host}:{port}")
    }

    /// The server that is the master, as the first Sentinel says.
    pub async fn master(&mut self) -> &mut RedisServer {
        let address = self.master_addr().await;
        let is_master =
            |server: &&mut RedisServer| address.ends_with(&format!(":{}", server.port()));
        let mut servers = self.servers.iter_mut();
        servers.find(is_master).expect("the master is one of ours")
    }

    /// kill -9 of the master.
    pub async fn kill_master(&mut self) {
        self.master().await.kill9();
    }
}

async fn text(server: &RedisServer, words: &[&str]) -> String {
    redis::from_redis_value(server.must(words).await).expect("text")
}
