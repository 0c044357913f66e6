//! Pods in Redis, as users see them: reading, listing page by page, stopping one without an owner.

use std::collections::HashMap;

use super::call::command;
use super::{Store, StoreError};
use crate::model::amounts::device_names;
use crate::model::{Desired, Owner, Phase, Pod, PodId, ServiceKey, ServiceSpec};

/// Most pods on one page.
pub const PAGE_MAX: usize = 1000;
/// Most pods looked at for one page: a rare phase must not make one request read everything.
const LOOKED_AT_MAX: usize = 5000;

/// Ids of each service's pods where several services are asked about at once.
const IDS_TOGETHER: usize = 100;

/// What a pod's record holds for the digest of its revision's image.
const SAME_DIGEST: &str = "=";

/// The port of pods.
pub struct Pods<'a>(pub(super) &'a Store);

/// Which pods are listed; all that are given must hold.
#[derive(Debug, Clone, Default)]
pub struct PodFilter {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this service.
    pub service: Option<ServiceKey>,
    /// On this node.
    pub node: Option<String>,
    /// In this phase.
    pub phase: Option<Phase>,
}

/// Some pods, and where to go on.
#[derive(Debug, Clone, Default)]
pub struct PodPage {
    /// The pods.
    pub pods: Vec<Pod>,
    /// Give it back for the next page; `None` after the last. A page may be empty and still have
    /// a next one, when few pods match.
    pub cursor: Option<String>,
}

/// What became of stopping a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodStopOutcome {
    /// It is told to stop.
    Stopping,
    /// There is no such pod.
    Absent,
    /// It belongs to this owner.
    Owned(String),
}

