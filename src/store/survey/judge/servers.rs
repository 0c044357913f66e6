//! What is unsafe in a server.

use super::{Findings, Severity, is_loopback};
use crate::store::survey::{Facts, ReplicaLink, Server, ServerFacts};

/// The oldest version with functions, which is all of kubeleet.
const VERSION_MIN: (u64, u64) = (7, 0);
/// Share of the memory from which on it is time to act, and from which on creation is soon refused.
const MEMORY_HIGH: f64 = 0.7;
const MEMORY_FULL: f64 = 0.9;
/// Lag of a replica, or time after which it no longer counts, that is longer than any fail-over should lose.
const LAG_MAX_S: u64 = 5;
/// Seconds in which a vanished client should be noticed: a blocked one of it takes entries until then.
const KEEPALIVE_MAX_S: u64 = 60;
/// A function that blocks all others for longer is a mistake; Sentinels call a server down that does.
const BUSY_MAX_MS: u64 = 2000;

pub(super) fn judge(findings: &mut Findings, facts: &Facts, server: &Server) {
    reach(findings, facts, server);
    let Some(told) = &server.facts else { return };
    version(findings, server, told);
    memory(findings, server, told);
    persistence(findings, server, told);
    times(findings, facts, server, told);
    if facts.master.as_deref() == Some(&server.address) {
        master(findings, facts, server, told);
    } else {
        replica(findings, server, told);
    }
}

/// Who gets in, and who can listen on the way.
fn reach(findings: &mut Findings, facts: &Facts, server: &Server) {
    let at = &server.address;
    if let Some(error) = &server.error {
        let is_master = facts.master.as_ref() == Some(at);
        let severity = if is_master {
            Severity::Unsafe
        } else {
            Severity::Warning
        };
        findings.add(
            severity,
            "unreachable",
            at,
            format!("it cannot be asked: {error}"),
            "see whether it runs, and whether this machine and this user are let in",
        );
    }
    if is_local(server) {
        return;
    }
    if server.is_open == Some(true) {
        findings.add(
            Severity::Unsafe,
            "open",
            at,
            "whoever reaches its port may do everything, as root on every node",
            "make users by `leet redis acl`, with `user default off`, and name the file as `aclfile`",
        );
    }
    if !server.tls && server.facts.is_some() && !is_loopback(at) {
        findings.add(
            Severity::Warning,
            "no-tls",
            at,
            "passwords and specs go over the network for all to read",
            "set tls-port and tls-replication yes, and rediss:// in redis.url; see docs/redis.md",
        );
    }
}

fn version(findings: &mut Findings, server: &Server, told: &ServerFacts) {
    let mut parts = told.version.split('.').map(|part| part.parse().ok());
    let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
        return;
    };
    if (major, minor) < VERSION_MIN {
        findings.add(
            Severity::Refused,
            "old-version",
            &server.address,
            format!("{} {} has no functions", told.software, told.version),
            "install Redis 7.0 or later, or Valkey 7.2 or later",
        );
    }
}

fn memory(findings: &mut Findings, server: &Server, told: &ServerFacts) {
    let (at, policy) = (&server.address, &told.memory_policy);
    if !policy.is_empty() && policy != "noeviction" {
        let bounded = told.memory_max_bytes > 0;
        let severity = if bounded {
            Severity::Refused
        } else {
            Severity::Unsafe
        };
        let when = if bounded {
            "when it is full"
        } else {
            "once it has a maxmemory"
        };
        findings.add(
            severity,
            "eviction",
            at,
            format!("maxmemory-policy {policy} drops pods and services {when}"),
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        );
    }
    if told.memory_max_bytes == 0 {
        findings.add(
            Severity::Warning,
            "no-maxmemory",
            at,
            "it grows until the kernel kills it",
            "set maxmemory to about 60 % of the machine's memory",
        );
        return;
    }
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = told.memory_used_bytes as f64 / told.memory_max_bytes as f64;
    if share >= MEMORY_HIGH {
        let severity = if share >= MEMORY_FULL {
            Severity::Unsafe
        } else {
            Severity::Warning
        };
        findings.add(
            severity,
            "memory",
            at,
            format!(
                "{:.0} % of maxmemory is in use; when it is full new services are refused",
                share * 100.0
            ),
            "raise maxmemory, or look for what grows: leet queue, redis-cli --bigkeys",
        );
    }
}

fn persistence(findings: &mut Findings, server: &Server, told: &ServerFacts) {
    let at = &server.address;
    if !told.aof {
        findings.add(
            Severity::Unsafe,
            "no-aof",
            at,
            "it comes back empty from a restart, and as a master empties its replicas too",
            "CONFIG SET appendonly yes, and in redis.conf",
        );
    }
    if !told.aof_ok {
        findings.add(
            Severity::Unsafe,
            "aof-error",
            at,
            "its append-only file cannot be written, so it refuses writes",
            "see its log; make room on its disk",
        );
    }
    if told.aof && told.appendfsync.as_deref() == Some("no") {
        findings.add(
            Severity::Unsafe,
            "no-fsync",
            at,
            "appendfsync no loses up to half a minute of writes with the machine",
            "CONFIG SET appendfsync everysec, and in redis.conf",
        );
    }
}

