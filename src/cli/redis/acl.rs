//! `leet redis acl`: users for Redis, with random passwords, as files or on standard output.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::output;
use crate::settings::Settings;
use crate::store::users::{Users, Wanted};

/// Only the owner may read what holds passwords.
const OWN: u32 = 0o600;
/// Its name in the folder.
const FILE: &str = "users.acl";

const EXAMPLES: &str = "Examples:
  leet redis acl --node node1 --node node2 --into /etc/kubeleet/redis
  leet redis acl --node node3 --into /etc/kubeleet/redis             one more; the others stay
  leet redis acl --rotate --into /etc/kubeleet/redis                 new passwords beside the old ones
  leet redis acl --node node1 --setuser                              commands for redis-cli

With --into the folder gets users.acl, for `aclfile`, and for each new password a file NAME.password; both
are their owner's alone. Without it the users go to standard output, and the new passwords, once, to
standard error. A user keeps its last two passwords: after --rotate and ACL LOAD give the processes the
new one, then rotate again and the old one is gone.";

/// Arguments of `leet redis acl`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct AclArgs {
    /// A node whose agent gets a user, agent-NAME; once for each
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// The cluster's key prefix [default: that of the settings]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Give everyone a new password, beside the last one
    #[arg(long, requires = "into")]
    rotate: bool,
    /// Folder of users.acl and the passwords; who is in its users.acl already keeps the password
    #[arg(long, value_name = "PATH")]
    into: Option<PathBuf>,
    /// Write ACL SETUSER commands to standard output in place of a file's lines
    #[arg(long)]
    setuser: bool,
    /// Settings file (TOML), for its key prefix
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

pub(super) fn acl(args: &AclArgs) -> anyhow::Result<()> {
    let given: Vec<_> = args
        .prefix
        .iter()
        .map(|prefix| ("key_prefix", prefix.clone()))
        .collect();
    let settings = Settings::load_with(args.config.as_deref(), &given)?;
    let wanted = Wanted {
        nodes: args.node.clone(),
        prefix: settings.key_prefix,
        rotate: args.rotate,
    };
    let file = args.into.as_ref().map(|folder| folder.join(FILE));
    let existing = match &file {
        Some(file) => read(file)?,
        None => String::new(),
    };
    let users = Users::make(&wanted, &existing, |bytes| rand::fill(bytes))?;
    if let (Some(folder), Some(file)) = (&args.into, &file) {
        std::fs::create_dir_all(folder).with_context(|| cannot("make", folder))?;
        // Passwords first: a file of users whose passwords nobody has would lock all out.
        for (name, password) in &users.passwords {
            write(
                &folder.join(format!("{name}.password")),
                &format!("{password}\n"),
            )?;
        }
        write(file, &users.file())?;
        let made = users.passwords.len();
        output::tell(&format!(
            "{} holds all users; {made} passwords are new",
            file.display()
        ));
    }
    if args.setuser {
        output::text(users.commands().trim_end())?;
    } else if args.into.is_none() {
        output::text(users.file().trim_end())?;
    }
    if args.into.is_none() {
        for (name, password) in &users.passwords {
            output::tell(&format!("password of {name}: {password}"));
        }
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| cannot("read", file)),
    }
}

/// Writes a file whole or not at all.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    // One that was left may be readable for others.
    let _ = std::fs::remove_file(&new);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(OWN);
    let written = options.open(&new).and_then(|mut open: File| {
        open.write_all(text.as_bytes())?;
        open.sync_all()
    });
    written.with_context(|| cannot("write", &new))?;
    std::fs::rename(&new, file).with_context(|| cannot("write", file))
}

fn cannot(what: &str, file: &Path) -> String {
    format!("cannot {what} {}", file.display())
}
