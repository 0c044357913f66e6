//! What the kernel says of this machine: pressure, cpu use, memory; read from a `proc` folder.
//!
//! The heartbeat calls it. It must never fail, panic or wait: a file that is missing, cut short or
//! garbage counts as "not known" and is logged once, because a node with an odd kernel still
//! has to beat. Only this module names `psi` and `procfs`.

pub(super) mod container;
pub(super) mod limit;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use procfs::{ExplicitSystemInfo, FromBufReadSI, KernelStats};
use psi::{Psi, PsiLine};
use tracing::debug;

use crate::model::Pressure;

/// One look at the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// PSI, by kind; not known on a kernel without it.
    pub pressure: Pressure,
    /// Share of all cpu time in use since the last sample, 0 to 1.
    pub cpu_used: f64,
    /// Bytes of memory that are not available to new work.
    pub memory_used_bytes: u64,
    /// Bytes of memory of the machine; 0 where that could not be read.
    pub memory_total_bytes: u64,
    /// Cpus of the machine, at least 1.
    pub cpus: u32,
}

/// Fewest ticks, a hundredth of a second of one cpu each, that say something of cpu use: a quarter
/// of a second on two cpus. A first heartbeat right after the start has fewer.
const TICKS_MIN: u64 = 50;

/// Takes samples; keeps what is needed to tell use from counters that only grow.
#[derive(Debug)]
pub struct Sampler {
    proc_dir: PathBuf,
    last: Option<CpuTicks>,
    cpu_used: f64,
    /// Files whose trouble has been logged already.
    logged: BTreeSet<&'static str>,
}

/// Cpu time since boot, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CpuTicks {
    total: u64,
    idle: u64,
}

impl Sampler {
    /// Reads below `proc_dir`, which is `/proc` unless the host's is mounted elsewhere. Cpu use
    /// counts from now.
    pub fn new(proc_dir: &Path) -> Sampler {
        let mut sampler = Sampler {
            proc_dir: proc_dir.to_owned(),
            last: None,
            cpu_used: 0.0,
            logged: BTreeSet::new(),
        };
        sampler.last = sampler.stat().map(|(ticks, _)| ticks);
        sampler
    }

    /// The machine as it is now. A few small reads from the kernel's memory, so it may be called
    /// from async code.
    pub fn sample(&mut self) -> Sample {
        let pressure = self.pressure();
        let stat = self.stat();
        if let Some((now, _)) = stat {
            // Too few ticks since the last reading say nothing: its figure is still the best one.
            match self.last.map(|last| share_used(last, now)) {
                Some(Share::Known(share)) => (self.cpu_used, self.last) = (share, Some(now)),
                Some(Share::TooSoon) => {}
                Some(Share::Reset) | None => self.last = Some(now),
            }
        }
        let (memory_total_bytes, memory_used_bytes) = self.memory();
        Sample {
            pressure,
            cpu_used: self.cpu_used,
            memory_used_bytes,
            memory_total_bytes,
            cpus: stat.map(|(_, cpus)| cpus).unwrap_or_else(own_cpus),
        }
    }

    fn pressure(&mut self) -> Pressure {
        let cpu = self.some_line("pressure/cpu");
        let memory = self.some_line("pressure/memory");
        let io = self.some_line("pressure/io");
        // One kind alone would make a node look calm where it is only silent.
        let (Some(cpu), Some(memory), Some(io)) = (cpu, memory, io) else {
            return Pressure::default();
        };
        pressure_of(&cpu, &memory, &io)
    }

    fn some_line(&mut self, file: &'static str) -> Option<Psi> {
        let text = self.read(file)?;
        match read_some(&text) {
            Ok(psi) => Some(psi),
            Err(why) => self.unreadable(file, &why),
        }
    }

