//! Whether all is as was wished: Redis, the engines and the wishes compared, nothing left out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kubeleet::container::{Container, ContainerState};
use kubeleet::model::service::RestartPolicy;
use kubeleet::model::{Phase, ServiceSpec};

use super::deeds::{Wish, policy_of};
use super::state::{Key, State};
use super::{HEALED, NODES, RESYNC, Walk};
use crate::support::eventually;

/// Comparisons that must find everything at rest, once it is as wished.
const AT_REST: u32 = 3;
/// What a key may be named like, and its type.
const KNOWN: [(&str, &str); 20] = [
    ("cluster", "hash"),
    ("services", "zset"),
    ("services:changed", "zset"),
    ("services:wake", "list"),
    ("service:", "hash"),
    ("idempotency:", "hash"),
    ("pods", "zset"),
    ("nodes", "zset"),
    ("nodes:lost", "zset"),
    ("node:", "hash"),
    ("cs:", "set"),
    ("decisions", "zset"),
    ("decision:", "string"),
    ("dead", "list"),
    ("dead:entries", "hash"),
    ("dead:totals", "hash"),
    ("quarantine", "zset"),
    ("events", "stream"),
    ("sq:claim:", "list"),
    ("services:tombstones", "zset"),
];
/// Most entries of the stream of events, which Redis trims by whole nodes of a hundred.
const EVENTS_MAX: u64 = 10_100;

type Judged = Result<(), String>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(what()) }
}

impl Walk {
    /// Waits until all is as wished, and how long that took; then it must rest there.
    pub(super) async fn judge(&mut self) -> Duration {
        let began = Instant::now();
        eventually(HEALED, "all is as wished", async || {
            self.judge_now().await.map(drop)
        })
        .await;
        let healed = began.elapsed();
        let starts = self.starts().await;
        tokio::time::sleep(RESYNC * AT_REST).await;
        // A comparison may be having a look at a service just now.
        let what = "it was as wished, and still is";
        let state = eventually(RESYNC * 8, what, async || self.judge_now().await).await;
        let containers = NODES.map(|node| self.cluster.engine(node).containers());
        assert_eq!(
            starts,
            self.starts().await,
            "containers were started at rest: {containers:?}"
        );
        self.note(format!("all is as wished after {healed:?}"));
        self.wishes = self.wishes_in(&state);
        self.unsure.clear();
        self.by_hand.extend(state.set("pods"));
        healed
    }

    /// Containers made and started on each node; of one that has a container of whose pod Redis
    /// forgot everything, nobody can say what its agent still does for it.
    async fn starts(&self) -> Vec<(u64, u64)> {
        let state = self.state().await;
        let nodes = NODES
            .into_iter()
            .filter(|node| !self.has_forgotten(&state, node));
        let counts = nodes.map(|node| self.cluster.engine(node).counts());
        counts
            .map(|counts| (counts.creates, counts.starts))
            .collect()
    }

    /// Whether a node has a container of whose pod Redis forgot everything, or all that leads to it.
    pub(super) fn has_forgotten(&self, state: &State, node: &str) -> bool {
        let containers = self.cluster.engine(node).containers();
        let mut pods = containers.iter().map(|container| container.pod.as_str());
        pods.any(|pod| self.is_forgotten(state, pod) || self.is_left(state, pod))
    }

    /// Whether everything that Redis knew of a pod was taken away: that is no order to stop it.
    fn is_forgotten(&self, state: &State, id: &str) -> bool {
        state.pod(id).is_empty() && self.damaged.contains(id) && self.unled.contains(id)
    }

    /// The wishes; of a service of which nobody can say, what Redis says.
    fn wishes_in(&self, state: &State) -> BTreeMap<String, Wish> {
        let mut wishes = self.wishes.clone();
        for name in &self.unsure {
            let service = state.hash(&format!("service:default/{name}"));
            let revision = service.get("revision").copied().unwrap_or_default();
            let spec = service.get(format!("spec:{revision}").as_str());
            let spec = spec.and_then(|spec| serde_json::from_str::<ServiceSpec>(spec).ok());
            let replicas = service.get("replicas").and_then(|it| it.parse().ok());
            if let (Some(spec), Some(replicas)) = (spec, replicas) {
                let wish = Wish {
                    replicas,
                    image: spec.image,
                    args: spec.args,
                };
                wishes.insert(name.clone(), wish);
            }
        }
        wishes
    }

