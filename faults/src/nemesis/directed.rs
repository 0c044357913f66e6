//! Faults that one remedy each must hold back: without it, they break a promise.
//!
//! Nothing here is left to chance but which pods are where.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Strike, millis, of_nodes};
use crate::client::Clients;
use crate::world::redis::ask;
use crate::world::{Cut, LEASE, NODES, SERVERS, Way, World, until};

/// Pods of the service that is made for it: some are on every node.
const PODS: u64 = 12;
/// Longest wait for what must come first.
const FIRST: Duration = Duration::from_secs(30);
/// The node it happens to.
const NODE: &str = "n1";

pub(super) async fn strike(world: &World, clients: &Clients, name: &str) -> Result<Strike> {
    match name {
        "must-wait" => wait(world).await,
        "must-ask-again" => started_late(world, clients, "must-ask-again", true).await,
        "must-look-at-the-lease" => {
            started_late(world, clients, "must-look-at-the-lease", false).await
        }
        "must-fence" => fence(world, clients).await,
        "must-be-watched" => watched(world, clients).await,
        "must-compare" => compare(world, clients).await,
        "must-be-three" => three(world, clients).await,
        "must-grant-a-term" => grant(world, clients).await,
        _ => bail!("no directed fault: {name}"),
    }
}

/// The master is cut off from the other servers, but not from anybody else: what it is told until
/// others notice, no replica has.
async fn wait(world: &World) -> Result<Strike> {
    let master = world.master().await?;
    let others: Vec<&str> = SERVERS
        .iter()
        .copied()
        .filter(|name| *name != master)
        .collect();
    world.hosts.cut(master, &others, Way::Both, Cut::Drop)?;
    let span = Duration::from_secs(5);
    let detail = json!({"server": master, "nodes": NODES, "pardon_moves": true});
    Ok(Strike::new("must-wait", detail, span))
}

/// Pods are taken by a node whose engine is slow to create them, and are elsewhere by the time it
/// has: the node is cut off, and is heard again before that, or not.
async fn started_late(
    world: &World,
    clients: &Clients,
    name: &'static str,
    heard_again: bool,
) -> Result<Strike> {
    clients.pause(Instant::now() + FIRST).await?;
    let slow = LEASE * 2;
    let order = json!({"node": NODE, "kind": "create_hang", "seconds": slow.as_secs_f64()});
    world.engine(&order).await?;
    let began = Instant::now();
    let service = make(world, clients, "late").await?;
    // So long an entry takes from the queue to the creation.
    tokio::time::sleep(Duration::from_millis(800)).await;
    world.hosts.cut(NODE, &[], Way::Both, Cut::Drop)?;
    if heard_again {
        tokio::time::sleep((LEASE + LEASE / 3).saturating_sub(began.elapsed())).await;
        world.hosts.heal(NODE)?;
    }
    let span = (slow + LEASE / 3).saturating_sub(began.elapsed());
    let mut detail = of_nodes(&[NODE], "slow and cut", span);
    detail["pardon_moves"] = json!(true);
    detail["service"] = json!(service);
    Ok(Strike::new(name, detail, span))
}

/// A node is cut off for good, and its watchdog is held: the agent alone is left.
async fn fence(world: &World, clients: &Clients) -> Result<Strike> {
    let service = running(world, clients, "fenced").await?;
    world.signal_watchdog(NODE, Signal::STOP)?;
    world.hosts.cut(NODE, &[], Way::Both, Cut::Drop)?;
    Ok(lost("must-fence", &service))
}

/// An agent is dead: its watchdog alone is left.
async fn watched(world: &World, clients: &Clients) -> Result<Strike> {
    let service = running(world, clients, "watched").await?;
    world.process(&format!("agent-{NODE}")).hold(Signal::KILL);
    Ok(lost("must-be-watched", &service))
}

fn lost(name: &'static str, service: &str) -> Strike {
    let span = LEASE * 2;
    let mut detail = of_nodes(&[NODE], "lost", span);
    detail["service"] = json!(service);
    Strike::new(name, detail, span)
}

