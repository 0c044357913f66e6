//! `checker`: judges a round of a run. Wiring only.
//!
//! Its exit status is 0 if every promise was held, 1 if one was broken, 2 if it could not tell.

use std::process::ExitCode;

use clap::Parser;
use kubeleet_faults::checker::{Options, Verdict, judge};

/// Judges a round of a run: what was promised, against what happened.
#[derive(Parser)]
#[command(name = "checker", version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Network namespace in which Redis can be reached.
    #[arg(long)]
    netns: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(netns) = &arguments.netns {
        return within(netns);
    }
    match judge(&arguments.options) {
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
