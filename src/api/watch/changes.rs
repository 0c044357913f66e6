//! What changed: the objects that events speak of, as they are now.

use std::collections::HashMap;

use serde::Serialize;

use super::Wanted;
use crate::api::App;
use crate::api::answer::ServiceStatus;
use crate::api::sse::Frames;
use crate::model::{Event, PodId, ServiceKey, Subject};
use crate::store::StoreError;

/// Kinds of events after which a service is as before.
const NOTHING_TO_A_SERVICE: [&str; 4] = ["parked", "scheduled", "starting", "stopping"];

/// Something that is there no more.
#[derive(Serialize)]
struct Deleted<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a PodId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    reason: &'a str,
}

/// An object and the last event that speaks of it.
pub(super) struct Touched<'a> {
    object: Object,
    event: &'a Event,
    /// Whether one of the events is of the object itself, not only of a pod of it.
    is_its_own: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Object {
    Service(ServiceKey),
    Pod(PodId),
    Node(String),
}

/// What the events speak of, once each, in the order of the last event of each. So whoever has one
/// of these has all that was told up to the position of its event.
pub(super) fn touched<'a>(wanted: &Wanted, events: &'a [Event]) -> Vec<Touched<'a>> {
    let mut last: HashMap<Object, (usize, &Event, bool)> = HashMap::new();
    let mut touch = |object, order, event: &'a Event| {
        let is_its_own = !matches!(object, Object::Service(_)) || event.subject != Subject::Pod;
        let known = last.entry(object).or_insert((order, event, is_its_own));
        *known = (order, event, known.2 || is_its_own);
    };
    for (order, event) in events.iter().enumerate() {
        let service = event.service.as_deref().and_then(ServiceKey::parse);
        let is_of_service = wanted.service.is_none() || service == wanted.service;
        // Of pods without an owner the namespace is known once they are read.
        let is_of_namespace = wanted.namespace.is_none()
            || event.namespace == wanted.namespace
            || (event.namespace.is_none() && event.subject == Subject::Pod);
        let is_of_node = wanted.node.is_none() || event.node == wanted.node;
        let names_an_owner = wanted.service.is_some() || wanted.namespace.is_some();
        match event.subject {
            Subject::Pod if is_of_service && is_of_namespace => {
                if let (true, Some(id), true) = (wanted.kinds.pods, &event.pod, is_of_node) {
                    touch(Object::Pod(id.clone()), order, event);
                }
                let changes_it = !NOTHING_TO_A_SERVICE.contains(&event.kind.as_str());
                if let Some(key) = service
                    && wanted.kinds.services
                    && wanted.node.is_none()
                    && changes_it
                {
                    touch(Object::Service(key), order, event);
                }
            }
            Subject::Service if is_of_service && is_of_namespace && wanted.node.is_none() => {
                if let (true, Some(key)) = (wanted.kinds.services, service) {
                    touch(Object::Service(key), order, event);
                }
            }
            Subject::Node if is_of_node && wanted.kinds.nodes && !names_an_owner => {
                if let Some(name) = &event.node {
                    touch(Object::Node(name.clone()), order, event);
                }
            }
            _ => {}
        }
    }
    let mut touched: Vec<_> = last.into_iter().collect();
    touched.sort_by_key(|(object, (order, ..))| (*order, !matches!(object, Object::Pod(_))));
    let touched = touched.into_iter();
    let touched = touched.map(|(object, (_, event, is_its_own))| Touched {
        object,
        event,
        is_its_own,
    });
    touched.collect()
}

