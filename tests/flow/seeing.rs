//! An API beside a cluster, and what is read through it: lines, commands, keys that are left.

use std::time::Duration;

use kubeleet::client::{Client, Lines};
use kubeleet::model::service::RestartPolicy;
use kubeleet::model::{LogItem, ServiceKey, ServiceSpec};
use kubeleet::settings::Settings;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::cluster::{Cluster, SOON};
use crate::support::eventually;

/// An API of a cluster; it ends with the test.
pub(crate) struct Seeing {
    pub(crate) address: String,
    pub(crate) client: Client,
    pub(crate) shutdown: CancellationToken,
    _ends: DropGuard,
}

impl Seeing {
    pub(crate) async fn into(cluster: &Cluster) -> Seeing {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let settings: Settings = cluster.settings.clone();
        let (store, ends) = (cluster.store.clone(), shutdown.clone());
        tokio::spawn(async move {
            kubeleet::api::run(listener, store, &settings, ends)
                .await
                .unwrap();
        });
        Seeing {
            client: Client::new(&address).unwrap(),
            address,
            shutdown: shutdown.clone(),
            _ends: shutdown.drop_guard(),
        }
    }

    /// The lines at `path`.
    pub(crate) async fn open(&self, path: &str) -> Reader {
        let lines = self.client.lines(path).await;
        Reader {
            lines: lines.unwrap_or_else(|error| panic!("{path}: {error}")),
            items: Vec::new(),
        }
    }

    /// All lines of an answer that ends.
    pub(crate) async fn all(&self, path: &str) -> Vec<LogItem> {
        self.open(path).await.rest().await
    }
}

/// Reads the lines of an answer.
pub(crate) struct Reader {
    lines: Lines,
    items: Vec<LogItem>,
}

impl Reader {
    /// Waits until so many lines have come that were not given out yet, and gives them.
    pub(crate) async fn next(&mut self, count: usize) -> Vec<LogItem> {
        let read = async {
            while self.items.len() < count {
                assert!(self.more().await, "it ends after {:?}", self.items);
            }
        };
        if tokio::time::timeout(SOON, read).await.is_err() {
            panic!("only {:?} came", self.items);
        }
        self.items.drain(..count).collect()
    }

    /// Waits until the answer ends, and gives what is left of it.
    pub(crate) async fn rest(mut self) -> Vec<LogItem> {
        let read = async { while self.more().await {} };
        if tokio::time::timeout(SOON, read).await.is_err() {
            panic!("it does not end; so far: {:?}", self.items);
        }
        self.items
    }

    async fn more(&mut self) -> bool {
        let is_more = self.lines.more().await.unwrap();
        while let Some(line) = self.lines.next_line() {
            let item = serde_json::from_slice(line);
            let text = String::from_utf8_lossy(line);
            self.items
                .push(item.unwrap_or_else(|error| panic!("{text}: {error}")));
        }
        is_more
    }
}

/// The texts of lines.
pub(crate) fn texts(items: &[LogItem]) -> Vec<&str> {
    items
        .iter()
        .map(|item| item.line.as_deref().unwrap_or("no line"))
        .collect()
}

/// The reasons in place of lines.
pub(crate) fn errors(items: &[LogItem]) -> Vec<&str> {
    items
        .iter()
        .filter_map(|item| item.error.as_deref())
        .collect()
}

impl Cluster {
    /// Submits a service whose containers are not started again when they end.
    pub(crate) async fn submit_once(&self, name: &str, replicas: u32) -> ServiceKey {
        let change = |spec: &mut ServiceSpec| spec.restart.policy = RestartPolicy::Never;
        self.submit_spec(name, replicas, change).await
    }

    /// Waits until no session is left.
    pub(crate) async fn no_session_is_left(&self, limit: Duration) {
        eventually(limit, "no session is left", async || {
            match self.keys_like("session*").await {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await;
    }
}
