//! Images: each is pulled once for all pods that wait for it, with back-off, and told of meanwhile.
//!
//! ```text
//!  pods that wait ──▶ Pull (one an image and login) ──▶ a place among PULLS_MAX ──▶ the engine
//!        ▲                      │ words for the pods, at most one a second               │
//!        └──────────────────────┴──── fails? a pause that doubles, PULL_TRIES_MAX times ◀┘
//! ```
//!
//! What a registry refuses (no such image, no such login) is not tried again here: the pod fails,
//! and whoever replaces it, at its own pace, meets a tag that has appeared meanwhile. What may pass
//! is tried [`PULL_TRIES_MAX`] times, and then the pod fails too, so that another node may try.
//!
//! Invariants:
//! * One pull of an image at a time (`tests/flow/poison.rs`); logins are never mixed: a pod waits
//!   only for a pull by the login that it would use itself.
//! * No password is in what is told or logged (`tests/smoke/registry.rs`).

pub(super) mod removal;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::container::{PullProgress, Runtime, RuntimeError};
use crate::model::ImageReference;
use crate::model::image::DOCKER_HUB;
use crate::model::service::RegistryLogin;
use crate::settings::AgentSettings;
use crate::telemetry::chain;

/// Pulls at once on a node: more would only share the line, and each would end later.
const PULLS_MAX: usize = 3;
/// Tries of a pull whose failure may pass: with their pauses about 15 s, and what the tries take.
const PULL_TRIES_MAX: u32 = 5;
/// Pause after the first try that failed; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// Shortest time between two words about progress: each is a write for every pod that waits.
const WORDS_INTERVAL: Duration = Duration::from_secs(1);

/// The images of one node.
pub(super) struct Images {
    runtime: Runtime,
    settings: AgentSettings,
    pulls: Arc<Mutex<HashMap<String, Vec<Pull>>>>,
    places: Arc<Semaphore>,
    /// Images that were pulled since the last look at the disk.
    pulled: Arc<Mutex<Vec<String>>>,
    /// Wakes that look.
    look: Arc<Notify>,
    ends: CancellationToken,
}

/// A pull under way.
struct Pull {
    login: Option<RegistryLogin>,
    state: Waiting,
}

/// Where a pull is, for all pods that wait for it. Ends without a last word when the agent ends.
pub(super) type Waiting = watch::Receiver<PullState>;

/// Where a pull is.
#[derive(Debug, Clone)]
pub(super) enum PullState {
    /// It goes on; words for the pods that wait.
    Pulling(String),
    /// The image is here.
    Pulled,
    /// It is not to be had: words for the pods.
    Failed(String),
    /// The engine does not answer.
    EngineAway,
}

impl Images {
    pub(super) fn new(
        runtime: Runtime,
        settings: AgentSettings,
        ends: CancellationToken,
    ) -> Images {
        Images {
            runtime,
            settings,
            pulls: Arc::default(),
            places: Arc::new(Semaphore::new(PULLS_MAX)),
            pulled: Arc::default(),
            look: Arc::default(),
            ends,
        }
    }

    /// The pull of an image that is under way, or a new one; by the login of its service, or else
    /// by the node's own for that registry.
    pub(super) fn pull(&self, image: &str, service: Option<&RegistryLogin>) -> Waiting {
        let host = ImageReference::host_of(image).unwrap_or(DOCKER_HUB);
        let mut nodes = self.settings.registries.iter();
        let node_login = || {
            let registry = nodes.find(|registry| registry.host == host)?;
            Some(RegistryLogin {
                username: registry.username.clone(),
                password: registry.password.0.clone(),
            })
        };
        let login = service.cloned().or_else(node_login);
        let mut pulls = lock(&self.pulls);
        let under_way = pulls.entry(image.to_owned()).or_default();
        if let Some(pull) = under_way.iter().find(|pull| pull.login == login) {
            return pull.state.clone();
        }
        let before = under_way.iter().map(|pull| pull.state.clone()).collect();
        let (tell, state) = watch::channel(PullState::Pulling(format!("pulling image {image}")));
        under_way.push(Pull {
            login: login.clone(),
            state: state.clone(),
        });
        drop(pulls);
        let puller = Puller {
            image: image.to_owned(),
            whose: match (service, &login) {
                (Some(_), _) => "the service's",
                (None, Some(_)) => "the node's",
                (None, None) => "no",
            },
            login,
            runtime: self.runtime.clone(),
            places: self.places.clone(),
            tell,
        };
        self.spawn(puller, before);
        state
    }

