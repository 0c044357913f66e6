//! Turns settings into what redis-rs connects with: address, user, TLS and socket options.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo, RedisError, TlsCertificates,
};

use super::error::ConnectionError;
use crate::settings::{RedisSettings, redacted};

/// How a Redis is reached, once its address is known.
pub(crate) struct Access {
    /// The Redis of `redis.url`; with Sentinels its host and port are replaced by what they say.
    pub(crate) url: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    pub(crate) sentinels: Vec<ConnectionInfo>,
    pub(crate) master_name: String,
    pub(crate) pool_size: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

impl Access {
    pub(crate) fn of(settings: &RedisSettings) -> Result<Access, ConnectionError> {
        let root_cert = file(&settings.ca_file)?;
        let own = (file(&settings.cert_file)?, file(&settings.key_file)?);
        let client_tls = match own {
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig {
                client_cert,
                client_key,
            }),
            _ => None,
        };
        let given = root_cert.is_some() || client_tls.is_some();
        let certificates = given.then_some(TlsCertificates {
            client_tls,
            root_cert,
        });
        let mut access = Access {
            url: parse(&settings.url.0)?,
            certificates,
            sentinels: Vec::new(),
            master_name: settings.master.clone(),
            pool_size: settings.pool_size,
            connect_timeout: settings.connect_timeout,
            response_timeout: settings.response_timeout,
        };
        access.url = access.equipped(access.url.clone(), &settings.url.0)?;
        let tls = is_tls(&access.url);
        for sentinel in &settings.sentinels {
            let info = match (sentinel.0.contains("://"), tls) {
                (true, _) => parse(&sentinel.0)?,
                (false, true) => parse(&format!("rediss://{}", sentinel.0))?,
                (false, false) => parse(&format!("redis://{}", sentinel.0))?,
            };
            access.sentinels.push(access.equipped(info, &sentinel.0)?);
        }
        if tls || access.sentinels.iter().any(is_tls) {
            choose_tls_provider();
        }
        Ok(access)
    }

    /// The one address there is, where no Sentinels are given.
    pub(crate) fn fixed_address(&self) -> Option<String> {
        self.sentinels
            .is_empty()
            .then(|| self.url.addr().to_string())
    }

    /// The master at `address`, `host:port` as Sentinels say it; the fixed one stays what it is.
    pub(crate) fn master(&self, address: &str) -> Result<ConnectionInfo, ConnectionError> {
        if self.sentinels.is_empty() {
            return Ok(self.url.clone());
        }
        self.at(address)
    }

    /// The server at `host:port`, with user, password and TLS of `redis.url`.
    pub(crate) fn at(&self, address: &str) -> Result<ConnectionInfo, ConnectionError> {
        let parsed = address.rsplit_once(':');
        let parsed = parsed.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let Some((host, port)) = parsed else {
            let error = redis::ErrorKind::InvalidClientConfig;
            return Err(ConnectionError::Address {
                address: address.to_owned(),
                source: (error, "a Sentinel's answer is no host and port").into(),
            });
        };
        let addr = match self.url.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Ok(self.url.clone().set_addr(addr))
    }

    /// Adds socket options, and the certificate authorities where TLS is used.
    fn equipped(
        &self,
        info: ConnectionInfo,
        address: &str,
    ) -> Result<ConnectionInfo, ConnectionError> {
        let tcp = TcpSettings::default()
            // Commands are small and each is waited for: Nagle's delay would be pure loss.
            .set_nodelay(true)
            // A peer that vanished without a word is noticed here rather than after 15 minutes.
            .set_user_timeout(self.connect_timeout + self.response_timeout);
        let info = info.set_tcp_settings(tcp);
        match &self.certificates {
            Some(certificates) if is_tls(&info) => {
                let client = Client::build_with_tls(info, certificates.clone());
                let client = client.map_err(|source| ConnectionError::Address {
                    address: redacted(address),
                    source,
                })?;
                Ok(client.get_connection_info().clone())
            }
            _ => Ok(info),
        }
    }

    /// A connection for one user's own, to whatever answers there: nobody asks whether it is a master.
    pub(crate) async fn open(
        &self,
        info: ConnectionInfo,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(info)?;
        let timeouts = self.timeouts(Duration::ZERO);
        client
            .get_multiplexed_async_connection_with_config(&timeouts)
            .await
    }

    /// Time-outs of a connection whose commands block up to `longest_block`. redis-rs's own default
    /// of 500 ms would break off a blocking command and let its item vanish.
    pub(crate) fn timeouts(&self, longest_block: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(longest_block + self.response_timeout))
    }
}

/// What is in a file of certificates, if one is named.
fn file(path: &Path) -> Result<Option<Vec<u8>>, ConnectionError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let read = std::fs::read(path).map_err(|source| ConnectionError::CertificateFile {
        path: path.to_owned(),
        source,
    });
    read.map(Some)
}

fn parse(address: &str) -> Result<ConnectionInfo, ConnectionError> {
    address
        .into_connection_info()
        .map_err(|source| ConnectionError::Address {
            address: redacted(address),
            source,
        })
}

pub(crate) fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// rustls has no provider of its own here, and refuses to work until one is chosen.
fn choose_tls_provider() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        // The only error is that the process chose one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
