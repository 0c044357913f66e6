//! Faults of the network: partitions of all shapes, loss, slowness.

use anyhow::{Result, bail};
use serde_json::json;

use super::{Strike, around_the_lease, of_nodes};
use crate::dice::Dice;
use crate::world::{CONTROLS, Cut, NODES, SERVERS, Way, World};

pub(super) async fn strike(world: &World, dice: &mut Dice, name: &str) -> Result<Strike> {
    match name {
        "partition-node" => node(world, dice),
        "partition-node-redis" => node_from_redis(world, dice),
        "partition-master" => master(world, dice).await,
        "partition-replica" => replica(world, dice).await,
        "lossy" => lossy(world, dice),
        "slow" => slow(world, dice),
        _ => bail!("no fault of the network: {name}"),
    }
}

fn cut(dice: &mut Dice) -> Cut {
    dice.one(&[Cut::Drop, Cut::Drop, Cut::Reset])
}

fn node(world: &World, dice: &mut Dice) -> Result<Strike> {
    let count = if dice.percent(75) { 1 } else { 2 };
    let nodes = dice.some(&NODES, count);
    let (cut, span) = (cut(dice), around_the_lease(dice));
    for node in &nodes {
        world.hosts.cut(node, &[], Way::Both, cut)?;
    }
    let mut strike = Strike::new(
        "partition-node",
        of_nodes(&nodes, &format!("{cut:?}"), span),
        span,
    );
    strike.partitions = nodes.len() as u64;
    Ok(strike)
}

fn node_from_redis(world: &World, dice: &mut Dice) -> Result<Strike> {
    let node = dice.one(&NODES);
    let (cut, span) = (cut(dice), around_the_lease(dice));
    let way = dice.one(&[Way::In, Way::Out]);
    world.hosts.cut(node, &SERVERS, way, cut)?;
    let how = format!("{way:?} {cut:?}");
    let mut strike = Strike::new("partition-node-redis", of_nodes(&[node], &how, span), span);
    strike.partitions = 1;
    Ok(strike)
}

/// The master and its Sentinel away from the others, with or without some of the clients.
async fn master(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.master().await?;
    let mut others: Vec<&str> = SERVERS
        .iter()
        .copied()
        .filter(|name| *name != master)
        .collect();
    let mut left = Vec::new();
    for host in CONTROLS.iter().chain(&NODES) {
        if dice.percent(50) {
            others.push(host);
        } else {
            left.push(*host);
        }
    }
    let cut = cut(dice);
    world.hosts.cut(master, &others, Way::Both, cut)?;
    let span = dice.millis(1500, 6000);
    let detail = json!({"server": master, "with": left, "how": format!("{cut:?}"),
        "ms": super::millis(span), "nodes": NODES, "pardon_moves": true});
    Ok(Strike::new("partition-master", detail, span))
}

async fn replica(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.master().await?;
    let others: Vec<&str> = SERVERS
        .iter()
        .copied()
        .filter(|name| *name != master)
        .collect();
    let replica = dice.one(&others);
    let (cut, span) = (cut(dice), dice.millis(1000, 5000));
    let way = dice.one(&[Way::Both, Way::In, Way::Out]);
    world.hosts.cut(replica, &[], way, cut)?;
    let detail = json!({"server": replica, "how": format!("{way:?} {cut:?}")});
    Ok(Strike::new("partition-replica", detail, span))
}

/// An API's and scheduler's host is away from Redis, or from all.
pub(super) fn control(world: &World, dice: &mut Dice) -> Result<Strike> {
    let host = dice.one(&CONTROLS);
    let others: &[&str] = if dice.percent(50) { &[] } else { &SERVERS };
    let (cut, span) = (cut(dice), dice.millis(1000, 5000));
    let way = dice.one(&[Way::Both, Way::In, Way::Out]);
    world.hosts.cut(host, others, way, cut)?;
    let detail = json!({"host": host, "from": others, "how": format!("{way:?} {cut:?}")});
    Ok(Strike::new("partition-control", detail, span))
}

fn lossy(world: &World, dice: &mut Dice) -> Result<Strike> {
    let count = 1 + dice.below(2);
    let nodes = dice.some(&NODES, count);
    let share = dice.one(&[0.05, 0.15, 0.3]);
    for node in &nodes {
        world.hosts.lose(node, share)?;
    }
    let host = dice.one(&CONTROLS);
    world.hosts.lose(host, share)?;
    let span = dice.millis(2000, 6000);
    let mut detail = of_nodes(&nodes, &format!("{share} lost"), span);
    detail["host"] = json!(host);
    Ok(Strike::new("lossy", detail, span))
}

fn slow(world: &World, dice: &mut Dice) -> Result<Strike> {
    let host = dice.one(&["n1", "n2", "a1", "a2", "r1", "r2", "r3"]);
    let kilobits = dice.one(&[64, 256]);
    world.hosts.slow(host, kilobits)?;
    let span = dice.millis(2000, 6000);
    let detail = json!({"nodes": NODES, "host": host, "kilobits": kilobits, "pardon_moves": true});
    Ok(Strike::new("slow", detail, span))
}
