//! A cluster of its own for each test: the typed ports, plain commands beside them, short steps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kubeleet::model::{
    Capacity, EngineState, Phase, PodId, Resources, ServiceKey, ServiceSpec, Token,
};
use kubeleet::settings::{RedisSettings, SchedulerSettings};
use kubeleet::store::{
    AssignOutcome, Assignment, Beat, Claim, Parked, RegisterOutcome, Report, ReportOutcome, Store,
    StoreError, Submit, SubmitOutcome, TakeOutcome, Taken,
};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue};

use crate::connection::{LIMIT, connect, settings};
use crate::support::{RedisServer, shared_redis};

/// A node's lease; long, since tests age leases rather than wait.
pub(crate) const LEASE: Duration = Duration::from_secs(20);
/// A claim's lease.
pub(crate) const CLAIM: Duration = Duration::from_secs(10);
/// More than anything is old.
pub(crate) const LONG: u64 = 1_000_000;
pub(crate) const MIB: u64 = 1 << 20;

/// One cluster in a Redis, behind a prefix of its own.
pub(crate) struct Cluster {
    pub(crate) store: Store,
    pub(crate) prefix: String,
    plain: MultiplexedConnection,
}

/// What a pod of a test asks for.
pub(crate) fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        replicas,
        ..ServiceSpec::new(name, "an/image")
    }
}

pub(crate) fn asking(name: &str, replicas: u32, cpu_millis: u64, memory: u64) -> ServiceSpec {
    ServiceSpec {
        resources: Resources {
            cpu_millis,
            memory_bytes: memory,
            ..Resources::default()
        },
        ..spec(name, replicas)
    }
}

/// A beat of a node that is well and offers `pods_max` pods, 1 core and 1 GiB for each.
pub(crate) fn beat(pods_max: u32) -> Beat {
    Beat {
        engine: EngineState::Up,
        capacity: Capacity {
            pods_max,
            cpu_millis: u64::from(pods_max) * 1000,
            memory_bytes: u64::from(pods_max) << 30,
        },
        ..Beat::default()
    }
}

pub(crate) fn pod(id: &str) -> PodId {
    PodId::parse(id).expect("the id of a pod")
}

pub(crate) fn service(name: &str) -> ServiceKey {
    ServiceKey::parse(&format!("default/{name}")).expect("the key of a service")
}

impl Cluster {
    /// In the shared Redis, behind a prefix that no other test has.
    pub(crate) async fn new() -> Cluster {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let prefix = format!("t{}:", NEXT.fetch_add(1, Ordering::Relaxed));
        Cluster::on(shared_redis().await, &prefix).await
    }

    pub(crate) async fn on(server: &RedisServer, prefix: &str) -> Cluster {
        let settings = RedisSettings {
            response_timeout: LIMIT,
            connect_timeout: LIMIT,
            ..settings(server.url())
        };
        let client = redis::Client::open(format!("unix://{}", server.socket().display()))
            .expect("the path of a socket");
        // As long as the ports wait: on a busy machine the default of half a second is no time.
        let limit = AsyncConnectionConfig::new().set_response_timeout(Some(LIMIT));
        let plain = client.get_multiplexed_async_connection_with_config(&limit);
        let plain = plain.await;
        let cluster = Cluster {
            store: Store::new(connect(&settings), prefix),
            prefix: prefix.to_owned(),
            plain: plain.expect("a connection"),
        };
        // Without a cluster nothing is accepted: it may have been lost.
        match cluster.store.open().await {
            Ok(_) | Err(StoreError::Newer { .. }) => {}
            Err(error) => panic!("the cluster opens: {error}"),
        }
        cluster
    }

    /// Sends the words of `line`, in which `@` stands for the prefix.
    pub(crate) async fn ask<T: FromRedisValue>(&self, line: &str) -> T {
        let line = line.replace('@', &self.prefix);
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(&words).await
    }

