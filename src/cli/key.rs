//! `leet key`: the key pair by which an API signs and nodes trust.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::CliError;
use super::output;
use crate::signing::{Signer, SigningError};
use crate::telemetry::chain;

pub(super) const EXAMPLES: &str = "Examples:
  leet key generate /etc/kubeleet/signing.pem   a new key; prints its public key
  leet key show /etc/kubeleet/signing.pem       the public key once more

The API signs with the file (setting api.signing_key_file); nodes are told the public key
(agent.trusted_keys, several while keys change) and to start nothing else (agent.require_signed).";

/// Arguments of `leet key`.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key pair: the private key goes to a new file that only you can read
    Generate {
        /// The file to make
        file: PathBuf,
    },
    /// Print the public key of a private one
    Show {
        /// The file of the private key
        file: PathBuf,
    },
}

/// Makes or shows a key.
pub(super) fn key(args: &KeyArgs) -> Result<(), CliError> {
    let file = match &args.command {
        KeyCommand::Generate { file } => {
            let text = Signer::generate().map_err(|error| failed(&error))?;
            write_new(file, &text).map_err(|error| {
                CliError::Key(format!("cannot make the file {}: {error}", file.display()))
            })?;
            file
        }
        KeyCommand::Show { file } => file,
    };
    let signer = Signer::read(file).map_err(|error| failed(&error))?;
    output::text(&signer.public_key())?;
    Ok(())
}

fn failed(error: &SigningError) -> CliError {
    CliError::Key(chain(error))
}

/// Never over another key: what that signed would be lost to all who trust it.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
