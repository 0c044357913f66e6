//! An entry of the stream: what was told of many at once, as one event for each.
//!
//! `write_events` in `redis/kubeleet.lua` writes them.

use super::super::StoreError;
use crate::model::name::is_node_name;
use crate::model::{EntryId, Event, EventFilter, Owner, PodId, Position, ServiceKey, Subject};

/// Fields and values before an entry's subjects: kind, by, owner, reason.
const HEAD: usize = 8;
/// What stands for the owner of an entry whose pods have several.
const EACH: &str = "each";

/// An entry as Redis gives it: its id, then fields and values.
pub(in crate::store) type Raw = (String, Vec<Vec<u8>>);

/// What `filter` wants of an entry's events.
pub(in crate::store) fn read(
    (id, fields): &Raw,
    filter: &EventFilter,
) -> Result<Vec<Event>, StoreError> {
    let entry = EntryId::parse(id).ok_or_else(|| StoreError::Protocol {
        function: "XRANGE",
        what: format!("the id {id:?}"),
    })?;
    let text = |at: usize| fields.get(at).map(|field| String::from_utf8_lossy(field));
    // Up to version 0.1 the head ended with `by`.
    let has_owner = text(4).as_deref() == Some("owner") && text(6).as_deref() == Some("reason");
    let (head, owner, reason) = if has_owner {
        (HEAD, text(5), text(7))
    } else {
        (HEAD / 2, None, None)
    };
    let kind = text(1).unwrap_or_default();
    let owner = owner.unwrap_or_default();
    let wanted_owner = filter.service.as_ref().map(ServiceKey::to_string);
    let is_of_pods = subject_of(&kind) == Subject::Pod;
    let is_of_another = is_of_pods
        && owner != EACH
        && wanted_owner.is_some_and(|wanted| owner.strip_prefix("service:") != Some(&wanted));
    if filter.kind.as_deref().is_some_and(|wanted| wanted != kind) || is_of_another {
        return Ok(Vec::new()); // most entries, where little is wanted
    }
    let head_of = Head {
        entry,
        kind: &kind,
        by: &text(3).unwrap_or_default(),
        owner: &owner,
        reason: &reason.unwrap_or_default(),
    };
    let pairs = fields.get(head..).unwrap_or_default().chunks_exact(2);
    let events = (1..).zip(pairs).filter_map(|(passed, pair)| {
        let [subject, detail] = pair else { return None };
        let wanted = filter.pod.as_ref().map(|pod| pod.as_str().as_bytes());
        if wanted.is_some_and(|wanted| wanted != subject) {
            return None;
        }
        let subject = String::from_utf8_lossy(subject);
        Some(head_of.event(passed, &subject, &String::from_utf8_lossy(detail)))
    });
    Ok(events.filter(|event| filter.matches(event)).collect())
}

/// What the events of one entry share.
struct Head<'a> {
    entry: EntryId,
    kind: &'a str,
    by: &'a str,
    owner: &'a str,
    reason: &'a str,
}

impl Head<'_> {
    fn event(&self, passed: u32, name: &str, detail: &str) -> Event {
        let (owner, detail) = match (self.owner, detail.split_once(' ')) {
            (EACH, Some((owner, detail))) => (owner, detail),
            (owner, _) => (owner, detail),
        };
        let mut event = Event {
            id: Position {
                entry: self.entry,
                passed,
            },
            when_ms: self.entry.ms,
            kind: self.kind.to_owned(),
            by: self.by.to_owned(),
            subject: subject_of(self.kind),
            pod: None,
            service: None,
            namespace: None,
            node: None,
            key: None,
            reason: self.reason.to_owned(),
        };
        if is_node_name(detail) {
            event.node = Some(detail.to_owned());
        } else if event.reason.is_empty() {
            detail.clone_into(&mut event.reason);
        }
        let service = match event.subject {
            Subject::Pod => match Owner::parse(owner) {
                Some(Owner::Service(key)) => Some(key),
                _ => None,
            },
            Subject::Service => ServiceKey::parse(name),
            Subject::Node | Subject::Key => None,
        };
        event.namespace = service.as_ref().map(|key| key.namespace.clone());
        event.service = service.map(|key| key.to_string());
        let is_named = match event.subject {
            Subject::Pod => {
                event.pod = PodId::parse(name);
                event.pod.is_some()
            }
            Subject::Service => event.service.is_some(),
            Subject::Node => {
                event.node = Some(name.to_owned());
                true
            }
            Subject::Key => false,
        };
        if !is_named {
            event.subject = Subject::Key; // or whatever a person wrote there
            event.key = Some(name.to_owned());
        }
        if event.reason.is_empty() {
            event.reason = Event::default_reason(self.kind, event.node.as_deref());
        }
        event
    }
}

/// What events of a kind happen to: a pod where the word does not say otherwise.
fn subject_of(kind: &str) -> Subject {
    match kind.split_once('-') {
        Some(("service", _)) => Subject::Service,
        Some(("node", _)) => Subject::Node,
        Some(("wrong", "type") | ("dead", "letter") | ("store", _)) => Subject::Key,
        _ => Subject::Pod,
    }
}
