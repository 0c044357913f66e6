//! Faults of Redis and its Sentinels: deaths, stops, fail-overs, full memory, full disks, clocks.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde_json::json;

use super::Strike;
use crate::client::Clients;
use crate::dice::Dice;
use crate::world::redis::ask;
use crate::world::{CONTROLS, NODES, SERVERS, World, until};

/// Longest wait for the clients to fall silent.
const QUIET: Duration = Duration::from_secs(15);

/// A fail-over that has not come by then was given up by Sentinel, and is ordered again.
const GIVEN_UP: Duration = Duration::from_secs(5);

pub(super) async fn strike(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    name: &str,
) -> Result<Strike> {
    match name {
        "kill-master" => kill_master(world, dice).await,
        "kill-replica" => kill_replica(world, dice).await,
        "kill-sentinel" => Ok(kill_sentinel(world, dice)),
        "kill-redis" => Ok(kill_redis(world, dice)),
        "freeze-master" => freeze_master(world, dice).await,
        "clock" => clock(world, dice).await,
        "memory" => memory(world, dice).await,
        "disk" => disk(world, dice).await,
        "fail-over" => fail_over(world, clients, dice, "fail-over", 1).await,
        "fail-over-twice" => fail_over(world, clients, dice, "fail-over-twice", 2).await,
        _ => bail!("no fault of servers: {name}"),
    }
}

async fn kill_master(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.master().await?;
    let signal = if dice.percent(75) {
        Signal::KILL
    } else {
        Signal::TERM
    };
    let host_too = dice.percent(40);
    world.process(master).hold(signal);
    if host_too {
        world
            .process(&format!("sentinel-{master}"))
            .hold(Signal::KILL);
    }
    let detail = json!({"server": master, "signal": format!("{signal:?}"), "host": host_too});
    Ok(Strike::new("kill-master", detail, dice.millis(2500, 5000)))
}

async fn kill_replica(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.master().await?;
    let others: Vec<&str> = SERVERS
        .iter()
        .copied()
        .filter(|name| *name != master)
        .collect();
    let replica = dice.one(&others);
    world.process(replica).hold(Signal::KILL);
    let detail = json!({"server": replica});
    Ok(Strike::new("kill-replica", detail, dice.millis(500, 4000)))
}

fn kill_sentinel(world: &World, dice: &mut Dice) -> Strike {
    let count = 1 + dice.below(3);
    let servers = dice.some(&SERVERS, count);
    for server in &servers {
        world
            .process(&format!("sentinel-{server}"))
            .hold(Signal::KILL);
    }
    let detail = json!({"sentinels": servers});
    Strike::new("kill-sentinel", detail, dice.millis(500, 4000))
}

/// All of Redis, for shorter or longer than leases last.
fn kill_redis(world: &World, dice: &mut Dice) -> Strike {
    let signal = if dice.percent(75) {
        Signal::KILL
    } else {
        Signal::TERM
    };
    for server in SERVERS {
        world.process(server).hold(signal);
    }
    let span = dice.one(&[500, 2000, 5000, 8000]);
    let detail = json!({"signal": format!("{signal:?}"), "nodes": NODES, "all": true, "ms": span});
    Strike::new("kill-redis", detail, Duration::from_millis(span))
}

async fn freeze_master(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.master().await?;
    world.kill(master, Signal::STOP);
    let span = dice.one(&[400, 900, 2500, 5000]);
    let detail = json!({"server": master, "ms": span});
    Ok(Strike::new(
        "freeze-master",
        detail,
        Duration::from_millis(span),
    ))
}

/// A wall clock jumps.
async fn clock(world: &World, dice: &mut Dice) -> Result<Strike> {
    let host = match dice.below(4) {
        0 | 1 => world.master().await?,
        2 => dice.one(&CONTROLS),
        _ => dice.one(&NODES),
    };
    let seconds = dice.one(&[3600, -3600, 30, -30, 5]);
    world.set_clock(host, seconds)?;
    let detail = json!({"host": host, "seconds": seconds});
    Ok(Strike::new("clock", detail, dice.millis(1500, 6000)))
}

async fn memory(world: &World, dice: &mut Dice) -> Result<Strike> {
    let master = world.redis(world.master().await?);
    let words = ["CONFIG", "SET", "maxmemory", dice.one(&["1mb", "1500kb"])];
    for server in SERVERS {
        let _ = ask(&world.redis(server), &words).await;
    }
    let detail = json!({"server": master, "maxmemory": words[3]});
    Ok(Strike::new("memory", detail, dice.millis(1500, 7000)))
}

async fn disk(world: &World, dice: &mut Dice) -> Result<Strike> {
    let server = if dice.percent(70) {
        world.master().await?
    } else {
        dice.one(&SERVERS)
    };
    let filler = world.disk(server).join("filler");
    // Ends by an error when nothing is left, which is the aim.
    if let Ok(mut file) = std::fs::File::create(&filler) {
        use std::io::Write;
        let block = vec![1_u8; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
    }
    let detail = json!({"server": server, "nodes": NODES, "pardon_moves": true});
    Ok(Strike::new("disk", detail, dice.millis(1500, 6000)))
}

/// Ordered fail-overs. Sentinel lets the old master accept writes for a while after it, and replicas
/// that still follow it confirm them: that nothing is lost then is no promise, so nobody asks.
async fn fail_over(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    name: &'static str,
    times: usize,
) -> Result<Strike> {
    clients.pause(Instant::now() + QUIET).await?;
    let mut masters = Vec::new();
    for _ in 0..times {
        let before = world.master().await?;
        world.fail_over().await?;
        let mut ordered = Instant::now();
        let limit = ordered + QUIET;
        let came = until(limit, async || {
            let now = world.master().await?;
            if now == before {
                if ordered.elapsed() > GIVEN_UP {
                    let _ = world.fail_over().await;
                    ordered = Instant::now();
                }
                bail!("the fail-over from {before} does not come");
            }
            Ok(())
        })
        .await;
        if came.is_err() {
            break; // Sentinel finds no replica good enough on a busy machine: no fault of ours
        }
        masters.push(before);
        if times > 1 {
            // A second one is refused while the first is fresh, or has no replica to go to yet.
            let limit = Instant::now() + QUIET;
            until(limit, async || world.redis_is_well().await).await?;
        }
    }
    tokio::time::sleep(dice.millis(1200, 2000)).await;
    clients.resume();
    let detail = json!({"from": masters});
    Ok(Strike::new(name, detail, dice.millis(500, 2000)))
}
