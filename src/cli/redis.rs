//! `leet redis`: the Redis below a cluster, looked after without the API, which may be down.
//!
//! Speaks to Redis and Sentinels through `store` alone, and changes nothing of a cluster's state.

mod acl;
mod status;
mod switchover;

use std::path::PathBuf;

use crate::client::escape;
use crate::settings::{Secret, Settings, SettingsErrors};

const EXAMPLES: &str = "Examples:
  leet redis status                               by the settings' file and KUBELEET_ variables
  leet redis status --url rediss://redis-1        one server
  leet redis status --sentinel s1:26379 --sentinel s2:26379 --sentinel s3:26379
  leet redis status --user operator --password-stdin < operator.password
  leet redis switchover --to redis-2:6379         before work on the master's machine
  leet redis acl --node node1 --node node2 --into /etc/kubeleet/redis

These work while the API is down: they ask Redis and the Sentinels themselves. Exit codes: 0 all is
safe, 1 something is not or cannot be done, 2 wrong use.";

/// Arguments of `leet redis`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RedisArgs {
    #[command(subcommand)]
    command: RedisCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RedisCommand {
    /// Show servers, Sentinels and the cluster on them, and what is unsafe in how they are set
    Status(status::StatusArgs),
    /// Make users for Redis: one for each kind of process, and one for each agent
    Acl(acl::AclArgs),
    /// Make a replica the master without losing a write
    Switchover(switchover::SwitchoverArgs),
}

/// Which Redis, and as whom.
#[derive(Debug, clap::Args)]
struct WhereArgs {
    /// Settings file (TOML); variables go before what it says, and these options before both
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// The Redis, as in the setting redis.url: redis://[user:password@]host:port, rediss:// for TLS
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A Sentinel; once for each. `--url` then says only user, password and whether to use TLS
    #[arg(long, value_name = "HOST:PORT")]
    sentinel: Vec<String>,
    /// Name of the master among the Sentinels
    #[arg(long, value_name = "NAME")]
    master: Option<String>,
    /// Ask as this user, such as operator
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read that user's password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

impl WhereArgs {
    /// The settings, with what was given in place of theirs.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut given = Vec::new();
        if let Some(url) = &self.url {
            given.push(("redis.url", url.clone()));
        }
        if self.url.is_some() || !self.sentinel.is_empty() {
            given.push(("redis.sentinels", self.sentinel.join(",")));
        }
        if let Some(master) = &self.master {
            given.push(("redis.master", master.clone()));
        }
        let load = |given: &[_]| -> Result<Settings, SettingsErrors> {
            Settings::load_with(self.config.as_deref(), given)
        };
        let mut settings = load(&given)?;
        if self.user.is_some() || self.password_stdin {
            let password = if self.password_stdin {
                super::run::password()?
            } else {
                String::new()
            };
            let user = self.user.as_deref().unwrap_or_default();
            settings.redis.url = Secret(as_user(&settings.redis.url.0, user, &password));
        }
        Ok(settings)
    }
}

/// `url` with another user and password.
fn as_user(url: &str, user: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (user, password) = (escape(user), escape(password));
    if scheme.ends_with("unix") {
        let path = rest.split('?').next().unwrap_or_default();
        return format!("{scheme}://{path}?user={user}&pass={password}");
    }
    // A password may hold no `/` that is not escaped, so what follows the first is no part of it.
    let (authority, path) = match rest.find(['/', '?']) {
        Some(end) => rest.split_at(end),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{user}:{password}@{host}{path}")
}

/// Carries a command out.
///
/// # Errors
/// The settings are wrong, it cannot be done, or something is unsafe.
pub(super) async fn redis(args: RedisArgs) -> anyhow::Result<()> {
    match args.command {
        RedisCommand::Acl(args) => acl::acl(&args),
        RedisCommand::Status(args) => status::status(args).await,
        RedisCommand::Switchover(args) => switchover::switchover(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_takes_the_place_of_the_urls() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379", "redis://me:p%40ss@127.0.0.1:6379"),
            ("rediss://a:b@host/2?x=1", "rediss://me:p%40ss@host/2?x=1"),
            (
                "unix:///run/r.sock?db=1",
                "unix:///run/r.sock?user=me&pass=p%40ss",
            ),
        ] {
            assert_eq!(as_user(url, "me", "p@ss"), expected);
        }
    }
}
