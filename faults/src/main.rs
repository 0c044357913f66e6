//! `faults`: builds clusters of network namespaces, breaks them in every way, and has them checked.
//!
//! Runs as root on one Linux machine. `run` plays clusters side by side, each a process of its own
//! (`cluster`); `blind` shows that the suite sees what each remedy holds back.

mod blind;
mod client;
mod dice;
mod http;
mod nemesis;
mod rounds;
mod summary;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use client::Clients;
use nemesis::{KINDS, kind_of};
use rounds::{Course, play};
use summary::Summary;
use world::{Engines, Plan, World};

/// Breaks a kubeleet cluster in every way there is, and checks what it promised.
#[derive(Parser)]
#[command(name = "faults", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays rounds of faults on clusters side by side
    Run(RunArgs),
    /// Plays rounds on one cluster, in this process
    Cluster(RunArgs),
    /// Leaves out one remedy after the other, and fails where that is not seen
    Blind(BlindArgs),
}

#[derive(Args, Clone, Debug)]
struct BlindArgs {
    /// A fresh folder for logs
    #[arg(long)]
    dir: PathBuf,
    /// What all dice are thrown with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clusters side by side
    #[arg(long, default_value_t = 3)]
    clusters: usize,
    /// Only these remedies; `none` is the cluster that leaves none out
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// No round begins after so many seconds
    #[arg(long, default_value_t = 240)]
    seconds: u64,
    /// Most rounds of a cluster
    #[arg(long, default_value_t = u64::MAX)]
    rounds: u64,
    /// What all dice are thrown with; cluster k of a run has seed + k
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fresh folder for logs
    #[arg(long)]
    dir: PathBuf,
    /// Only these kinds of faults
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Each kind once after the other, instead of by chance
    #[arg(long)]
    in_turn: bool,
    /// Clusters side by side
    #[arg(long, default_value_t = 1)]
    clusters: u64,
    /// A file to which the counts are added
    #[arg(long)]
    into: Option<PathBuf>,
    /// After a broken promise a new cluster, with another seed, goes on
    #[arg(long)]
    keep_going: bool,
    /// Remedies that are switched off, with commas between them
    #[arg(long, default_value = "")]
    remedies_off: String,
    /// Folder with the programs of the version before
    #[arg(long)]
    old: Option<PathBuf>,
    /// Folder with the programs; that of this one where none is said
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Replicas that confirm a commit: one or all; by the seed where nothing is said
    #[arg(long)]
    durability: Option<String>,
    /// Longest wait, in seconds, until all is well after everything was healed
    #[arg(long, default_value_t = world::SETTLE.as_secs())]
    settle: u64,
    /// Agents simulate their engines: nobody checks containers then
    #[arg(long, conflicts_with = "docker")]
    simulated: bool,
    /// All agents share this machine's Docker
    #[arg(long)]
    docker: bool,
}