    async fn judge_now(&self) -> Result<State, String> {
        let state = State::read(&self.redis, &self.cluster.settings.key_prefix).await;
        self.judge_keys(&state)?;
        let wishes = self.wishes_in(&state);
        judge_services(&state, &wishes)?;
        for (name, wish) in &wishes {
            let replicas = usize::try_from(wish.replicas).expect("few");
            judge_service(&state, name, replicas).map_err(|why| format!("{name}: {why}"))?;
        }
        self.judge_by_hand(&state)?;
        for node in NODES {
            self.judge_node(&state, node)
                .map_err(|why| format!("{node}: {why}"))?;
            self.judge_engine(&state, &wishes, node)
                .await
                .map_err(|why| format!("engine of {node}: {why}"))?;
        }
        Ok(state)
    }

    /// Every key is one of ours, of its type, and belongs to something; nothing waits.
    fn judge_keys(&self, state: &State) -> Judged {
        let led_to: BTreeSet<String> = state
            .keys
            .keys()
            .filter(|name| *name == "pods" || name.ends_with(":pods"))
            .flat_map(|index| state.set(index))
            .collect();
        for (name, key) in &state.keys {
            if let Some(id) = name.strip_prefix("pod:") {
                let ours = if key.expires {
                    state.pod(id).get("phase") == Some(&"stopped")
                } else {
                    key.kind == "hash" && led_to.contains(id)
                };
                let left = || self.is_left(state, id);
                check(ours || left(), || format!("nobody's pod: {id} {key:?}"))?;
                continue;
            }
            let known = |(like, kind): &&(&str, &str)| {
                let named = name == like || (like.ends_with(':') && name.starts_with(like));
                named && key.kind == *kind
            };
            // What had a wrong type is kept aside for a while.
            if name.starts_with("quarantine:") && key.expires {
                continue;
            }
            let index =
                name.starts_with("service:") && name.ends_with(":pods") && key.kind == "zset";
            check(index || KNOWN.iter().any(|it| known(&it)), || {
                format!("a key left behind: {name} {key:?}")
            })?;
            // A claim that somebody took away by hand leaves its entries, which expire.
            let waits = name == "services:changed"
                || name == "services:wake"
                || name.starts_with("sq:claim:")
                || name.ends_with(":gone");
            check(!waits || key.expires, || {
                format!("something waits: {name} {}", shown(state, key))
            })?;
        }
        let events = state
            .set("events")
            .first()
            .and_then(|length| length.parse::<u64>().ok());
        check(events.is_none_or(|length| length <= EVENTS_MAX), || {
            format!("{events:?} events")
        })
    }

    /// A record that both its owner's index and its node's set lost: nothing leads to it any more.
    fn is_left(&self, state: &State, id: &str) -> bool {
        let in_set = |node: &str| state.set(&format!("cs:{node}")).contains(id);
        self.unled.contains(id) && !NODES.into_iter().any(in_set)
    }

    /// Pods pushed by hand that were seen once are there still.
    fn judge_by_hand(&self, state: &State) -> Judged {
        let pods = state.set("pods");
        for id in &self.by_hand {
            check(pods.contains(id), || {
                format!("{id}, pushed by hand, is lost")
            })?;
        }
        for id in &pods {
            let pod = state.pod(id);
            let ended = phase(&pod).is_some_and(Phase::is_ended);
            check(ended || phase(&pod) == Some(Phase::Running), || {
                format!("{id}: {pod:?}")
            })?;
        }
        for entry in &state
            .keys
            .get("dead")
            .map(|dead| dead.content.clone())
            .unwrap_or_default()
        {
            let known = ["rubbish", "hand-", "quarantine:"];
            let known = known.iter().any(|word| entry.contains(word));
            let known = known || self.damaged.iter().any(|id| entry.contains(id.as_str()));
            check(known, || format!("a dead letter of ours: {entry}"))?;
        }
        Ok(())
    }

