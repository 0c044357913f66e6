//! The steps: pause, catch up, promote, demote, settle.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError};
use tokio::time::{Instant, sleep};

use super::line::{Line, field, text};
use super::{Switched, SwitchoverError};
use crate::store::call::command;
use crate::store::queue::millis;
use crate::telemetry::chain;

/// Longest time that writes are held; the server ends the pause then by itself.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for the replica to have all writes. It is milliseconds behind, or no successor.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Longest wait for Sentinel to promote it, which takes a second, before its end is looked for.
const PROMOTION: Duration = Duration::from_secs(7);
/// Longest wait for a fail-over that is under way and does not end. The pause is renewed meanwhile.
const PROMOTION_MAX: Duration = Duration::from_secs(30);
/// Longest wait until the Sentinels agree, the others follow the new master, and it takes writes.
const SETTLE: Duration = Duration::from_secs(15);
/// Longest wait until Sentinel has heard of a priority: it asks its servers every 10 s.
const PRIORITY: Duration = Duration::from_secs(15);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two looks for what takes seconds.
const SLOW_LOOK: Duration = Duration::from_millis(200);
/// Priority of the replica that is to be chosen; lower goes first, and 0 never.
const FIRST: u32 = 1;

/// What a Sentinel says of one server.
type Known = HashMap<String, String>;

/// The connections of one switchover.
pub(super) struct Hands<'a> {
    pub(super) name: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) master: Line<'a>,
    pub(super) successor: Line<'a>,
    pub(super) sentinels: Vec<MultiplexedConnection>,
}

