//! Wishes in Redis, as controllers see them: which changed, what stands, and steps towards them.

use std::time::Duration;

use super::queue::millis;
use super::{Arrivals, Store, StoreError};
use crate::model::amounts::is_device_kind;
use crate::model::{Amounts, Desired, Phase, PodId, ServiceKey, ServiceSpec};

/// Pods shown by one call of a view.
const VIEW_PODS: usize = 500;
/// Pods made, and pods stopped, by one step: a few milliseconds of Redis.
pub const STEP_PODS_MAX: usize = 400;

/// The port of wishes.
pub struct Wishes<'a>(pub(super) &'a Store);

/// A service that is due for a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The service.
    pub service: ServiceKey,
    /// The end of this claim, by which a step shows that nobody marked it since.
    pub until: String,
}

/// A wish and all that was made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Redis's clock when it was read, in ms since 1970.
    pub now_ms: u64,
    /// Changes with every change of the wish or of the number of its pods.
    pub turn: u64,
    /// The current revision.
    pub revision: u64,
    /// How many pods are wanted.
    pub replicas: u32,
    /// How many replica indexes were ever made.
    pub split: u32,
    /// The service is being deleted.
    pub deleting: bool,
    /// Fixed ports that a pod of the current revision takes of its node.
    pub host_ports: Vec<String>,
    /// What a pod of the current revision runs; `None` if the record is damaged.
    pub spec: Option<Box<ServiceSpec>>,
    /// Its pods, by replica index.
    pub pods: Vec<PodView>,
}

/// What a plan needs to know of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Its id.
    pub id: PodId,
    /// Its replica index.
    pub replica: u32,
    /// Where it is; `None` if its record was taken away or damaged.
    pub phase: Option<Phase>,
    /// What is wanted of it.
    pub desired: Desired,
    /// Revision it runs.
    pub revision: u64,
    /// It runs, and its probes say that it is ready.
    pub ready: bool,
    /// Its node; also of an ended pod.
    pub node: Option<String>,
    /// How long ago it was made, and how long ago its phase changed, by Redis's clock: both in ms
    /// since 1970.
    pub created_ms: u64,
    /// See [`PodView::created_ms`].
    pub changed_ms: u64,
    /// How its container ended last.
    pub exit_code: Option<i64>,
    /// How often its container was started again.
    pub restarts: u32,
    /// How many predecessors in a row failed before it.
    pub retries: u32,
    /// Fixed ports that it takes of its node.
    pub host_ports: Vec<String>,
    /// Kinds of the devices that it has of its node, or waits for.
    pub device_kinds: Vec<String>,
    /// Pods on its node.
    pub node_pods: u64,
    /// Its node is being drained.
    pub draining: bool,
    /// Why it alone is to leave its node for another.
    pub leaves: Option<String>,
}

/// A pod to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPod {
    /// Its replica index.
    pub replica: u32,
    /// Why, where that needs saying.
    pub reason: String,
    /// Nodes where it should not go if it fits elsewhere.
    pub avoid: Vec<String>,
    /// How many predecessors in a row failed before it.
    pub retries: u32,
}

/// A step of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceStep {
    /// Pods to make.
    pub new: Vec<NewPod>,
    /// Pods to stop, and why.
    pub stop: Vec<(PodId, String)>,
    /// When to look again though nothing changes; `None` if all is as wanted.
    pub again: Option<Duration>,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was carried out.
    Stepped,
    /// The service changed since it was viewed: look again.
    Moved,
    /// There is no such service any more.
    Absent,
}

/// Where a comparison of all services goes on, and what it carries of a service that it has begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    service: String,
    offset: i64,
    carried: [u64; 3],
    /// Waiting pods that were put back in the queue by the last part.
    pub put_back: u64,
    /// Some waiting pods may lie in no queue, but that cannot be told while others are queued.
    pub busy: bool,
    /// All services were compared.
    pub done: bool,
}

