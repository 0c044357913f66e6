//! What there is in a cluster: reading it, waiting for it, checking it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kubeleet::container::Container;
use kubeleet::model::{Node, NodeState, Phase, Pod, PodId, Service, ServiceKey};
use kubeleet::store::{DeadLetter, PAGE_MAX, PodFilter};

use super::super::eventually;
use super::{Cluster, SOON};

impl Cluster {
    /// The service and how many of its pods run.
    pub async fn service(&self, service: &ServiceKey) -> Option<(Service, u32)> {
        self.store
            .services()
            .get(service)
            .await
            .expect("a service is read")
    }

    /// Pods of a service; of all, if none is named.
    pub async fn pods(&self, service: Option<&ServiceKey>) -> Vec<Pod> {
        let filter = PodFilter {
            service: service.cloned(),
            ..PodFilter::default()
        };
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

    pub async fn pod(&self, id: &PodId) -> Option<Pod> {
        self.store.pods().get(id).await.expect("a pod is read")
    }

    pub async fn node(&self, name: &str) -> Option<Node> {
        let lease = self.settings.heartbeat.lease;
        self.store
            .nodes()
            .get(name, lease)
            .await
            .expect("a node is read")
    }

    pub async fn ready(&self, name: &str) {
        self.in_state(name, NodeState::Ready).await;
    }

    pub async fn in_state(&self, name: &str, state: NodeState) {
        eventually(SOON, &format!("{name} is {state:?}"), async || {
            match self.node(name).await {
                Some(node) if node.state == state => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Waits until all pods of a service are in `phase`, and are so many.
    pub async fn all_in(&self, service: &ServiceKey, phase: Phase, count: usize) -> Vec<Pod> {
        self.all_in_within(SOON, service, phase, count).await
    }

    /// The same, with another limit.
    pub async fn all_in_within(
        &self,
        limit: Duration,
        service: &ServiceKey,
        phase: Phase,
        count: usize,
    ) -> Vec<Pod> {
        let what = format!("{count} pods of {service} are {phase}");
        eventually(limit, &what, async || {
            let pods = self.pods(Some(service)).await;
            if pods.len() == count && pods.iter().all(|pod| pod.phase == phase) {
                return Ok(pods);
            }
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for pod in &pods {
                let words = (pod.phase, pod.node.as_deref(), pod.reason.as_deref());
                *counts.entry(format!("{words:?}")).or_default() += 1;
            }
            Err(format!("{counts:?}"))
        })
        .await
    }

    /// Waits until a pod is in `phase`.
    pub async fn pod_in(&self, id: &PodId, phase: Phase) -> Pod {
        eventually(SOON, &format!("pod {id} is {phase}"), async || {
            match self.pod(id).await {
                Some(pod) if pod.phase == phase => Ok(pod),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until a pod is as `look` wants it.
    pub async fn pod_is(&self, id: &PodId, what: &str, look: impl Fn(&Pod) -> bool) -> Pod {
        eventually(SOON, &format!("pod {id} is {what}"), async || {
            match self.pod(id).await {
                Some(pod) if look(&pod) => Ok(pod),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Lets time pass, while `holds` must.
    pub async fn while_time_passes(&self, time: Duration, mut holds: impl FnMut()) {
        let begun = Instant::now();
        eventually(time + SOON, "time passes", async || {
            holds();
            if begun.elapsed() >= time {
                Ok(())
            } else {
                Err(String::new())
            }
        })
        .await;
    }

    /// Reasons of all events of a kind that a pod had, oldest first.
    pub async fn events_of(&self, id: &PodId, kind: &str) -> Vec<String> {
        let events: Vec<(String, Vec<String>)> =
            self.redis(&["XRANGE", &self.key("events"), "-", "+"]).await;
        let of_kind = events.into_iter().filter(|(_, fields)| fields[1] == kind);
        // kind, by, owner and reason, each with its name, then the pods with their nodes.
        let of_pod = of_kind.filter(|(_, fields)| {
            let mut pods = fields[8..].iter().step_by(2);
            pods.any(|pod| pod == id.as_str())
        });
        of_pod.map(|(_, fields)| fields[7].clone()).collect()
    }

    /// Waits until so many pods of a service are in `phase`, and gives these.
    pub async fn some_in(&self, service: &ServiceKey, phase: Phase, count: usize) -> Vec<Pod> {
        eventually(SOON, &format!("{count} are {phase}"), async || {
            let all = self.pods(Some(service)).await;
            let some: Vec<Pod> = all
                .iter()
                .filter(|pod| pod.phase == phase)
                .cloned()
                .collect();
            if some.len() == count {
                Ok(some)
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await
    }

    /// Waits until all waiting pods of a service, at least one, give this reason.
    pub async fn waits_because(&self, service: &ServiceKey, reason: &str) {
        eventually(
            SOON,
            &format!("{service} waits because {reason:?}"),
            async || {
                let mut pods = self.pods(Some(service)).await;
                pods.retain(|pod| pod.phase == Phase::Waiting);
                let told = |pod: &Pod| pod.reason.as_deref().is_some_and(|it| it.contains(reason));
                if !pods.is_empty() && pods.iter().all(told) {
                    Ok(())
                } else {
                    Err(format!("{pods:?}"))
                }
            },
        )
        .await;
    }

    /// Waits until the service is forgotten.
    pub async fn gone(&self, service: &ServiceKey) {
        eventually(SOON, &format!("{service} is gone"), async || {
            match self.service(service).await {
                None => Ok(()),
                Some(found) => Err(format!("{found:?}")),
            }
        })
        .await;
    }

    /// Waits until the engine of a machine has made so many starts, since it is there.
    pub async fn progress(&self, name: &str, starts: u64) {
        eventually(SOON, &format!("{starts} starts on {name}"), async || {
            let counts = self.engine(name).counts();
            if counts.starts >= starts {
                Ok(())
            } else {
                Err(format!("{counts:?}"))
            }
        })
        .await;
    }

    /// Waits until all engines together have so many containers, ended ones too.
    pub async fn containers_are(&self, count: usize) {
        eventually(SOON, &format!("{count} containers"), async || {
            let machines = self.machines.values();
            let all: usize = machines.map(|it| it.engine.containers().len()).sum();
            if all == count {
                Ok(())
            } else {
                Err(format!("{all} containers"))
            }
        })
        .await;
    }

    /// All containers that run on any machine, by node.
    pub fn live(&self) -> Vec<(String, Container)> {
        let machines = self.machines.iter();
        machines
            .flat_map(|(name, machine)| {
                let live = machine.engine.live().into_iter();
                live.map(|container| (name.clone(), container))
            })
            .collect()
    }

    /// Node and id of all containers that run.
    pub fn live_ids(&self) -> BTreeSet<(String, String)> {
        let live = self.live().into_iter();
        live.map(|(node, container)| (node, container.id)).collect()
    }

    /// How many containers run on each machine.
    pub fn live_by_node(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self.machines.keys() {
            counts.insert(name.clone(), self.engine(name).live().len());
        }
        counts
    }

    /// Checks that exactly the containers of `pods` run, each once, where and as Redis says.
    pub fn assert_exactly_once(&self, pods: &[Pod]) {
        let mut wanted: HashMap<&PodId, &Pod> = pods.iter().map(|pod| (&pod.id, pod)).collect();
        for (node, container) in self.live() {
            let Some(pod) = wanted.remove(&container.pod) else {
                panic!("a double, or nobody's: {container:?} on {node}");
            };
            assert_eq!(pod.node.as_deref(), Some(node.as_str()), "{pod:?}");
            assert_eq!(pod.attempt, container.token.attempt, "{pod:?}");
            assert_eq!(
                pod.container.as_deref(),
                Some(container.id.as_str()),
                "{pod:?}"
            );
        }
        assert!(wanted.is_empty(), "without a container: {wanted:?}");
    }

    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.store.dead_letters(1000).await;
        letters.expect("dead letters are read")
    }

    /// Waits until there are so many dead letters, and gives them.
    pub async fn dead_are(&self, count: usize) -> Vec<DeadLetter> {
        eventually(SOON, &format!("{count} dead letters"), async || {
            let letters = self.dead_letters().await;
            if letters.len() == count {
                Ok(letters)
            } else {
                Err(format!("{letters:?}"))
            }
        })
        .await
    }

    /// Waits until every list of work is empty, those of nodes without an agent left out; and
    /// checks that there are no dead letters.
    pub async fn settled(&self) {
        assert_eq!(self.dead_letters().await, [], "dead letters");
        self.settled_but_dead().await;
    }

    /// The same, where the test has looked at the dead letters itself.
    pub async fn settled_but_dead(&self) {
        let queues = ["sq", "sq:high", "sq:low", "sq:claims", "sq:parked"];
        let mut lists: Vec<String> = queues.map(str::to_owned).to_vec();
        lists.push("services:wake".to_owned());
        let machines = self.machines.iter();
        for (name, _) in machines.filter(|(_, machine)| machine.agent.is_some()) {
            lists.extend([format!("pq:{name}"), format!("rq:{name}")]);
        }
        // One question for all: KEYS would hold up every other test on the same Redis.
        let keys: Vec<String> = lists.iter().map(|list| self.key(list)).collect();
        let mut question = vec!["EXISTS"];
        question.extend(keys.iter().map(String::as_str));
        eventually(SOON, "nothing is left behind", async || {
            if self.redis::<u64>(&question).await == 0 {
                return Ok(());
            }
            let mut left = Vec::new();
            for key in &keys {
                if self.redis::<u64>(&["EXISTS", key]).await == 1 {
                    left.push(key);
                }
            }
            Err(format!("{left:?}"))
        })
        .await;
        let claims = self.keys_like("sq:claim:*").await;
        assert_eq!(claims, [""; 0], "claims without a lease");
    }

    /// Waits until all pods run, whose they be, and gives them.
    pub async fn all_running(&self, limit: Duration) -> Vec<Pod> {
        eventually(limit, "all pods run", async || {
            let pods = self.pods(None).await;
            let rest: Vec<&Pod> = pods
                .iter()
                .filter(|pod| pod.phase != Phase::Running)
                .collect();
            match rest.first() {
                None => Ok(pods),
                Some(one) => Err(format!("{} do not, such as {one:?}", rest.len())),
            }
        })
        .await
    }

    /// Ends a test: nothing may be left behind.
    pub async fn end(self) {
        self.settled().await;
    }
}
