//! Redis loses everything, or comes back from a copy that is old.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;

use super::Strike;
use crate::client::Clients;
use crate::dice::Dice;
use crate::world::{SERVERS, SETTLE, World, until};

/// The folder in which Redis keeps its data.
const DATA: &str = "appendonlydir";

/// Everybody is quiet and all runs; then the data of all servers goes.
pub(super) async fn strike(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    name: &str,
) -> Result<Strike> {
    quiet(world, clients).await?;
    let kept = world.plan.dir.join("copy");
    let _ = std::fs::remove_dir_all(&kept);
    let old = name == "old-copy";
    if old {
        let master = world.master().await?;
        copy(&world.disk(master).join(DATA), &kept)?;
        clients.resume();
        tokio::time::sleep(dice.millis(1500, 4000)).await;
        quiet(world, clients).await?;
    }
    clients.forgive(true);
    for server in SERVERS {
        world.process(server).hold(Signal::KILL);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for server in SERVERS {
        let data = world.disk(server).join(DATA);
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("cannot empty {}", data.display()))?;
        if old {
            copy(&kept, &data)?;
        }
    }
    for server in SERVERS {
        world.process(server).release();
    }
    // Agents must have time to tell what they hold, and all to agree.
    let ask_at_once = dice.percent(50);
    if ask_at_once {
        clients.resume();
    }
    let name = if old { "old-copy" } else { "wiped" };
    let detail = json!({"wiped": true, "old": old, "asked_at_once": ask_at_once});
    let mut strike = Strike::new(name, detail, dice.millis(3000, 6000));
    strike.wiped = true;
    Ok(strike)
}

async fn quiet(world: &World, clients: &Clients) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    clients.pause(deadline).await?;
    until(deadline, async || {
        world.redis_is_well().await?;
        world.nodes_are_ready().await?;
        clients.all_is_as_wished(world).await
    })
    .await?;
    // What was asked last is told to the agents by their next comparison.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))
            .with_context(|| format!("cannot copy {}", entry.path().display()))?;
    }
    Ok(())
}
