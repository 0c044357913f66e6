//! A cluster of real processes, and the door to its Redis for the test.

use std::time::Duration;

use kubeleet::model::{NodeState, Phase, Pod, PodId, ServiceKey, ServiceSpec};
use kubeleet::settings::{RedisSettings, Secret};
use kubeleet::store::connection::Redis;
use kubeleet::store::{PAGE_MAX, PodFilter, Store, Submit, SubmitOutcome};
use tokio_util::sync::CancellationToken;

use super::engine::{Containers, IMAGE};
use super::process::{AGENT, API, Process, SCHEDULER};
use super::{SOON, get};
use crate::support::{RedisServer, eventually, free_port};

/// Heartbeats of a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) interval: Duration,
    pub(crate) lease: Duration,
}

impl Timing {
    /// What the settings say if nobody says otherwise.
    pub(crate) const REAL: Timing = Timing {
        interval: Duration::from_secs(5),
        lease: Duration::from_secs(20),
    };
    /// A fifth of it.
    pub(crate) const QUICK: Timing = Timing {
        interval: Duration::from_secs(1),
        lease: Duration::from_secs(4),
    };
}

/// A cluster. Declare it before its processes: they end before its containers are removed.
pub(crate) struct Cluster {
    pub(crate) store: Store,
    pub(crate) containers: Containers,
    timing: Timing,
    variables: Vec<(&'static str, String)>,
}

impl Cluster {
    /// One on a Redis of its own, without a key prefix.
    pub(crate) async fn on(redis: &RedisServer, timing: Timing) -> Cluster {
        let settings = RedisSettings {
            url: Secret(redis.url()),
            ..RedisSettings::default()
        };
        let url = ("KUBELEET_REDIS__URL", redis.url());
        Cluster::open(&settings, timing, vec![url]).await
    }

    /// One on the Redis of `settings`, which `variables` tell the processes.
    pub(crate) async fn open(
        settings: &RedisSettings,
        timing: Timing,
        mut variables: Vec<(&'static str, String)>,
    ) -> Cluster {
        let store = Store::new(Redis::connect(settings, CancellationToken::new()), "");
        let cluster = store.open().await.expect("Redis answers");
        let time = |time: Duration| format!("{}ms", time.as_millis());
        variables.extend([
            ("KUBELEET_HEARTBEAT__INTERVAL", time(timing.interval)),
            ("KUBELEET_HEARTBEAT__LEASE", time(timing.lease)),
            ("KUBELEET_LOG__FORMAT", "human".to_owned()),
        ]);
        Cluster {
            store,
            containers: Containers::of(&cluster),
            timing,
            variables,
        }
    }

    fn process(&self, program: &str, more: &[(&str, &str)]) -> Process {
        let ours = self
            .variables
            .iter()
            .map(|(key, value)| (*key, value.as_str()));
        let variables: Vec<(&str, &str)> = ours.chain(more.iter().copied()).collect();
        Process::start(program, &[], &variables)
    }

    /// Starts a scheduler.
    pub(crate) fn scheduler(&self) -> Process {
        self.process(SCHEDULER, &[])
    }

    /// Starts an API, and waits until it is ready; the process and its address.
    pub(crate) async fn api(&self) -> (Process, String) {
        let address = format!("127.0.0.1:{}", free_port());
        (self.api_at(&address).await, address)
    }

    /// Starts an API at an address, and waits until it is ready.
    pub(crate) async fn api_at(&self, address: &str) -> Process {
        let process = self.process(API, &[("KUBELEET_API__LISTEN", address)]);
        process.logged("API is listening").await;
        eventually(SOON, "the API is ready", async || {
            match get(address, "/readyz").await {
                answer if answer.status == 200 => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await;
        process
    }

    /// Starts an API at an address that logs next to nothing, and waits until it is ready.
    pub(crate) async fn quiet_api_at(&self, address: &str) -> Process {
        let variables = [
            ("KUBELEET_API__LISTEN", address),
            ("KUBELEET_LOG__FILTER", "warn"),
        ];
        let process = self.process(API, &variables);
        eventually(SOON, "the API is ready", async || {
            match super::send(address, "GET", "/readyz", None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                answer => Err(format!("{answer:?}")),
            }
        })
        .await;
        process
    }

    /// Starts the agent of node `name`, and waits until it is ready.
    pub(crate) async fn agent(&self, name: &str, more: &[(&str, &str)]) -> Process {
        let mut variables = vec![("KUBELEET_NODE__NAME", name)];
        variables.extend(more);
        let process = self.process(AGENT, &variables);
        process.logged("agent is ready").await;
        self.ready(name).await;
        process
    }

    /// Waits until a node is ready.
    pub(crate) async fn ready(&self, name: &str) {
        eventually(SOON, &format!("{name} is ready"), async || {
            let node = self.store.nodes().get(name, self.timing.lease).await;
            match node {
                Ok(Some(node)) if node.state == NodeState::Ready => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Submits a service of the sample image.
    pub(crate) async fn submit(&self, name: &str, replicas: u32) -> ServiceKey {
        self.submit_spec(name, |spec| spec.replicas = replicas)
            .await
    }

    /// Submits a service of one pod, with more in its spec.
    pub(crate) async fn submit_spec(
        &self,
        name: &str,
        change: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceKey {
        let mut spec = ServiceSpec::new(name, IMAGE);
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

    /// All pods.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let filter = PodFilter::default();
        let (mut pods, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let port = self.store.pods();
            let page = port.list(&filter, cursor.as_deref(), PAGE_MAX).await;
            let page = page.expect("pods are listed");
            pods.extend(page.pods);
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return pods,
            }
        }
    }

    /// Waits until exactly `count` pods run, and no pod does anything else.
    pub(crate) async fn all_run(&self, count: usize, limit: Duration) -> Vec<Pod> {
        eventually(limit, &format!("{count} pods run"), async || {
            let pods = self.pods().await;
            let running = |pod: &&Pod| pod.phase == Phase::Running;
            let others: Vec<&Pod> = pods.iter().filter(|pod| !running(pod)).collect();
            if others.is_empty() && pods.len() == count {
                Ok(pods)
            } else {
                Err(format!("{} pods; not running: {others:?}", pods.len()))
            }
        })
        .await
    }

    /// Waits until a pod is in `phase`.
    pub(crate) async fn pod_in(&self, id: &str, phase: Phase) -> Pod {
        self.pod_is(id, phase.as_str(), |pod| pod.phase == phase)
            .await
    }

    /// Waits until a pod is as `look` wants it.
    pub(crate) async fn pod_is(&self, id: &str, what: &str, look: impl Fn(&Pod) -> bool) -> Pod {
        let id = PodId::parse(id).expect("an id");
        eventually(SOON, &format!("{id} is {what}"), async || {
            match self.store.pods().get(&id).await {
                Ok(Some(pod)) if look(&pod) => Ok(pod),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }
}
