//! What other pods mean for a pod's place: affinity, spread over a label, most pods on a node.
//!
//! Pure. Counts of pods on nodes come from Redis with each batch that needs them; the places given
//! in the batch are counted here. What others place meanwhile the assign call's guards find out.

use std::collections::HashMap;
use std::sync::Arc;

use super::cluster::Entry;
use super::ranking::Ranking;
use super::rules::Rules;
use crate::model::node::NAME_LABEL;

/// No value of the label.
const NOWHERE: u32 = u32::MAX;

/// Whose pods are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// The service, `namespace/name`.
    pub service: String,
    /// Those of one revision, or all: of its own service a pod looks at its own revision, or an update
    /// could not put new pods beside old ones.
    pub revision: Option<u64>,
}

/// On which nodes pods of a service are.
#[derive(Debug, Clone, Default)]
struct Counted {
    placed: String,
    by_node: HashMap<usize, u32>,
}

/// Counts of other pods, and values of labels by node.
#[derive(Debug, Default)]
pub(super) struct Peers {
    counted: HashMap<Peer, Counted>,
    /// By label: which value each node has, numbered.
    domains: HashMap<String, (u64, Arc<Vec<u32>>)>,
}

/// What the rules of one service come to on each node, kept while its pods are placed.
#[derive(Debug)]
pub(super) struct View {
    rules: Arc<Rules>,
    terms: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    wish: Wish,
    /// Which of the affinities or spreads it is, for words.
    which: usize,
    weight: Option<u32>,
    domains: Arc<Vec<u32>>,
    /// Pods by domain.
    counts: Vec<u32>,
    /// Domains with a node that suits by itself: only these are compared in a spread.
    eligible: Vec<bool>,
    /// Whether a pod of the service itself counts.
    counts_own: bool,
    /// Pods in all domains.
    total: u32,
    /// Fewest pods of any eligible domain.
    fewest: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Near,
    Apart,
    Spread { max_skew: u32 },
    PerNode { max: u32 },
}

/// What of a placement is not met in view of other pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unmet {
    /// None of the pods to be near to is there: of this affinity.
    Near(usize),
    /// A pod to be apart from is there: of this affinity.
    Apart(usize),
    /// It would be uneven, or the label is missing: of this spread.
    Spread(usize),
    /// As many of the service as may be are there.
    PerNode,
}

impl Rules {
    /// Whose pods have to be counted.
    pub fn peers(&self) -> Vec<Peer> {
        let placement = &self.placement;
        let mut peers = Vec::new();
        if !placement.spread.is_empty() || placement.max_per_node.is_some() {
            peers.extend(self.own_peer());
        }
        for service in self.targets.iter().flatten() {
            peers.push(self.peer_of(service));
        }
        peers.sort();
        peers.dedup();
        peers
    }

    fn own_peer(&self) -> Option<Peer> {
        let service = self.service.as_ref()?;
        Some(Peer {
            service: service.to_string(),
            revision: Some(self.revision),
        })
    }

    fn peer_of(&self, service: &str) -> Peer {
        let own = self.service.as_ref();
        let is_own = own.is_some_and(|own| own.to_string() == service);
        Peer {
            service: service.to_owned(),
            revision: is_own.then_some(self.revision),
        }
    }
}

impl Peers {
    /// Takes over where the pods of a service are.
    pub(super) fn count(&mut self, peer: Peer, placed: String, by_node: HashMap<usize, u32>) {
        self.counted.insert(peer, Counted { placed, by_node });
    }

    /// Forgets where pods are.
    pub(super) fn clear(&mut self) {
        self.counted.clear();
    }

    /// Forgets which node is which.
    pub(super) fn forget_domains(&mut self) {
        self.domains.clear();
    }

    /// How often pods of a service had been placed, when they were counted.
    pub(super) fn placed(&self, peer: &Peer) -> Option<&str> {
        self.counted
            .get(peer)
            .map(|counted| counted.placed.as_str())
    }

    /// Counts a pod of a service on a node.
    pub(super) fn place(&mut self, rules: &Rules, at: usize) {
        let Some(own) = rules.own_peer() else { return };
        let any = Peer {
            revision: None,
            ..own.clone()
        };
        for peer in [own, any] {
            if let Some(counted) = self.counted.get_mut(&peer) {
                *counted.by_node.entry(at).or_default() += 1;
            }
        }
    }

    /// Counts that an assign call placed pods of a service once more.
    pub(super) fn was_placed(&mut self, service: &str) {
        let of = self.counted.iter_mut();
        for (_, counted) in of.filter(|(peer, _)| peer.service == service) {
            if let Ok(placed) = counted.placed.parse::<u64>() {
                counted.placed = (placed + 1).to_string();
            }
        }
    }

