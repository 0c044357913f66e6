//! What this node knows of the wishes behind its pods, so that it can tell should Redis be lost.
//!
//! Learnt from every take, and kept in memory: after a restart it is learnt again by the first
//! comparison. Bounded; the oldest goes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::container::WishLabel;
use crate::model::service::RegistryLogin;
use crate::model::{PodId, ServiceSpec};
use crate::store::{Taken, Wish};

/// Services and stopped pods that are remembered, each.
const REMEMBERED_MAX: usize = 10_000;

/// The wishes and ends that a node saw.
#[derive(Default)]
pub(super) struct Knowledge(Mutex<Known>);

#[derive(Default)]
struct Known {
    wishes: HashMap<String, Wish>,
    /// Specs as they were taken, with what is secret in them, and the logins of their images'
    /// registries, by service and revision.
    specs: HashMap<(String, u64), (String, Option<RegistryLogin>)>,
    /// Keys in the order they came.
    order: VecDeque<String>,
    stopped: VecDeque<PodId>,
    is_stopped: HashSet<PodId>,
}

impl Knowledge {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from what was taken.
    pub(super) fn learn(&self, wishes: Vec<Wish>, pods: &[&PodId], taken: &[Taken]) {
        let mut known = self.known();
        for wish in wishes {
            let key = wish.service.to_string();
            match known.wishes.get(&key) {
                // What Redis says after a loss may be older than what it said before.
                Some(stands) if stands.number > wish.number => continue,
                Some(stands) if stands.uid != wish.uid => {
                    known.specs.retain(|(service, _), _| *service != key); // of the one before it
                }
                Some(_) => {}
                None => known.order.push_back(key.clone()),
            }
            known.wishes.insert(key, wish);
        }
        for (pod, taken) in pods.iter().zip(taken) {
            match taken {
                Taken::Stop(_) if known.is_stopped.insert((*pod).clone()) => {
                    known.stopped.push_back((*pod).clone());
                }
                Taken::Run(run) if run.revision > 0 => {
                    let service = run.owner.trim_start_matches("service:").to_owned();
                    let spec = (run.spec.clone(), run.registry.clone());
                    known.specs.insert((service, run.revision), spec);
                }
                _ => {}
            }
        }
        known.forget();
    }

    /// The wish as a container's label tells it.
    pub(super) fn label(&self, service: &str) -> Option<WishLabel> {
        let known = self.known();
        let wish = known.wishes.get(service)?;
        Some(WishLabel {
            uid: wish.uid.clone(),
            number: wish.number,
            replicas: wish.replicas,
        })
    }

    /// The newest wish for a service.
    pub(super) fn wish(&self, service: &str) -> Option<Wish> {
        self.known().wishes.get(service).cloned()
    }

    /// The spec of a revision, as it was taken.
    pub(super) fn spec(&self, service: &str, revision: u64) -> Option<ServiceSpec> {
        let key = (service.to_owned(), revision);
        let (spec, registry) = self.known().specs.get(&key).cloned()?;
        let mut spec: ServiceSpec = serde_json::from_str(&spec).ok()?;
        spec.registry = registry;
        Some(spec)
    }

    /// Services that were being deleted when their pods here were stopped.
    pub(super) fn deleted(&self) -> Vec<Wish> {
        let known = self.known();
        let deleted = known.wishes.values().filter(|wish| wish.deleting);
        deleted.cloned().collect()
    }

    /// Pods that were to stop here.
    pub(super) fn stopped(&self) -> Vec<PodId> {
        self.known().stopped.iter().cloned().collect()
    }
}

impl Known {
    fn forget(&mut self) {
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.wishes.remove(&oldest);
                self.specs.retain(|(service, _), _| *service != oldest);
            }
        }
        while self.stopped.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.stopped.pop_front() {
                self.is_stopped.remove(&oldest);
            }
        }
        // Old revisions go with the pods that ran them.
        if self.specs.len() > 2 * REMEMBERED_MAX {
            let wishes = &self.wishes;
            self.specs.retain(|(service, revision), _| {
                wishes
                    .get(service)
                    .is_some_and(|wish| wish.revision == *revision)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Phase, ServiceKey, Token};
    use crate::store::ToRun;

    fn wish(number: u64, deleting: bool) -> Wish {
        Wish {
            service: ServiceKey::parse("default/web").unwrap(),
            uid: "u".into(),
            number,
            replicas: 3,
            revision: 1,
            deleting,
        }
    }

    #[test]
    fn the_newest_wish_is_kept() {
        let knowledge = Knowledge::default();
        knowledge.learn(vec![wish(5, false)], &[], &[]);
        knowledge.learn(vec![wish(4, true)], &[], &[]);
        assert_eq!(knowledge.wish("default/web").unwrap().number, 5);
        assert!(knowledge.deleted().is_empty());
        knowledge.learn(vec![wish(6, true)], &[], &[]);
        assert_eq!(knowledge.deleted(), [wish(6, true)]);
    }

    fn taken(revision: u64, image: &str) -> Taken {
        Taken::Run(Box::new(ToRun {
            token: Token::default(),
            phase: Phase::Running,
            replica: 0,
            owner: "service:default/web".into(),
            revision,
            spec: ServiceSpec::new("web", image).to_stored(),
            registry: Some(RegistryLogin {
                username: "u".into(),
                password: "p".into(),
            }),
            container: String::new(),
            restarts: 0,
            devices: Vec::new(),
            fence: String::new(),
        }))
    }

    #[test]
    fn specs_of_an_older_service_of_a_name_are_forgotten() {
        let knowledge = Knowledge::default();
        let pod = PodId::parse("p").unwrap();
        for revision in [1, 2] {
            knowledge.learn(vec![wish(5, false)], &[&pod], &[taken(revision, "older")]);
        }
        let login = knowledge.spec("default/web", 2).unwrap().registry;
        assert_eq!(login.unwrap().username, "u");
        let mut newer = wish(6, false);
        newer.uid = "another".into();
        knowledge.learn(vec![newer], &[&pod], &[taken(1, "newer")]);
        assert_eq!(knowledge.spec("default/web", 1).unwrap().image, "newer");
        assert_eq!(knowledge.spec("default/web", 2), None);
    }

    #[test]
    fn a_pod_that_only_leaves_this_node_is_no_stopped_one() {
        let knowledge = Knowledge::default();
        let pod = PodId::parse("p").unwrap();
        knowledge.learn(vec![], &[&pod], &[Taken::Move(Token::default())]);
        assert!(knowledge.stopped().is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let knowledge = Knowledge::default();
        for number in 0..REMEMBERED_MAX + 10 {
            let pod = PodId::parse(&format!("p-{number}")).unwrap();
            let mut other = wish(1, false);
            other.service.name = format!("s{number}");
            knowledge.learn(vec![other], &[&pod], &[Taken::Stop(Token::default())]);
        }
        assert_eq!(knowledge.stopped().len(), REMEMBERED_MAX);
        assert!(knowledge.wish("default/s0").is_none());
    }
}
