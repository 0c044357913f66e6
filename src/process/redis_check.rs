//! Looks at the Redis a daemon is to work with, once it answers, and refuses one that keeps nothing.
//!
//! A Redis that is away is no reason to wait: an agent's containers must be looked after meanwhile.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::settings::RedisSettings;
use crate::store::backoff::Backoff;
use crate::store::survey::{Facts, Finding, Severity};
use crate::telemetry::chain;

/// Longest time in which nothing but the first look is done: a Redis that is there answers in a few ms.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Why a daemon does not work with its Redis.
#[derive(Debug, thiserror::Error)]
#[error(
    "this Redis is refused, because what it is given is lost without any fault: {0}; mend it, or set \
     redis.accept_unsafe = true to go on all the same. `leet redis status` says more"
)]
pub struct RedisRefused(String);

/// Runs `work`, unless the Redis of `settings` is one to refuse; then it is dropped where it stands.
///
/// # Errors
/// Those of `work`, and [`RedisRefused`].
pub async fn unless_refused(
    settings: &RedisSettings,
    shutdown: &CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    // Before anything is done, if it answers at once.
    let is_known = match tokio::time::timeout(FIRST_LOOK, look(settings)).await {
        Ok(looked) => looked?,
        Err(_) => false,
    };
    tokio::pin!(work);
    tokio::select! {
        biased;
        result = &mut work => return result,
        result = look_until_known(settings, shutdown), if !is_known => result?,
    }
    work.await
}

async fn look_until_known(
    settings: &RedisSettings,
    shutdown: &CancellationToken,
) -> Result<(), RedisRefused> {
    let mut backoff = Backoff::new();
    while !shutdown.is_cancelled() && !look(settings).await? {
        backoff.wait(shutdown).await;
    }
    Ok(())
}

/// Looks once, and tells what is found; answers whether there was anything to look at.
async fn look(settings: &RedisSettings) -> Result<bool, RedisRefused> {
    let facts = match Facts::read_master(settings).await {
        Ok(facts) => facts,
        // Whoever connects says so at once, with all causes.
        Err(error) => {
            tracing::debug!(error = chain(&error), "redis cannot be looked at");
            return Ok(true);
        }
    };
    if facts.master().is_none() {
        // What this user may not read it will not be told later either.
        return Ok(facts.servers.iter().any(|server| server.is_refused));
    }
    let findings = facts.findings();
    for finding in &findings {
        tracing::warn!(
            redis.address = finding.at,
            severity = finding.severity.as_str(),
            code = finding.code,
            remedy = finding.remedy,
            "redis: {}",
            finding.what
        );
    }
    match refusal(&findings) {
        Some(reason) if !settings.accept_unsafe => Err(RedisRefused(reason)),
        _ => Ok(true),
    }
}

/// What a station must not work with, if there is anything.
fn refusal(findings: &[Finding]) -> Option<String> {
    let refused = |finding: &&Finding| finding.severity == Severity::Refused;
    let reasons: Vec<String> = findings
        .iter()
        .filter(refused)
        .map(|finding| format!("{} ({})", finding.what, finding.at))
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}