impl Pods<'_> {
    /// One pod; `None` if there is none, or it was stopped.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn get(&self, id: &PodId) -> Result<Option<Pod>, StoreError> {
        Ok(self.read(std::slice::from_ref(id)).await?.pop())
    }

    /// Those of `ids` that there are: without the stopped ones.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn get_all(&self, ids: &[PodId]) -> Result<Vec<Pod>, StoreError> {
        self.read(ids).await
    }

    /// Ids of all pods of each of `services`, by replica.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn ids_of(&self, services: &[ServiceKey]) -> Result<Vec<PodId>, StoreError> {
        let mut ids = Vec::new();
        // Most services are small and asked about together; a reply holds one large one at most.
        let first = self.ids_up_to(services, IDS_TOGETHER).await?;
        for (service, first) in services.iter().zip(first) {
            if first.len() < IDS_TOGETHER {
                ids.extend(first);
            } else {
                let whole = self.ids_up_to(std::slice::from_ref(service), 0).await?;
                ids.extend(whole.into_iter().flatten());
            }
        }
        let ids = ids.iter();
        Ok(ids.filter_map(|id| PodId::parse(id)).collect())
    }

    /// The first ids of each service; all for 0.
    async fn ids_up_to(
        &self,
        services: &[ServiceKey],
        count: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        if services.is_empty() {
            return Ok(Vec::new());
        }
        let last = count.checked_sub(1).map_or(-1, |last| last.cast_signed());
        let mut pipeline = redis::pipe();
        for service in services {
            let mut range = command("ZRANGE");
            range.arg(self.0.keys.service_pods(service));
            pipeline.add_command(range.arg(0).arg(last).clone());
        }
        self.0.read("ZRANGE", &pipeline).await
    }

    /// Ids of pods without an owner, in their order, behind `after`.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn ids_of_nobody(
        &self,
        after: Option<&PodId>,
        limit: usize,
    ) -> Result<Vec<PodId>, StoreError> {
        let first = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut range = command("ZRANGEBYLEX");
        range.arg(self.0.keys.pods()).arg(first).arg("+");
        range.arg("LIMIT").arg(0).arg(limit);
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (found,): (Vec<String>,) = self.0.read("ZRANGEBYLEX", &pipeline).await?;
        Ok(found.iter().filter_map(|id| PodId::parse(id)).collect())
    }

    /// Stops a pod that has no owner.
    ///
    /// # Errors
    /// May be tried again.
    pub async fn stop(&self, id: &PodId) -> Result<PodStopOutcome, StoreError> {
        let call = self.0.function("kl_pod_stop").arg(id.as_str());
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "stopping" => Ok(PodStopOutcome::Stopping),
            "absent" => Ok(PodStopOutcome::Absent),
            "owned" => Ok(PodStopOutcome::Owned(reply.text()?)),
            _ => Err(reply.unknown(word)),
        }
    }

    /// A page of pods: a node's by id; else by service and replica, those without an owner last.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn list(
        &self,
        filter: &PodFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<PodPage, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut position = Position::parse(cursor.unwrap_or_default());
        let mut page = PodPage::default();
        let mut looked_at = 0;
        loop {
            // No more than the page still takes: the cursor then never skips a pod.
            let wanted = limit - page.pods.len();
            let (ids, next) = match &filter.node {
                Some(node) => self.ids_of_node(node, position, wanted).await?,
                None => self.ids(filter, position, wanted).await?,
            };
            looked_at += ids.len().max(1);
            let pods = self.read(&ids).await?;
            page.pods
                .extend(pods.into_iter().filter(|pod| matches(filter, pod)));
            let Some(next) = next else {
                return Ok(page);
            };
            if page.pods.len() >= limit || looked_at >= LOOKED_AT_MAX {
                page.cursor = Some(next.to_string());
                return Ok(page);
            }
            position = next;
        }
    }

    async fn ids_of_node(
        &self,
        node: &str,
        position: Position,
        wanted: usize,
    ) -> Result<(Vec<PodId>, Option<Position>), StoreError> {
        let mut ids = self.0.pending().assigned(node).await?;
        ids.sort();
        let first = match &position {
            Position::After { id, .. } => {
                ids.partition_point(|known| known.as_str() <= id.as_str())
            }
            _ => 0,
        };
        let rest = ids.split_off(first.min(ids.len()));
        let more = rest.len() > wanted;
        let page: Vec<PodId> = rest.into_iter().take(wanted).collect();
        let next = match page.last() {
            Some(last) if more => Some(Position::After {
                service: String::new(),
                id: last.to_string(),
                offset: 0,
            }),
            _ => None,
        };
        Ok((page, next))
    }

    /// Up to `wanted` ids from `position` on, never across the end of a service.
    async fn ids(
        &self,
        filter: &PodFilter,
        position: Position,
        wanted: usize,
    ) -> Result<(Vec<PodId>, Option<Position>), StoreError> {
        let namespace = filter.namespace.as_deref();
        let (service, offset) = match position {
            Position::Start => match &filter.service {
                Some(service) => (Some(service.clone()), 0),
                None => (self.next_service(namespace, None).await?, 0),
            },
            Position::After {
                service, offset, ..
            } => (ServiceKey::parse(&service), offset),
        };
        let key = match &service {
            Some(service) => self.0.keys.service_pods(service),
            None => self.0.keys.pods(),
        };
        let mut range = command("ZRANGE");
        range.arg(key).arg(offset).arg(offset + wanted - 1);
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (found,): (Vec<String>,) = self.0.read("ZRANGE", &pipeline).await?;
        let next = if found.len() == wanted {
            Some(Position::After {
                service: service
                    .as_ref()
                    .map(ServiceKey::to_string)
                    .unwrap_or_default(),
                id: String::new(),
                offset: offset + wanted,
            })
        } else if service.is_some() && filter.service.is_none() {
            let next = self.next_service(namespace, service.as_ref()).await?;
            Some(Position::After {
                service: next.map(|next| next.to_string()).unwrap_or_default(),
                id: String::new(),
                offset: 0,
            })
        } else {
            None
        };
        let ids = found.iter().filter_map(|id| PodId::parse(id)).collect();
        Ok((ids, next))
    }

    async fn next_service(
        &self,
        namespace: Option<&str>,
        after: Option<&ServiceKey>,
    ) -> Result<Option<ServiceKey>, StoreError> {
        Ok(self.0.services().keys(namespace, after, 1).await?.pop())
    }

    async fn read(&self, ids: &[PodId]) -> Result<Vec<Pod>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in ids {
            let mut get = command("HGETALL");
            get.arg(self.0.keys.pod(id));
            pipeline.add_command(get);
        }
        let hashes = self.0.read_hashes(pipeline).await?;
        let pods = ids.iter().zip(&hashes);
        let mut pods: Vec<Pod> = pods.filter_map(|(id, hash)| read_pod(id, hash)).collect();
        let images = self.images_of(&pods).await?;
        for pod in &mut pods {
            let of = pod.service.clone().map(|service| (service, pod.revision));
            let (image, digest) = of
                .and_then(|of| images.get(&of).cloned())
                .unwrap_or_default();
            if pod.service.is_some() {
                pod.image = image;
            }
            if pod.digest.as_deref() == Some(SAME_DIGEST) {
                pod.digest = digest;
            }
        }
        Ok(pods)
    }

    /// The image of each revision that one of `pods` is of, and its digest, in one round trip.
    async fn images_of(
        &self,
        pods: &[Pod],
    ) -> Result<HashMap<(String, u64), (Option<String>, Option<String>)>, StoreError> {
        let mut images = HashMap::new();
        let mut pipeline = redis::pipe();
        for pod in pods {
            let Some(service) = &pod.service else {
                continue;
            };
            let Some(key) = ServiceKey::parse(service) else {
                continue;
            };
            let place = images.len();
            let of = (service.clone(), pod.revision);
            images.entry(of).or_insert_with(|| {
                let mut get = command("HMGET");
                get.arg(self.0.keys.service(&key));
                get.arg(format!("spec:{}", pod.revision));
                pipeline.add_command(get.arg(format!("digest:{}", pod.revision)).clone());
                place
            });
        }
        if images.is_empty() {
            return Ok(HashMap::new());
        }
        let found: Vec<(Option<String>, Option<String>)> = self.0.read("HMGET", &pipeline).await?;
        let image_of = |place: usize| {
            let (spec, digest) = found.get(place).cloned().unwrap_or_default();
            let spec = spec.and_then(|spec| serde_json::from_str::<ServiceSpec>(&spec).ok());
            (spec.map(|spec| spec.image), digest)
        };
        let images = images.into_iter();
        Ok(images.map(|(of, place)| (of, image_of(place))).collect())
    }
}

