//! What a cluster is asked to do, by a user and by hand.

use std::time::Duration;

use kubeleet::model::{Event, EventFilter, PodId, ServiceKey, ServiceSpec};
use kubeleet::store::{ScaleOutcome, Submit, SubmitOutcome};
use redis::{Cmd, FromRedisValue};

use super::super::all_events;
use super::{Cluster, IMAGE};

/// A plain command of a test is answered within this time.
const ANSWERED: Duration = Duration::from_secs(10);

impl Cluster {
    /// Submits a service of so many replicas.
    pub async fn submit(&self, name: &str, replicas: u32) -> ServiceKey {
        self.submit_spec(name, replicas, |_| {}).await
    }

    /// Submits a service with more in its spec.
    pub async fn submit_spec(
        &self,
        name: &str,
        replicas: u32,
        change: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceKey {
        let mut spec = ServiceSpec::new(name, IMAGE);
        spec.replicas = replicas;
        change(&mut spec);
        let submit = Submit {
            spec: &spec,
            submission: &PodId::new_submission(),
            idempotency: None,
            mode: kubeleet::store::SubmitMode::Create,
        };
        let outcome = self.store.services().submit(&submit).await;
        assert!(
            matches!(outcome, Ok(SubmitOutcome::Created { .. })),
            "{outcome:?}"
        );
        spec.key()
    }

    /// Changes a service that stands, or makes it; its number of replicas stays.
    pub async fn apply(&self, name: &str, change: impl FnOnce(&mut ServiceSpec)) -> SubmitOutcome {
        let mut spec = ServiceSpec::new(name, IMAGE);
        change(&mut spec);
        let submit = Submit {
            spec: &spec,
            submission: &PodId::new_submission(),
            idempotency: None,
            mode: kubeleet::store::SubmitMode::Apply {
                keep_replicas: true,
                expected: None,
            },
        };
        let outcome = self.store.services().submit(&submit).await;
        outcome.expect("it is applied")
    }

    pub async fn scale(&self, service: &ServiceKey, replicas: u32) {
        let submission = PodId::new_submission();
        let services = self.store.services();
        let scaled = services.scale(service, replicas, &submission, None).await;
        assert_eq!(scaled.expect("it is scaled"), ScaleOutcome::Done);
    }

    /// A key with this cluster's prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings.key_prefix)
    }

    /// One command, over a connection of its own.
    pub async fn redis<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.settings.redis.url.0.as_str()).expect("a URL");
        // On a busy machine the default of half a second is no time.
        let limit = redis::AsyncConnectionConfig::new().set_response_timeout(Some(ANSWERED));
        let connection = client.get_multiplexed_async_connection_with_config(&limit);
        let connection = connection.await;
        let mut connection = connection.expect("a connection");
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = command.query_async(&mut connection).await;
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Pushes an entry by hand.
    pub async fn push(&self, list: &str, entry: &str) {
        let _: u64 = self.redis(&["LPUSH", &self.key(list), entry]).await;
    }

    /// Pushes entries by hand, all at once.
    pub async fn push_all(&self, list: &str, entries: impl Iterator<Item = String>) {
        let mut words = vec!["LPUSH".to_owned(), self.key(list)];
        words.extend(entries);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let _: u64 = self.redis(&words).await;
    }

    /// When, in Redis's milliseconds, which pods were given to a node by a scheduler.
    pub async fn placed_on(&self, node: &str) -> Vec<(u64, String)> {
        let filter = EventFilter {
            kind: Some("scheduled".to_owned()),
            node: Some(node.to_owned()),
            ..EventFilter::default()
        };
        let events = self.events(&filter).await.into_iter();
        let placed = events.filter(|event| event.by == "scheduler");
        let placed = placed.map(|event| (event.when_ms, event.pod.expect("a pod").to_string()));
        placed.collect()
    }

    /// All events that are kept, oldest first.
    pub async fn events(&self, filter: &EventFilter) -> Vec<Event> {
        all_events(&self.store, filter).await
    }

    /// All keys of this cluster, without its prefix.
    pub async fn keys(&self) -> Vec<String> {
        self.keys_like("*").await
    }

    /// Those that match a pattern.
    pub async fn keys_like(&self, pattern: &str) -> Vec<String> {
        let pattern = self.key(pattern);
        let keys: Vec<String> = self.redis(&["KEYS", &pattern]).await;
        let prefix = self.settings.key_prefix.as_str();
        let mut keys: Vec<String> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(prefix).map(str::to_owned))
            .collect();
        keys.sort();
        keys
    }
}
