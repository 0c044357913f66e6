//! What a plan depended on and came to: put down for records, and planned again from them.
//!
//! Pure. A record of a small cluster holds every node: the same input gives the same plan, so all
//! that it does not say can be found out later. Of a large one it holds how the best nodes looked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::cluster::{Ask, Cluster, KnownNode, State};
use super::peers::Peer;
use super::plan::{Plan, plan, refused};
use super::rules::Rules;
use crate::model::decision::{
    CANDIDATES_MAX, Candidate, CountedPeer, DecidedNode, DecidedPod, DecidedRules, Decision,
    KINDS_MAX, Kind, NODES_MAX, PODS_MAX, RefusedNodes,
};
use crate::model::{PodId, ServiceKey};
use crate::store::WaitingPod;

/// All that a plan depends on.
#[derive(Debug, Clone)]
pub struct Input {
    seed: String,
    pods: Vec<(WaitingPod, Option<Arc<Rules>>)>,
    /// The copy of the nodes.
    pub state: State,
}

/// What became of a pod: its node, or why it waits.
pub type Place = Result<String, String>;

/// A decision in the making.
#[derive(Debug)]
pub struct Record {
    input: Input,
    pods_all: usize,
    nodes_all: usize,
    whole: bool,
    /// Of a large cluster, looked at before the plan.
    kinds: Vec<Kind>,
    places: Vec<Place>,
}

impl Input {
    /// What a decision's plan depended on, and where its pods went.
    ///
    /// # Errors
    /// It is of a version that knew other words.
    pub fn of(decision: &Decision) -> Result<(Input, Vec<Place>), serde_json::Error> {
        let rules = decision.rules.iter().map(|rules| Arc::new(rules_of(rules)));
        let rules: Vec<Arc<Rules>> = rules.collect();
        let (mut pods, mut places) = (Vec::new(), Vec::new());
        for pod in &decision.pods {
            let own = pod.rules.and_then(|at| rules.get(at).cloned());
            pods.push((serde_json::from_value(pod.asks.clone())?, own));
            let reason = pod.reason.clone().unwrap_or_default();
            places.push(pod.node.clone().ok_or(reason));
        }
        let mut nodes = Vec::new();
        for known in &decision.nodes {
            nodes.push(KnownNode {
                node: serde_json::from_value(known.node.clone())?,
                placed: known.placed,
                doubted: known.doubted,
            });
        }
        let peers = decision.peers.iter().map(|counted| {
            let peer = Peer {
                service: counted.service.clone(),
                revision: counted.revision,
            };
            (peer, counted.nodes.clone())
        });
        let weights = decision.weights.iter();
        let weights = weights.map(|(name, weight)| (name.clone(), Value::from(*weight)));
        let state = State {
            weights: serde_json::from_value(weights.collect())?,
            strategy: decision.strategy,
            lease_ms: decision.lease_ms,
            now_ms: decision.time_ms,
            round_robin: decision.round_robin.clone(),
            nodes,
            peers: peers.collect(),
        };
        let seed = decision.batch.clone();
        Ok((Input { seed, pods, state }, places))
    }

    /// Plans it.
    pub fn plan(&self) -> Vec<Place> {
        let mut cluster = Cluster::of(&self.state);
        let asks = self.asks();
        let plan = plan(&self.seed, &asks, &mut cluster);
        places_of(&plan, asks.len(), &cluster)
    }

    /// How the nodes look to a pod when its turn has come.
    pub fn kind_at(&self, position: usize) -> Option<Kind> {
        let asks = self.asks();
        let ask = asks.get(position)?;
        let mut cluster = Cluster::of(&self.state);
        plan(&self.seed, &asks[..position], &mut cluster);
        Some(look(ask, &mut cluster))
    }

