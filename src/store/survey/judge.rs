//! What is unsafe in the facts, and what to do about it. Pure: reads nothing, changes nothing.
//!
//! Of what is unknown nothing is said: whoever may not read a setting is not told that it is wrong.

mod sentinels;
mod servers;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::Facts;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Stations refuse to work with it: what they are told would be lost without any fault.
    Refused,
    /// A single fault loses what was accepted, or stops everything.
    Unsafe,
    /// It costs time, or is one step from being unsafe.
    Warning,
}

impl Severity {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Refused => "refused",
            Severity::Unsafe => "unsafe",
            Severity::Warning => "warning",
        }
    }
}

/// Something that should be otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A name that scripts may rely on.
    pub code: &'static str,
    /// Where: a server's or a Sentinel's address; empty for the whole.
    pub at: String,
    /// What is wrong, and why that matters.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// True if a single fault loses something, or worse.
    pub fn is_unsafe(&self) -> bool {
        self.severity != Severity::Warning
    }
}

/// Findings as they come up.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: &str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity,
            code,
            at: at.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }
}

/// Worst first; among equals in the order of the servers.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::default();
    for server in &facts.servers {
        servers::judge(&mut findings, facts, server);
    }
    sentinels::judge(&mut findings, facts);
    cluster(&mut findings, facts);
    findings.0.sort_by_key(|finding| finding.severity);
    findings.0
}

fn cluster(findings: &mut Findings, facts: &Facts) {
    let Some(cluster) = &facts.cluster else {
        return;
    };
    let at = facts.master.as_deref().unwrap_or_default();
    if let Some(version) = cluster.functions
        && version > cluster.functions_here
    {
        findings.add(
            Severity::Warning,
            "newer-functions",
            at,
            format!(
                "its functions are version {version}, newer than {} of this program",
                cluster.functions_here
            ),
            "upgrade this program: stations of its version would be refused",
        );
    }
}

/// True for an address that only this machine reaches.
fn is_loopback(address: &str) -> bool {
    if address.starts_with('/') {
        return true;
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}