    /// Cpu time so far, and how many cpus there are.
    fn stat(&mut self) -> Option<(CpuTicks, u32)> {
        const FILE: &str = "stat";
        // Only ratios of ticks are used, so their length does not matter.
        let system = ExplicitSystemInfo {
            boot_time_secs: 0,
            ticks_per_second: 100,
            page_size: 4096,
            is_little_endian: cfg!(target_endian = "little"),
        };
        let text = self.read(FILE)?;
        match KernelStats::from_buf_read(text.as_bytes(), &system) {
            Ok(stats) => {
                let cpu = &stats.total;
                let idle = cpu.idle.saturating_add(cpu.iowait.unwrap_or(0));
                // `guest` is part of `user` already. Stolen time was not there for us to use.
                let busy = [
                    cpu.user,
                    cpu.nice,
                    cpu.system,
                    cpu.irq.unwrap_or(0),
                    cpu.softirq.unwrap_or(0),
                    cpu.steal.unwrap_or(0),
                ];
                let total = busy.into_iter().fold(idle, u64::saturating_add);
                let cpus = u32::try_from(stats.cpu_time.len()).unwrap_or(u32::MAX);
                Some((CpuTicks { total, idle }, cpus.max(1)))
            }
            Err(error) => self.unreadable(FILE, &error),
        }
    }

    /// Total and used bytes of memory; zeros where they are not known.
    fn memory(&mut self) -> (u64, u64) {
        const FILE: &str = "meminfo";
        let Some(text) = self.read(FILE) else {
            return (0, 0);
        };
        // `procfs` refuses a file without any one of seventeen fields, some of which sandboxed
        // kernels do not have, and panics on some garbage; three lines are all that is needed.
        let total = meminfo_bytes(&text, "MemTotal:");
        let available =
            meminfo_bytes(&text, "MemAvailable:").or_else(|| meminfo_bytes(&text, "MemFree:"));
        match (total, available) {
            (Some(total), Some(available)) => (total, total.saturating_sub(available)),
            _ => self
                .unreadable(FILE, &"no MemTotal or MemAvailable")
                .unwrap_or_default(),
        }
    }

    fn read(&mut self, file: &'static str) -> Option<String> {
        match std::fs::read(self.proc_dir.join(file)) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => self.unreadable(file, &error),
        }
    }

    /// Logs trouble with a file, once.
    fn unreadable<T>(&mut self, file: &'static str, why: &dyn std::fmt::Display) -> Option<T> {
        if self.logged.insert(file) {
            let path = self.proc_dir.join(file);
            debug!(path = %path.display(), "not readable, its figures are left out: {why}");
        }
        None
    }
}

/// The `some` line of a pressure file. Kernels before 5.13 have no `full` line for cpu, and `psi`
/// panics on an empty line, so lines are picked before they are parsed.
fn read_some(text: &str) -> Result<Psi, String> {
    let parsed = text
        .lines()
        .find(|line| line.starts_with("some "))
        .map(str::parse::<Psi>);
    match parsed {
        Some(Ok(psi)) if psi.line == PsiLine::Some => Ok(psi),
        Some(Err(error)) => Err(error.to_string()),
        _ => Err("no `some` line".to_owned()),
    }
}

fn pressure_of(cpu: &Psi, memory: &Psi, io: &Psi) -> Pressure {
    Pressure {
        known: true,
        cpu_avg10: percent(cpu.avg10),
        cpu_avg60: percent(cpu.avg60),
        memory_avg10: percent(memory.avg10),
        memory_avg60: percent(memory.avg60),
        io_avg10: percent(io.avg10),
        io_avg60: percent(io.avg60),
    }
}

/// An amount of `meminfo`, which the kernel gives in KiB.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let amount = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = amount.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// What two readings of the cpu's ticks say.
enum Share {
    /// So much of the time was not idle.
    Known(f64),
    /// Less than [`TICKS_MIN`] passed.
    TooSoon,
    /// The counters went back: another machine's, or another boot's.
    Reset,
}

/// The share of time between two readings that was not idle.
fn share_used(last: CpuTicks, now: CpuTicks) -> Share {
    let Some(total) = now.total.checked_sub(last.total) else {
        return Share::Reset;
    };
    if total < TICKS_MIN {
        return Share::TooSoon;
    }
    // The kernel's count of waiting for io may go back by a little.
    let idle = now.idle.saturating_sub(last.idle).min(total);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a difference of ticks, far below 2^52"
    )]
    Share::Known((total - idle) as f64 / total as f64)
}

/// An average as the kernel prints it, with two decimals; garbage such as NaN is 0.
fn percent(average: f32) -> f64 {
    let rounded = (f64::from(average) * 100.0).round() / 100.0;
    if rounded.is_finite() {
        rounded.clamp(0.0, 100.0)
    } else {
        0.0
    }
}

fn own_cpus() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cpus).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