    fn asks(&self) -> Vec<Ask<'_>> {
        let asks = self.pods.iter().map(|(pod, rules)| Ask {
            pod,
            rules: rules.clone(),
        });
        asks.collect()
    }

    /// Of which kind each pod is, and the first of each kind.
    fn kinds(&self) -> (Vec<Option<usize>>, Vec<usize>) {
        let mut firsts: Vec<usize> = Vec::new();
        let mut kinds = Vec::with_capacity(self.pods.len());
        for (position, (pod, rules)) in self.pods.iter().enumerate() {
            let is_it = |first: &usize| {
                let (other, others) = &self.pods[*first];
                let id = other.id.clone();
                let same = rules.as_ref().map(Arc::as_ptr) == others.as_ref().map(Arc::as_ptr);
                same && *other == WaitingPod { id, ..pod.clone() }
            };
            let mut kind = firsts.iter().position(is_it);
            if kind.is_none() && firsts.len() < KINDS_MAX {
                firsts.push(position);
                kind = Some(firsts.len() - 1);
            }
            kinds.push(kind);
        }
        (kinds, firsts)
    }
}

impl Record {
    /// What the plan of a batch is about to depend on.
    pub fn take(seed: &str, asks: &[Ask<'_>], cluster: &mut Cluster) -> Record {
        let first = &asks[..asks.len().min(PODS_MAX)];
        let pods = first.iter().map(|ask| (ask.pod.clone(), ask.rules.clone()));
        let peers: BTreeSet<Peer> = first
            .iter()
            .filter_map(|ask| ask.rules.as_ref())
            .flat_map(|rules| rules.peers())
            .collect();
        let whole = cluster.len() <= NODES_MAX;
        let input = Input {
            seed: seed.to_owned(),
            pods: pods.collect(),
            state: cluster.state(peers.into_iter().filter(|_| whole), whole),
        };
        let mut kinds = Vec::new();
        if !whole {
            cluster.begin(seed);
            let (_, firsts) = input.kinds();
            kinds.extend(firsts.into_iter().map(|at| look(&asks[at], cluster)));
        }
        Record {
            input,
            pods_all: asks.len(),
            nodes_all: cluster.len(),
            whole,
            kinds,
            places: Vec::new(),
        }
    }

    /// Adds what the plan came to.
    pub fn decide(&mut self, plan: &Plan, cluster: &Cluster) {
        self.places = places_of(plan, self.input.pods.len(), cluster);
    }

    /// The pods that are told of, each with its place.
    pub fn places(&self) -> impl Iterator<Item = (&PodId, &Place)> {
        let pods = self.input.pods.iter().map(|(pod, _)| &pod.id);
        pods.zip(&self.places)
    }

    /// The record as it is kept.
    pub fn into_decision(mut self, id: String, given_back: usize) -> Decision {
        // What cannot be found again is not offered.
        self.whole = self.whole && self.input.plan() == self.places;
        let (kind_of, firsts) = self.input.kinds();
        if self.whole {
            let firsts = firsts.into_iter();
            self.kinds = firsts.filter_map(|at| self.input.kind_at(at)).collect();
        }
        for (kind, place) in kind_of.iter().zip(&self.places) {
            let Some(kind) = kind.and_then(|kind| self.kinds.get_mut(kind)) else {
                continue;
            };
            kind.pods += 1;
            let mut candidates = kind.candidates.iter_mut();
            if let Some(chosen) = candidates.find(|it| place.as_ref() == Ok(&it.node)) {
                chosen.chosen += 1;
            }
        }
        let mut rules: Vec<Arc<Rules>> = Vec::new();
        let pods = self.input.pods.iter().zip(self.places).zip(kind_of);
        let pods = pods.map(|(((pod, own), place), kind)| DecidedPod {
            id: pod.id.clone(),
            kind: kind.filter(|kind| *kind < self.kinds.len()),
            reason: place.as_ref().err().cloned(),
            node: place.ok(),
            rules: own.as_ref().map(|own| position_of(&mut rules, own)),
            asks: value_of(pod),
        });
        let pods = pods.collect();
        let state = self.input.state;
        let nodes = state.nodes.iter().filter(|_| self.whole);
        let nodes = nodes.map(|known| DecidedNode {
            node: value_of(&known.node),
            placed: known.placed,
            doubted: known.doubted,
        });
        let peers = state.peers.into_iter().map(|(peer, nodes)| CountedPeer {
            service: peer.service,
            revision: peer.revision,
            nodes,
        });
        Decision {
            id,
            time_ms: state.now_ms,
            batch: self.input.seed,
            strategy: state.strategy,
            weights: numbers_of(&state.weights),
            lease_ms: state.lease_ms,
            round_robin: state.round_robin,
            pods_all: self.pods_all as u64,
            pods,
            given_back: given_back as u64,
            kinds: self.kinds,
            rules: rules.iter().map(|rules| decided_rules(rules)).collect(),
            peers: peers.collect(),
            nodes_all: self.nodes_all as u64,
            whole: self.whole,
            nodes: nodes.collect(),
        }
    }
}

/// How the nodes look to a pod now.
fn look(ask: &Ask<'_>, cluster: &mut Cluster) -> Kind {
    let judged = cluster.judge(ask, CANDIDATES_MAX);
    let candidates = judged.best.iter().map(|taker| {
        let terms = cluster.terms(taker.at);
        Candidate {
            node: cluster.name(taker.at).to_owned(),
            chosen: 0,
            avoided: taker.avoided,
            unmet: taker.unmet,
            measure: taker.measure,
            score: terms.score(cluster.weights()).share(),
            terms: numbers_of(&terms),
        }
    });
    Kind {
        pods: 0,
        by: judged.by.to_owned(),
        takes: judged.takes as u64,
        candidates: candidates.collect(),
        refused: refused(ask, cluster)
            .into_iter()
            .map(|(nodes, why)| RefusedNodes {
                nodes: nodes as u64,
                why,
            })
            .collect(),
    }
}

fn places_of(plan: &Plan, count: usize, cluster: &Cluster) -> Vec<Place> {
    let mut places = vec![Err(String::new()); count];
    for (pod, at) in plan.placed.iter().filter(|(pod, _)| *pod < count) {
        places[*pod] = Ok(cluster.name(*at).to_owned());
    }
    for (pod, reason) in plan.parked.iter().filter(|(pod, _)| *pod < count) {
        places[*pod] = Err(reason.clone());
    }
    places
}

fn position_of(all: &mut Vec<Arc<Rules>>, own: &Arc<Rules>) -> usize {
    let known = all.iter().position(|rules| Arc::ptr_eq(rules, own));
    known.unwrap_or_else(|| {
        all.push(own.clone());
        all.len() - 1
    })
}

fn decided_rules(rules: &Rules) -> DecidedRules {
    DecidedRules {
        service: rules.service.as_ref().map(ToString::to_string),
        revision: rules.revision,
        namespace: rules.namespace.clone(),
        host_ports: rules.host_ports.clone(),
        asks: rules.like.asks().clone(),
        placement: rules.placement.clone(),
        targets: rules.targets.clone(),
    }
}

fn rules_of(decided: &DecidedRules) -> Rules {
    let rules = Rules::of(
        decided.service.as_deref().and_then(ServiceKey::parse),
        decided.revision,
        decided.namespace.clone(),
        decided.host_ports.clone(),
        decided.placement.clone(),
    );
    Rules {
        targets: decided.targets.clone(),
        ..rules.asking(decided.asks.clone())
    }
}

/// A struct of plain fields as JSON, which it always has.
fn value_of(fields: &impl serde::Serialize) -> Value {
    serde_json::to_value(fields).unwrap_or_default()
}

/// The numbers of a struct by the names of its fields.
fn numbers_of(fields: &impl serde::Serialize) -> BTreeMap<String, f64> {
    let value = value_of(fields);
    let fields = value.as_object().into_iter().flatten();
    let number = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()?));
    fields.filter_map(number).collect()
}