    /// A node's record and set say what its pods say.
    fn judge_node(&self, state: &State, node: &str) -> Judged {
        let record = state.hash(&format!("node:{node}"));
        check(record.get("state") == Some(&"ready"), || {
            format!("{record:?}")
        })?;
        let mut sums = [0_u64; 3];
        let mut ids = BTreeSet::new();
        for id in state.pods() {
            let pod = state.pod(id);
            if pod.get("node") != Some(&node) || self.is_left(state, id) {
                continue;
            }
            ids.insert(id.to_owned());
            if phase(&pod).is_some_and(Phase::is_on_node) {
                let amount = |field| pod.get(field).and_then(|it| it.parse().ok()).unwrap_or(0);
                for (sum, more) in sums.iter_mut().zip([1, amount("cpu"), amount("memory")]) {
                    *sum += more;
                }
            }
        }
        for (field, sum) in ["pods", "cpu_requested", "memory_requested"]
            .into_iter()
            .zip(sums)
        {
            let told = record.get(field).copied().unwrap_or_default();
            check(told == sum.to_string(), || {
                format!("{field} is {told}, and should be {sum}")
            })?;
        }
        // An ended pod leaves the set when its node is lost; all others are in it.
        let set = state.set(&format!("cs:{node}"));
        let live = |id: &&String| !phase(&state.pod(id)).is_some_and(Phase::is_ended);
        let missing: Vec<&String> = ids
            .iter()
            .filter(live)
            .filter(|id| !set.contains(*id))
            .collect();
        let surplus: Vec<&String> = set.difference(&ids).collect();
        check(missing.is_empty() && surplus.is_empty(), || {
            format!("its set lacks {missing:?}, and should not have {surplus:?}")
        })
    }

    /// Each pod that runs there has exactly one container, and there is no other of ours.
    async fn judge_engine(
        &self,
        state: &State,
        wishes: &BTreeMap<String, Wish>,
        node: &str,
    ) -> Judged {
        let engine = self.cluster.engine(node);
        let strangers: BTreeSet<String> = engine.strangers().into_iter().collect();
        let wanted = self.strangers.get(node).cloned().unwrap_or_default();
        check(strangers == wanted, || {
            format!("strangers {strangers:?}, were {wanted:?}")
        })?;
        let on_node = |id: &&str| state.pod(id).get("node") == Some(&node);
        let runs =
            |id: &&str| phase(&state.pod(id)) == Some(Phase::Running) && !self.is_left(state, id);
        let mut wanted: BTreeSet<&str> = state.pods().filter(on_node).filter(runs).collect();
        for container in engine.containers() {
            let id = container.pod.as_str();
            let pod = state.pod(id);
            if self.is_forgotten(state, id) || self.is_left(state, id) {
                continue;
            }
            if container.state == ContainerState::Running {
                let ours = wanted.remove(id) && is_of(&container, &pod);
                check(ours, || {
                    format!("a double, or nobody's: {container:?} of {pod:?}")
                })?;
                self.judge_spec(&container, &pod, wishes, node).await?;
            } else {
                // What is left of an ended pod is kept to be looked at.
                let kept =
                    phase(&pod).is_some_and(Phase::is_ended) && pod.get("node") == Some(&node);
                check(kept, || format!("left behind: {container:?} of {pod:?}"))?;
            }
        }
        check(wanted.is_empty(), || {
            format!("without a container: {wanted:?}")
        })
    }

    /// A container was made from its service's current spec.
    async fn judge_spec(
        &self,
        container: &Container,
        pod: &BTreeMap<&str, &str>,
        wishes: &BTreeMap<String, Wish>,
        node: &str,
    ) -> Judged {
        let Some(service) = pod
            .get("owner")
            .and_then(|owner| owner.strip_prefix("service:"))
        else {
            return Ok(());
        };
        let name = service.trim_start_matches("default/");
        let engine = kubeleet::container::Runtime::Simulated(self.cluster.engine(node).clone());
        let spec = engine.describe(&container.id).await;
        let spec = spec
            .map_err(|error| error.to_string())?
            .ok_or("it is gone")?;
        let wish = wishes
            .get(name)
            .ok_or_else(|| format!("{name} is not wished: {pod:?}"))?;
        let same = spec.spec.image == wish.image && spec.spec.args == wish.args;
        check(same, || {
            format!("{container:?} runs {:?}, wished {wish:?}", spec.spec)
        })
    }
}

