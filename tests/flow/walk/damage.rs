//! Damage in Redis: notices that are lost, and keys that a person deleted, changed or gave a wrong
//! type, one at a time.

use super::Walk;
use super::state::State;

/// Lists and sets of notices: whatever is in them may be lost.
const NOTICES: [&str; 6] = [
    "sq",
    "sq:high",
    "services:changed",
    "services:wake",
    "sq:claims",
    "sq:parked",
];
/// Keys that make way if they are of a wrong type.
const WRONG: [&str; 10] = [
    "sq",
    "sq:high",
    "sq:claims",
    "sq:parked",
    "services:changed",
    "services:wake",
    "nodes",
    "nodes:lost",
    "dead",
    "events",
];
/// What a person might write over a pod's fields.
const FIELDS: [(&str, &str); 11] = [
    ("phase", "dancing"),
    ("phase", ""),
    ("desired", ""),
    ("replica", "7"),
    ("revision", "0"),
    ("attempt", "77"),
    ("nonce", "mine"),
    ("node", "worker9"),
    ("ready", ""),
    ("nonce", ""),
    ("attempt", ""),
];

/// Sends a command if the key is there and does not expire, as a tombstone does.
const IF_THERE: &str =
    "if redis.call('PTTL', KEYS[1]) == -1 then return redis.call(unpack(ARGV)) end";

impl Walk {
    pub(super) async fn damage(&mut self) {
        let kind = self.dice.roll(100);
        // What leads to a service that somebody took out of the list is spared until it is back.
        let state = self.state().await;
        let listed = state.set("services");
        let unlisted = state.services().iter().any(|name| !listed.contains(name));
        match kind {
            0..35 => self.lose_notices().await,
            _ if unlisted => {}
            35..45 => self.lose_a_set().await,
            45..55 => self.lose_an_index_entry().await,
            55..65 => self.lose_a_pod().await,
            65..75 => self.change_a_pod().await,
            75..85 => self.change_counts().await,
            85..90 => self.lose_a_node().await,
            _ => self.wrong_type().await,
        }
    }

    /// One command, by a key without its prefix.
    pub(super) async fn by_hand(&mut self, words: &[&str]) {
        let key = self.cluster.key(words[1]);
        let mut all = words.to_vec();
        all[1] = &key;
        // A key of a wrong type answers with an error, as it would to anyone.
        let answer = self.redis.command(&all).await;
        self.note(format!("{words:?}: {answer:?}"));
    }

    /// The same for a record that is there still: what a person writes where nothing of ours is stays
    /// there.
    async fn by_hand_if_there(&mut self, words: &[&str]) {
        let key = self.cluster.key(words[1]);
        let mut all = vec!["EVAL", IF_THERE, "1", &key];
        all.extend(words);
        all[5] = &key;
        let answer = self.redis.command(&all).await;
        self.note(format!("{words:?}: {answer:?}"));
    }

    pub(super) async fn state(&self) -> State {
        State::read(&self.redis, &self.cluster.settings.key_prefix).await
    }

    async fn lose_notices(&mut self) {
        let node = self.node();
        let list = match self.dice.roll(9) {
            0 | 1 => format!("pq:{node}"),
            2 => format!("rq:{node}"),
            3 => {
                let claims = self.cluster.keys_like("sq:claim:*").await;
                self.dice.of(&claims).cloned().unwrap_or_default()
            }
            _ => (*self.dice.of(&NOTICES).expect("there are some")).to_owned(),
        };
        if !list.is_empty() {
            self.by_hand(&["DEL", &list]).await;
        }
    }

    async fn lose_a_set(&mut self) {
        let node = self.node();
        let cs = format!("cs:{node}");
        let state = self.state().await;
        match self.dice.roll(4) {
            0 => self.by_hand(&["DEL", &cs]).await,
            1 => self.by_hand(&["SADD", &cs, "nobody"]).await,
            2 => {
                let ids: Vec<String> = state.set(&cs).into_iter().collect();
                if let Some(id) = self.dice.of(&ids).cloned() {
                    self.by_hand(&["SREM", &cs, &id]).await;
                }
            }
            _ => {
                let led_to = |name: &&String| {
                    let pods = state.set(&format!("service:{name}:pods"));
                    pods.iter().any(|id| is_led_to(&state, id))
                };
                let names: Vec<String> = state.services().iter().filter(led_to).cloned().collect();
                if let Some(name) = self.dice.of(&names).cloned() {
                    self.by_hand(&["ZREM", "services", &name]).await;
                }
            }
        }
    }

