//! A Redis of one's own: started from PATH on a free loopback port, ended with this process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

/// Programs that will do, the first found is taken.
const SERVERS: [&str; 2] = ["valkey-server", "redis-server"];
/// Connections at once: two for each simulated node of a large cluster.
const CLIENTS_MAX: &str = "50000";
/// Longest wait for its first answer, and for its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks whether it answers.
const LOOK: Duration = Duration::from_millis(20);

/// A running server; killed when dropped.
pub(crate) struct PrivateRedis {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl PrivateRedis {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start() -> Result<PrivateRedis, String> {
        let mut missing = Vec::new();
        for server in SERVERS {
            match Self::start_server(server).await {
                Ok(redis) => return Ok(redis),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => missing.push(server),
                Err(error) => return Err(format!("{server}: {error}")),
            }
        }
        Err(format!(
            "none of {} is on the PATH: install one (apt-get install redis-server), or give a Redis by --redis URL",
            missing.join(", ")
        ))
    }

    /// The folder that ends with it.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    async fn start_server(server: &str) -> std::io::Result<PrivateRedis> {
        // Asked first, so that "not found" is not hidden behind setpriv.
        Command::new(server)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await?;
        let port = free_port()?;
        let directory = std::env::temp_dir().join(format!("kubeleet-dev-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let log = std::fs::File::create(directory.join("redis.log"))?;
        // setpriv has the kernel end the server should this process be killed outright.
        let has_setpriv = Command::new("setpriv")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .is_ok_and(|status| status.success());
        let mut command = if has_setpriv {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", server]);
            command
        } else {
            Command::new(server)
        };
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--hash-max-listpack-value", "256"])
            // As many as the machine allows: the server lowers it to that.
            .args(["--maxclients", CLIENTS_MAX])
            .arg("--dir")
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches the whole group of a terminal; Redis must outlive the draining.
            .process_group(0)
            .kill_on_drop(true);
        let mut redis = PrivateRedis {
            child: command.spawn()?,
            port,
            directory,
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            if let Some(status) = redis.child.try_wait()? {
                let log =
                    std::fs::read_to_string(redis.directory.join("redis.log")).unwrap_or_default();
                return Err(std::io::Error::other(format!(
                    "it ended with {status}: {log}"
                )));
            }
            if tokio::time::Instant::now() > deadline {
                return Err(std::io::Error::other("it does not answer"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server and removes what it left.
    pub(crate) async fn stop(mut self) {
        let _ = self.child.start_kill();
        let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
    }
}

impl Drop for PrivateRedis {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
