//! What is done to containers. Each order is carried out to its end, whoever still waits for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Answer, empty, is_set, json_answer, parameter, refused};
use super::clock::wall_ns;
use super::events::{Event, Filters, has_labels};
use super::faults::Kind;
use super::images::full_name;
use super::journal::{Made, State};
use super::look;
use super::machine::{Inner, Machine, random_hex};
use crate::logs::Did;

/// An engine that goes away leaves undone what it has begun; nobody hears this.
const GOES: &str = "the engine is going away";
/// Exit code of what ends at the stop signal.
const TERMINATED: i64 = 143;
/// Exit code of what is killed.
const KILLED: i64 = 137;
/// Seconds of grace where nobody says how many.
const GRACE_S: u64 = 10;
/// A variable of a container that ends by itself: after so many milliseconds.
const RUNS_MS: &str = "PLAY_RUNS_MS=";
/// A variable of such a container: its exit code.
const EXIT_CODE: &str = "PLAY_EXIT_CODE=";
/// A variable of a container that does not heed the stop signal.
const IGNORES_STOP: &str = "PLAY_IGNORES_STOP=1";

fn missing(wanted: &str) -> Answer {
    refused(404, format!("No such container: {wanted}"))
}

/// The list.
pub(super) fn list(machine: &Machine, query: &str) -> Answer {
    let inner = machine.inner();
    if inner.faults.has(Kind::ListError) {
        return refused(500, "the list of containers cannot be read");
    }
    let filters = Filters::of(query);
    let all = is_set(query, "all");
    let wanted = |made: &&Made| {
        let status = look::summary(made)["State"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        (all || made.lives() || !filters.statuses.is_empty())
            && (filters.statuses.is_empty() || filters.statuses.contains(&status))
            && (filters.names.is_empty() || filters.names.iter().any(|it| made.name.contains(it)))
            && has_labels(&made.labels(), &filters.labels)
    };
    let mut listed: Vec<&Made> = inner.containers.values().filter(wanted).collect();
    listed.sort_by_key(|made| std::cmp::Reverse(made.created_ns));
    json_answer(200, &listed.into_iter().map(look::summary).collect())
}

/// Looks at one.
pub(super) fn inspect(machine: &Machine, wanted: &str) -> Answer {
    let inner = machine.inner();
    let made = inner.find(wanted);
    made.map_or_else(
        || missing(wanted),
        |made| json_answer(200, &look::inspection(made)),
    )
}

/// What one uses.
pub(super) fn stats(machine: &Machine, wanted: &str) -> Answer {
    let inner = machine.inner();
    let made = inner.find(wanted);
    made.map_or_else(
        || missing(wanted),
        |made| json_answer(200, &look::stats(made)),
    )
}

/// Makes one.
pub(super) async fn create(
    machine: &Arc<Machine>,
    query: &str,
    body: Value,
) -> anyhow::Result<Answer> {
    machine.dawdle(machine.options.create_ms).await;
    let hangs_until = machine.inner().faults.until(Kind::CreateHang);
    if let Some(until) = hangs_until {
        tokio::time::sleep_until(until).await;
    }
    let mut inner = machine.inner();
    if *machine.away.borrow() {
        return Ok(refused(503, GOES));
    }
    let id = random_hex(32);
    let name = parameter(query, "name").unwrap_or_else(|| id[..12].to_owned());
    let holder = inner.containers.values().find(|made| made.name == name);
    let fault = inner.faults.has(Kind::Conflict409);
    if holder.is_some() || fault {
        let holder = holder.map_or("0000", |made| made.id.as_str());
        return Ok(refused(
            409,
            format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            ),
        ));
    }
    let image = body["Image"].as_str().unwrap_or_default();
    if !inner.images.contains(&full_name(image)) {
        return Ok(refused(404, format!("No such image: {}", full_name(image))));
    }
    let made = Made {
        id: id.clone(),
        name,
        body,
        state: State::Created,
        exit_code: 0,
        number: inner.number(),
        created_ns: wall_ns(),
        started_ns: 0,
        ended_ns: 0,
        starts: 0,
        removed: false,
    };
    let event = Event::of(&made, "create", []);
    inner.change(made, Did::Created)?;
    inner.tell(event);
    if inner.faults.has(Kind::CreatedButError) {
        return Ok(refused(500, "the answer to a creation was lost"));
    }
    Ok(json_answer(201, &json!({"Id": id, "Warnings": []})))
}

