//! The faults: each has a kind, begins, lasts, and is undone by healing the whole cluster.

mod control;
mod directed;
mod engines;
mod network;
mod servers;
mod store;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::client::Clients;
use crate::dice::Dice;
use crate::world::{LEASE, World};

/// What may be broken at once: of each part one thing, as the promises say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// API, schedulers.
    Control,
    /// Agents, their engines, and the way to them.
    Node,
    /// The servers of Redis, Sentinels, and the way to them.
    Redis,
    /// All data of Redis; alone, as everybody must be quiet for it.
    Data,
    /// Several of the others.
    Mix,
    /// What one remedy must hold back; never by chance.
    Directed,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it breaks.
    pub(crate) part: Part,
    /// How often it is chosen.
    pub(crate) weight: usize,
}

const fn kind(name: &'static str, part: Part, weight: usize) -> Kind {
    Kind { name, part, weight }
}

/// All kinds, by the numbers of the plan: F1 to F16.
pub(crate) const KINDS: &[Kind] = &[
    kind("kill-control", Part::Control, 3),
    kind("kill-agent", Part::Node, 4),
    kind("failpoint-control", Part::Control, 4),
    kind("failpoint-agent", Part::Node, 4),
    kind("kill-master", Part::Redis, 9),
    kind("kill-replica", Part::Redis, 2),
    kind("kill-sentinel", Part::Redis, 1),
    kind("kill-redis", Part::Redis, 2),
    kind("freeze-agent", Part::Node, 4),
    kind("freeze-scheduler", Part::Control, 3),
    kind("freeze-master", Part::Redis, 3),
    kind("partition-node", Part::Node, 8),
    kind("partition-node-redis", Part::Node, 4),
    kind("partition-master", Part::Redis, 7),
    kind("partition-replica", Part::Redis, 2),
    kind("partition-control", Part::Control, 2),
    kind("lossy", Part::Node, 2),
    kind("slow", Part::Node, 2),
    kind("memory", Part::Redis, 2),
    kind("disk", Part::Redis, 2),
    kind("engine", Part::Node, 5),
    kind("fail-over", Part::Redis, 6),
    kind("fail-over-twice", Part::Redis, 2),
    kind("wiped", Part::Data, 3),
    kind("old-copy", Part::Data, 3),
    kind("clock", Part::Redis, 3),
    kind("poison", Part::Control, 3),
    kind("schedulers", Part::Control, 2),
    kind("upgrade", Part::Control, 2),
    kind("mix", Part::Mix, 14),
    kind("must-wait", Part::Directed, 0),
    kind("must-ask-again", Part::Directed, 0),
    kind("must-look-at-the-lease", Part::Directed, 0),
    kind("must-fence", Part::Directed, 0),
    kind("must-be-watched", Part::Directed, 0),
    kind("must-compare", Part::Directed, 0),
    kind("must-be-three", Part::Directed, 0),
    kind("must-grant-a-term", Part::Directed, 0),
];

/// What a fault was.
#[derive(Clone, Debug)]
pub(crate) struct Strike {
    /// Its kind.
    pub(crate) name: &'static str,
    /// To what it was done, and how.
    pub(crate) detail: Value,
    /// How long it is to last.
    pub(crate) span: Duration,
    /// Agents that were cut off from Redis.
    pub(crate) partitions: u64,
    /// Redis lost its data.
    pub(crate) wiped: bool,
}

impl Strike {
    fn new(name: &'static str, detail: Value, span: Duration) -> Strike {
        Strike {
            name,
            detail,
            span,
            partitions: 0,
            wiped: false,
        }
    }
}

/// A kind by its name.
pub(crate) fn kind_of(name: &str) -> Result<Kind> {
    let found = KINDS.iter().find(|kind| kind.name == name);
    let Some(found) = found else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        bail!(
            "{name} is no kind of fault; these are: {}",
            known.join(", ")
        );
    };
    Ok(*found)
}

