//! Who follows the master, or why nobody can. Pure.

use super::SwitchoverError;
use crate::store::survey::{Facts, Server, ServerFacts};

/// A replica that is further behind while writes go on would hold them for too long.
const BEHIND_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The master, and the replica that is to follow it: `to`, or the furthest.
pub(super) fn choose(facts: &Facts, to: Option<&str>) -> Result<(String, String), SwitchoverError> {
    let none = |reason: &str| SwitchoverError::NoMaster(reason.to_owned());
    let from = facts.master.clone();
    let from = from.ok_or_else(|| none("no majority of the Sentinels names a master"))?;
    let told = || facts.sentinels.iter().filter_map(|one| one.facts.as_ref());
    if told().any(|one| one.master != from) {
        return Err(none(
            "not all Sentinels name the same master: wait until they do",
        ));
    }
    if let Some(busy) = told().find(|one| one.flags != "master") {
        let reason = format!(
            "a Sentinel calls the master {:?}: wait until it is well",
            busy.flags
        );
        return Err(SwitchoverError::NoMaster(reason));
    }
    let master = facts.servers.iter().find(|one| one.address == from);
    let master = match master {
        Some(Server {
            facts: Some(told), ..
        }) if told.role == "master" => told,
        Some(Server {
            error: Some(error), ..
        }) => {
            let reason = format!("the master {from} cannot be asked: {error}");
            return Err(SwitchoverError::NoMaster(reason));
        }
        _ => return Err(none("the server that the Sentinels name is no master")),
    };
    let replicas = facts.servers.iter().filter(|one| one.address != from);
    let mut reasons = Vec::new();
    let mut best: Option<(u64, &str)> = None;
    for replica in replicas {
        if to.is_some_and(|to| to != replica.address) {
            continue;
        }
        match may_follow(master, replica) {
            Ok(offset) if best.is_none_or(|(most, _)| offset > most) => {
                best = Some((offset, &replica.address));
            }
            Ok(_) => {}
            Err(reason) => reasons.push(format!("{} {reason}", replica.address)),
        }
    }
    if let Some((_, best)) = best {
        return Ok((from, best.to_owned()));
    }
    let reason = match (to, reasons.is_empty()) {
        (Some(to), true) if to == from => format!("{to} is the master already"),
        (Some(to), true) => format!("{to} is no replica of {from}: leet redis status lists them"),
        (None, true) => format!("{from} has no replica"),
        (_, false) => format!("no replica is in sync: {}", reasons.join("; ")),
    };
    Err(SwitchoverError::NoReplica(reason))
}

/// How far a replica is, or why it cannot follow.
fn may_follow(master: &ServerFacts, replica: &Server) -> Result<u64, String> {
    let Some(told) = &replica.facts else {
        let error = replica.error.as_deref().unwrap_or_default();
        return Err(format!("cannot be asked: {error}"));
    };
    let behind = master.offset.saturating_sub(told.offset);
    if told.role != "slave" {
        Err(format!("is a {}", told.role))
    } else if told.link_up != Some(true) {
        Err("has lost its master".to_owned())
    } else if !told.aof && master.aof {
        Err("keeps no append-only file, unlike the master".to_owned())
    } else if behind > BEHIND_MAX_BYTES {
        Err(format!("is {behind} bytes behind"))
    } else {
        Ok(told.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::survey::{Sentinel, SentinelFacts};

    fn server(address: &str, role: &str, offset: u64) -> Server {
        Server {
            address: address.to_owned(),
            facts: Some(ServerFacts {
                role: role.to_owned(),
                offset,
                link_up: (role == "slave").then_some(true),
                ..ServerFacts::default()
            }),
            ..Server::default()
        }
    }

    fn set() -> Facts {
        let sentinel = Sentinel {
            facts: Some(SentinelFacts {
                master: "a:1".to_owned(),
                flags: "master".to_owned(),
                ..SentinelFacts::default()
            }),
            ..Sentinel::default()
        };
        Facts {
            by_sentinel: true,
            master: Some("a:1".to_owned()),
            servers: vec![
                server("a:1", "master", 100),
                server("b:1", "slave", 90),
                server("c:1", "slave", 95),
            ],
            sentinels: vec![sentinel.clone(), sentinel.clone(), sentinel],
            ..Facts::default()
        }
    }

    #[test]
    fn the_furthest_follows_or_the_one_that_is_named() {
        let chosen = |to| choose(&set(), to).unwrap().1;
        assert_eq!(
            (chosen(None), chosen(Some("b:1"))),
            ("c:1".to_owned(), "b:1".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        type Change = fn(&mut Facts);
        let told = |facts: &mut Facts, number: usize, change: fn(&mut ServerFacts)| {
            change(facts.servers[number].facts.as_mut().unwrap());
        };
        let table: &[(Change, Option<&str>, &str)] = &[
            (|all| all.master = None, None, "no majority"),
            (|_| {}, Some("a:1"), "the master already"),
            (|_| {}, Some("x:1"), "no replica of a:1"),
            (|all| all.servers.truncate(1), None, "has no replica"),
            (|all| all.servers[0].facts = None, None, "no master"),
            (
                |all| all.sentinels[2].facts.as_mut().unwrap().master = "b:1".into(),
                None,
                "not all Sentinels",
            ),
            (
                |all| all.sentinels[0].facts.as_mut().unwrap().flags = "master,o_down".into(),
                None,
                "o_down",
            ),
        ];
        for (change, to, words) in table {
            let mut facts = set();
            change(&mut facts);
            let error = choose(&facts, *to).unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("nothing was changed"),
                "{error}"
            );
        }
        let mut facts = set();
        told(&mut facts, 1, |told| told.link_up = Some(false));
        told(&mut facts, 0, |told| told.offset = 1 << 40);
        let error = choose(&facts, None).unwrap_err().to_string();
        for words in ["b:1 has lost its master", "c:1 is", "bytes behind"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
