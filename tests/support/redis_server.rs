//! A private redis-server (or valkey-server) on a free port and a socket in a folder of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::certificates::Certificates;
use super::spawn::{find, signal, spawn};
use super::{eventually, free_port};

/// Longest time a server may take to answer after its start, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Names of the server, in the order they are looked for.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
/// What names of servers' folders begin with; the process's id follows.
const FOLDER_PREFIX: &str = "kubeleet-redis-";

/// How a server is started.
#[derive(Default, Clone)]
pub struct RedisOptions {
    lines: String,
    port: Option<u16>,
    password: Option<String>,
    sentinel: bool,
    tls: bool,
}

impl RedisOptions {
    /// One line of redis.conf.
    pub fn line(mut self, line: impl AsRef<str>) -> Self {
        // Writing into a String cannot fail.
        let _ = writeln!(self.lines, "{}", line.as_ref());
        self
    }

    /// All lines of a file, which the harness's own lines then override.
    pub fn include(self, file: &Path) -> Self {
        self.line(format!("include {}", file.display()))
    }

    /// A port that is chosen by the test.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// A replica of the server on `port` of this machine.
    pub fn replica_of(self, port: u16) -> Self {
        self.line(format!("replicaof 127.0.0.1 {port}"))
            .line("repl-diskless-sync-delay 0")
    }

    /// The password of the user `default`.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.line(format!("requirepass {password}"))
            .line(format!("masterauth {password}"))
    }

    /// Every write in an append-only file.
    pub fn appendonly(self) -> Self {
        self.line("appendonly yes").line("appendfsync everysec")
    }

    /// TLS on the port.
    pub fn tls(mut self, certificates: &Certificates) -> Self {
        self.tls = true;
        self.line(format!(
            "tls-cert-file {}",
            certificates.file("server.crt").display()
        ))
        .line(format!(
            "tls-key-file {}",
            certificates.file("server.key").display()
        ))
        .line(format!(
            "tls-ca-cert-file {}",
            certificates.authority().display()
        ))
        .line("tls-auth-clients no")
    }

    /// TLS on the port and towards other servers, and a certificate is asked of every client.
    pub fn mutual_tls(self, certificates: &Certificates) -> Self {
        self.tls(certificates)
            .line("tls-auth-clients yes")
            .line("tls-replication yes")
    }

    /// A Sentinel; what it watches is told by lines.
    pub fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Starts it, and waits until it answers, be it that it is loading.
    pub async fn start(self) -> RedisServer {
        RedisServer::start_with(self).await
    }
}

/// A running server; killed, and its data deleted, on drop.
pub struct RedisServer {
    port: u16,
    options: RedisOptions,
    child: Child,
    folder: TempDir,
}

/// The one server that all tests of a binary may share, each with a key prefix of its own.
pub async fn shared_redis() -> &'static RedisServer {
    static SHARED: OnceCell<RedisServer> = OnceCell::const_new();
    SHARED.get_or_init(RedisServer::start).await
}

impl RedisServer {
    /// A server without persistence.
    pub async fn start() -> RedisServer {
        RedisOptions::default().start().await
    }

