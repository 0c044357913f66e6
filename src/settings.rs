//! Settings: code defaults, then a TOML file, then `KUBELEET_*` variables; read once, checked whole.
//!
//! Nothing else reads the environment. Unknown keys are refused with the nearest known one named,
//! and all problems are shown together, so that one look is enough to mend a file.

mod addresses;
mod defaults;
mod parts;
mod problems;
mod rules;
mod sources;
mod text;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use parts::*;
pub use problems::{Problem, SettingsErrors};

use crate::model::name;

/// Status of a process whose settings or arguments are wrong, as clap's own.
const EXIT_USAGE: i32 = 2;
/// Where the kernel tells the host's name; not below `node.proc_dir`, which is another host's view
/// only where the agent runs in a container, whose name then is what is asked for.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// What `--help` of every daemon ends with.
pub const HELP: &str = "\
Settings come from defaults, then the file, then variables. Those most used:
  KUBELEET_REDIS__URL            redis://127.0.0.1:6379, rediss://user:password@host, unix:///path
  KUBELEET_REDIS__SENTINELS      host:port,host:port,host:port instead of a URL
  KUBELEET_REDIS__MASTER         the master's name among the Sentinels [kubeleet]
  KUBELEET_API__LISTEN           address of the API [127.0.0.1:8080]
  KUBELEET_NODE__NAME            name of the node [the host's name]
  KUBELEET_NODE__RUNTIME         docker or simulated [docker]
  KUBELEET_HEARTBEAT__INTERVAL   time between heartbeats [5s]
  KUBELEET_HEARTBEAT__LEASE      a node silent for longer is lost [20s]
  KUBELEET_LOG__FILTER           error, warn, info, debug, or a tracing filter [info]
All are in config/kubeleet.toml. SIGTERM ends the process in order; exit status 2 is wrong settings.";

/// Arguments that every daemon takes; all else is a setting.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SettingsArgs {
    /// Settings file (TOML); variables go before what it says
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Say whether the settings are valid, and end
    #[arg(long)]
    pub check: bool,
}

impl Settings {
    /// Defaults, then `file`, then the process's `KUBELEET_*` variables.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once: an unreadable file, unknown keys, values not allowed.
    pub fn load(file: Option<&Path>) -> Result<Settings, SettingsErrors> {
        Settings::load_from(file, std::env::vars_os())
    }

    /// As [`Settings::load`], with a Redis that the command line gave in place of all others.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_with_redis(file: Option<&Path>, url: &str) -> Result<Settings, SettingsErrors> {
        let given = [
            ("redis.url", url.to_owned()),
            ("redis.sentinels", String::new()),
        ];
        Settings::load_with(file, &given)
    }

    /// As [`Settings::load`], with keys such as `redis.url` that the command line gave.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_with(
        file: Option<&Path>,
        given: &[(&str, String)],
    ) -> Result<Settings, SettingsErrors> {
        let given: Vec<(OsString, OsString)> = given
            .iter()
            .map(|(key, value)| (sources::variable(key).into(), value.into()))
            .collect();
        let is_given = |name: &OsString| given.iter().any(|(given, _)| given == name);
        let others: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| !is_given(name))
            .collect();
        Settings::load_from(file, others.into_iter().chain(given))
    }

    /// As [`Settings::load`], with the variables given.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_from(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Result<Settings, SettingsErrors> {
        let mut problems = Vec::new();
        let given = sources::read(file, variables, &mut problems);
        let settings = sources::merge(given, &mut problems);
        match SettingsErrors::of(problems) {
            None => Ok(settings),
            Some(errors) => Err(errors),
        }
    }

    /// The node's name: `node.name`, or the host's where that is empty.
    ///
    /// # Errors
    ///
    /// The host's name cannot be read, or is none a node can have.
    pub fn node_name(&self) -> Result<String, SettingsErrors> {
        if !self.node.name.is_empty() {
            return Ok(self.node.name.clone());
        }
        let name =
            std::fs::read_to_string(HOST_NAME_FILE).map_err(|source| Problem::Unreadable {
                path: HOST_NAME_FILE.into(),
                source,
            })?;
        let name = name.trim();
        if name::is_node_name(name) {
            Ok(name.to_owned())
        } else {
            Err(Problem::HostName(name.to_owned()).into())
        }
    }
}

/// The settings; where they are wrong, or only their check was asked for, the process ends here.
#[expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "logs are set up from settings, so there are none yet"
)]
pub fn load_or_exit(args: &SettingsArgs) -> Settings {
    match Settings::load(args.config.as_deref()) {
        Ok(_) if args.check => {
            println!("settings are valid");
            std::process::exit(0)
        }
        Ok(settings) => settings,
        Err(errors) => {
            eprintln!("{errors}");
            std::process::exit(EXIT_USAGE)
        }
    }
}

/// Where the command line finds the API: the variable `KUBELEET_API`, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "this is `settings`")]
pub fn api_url() -> Option<String> {
    std::env::var(sources::API_VARIABLE)
        .ok()
        .filter(|url| !url.is_empty())
}

/// The variables of the process, for files whose texts refer to them; no setting is among them.
pub fn environment() -> std::collections::BTreeMap<String, String> {
    let texts = std::env::vars_os().map(|(name, value)| (name.into_string(), value.into_string()));
    texts
        .filter_map(|(name, value)| Some((name.ok()?, value.ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
