//! What Redis has had to do so far, for measures.

use std::time::Duration;

use super::call::command;
use super::{Store, StoreError};
use crate::model::{PodId, ServiceKey};

/// Sums since the server's start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreLoad {
    /// Commands, those within functions too.
    pub commands: u64,
    /// Calls of functions; each is a round trip.
    pub calls: u64,
    /// Bytes it was sent.
    pub bytes_in: u64,
    /// Bytes it has sent.
    pub bytes_out: u64,
    /// Seconds of cpu time.
    pub cpu_s: f64,
    /// Bytes of memory that it holds now.
    pub memory_bytes: u64,
}

/// Bytes of memory of some keys, by Redis's estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryShares {
    /// Records of pods.
    pub pods: u64,
    /// Services' indexes of their pods.
    pub services: u64,
    /// Nodes' sets of their pods.
    pub nodes: u64,
    /// The stream of events.
    pub events: u64,
}

/// A call that held Redis up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowCall {
    /// The command, or the function that it called.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

/// Slow calls that Redis is asked to keep.
const SLOW_CALLS_MAX: usize = 10_000;
/// An entry of the slow log: number, time, microseconds, arguments, client, its name.
type SlowEntry = (u64, u64, u64, Vec<String>, String, String);

impl Store {
    /// What Redis has had to do so far.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn load(&self) -> Result<StoreLoad, StoreError> {
        let info = self
            .info(&["stats", "cpu", "memory", "commandstats"])
            .await?;
        let count = |name: &str| field(&info, name).and_then(|text| text.parse().ok());
        let seconds = |name: &str| field(&info, name).and_then(|text| text.parse::<f64>().ok());
        let calls = |name: &str| {
            let calls = field(&info, name)?.strip_prefix("calls=")?.split(',');
            calls.into_iter().next()?.parse::<u64>().ok()
        };
        Ok(StoreLoad {
            commands: count("total_commands_processed").unwrap_or(0),
            calls: calls("cmdstat_fcall").unwrap_or(0),
            bytes_in: count("total_net_input_bytes").unwrap_or(0),
            bytes_out: count("total_net_output_bytes").unwrap_or(0),
            cpu_s: seconds("used_cpu_sys").unwrap_or(0.0) + seconds("used_cpu_user").unwrap_or(0.0),
            memory_bytes: count("used_memory").unwrap_or(0),
        })
    }

    /// What the server calls itself: its name and version.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn server(&self) -> Result<String, StoreError> {
        let info = self.info(&["server"]).await?;
        Ok(match field(&info, "valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", field(&info, "redis_version").unwrap_or("?")),
        })
    }

    /// Redis's clock, in ms since 1970.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn clock_ms(&self) -> Result<u64, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(command("TIME"));
        let ((seconds, micros),): ((u64, u64),) = self.read("TIME", &pipeline).await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// Has the server keep the calls that take longer than `threshold`, beginning now.
    ///
    /// # Errors
    /// Redis cannot be reached, or this user may not change its settings.
    pub async fn watch_slow_calls(&self, threshold: Duration) -> Result<(), StoreError> {
        let mut set = command("CONFIG");
        set.arg("SET").arg("slowlog-log-slower-than");
        set.arg(u64::try_from(threshold.as_micros()).unwrap_or(u64::MAX));
        set.arg("slowlog-max-len").arg(SLOW_CALLS_MAX);
        let mut reset = command("SLOWLOG");
        reset.arg("RESET");
        let mut pipeline = redis::pipe();
        pipeline.add_command(set).add_command(reset);
        let (_, _): (String, String) = self.read("CONFIG", &pipeline).await?;
        Ok(())
    }

    /// The slow calls since then, slowest first.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn slow_calls(&self) -> Result<Vec<SlowCall>, StoreError> {
        let mut get = command("SLOWLOG");
        get.arg("GET").arg(SLOW_CALLS_MAX);
        let mut pipeline = redis::pipe();
        pipeline.add_command(get);
        let (entries,): (Vec<SlowEntry>,) = self.read("SLOWLOG", &pipeline).await?;
        let call = |(_, _, micros, arguments, ..): SlowEntry| {
            let mut words = arguments.into_iter();
            let command = words.next().unwrap_or_default();
            let name = words.next().filter(|_| command == "FCALL");
            SlowCall {
                name: name.unwrap_or(command),
                took: Duration::from_micros(micros),
            }
        };
        let mut calls: Vec<SlowCall> = entries.into_iter().map(call).collect();
        calls.sort_by_key(|call| std::cmp::Reverse(call.took));
        Ok(calls)
    }

    /// How much memory these take, and the stream of events.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn memory_shares(
        &self,
        pods: &[PodId],
        services: &[ServiceKey],
        nodes: &[String],
    ) -> Result<MemoryShares, StoreError> {
        let keys = &self.keys;
        let services = services.iter().map(|service| keys.service_pods(service));
        let nodes = nodes.iter().map(|node| keys.assigned(node));
        Ok(MemoryShares {
            pods: self.memory_of(pods.iter().map(|pod| keys.pod(pod))).await?,
            services: self.memory_of(services).await?,
            nodes: self.memory_of(nodes).await?,
            events: self.memory_of([keys.events()]).await?,
        })
    }

    async fn memory_of(&self, keys: impl IntoIterator<Item = String>) -> Result<u64, StoreError> {
        let mut pipeline = redis::pipe();
        for key in keys {
            let mut usage = command("MEMORY");
            // Of nested values each one is counted.
            usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
            pipeline.add_command(usage);
        }
        if pipeline.is_empty() {
            return Ok(0);
        }
        let bytes: Vec<Option<u64>> = self.read("MEMORY", &pipeline).await?;
        Ok(bytes.into_iter().flatten().sum())
    }

    async fn info(&self, sections: &[&str]) -> Result<String, StoreError> {
        let mut info = command("INFO");
        info.arg(sections);
        let mut pipeline = redis::pipe();
        pipeline.add_command(info);
        let (info,) = self.read("INFO", &pipeline).await?;
        Ok(info)
    }
}

/// The value of a field of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
