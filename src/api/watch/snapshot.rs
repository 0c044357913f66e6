//! The snapshot a watch begins with: everything that is wanted, page by page.
//!
//! Walks by names and ids, never by counts: what is deleted meanwhile moves nothing else out of sight.

use serde::Serialize;

use super::{OBJECTS_PER_READ, Wanted};
use crate::api::App;
use crate::api::answer::ServiceStatus;
use crate::api::sse::{Frames, Gone, Out, patiently};
use crate::model::{PodId, Position, ServiceKey};

/// Nodes sent at once.
const NODES_PER_PAGE: usize = 100;

#[derive(Serialize)]
struct Snapshot<'a, T> {
    kind: &'static str,
    items: &'a [T],
}

#[derive(Serialize)]
struct Synced {
    position: Position,
}

/// Sends it, and answers where to go on: everything that changed since is told from there.
pub(super) async fn send(out: &Out, app: &App, wanted: &Wanted) -> Result<Position, Gone> {
    let position = patiently(out, async || app.store.events().newest().await).await?;
    let names_an_owner = wanted.service.is_some() || wanted.namespace.is_some();
    match &wanted.node {
        Some(node) if wanted.kinds.pods => {
            let assigned = async || app.store.pending().assigned(node).await;
            let ids = patiently(out, assigned).await?;
            send_pods(out, app, wanted, &ids).await?;
        }
        Some(_) => {}
        None => {
            send_services(out, app, wanted).await?;
            if wanted.kinds.pods && wanted.service.is_none() {
                send_pods_of_nobody(out, app, wanted).await?;
            }
        }
    }
    if wanted.kinds.nodes && !names_an_owner {
        send_nodes(out, app, wanted).await?;
    }
    let mut frames = Frames::default();
    frames.event("synced", Some(position), &Synced { position });
    out.send(&mut frames).await?;
    Ok(position)
}

/// Services, each page followed by their pods.
async fn send_services(out: &Out, app: &App, wanted: &Wanted) -> Result<(), Gone> {
    let mut after: Option<ServiceKey> = None;
    loop {
        let services = app.store.services();
        let keys = match &wanted.service {
            Some(service) => vec![service.clone()],
            None => {
                let namespace = wanted.namespace.as_deref();
                let list = async || {
                    services
                        .keys(namespace, after.as_ref(), OBJECTS_PER_READ)
                        .await
                };
                patiently(out, list).await?
            }
        };
        if wanted.kinds.services {
            let found = patiently(out, async || services.get_all(&keys).await).await?;
            let found = found.into_iter();
            let found: Vec<_> = found
                .map(|(service, running)| ServiceStatus::new(service, running))
                .collect();
            send_page(out, "services", &found).await?;
        }
        if wanted.kinds.pods {
            let ids = patiently(out, async || app.store.pods().ids_of(&keys).await).await?;
            send_pods(out, app, wanted, &ids).await?;
        }
        if wanted.service.is_some() || keys.len() < OBJECTS_PER_READ {
            return Ok(());
        }
        after = keys.into_iter().next_back();
    }
}

async fn send_pods_of_nobody(out: &Out, app: &App, wanted: &Wanted) -> Result<(), Gone> {
    let mut after: Option<PodId> = None;
    loop {
        let list = async || {
            let pods = app.store.pods();
            pods.ids_of_nobody(after.as_ref(), OBJECTS_PER_READ).await
        };
        let ids = patiently(out, list).await?;
        send_pods(out, app, wanted, &ids).await?;
        if ids.len() < OBJECTS_PER_READ {
            return Ok(());
        }
        after = ids.into_iter().next_back();
    }
}

async fn send_pods(out: &Out, app: &App, wanted: &Wanted, ids: &[PodId]) -> Result<(), Gone> {
    for ids in ids.chunks(OBJECTS_PER_READ) {
        let read = async || app.store.pods().get_all(ids).await;
        let mut pods = patiently(out, read).await?;
        pods.retain(|pod| {
            let service = wanted.service.as_ref().map(ServiceKey::to_string);
            let namespace = wanted.namespace.as_ref();
            let node = wanted.node.as_ref();
            (service.is_none() || pod.service == service)
                && namespace.is_none_or(|name| pod.namespace == *name)
                && node.is_none_or(|name| pod.node.as_ref() == Some(name))
        });
        send_page(out, "pods", &pods).await?;
    }
    Ok(())
}

async fn send_nodes(out: &Out, app: &App, wanted: &Wanted) -> Result<(), Gone> {
    let nodes = match &wanted.node {
        Some(name) => {
            let get = async || app.store.nodes().get(name, app.lease).await;
            patiently(out, get).await?.into_iter().collect()
        }
        None => patiently(out, async || app.store.nodes().list(app.lease).await).await?,
    };
    for nodes in nodes.chunks(NODES_PER_PAGE) {
        send_page(out, "nodes", nodes).await?;
    }
    Ok(())
}

async fn send_page<T: Serialize>(out: &Out, kind: &'static str, items: &[T]) -> Result<(), Gone> {
    if items.is_empty() {
        return Ok(());
    }
    let mut frames = Frames::default();
    frames.event("snapshot", None, &Snapshot { kind, items });
    out.send(&mut frames).await
}
