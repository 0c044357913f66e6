//! The API of a walk: killed and started again at any moment, and asked until it answers.

use std::time::{Duration, Instant};

use kubeleet::settings::Settings;
use kubeleet::store::Store;
use kubeleet::store::connection::Redis;
use tokio_util::sync::CancellationToken;

use super::HEALED;
use crate::support::http::ask;
use crate::support::station::Station;

/// Pause before an unanswered request is made again.
const PAUSE: Duration = Duration::from_millis(20);

/// An API and where it listens.
pub(crate) struct Door {
    settings: Settings,
    api: Option<Station<()>>,
    address: String,
}

/// An answer below 500.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// An earlier try of the same request got no answer, and may have been carried out.
    pub(crate) again: bool,
}

impl Said {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Door {
    pub(crate) fn open(settings: &Settings) -> Door {
        let mut door = Door {
            settings: settings.clone(),
            api: None,
            address: String::new(),
        };
        door.start();
        door
    }

    fn start(&mut self) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        self.address = listener.local_addr().expect("an address").to_string();
        let settings = self.settings.clone();
        self.api = Some(Station::start(async move |shutdown| {
            let redis = Redis::connect(&settings.redis, CancellationToken::new());
            let store = Store::new(redis, &settings.key_prefix);
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let served = kubeleet::api::run(listener, store, &settings, shutdown).await;
            served.expect("it serves");
        }));
    }

    /// Kills the API wherever it is; the next request finds another.
    pub(crate) fn kill(&mut self) {
        self.api = None;
    }

    /// Asks until that is answered with less than 500, as a careful user would. With `cut`, the API
    /// is killed so long after it was asked first.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        key: &str,
        body: &str,
        cut: Option<Duration>,
    ) -> Said {
        let until = Instant::now() + HEALED;
        let mut again = false;
        let mut last = "not asked".to_owned();
        while Instant::now() < until {
            if self.api.is_none() {
                self.start();
            }
            let address = self.address.clone();
            let request = ask(method, &address, path, key, body);
            let answered = match cut.filter(|_| !again) {
                None => request.await,
                Some(cut) => {
                    let kill = async {
                        tokio::time::sleep(cut).await;
                        self.kill();
                    };
                    tokio::join!(request, kill).0
                }
            };
            match answered {
                Ok((status, body)) if status < 500 => {
                    return Said {
                        status,
                        body,
                        again,
                    };
                }
                other => last = format!("{other:?}"),
            }
            again = true;
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{method} {path} {body}: no answer within {HEALED:?}, only {last}");
    }
}
