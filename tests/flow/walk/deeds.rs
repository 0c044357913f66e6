//! What users do in a walk: by the API, and by hand. Only what was answered with success is wished.

use std::time::Duration;

use kubeleet::model::service::RestartPolicy;
use serde_json::{Value, json};

use super::Walk;
use super::door::Said;
use crate::support::cluster::IMAGE;

/// Names of services: few, so that deeds meet each other.
pub(crate) const NAMES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
/// Images: the first is on every node, the others are pulled.
pub(crate) const IMAGES: [&str; 3] = [IMAGE, "other:1", "other:2"];
const REPLICAS_MAX: u64 = 4;
/// One of so many requests loses its API before it is answered.
const CUT_ONE_IN: u64 = 8;
const CUT_MAX_MS: u64 = 6;

/// What is wanted of a service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wish {
    pub(crate) replicas: u64,
    pub(crate) image: String,
    pub(crate) args: Vec<String>,
}

/// Some services end when they are done, each always by the same rule.
pub(crate) fn policy_of(name: &str) -> RestartPolicy {
    match name {
        "s4" => RestartPolicy::OnFailure,
        "s5" => RestartPolicy::Never,
        _ => RestartPolicy::Always,
    }
}

impl Wish {
    /// The body that asks for it; `replicas` only where they are said.
    fn body(&self, name: &str, says_replicas: bool) -> Value {
        let policy = serde_json::to_value(policy_of(name)).expect("a word");
        let mut body = json!({
            "name": name, "image": self.image, "args": self.args, "restart": { "policy": policy },
        });
        match name {
            "s1" => body["resources"] = json!({ "cpu": "100m", "memory": "10Mi" }),
            "s2" => body["priority"] = json!("high"),
            _ => {}
        }
        if says_replicas {
            body["replicas"] = json!(self.replicas);
        }
        body
    }
}

impl Walk {
    pub(super) async fn deed(&mut self) {
        let name = *self.dice.of(&NAMES).expect("there are some");
        match self.dice.roll(100) {
            0..20 => self.submit(name).await,
            20..50 => self.apply(name).await,
            50..58 => self.apply_again(name).await,
            58..75 => self.scale(name).await,
            75..87 => self.delete(name).await,
            87..97 => self.push_by_hand().await,
            _ => self.stop_by_hand().await,
        }
    }

    async fn ask(&mut self, method: &str, path: &str, key: &str, body: &Value) -> Said {
        let cut = (self.dice.roll(CUT_ONE_IN) == 0)
            .then(|| Duration::from_millis(self.dice.roll(CUT_MAX_MS)));
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let said = self.door.ask(method, path, key, &body, cut).await;
        self.note(format!(
            "{method} {path} {body}: {} {}",
            said.status,
            if said.again { "again" } else { "" }
        ));
        said
    }

    fn new_wish(&mut self) -> Wish {
        Wish {
            replicas: 1 + self.dice.roll(REPLICAS_MAX),
            image: (*self.dice.of(&IMAGES).expect("there are some")).to_owned(),
            args: vec![self.dice.roll(3).to_string()],
        }
    }

    fn wished(&mut self, name: &str, wish: Wish) {
        let known = self.wishes.insert(name.to_owned(), wish.clone());
        if known.is_none_or(|known| (known.image, known.args) != (wish.image, wish.args)) {
            self.failures.remove(name); // another revision begins again
        }
    }

    async fn submit(&mut self, name: &str) {
        let wish = self.new_wish();
        let key = format!("step-{}", self.step);
        let body = wish.body(name, true);
        let said = self.ask("POST", "/v1/services", &key, &body).await;
        if said.is_success() {
            let same = self.wishes.get(name).is_none_or(|known| *known == wish);
            assert!(same, "a submit changed a wish: {said:?}");
            self.wished(name, wish);
        }
    }

    async fn apply(&mut self, name: &str) {
        let mut wish = self.new_wish();
        let says_replicas = self.dice.roll(2) == 0;
        if !says_replicas {
            wish.replicas = self.wishes.get(name).map_or(1, |known| known.replicas);
        }
        let body = wish.body(name, says_replicas);
        let path = format!("/v1/services/{name}");
        let said = self.ask("PUT", &path, "", &body).await;
        if said.is_success() {
            self.wished(name, wish);
        }
    }

    async fn apply_again(&mut self, name: &str) {
        let Some(wish) = self.wishes.get(name).cloned() else {
            return;
        };
        // A wish of none cannot be said in a body.
        let body = wish.body(name, wish.replicas > 0);
        let path = format!("/v1/services/{name}");
        let said = self.ask("PUT", &path, "", &body).await;
        assert_eq!(said.status, 200, "{said:?}");
        let answer: Value = serde_json::from_str(&said.body).expect("JSON");
        assert_eq!(answer["outcome"], "unchanged", "{said:?}");
    }

    async fn scale(&mut self, name: &str) {
        let replicas = self.dice.roll(REPLICAS_MAX + 1);
        let path = format!("/v1/services/{name}/scale");
        let said = self
            .ask("PATCH", &path, "", &json!({ "replicas": replicas }))
            .await;
        if said.is_success() {
            let wish = self.wishes.get_mut(name).expect("what is scaled stands");
            wish.replicas = replicas;
        }
    }

    async fn delete(&mut self, name: &str) {
        let path = format!("/v1/services/{name}");
        let said = self.ask("DELETE", &path, "", &Value::Null).await;
        if said.is_success() || (said.again && said.status == 404) {
            self.wishes.remove(name);
            self.failures.remove(name);
        }
    }

    async fn push_by_hand(&mut self) {
        let list = match self.dice.roll(2) {
            0 => "sq".to_owned(),
            _ => format!("pq:{}", self.node()),
        };
        let id = format!("hand-{}", self.step);
        let entry = match self.dice.roll(8) {
            0 => format!("rubbish {id}"),
            _ => json!({ "uuid": id, "name": "hand", "image": IMAGE, "replica": 0 }).to_string(),
        };
        // What lies there may be of a wrong type just now: then a person is told so.
        let key = self.cluster.key(&list);
        let pushed = self.redis.command(&["LPUSH", &key, &entry]).await;
        self.note(format!("LPUSH {list} {entry}: {pushed:?}"));
    }

    async fn stop_by_hand(&mut self) {
        let all: Vec<String> = self.by_hand.iter().cloned().collect();
        let Some(id) = self.dice.of(&all).cloned() else {
            return;
        };
        let path = format!("/v1/pods/{id}");
        let said = self.ask("DELETE", &path, "", &Value::Null).await;
        if said.is_success() || said.status == 404 {
            self.by_hand.remove(&id);
        }
    }
}
