//! After Redis lost writes: tells what this node holds, so that services and pods stand again.
//!
//! Told are the containers, from their labels, the newest wishes that this agent knows, and what it
//! knows to be deleted or stopped. Telling twice does no harm. Nothing here starts or stops a
//! container: what follows is said by the takes after it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

use super::worker::Workers;
use crate::container::{ContainerSpec, ContainerState};
use crate::model::{Phase, PodId, ServiceKey, ServiceSpec, Token};
use crate::store::{PODS_PER_CALL, RestoredPod, RestoredService, TakeOutcome, Taken};
use crate::telemetry::chain;

/// Containers described at once.
const DESCRIBED_AT_ONCE: usize = 8;

/// Tells everything once; false if it has to be told again.
pub(super) async fn tell(workers: &Arc<Workers>) -> bool {
    match Box::pin(tell_all(workers)).await {
        Ok(pods) => {
            tracing::warn!(pods, "Redis lost writes: told it what this node holds");
            workers.tell_again();
            workers.compare_all();
            true
        }
        Err(error) => {
            tracing::warn!(error, "telling what this node holds failed, trying again");
            false
        }
    }
}

/// Tells what users said of this node, if they were heard to; false if it has to be told again.
pub(super) async fn tell_said(workers: &Workers, said: &str) -> bool {
    if said.is_empty() {
        return true;
    }
    let recovery = workers.store().recovery();
    match recovery.node(workers.node(), workers.epoch(), said).await {
        Ok(known) => known,
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(
                error,
                "telling what users said of this node failed, trying again"
            );
            false
        }
    }
}

/// Answers how many pods were told.
async fn tell_all(workers: &Arc<Workers>) -> Result<usize, String> {
    let store = workers.store();
    let held = held(workers).await?;
    // The wishes first: a pod is put back only where its service stands.
    let mut services: BTreeMap<(String, String, u64), RestoredService> = BTreeMap::new();
    for (spec, _) in &held {
        let Some((key, name)) = service_of(spec).filter(|_| !was_followed(workers, spec)) else {
            continue;
        };
        let Some((uid, wish, replicas)) = wish_behind(workers, &name, spec) else {
            continue; // it is deleted, or of a version that said nothing of it
        };
        let entry = services.entry((name, uid, spec.revision));
        let service = entry.or_insert_with_key(|(name, uid, revision)| {
            let taken = workers.knowledge.spec(name, *revision);
            RestoredService {
                service: key,
                uid: uid.clone(),
                wish,
                replicas,
                deleted: false,
                revision: *revision,
                whole: taken.is_some(),
                spec: taken.unwrap_or_else(|| (*spec.spec).clone()),
                pod: Some(spec.pod.clone()),
            }
        });
        if wish > service.wish {
            (service.wish, service.replicas) = (wish, replicas);
        }
    }
    let deleted = workers.knowledge.deleted().into_iter();
    let deleted = deleted.map(|wish| RestoredService {
        spec: ServiceSpec::new(&wish.service.name, ""),
        service: wish.service,
        uid: wish.uid,
        wish: wish.number,
        replicas: 0,
        deleted: true,
        revision: wish.revision,
        whole: false,
        pod: None,
    });
    let mut gone = HashSet::new();
    for service in deleted.chain(services.into_values()) {
        let put_back = store.recovery().service(&service).await;
        if !put_back.map_err(|error| chain(&error))? {
            gone.insert((service.service.to_string(), service.uid));
        }
    }
    let is_gone = |spec: &ContainerSpec| {
        let uid = spec.wish.as_ref().map(|label| label.uid.clone());
        let service = spec.service.clone().zip(uid);
        service.is_some_and(|service| gone.contains(&service)) || was_followed(workers, spec)
    };
    let mut pods: Vec<RestoredPod> = workers
        .knowledge
        .stopped()
        .into_iter()
        .map(stopped_pod)
        .collect();
    pods.extend(held.iter().map(|(spec, container)| {
        if is_gone(spec) {
            return stopped_pod(spec.pod.clone());
        }
        let phase = phase_of(spec, &container.state);
        RestoredPod {
            id: spec.pod.clone(),
            token: spec.token.clone(),
            phase,
            replica: spec.replica,
            service: service_of(spec).map(|(key, _)| key),
            uid: uid_of(spec),
            revision: spec.revision,
            spec: (*spec.spec).clone(),
            container: container.id.clone(),
            exit_code: match &container.state {
                ContainerState::Exited { exit_code, .. } => Some(*exit_code),
                _ => None,
            },
        }
    }));
    for batch in pods.chunks(PODS_PER_CALL) {
        let told = store
            .recovery()
            .pods(workers.node(), workers.epoch(), batch)
            .await;
        if !told.map_err(|error| chain(&error))? {
            return Err("Redis does not know this agent yet".to_owned());
        }
    }
    Ok(held.len())
}