/// All notices to agents are lost.
async fn compare(world: &World, clients: &Clients) -> Result<Strike> {
    clients.pause(Instant::now() + FIRST).await?;
    for node in NODES {
        world.kill(&format!("agent-{node}"), Signal::STOP);
    }
    let service = make(world, clients, "unheard").await?;
    let master = world.redis(world.master().await?);
    until(Instant::now() + LEASE / 3, async || {
        let mut waiting = 0;
        for node in NODES {
            // A stopped agent's pop is carried out: that entry it will be told of.
            for list in ["pq", "rq"] {
                let length = ask(&master, &["LLEN", &format!("{list}:{node}")]).await?;
                waiting += length.text().parse::<u64>().unwrap_or(0);
            }
        }
        if waiting < PODS {
            bail!("{waiting} of {PODS} notices are there");
        }
        Ok(())
    })
    .await?;
    for node in NODES {
        ask(&master, &["DEL", &format!("pq:{node}")]).await?;
    }
    for node in NODES {
        world.kill(&format!("agent-{node}"), Signal::CONT);
    }
    let detail = json!({"service": service, "nodes": [], "cuts": [], "pardon_moves": true});
    Ok(Strike::new(
        "must-compare",
        detail,
        Duration::from_millis(500),
    ))
}

/// A node goes for good, in good order, so that those left are too few for the guard against mass
/// losses.
async fn three(world: &World, clients: &Clients) -> Result<Strike> {
    let gone = NODES[3];
    let path = format!("/v1/nodes/{gone}");
    world.post(&format!("{path}/drain")).await?;
    until(Instant::now() + FIRST, async || {
        let node = world.get(&path).await?;
        if node["state"] != "drained" {
            bail!("{gone} is not drained yet: {node}");
        }
        Ok(())
    })
    .await?;
    world.lose_node(gone);
    // Nobody touches it later: its containers must not either be moved.
    let still = format!("still-{}", world.round());
    clients.make(&still, PODS, Instant::now() + FIRST).await?;
    let span = LEASE + LEASE / 2;
    let detail: Value =
        json!({"nodes": [gone], "how": "gone", "ms": millis(span), "pardon_moves": true});
    Ok(Strike::new("must-be-three", detail, span))
}

/// All of Redis is away for longer than leases last, and is looked at by schedulers before agents
/// are heard again, as they may be.
async fn grant(world: &World, clients: &Clients) -> Result<Strike> {
    clients.pause(Instant::now() + FIRST).await?;
    for server in SERVERS {
        world.process(server).hold(Signal::KILL);
    }
    tokio::time::sleep(LEASE + LEASE / 3).await;
    for node in NODES {
        world.kill(&format!("agent-{node}"), Signal::STOP);
    }
    for server in SERVERS {
        world.process(server).release();
    }
    until(Instant::now() + FIRST, async || {
        world.tune_sentinels().await;
        world.redis_is_well().await
    })
    .await?;
    // Some sweeps, and well within the term that begins with the first of them.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for node in NODES {
        world.kill(&format!("agent-{node}"), Signal::CONT);
    }
    let detail = json!({"all": true, "nodes": NODES});
    Ok(Strike::new(
        "must-grant-a-term",
        detail,
        Duration::from_millis(500),
    ))
}

/// A service of many pods that must never run twice, just asked for.
async fn make(world: &World, clients: &Clients, what: &str) -> Result<String> {
    let name = format!("{what}-{}", world.round());
    let policy = "stop-then-replace";
    clients
        .make_with(&name, PODS, policy, Instant::now() + FIRST)
        .await?;
    Ok(name)
}

/// The same, and it runs.
async fn running(world: &World, clients: &Clients, what: &str) -> Result<String> {
    let name = make(world, clients, what).await?;
    let path = format!("/v1/services/{name}");
    until(Instant::now() + FIRST, async || {
        let seen = world.get(&path).await?;
        if seen["running"] != PODS {
            bail!("{name} does not run yet: {seen}");
        }
        Ok(())
    })
    .await?;
    Ok(name)
}
