//! What the tests of the real binaries share.

mod cluster;
mod engine;
mod http;
mod machine;
mod mortal_engine;
mod private_engine;
mod process;
mod registry;

pub(crate) use cluster::{Cluster, Timing};
pub(crate) use engine::{Containers, IMAGE, build_images, docker, import_programs, run};
pub(crate) use http::{get, post, send};
pub(crate) use machine::CalmMachine;
pub(crate) use mortal_engine::MortalEngine;
pub(crate) use private_engine::PrivateEngine;
pub(crate) use process::{AGENT, API, LEET, Process, SCHEDULER};
pub(crate) use registry::{PASSWORD, Registry, Tag, USER};

use std::time::Duration;

/// Longest wait for what takes well under a second on an idle machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// Longest time an orderly end may take.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(10);

/// A name that no other test's containers have, whoever runs tests on this engine just now.
pub(crate) fn any_name() -> String {
    format!("web-{}", kubeleet::model::PodId::new_submission())
}

/// Says something that is worth knowing even of a test that passes; `--nocapture` shows it.
#[expect(clippy::print_stdout, reason = "this is a test's own output")]
pub(crate) fn show(words: std::fmt::Arguments<'_>) {
    println!("{words}");
}
