//! Reading a snapshot: from the server that a majority of the Sentinels calls master.

use std::collections::BTreeMap;

use super::resp::{Reply, Resp};
use super::run::Built;
use super::snapshot::{Fields, Snapshot};
use crate::logs::now_ns;

/// Most dead letters, and most entries of any list, that are read.
const READ_MAX: &str = "1999";

/// Finds the master, which must call itself one.
///
/// # Errors
/// There is none just now.
pub fn master(built: &Built, given: Option<&str>) -> anyhow::Result<String> {
    let named = match given {
        Some(address) => address.to_owned(),
        None => by_sentinels(built)?,
    };
    let role = Resp::connect(&named)?.ask(&["ROLE"])?;
    let role = role.texts().into_iter().next().unwrap_or_default();
    anyhow::ensure!(
        role == "master",
        "{named} is to be the master and calls itself {role:?}"
    );
    Ok(named)
}

fn by_sentinels(built: &Built) -> anyhow::Result<String> {
    let mut votes: BTreeMap<String, usize> = BTreeMap::new();
    for sentinel in &built.sentinels {
        let asked = ["SENTINEL", "get-master-addr-by-name", &built.master];
        let told = Resp::connect(sentinel).and_then(|mut it| it.ask(&asked));
        if let Ok(Reply::Many(parts)) = told {
            *votes
                .entry(Reply::Many(parts).texts().join(":"))
                .or_default() += 1;
        }
    }
    let majority = built.sentinels.len() / 2 + 1;
    let elected = votes.iter().find(|(_, count)| **count >= majority);
    let named = elected.map(|(address, _)| address.clone());
    let only = match built.redis.as_slice() {
        [only] if built.sentinels.is_empty() => Some(only.addr.clone()),
        _ => None,
    };
    named.or(only).ok_or_else(|| {
        anyhow::anyhow!("no majority of the Sentinels names a master; they say {votes:?}")
    })
}

/// Reads all of a cluster.
///
/// # Errors
/// Redis does not answer, or answers something else.
pub fn read(address: &str, prefix: &str) -> anyhow::Result<Snapshot> {
    let mut resp = Resp::connect(address)?;
    let mut reader = Reader {
        resp: &mut resp,
        prefix,
    };
    let mut seen = Snapshot {
        at_ns: now_ns(),
        server: address.to_owned(),
        ..Snapshot::default()
    };
    seen.keys = reader.keys()?;
    let names = |kind: &str, first: &str| -> Vec<String> {
        let keys = seen.keys.iter().filter(|(_, is)| *is == kind);
        let named = keys.filter_map(|(key, _)| key.strip_prefix(first));
        named.map(str::to_owned).collect()
    };
    let pods = names("hash", "pod:");
    let nodes = names("hash", "node:");
    let sets = names("set", "cs:");
    let claims = names("list", "sq:claim:");
    let inboxes: Vec<String> = ["pq:", "rq:"]
        .iter()
        .flat_map(|first| {
            names("list", first)
                .into_iter()
                .map(move |name| format!("{first}{name}"))
        })
        .collect();
    seen.pods = reader.hashes("pod:", &pods)?;
    seen.nodes = reader.hashes("node:", &nodes)?;
    let services = reader.list(&["ZRANGE", "services", "0", "-1"])?;
    seen.services = reader.hashes("service:", &services)?;
    for service in &services {
        let index = reader.list(&["ZRANGE", &format!("service:{service}:pods"), "0", "-1"])?;
        seen.indexes.insert(service.clone(), index);
    }
    seen.loose = reader.list(&["ZRANGE", "pods", "0", "-1"])?;
    seen.living = reader.list(&["ZRANGE", "nodes", "0", "-1"])?;
    for queue in ["sq", "sq:high", "sq:low"] {
        seen.waiting.insert(
            queue.to_owned(),
            reader.list(&["LRANGE", queue, "0", "-1"])?,
        );
    }
    for claim in claims {
        let key = format!("sq:claim:{claim}");
        let entries = reader.list(&["LRANGE", &key, "0", "-1"])?;
        seen.waiting.insert(key, entries);
    }
    let parked = reader.list(&["ZRANGE", "sq:parked", "0", "-1"])?;
    seen.waiting.insert("sq:parked".to_owned(), parked);
    for node in sets {
        let ids = reader.list(&["SMEMBERS", &format!("cs:{node}")])?;
        seen.assigned.insert(node, ids);
    }
    for key in inboxes {
        let entries = reader.list(&["LRANGE", &key, "0", READ_MAX])?;
        seen.inboxes.insert(key, entries);
    }
    seen.dead = reader.list(&["LRANGE", "dead", "0", READ_MAX])?;
    seen.events = reader
        .list(&["XLEN", "events"])?
        .concat()
        .parse()
        .unwrap_or(0);
    let asked = pods
        .iter()
        .map(|id| vec!["PTTL".to_owned(), format!("{prefix}pod:{id}")]);
    let left = reader.resp.ask_all(&asked.collect::<Vec<_>>())?;
    for (id, left) in pods.iter().zip(left) {
        if let Ok(left @ 0..) = left.text().parse() {
            seen.expiring.insert(id.clone(), left);
        }
    }
    Ok(seen)
}

struct Reader<'a> {
    resp: &'a mut Resp,
    prefix: &'a str,
}

impl Reader<'_> {
    /// What a command answers, as words. Its second word is a key; one of another type is empty.
    fn list(&mut self, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let key = format!("{}{}", self.prefix, words[1]);
        let mut words = words.to_vec();
        words[1] = &key;
        match self.resp.ask(&words)? {
            Reply::Refused(why) if !why.starts_with("WRONGTYPE") => {
                anyhow::bail!("{words:?}: {why}")
            }
            reply => Ok(reply.texts()),
        }
    }

    fn hashes(
        &mut self,
        first: &str,
        names: &[String],
    ) -> anyhow::Result<BTreeMap<String, Fields>> {
        let asked = names.iter().map(|name| {
            vec![
                "HGETALL".to_owned(),
                format!("{}{first}{name}", self.prefix),
            ]
        });
        let asked: Vec<_> = asked.collect();
        let replies = self.resp.ask_all(&asked)?;
        let fields = |reply: Reply| {
            let texts = reply.texts();
            let pairs = texts.chunks_exact(2);
            pairs
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect::<Fields>()
        };
        let hashes = names.iter().cloned().zip(replies.into_iter().map(fields));
        // One that went between the two looks is not there.
        Ok(hashes.filter(|(_, fields)| !fields.is_empty()).collect())
    }

    /// All keys with their types.
    fn keys(&mut self) -> anyhow::Result<BTreeMap<String, String>> {
        let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
        let pattern = format!("{}*", self.prefix);
        loop {
            let asked = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"];
            let Reply::Many(mut parts) = self.resp.ask(&asked)? else {
                anyhow::bail!("SCAN answered something else");
            };
            keys.extend(parts.pop().unwrap_or(Reply::Nothing).texts());
            cursor = parts.pop().unwrap_or(Reply::Nothing).text();
            if cursor == "0" || cursor.is_empty() {
                break;
            }
        }
        keys.sort();
        keys.dedup();
        let asked: Vec<_> = keys
            .iter()
            .map(|key| vec!["TYPE".to_owned(), key.clone()])
            .collect();
        let types = self.resp.ask_all(&asked)?;
        let named = keys.into_iter().zip(types);
        let named = named.map(|(key, kind)| (key[self.prefix.len()..].to_owned(), kind.text()));
        Ok(named.filter(|(_, kind)| kind != "none").collect())
    }
}