impl Hands<'_> {
    pub(super) async fn switch(&mut self, sentinels: usize) -> Result<Switched, SwitchoverError> {
        let began = Instant::now();
        self.pause().await?;
        let promoted = match self.catch_up().await {
            Ok(took) => self.promote().await.map(|()| took),
            Err(error) => Err(error),
        };
        let caught_up = match promoted {
            Ok(took) => took,
            Err(error) => {
                // If this fails too, the pause ends by itself.
                let unpaused = self.master.tell("CLIENT", &["UNPAUSE"]).await;
                return Err(match unpaused {
                    Ok(()) => error,
                    Err(_) => SwitchoverError::StillPaused {
                        cause: Box::new(error),
                        left: PAUSE,
                    },
                });
            }
        };
        self.demote().await;
        let gap = self.settle(began, sentinels).await?;
        let old_follows = self.old_follows().await;
        Ok(Switched {
            from: self.from.to_owned(),
            to: self.to.to_owned(),
            caught_up_ms: millis(caught_up),
            gap_ms: millis(gap),
            old_follows,
        })
    }

    async fn pause(&mut self) -> Result<(), SwitchoverError> {
        let longest = PAUSE.as_millis().to_string();
        let paused = self
            .master
            .tell("CLIENT", &["PAUSE", &longest, "WRITE"])
            .await;
        paused.map_err(|error| SwitchoverError::step("pausing writes", self.from, error))
    }

    /// Waits until the successor has all that the master has, which grows no more.
    async fn catch_up(&mut self) -> Result<Duration, SwitchoverError> {
        let began = Instant::now();
        loop {
            let offset = |info: &str, name: &str| field(info, name).unwrap_or(0);
            let asked = self.master.replication().await;
            let asked = asked.map_err(|error| SwitchoverError::step("asking", self.from, error))?;
            let all = offset(&asked, "master_repl_offset");
            let asked = self.successor.replication().await;
            let asked = asked.map_err(|error| SwitchoverError::step("asking", self.to, error))?;
            let has = offset(&asked, "slave_repl_offset");
            if has >= all {
                return Ok(began.elapsed());
            }
            if began.elapsed() > CATCH_UP {
                return Err(SwitchoverError::Behind {
                    to: self.to.to_owned(),
                    bytes: all - has,
                    waited: CATCH_UP,
                });
            }
            sleep(LOOK).await;
        }
    }

    /// Has one Sentinel promote the successor, and waits until that is a master.
    async fn promote(&mut self) -> Result<(), SwitchoverError> {
        let mut refused = None;
        for sentinel in &mut self.sentinels {
            let mut failover = command("SENTINEL");
            failover.arg("FAILOVER").arg(self.name);
            match failover.query_async::<()>(sentinel).await {
                Ok(()) => {
                    refused = None;
                    break;
                }
                // The next one may know more replicas than this.
                Err(error) => refused = Some(chain(&error)),
            }
        }
        if let Some(reason) = refused {
            return Err(SwitchoverError::Refused { reason });
        }
        let began = Instant::now();
        loop {
            let role = self.successor.replication().await;
            if role.is_ok_and(|info| text(&info, "role") == Some("master")) {
                return Ok(());
            }
            // Whoever writes to a master that is being replaced loses it: it waits for Sentinel's end.
            let waited = began.elapsed();
            if waited > PROMOTION {
                // It may be the master and out of our reach: then the old one must not go on.
                if self.agreeing().await * 2 > self.sentinels.len() {
                    return Ok(());
                }
                if waited > PROMOTION_MAX || !self.is_under_way().await {
                    return Err(SwitchoverError::NotPromoted {
                        to: self.to.to_owned(),
                        waited,
                    });
                }
                self.pause().await?;
            }
            sleep(LOOK).await;
        }
    }

    /// True while a Sentinel replaces the master.
    async fn is_under_way(&mut self) -> bool {
        for sentinel in &mut self.sentinels {
            let mut ask = command("SENTINEL");
            ask.arg("MASTER").arg(self.name);
            let known: Result<Known, _> = ask.query_async(sentinel).await;
            let flags = known.ok().and_then(|mut known| known.remove("flags"));
            if flags.is_some_and(|flags| flags.contains("failover_in_progress")) {
                return true;
            }
        }
        false
    }

    /// The old master follows the new one, and lets all clients go: they find the new one by Sentinel.
    async fn demote(&mut self) {
        let (host, port) = self.to.rsplit_once(':').unwrap_or((self.to, "6379"));
        let mut all = Pipeline::new();
        all.atomic();
        all.cmd("REPLICAOF").arg(host).arg(port).ignore();
        all.cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .ignore();
        // Sentinel does both too, ten seconds later; until then its writes are paused.
        if let Err(error) = self.master.ask::<()>(&all).await {
            tracing::warn!(
                redis.address = self.from,
                error = chain(&error),
                "the old master is left to Sentinel"
            );
            return;
        }
        // A server that was given no file of its own cannot write one.
        self.master.tell("CONFIG", &["REWRITE"]).await.ok();
        self.master.tell("CLIENT", &["UNPAUSE"]).await.ok();
    }

    /// Waits until a majority names the new master and it takes writes; the time since `began`.
    async fn settle(
        &mut self,
        began: Instant,
        sentinels: usize,
    ) -> Result<Duration, SwitchoverError> {
        let mut agree = 0;
        while began.elapsed() < PAUSE + SETTLE {
            if agree * 2 <= sentinels {
                agree = self.agreeing().await;
            }
            let info = self.successor.replication().await;
            let takes_writes = info.is_ok_and(|info| {
                // Present only where some are wanted.
                let good: Option<u64> = field(&info, "min_slaves_good_slaves");
                good.is_none_or(|good| good > 0)
            });
            if takes_writes && agree * 2 > sentinels {
                return Ok(began.elapsed());
            }
            sleep(LOOK).await;
        }
        Err(SwitchoverError::Unsettled {
            to: self.to.to_owned(),
            agree,
            of: sentinels,
        })
    }

    async fn agreeing(&mut self) -> usize {
        let mut agree = 0;
        for sentinel in &mut self.sentinels {
            let mut ask = command("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(self.name);
            let answer: Result<(String, String), _> = ask.query_async(sentinel).await;
            agree +=
                usize::from(answer.is_ok_and(|(host, port)| format!("{host}:{port}") == self.to));
        }
        agree
    }

    async fn old_follows(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < SETTLE {
            let info = self.master.replication().await;
            if info.is_ok_and(|info| text(&info, "master_link_status") == Some("up")) {
                return true;
            }
            sleep(SLOW_LOOK).await;
        }
        false
    }

    /// Puts the successor before all others, and waits until every Sentinel knows; its priority before.
    pub(super) async fn prefer(&mut self) -> Result<u32, SwitchoverError> {
        let failed = |error| SwitchoverError::step("preferring", self.to, error);
        let mut get = Pipeline::new();
        get.cmd("CONFIG").arg("GET").arg("replica-priority");
        let before: Result<((String, u32),), _> = self.successor.ask(&get).await;
        let ((_, before),) = before.map_err(failed)?;
        let set = self.set_priority(FIRST).await;
        set.map_err(|error| SwitchoverError::step("preferring", self.to, error))?;
        let began = Instant::now();
        while began.elapsed() < PRIORITY {
            if self.all_know_priority().await {
                return Ok(before);
            }
            sleep(SLOW_LOOK).await;
        }
        self.set_priority(before).await.ok();
        Err(SwitchoverError::NotPreferred {
            to: self.to.to_owned(),
            waited: PRIORITY,
        })
    }

    pub(super) async fn set_priority(&mut self, priority: u32) -> Result<(), RedisError> {
        let priority = priority.to_string();
        let set = ["SET", "replica-priority", &priority];
        self.successor.tell("CONFIG", &set).await
    }

    async fn all_know_priority(&mut self) -> bool {
        for sentinel in &mut self.sentinels {
            let mut ask = command("SENTINEL");
            ask.arg("REPLICAS").arg(self.name);
            let known: Vec<Known> = ask.query_async(sentinel).await.unwrap_or_default();
            let is_first = |one: &Known| {
                let part = |name: &str| one.get(name).map_or("", String::as_str);
                let is_ours = format!("{}:{}", part("ip"), part("port")) == self.to;
                let priority = part("slave-priority").parse::<u32>();
                // No other may be as good; one of 0 is never chosen.
                priority.is_ok_and(|priority| (priority == FIRST) == is_ours)
            };
            if known.is_empty() || !known.iter().all(is_first) {
                return false;
            }
        }
        true
    }
}
