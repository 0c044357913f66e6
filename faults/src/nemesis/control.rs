//! Faults of kubeleet's own processes: kills, failpoints, stops, crowds, poison, other versions.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::{Strike, around_the_lease, of_nodes};
use crate::client::Clients;
use crate::dice::Dice;
use crate::world::redis::ask;
use crate::world::{CONTROLS, NODES, World};

/// Failpoints of API and scheduler.
const CONTROL_POINTS: [&str; 6] = [
    "api.before_submit",
    "api.after_submit",
    "scheduler.after_claim",
    "scheduler.before_assign",
    "scheduler.after_assign",
    "scheduler.after_adopt",
];
/// Failpoints of the agent.
const AGENT_POINTS: [&str; 8] = [
    "agent.after_pop",
    "agent.after_take",
    "agent.before_create",
    "agent.after_create",
    "agent.before_start",
    "agent.after_start",
    "agent.before_report",
    "agent.after_report",
];
/// Pods of the service that a crowd of schedulers places.
const CROWD_PODS: u64 = 60;
/// Those of [`POISON`] that must come up among the dead letters: others are ids, which are dropped.
const RUBBISH: [&str; 3] = ["{", "[]", "{\"name\":1}"];
/// What no list of ours should hold.
const POISON: [&str; 14] = [
    "",
    "{",
    "{}",
    "null",
    "[]",
    "\"x\"",
    "{\"name\":1}",
    "{\"name\":\"x\",\"image\":\"\"}",
    "{\"name\":\"x\",\"image\":\"y\",\"privileged\":true,\"privileged\":false}",
    "{\"name\":\"../x\",\"image\":\"y\",\"uuid\":\"..\"}",
    "no-such-pod-0",
    "\u{0}\u{1}\u{fffd}",
    "{\"name\":\"x\",\"image\":\"y\",\"replica\":18446744073709551616}",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

pub(super) async fn strike(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    name: &str,
) -> Result<Strike> {
    match name {
        "kill-control" => Ok(kill_control(world, dice)),
        "kill-agent" => Ok(kill_agent(world, dice)),
        "failpoint-control" => Ok(failpoint_control(world, dice)),
        "failpoint-agent" => Ok(failpoint_agent(world, dice)),
        "freeze-agent" => Ok(freeze_agent(world, dice)),
        "freeze-scheduler" => Ok(freeze_scheduler(world, dice)),
        "partition-control" => super::network::control(world, dice),
        "poison" => poison(world, dice).await,
        "schedulers" => schedulers(world, clients, dice).await,
        "upgrade" => upgrade(world, dice).await,
        _ => bail!("no fault of processes: {name}"),
    }
}

fn kill_control(world: &World, dice: &mut Dice) -> Strike {
    let what = dice.one(&["api", "scheduler"]);
    let hosts = if dice.percent(30) {
        CONTROLS.to_vec()
    } else {
        vec![dice.one(&CONTROLS)]
    };
    let signal = if dice.percent(80) {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let stays_down = dice.percent(50);
    for host in &hosts {
        let process = world.process(&format!("{what}-{host}"));
        if stays_down {
            process.hold(signal);
        } else {
            process.signal(signal);
        }
    }
    let detail = json!({"what": what, "hosts": hosts, "signal": format!("{signal:?}"), "stays_down": stays_down});
    Strike::new("kill-control", detail, dice.millis(500, 3000))
}

fn kill_agent(world: &World, dice: &mut Dice) -> Strike {
    let count = if dice.percent(70) { 1 } else { 2 };
    let nodes = dice.some(&NODES, count);
    let signal = if dice.percent(80) {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let stays_down = dice.percent(50);
    let span = if stays_down {
        around_the_lease(dice)
    } else {
        dice.millis(500, 2500)
    };
    for node in &nodes {
        let process = world.process(&format!("agent-{node}"));
        if stays_down {
            process.hold(signal);
        } else {
            process.signal(signal);
        }
    }
    let how = if stays_down { "down" } else { "restarted" };
    Strike::new("kill-agent", of_nodes(&nodes, how, span), span)
}

fn failpoint_control(world: &World, dice: &mut Dice) -> Strike {
    let count = 1 + dice.below(2);
    let points = dice.some(&CONTROL_POINTS, count);
    for point in &points {
        let what = point.split('.').next().unwrap_or_default();
        let process = format!("{what}-{}", dice.one(&CONTROLS));
        world
            .process(&process)
            .again_with(&[("KUBELEET_FAILPOINT", point)]);
    }
    Strike::new(
        "failpoint-control",
        json!({"points": points}),
        dice.millis(1500, 4000),
    )
}

fn failpoint_agent(world: &World, dice: &mut Dice) -> Strike {
    let count = 1 + dice.below(3);
    let nodes = dice.some(&NODES, count);
    let span = dice.millis(2000, 4000);
    let mut detail = of_nodes(&nodes, "failpoint", span);
    let mut points = Vec::new();
    for node in &nodes {
        let point = dice.one(&AGENT_POINTS);
        let process = world.process(&format!("agent-{node}"));
        process.again_with(&[("KUBELEET_FAILPOINT", point)]);
        points.push(point);
    }
    detail["points"] = json!(points);
    Strike::new("failpoint-agent", detail, span)
}

fn freeze_agent(world: &World, dice: &mut Dice) -> Strike {
    let count = if dice.percent(70) { 1 } else { 2 };
    let nodes = dice.some(&NODES, count);
    let span = around_the_lease(dice);
    for node in &nodes {
        world.kill(&format!("agent-{node}"), Signal::STOP);
    }
    Strike::new("freeze-agent", of_nodes(&nodes, "frozen", span), span)
}

fn freeze_scheduler(world: &World, dice: &mut Dice) -> Strike {
    let hosts = if dice.percent(40) {
        CONTROLS.to_vec()
    } else {
        vec![dice.one(&CONTROLS)]
    };
    for host in &hosts {
        world.kill(&format!("scheduler-{host}"), Signal::STOP);
    }
    // Around the lease of a claim, which is 2 s here.
    Strike::new(
        "freeze-scheduler",
        json!({"hosts": hosts}),
        dice.millis(500, 5000),
    )
}

/// Entries that nobody can understand, on any list. Where the master takes none, that is fine too.
async fn poison(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.redis(world.master().await?);
    let lists = [
        "sq", "sq:high", "sq:low", "pq:n1", "pq:n2", "pq:n3", "pq:n4",
    ];
    let count = 1 + dice.below(60);
    let mut pushed = BTreeSet::new();
    for _ in 0..count {
        let entry = dice.one(&POISON);
        let words = [dice.one(&["LPUSH", "RPUSH"]), dice.one(&lists), entry];
        if ask(&master, &words).await.is_ok() && RUBBISH.contains(&entry) {
            pushed.insert(entry);
        }
    }
    let detail = json!({"entries": count, "poison": pushed});
    Ok(Strike::new("poison", detail, dice.millis(500, 1500)))
}

/// Many schedulers at one queue, some of which die again and again.
async fn schedulers(world: &World, clients: &Clients, dice: &mut Dice) -> Result<Strike> {
    let count = 3 + dice.below(4);
    for number in 0..count {
        world.extra_scheduler(dice.one(&CONTROLS), number);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let name = format!("crowd-{}", world.round());
    clients.make(&name, CROWD_PODS, deadline).await?;
    let kills = dice.below(8);
    for _ in 0..kills {
        tokio::time::sleep(dice.millis(50, 400)).await;
        let victim = dice.below(count);
        let extras = world.extras();
        if let Some(process) = extras.get(victim) {
            process.signal(Signal::KILL);
        }
    }
    clients.remove(&name, deadline).await?;
    let detail = json!({"schedulers": count + CONTROLS.len(), "pods": CROWD_PODS, "kills": kills});
    Ok(Strike::new("schedulers", detail, dice.millis(300, 1500)))
}

/// Some processes run the version before, in any mixture, and then all the new one again.
async fn upgrade(world: &World, dice: &mut Dice) -> Result<Strike> {
    let Some(old) = &world.plan.old else {
        bail!("there is no version before");
    };
    let mut changed = Vec::new();
    for process in world.processes() {
        let what = process.name().split('-').next().unwrap_or_default();
        if ["api", "scheduler", "agent"].contains(&what) && dice.percent(60) {
            process.command(Some(world.program(old, what)));
            process.signal(dice.one(&[Signal::KILL, Signal::TERM]));
            changed.push(process.name().to_owned());
            tokio::time::sleep(dice.millis(0, 400)).await;
        }
    }
    let span = dice.millis(2000, 5000);
    Ok(Strike::new(
        "upgrade",
        json!({"old": changed, "nodes": NODES}),
        span,
    ))
}
