//! What the checks of the runtime port share: an engine with a node of its own, and waiting.

use std::time::Duration;

use futures_util::StreamExt;
use kubeleet::container::{
    Changes, Container, ContainerSpec, ContainerState, Docker, GivenDevices, Runtime, Simulated,
};
use kubeleet::model::{PodId, ServiceSpec, Token};
use kubeleet::settings::SimulatedSettings;
use serde_json::Value;

use crate::harness::build_images;
pub(super) use crate::harness::{IMAGE, docker};

pub(super) const IMAGE_ABSENT: &str = "kubeleet/absent:none";
/// Longest wait for something that takes an engine well under a second.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Grace for containers that end at once when asked to.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// An engine, and a node and a cluster that only this test uses.
pub(super) struct Bench {
    pub(super) runtime: Runtime,
    simulated: Option<Simulated>,
    pub(super) node: String,
    pub(super) cluster: String,
}

impl Bench {
    pub(super) fn simulated() -> Bench {
        let settings = SimulatedSettings::default();
        let simulated = Simulated::new("engine", settings);
        simulated.add_image(IMAGE);
        Bench {
            runtime: Runtime::Simulated(simulated.clone()),
            simulated: Some(simulated),
            node: "worker1".to_owned(),
            cluster: "smoke".to_owned(),
        }
    }

    pub(super) async fn docker() -> Bench {
        let runtime = Runtime::Docker(Docker::new(""));
        if let Err(error) = runtime.info().await {
            panic!("no Docker engine answers ({error}): run scripts/ensure-docker.sh");
        }
        build_images().await;
        Bench {
            runtime,
            simulated: None,
            node: format!("worker-{}", PodId::new_submission()),
            cluster: format!("smoke-{}", PodId::new_submission()),
        }
    }

    /// The engine, where it is one that does what it is told.
    pub(super) fn script(&self) -> Option<&Simulated> {
        self.simulated.as_ref()
    }

    pub(super) fn other_cluster(&self) -> String {
        format!("{}-b", self.cluster)
    }

    pub(super) fn spec(&self) -> ContainerSpec {
        ContainerSpec {
            node: self.node.clone(),
            cluster: self.cluster.clone(),
            pod: PodId::of_submission(&PodId::new_submission(), 2),
            token: token(1, "first"),
            replica: 2,
            spec: Box::new(ServiceSpec::new("web", IMAGE)),
            revision: 3,
            service: Some("web".to_owned()),
            wish: None,
            given: GivenDevices::default(),
        }
    }

    pub(super) async fn create(&self, spec: &ContainerSpec) -> String {
        let created = self.runtime.create(spec).await;
        created.expect("it is created").id
    }

    pub(super) async fn list(&self) -> Vec<Container> {
        let listed = self.runtime.list(&self.node, &self.cluster).await;
        let listed = listed.expect("it lists").into_iter();
        listed.map(without_address).collect()
    }

    pub(super) async fn inspect(&self, id: &str) -> Option<Container> {
        let inspected = self.runtime.inspect(id).await.expect("it inspects");
        inspected.map(without_address)
    }

    pub(super) async fn watch(&self) -> Changes {
        let changes = self.runtime.ended(&self.node, &self.cluster).await;
        changes.expect("it can be watched")
    }

    /// A container that is not ours.
    pub(super) fn add_stranger(&self, name: &str) -> String {
        match &self.simulated {
            Some(simulated) => simulated.add_stranger(name),
            None => {
                let label = format!("kubeleet.cluster={}", self.cluster);
                docker(&["create", "--name", name, "--label", &label, IMAGE])
            }
        }
    }

    pub(super) fn strangers(&self) -> Vec<String> {
        match &self.simulated {
            Some(simulated) => simulated.strangers(),
            None => {
                let label = format!("label=kubeleet.cluster={}", self.cluster);
                let format = "{{.ID}} {{.Label \"orchestrator\"}}";
                let all = docker(&[
                    "ps",
                    "-a",
                    "--no-trunc",
                    "--filter",
                    &label,
                    "--format",
                    format,
                ]);
                let strangers = all.lines().filter(|line| !line.ends_with(" kubeleet"));
                strangers.map(|line| line.trim().to_owned()).collect()
            }
        }
    }

    /// The simulated container does what its command line makes the real one do.
    pub(super) fn act(&self, id: &str, exit_code: i64) {
        if let Some(simulated) = &self.simulated {
            assert!(simulated.end(id, exit_code, None));
        }
    }
}

/// Removes what the test has made, also when it fails.
impl Drop for Bench {
    fn drop(&mut self) {
        if self.simulated.is_none() {
            for cluster in [&self.cluster, &self.other_cluster()] {
                let label = format!("label=kubeleet.cluster={cluster}");
                let left = docker(&["ps", "-aq", "--filter", &label]);
                for id in left.lines() {
                    docker(&["rm", "-f", "-v", id]);
                }
            }
        }
    }
}

pub(super) fn token(attempt: u64, nonce: &str) -> Token {
    Token {
        attempt,
        nonce: nonce.to_owned(),
    }
}

/// The engine chooses it.
fn without_address(container: Container) -> Container {
    Container {
        address: None,
        ..container
    }
}

/// What `docker inspect` says of a container.
pub(super) fn seen(id: &str) -> Value {
    let mut seen: Value = serde_json::from_str(&docker(&["inspect", id])).expect("it is JSON");
    seen[0].take()
}

/// Waits for a notice of `pod`.
pub(super) async fn notice(changes: &mut Changes, pod: &PodId) {
    let wait = async {
        while let Some(changed) = changes.next().await {
            if changed.expect("the engine stays") == *pod {
                return;
            }
        }
        panic!("the stream has ended");
    };
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("no notice of {pod} came"));
}

/// Waits, from notice to notice, until the container has ended.
pub(super) async fn end_of(
    bench: &Bench,
    changes: &mut Changes,
    spec: &ContainerSpec,
    id: &str,
) -> Container {
    loop {
        notice(changes, &spec.pod).await;
        let container = bench.inspect(id).await.expect("it is there");
        if matches!(container.state, ContainerState::Exited { .. }) {
            return container;
        }
    }
}