fn phase(pod: &BTreeMap<&str, &str>) -> Option<Phase> {
    pod.get("phase").and_then(|phase| Phase::parse(phase))
}

fn is_of(container: &Container, pod: &BTreeMap<&str, &str>) -> bool {
    let attempt = container.token.attempt.to_string();
    pod.get("attempt") == Some(&attempt.as_str())
        && pod.get("nonce") == Some(&container.token.nonce.as_str())
        && pod.get("container") == Some(&container.id.as_str())
}

/// Exactly the wished services stand, as wished.
fn judge_services(state: &State, wishes: &BTreeMap<String, Wish>) -> Judged {
    let wished: Vec<String> = wishes
        .keys()
        .map(|name| format!("default/{name}"))
        .collect();
    let mut found = state.services();
    found.sort();
    check(found == wished, || {
        let other = found.iter().filter(|name| !wished.contains(name));
        let other: Vec<String> = other.map(|name| described(state, name)).collect();
        format!("services {found:?}, wished {wished:?}: {other:?}")
    })?;
    let listed: Vec<String> = state.set("services").into_iter().collect();
    check(listed == wished, || {
        format!("listed {listed:?}, wished {wished:?}")
    })?;
    for (name, wish) in wishes {
        let service = state.hash(&format!("service:default/{name}"));
        let spec = service
            .get("revision")
            .and_then(|it| service.get(format!("spec:{it}").as_str()));
        let spec = spec.and_then(|spec| serde_json::from_str::<ServiceSpec>(spec).ok());
        let spec = spec.ok_or_else(|| format!("{name} has no spec: {service:?}"))?;
        let replicas = wish.replicas.to_string();
        let same = spec.image == wish.image
            && spec.args == wish.args
            && service.get("replicas") == Some(&replicas.as_str());
        check(same, || format!("{name} is {service:?}, wished {wish:?}"))?;
    }
    Ok(())
}

/// So many slots hold one running pod of the current revision each, or ended as their policy says.
fn judge_service(state: &State, name: &str, replicas: usize) -> Judged {
    let service = state.hash(&format!("service:default/{name}"));
    let (mut live, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for id in state.set(&format!("service:default/{name}:pods")) {
        let pod = state.pod(&id);
        let show = || format!("{id} {pod:?}");
        let phase = phase(&pod).ok_or_else(show)?;
        check(pod.get("desired") == Some(&"run"), || {
            format!("told to stop: {}", show())
        })?;
        let replica = pod.get("replica").copied().unwrap_or_default().to_owned();
        if phase.is_ended() {
            if pod.get("revision") == service.get("revision") {
                ended.insert(replica, phase);
            }
            continue;
        }
        check(phase == Phase::Running, || {
            format!("does not run: {}", show())
        })?;
        check(pod.get("revision") == service.get("revision"), || {
            format!("is old: {}", show())
        })?;
        let double = live.insert(replica, id.clone());
        check(double.is_none(), || {
            format!("{double:?} holds the slot of {}", show())
        })?;
    }
    ended.retain(|replica, phase| !live.contains_key(replica) && is_finished(name, *phase));
    // More may have ended than there are to be, while none of them runs.
    let right = live.len() + ended.len() >= replicas && live.len() <= replicas;
    check(right, || {
        format!("{live:?} live and {ended:?} ended, for {replicas}")
    })?;
    let running = service.get("running").copied().unwrap_or("0");
    check(running == live.len().to_string(), || {
        format!("{running} are counted, of {live:?}")
    })
}

/// Whether a pod that ended so is not replaced.
fn is_finished(name: &str, phase: Phase) -> bool {
    match policy_of(name) {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => phase == Phase::Succeeded,
        RestartPolicy::Never => true,
    }
}

/// What waits, and what is known of it.
fn shown(state: &State, key: &Key) -> String {
    let all = key.content.iter().map(|name| described(state, name));
    format!("{} {}", key.kind, all.collect::<Vec<_>>().join("; "))
}

/// A service and its pods.
fn described(state: &State, name: &str) -> String {
    let pods = state.set(&format!("service:{name}:pods"));
    let pods: Vec<String> = pods
        .iter()
        .map(|id| format!("{id} {:?}", state.pod(id)))
        .collect();
    let service = state.hash(&format!("service:{name}"));
    format!("{name}: {pods:?}, of {service:?}")
}