/// The objects as they are now.
pub(super) async fn changes(
    app: &App,
    wanted: &Wanted,
    objects: &[Touched<'_>],
) -> Result<Frames, StoreError> {
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    for touched in objects {
        match &touched.object {
            Object::Pod(id) => ids.push(id.clone()),
            Object::Service(key) => keys.push(key.clone()),
            Object::Node(_) => {}
        }
    }
    let pods = app.store.pods().get_all(&ids).await?.into_iter();
    let pods: HashMap<_, _> = pods.map(|pod| (pod.id.clone(), pod)).collect();
    let services = app.store.services().get_all(&keys).await?.into_iter();
    let services: HashMap<_, _> = services
        .map(|(service, running)| {
            let status = ServiceStatus::new(service, running);
            (key_of(&status), status)
        })
        .collect();
    let mut frames = Frames::default();
    for (at, touched) in objects.iter().enumerate() {
        let Touched {
            object,
            event,
            is_its_own,
        } = touched;
        // A position covers all that its event touched: the last of these carries it.
        let next = objects.get(at + 1);
        let id = (next.is_none_or(|next| next.event.id != event.id)).then_some(event.id);
        let mut deleted = Deleted {
            kind: "pod",
            id: None,
            name: None,
            namespace: event.namespace.as_deref(),
            service: None,
            reason: &event.reason,
        };
        match object {
            Object::Pod(pod_id) => match pods.get(pod_id) {
                Some(pod) => {
                    let namespace = wanted.namespace.as_ref();
                    if namespace.is_none_or(|name| pod.namespace == *name) {
                        frames.event("pod", id, pod);
                    }
                }
                None => {
                    deleted.id = Some(pod_id);
                    deleted.service = event.service.as_deref();
                    frames.event("deleted", id, &deleted);
                }
            },
            Object::Service(key) => match services.get(key) {
                Some(service) => frames.event("service", id, service),
                // Its end is told by an event of its own.
                None if !is_its_own => {}
                None => {
                    (deleted.kind, deleted.name) = ("service", Some(key.name.as_str()));
                    frames.event("deleted", id, &deleted);
                }
            },
            Object::Node(name) => match app.store.nodes().get(name, app.lease).await? {
                Some(node) => frames.event("node", id, &node),
                None => {
                    (deleted.kind, deleted.name) = ("node", Some(name.as_str()));
                    frames.event("deleted", id, &deleted);
                }
            },
        }
    }
    Ok(frames)
}

fn key_of(status: &ServiceStatus) -> ServiceKey {
    ServiceKey {
        namespace: status.service.namespace.clone(),
        name: status.service.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kinds;
    use super::*;

    fn event(passed: u32, kind: &str, pod: &str, service: &str) -> Event {
        let id = format!("5-0.{passed}");
        let subject = if pod.is_empty() { "service" } else { "pod" };
        let mut event = serde_json::json!({
            "id": id, "when_ms": 5, "kind": kind, "by": "user", "subject": subject, "reason": "",
        });
        if !pod.is_empty() {
            event["pod"] = pod.into();
        }
        if !service.is_empty() {
            event["service"] = format!("a/{service}").into();
            event["namespace"] = "a".into();
        }
        serde_json::from_value(event).unwrap()
    }

    fn wanted(kinds: &str) -> Wanted {
        Wanted {
            kinds: Kinds::parse(kinds).unwrap(),
            namespace: None,
            service: None,
            node: None,
        }
    }

    /// Names of what is touched, each with its event.
    fn names(wanted: &Wanted, events: &[Event]) -> Vec<(String, u32)> {
        let touched = touched(wanted, events).into_iter();
        let name = |touched: Touched<'_>| {
            let name = match touched.object {
                Object::Pod(id) => id.to_string(),
                Object::Service(key) => key.to_string(),
                Object::Node(name) => name,
            };
            (name, touched.event.id.passed)
        };
        touched.map(name).collect()
    }

    #[test]
    fn each_object_is_told_once_in_the_order_of_its_last_event() {
        let events = [
            event(1, "service-created", "", "web"),
            event(2, "waiting", "p1", "web"),
            event(3, "waiting", "p2", "web"),
            event(4, "running", "p1", "web"),
            event(5, "scheduled", "p3", "web"), // says nothing of the service
            event(6, "waiting", "hand", ""),
        ];
        let text = |names: &[(&str, u32)]| -> Vec<(String, u32)> {
            let names = names.iter().map(|(name, at)| ((*name).to_owned(), *at));
            names.collect()
        };
        let all = wanted("pods,services,nodes");
        let expected = [("p2", 3), ("p1", 4), ("a/web", 4), ("p3", 5), ("hand", 6)];
        assert_eq!(names(&all, &events), text(&expected));
        assert_eq!(
            names(&wanted("services"), &events),
            [("a/web".to_owned(), 4)]
        );
        assert!(touched(&all, &events)[2].is_its_own);
        assert!(!touched(&all, &events[1..])[2].is_its_own);
        assert_eq!(names(&wanted("nodes"), &events), []);
        let web = Wanted {
            service: ServiceKey::parse("a/web"),
            ..wanted("pods")
        };
        let expected = [("p2", 3), ("p1", 4), ("p3", 5)];
        assert_eq!(names(&web, &events), text(&expected));
    }
}