    async fn lose_an_index_entry(&mut self) {
        let state = self.state().await;
        let mut indexes = vec!["pods".to_owned()];
        let services = state.services();
        indexes.extend(services.iter().map(|name| format!("service:{name}:pods")));
        let index = self.dice.of(&indexes).expect("there is one").clone();
        let all = state.set(&index);
        let led_to = all.iter().filter(|id| is_led_to(&state, id));
        let ids: Vec<String> = led_to.cloned().collect();
        match self.dice.roll(4) {
            0 if ids.len() == all.len() => {
                self.unled.extend(ids);
                self.by_hand(&["DEL", &index]).await;
            }
            _ => {
                if let Some(id) = self.dice.of(&ids).cloned() {
                    self.unled.insert(id.clone());
                    self.by_hand(&["ZREM", &index, &id]).await;
                }
            }
        }
    }

    /// Any pod's id.
    async fn pod(&mut self) -> Option<String> {
        let state = self.state().await;
        let ids: Vec<String> = state.pods().map(str::to_owned).collect();
        let id = self.dice.of(&ids).cloned()?;
        self.by_hand.remove(&id);
        self.damaged.insert(id.clone());
        Some(id)
    }

    async fn lose_a_pod(&mut self) {
        if let Some(id) = self.pod().await {
            self.by_hand_if_there(&["DEL", &format!("pod:{id}")]).await;
        }
    }

    async fn change_a_pod(&mut self) {
        let Some(id) = self.pod().await else { return };
        let key = format!("pod:{id}");
        let (field, value) = *self.dice.of(&FIELDS).expect("there are some");
        if value.is_empty() {
            self.by_hand_if_there(&["HDEL", &key, field]).await;
        } else {
            self.by_hand_if_there(&["HSET", &key, field, value]).await;
        }
    }

    async fn change_counts(&mut self) {
        let node = format!("node:{}", self.node());
        let count = self.dice.roll(300).to_string();
        let state = self.state().await;
        let names = state.services();
        let service = self.dice.of(&names).map(|name| format!("service:{name}"));
        let field = ["pods", "cpu_requested", "memory_requested"];
        let field = self.dice.of(&field).expect("there are some");
        match (self.dice.roll(4), service) {
            (0, Some(service)) => {
                self.by_hand_if_there(&["HSET", &service, "running", &count])
                    .await;
            }
            (1, Some(service)) => {
                let split = self.dice.roll(9).to_string();
                self.by_hand_if_there(&["HSET", &service, "split", &split])
                    .await;
            }
            _ => self.by_hand(&["HSET", &node, field, &count]).await,
        }
    }

    async fn lose_a_node(&mut self) {
        let node = self.node();
        match self.dice.roll(2) {
            0 => self.by_hand(&["DEL", &format!("node:{node}")]).await,
            _ => self.by_hand(&["ZREM", "nodes", node]).await,
        }
    }

    async fn wrong_type(&mut self) {
        let node = self.node();
        let key = match self.dice.roll(8) {
            0 => format!("pq:{node}"),
            1 => format!("rq:{node}"),
            2 => format!("cs:{node}"),
            3 => {
                if let Some(id) = self.pod().await {
                    let key = format!("pod:{id}");
                    self.by_hand_if_there(&["SET", &key, "mine"]).await;
                }
                return;
            }
            _ => (*self.dice.of(&WRONG).expect("there are some")).to_owned(),
        };
        // SET takes any key over, whatever it held.
        self.by_hand(&["SET", &key, "mine"]).await;
    }
}

/// Whether its node's agent asks for a pod again: else nothing would lead to what is taken away.
fn is_led_to(state: &State, id: &str) -> bool {
    let pod = state.pod(id);
    let node = pod.get("node").map(|node| format!("cs:{node}"));
    node.is_some_and(|set| state.set(&set).contains(id))
}
