//! `checker`: judges a round of a run, or records what a real engine does. Wiring only.
//!
//! Its exit status is 0 if every promise was held, 1 if one was broken, 2 if it could not tell.

use std::process::ExitCode;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use kubeleet_faults::checker::{Options, Verdict, judge, record};

/// Judges a round of a run: what was promised, against what happened.
#[derive(Parser)]
#[command(
    name = "checker",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Line {
    #[command(flatten)]
    options: Option<Options>,
    /// Network namespace in which Redis can be reached
    #[arg(long)]
    netns: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Records what the machine's Docker does to containers of ours, until it is killed
    Record {
        /// Folder of the run
        #[arg(long)]
        run: PathBuf,
        /// A node whose containers count; all where none is named
        #[arg(long = "node")]
        nodes: Vec<String>,
    },
}

fn main() -> ExitCode {
    let line = Line::parse();
    let judged = match (&line.command, &line.netns, &line.options) {
        (Some(Command::Record { run, nodes }), ..) => {
            record::record(run, nodes).map(|()| Verdict::Held("recorded".to_owned()))
        }
        (None, Some(netns), _) => return within(netns),
        (None, None, Some(options)) => judge(options),
        (None, None, None) => Err(anyhow::anyhow!("say which run: --run DIR --round N")),
    };
    match judged {
        Ok(Verdict::Held(words)) => {
            say(&words);
            ExitCode::SUCCESS
        }
        Ok(Verdict::Broken(words)) => {
            say(&words);
            ExitCode::from(1)
        }
        Err(error) => {
            say(&format!("NOT JUDGED: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Runs the same within a network namespace.
fn within(netns: &str) -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let place = words.iter().position(|word| word == "--netns");
    let mut rest = words;
    if let Some(place) = place {
        rest.drain(place..place + 2);
    }
    let status = std::process::Command::new("ip")
        .args(["netns", "exec", netns])
        .args(rest)
        .status();
    let code = status
        .ok()
        .and_then(|status| u8::try_from(status.code()?).ok());
    ExitCode::from(code.unwrap_or(2))
}

#[expect(clippy::print_stdout, reason = "its verdict is what it is for")]
fn say(words: &str) {
    println!("{words}");
}