fn times(findings: &mut Findings, facts: &Facts, server: &Server, told: &ServerFacts) {
    let at = &server.address;
    if let Some(seconds) = told.tcp_keepalive_s
        && (seconds == 0 || seconds > KEEPALIVE_MAX_S)
        && !is_local(server)
    {
        findings.add(
            Severity::Warning,
            "tcp-keepalive",
            at,
            format!("tcp-keepalive {seconds}: the blocked client of a machine that vanished takes entries for long"),
            "CONFIG SET tcp-keepalive 15, and in redis.conf",
        );
    }
    if let Some(ms) = told.busy_reply_threshold_ms
        && (ms == 0 || ms > BUSY_MAX_MS)
        && facts.by_sentinel
    {
        findings.add(
            Severity::Warning,
            "busy-reply-threshold",
            at,
            format!("busy-reply-threshold {ms}: a stuck function cannot be killed before Sentinels fail over"),
            "CONFIG SET busy-reply-threshold 1000, and in redis.conf",
        );
    }
}

fn master(findings: &mut Findings, facts: &Facts, server: &Server, told: &ServerFacts) {
    let at = &server.address;
    if told.role != "master" {
        findings.add(
            Severity::Unsafe,
            "no-master",
            at,
            "it is a replica: stations refuse it",
            "name the master in redis.url, or name the Sentinels in redis.sentinels",
        );
        return;
    }
    let online = |replica: &&ReplicaLink| replica.state == "online";
    let in_sync = told.replicas.iter().filter(online).count();
    for replica in &told.replicas {
        if replica.state != "online" || replica.lag_s > LAG_MAX_S {
            findings.add(
                Severity::Warning,
                "lag",
                &replica.address,
                format!(
                    "it is {} and was heard {} s ago",
                    replica.state, replica.lag_s
                ),
                "see its log, its network and its disk; it is no successor until it has caught up",
            );
        }
    }
    let wanted = told.min_replicas;
    if in_sync == 0 && facts.by_sentinel {
        findings.add(
            Severity::Unsafe,
            "no-successor",
            at,
            "Sentinels watch it, but no replica follows it",
            "start two replicas of it: replicaof, masteruser and masterauth in redis.conf",
        );
    }
    match wanted {
        Some(0) if !told.replicas.is_empty() => findings.add(
            Severity::Unsafe,
            "no-min-replicas",
            at,
            "cut off from its replicas it goes on taking writes, which are lost when it returns",
            "CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 3; and in redis.conf of each",
        ),
        Some(wanted) if wanted > 0 && told.replicas.is_empty() => findings.add(
            Severity::Unsafe,
            "min-replicas-alone",
            at,
            format!("min-replicas-to-write {wanted}, and it has no replica: it takes no writes at all"),
            "start replicas, or on a single server CONFIG SET min-replicas-to-write 0",
        ),
        Some(wanted) if wanted > 0 && told.min_replicas_max_lag_s > Some(LAG_MAX_S) => findings.add(
            Severity::Warning,
            "min-replicas-lag",
            at,
            format!(
                "min-replicas-max-lag {}: for so long a master that is cut off takes writes that are lost",
                told.min_replicas_max_lag_s.unwrap_or_default()
            ),
            "CONFIG SET min-replicas-max-lag 3, and in redis.conf of each",
        ),
        _ => {}
    }
}

fn replica(findings: &mut Findings, server: &Server, told: &ServerFacts) {
    let at = &server.address;
    if told.role == "master" {
        findings.add(
            Severity::Unsafe,
            "second-master",
            at,
            "it calls itself a master too: what is written there will be lost",
            "wait for Sentinel to demote it (10 s), or REPLICAOF by hand; see docs/redis.md",
        );
        return;
    }
    if told.read_only == Some(false) {
        findings.add(
            Severity::Unsafe,
            "replica-writable",
            at,
            "clients may write to this replica, and what they write is lost",
            "CONFIG SET replica-read-only yes, and in redis.conf",
        );
    }
    if told.link_up == Some(false) {
        findings.add(
            Severity::Warning,
            "link-down",
            at,
            "it has lost its master: it falls behind, and is no successor",
            "see its log; masteruser and masterauth must fit",
        );
    }
}

/// True for a server that, as far as is known, only its own machine reaches.
fn is_local(server: &Server) -> bool {
    let bind = server.facts.as_ref().and_then(|told| told.bind.as_deref());
    is_loopback(&server.address) && bind.is_none_or(binds_loopback)
}

/// True if a server that listens on these addresses is reached from its own machine alone.
fn binds_loopback(bind: &str) -> bool {
    let mut addresses = bind.split_whitespace().peekable();
    // Without any it listens on all.
    addresses.peek().is_some()
        && addresses.all(|one| {
            let one = one.trim_start_matches('-');
            one == "localhost"
                || one
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        })
}
