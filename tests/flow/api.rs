//! An API served in this process on a free port, and a plain HTTP client to ask it.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kubeleet::settings::{Secret, Settings};
use kubeleet::store::Store;
use kubeleet::store::connection::Redis;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sse::Stream;
use crate::support::cluster::Cluster;
use crate::support::{RedisServer, eventually, shared_redis};

/// Longest wait for the API to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A served API; it ends with the test.
pub(crate) struct TestApi {
    /// `127.0.0.1:port`
    pub(crate) address: String,
    /// The same door the API uses.
    pub(crate) store: Store,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    served: JoinHandle<()>,
    shutdown: CancellationToken,
    _ends: DropGuard,
}

/// An answer: its status, headers and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// That it is a problem of this kind, said as one.
    pub(crate) fn assert_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], format!("/problems/{kind}"), "{self:?}");
        assert_eq!(self.body["status"], status);
        for field in ["title", "detail"] {
            assert!(!self.body[field].as_str().unwrap().is_empty(), "{self:?}");
        }
        assert!(!self.header("x-request-id").is_empty());
    }

    /// The strings of a list in the body.
    pub(crate) fn texts(&self, list: &str, field: &str) -> Vec<String> {
        let items = self.body[list].as_array().unwrap();
        let text = |item: &Value| match field {
            "" => item.as_str().unwrap().to_owned(),
            field => item[field].as_str().unwrap().to_owned(),
        };
        items.iter().map(text).collect()
    }
}

impl TestApi {
    /// On the shared server, with keys of its own.
    pub(crate) async fn start(prefix: &str) -> TestApi {
        TestApi::on(shared_redis().await, prefix, |_| {}).await
    }

    /// On this server, with settings changed.
    pub(crate) async fn on(
        redis: &RedisServer,
        prefix: &str,
        change: impl FnOnce(&mut Settings),
    ) -> TestApi {
        let mut settings = Settings {
            key_prefix: format!("{{{prefix}}}:"),
            ..Settings::default()
        };
        settings.redis.url = Secret(redis.url());
        // A Redis that restarts without its data has lost it.
        settings.redis.recovery_time = Duration::from_millis(5);
        change(&mut settings);
        TestApi::with(settings).await
    }

    /// Of this cluster.
    pub(crate) async fn of(cluster: &Cluster) -> TestApi {
        TestApi::with(cluster.settings.clone()).await
    }

    async fn with(settings: Settings) -> TestApi {
        let shutdown = CancellationToken::new();
        let store = Store::new(
            Redis::connect(&settings.redis, CancellationToken::new()),
            &settings.key_prefix,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn({
            let (store, shutdown) = (store.clone(), shutdown.clone());
            async move {
                kubeleet::api::run(listener, store, &settings, shutdown)
                    .await
                    .unwrap();
            }
        });
        TestApi {
            address,
            store,
            http: legacy::Client::builder(TokioExecutor::new()).build_http(),
            served,
            shutdown: shutdown.clone(),
            _ends: shutdown.drop_guard(),
        }
    }

    /// Lets a controller work until no service is due.
    pub(crate) async fn control(&self) {
        let settings = Settings::default().scheduler;
        while kubeleet::controller::round(&self.store, &settings)
            .await
            .unwrap()
            > 0
        {}
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(Method::PUT, path, &json, body).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(Method::POST, path, &json, body).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let answer = self.begin(method, path, headers, body).await;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
            bytes,
        }
    }

    /// An answer whose body is still to be read.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Response<Incoming> {
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.url()).parse().unwrap();
        for (name, value) in headers {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        self.http.request(request).await.unwrap()
    }

    /// A stream of server-sent events, behind a position if one is given.
    pub(crate) async fn stream(&self, path: &str, position: Option<&str>) -> Stream {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(position.map(|position| ("last-event-id", position)));
        let answer = self.begin(Method::GET, path, &headers, "").await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Stream::new(answer.into_body(), position)
    }

    /// Empties Redis, and submits a service once it is open again.
    pub(crate) async fn empty(&self, redis: &RedisServer, body: &str) {
        redis.must(&["FLUSHALL"]).await;
        self.store.open().await.unwrap();
        self.store.recovery().check().await.unwrap();
        let submitted = async || match self.post("/service", body.to_owned()).await {
            answer if answer.status == 201 => Ok(()),
            answer => Err(format!("{answer:?}")),
        };
        eventually(END_LIMIT, "services are accepted", submitted).await;
    }

    /// Whether a stream is begun; it is left at once.
    pub(crate) async fn stream_status(&self, path: &str) -> u16 {
        let headers = [("accept", "text/event-stream")];
        let answer = self.begin(Method::GET, path, &headers, "").await;
        answer.status().as_u16()
    }

    /// All items of a listing, page by page of `limit`, and how many pages there were.
    pub(crate) async fn all(&self, path: &str, limit: usize) -> (Vec<Value>, usize) {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut pages, mut cursor) = (Vec::new(), 0, String::new());
        loop {
            let page = format!("{path}{separator}limit={limit}{cursor}");
            let page = self.get(&page).await;
            assert_eq!(page.status, 200, "{page:?}");
            let found = page.body["items"].as_array().unwrap();
            assert!(found.len() <= limit);
            items.extend(found.iter().cloned());
            pages += 1;
            match page.body["cursor"].as_str() {
                None => return (items, pages),
                Some(next) => cursor = format!("&cursor={}", kubeleet::client::escape(next)),
            }
        }
    }

    /// Ends it, and waits until it has drained.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(END_LIMIT, self.served)
            .await
            .expect("the API ends in time")
            .unwrap();
    }
}

/// Every key with its content.
pub(crate) async fn content(redis: &RedisServer) -> BTreeMap<String, String> {
    let keys = texts(redis.must(&["KEYS", "*"]).await);
    let mut content = BTreeMap::new();
    // What says which cluster this is comes with the API itself.
    for key in keys.into_iter().filter(|key| !key.ends_with("cluster")) {
        let dump = redis.must(&["DUMP", &key]).await;
        content.insert(key, format!("{dump:?}"));
    }
    content
}

/// The texts of a list that Redis answered.
pub(crate) fn texts(value: redis::Value) -> Vec<String> {
    redis::from_redis_value(value).unwrap()
}