/// Starts one.
pub(super) async fn start(machine: &Arc<Machine>, wanted: &str) -> anyhow::Result<Answer> {
    machine.dawdle(machine.options.start_ms).await;
    let mut inner = machine.inner();
    if *machine.away.borrow() {
        return Ok(refused(503, GOES));
    }
    let Some(mut made) = inner.find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    match made.state {
        State::Running => return Ok(empty(304)),
        State::Paused => {
            return Ok(refused(
                500,
                "cannot start a paused container, try unpause instead",
            ));
        }
        State::Created | State::Exited => {}
    }
    if let Some(port) = taken_port(&inner, &made) {
        let words = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
        return Ok(refused(500, words));
    }
    made.state = State::Running;
    made.started_ns = wall_ns();
    made.ended_ns = 0;
    made.exit_code = 0;
    made.starts += 1;
    let event = Event::of(&made, "start", []);
    inner.change(made.clone(), Did::Started)?;
    inner.tell(event);
    let lost = inner.faults.has(Kind::StartedButError);
    drop(inner);
    lives(machine, &made);
    if lost {
        return Ok(refused(500, "the answer to a start was lost"));
    }
    Ok(empty(204))
}

/// The port of the machine that another one has which `made` is to have.
fn taken_port(inner: &Inner, made: &Made) -> Option<u16> {
    let wanted = look::fixed_ports(made);
    let others = inner
        .containers
        .values()
        .filter(|other| other.lives() && other.id != made.id);
    let taken: Vec<_> = others.flat_map(look::fixed_ports).collect();
    wanted
        .into_iter()
        .find(|port| taken.contains(port))
        .map(|(_, port)| port)
}

/// Lets one that ends by itself do so.
pub(super) fn lives(machine: &Arc<Machine>, made: &Made) {
    let value = |name: &str| {
        let env = made.env();
        env.iter()
            .find_map(|pair| pair.strip_prefix(name)?.parse::<i64>().ok())
    };
    let Some(ms) = value(RUNS_MS).and_then(|ms| u64::try_from(ms).ok()) else {
        return;
    };
    let code = value(EXIT_CODE).unwrap_or(0);
    let (machine, id, starts) = (machine.clone(), made.id.clone(), made.starts);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        let _ = end(&machine, &id, starts, code);
    });
}

/// Ends one, if it is still in the run that was meant.
fn end(machine: &Machine, id: &str, starts: u64, code: i64) -> anyhow::Result<()> {
    let mut inner = machine.inner();
    let made = inner.containers.get(id).cloned();
    match made.filter(|made| made.lives() && made.starts == starts) {
        Some(made) => inner.end(made, code),
        None => Ok(()),
    }
}

/// Stops one: it ends a moment after the signal, or is killed when its grace is over.
pub(super) async fn stop(
    machine: &Arc<Machine>,
    wanted: &str,
    query: &str,
) -> anyhow::Result<Answer> {
    let Some(made) = machine.inner().find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    if !made.lives() {
        return Ok(empty(304));
    }
    let asked = parameter(query, "t").and_then(|grace| grace.parse().ok());
    let own = made.body["StopTimeout"].as_u64();
    let grace = Duration::from_secs(asked.or(own).unwrap_or(GRACE_S));
    machine.inner().tell(Event::of(
        &made,
        "kill",
        [("signal".to_owned(), "15".to_owned())],
    ));
    let heeds = !made.env().iter().any(|pair| pair == IGNORES_STOP);
    let ends = machine.dawdle(machine.options.stop_ms);
    let heeded = heeds && tokio::time::timeout(grace, ends).await.is_ok();
    if !heeds {
        tokio::time::sleep(grace).await;
    }
    end(
        machine,
        &made.id,
        made.starts,
        if heeded { TERMINATED } else { KILLED },
    )?;
    let mut inner = machine.inner();
    inner.tell(Event::of(&made, "stop", []));
    Ok(after(&inner, empty(204)))
}