    async fn start_with(options: RedisOptions) -> RedisServer {
        remove_left_folders();
        let port = options.port.unwrap_or_else(free_port);
        let prefix = format!("{FOLDER_PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .expect("a folder");
        std::fs::write(
            folder.path().join("redis.conf"),
            config(&options, port, folder.path()),
        )
        .expect("a configuration");
        let child = spawn_server(&options, folder.path());
        let mut server = RedisServer {
            port,
            options,
            child,
            folder,
        };
        server.wait_for_answer().await;
        server
    }

    async fn wait_for_answer(&mut self) {
        let log = self.folder.path().join("log");
        let (child, socket) = (&mut self.child, self.folder.path().join("socket"));
        let password = self.options.password.as_deref();
        eventually(START_LIMIT, "redis-server answers", async || {
            if let Ok(Some(status)) = child.try_wait() {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("redis-server ended with {status}; its log:\n{log}");
            }
            match command(&socket, password, &["PING"]).await {
                Ok(_) => Ok(()),
                // Any answer is one: a test may want a server that is loading or asks for a user.
                Err(error) if error.code().is_some() => Ok(()),
                Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => Ok(()),
                Err(error) => Err(format!("{error}")),
            }
        })
        .await;
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address by port, with the password if there is one.
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        match &self.options.password {
            Some(password) => format!("{scheme}://:{password}@127.0.0.1:{}", self.port),
            None => format!("{scheme}://127.0.0.1:{}", self.port),
        }
    }

    /// Its socket's path.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Sends one command over a connection of its own, past the code under test.
    pub async fn command(&self, words: &[&str]) -> RedisResult<Value> {
        command(&self.socket(), self.options.password.as_deref(), words).await
    }

    /// As [`RedisServer::command`], which must succeed.
    pub async fn must(&self, words: &[&str]) -> Value {
        let answer = self.command(words).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Adds a line to its configuration, for the next start.
    pub fn add_line(&mut self, line: &str) {
        self.options = std::mem::take(&mut self.options).line(line);
        let text = config(&self.options, self.port, self.folder.path());
        std::fs::write(self.folder.path().join("redis.conf"), text).expect("a configuration");
    }

    /// kill -9, and waits until it is gone.
    pub fn kill9(&mut self) {
        // Killing one that is gone already is no mistake.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        signal(&self.child, "STOP");
    }

    /// Goes on after [`RedisServer::pause`].
    pub fn resume(&self) {
        signal(&self.child, "CONT");
    }

    /// A copy of all it holds.
    pub async fn copy(&self) -> Vec<u8> {
        self.must(&["SAVE"]).await;
        let file = self.folder.path().join("dump.rdb");
        let copy = std::fs::read(&file).expect("a copy");
        std::fs::remove_file(&file).expect("it is removed");
        copy
    }

    /// kill -9 and a new start on a copy, or on nothing.
    pub async fn restart_on(&mut self, copy: Option<&[u8]>) {
        if let Some(copy) = copy {
            let file = self.folder.path().join("dump.rdb");
            std::fs::write(&file, copy).expect("a copy");
        }
        self.restart().await;
        let _ = std::fs::remove_file(self.folder.path().join("dump.rdb"));
    }

    /// kill -9 and a new start with the same port and folder.
    pub async fn restart(&mut self) {
        self.kill9();
        self.child = spawn_server(&self.options, self.folder.path());
        self.wait_for_answer().await;
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill9();
    }
}

fn config(options: &RedisOptions, port: u16, folder: &Path) -> String {
    let folder = folder.display();
    let ports = if options.tls {
        format!("port 0\ntls-port {port}")
    } else {
        format!("port {port}")
    };
    // The last word on a line counts: an included file goes before the harness's defaults, the test's
    // own lines before that, and nothing before where the server lies.
    let data = if options.sentinel {
        ""
    } else {
        "save \"\"\nappendonly no\nenable-debug-command yes\n"
    };
    let included: String = lines(options, |line| line.starts_with("include "));
    let others: String = lines(options, |line| !line.starts_with("include "));
    format!(
        "{data}{included}{others}bind 127.0.0.1\n{ports}\nunixsocket {folder}/socket\ndir {folder}\n\
         daemonize no\nlogfile {folder}/log\npidfile {folder}/pid\n"
    )
}

fn lines(options: &RedisOptions, wanted: impl Fn(&str) -> bool) -> String {
    let lines = options.lines.lines().filter(|line| wanted(line));
    lines.map(|line| format!("{line}\n")).collect()
}

fn spawn_server(options: &RedisOptions, folder: &Path) -> Child {
    let program = SERVERS.iter().find_map(|name| find(name));
    let program = program.expect("redis-server or valkey-server in PATH: apt install redis-server");
    let config = folder.join("redis.conf");
    let config = config.to_str().expect("a path in UTF-8");
    let arguments: &[&str] = if options.sentinel {
        &[config, "--sentinel"]
    } else {
        &[config]
    };
    spawn(&program, arguments).expect("the server starts")
}

/// One command over a new connection to the socket.
async fn command(socket: &Path, password: Option<&str>, words: &[&str]) -> RedisResult<Value> {
    let query = password.map_or_else(String::new, |password| format!("?pass={password}"));
    let client = redis::Client::open(format!("unix://{}{query}", socket.display()))?;
    let timeouts = redis::AsyncConnectionConfig::new().set_response_timeout(Some(START_LIMIT));
    let connection = client.get_multiplexed_async_connection_with_config(&timeouts);
    let mut connection = connection.await?;
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(&mut connection).await
}

/// Deletes folders of servers whose test process is gone: a shared server is killed, not dropped.
fn remove_left_folders() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let id = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER_PREFIX));
        let Some((id, _)) = id.and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(id).exists() {
            // Another test process may be deleting it too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