/// Uid, number and replicas of the newest known wish for the service that a container is of. One of
/// that name that was made later is another service, of which the container is not.
fn wish_behind(
    workers: &Workers,
    service: &str,
    spec: &ContainerSpec,
) -> Option<(String, u64, u32)> {
    let label = spec.wish.as_ref();
    match (workers.knowledge.wish(service), label) {
        (Some(wish), label) if label.is_none_or(|label| label.uid == wish.uid) => {
            (!wish.deleting).then_some((wish.uid, wish.number, wish.replicas))
        }
        (_, label) => label.map(|label| (label.uid.clone(), label.number, label.replicas)),
    }
}

/// What a container of this node was made from, and how it stands; without those that Redis knows
/// to be unwanted.
async fn held(
    workers: &Arc<Workers>,
) -> Result<Vec<(ContainerSpec, crate::container::Container)>, String> {
    let runtime = workers.runtime();
    let listed = runtime.list(workers.node(), workers.cluster()).await;
    let listed = listed.map_err(|error| chain(&error))?;
    let mut described = Vec::with_capacity(listed.len());
    let mut all = stream::iter(listed)
        .map(|container| async move { (runtime.describe(&container.id).await, container) })
        .buffer_unordered(DESCRIBED_AT_ONCE);
    while let Some((spec, container)) = all.next().await {
        if let Some(spec) = spec.map_err(|error| chain(&error))? {
            described.push((spec, container));
        }
    }
    let mut unwanted: HashSet<PodId> = HashSet::new();
    let ids: Vec<&PodId> = described.iter().map(|(spec, _)| &spec.pod).collect();
    for pods in ids.chunks(PODS_PER_CALL) {
        let pending = workers.store().pending();
        let taken = pending.take(workers.node(), workers.epoch(), pods).await;
        let TakeOutcome::Taken(taken, _) = taken.map_err(|error| chain(&error))? else {
            return Err("Redis does not know this agent yet".to_owned());
        };
        let stale = pods.iter().zip(&taken);
        let stale = stale
            .filter(|(_, taken)| matches!(taken, Taken::Stale | Taken::Unwanted | Taken::Stop(_)));
        unwanted.extend(stale.map(|(pod, _)| (*pod).clone()));
    }
    described.retain(|(spec, _)| !unwanted.contains(&spec.pod));
    Ok(described)
}

fn service_of(spec: &ContainerSpec) -> Option<(ServiceKey, String)> {
    let name = spec.service.clone()?;
    Some((ServiceKey::parse(&name)?, name))
}

/// Name of the submission that made a container's service, if its label says it.
fn uid_of(spec: &ContainerSpec) -> String {
    let label = spec.wish.as_ref();
    label.map_or_else(String::new, |label| label.uid.clone())
}

/// Whether this node heard of a later service of that name than a container is of: so that one was
/// deleted.
fn was_followed(workers: &Workers, spec: &ContainerSpec) -> bool {
    let heard = spec.service.as_deref();
    let heard = heard.and_then(|service| workers.knowledge.wish(service));
    let label = spec.wish.as_ref();
    heard
        .zip(label)
        .is_some_and(|(heard, label)| heard.uid != label.uid && heard.number > label.number)
}

fn stopped_pod(id: PodId) -> RestoredPod {
    RestoredPod {
        id,
        token: Token::default(),
        phase: Phase::Stopped,
        replica: 0,
        service: None,
        uid: String::new(),
        revision: 0,
        spec: ServiceSpec::new("", ""),
        container: String::new(),
        exit_code: None,
    }
}

/// Where a pod is whose container stands so: one that will be started again is no ended one.
fn phase_of(spec: &ContainerSpec, state: &ContainerState) -> Phase {
    match state {
        ContainerState::Running | ContainerState::Paused => Phase::Running,
        ContainerState::Created | ContainerState::Removing => Phase::Starting,
        ContainerState::Exited { exit_code, .. } => {
            match (spec.spec.restart.allows(*exit_code, 0), exit_code) {
                (true, _) => Phase::CrashLoop,
                (false, 0) => Phase::Succeeded,
                (false, _) => Phase::Failed,
            }
        }
    }
}