impl Wishes<'_> {
    /// A watch that tells when a service is due, on a connection of its own.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn arrivals(&self, longest: Duration) -> Result<Arrivals, StoreError> {
        Arrivals::of(self.0, self.0.keys.services_wake(), longest).await
    }

    /// Claims up to `max` services that are due, for `lease`.
    ///
    /// # Errors
    /// If the answer was lost, they are due again after the lease.
    pub async fn claim(&self, max: usize, lease: Duration) -> Result<Vec<Due>, StoreError> {
        let call = self.0.function("kl_service_claim");
        let mut reply = self.0.call(call.arg(max).arg(millis(lease))).await?;
        reply.expect_word("claimed")?;
        let mut found = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            let mut one = reply.list()?;
            let service = one.text_by_hand()?;
            let until = one.text()?;
            // What is no key was written by hand; it comes back after the lease, which costs little.
            found.extend(ServiceKey::parse(&service).map(|service| Due { service, until }));
        }
        Ok(found)
    }

    /// A wish and all its pods; `None` if there is no such service. A large one is read in pages,
    /// and its pods may move in between: a step checks the turn again.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn view(&self, service: &ServiceKey) -> Result<Option<View>, StoreError> {
        let mut whole: Option<View> = None;
        loop {
            let offset = whole.as_ref().map_or(0, |view| view.pods.len());
            let call = self.0.function("kl_service_view").arg(service.to_string());
            let mut reply = self.0.call(call.arg(offset).arg(VIEW_PODS)).await?;
            let word = reply.text()?;
            match word.as_str() {
                "absent" => return Ok(None),
                "view" => {}
                _ => return Err(reply.unknown(word)),
            }
            let mut page = read_view(&mut reply)?;
            let last = page.pods.len() < VIEW_PODS;
            let view = match whole.take() {
                None => page,
                Some(mut view) => {
                    view.pods.append(&mut page.pods);
                    view
                }
            };
            if last {
                return Ok(Some(view));
            }
            whole = Some(view);
        }
    }

    /// Carries out a step that was planned for `view`; `revisions_kept` are kept once all is as
    /// wanted.
    ///
    /// # Errors
    /// May be tried again, after another view.
    pub async fn step(
        &self,
        due: &Due,
        view: &View,
        step: &ServiceStep,
        revisions_kept: u32,
    ) -> Result<StepOutcome, StoreError> {
        let call = self.0.function("kl_service_step");
        let mut call = call
            .arg(due.service.to_string())
            .arg(view.turn)
            .arg(&due.until)
            .arg(step.again.map_or(0, |again| millis(again).max(1)))
            .arg(revisions_kept)
            .arg(PodId::new_submission())
            .arg(step.new.len());
        for pod in &step.new {
            call = call
                .arg(pod.replica)
                .arg(&pod.reason)
                .arg(pod.avoid.join(","))
                .arg(pod.retries);
        }
        for (pod, why) in &step.stop {
            call = call.arg(pod.as_str()).arg(why);
        }
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "stepped" => Ok(StepOutcome::Stepped),
            "moved" => Ok(StepOutcome::Moved),
            "absent" => Ok(StepOutcome::Absent),
            _ => Err(reply.unknown(word)),
        }
    }

    /// Clears keys to which a person gave a wrong type; how many there were.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn mend(&self) -> Result<u64, StoreError> {
        let mut reply = self.0.call(self.0.function("kl_cluster_mend")).await?;
        reply.expect_word("mended")?;
        reply.number()
    }

    /// Compares the next part of all services, at most `pods` of their pods; begin with the
    /// default. Ended pods without an owner are stopped after `keep`; a service keeps `ended_kept`.
    ///
    /// # Errors
    /// Redis cannot be reached; the same part may be compared again.
    pub async fn compare(
        &self,
        from: &Comparison,
        pods: usize,
        keep: Duration,
        ended_kept: usize,
    ) -> Result<Comparison, StoreError> {
        let mut call = self.0.function("kl_service_compare");
        call = call.arg(&from.service).arg(from.offset).arg(pods);
        call = call.arg(millis(keep)).arg(ended_kept);
        for carried in from.carried {
            call = call.arg(carried);
        }
        let mut reply = self.0.call(call).await?;
        reply.expect_word("compared")?;
        Ok(Comparison {
            busy: reply.text()? == "1",
            put_back: reply.number()?,
            service: reply.text_by_hand()?,
            offset: reply.number()?,
            done: reply.text()? == "1",
            carried: [reply.number()?, reply.number()?, reply.number()?],
        })
    }
}

pub(super) fn read_view(reply: &mut super::call::Reply) -> Result<View, StoreError> {
    let mut view = View {
        now_ms: reply.number()?,
        turn: reply.number()?,
        revision: reply.number()?,
        replicas: reply.number()?,
        split: reply.number()?,
        deleting: !reply.text()?.is_empty(),
        host_ports: list(&reply.text_by_hand()?),
        spec: serde_json::from_slice(&reply.bytes()?).ok().map(Box::new),
        pods: Vec::with_capacity(reply.left()),
    };
    while !reply.is_empty() {
        let mut pod = reply.list()?;
        // A pod's record may have been written by hand: what is no number is none.
        let id = pod.text_by_hand()?;
        let replica = number(&pod.text_by_hand()?);
        let phase = Phase::parse(&pod.text_by_hand()?);
        let desired = Desired::parse(&pod.text_by_hand()?);
        let phase = phase.filter(|_| desired.is_some());
        let revision = number(&pod.text_by_hand()?);
        let ready = pod.text_by_hand()? != "0" && phase == Some(Phase::Running);
        let node = Some(pod.text_by_hand()?).filter(|node| !node.is_empty());
        let created_ms = number(&pod.text_by_hand()?);
        let changed_ms = number(&pod.text_by_hand()?);
        let exit_code = pod.text_by_hand()?.parse().ok();
        let restarts = number(&pod.text_by_hand()?);
        let retries = number(&pod.text_by_hand()?);
        let host_ports = list(&pod.text_by_hand()?);
        let asks = Amounts::parse(&pod.text_by_hand()?);
        let device_kinds = asks
            .iter()
            .map(|(word, _)| word)
            .filter(|word| is_device_kind(word));
        let device_kinds = device_kinds.map(str::to_owned).collect();
        let leaves = Some(pod.text_by_hand()?).filter(|why| !why.is_empty());
        let node_pods = number(&pod.text_by_hand()?);
        let draining = !pod.text_by_hand()?.is_empty();
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let Some(id) = PodId::parse(&id) else {
            continue;
        };
        view.pods.push(PodView {
            id,
            replica: small(replica),
            phase,
            desired: desired.unwrap_or(Desired::Run),
            revision,
            ready,
            node,
            created_ms,
            changed_ms,
            exit_code,
            restarts: small(restarts),
            retries: small(retries),
            host_ports,
            device_kinds,
            node_pods,
            draining,
            leaves,
        });
    }
    Ok(view)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn list(text: &str) -> Vec<String> {
    let items = text.split(',').filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}
