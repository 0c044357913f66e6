//! `leet dev`: a whole cluster in one process.

use std::io::Write as _;

use anyhow::Context as _;

use crate::dev::{DevOptions, run};
use crate::process::{arm_failpoint, shutdown_on_signals};
use crate::settings::{RuntimeKind, Settings};
use crate::telemetry;

/// Arguments of `leet dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// How many nodes, called node1, node2 and so on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub nodes: u16,
    /// Address the API listens on [default: setting api.listen, 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<std::net::SocketAddr>,
    /// A Redis to use; without it a private redis-server or valkey-server from PATH is started
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Which engine runs containers [default: setting node.runtime, docker]
    #[arg(long, value_parser = ["docker", "simulated"])]
    pub runtime: Option<String>,
    /// Leave the containers running at the end
    #[arg(long)]
    pub keep: bool,
    /// Settings file (TOML)
    #[arg(long, value_name = "PATH")]
    pub config: Option<std::path::PathBuf>,
}

/// Runs the cluster until SIGINT or SIGTERM. Prints one line when all parts are ready.
///
/// # Errors
/// The settings are wrong, or a part did not come up or ended by itself.
pub async fn dev(args: DevArgs) -> anyhow::Result<()> {
    let file = args.config.as_deref();
    let mut settings = match &args.redis {
        Some(url) => Settings::load_with_redis(file, url)?,
        None => Settings::load(file)?,
    };
    if let Some(listen) = args.listen {
        settings.api.listen = listen.to_string();
    }
    match args.runtime.as_deref() {
        Some("simulated") => settings.node.runtime = RuntimeKind::Simulated,
        Some(_) => settings.node.runtime = RuntimeKind::Docker,
        None => {}
    }
    telemetry::init(&settings.log);
    arm_failpoint(&settings.failpoint);
    let shutdown = shutdown_on_signals().context("signals cannot be listened to")?;
    let options = DevOptions {
        nodes: usize::from(args.nodes),
        private_redis: args.redis.is_none(),
        keep: args.keep,
    };
    let ready = |api: &str, redis: &str, nodes: usize| {
        let mut out = std::io::stdout();
        // Whoever closed the pipe does not want to know.
        let _ = writeln!(
            out,
            "kubeleet is ready: api=http://{api} redis={} nodes={nodes}",
            without_password(redis)
        );
        let _ = out.flush();
    };
    Ok(run(settings, options, ready, shutdown).await?)
}

/// A URL as it may be shown: `redis://:secret@host` and `?pass=secret` become `***`.
fn without_password(url: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let shown = match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 < at => {
            format!("{}***{}", &address[..scheme + 3], &address[at..])
        }
        _ => address.to_owned(),
    };
    match query {
        "" => shown,
        _ => format!("{shown}?***"),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_password("redis://127.0.0.1:6379"),
            "redis://127.0.0.1:6379"
        );
        assert_eq!(without_password("redis://:pw@h:1/2"), "redis://***@h:1/2");
        assert_eq!(
            without_password("unix:///run/r?pass=pw"),
            "unix:///run/r?***"
        );
    }
}
