//! A small typed HTTP client of kubeleet's API, for the command line and other faces.
//!
//! Knows the API by its addresses and bodies alone. Must never open Redis, and never retry: what
//! a person typed is answered at once. Only a stream that was open is opened again.

mod error;
mod exec;
mod lines;
mod sse;

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::model::ServiceKey;

pub use error::{ClientError, ProblemAnswer};
pub use exec::{ExecIncoming, ExecOutgoing};
pub use lines::Lines;
pub use sse::{Follow, ServerEvent};

/// Where the API is, where nobody says otherwise: the default of the setting `api.listen`.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8080";
/// Longest time for a request and its answer: twice what the API takes itself.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which an API is asked for a sign of life: an answer may take as long as it wants.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Most bytes of an answer: a page of 1,000 services with the largest specs is smaller than what
/// a person waits for.
const ANSWER_MAX: usize = 256 * 1024 * 1024;
/// Items asked for by one request: the most the API gives.
const PAGE: &str = "1000";

/// A client of one API.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    http: legacy::Client<HttpConnector, Full<Bytes>>,
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    cursor: Option<String>,
}

impl Client {
    /// A client of the API at `address`, such as `http://127.0.0.1:8080` or `127.0.0.1:8080`.
    ///
    /// # Errors
    /// `address` is none that this client can use.
    pub fn new(address: &str) -> Result<Client, ClientError> {
        let refuse = |reason| ClientError::Address {
            address: address.to_owned(),
            reason,
        };
        let whole = match address.split_once("://") {
            Some(("http", _)) => address.to_owned(),
            Some(_) => return Err(refuse("it has to begin with http://")),
            None => format!("http://{address}"),
        };
        let whole = whole.trim_end_matches('/');
        let uri: Uri = whole
            .parse()
            .map_err(|_| refuse("an address such as http://127.0.0.1:8080 is needed"))?;
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        let place = uri.authority().map(|place| place.as_str());
        let with_port = uri.port_u16().map(|port| format!("{host}:{port}"));
        if place != Some(host) && place != with_port.as_deref() {
            return Err(refuse("it has to be a host and a port from 1 to 65535"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(refuse("it has to end after the port"));
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        Ok(Client {
            address: whole.to_owned(),
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// The address it speaks to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What is at `path`, which is escaped already.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// All items of a listing, page by page; parameters without a value are left out.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn all<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut all = parameters.to_vec();
            all.push(("limit", Some(PAGE)));
            all.push(("cursor", cursor.as_deref()));
            let page: Page<T> = self.get(&with_query(path, &all)).await?;
            items.extend(page.items);
            if page.cursor.is_none() {
                return Ok(items);
            }
            cursor = page.cursor;
        }
    }

    /// Submits a service; `wish` is the body of `POST /v1/services`.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn submit<T: DeserializeOwned>(&self, wish: &Value) -> Result<T, ClientError> {
        self.send(Method::POST, "/v1/services", Some(wish)).await
    }

    /// Makes or changes a service; `wish` is the body of `PUT /v1/services/{name}`. A dry run
    /// answers the same, and changes nothing.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn apply<T: DeserializeOwned>(
        &self,
        key: &ServiceKey,
        wish: &Value,
        dry_run: bool,
    ) -> Result<T, ClientError> {
        let dry_run = dry_run.then_some("true");
        let parameters = [
            ("namespace", Some(key.namespace.as_str())),
            ("dry_run", dry_run),
        ];
        let path = with_query(&service_path(&key.name), &parameters);
        self.send(Method::PUT, &path, Some(wish)).await
    }

    /// A service, if it is there.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn service<T: DeserializeOwned>(
        &self,
        key: &ServiceKey,
    ) -> Result<Option<T>, ClientError> {
        let parameters = [("namespace", Some(key.namespace.as_str()))];
        match self
            .get(&with_query(&service_path(&key.name), &parameters))
            .await
        {
            Ok(service) => Ok(Some(service)),
            Err(ClientError::Refused(problem)) if problem.is("service-not-found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes how many pods a service has.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn scale<T: DeserializeOwned>(
        &self,
        name: &str,
        namespace: Option<&str>,
        replicas: u32,
    ) -> Result<T, ClientError> {
        let path = format!("{}/scale", service_path(name));
        let path = with_query(&path, &[("namespace", namespace)]);
        let body = serde_json::json!({ "replicas": replicas });
        self.send(Method::POST, &path, Some(&body)).await
    }

    /// Deletes a service.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn delete_service<T: DeserializeOwned>(
        &self,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<T, ClientError> {
        let path = with_query(&service_path(name), &[("namespace", namespace)]);
        self.send(Method::DELETE, &path, None).await
    }

    /// Stops a pod without an owner.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn stop_pod<T: DeserializeOwned>(&self, id: &str) -> Result<T, ClientError> {
        let path = format!("/v1/pods/{}", escape(id));
        self.send(Method::DELETE, &path, None).await
    }

    /// A dead letter.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn dead<T: DeserializeOwned>(&self, id: &str) -> Result<T, ClientError> {
        self.get(&format!("/v1/dead/{}", escape(id))).await
    }

    /// Pushes the entry of a dead letter again.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn requeue_dead<T: DeserializeOwned>(&self, id: &str) -> Result<T, ClientError> {
        let path = format!("/v1/dead/{}/requeue", escape(id));
        self.send(Method::POST, &path, None).await
    }