fn main() -> ExitCode {
    let done = match Line::parse().command {
        Command::Run(args) => run(&args),
        Command::Cluster(args) => cluster(&args),
        Command::Blind(args) => blind::play(&blind::Blind {
            dir: &args.dir,
            seed: args.seed,
            clusters: args.clusters,
            only: &args.only,
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program that a person watches")]
fn say(words: std::fmt::Arguments<'_>) {
    println!("{words}");
}

fn plan(args: &RunArgs) -> Result<Plan> {
    let own = std::env::current_exe()?;
    let beside = own.parent().context("this program lies nowhere")?;
    let programs = args.programs.clone().unwrap_or_else(|| beside.to_owned());
    let durability = args.durability.clone().unwrap_or_else(|| {
        let word = if args.seed.is_multiple_of(3) {
            "all"
        } else {
            "one"
        };
        word.to_owned()
    });
    let absolute = |path: &Path| std::path::absolute(path);
    Ok(Plan {
        dir: absolute(&args.dir)?,
        programs: absolute(&programs)?,
        old: args.old.as_deref().map(absolute).transpose()?,
        seed: args.seed,
        remedies_off: args.remedies_off.clone(),
        engines: match (args.simulated, args.docker) {
            (true, _) => Engines::Simulated,
            (false, true) => Engines::Real,
            (false, false) => Engines::Played,
        },
        durability,
        settle: Duration::from_secs(args.settle),
        hold: true,
    })
}

/// One cluster.
fn cluster(args: &RunArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("namespaces need root: run this as root");
    }
    let by_chance = |kind: &&nemesis::Kind| kind.weight > 0;
    let among = if args.only.is_empty() {
        KINDS.iter().filter(by_chance).copied().collect()
    } else {
        let kinds: Result<_> = args.only.iter().map(|name| kind_of(name)).collect();
        kinds?
    };
    let course = Course {
        until: Instant::now() + Duration::from_secs(args.seconds),
        rounds: args.rounds,
        among,
        in_turn: args.in_turn,
    };
    let mut plan = plan(args)?;
    let directed = |kind: &nemesis::Kind| kind.part == nemesis::Part::Directed;
    plan.hold = !course.among.iter().any(directed);
    // Before all that merely computes on this machine.
    let _ = rustix::process::nice(-5);
    let mut world = World::found(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut summary = Summary {
        seeds: vec![args.seed],
        ..Summary::default()
    };
    let played = runtime.block_on(async {
        let played = play_cluster(&mut world, &course, &mut summary).await;
        if played.is_err() {
            keep_evidence(&world).await;
        }
        world.end();
        played
    });
    let not_judged = |error: &anyhow::Error| error.to_string().starts_with(rounds::STOOD_STILL);
    if let Err(error) = &played
        && !not_judged(error)
    {
        summary.fail(&format!("seed {}: {error:#}", args.seed));
    }
    summary.write(&args.dir.join("summary.json"))?;
    played.with_context(|| format!("seed {}, logs in {}", args.seed, args.dir.display()))
}

async fn play_cluster(world: &mut World, course: &Course, summary: &mut Summary) -> Result<()> {
    world
        .start()
        .await
        .context("the cluster does not come up")?;
    let clients = Clients::start(world).await?;
    play(world, &clients, course, summary).await
}

/// What helps to find out why: the data of Redis and what an API says.
async fn keep_evidence(world: &World) {
    for server in world::SERVERS {
        let to = world.plan.dir.join(format!("data-{server}"));
        let _ = std::process::Command::new("cp")
            .arg("-r")
            .args([world.disk(server), &to])
            .status();
    }
    for path in ["services", "pods", "nodes", "queue", "events"] {
        let query = if path == "queue" { "" } else { "?limit=1000" };
        let said = world.get(&format!("/v1/{path}{query}")).await;
        let text = said.map_or_else(|error| format!("{error:#}"), |said| said.to_string());
        let _ = std::fs::write(world.plan.dir.join(format!("last-{path}.json")), text);
    }
}

/// Clusters side by side, each in a process of its own.
fn run(args: &RunArgs) -> Result<()> {
    std::fs::create_dir_all(&args.dir)?;
    let own = std::env::current_exe()?;
    let began = Instant::now();
    let lanes: Vec<_> = (0..args.clusters)
        .map(|lane| {
            let (args, own) = (args.clone(), own.clone());
            std::thread::spawn(move || lane_of(&args, &own, lane, began))
        })
        .collect();
    let mut total = Summary::default();
    for lane in lanes {
        let joined = lane.join();
        total.merge(joined.map_err(|_| anyhow::anyhow!("a lane panicked"))??);
    }
    total.write(&args.dir.join("summary.json"))?;
    say(format_args!("{total}"));
    if let Some(into) = &args.into {
        let mut all = Summary::read(into)?;
        all.merge(total.clone());
        all.write(into)?;
        say(format_args!(
            "in {} now: {} rounds",
            into.display(),
            all.rounds
        ));
    }
    if total.broken.is_empty() {
        Ok(())
    } else {
        bail!("{} promises were broken", total.broken.len())
    }
}

/// One cluster after another, until the time is over.
fn lane_of(args: &RunArgs, own: &Path, lane: u64, began: Instant) -> Result<Summary> {
    let mut total = Summary::default();
    for turn in 0_u64.. {
        let spent = began.elapsed().as_secs();
        if spent >= args.seconds && turn > 0 {
            break;
        }
        let seed = args.seed + lane + turn * args.clusters;
        let dir = args.dir.join(format!("c{}-{seed}", lane + 1));
        let mut command = std::process::Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(own)
            .arg("cluster");
        command.arg("--dir").arg(&dir);
        command.args(["--seed", &seed.to_string()]);
        command.args(["--seconds", &args.seconds.saturating_sub(spent).to_string()]);
        command.args([
            "--rounds",
            &args.rounds.saturating_sub(total.rounds).to_string(),
        ]);
        command.args(["--remedies-off", &args.remedies_off]);
        command.args(["--settle", &args.settle.to_string()]);
        if !args.only.is_empty() {
            command.args(["--only", &args.only.join(",")]);
        }
        for (name, path) in [("--old", &args.old), ("--programs", &args.programs)] {
            if let Some(path) = path {
                command.arg(name).arg(path);
            }
        }
        if let Some(durability) = &args.durability {
            command.args(["--durability", durability]);
        }
        for (flag, set) in [
            ("--in-turn", args.in_turn),
            ("--simulated", args.simulated),
            ("--docker", args.docker),
        ] {
            if set {
                command.arg(flag);
            }
        }
        let status = command.status()?;
        let summary = dir.join("summary.json");
        let mut again = args.keep_going;
        if summary.exists() {
            let one = Summary::read(&summary)?;
            again |= one.stood_still > 0;
            total.merge(one);
        } else {
            total.fail(&format!(
                "seed {seed}: the cluster ended without a summary: {status}"
            ));
        }
        if status.success() || !again {
            break;
        }
    }
    Ok(total)
}