    /// What rules come to; `labels_turn` grows as any node's labels change.
    pub(super) fn view(
        &mut self,
        rules: &Arc<Rules>,
        nodes: &[Entry],
        labels_turn: u64,
        ranking: &Ranking,
    ) -> View {
        let placement = &rules.placement;
        let mut terms = Vec::new();
        for (which, affinity) in placement.affinity.iter().enumerate() {
            let wish = if affinity.is_near() {
                Wish::Near
            } else {
                Wish::Apart
            };
            let targets = rules
                .targets
                .get(which)
                .map(Vec::as_slice)
                .unwrap_or_default();
            let peers: Vec<Peer> = targets.iter().map(|it| rules.peer_of(it)).collect();
            let domains = self.domains(&affinity.per, nodes, labels_turn);
            terms.push(self.term(
                wish,
                which,
                affinity.weight,
                domains,
                &peers,
                rules,
                ranking,
            ));
        }
        let own: Vec<Peer> = rules.own_peer().into_iter().collect();
        for (which, spread) in placement.spread.iter().enumerate() {
            let max_skew = spread.max_skew;
            let domains = self.domains(&spread.over, nodes, labels_turn);
            let wish = Wish::Spread { max_skew };
            terms.push(self.term(wish, which, spread.weight, domains, &own, rules, ranking));
        }
        if let Some(max) = placement.max_per_node {
            let domains = self.domains(NAME_LABEL, nodes, labels_turn);
            terms.push(self.term(
                Wish::PerNode { max },
                0,
                None,
                domains,
                &own,
                rules,
                ranking,
            ));
        }
        View {
            rules: rules.clone(),
            terms,
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one term, used above alone"
    )]
    fn term(
        &self,
        wish: Wish,
        which: usize,
        weight: Option<u32>,
        domains: Arc<Vec<u32>>,
        peers: &[Peer],
        rules: &Rules,
        ranking: &Ranking,
    ) -> Term {
        let known = domains.iter().filter(|domain| **domain != NOWHERE);
        let size = known.max().map_or(0, |last| *last as usize + 1);
        let own = rules.own_peer();
        let mut term = Term {
            wish,
            which,
            weight,
            counts: vec![0; size],
            eligible: vec![false; size],
            counts_own: own.is_some_and(|own| peers.contains(&own)),
            total: 0,
            fewest: 0,
            domains,
        };
        for counted in peers.iter().filter_map(|peer| self.counted.get(peer)) {
            for (at, count) in &counted.by_node {
                if let Some(domain) = term.domain(*at) {
                    term.counts[domain] += count;
                    term.total += count;
                }
            }
        }
        if matches!(wish, Wish::Spread { .. }) {
            for at in 0..term.domains.len() {
                if let Some(domain) = term.domain(at)
                    && ranking.is_suited(at)
                {
                    term.eligible[domain] = true;
                }
            }
            term.find_fewest();
        }
        term
    }

    fn domains(&mut self, label: &str, nodes: &[Entry], labels_turn: u64) -> Arc<Vec<u32>> {
        if let Some((turn, domains)) = self.domains.get(label)
            && *turn == labels_turn
            && domains.len() == nodes.len()
        {
            return domains.clone();
        }
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let of = nodes.iter().map(|entry| match entry.labels.get(label) {
            Some(value) => {
                let next = u32::try_from(numbers.len()).unwrap_or(NOWHERE);
                *numbers.entry(value.as_str()).or_insert(next)
            }
            None => NOWHERE,
        });
        let domains = Arc::new(of.collect::<Vec<u32>>());
        self.domains
            .insert(label.to_owned(), (labels_turn, domains.clone()));
        domains
    }
}

impl View {
    /// Whether it is of these rules.
    pub(super) fn is_of(&self, rules: &Arc<Rules>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
    }

    /// How much a node leaves unmet of what is no must, or which must it does not meet.
    pub(super) fn judge(&self, at: usize) -> Result<u32, Unmet> {
        let mut unmet: u32 = 0;
        for term in &self.terms {
            let short = term.short(at);
            match (short, term.weight) {
                (0, _) => {}
                (_, None) => return Err(term.unmet()),
                (short, Some(weight)) => unmet = unmet.saturating_add(short.saturating_mul(weight)),
            }
        }
        Ok(unmet)
    }

    /// Counts a pod of the service on a node.
    pub(super) fn place(&mut self, at: usize) {
        for term in self.terms.iter_mut().filter(|term| term.counts_own) {
            if let Some(domain) = term.domain(at) {
                term.counts[domain] += 1;
                term.total += 1;
                term.find_fewest();
            }
        }
    }
}

impl Term {
    fn domain(&self, at: usize) -> Option<usize> {
        let domain = *self.domains.get(at)?;
        (domain != NOWHERE).then_some(domain as usize)
    }

    /// By how much a node misses it; 0 where it does not.
    fn short(&self, at: usize) -> u32 {
        let count = self.domain(at).map(|domain| self.counts[domain]);
        match (self.wish, count) {
            // The first of a group that wants to be together has nobody to be near to.
            (Wish::Near, Some(0)) => u32::from(!(self.counts_own && self.total == 0)),
            (Wish::Near, Some(_)) | (Wish::Apart | Wish::PerNode { .. }, None) => 0,
            (Wish::Near | Wish::Spread { .. }, None) => 1,
            (Wish::Apart, Some(count)) => count,
            (Wish::PerNode { max }, Some(count)) => u32::from(count >= max),
            (Wish::Spread { max_skew }, Some(count)) => {
                let skew = (count + 1).saturating_sub(self.fewest);
                match self.weight {
                    None => skew.saturating_sub(max_skew),
                    Some(_) => skew.saturating_sub(1), // as even as can be
                }
            }
        }
    }

    fn unmet(&self) -> Unmet {
        match self.wish {
            Wish::Near => Unmet::Near(self.which),
            Wish::Apart => Unmet::Apart(self.which),
            Wish::Spread { .. } => Unmet::Spread(self.which),
            Wish::PerNode { .. } => Unmet::PerNode,
        }
    }

    fn find_fewest(&mut self) {
        if matches!(self.wish, Wish::Spread { .. }) {
            let counts = self.counts.iter().zip(&self.eligible);
            let eligible = counts.filter(|(_, eligible)| **eligible);
            self.fewest = eligible.map(|(count, _)| *count).min().unwrap_or(0);
        }
    }
}
