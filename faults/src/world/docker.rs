//! The machine's own Docker beneath all agents of a cluster: what it does is recorded, and what is left
//! of it is removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use kubeleet_faults::logs::Deed;

/// The image that all versions of the suite's own are, here.
const BASE: &str = "spaster/alpine-sleep";

/// Names the images that the clients ask for; the base must be here.
pub(super) fn tag_images(images: impl Iterator<Item = String>) -> Result<()> {
    for image in images {
        docker(["tag", BASE, &image])?;
    }
    Ok(())
}

/// Removes all containers that the recorder has seen, and no other.
pub(super) fn remove_containers(dir: &Path, nodes: &[&str]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for node in nodes {
        let log = std::fs::read_to_string(dir.join(format!("engine-{node}.jsonl")));
        for line in log.unwrap_or_default().lines() {
            seen.insert(serde_json::from_str::<Deed>(line)?.container);
        }
    }
    for container in seen {
        // Most are gone by now.
        let _ = docker(["rm", "--force", "--volumes", &container]);
    }
    Ok(())
}

fn docker<const N: usize>(words: [&str; N]) -> Result<()> {
    let mut command = Command::new("docker");
    let output = command.args(words).stdin(Stdio::null()).output();
    let output = output.context("cannot run docker")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("docker {}: {said}", words.join(" "));
    }
    Ok(())
}