fn matches(filter: &PodFilter, pod: &Pod) -> bool {
    let service = filter.service.as_ref().map(ServiceKey::to_string);
    filter.phase.is_none_or(|phase| pod.phase == phase)
        && filter
            .node
            .as_ref()
            .is_none_or(|node| pod.node.as_ref() == Some(node))
        && filter
            .namespace
            .as_ref()
            .is_none_or(|namespace| pod.namespace == *namespace)
        && (service.is_none() || pod.service == service)
}

/// A pod from its hash; `None` for a tombstone, or for what is no pod.
pub(super) fn read_pod(id: &PodId, hash: &HashMap<String, String>) -> Option<Pod> {
    let text = |field: &str| hash.get(field).filter(|text| !text.is_empty()).cloned();
    let number = |field: &str| hash.get(field).and_then(|text| text.parse::<u64>().ok());
    let owner = Owner::parse(hash.get("owner")?)?;
    let phase = Phase::parse(hash.get("phase")?)?;
    let (name, namespace, service, image) = match &owner {
        Owner::Service(key) => (
            key.name.clone(),
            key.namespace.clone(),
            Some(key.to_string()),
            None,
        ),
        Owner::Nobody => {
            let spec: ServiceSpec = serde_json::from_str(hash.get("spec")?).ok()?;
            (spec.name, spec.namespace, None, Some(spec.image))
        }
    };
    let waits = (phase == Phase::Waiting).then(|| "in the queue".to_owned());
    Some(Pod {
        id: id.clone(),
        name,
        namespace,
        service,
        replica: u32::try_from(number("replica")?).ok()?,
        revision: number("revision").unwrap_or(0),
        image,
        desired: Desired::parse(hash.get("desired")?)?,
        phase,
        reason: text("reason").or(waits),
        node: text("node"),
        attempt: number("attempt").unwrap_or(0),
        container: text("container"),
        exit_code: hash.get("exit_code").and_then(|code| code.parse().ok()),
        ready: phase == Phase::Running && number("ready") != Some(0),
        restarts: number("restarts")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
        ports: text("ports")
            .filter(|_| phase.runs())
            .map_or_else(Vec::new, |ports| {
                ports.split(',').map(str::to_owned).collect()
            }),
        digest: text("digest"),
        price: text("price"),
        devices: text("devices").map_or_else(Vec::new, |names| device_names(&names)),
        created_ms: number("created_ms").unwrap_or(0),
        changed_ms: number("changed_ms").unwrap_or(0),
    })
}

/// Where a page begins. As text: `<service>~<offset>~<id>`, none of which can hold a `~`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Position {
    Start,
    After {
        service: String,
        id: String,
        offset: usize,
    },
}

impl Position {
    /// An unreadable cursor is the start.
    pub(super) fn parse(text: &str) -> Position {
        let mut parts = text.splitn(3, '~');
        match (parts.next(), parts.next().map(str::parse), parts.next()) {
            (Some(service), Some(Ok(offset)), Some(id)) => Position::After {
                service: service.to_owned(),
                id: id.to_owned(),
                offset,
            },
            _ => Position::Start,
        }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Position::Start => Ok(()),
            Position::After {
                service,
                id,
                offset,
            } => write!(f, "{service}~{offset}~{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back() {
        let position = Position::After {
            service: "default/web".into(),
            id: "abc-1".into(),
            offset: 7,
        };
        assert_eq!(Position::parse(&position.to_string()), position);
        assert_eq!(Position::parse(""), Position::Start);
        assert_eq!(Position::parse("rubbish"), Position::Start);
    }
}
