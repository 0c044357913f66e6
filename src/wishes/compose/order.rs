//! What a service waits for, and the order that follows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::super::node::At;
use super::super::note::{Level, Notes};
use super::super::{After, Condition, Wish};
use super::service::key_of;
use super::{Context, shapes};
use crate::model::ServiceKey;

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
pub(super) fn sorted(wishes: Vec<Wish>, notes: &mut Notes) -> Vec<Wish> {
    let index: BTreeMap<&ServiceKey, usize> = wishes
        .iter()
        .enumerate()
        .map(|(index, wish)| (&wish.key, index))
        .collect();
    let waits_for: Vec<Vec<usize>> = wishes
        .iter()
        .map(|wish| {
            wish.after
                .iter()
                .filter_map(|after| index.get(&after.key).copied())
                .collect()
        })
        .collect();
    let mut dependents = vec![Vec::new(); wishes.len()];
    let mut missing: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    for (dependent, others) in waits_for.iter().enumerate() {
        for other in others {
            dependents[*other].push(dependent);
        }
    }
    let mut ready: BTreeSet<usize> = (0..wishes.len()).filter(|at| missing[*at] == 0).collect();
    let mut order = Vec::with_capacity(wishes.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for dependent in &dependents[next] {
            missing[*dependent] -= 1;
            if missing[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    if let Some(left) = missing.iter().position(|missing| *missing > 0) {
        let circle = circle(left, &waits_for, &missing);
        let names = circle.iter().map(|at| wishes[*at].key.name.as_str());
        let names: Vec<&str> = names.collect();
        let text = format!(
            "{} wait for one another in a circle: break it",
            names.join(", ")
        );
        notes.add(Level::Refused, &wishes[circle[0]].place, "services", text);
        order.extend((0..wishes.len()).filter(|at| missing[*at] > 0));
    }
    let mut wishes: Vec<Option<Wish>> = wishes.into_iter().map(Some).collect();
    order
        .into_iter()
        .filter_map(|at| wishes[at].take())
        .collect()
}

/// The circle that is met from `start` on, along those that are left.
fn circle(start: usize, waits_for: &[Vec<usize>], missing: &[usize]) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let last = path[path.len() - 1];
        // Whoever is left waits for another that is left.
        let next = waits_for[last].iter().find(|other| missing[**other] > 0);
        let Some(next) = next else { return path };
        if let Some(first) = path.iter().position(|at| at == next) {
            return path.split_off(first);
        }
        path.push(*next);
    }
}
