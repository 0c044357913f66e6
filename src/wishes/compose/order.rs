//! What a service waits for, and the order that follows. Pure.

use super::super::node::At;
use super::super::note::{Level, Notes};
use super::super::{After, Condition, Wish};
use super::service::key_of;
use super::{Context, shapes};

/// The services that one waits for: `depends_on`, and `links`, which need them started.
pub(super) fn after(
    at: &At,
    on: &[(At, String)],
    context: &Context,
    notes: &mut Notes,
) -> Vec<After> {
    let mut after: Vec<After> = Vec::new();
    if let Some(depends) = at.some("depends_on") {
        let names = shapes::names(depends.node);
        let depends = At {
            node: &names,
            ..depends
        };
        for at in depends.map(notes) {
            after.extend(one(&at, on, context, notes));
        }
    }
    if let Some(links) = at.some("links") {
        for at in links.list(notes) {
            let service = at.text(notes).unwrap_or_default();
            let service = service.split(':').next().unwrap_or_default();
            let found = on.iter().find(|(at, _)| at.key == service);
            match found {
                Some((_, name)) => {
                    let key = key_of(name, context);
                    if !after.iter().any(|known| known.key == key) {
                        after.push(After {
                            key,
                            condition: Condition::Started,
                            required: true,
                        });
                    }
                }
                None => at.refuse(notes, absent(service)),
            }
        }
    }
    after
}

fn one(at: &At, on: &[(At, String)], context: &Context, notes: &mut Notes) -> Option<After> {
    at.known(notes, &["condition", "restart", "required"]);
    let condition = at.some("condition").and_then(|at| {
        let allowed = "service_started, service_healthy or service_completed_successfully";
        at.parsed(notes, allowed, |text| match text {
            "service_started" => Some(Condition::Started),
            "service_healthy" => Some(Condition::Healthy),
            "service_completed_successfully" => Some(Condition::Completed),
            _ => None,
        })
    });
    let required = at.some("required").is_none_or(|at| at.bool(notes));
    if let Some(restart) = at.some("restart")
        && restart.bool(notes)
    {
        restart.warn(
            notes,
            "has no effect here: a change of one service does not restart another",
        );
    }
    let Some((_, name)) = on.iter().find(|(service, _)| service.key == at.key) else {
        if required {
            at.refuse(notes, absent(at.key));
        } else {
            at.warn(
                notes,
                format!("{} is not there, and is not waited for", at.key),
            );
        }
        return None;
    };
    let condition = condition.unwrap_or(Condition::Started);
    Some(After {
        key: key_of(name, context),
        condition,
        required,
    })
}

fn absent(service: &str) -> String {
    format!("there is no service {service}, or its profile is off")
}

/// Each after those it waits for, otherwise as in the file. Circles are refused.
pub(super) fn sorted(mut left: Vec<Wish>, notes: &mut Notes) -> Vec<Wish> {
    let mut sorted: Vec<Wish> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waits = |wish: &Wish| {
            let mut after = wish.after.iter();
            after.any(|after| left.iter().any(|other| other.key == after.key))
        };
        let next = left.iter().position(|wish| !waits(wish));
        let next = next.unwrap_or_else(|| {
            let names: Vec<&str> = left.iter().map(|wish| wish.key.name.as_str()).collect();
            let text = format!(
                "{} wait for one another in a circle: break it",
                names.join(", ")
            );
            notes.add(Level::Refused, &left[0].place, "services", text);
            0
        });
        sorted.push(left.remove(next));
    }
    sorted
}
