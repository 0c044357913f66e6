//! What is unsafe in the Sentinels.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Severity, is_loopback};
use crate::store::survey::{Facts, SentinelFacts};

/// Sentinels of which one may be lost, and two agree.
const SENTINELS_MIN: usize = 3;
/// Shorter, and a busy server is taken for a dead one; longer, and nodes wait for too long.
const DOWN_AFTER_MS: std::ops::RangeInclusive<u64> = 1000..=5000;
/// Twice this passes before a second fail-over.
const FAILOVER_TIMEOUT_MAX_MS: u64 = 30_000;

pub(super) fn judge(findings: &mut Findings, facts: &Facts) {
    if !facts.by_sentinel {
        return;
    }
    agreement(findings, facts);
    count(findings, facts);
    for sentinel in &facts.sentinels {
        if let Some(told) = &sentinel.facts {
            times(findings, &sentinel.address, told);
        }
    }
}

fn agreement(findings: &mut Findings, facts: &Facts) {
    let name = &facts.master_name;
    for sentinel in &facts.sentinels {
        if let Some(error) = &sentinel.error {
            findings.add(
                Severity::Warning,
                "sentinel-unreachable",
                &sentinel.address,
                format!("this Sentinel cannot be asked for master {name}: {error}"),
                "see whether it runs, monitors that name, and lets this machine in",
            );
        }
        if let Some(told) = &sentinel.facts
            && facts
                .master
                .as_ref()
                .is_some_and(|agreed| *agreed != told.master)
        {
            findings.add(
                Severity::Warning,
                "sentinel-disagrees",
                &sentinel.address,
                format!("this Sentinel calls {} the master", told.master),
                "after a fail-over it learns of it within seconds; else see its log and network",
            );
        }
    }
    if facts.master.is_none() {
        findings.add(
            Severity::Unsafe,
            "no-majority",
            "",
            "no majority of the Sentinels names a master: stations wait",
            "start the Sentinels that are away; see what each says above",
        );
    }
}

fn count(findings: &mut Findings, facts: &Facts) {
    let named = facts.sentinels.len();
    let told = || facts.sentinels.iter().filter_map(|one| one.facts.as_ref());
    let known = told().map(|facts| facts.others.len() + 1).max();
    let all = known.unwrap_or(named);
    if all < SENTINELS_MIN {
        findings.add(
            Severity::Unsafe,
            "few-sentinels",
            "",
            format!(
                "{all} Sentinels: with one of them lost there is no majority, and no fail-over"
            ),
            "run three, each on a machine of its own",
        );
    } else if all % 2 == 0 {
        findings.add(
            Severity::Warning,
            "even-sentinels",
            "",
            format!("{all} Sentinels survive no more faults than {} do", all - 1),
            "run an odd number",
        );
    }
    if known.is_some_and(|known| known != named) {
        findings.add(
            Severity::Warning,
            "sentinels-listed",
            "",
            format!("{named} Sentinels are named in redis.sentinels, {all} know one another"),
            "name all of them: a majority is counted among those that are named. One that was removed is \
             forgotten by SENTINEL RESET",
        );
    }
    for quorum in told().map(|facts| facts.quorum).collect::<BTreeSet<_>>() {
        let most = u64::try_from(all).unwrap_or(u64::MAX);
        if quorum > most {
            findings.add(
                Severity::Unsafe,
                "quorum",
                "",
                format!("a quorum of {quorum} of {all} Sentinels is never reached: no fail-over"),
                format!("SENTINEL SET {} quorum 2 at each", facts.master_name),
            );
        } else if quorum < 2 && all > 1 {
            findings.add(
                Severity::Warning,
                "quorum",
                "",
                "a single Sentinel's word that the master is down begins a fail-over",
                format!("SENTINEL SET {} quorum 2 at each", facts.master_name),
            );
        }
    }
    let mut hosts: BTreeMap<&str, usize> = BTreeMap::new();
    for sentinel in &facts.sentinels {
        let host = sentinel.address.rsplit_once(':');
        let host = host.map_or(sentinel.address.as_str(), |(host, _)| host);
        *hosts.entry(host).or_default() += 1;
    }
    for (host, count) in hosts {
        if count > 1 {
            let local = if is_loopback(&format!("{host}:0")) {
                ", this one"
            } else {
                ""
            };
            findings.add(
                Severity::Warning,
                "sentinels-together",
                host,
                format!("{count} Sentinels are on one machine{local}, and are lost together"),
                "run each on a machine of its own",
            );
        }
    }
}

fn times(findings: &mut Findings, at: &str, told: &SentinelFacts) {
    let (down, again) = (told.down_after_ms, told.failover_timeout_ms);
    if !DOWN_AFTER_MS.contains(&down) {
        let why = if down < *DOWN_AFTER_MS.start() {
            "a busy server is taken for a dead one"
        } else {
            "so long nothing is accepted, and nodes come close to being lost"
        };
        findings.add(
            Severity::Warning,
            "down-after",
            at,
            format!("down-after-milliseconds {down}: {why}"),
            "SENTINEL SET NAME down-after-milliseconds 3000 at each, which it keeps in its file",
        );
    }
    if again > FAILOVER_TIMEOUT_MAX_MS {
        findings.add(
            Severity::Warning,
            "failover-timeout",
            at,
            format!(
                "failover-timeout {again}: a second fail-over waits {} s",
                again * 2 / 1000
            ),
            "SENTINEL SET NAME failover-timeout 15000 at each, which it keeps in its file",
        );
    }
    if told.parallel_syncs > 1 {
        findings.add(
            Severity::Warning,
            "parallel-syncs",
            at,
            "all replicas copy from a new master at once, and none can take over meanwhile",
            "SENTINEL SET NAME parallel-syncs 1 at each, which it keeps in its file",
        );
    }
}