    /// As [`Cluster::ask`] for words that hold spaces or bytes; no `@` is replaced.
    pub(crate) async fn send<T: FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer = command.query_async(&mut self.plain.clone()).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", String::from_utf8_lossy(words[0])))
    }

    pub(crate) async fn push(&self, list: &str, entry: &[u8]) {
        let key = format!("{}{list}", self.prefix);
        let _: u64 = self.send(&[b"LPUSH", key.as_bytes(), entry]).await;
    }

    /// A list as it is served: from right to left.
    pub(crate) async fn served(&self, list: &str) -> Vec<String> {
        let mut entries: Vec<String> = self.ask(&format!("LRANGE @{list} 0 -1")).await;
        entries.reverse();
        entries
    }

    /// As [`Cluster::served`], where entries may be no text.
    pub(crate) async fn served_lossy(&self, list: &str) -> Vec<String> {
        let entries: Vec<Vec<u8>> = self.ask(&format!("LRANGE @{list} 0 -1")).await;
        let texts = entries.iter().rev();
        texts
            .map(|entry| String::from_utf8_lossy(entry).into_owned())
            .collect()
    }

    pub(crate) async fn field(&self, key: &str, field: &str) -> String {
        let value: Option<String> = self.ask(&format!("HGET @{key} {field}")).await;
        value.unwrap_or_default()
    }

    pub(crate) async fn number(&self, key: &str, field: &str) -> u64 {
        self.field(key, field).await.parse().unwrap_or(0)
    }

    pub(crate) async fn phase(&self, id: &PodId) -> String {
        self.field(&format!("pod:{id}"), "phase").await
    }

    /// Redis's clock.
    pub(crate) async fn now_ms(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask("TIME").await;
        seconds * 1000 + micros / 1000
    }

    pub(crate) async fn register(&self, node: &str, beat: &Beat) -> u64 {
        let registered = self.store.nodes().register(node, node, LEASE, beat).await;
        match registered.expect("a registration") {
            RegisterOutcome::Registered { epoch, .. } => epoch,
            RegisterOutcome::Taken { left } => panic!("{node} is taken for {left:?}"),
        }
    }

    /// Makes a node's last heartbeat `ms` older.
    pub(crate) async fn age(&self, node: &str, ms: u64) {
        let heard = self.number(&format!("node:{node}"), "heartbeat_ms").await - ms;
        let _: u64 = self
            .ask(&format!("HSET @node:{node} heartbeat_ms {heard}"))
            .await;
        let _: u64 = self.ask(&format!("ZADD @nodes {heard} {node}")).await;
    }

    /// Lets the sweep begin at once, as if Redis had run for long.
    pub(crate) async fn end_grace(&self) {
        self.store.nodes().sweep(LEASE, 1).await.expect("a sweep");
        let _: u64 = self.ask("HSET @cluster grace_until_ms 0").await;
    }

    /// Submits a service; answers its pods by replica.
    pub(crate) async fn submit(&self, spec: &ServiceSpec) -> Vec<PodId> {
        let submission = PodId::new_submission();
        let submit = Submit {
            spec,
            submission: &submission,
            idempotency: None,
            mode: kubeleet::store::SubmitMode::Create,
        };
        let outcome = self.store.services().submit(&submit).await;
        let outcome = outcome.expect("a submit");
        assert!(
            matches!(outcome, SubmitOutcome::Created { .. }),
            "{outcome:?}"
        );
        let ids = (0..spec.replicas).map(|replica| PodId::of_submission(&submission, replica));
        ids.collect()
    }

    /// Lets a controller work until no service is due.
    pub(crate) async fn control(&self) {
        let settings = SchedulerSettings::default();
        while kubeleet::controller::round(&self.store, &settings)
            .await
            .expect("a round of the controller")
            > 0
        {}
    }

    pub(crate) async fn claim(&self, max: usize) -> Claim {
        self.store.queue().claim(CLAIM, max).await.expect("a claim")
    }

    /// Assigns pods of a claim to one node; answers how many got it and how many went back.
    pub(crate) async fn assign(&self, claim: &Claim, node: &str, pods: &[PodId]) -> (usize, usize) {
        let assignment = Assignment {
            nodes: vec![(node, self.number(&format!("node:{node}"), "turn").await)],
            pods: pods.iter().map(|pod| (pod, 0)).collect(),
            ..Assignment::default()
        };
        let assigned = self.store.queue();
        let assigned = assigned.assign(&claim.batch, "nonce", LEASE, &assignment);
        match assigned.await.expect("an assignment") {
            AssignOutcome::Assigned {
                count, given_back, ..
            } => (count, given_back),
            AssignOutcome::Lapsed => panic!("the claim is over"),
        }
    }

    /// Claims all that waits and gives it to one node.
    pub(crate) async fn place(&self, node: &str) -> Vec<PodId> {
        let claim = self.claim(1000).await;
        let ids: Vec<PodId> = claim.pods.iter().map(|pod| pod.id.clone()).collect();
        let (count, _) = self.assign(&claim, node, &ids).await;
        assert_eq!(count, ids.len(), "all are placed on {node}");
        ids
    }

    pub(crate) async fn park(&self, batch: &str, pod: &PodId, reason: &str) {
        let parked = Parked {
            pod,
            delay: Duration::from_secs(1),
            reason: reason.to_owned(),
        };
        let assignment = Assignment {
            parked: vec![parked],
            ..Assignment::default()
        };
        let parked = self.store.queue();
        parked
            .assign(batch, "nonce", LEASE, &assignment)
            .await
            .expect("an assignment");
    }

    pub(crate) async fn token(&self, id: &PodId) -> Token {
        let key = format!("pod:{id}");
        Token {
            attempt: self.number(&key, "attempt").await,
            nonce: self.field(&key, "nonce").await,
        }
    }

    pub(crate) async fn take(&self, node: &str, epoch: u64, ids: &[&PodId]) -> Vec<Taken> {
        match self.store.pending().take(node, epoch, ids).await {
            Ok(TakeOutcome::Taken(taken, _)) => taken,
            other => panic!("{other:?}"),
        }
    }

    /// Reports a phase with the token that stands.
    pub(crate) async fn report(
        &self,
        node: &str,
        epoch: u64,
        id: &PodId,
        phase: Phase,
    ) -> ReportOutcome {
        let report = report(id, self.token(id).await, Some(phase));
        self.report_as(node, epoch, report).await
    }

    pub(crate) async fn report_as(&self, node: &str, epoch: u64, report: Report) -> ReportOutcome {
        let reported = self.store.pending();
        let reported = reported.report(node, epoch, &[report]).await;
        reported.expect("a report")[0]
    }

    /// Pods, cpu and memory that a node's record says are taken.
    pub(crate) async fn taken_room(&self, node: &str) -> (u64, u64, u64) {
        let key = format!("node:{node}");
        (
            self.number(&key, "pods").await,
            self.number(&key, "cpu_requested").await,
            self.number(&key, "memory_requested").await,
        )
    }
}

/// A report with nothing but a phase.
pub(crate) fn report(id: &PodId, token: Token, phase: Option<Phase>) -> Report {
    Report {
        phase,
        ..Report::new(id.clone(), token)
    }
}
