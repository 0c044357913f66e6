//! What a figure was measured on, and the cpu time that this process has used.

use serde::Serialize;

use super::Bench;

/// Ticks of `/proc/self/stat` in a second: the kernel shows them so on every machine.
const TICKS_PER_S: f64 = 100.0;

/// A measure, and what it was taken on.
#[derive(Debug, Clone, Serialize)]
pub struct Measured<T> {
    /// What was measured.
    #[serde(flatten)]
    pub figures: T,
    /// On what.
    #[serde(flatten)]
    pub machine: Machine,
}

/// What figures depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// When the measure began.
    pub began: String,
    /// Name and version of the server.
    pub redis: String,
    /// Model of the cpu.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Load of the last minute before the measure: above zero, others were at work too.
    pub load: String,
    /// Whether the program was built for speed.
    pub build: &'static str,
}

impl Machine {
    pub(super) async fn of(bench: &mut Bench) -> anyhow::Result<Machine> {
        use humantime_serde::re::humantime::format_rfc3339_seconds;
        let store = bench.fresh_cluster().await?;
        let now = std::time::Duration::from_millis(store.clock_ms().await?);
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let cpus = read("/proc/cpuinfo");
        let model = cpus
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let load = read("/proc/loadavg");
        Ok(Machine {
            began: format_rfc3339_seconds(std::time::UNIX_EPOCH + now).to_string(),
            redis: store.server().await?,
            cpu: model
                .map_or("unknown", |(_, model)| model.trim())
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            build: if cfg!(debug_assertions) {
                "debug: figures mean nothing"
            } else {
                "release"
            },
        })
    }
}

/// Seconds of cpu time that this process has used so far; in steps of ten milliseconds.
pub(super) fn own_cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name stands in brackets and may hold anything; user and system time are 12 and 13 after it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
    let ticks: f64 = fields
        .skip(12)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_S
}

/// Bytes of memory that this process holds now, and has held at most.
pub(super) fn own_memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    (bytes("VmRSS:").unwrap_or(0), bytes("VmHWM:").unwrap_or(0))
}