    /// In a task of its own: a pod that stops waiting must not end it for the others.
    fn spawn(&self, puller: Puller, before: Vec<Waiting>) {
        let (pulls, pulled, look) = (self.pulls.clone(), self.pulled.clone(), self.look.clone());
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let end = ends.run_until_cancelled(puller.run(before)).await;
            if let Some(under_way) = lock(&pulls).get_mut(&puller.image) {
                under_way.retain(|pull| pull.login != puller.login);
            }
            lock(&pulls).retain(|_, under_way| !under_way.is_empty());
            let Some(end) = end else { return };
            if matches!(end, PullState::Pulled) {
                lock(&pulled).push(puller.image);
                look.notify_one();
            }
            puller.tell.send_replace(end);
        });
    }
}

/// What pulls one image.
struct Puller {
    image: String,
    login: Option<RegistryLogin>,
    /// Whose login it is, for words.
    whose: &'static str,
    runtime: Runtime,
    places: Arc<Semaphore>,
    tell: watch::Sender<PullState>,
}

impl Puller {
    async fn run(&self, before: Vec<Waiting>) -> PullState {
        for mut pull in before {
            // By another login: its end, whatever it is, or the agent's.
            let goes_on = |state: &PullState| matches!(state, PullState::Pulling(_));
            let _ = pull.wait_for(|state| !goes_on(state)).await;
        }
        let image = &self.image;
        let mut pause = PAUSE_FIRST;
        let mut tries = 1;
        loop {
            let error = match self.pull_once().await {
                Ok(()) => return PullState::Pulled,
                Err(error @ RuntimeError::Unreachable { .. }) => {
                    tracing::warn!(image, error = chain(&error), "pull ended with the engine");
                    return PullState::EngineAway;
                }
                Err(error @ RuntimeError::ImageDenied { .. }) => {
                    return PullState::Failed(self.denied(&error));
                }
                Err(error) => error,
            };
            let why = chain(&error);
            if tries == PULL_TRIES_MAX {
                return PullState::Failed(format!(
                    "pulling image {image} failed {tries} times: {why}"
                ));
            }
            tracing::warn!(image, tries, error = why, "pull failed, trying again");
            self.tell(format!(
                "pulling image {image} failed, try {tries} of {PULL_TRIES_MAX}, the next in {pause:?}: {why}"
            ));
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    async fn pull_once(&self) -> Result<(), RuntimeError> {
        let image = &self.image;
        let _place = match self.places.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => {
                self.tell(format!(
                    "pulling image {image}: waits for other pulls of its node"
                ));
                self.places.acquire().await
            }
        };
        self.tell(format!("pulling image {image}"));
        tracing::info!(image, login = self.whose, "pulling image");
        let told = Mutex::new(Instant::now());
        let progress = |come: PullProgress| {
            let now = Instant::now();
            let mut told = lock(&told);
            if now - *told >= WORDS_INTERVAL {
                *told = now;
                self.tell(format!("pulling image {image}: {}", shown(come)));
            }
        };
        let login = self.login.as_ref();
        self.runtime.pull(image, login, &progress).await
    }

    fn tell(&self, words: String) {
        self.tell.send_replace(PullState::Pulling(words));
    }

    /// A registry's refusal, and who asked: most often it is the login that is wrong.
    fn denied(&self, error: &RuntimeError) -> String {
        let by = match &self.login {
            Some(login) => format!("asked as {:?}, {} login", login.username, self.whose),
            None => "asked without a login: give `registry` in the service, or agent.registries on the node".to_owned(),
        };
        format!("{} ({by})", chain(error))
    }
}

/// How far a pull has come: `12.3 of 45.6 MB`.
fn shown(come: PullProgress) -> String {
    let tenths = |bytes: u64| {
        let tenths = bytes / 100_000;
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    format!("{} of {} MB", tenths(come.bytes), tenths(come.bytes_all))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is made in one piece, so a panic elsewhere leaves it sound.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
