//! Hosts of a cluster: network namespaces on a bridge, which has one of its own.
//!
//! Nothing of the machine's own network is touched: the bridge hangs in the air. A *slot* numbers
//! clusters that run side by side; whoever holds its lock may clean up what an earlier run left.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where locks and mounts of the slots lie.
const ROOT: &str = "/run/kubeleet-faults";
/// Clusters that can run side by side on a machine.
const SLOTS: u8 = 40;
/// Size of the disk of one Redis.
const DISK_SIZE: &str = "48m";

/// How traffic is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Packets vanish.
    Drop,
    /// TCP is told at once.
    Reset,
}

/// Which way it is stopped, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// What it sends.
    Out,
    /// What it is sent.
    In,
    /// Both.
    Both,
}

/// The hosts, by name.
pub(crate) struct Hosts {
    slot: u8,
    names: Vec<(String, u8)>,
    _lock: File,
}

impl Hosts {
    /// Takes a free slot, cleans it, and builds hosts with these names and last bytes of addresses.
    pub(crate) fn build(names: &[(&str, u8)]) -> Result<Hosts> {
        std::fs::create_dir_all(ROOT).with_context(|| format!("cannot make {ROOT}"))?;
        let (slot, lock) = take_slot()?;
        let hosts = Hosts {
            slot,
            names: names.iter().map(|(n, b)| ((*n).to_owned(), *b)).collect(),
            _lock: lock,
        };
        hosts.clean();
        let bridge = hosts.namespace("net");
        ip(&format!("netns add {bridge}"))?;
        ip(&format!("-n {bridge} link set lo up"))?;
        ip(&format!("-n {bridge} link add br0 type bridge"))?;
        ip(&format!("-n {bridge} link set br0 up"))?;
        for (name, _) in &hosts.names {
            let host = hosts.namespace(name);
            let address = hosts.address(name);
            ip(&format!("netns add {host}"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!(
                "-n {bridge} link add v{name} type veth peer name eth0 netns {host}"
            ))?;
            ip(&format!("-n {bridge} link set v{name} master br0 up"))?;
            ip(&format!("-n {host} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {host} link set eth0 up"))?;
        }
        Ok(hosts)
    }

    /// A folder with a small disk of its own.
    pub(crate) fn disk(&self, name: &str) -> Result<PathBuf> {
        let path = self.root().join(name);
        std::fs::create_dir_all(&path)?;
        let size = format!("size={DISK_SIZE}");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path))?;
        Ok(path)
    }

    fn root(&self) -> PathBuf {
        Path::new(ROOT).join(self.slot.to_string())
    }

    /// Name of a host's namespace.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("kf{}-{host}", self.slot)
    }

    /// Address of a host.
    pub(crate) fn address(&self, host: &str) -> Ipv4Addr {
        let known = self.names.iter().find(|(name, _)| name == host);
        Ipv4Addr::new(10, 200, self.slot, known.map_or(0, |(_, last)| *last))
    }

    /// Moves this thread, and all that it starts from now on, into a host.
    pub(crate) fn enter(&self, host: &str) -> Result<()> {
        let path = format!("/run/netns/{}", self.namespace(host));
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        use std::os::fd::AsFd;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {path}; run it as root"))
    }

    /// Stops traffic between a host and others; with nobody named, with all.
    pub(crate) fn cut(&self, host: &str, others: &[&str], way: Way, cut: Cut) -> Result<()> {
        let peers: Vec<String> = if others.is_empty() {
            vec![format!("10.200.{}.0/24", self.slot)]
        } else {
            others
                .iter()
                .map(|other| self.address(other).to_string())
                .collect()
        };
        for peer in peers {
            for (chain, side, stopped) in [
                ("INPUT ! -i lo", "-s", matches!(way, Way::In | Way::Both)),
                ("OUTPUT ! -o lo", "-d", matches!(way, Way::Out | Way::Both)),
            ] {
                if !stopped {
                    continue;
                }
                if cut == Cut::Reset {
                    let how = "-p tcp -j REJECT --reject-with tcp-reset";
                    self.rule(host, &format!("-A {chain} {side} {peer} {how}"))?;
                }
                self.rule(host, &format!("-A {chain} {side} {peer} -j DROP"))?;
            }
        }
        Ok(())
    }

    /// A part of the packets that a host is sent and sends vanish.
    pub(crate) fn lose(&self, host: &str, share: f64) -> Result<()> {
        for chain in ["INPUT", "OUTPUT"] {
            let rule =
                format!("-A {chain} -m statistic --mode random --probability {share:.3} -j DROP");
            self.rule(host, &rule)?;
        }
        Ok(())
    }

    /// A host sends only so many kilobits a second.
    pub(crate) fn slow(&self, host: &str, kilobits: u32) -> Result<()> {
        let namespace = self.namespace(host);
        run(Command::new("tc").args(["-n", &namespace]).args(
            format!("qdisc replace dev eth0 root tbf rate {kilobits}kbit burst 8kb latency 300ms")
                .split(' '),
        ))
    }

    fn rule(&self, host: &str, rule: &str) -> Result<()> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(host));
        run(Command::new("nsenter")
            .args([&namespace, "iptables", "-w"])
            .args(rule.split(' ')))
    }

    /// All networks as they were.
    pub(crate) fn heal(&self, host: &str) -> Result<()> {
        self.rule(host, "-F")?;
        let namespace = self.namespace(host);
        // Fails where nothing is set, which is what is wanted.
        let _ = run(Command::new("tc")
            .args(["-n", &namespace])
            .args("qdisc del dev eth0 root".split(' ')));
        Ok(())
    }

    /// What runs on a host: ids and command lines, whose words end with `\0`.
    pub(crate) fn processes(&self, host: &str) -> Result<Vec<(Pid, String)>> {
        let pids = pids_of(&self.namespace(host));
        let line = |pid: Pid| {
            let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            let line = std::fs::read(path).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).into_owned())
        };
        Ok(pids?.into_iter().map(line).collect())
    }

    /// Ends all that runs in the slot and removes its namespaces and disks.
    pub(crate) fn clean(&self) {
        let prefix = format!("kf{}-", self.slot);
        let names: Vec<String> = std::fs::read_dir("/run/netns")
            .map(|dir| {
                dir.flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .filter(|name| name.starts_with(&prefix))
                    .collect()
            })
            .unwrap_or_default();
        for name in &names {
            for pid in pids_of(name).unwrap_or_default() {
                if pid != rustix::process::getpid() {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        for name in &names {
            let _ = ip(&format!("netns del {name}"));
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let root = self.root().display().to_string() + "/";
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if at.starts_with(&root) {
                let _ = run(Command::new("umount").args(["-l", at]));
            }
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.clean();
    }
}

fn pids_of(namespace: &str) -> Result<Vec<Pid>> {
    let listed = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let listed = listed.context("cannot run ip")?.stdout;
    let text = String::from_utf8_lossy(&listed);
    let pid = |word: &str| word.parse().ok().and_then(Pid::from_raw);
    Ok(text.split_whitespace().filter_map(pid).collect())
}

/// The first slot that nobody holds, and its lock.
fn take_slot() -> Result<(u8, File)> {
    for slot in 1..=SLOTS {
        let path = Path::new(ROOT).join(format!("{slot}.lock"));
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok((slot, lock));
        }
    }
    bail!("{SLOTS} clusters run on this machine already")
}

fn ip(words: &str) -> Result<()> {
    run(Command::new("ip").args(words.split(' ')))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
