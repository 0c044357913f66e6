//! Rounds: a fault, its healing, the wait until all is well, a canary, and the checker's word.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::client::Clients;
use crate::dice::Dice;
use crate::nemesis::{self, Kind, Strike};
use crate::summary::Summary;
use crate::world::{World, until};

/// Longest time from the asking for a canary until it runs.
const CANARY: Duration = Duration::from_secs(20);
/// How long the checker waits for what must be within a while.
const CHECK: Duration = Duration::from_secs(15);
/// Longest time until clients have a clear answer after everything was healed.
const CLEAR: Duration = Duration::from_secs(45);

/// A process that waits longer for the machine misses the margin in which agents keep their leases: a
/// round in which that was so shows nothing, unless it held.
const LATE: Duration = Duration::from_millis(400);
/// Begins what is said of such a round.
pub(crate) const STOOD_STILL: &str = "not judged, as the machine stood still for";

/// How long rounds go on, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    /// No round begins after this.
    pub(crate) until: Instant,
    /// Most rounds.
    pub(crate) rounds: u64,
    /// The kinds to choose from.
    pub(crate) among: Vec<Kind>,
    /// Each once, in their order, instead of by chance.
    pub(crate) in_turn: bool,
}

impl Course {
    /// Where clusters side by side begin: at different kinds, but where one needs another before it.
    fn first(&self, seed: u64) -> usize {
        let ordered = self.among.iter().any(|kind| kind.weight == 0);
        let half = if ordered { 0 } else { self.among.len() / 2 };
        if seed.is_multiple_of(2) { 0 } else { half }
    }

    /// The kind of the next round, of those that can be done.
    fn next(&self, world: &World, dice: &mut Dice, turn: &mut usize) -> Kind {
        if self.in_turn {
            for _ in 0..self.among.len() {
                let kind = self.among[*turn % self.among.len()];
                *turn += 1;
                if nemesis::can(world, kind) {
                    return kind;
                }
            }
        }
        nemesis::choose(world, dice, &self.among)
    }
}

/// Plays rounds until the course is over or a promise is broken.
///
/// # Errors
/// A promise was broken, or a fault could not be made.
pub(crate) async fn play(
    world: &World,
    clients: &Clients,
    course: &Course,
    summary: &mut Summary,
) -> Result<()> {
    let mut dice = Dice::new(world.plan.seed, 0);
    let mut turn = course.first(world.plan.seed);
    let mut panics = Panics::default();
    while Instant::now() < course.until && summary.rounds < course.rounds {
        let round = world.next_round();
        let kind = course.next(world, &mut dice, &mut turn);
        let began = Instant::now();
        world.late();
        let failovers = world.failovers().await;
        world.note("round", kind.name, json!({"seed": world.plan.seed}));
        let mut strikes = Vec::new();
        let played = one(world, clients, &mut dice, kind, &mut strikes).await;
        let judged = match played {
            Ok(()) => judge(world, round, &mut panics).await,
            Err(error) => Err(error),
        };
        let failovers = world.failovers().await.saturating_sub(failovers);
        let late = world.late();
        world.note(
            "end",
            kind.name,
            json!({"seconds": began.elapsed().as_secs_f64(), "fail_overs": failovers, "late_ms": nemesis::millis(late),
                "broken": judged.as_ref().err().map(|error| format!("{error:#}"))}),
        );
        summary.add(kind, &strikes, failovers, began.elapsed());
        let (calls, unclear) = clients.calls();
        (summary.calls, summary.unclear) = (calls as u64, unclear as u64);
        if let (Err(error), true) = (&judged, late > LATE) {
            summary.stood_still += 1;
            bail!(
                "{STOOD_STILL} {late:?} in round {round}, {}: {error:#}",
                kind.name
            );
        }
        judged.with_context(|| format!("round {round}, {}", kind.name))?;
    }
    Ok(())
}

async fn one(
    world: &World,
    clients: &Clients,
    dice: &mut Dice,
    kind: Kind,
    strikes: &mut Vec<Strike>,
) -> Result<()> {
    clients.resume();
    tokio::time::sleep(dice.millis(200, 900)).await;
    let struck = nemesis::strike(world, clients, dice, kind).await?;
    let span = struck.iter().map(|strike| strike.span).max();
    strikes.extend(struck);
    tokio::time::sleep(span.unwrap_or_default()).await;
    heal(world, strikes).await?;
    clients.pause(Instant::now() + CLEAR).await?;
    clients.forgive(false);
    settle(world, clients).await?;
    world.note("settled", kind.name, json!({}));
    let round = world.round();
    world.note(
        "canary",
        kind.name,
        json!({"service": format!("default/canary-{round}")}),
    );
    clients
        .canary(world, round, Instant::now() + CANARY)
        .await?;
    let broken = clients.broken();
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(())
}

/// Everything as it was before the faults.
pub(crate) async fn heal(world: &World, strikes: &[Strike]) -> Result<()> {
    world.heal().await?;
    for strike in strikes {
        world.note("heal", strike.name, strike.detail.clone());
    }
    Ok(())
}

/// Waits until Redis, the nodes and all services are as they should be.
pub(crate) async fn settle(world: &World, clients: &Clients) -> Result<()> {
    let deadline = Instant::now() + world.plan.settle;
    let mut turn = 0_u32;
    until(deadline, async || {
        // A Sentinel that was started anew has its own times again.
        if turn.is_multiple_of(7) {
            world.tune_sentinels().await;
        }
        turn += 1;
        world.redis_is_well().await?;
        world.nodes_are_ready().await?;
        clients.all_is_as_wished(world).await
    })
    .await
    .context("not settled in time")
}

/// What a process of its own says of the round.
pub(crate) async fn judge(world: &World, round: u64, panics: &mut Panics) -> Result<()> {
    panics.look(world)?;
    let deaths: Vec<String> = world
        .deaths()
        .into_iter()
        .filter(|death| !death.contains("SIGABRT"))
        .collect();
    if !deaths.is_empty() {
        bail!("I10: {}", deaths.join("; "));
    }
    if !world.is_checked() {
        return Ok(());
    }
    let wait = CHECK.as_secs().to_string();
    let output = tokio::process::Command::new(world.plan.programs.join("checker"))
        .arg("--run")
        .arg(&world.plan.dir)
        .args(["--round", &round.to_string(), "--wait", &wait])
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run the checker")?;
    if !output.status.success() {
        bail!(
            "the checker says ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Looks for panics in logs, from where it looked last.
#[derive(Default)]
pub(crate) struct Panics(BTreeMap<String, usize>);

impl Panics {
    fn look(&mut self, world: &World) -> Result<()> {
        for process in world.processes() {
            let text = std::fs::read(process.log()).unwrap_or_default();
            let seen = self.0.entry(process.name().to_owned()).or_default();
            let new = String::from_utf8_lossy(text.get(*seen..).unwrap_or_default()).into_owned();
            *seen = text.len();
            let panic = new.lines().find(|line| line.contains("panicked at"));
            if let Some(panic) = panic {
                bail!("I10: {} panicked: {panic}", process.name());
            }
        }
        Ok(())
    }
}
