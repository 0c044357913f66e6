//! A registry on a loopback port, with a password or without, and images that only one test uses.

use std::process::Command;

use tokio::net::TcpStream;

use super::engine::run;
use super::process::Process;
use super::{SOON, docker};
use crate::support::{eventually, find, free_port};

/// The one user that a registry with a password knows.
pub(crate) const USER: &str = "reader";
/// The user's password: a word that is nowhere else, so that it can be searched for.
pub(crate) const PASSWORD: &str = "Hidden-7Word";
/// The same by bcrypt, as Debian's registry wants it.
const PASSWORD_HASH: &str = "$2y$05$abcdefghijklmnopqrstuuAn2Tw2pFukcCMp8EfO9XMcIn9tj7RbK";

/// A registry; what it holds is deleted on drop.
pub(crate) struct Registry {
    pub(crate) address: String,
    process: Option<Process>,
    folder: tempfile::TempDir,
}

impl Registry {
    /// One that lets everybody in.
    pub(crate) async fn start() -> Registry {
        Registry::of("").await
    }

    /// One that lets in [`USER`] alone.
    pub(crate) async fn start_with_password() -> Registry {
        Registry::of("auth:\n  htpasswd:\n    realm: kubeleet\n    path: FOLDER/htpasswd\n").await
    }

    async fn of(auth: &str) -> Registry {
        let folder = tempfile::tempdir().expect("a folder");
        let address = format!("127.0.0.1:{}", free_port());
        let place = folder.path().display().to_string();
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {place}/data\n\
             http:\n  addr: {address}\n{}",
            auth.replace("FOLDER", &place)
        );
        // The client's `config.json`, beside the registry's own: a login without `docker login`.
        let login = serde_json::json!({"auths": {&address: {
            "username": USER, "password": PASSWORD, "auth": base64_of(&format!("{USER}:{PASSWORD}")),
        }}});
        for (file, text) in [
            ("config.yml", text),
            ("htpasswd", format!("{USER}:{PASSWORD_HASH}\n")),
            ("config.json", login.to_string()),
        ] {
            std::fs::write(folder.path().join(file), text).expect("a configuration");
        }
        let mut registry = Registry {
            address,
            process: None,
            folder,
        };
        registry.go_on().await;
        registry
    }

    /// Ends the process; what the registry holds stays.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the process, again if it was stopped.
    pub(crate) async fn go_on(&mut self) {
        let program = find("docker-registry");
        let program = program.expect("docker-registry in PATH: scripts/setup.sh test");
        let config = self.folder.path().join("config.yml").display().to_string();
        let program = program.display().to_string();
        let process = Process::start(&program, &["serve", &config], &[]);
        eventually(SOON, "the registry listens", async || {
            let connected = TcpStream::connect(&self.address).await;
            connected
                .map(drop)
                .map_err(|error| format!("{error}: {process}"))
        })
        .await;
        self.process = Some(process);
    }

    /// Pushes what the engine has as `from`, under a name of this registry, and takes that name from
    /// the engine again.
    pub(crate) fn push(&self, from: &str, name: &str) -> Tag {
        let tag = Tag(format!("{}/{name}", self.address));
        docker(&["tag", from, &tag.0]);
        let config = self.folder.path().display().to_string();
        run(Command::new("docker").args(["--config", &config, "push", "-q", &tag.0]));
        docker(&["rmi", &tag.0]);
        tag
    }
}

fn base64_of(text: &str) -> String {
    let encode = format!("printf %s '{text}' | base64 -w0");
    run(Command::new("sh").args(["-c", &encode]))
}

/// A name of an image that only this test uses; taken from the engine on drop.
pub(crate) struct Tag(pub(crate) String);

impl Drop for Tag {
    fn drop(&mut self) {
        // Where it was never pulled there is nothing to take away.
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}