/// The answer, unless it is to be lost.
fn after(inner: &Inner, answer: Answer) -> Answer {
    if inner.faults.has(Kind::StoppedButError) {
        return refused(500, "the answer to an end was lost");
    }
    answer
}

/// Kills one.
pub(super) fn kill(machine: &Machine, wanted: &str) -> anyhow::Result<Answer> {
    let mut inner = machine.inner();
    let Some(made) = inner.find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    if !made.lives() {
        return Ok(refused(409, format!("Container {wanted} is not running")));
    }
    inner.tell(Event::of(
        &made,
        "kill",
        [("signal".to_owned(), "9".to_owned())],
    ));
    inner.end(made, KILLED)?;
    Ok(after(&inner, empty(204)))
}

/// Removes one.
pub(super) fn remove(machine: &Machine, wanted: &str, query: &str) -> anyhow::Result<Answer> {
    let mut inner = machine.inner();
    let Some(made) = inner.find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    if made.lives() {
        if !is_set(query, "force") {
            let words = format!("cannot remove container {wanted:?}: container is running");
            return Ok(refused(409, words));
        }
        inner.tell(Event::of(
            &made,
            "kill",
            [("signal".to_owned(), "9".to_owned())],
        ));
        inner.end(made.clone(), KILLED)?;
    }
    let event = Event::of(&made, "destroy", []);
    let gone = Made {
        removed: true,
        state: State::Exited,
        ..made
    };
    inner.change(gone, Did::Removed)?;
    inner.tell(event);
    Ok(after(&inner, empty(204)))
}

/// Holds one still, or lets it go on.
pub(super) fn pause(machine: &Machine, wanted: &str, held: bool) -> anyhow::Result<Answer> {
    let mut inner = machine.inner();
    let Some(made) = inner.find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    let (from, to, action) = if held {
        (State::Running, State::Paused, "pause")
    } else {
        (State::Paused, State::Running, "unpause")
    };
    if made.state != from {
        let words = if held {
            "cannot be paused"
        } else {
            "is not paused"
        };
        return Ok(refused(409, format!("Container {wanted} {words}")));
    }
    let made = Made { state: to, ..made };
    let event = Event::of(&made, action, []);
    inner.keep(made)?;
    inner.tell(event);
    Ok(empty(204))
}

/// Changes the limits of one.
pub(super) fn update(machine: &Machine, wanted: &str, body: &Value) -> anyhow::Result<Answer> {
    let mut inner = machine.inner();
    let Some(mut made) = inner.find(wanted).cloned() else {
        return Ok(missing(wanted));
    };
    for (key, value) in body.as_object().into_iter().flatten() {
        made.body["HostConfig"][key] = value.clone();
    }
    let event = Event::of(&made, "update", []);
    inner.keep(made)?;
    inner.tell(event);
    Ok(json_answer(200, &json!({"Warnings": []})))
}

/// Ends one that runs by itself, chosen by whoever breaks things; its id.
pub(super) fn exit(machine: &Machine, code: i64) -> anyhow::Result<Option<String>> {
    let mut inner = machine.inner();
    let running: Vec<&Made> = inner
        .containers
        .values()
        .filter(|made| made.state == State::Running && made.is_ours())
        .collect();
    if running.is_empty() {
        return Ok(None);
    }
    let chosen = running[rand::RngExt::random_range(&mut rand::rng(), 0..running.len())].clone();
    let id = chosen.id.clone();
    inner.end(chosen, code)?;
    Ok(Some(id))
}
