//! What a service's pods need and are limited to.
//!
//! A limit of the file is a limit here, and asked for of the node unless a reservation says less. A
//! reservation alone is asked for without a limit.

use super::super::node::At;
use super::super::note::Notes;
use super::reserved;
use crate::model::ServiceSpec;
use crate::model::resources::{MEMORY_MAX, PIDS_MAX, parse_cpu};

const BYTES_RULE: &str = "bytes, or an amount such as 512m or 2g";
const CPUS_RULE: &str = "a number of cores such as 0.5";

pub(super) fn translate(spec: &mut ServiceSpec, at: &At, notes: &mut Notes) {
    let deploy = at.some("deploy").and_then(|at| at.some("resources"));
    let limits = deploy.as_ref().and_then(|at| at.some("limits"));
    let limit = |key: &str| limits.as_ref().and_then(|at| at.some(key));
    if let Some(at) = &deploy {
        at.known(notes, &["limits", "reservations"]);
    }
    if let Some(at) = &limits {
        at.known(notes, &["cpus", "memory", "pids"]);
    }
    let resources = &mut spec.resources;
    resources.memory_bytes = one(limit("memory"), at.some("mem_limit"), notes, bytes).unwrap_or(0);
    resources.cpu_millis = one(limit("cpus"), at.some("cpus"), notes, cpus).unwrap_or(0);
    resources.pids_max = one(limit("pids"), at.some("pids_limit"), notes, pids).unwrap_or(0);
    if let Some(at) = at.some("shm_size") {
        resources.shm_bytes = bytes(&at, notes).unwrap_or(0);
    }
    if let Some(at) = at.some("memswap_limit") {
        match at.text(notes) {
            Some("-1") => at.warn(
                notes,
                "unlimited swap is not possible here: the engine decides",
            ),
            _ => resources.memory_swap_bytes = bytes(&at, notes).unwrap_or(0),
        }
    }
    reserved::translate(resources, at, deploy.as_ref(), notes);
}

/// The amount of `deploy`, or of the key of the service; both have to say the same.
fn one(
    deploy: Option<At>,
    own: Option<At>,
    notes: &mut Notes,
    read: impl Fn(&At, &mut Notes) -> Option<u64>,
) -> Option<u64> {
    let given = deploy.as_ref().map(|at| read(at, notes));
    let other = own.as_ref().map(|at| read(at, notes));
    if let (Some(given), Some(other), Some(own)) = (given, other, &own)
        && given != other
    {
        own.refuse(
            notes,
            "deploy.resources.limits says another amount: leave one out",
        );
    }
    given.or(other).flatten()
}

/// An amount of cpu.
pub(super) fn cpus(at: &At, notes: &mut Notes) -> Option<u64> {
    at.parsed(notes, CPUS_RULE, |text| {
        let zero = text.parse::<f64>().is_ok_and(|cores| cores == 0.0);
        // Zero is no limit.
        if zero {
            Some(0)
        } else {
            parse_cpu(text).filter(|_| !text.ends_with('m'))
        }
    })
}

fn pids(at: &At, notes: &mut Notes) -> Option<u64> {
    at.parsed(
        notes,
        "a whole number, or -1 for no limit",
        |text| match text {
            "-1" | "0" => Some(0),
            text => text.parse().ok().filter(|pids| *pids <= PIDS_MAX),
        },
    )
}

/// An amount of memory.
pub(super) fn bytes(at: &At, notes: &mut Notes) -> Option<u64> {
    at.parsed(notes, BYTES_RULE, parse_bytes)
}

/// Bytes as Docker reads them: every unit counts in 1024s, whatever its case.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit: u64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = match text[..digits].parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit)?,
        Err(_) => fraction(&text[..digits], unit)?,
    };
    (bytes <= MEMORY_MAX).then_some(bytes)
}

/// `1.5` of a unit.
fn fraction(text: &str, unit: u64) -> Option<u64> {
    let amount: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked to lie within 0 and MEMORY_MAX, and units are powers far below 2^53"
    )]
    {
        let bytes = amount * unit as f64;
        (0.0..=MEMORY_MAX as f64)
            .contains(&bytes)
            .then_some(bytes as u64)
    }
}