    /// Drops a dead letter.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn drop_dead<T: DeserializeOwned>(&self, id: &str) -> Result<T, ClientError> {
        let path = format!("/v1/dead/{}", escape(id));
        self.send(Method::DELETE, &path, None).await
    }

    /// A node.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn node<T: DeserializeOwned>(&self, name: &str) -> Result<T, ClientError> {
        self.get(&format!("/v1/nodes/{}", escape(name))).await
    }

    /// Sets labels of a node; those without a value are removed.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn label_node<T: DeserializeOwned>(
        &self,
        name: &str,
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<T, ClientError> {
        let path = format!("/v1/nodes/{}", escape(name));
        let body = serde_json::json!({ "labels": labels });
        self.send(Method::PATCH, &path, Some(&body)).await
    }

    /// Marks a node: `cordon`, `uncordon` or `drain`.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn mark_node<T: DeserializeOwned>(
        &self,
        name: &str,
        mark: &str,
    ) -> Result<T, ClientError> {
        let path = format!("/v1/nodes/{}/{mark}", escape(name));
        self.send(Method::POST, &path, None).await
    }

    /// Forgets a node.
    ///
    /// # Errors
    /// The API says no, or cannot be reached.
    pub async fn remove_node<T: DeserializeOwned>(
        &self,
        name: &str,
        force: bool,
    ) -> Result<T, ClientError> {
        let path = format!("/v1/nodes/{}", escape(name));
        let path = with_query(&path, &[("force", force.then_some("true"))]);
        self.send(Method::DELETE, &path, None).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method, path, body);
        let (status, bytes) = self.in_time(exchange).await?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&bytes).map_err(|source| self.foreign(status, source));
        }
        Err(self.refusal(status, &bytes))
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let result = tokio::time::timeout(TIMEOUT, exchange).await;
        result.unwrap_or_else(|_| {
            Err(ClientError::TimedOut {
                address: self.address.clone(),
                waited: TIMEOUT,
            })
        })
    }

    /// What an answer that is no success means.
    fn refusal(&self, status: u16, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ProblemAnswer>(body) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(source) => self.foreign(status, source),
        }
    }

    fn foreign(&self, status: u16, source: serde_json::Error) -> ClientError {
        ClientError::Foreign {
            address: self.address.clone(),
            status,
            source,
        }
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Unreachable {
            address: self.address.clone(),
            source,
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Bytes), ClientError> {
        // A value's JSON form cannot fail: its keys are texts.
        let bytes = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut request = Request::new(Full::new(bytes));
        *request.method_mut() = method;
        let uri = format!("{}{path}", self.address);
        *request.uri_mut() = uri.parse().map_err(|_| ClientError::Address {
            address: uri,
            reason: "it is no address",
        })?;
        let json = HeaderValue::from_static("application/json");
        if body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, json.clone());
        }
        request.headers_mut().insert(ACCEPT, json);
        let answer = self.http.request(request).await;
        let answer = answer.map_err(|error| self.unreachable(error.into()))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| self.unreachable(error))?;
        Ok((status, body.to_bytes()))
    }
}

fn service_path(name: &str) -> String {
    format!("/v1/services/{}", escape(name))
}

/// `path` with those parameters that have a value.
pub fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut whole = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            whole.push(separator);
            whole.push_str(&format!("{name}={}", escape(value)));
            separator = '&';
        }
    }
    whole
}

/// Percent-encodes all but the characters that are safe anywhere in an address.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_use() {
        for (given, used) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("localhost:9000", "http://localhost:9000"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(Client::new(given).unwrap().address(), used);
        }
        for bad in [
            "",
            "https://x",
            "http://",
            "a b",
            "http://x/y",
            "ftp://x",
            "http://x:99999",
            "http://user@x:80",
        ] {
            assert!(Client::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_leave_out_what_is_not_given() {
        let parameters = [("a", Some("x/y z")), ("b", None), ("c", Some("1"))];
        assert_eq!(with_query("/p", &parameters), "/p?a=x%2Fy%20z&c=1");
        assert_eq!(with_query("/p", &[("a", None)]), "/p");
    }
}
