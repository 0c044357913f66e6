//! All that one Redis holds of a cluster, read once and looked at from all sides.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::support::RedisServer;

/// A script that shows every key: its name, type, expiry and content, all of one moment.
const SHOW: &str = "
  local shown = {}
  for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
    local kind = redis.call('TYPE', key).ok
    local content = {}
    if kind == 'hash' then
      content = redis.call('HGETALL', key)
    elseif kind == 'set' then
      content = redis.call('SMEMBERS', key)
    elseif kind == 'list' then
      content = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'zset' then
      content = redis.call('ZRANGE', key, 0, -1)
    elseif kind == 'stream' then
      content = { tostring(redis.call('XLEN', key)) }
    end
    shown[#shown + 1] = { string.sub(key, #ARGV[1] + 1), kind, tostring(redis.call('PTTL', key)), content }
  end
  return shown
";

/// A key: its type, whether it expires, and what it holds, flat.
#[derive(Debug, Default)]
pub(crate) struct Key {
    pub(crate) kind: String,
    pub(crate) expires: bool,
    pub(crate) content: Vec<String>,
}

/// All keys of a cluster, without their prefix.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) keys: BTreeMap<String, Key>,
}

impl State {
    pub(crate) async fn read(redis: &RedisServer, prefix: &str) -> State {
        let shown = redis.must(&["EVAL", SHOW, "0", prefix]).await;
        let mut keys = BTreeMap::new();
        for one in list(&shown) {
            let [name, kind, expiry, content] = list(one) else {
                panic!("four of each key");
            };
            let key = Key {
                kind: text(kind),
                expires: text(expiry) != "-1",
                content: list(content).iter().map(text).collect(),
            };
            keys.insert(text(name), key);
        }
        State { keys }
    }

    /// The members of a set, a sorted set or a list.
    pub(crate) fn set(&self, key: &str) -> BTreeSet<String> {
        let key = self.keys.get(key);
        key.map_or_else(BTreeSet::new, |key| key.content.iter().cloned().collect())
    }

    /// The fields of a hash; none if there is no such hash.
    pub(crate) fn hash(&self, key: &str) -> BTreeMap<&str, &str> {
        let key = self.keys.get(key).filter(|key| key.kind == "hash");
        let content = key.map_or(&[][..], |key| &key.content);
        let pairs = content.chunks_exact(2);
        pairs
            .map(|pair| (pair[0].as_str(), pair[1].as_str()))
            .collect()
    }

    pub(crate) fn pod(&self, id: &str) -> BTreeMap<&str, &str> {
        self.hash(&format!("pod:{id}"))
    }

    /// Ids of all pods that have a record, tombstones left out.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &str> {
        let pods = self.keys.iter().filter(|(_, key)| !key.expires);
        pods.filter_map(|(name, _)| name.strip_prefix("pod:"))
    }

    /// Keys of all services that have a record.
    pub(crate) fn services(&self) -> Vec<String> {
        let names = self
            .keys
            .keys()
            .filter_map(|name| name.strip_prefix("service:"));
        let records = names.filter(|name| !name.ends_with(":pods") && !name.ends_with(":gone"));
        records.map(str::to_owned).collect()
    }
}

fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        other => panic!("no list: {other:?}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        other => panic!("no text: {other:?}"),
    }
}