/// A kind that can be done here, by weight.
pub(crate) fn choose(world: &World, dice: &mut Dice, among: &[Kind]) -> Kind {
    let possible: Vec<Kind> = among
        .iter()
        .copied()
        .filter(|kind| can(world, *kind))
        .collect();
    let total: usize = possible.iter().map(|kind| kind.weight).sum();
    let mut left = dice.below(total);
    for kind in &possible {
        if left < kind.weight {
            return *kind;
        }
        left -= kind.weight;
    }
    possible[0]
}

/// Whether a kind can be done here.
pub(crate) fn can(world: &World, kind: Kind) -> bool {
    match kind.name {
        "engine" => world.has_engine(),
        "upgrade" => world.plan.old.is_some(),
        // Simulated containers die with their agent.
        // And fences that were given while the clock was ahead are ahead of any that are given after
        // a loss: that would be two faults.
        "wiped" | "old-copy" => world.is_checked() && !world.was_ahead(),
        "must-ask-again" | "must-look-at-the-lease" => world.has_engine(),
        _ => true,
    }
}

/// Begins a fault.
pub(crate) async fn strike(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    kind: Kind,
) -> Result<Vec<Strike>> {
    if kind.part == Part::Mix {
        return mix(world, clients, dice).await;
    }
    strike_one(world, clients, dice, kind, true).await
}

/// Begins one fault; `alone`: nothing else is broken meanwhile.
async fn strike_one(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    kind: Kind,
    alone: bool,
) -> Result<Vec<Strike>> {
    let mut strike = match kind.part {
        Part::Control => control::strike(world, clients, dice, kind.name).await,
        Part::Node if kind.name == "engine" => engines::strike(world, dice).await,
        Part::Node => match kind.name {
            "kill-agent" | "failpoint-agent" | "freeze-agent" => {
                control::strike(world, clients, dice, kind.name).await
            }
            name => network::strike(world, dice, name).await,
        },
        Part::Redis => match kind.name {
            "partition-master" | "partition-replica" => {
                network::strike(world, dice, kind.name).await
            }
            name => servers::strike(world, clients, dice, name).await,
        },
        Part::Data => store::strike(world, clients, dice, kind.name).await,
        Part::Directed => directed::strike(world, clients, kind.name).await,
        Part::Mix => bail!("a mix of a mix"),
    }?;
    if let (false, Some(detail)) = (alone, strike.detail.as_object_mut()) {
        // What was pushed by hand no replica confirmed: a fail-over may lose it.
        detail.remove("poison");
    }
    world.note("fault", strike.name, strike.detail.clone());
    Ok(vec![strike])
}

/// One fault each of two or three parts.
async fn mix(world: &World, clients: &Clients, dice: &mut Dice) -> Result<Vec<Strike>> {
    let parts = [Part::Control, Part::Node, Part::Redis];
    let count = 2 + dice.below(2);
    let mut strikes = Vec::new();
    for part in dice.some(&parts, count) {
        let of_part = |kind: &Kind| kind.part == part;
        let among: Vec<Kind> = KINDS.iter().copied().filter(of_part).collect();
        let kind = choose(world, dice, &among);
        match strike_one(world, clients, dice, kind, false).await {
            Ok(struck) => strikes.extend(struck),
            // One fault can make another impossible: nothing fails over without a master.
            Err(error) if !strikes.is_empty() => {
                world.note("skipped", kind.name, json!({"why": format!("{error:#}")}));
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(dice.millis(0, 800)).await;
    }
    Ok(strikes)
}

/// Times around beat, fence and lease.
fn around_the_lease(dice: &mut Dice) -> Duration {
    let lease = millis(LEASE);
    let of = |share: u64| lease * share / 100;
    let (from, to) = dice.one(&[
        (5, 30),
        (30, 65),
        (65, 80),
        (90, 115),
        (115, 150),
        (150, 170),
    ]);
    dice.millis(of(from), of(to))
}

/// Away for longer than this, a node's pods may be moved: the lease less what a restart may take.
const PARDON: Duration = Duration::from_millis(3500);

/// What the checker is told of a fault that touches nodes.
fn of_nodes(nodes: &[&str], how: &str, span: Duration) -> Value {
    let pardon = span > PARDON;
    json!({"nodes": nodes, "how": how, "ms": millis(span), "pardon_moves": pardon})
}

/// A time in whole milliseconds.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
