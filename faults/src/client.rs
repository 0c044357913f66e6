//! Clients of the API, who make, change, scale and delete services all the time.
//!
//! Each service belongs to one client, who asks again, under the same key, until an answer is clear:
//! so the last clear answer is what must be. Every call is written to `history.jsonl`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kubeleet_faults::logs::{Asked, now_ns, write_line};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::dice::Dice;
use crate::http;
use crate::world::{CONTROLS, IMAGES, World, image, until};

/// How many clients there are.
const CLIENTS: u64 = 3;
/// Services that a client has at most.
const SERVICES_MAX: usize = 3;
/// Replicas that a service has at most.
const REPLICAS_MAX: usize = 4;
/// Pause after an answer that was not clear.
const AGAIN: Duration = Duration::from_millis(200);

/// What was accepted of a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    /// Pods.
    pub(crate) replicas: u64,
    /// Image.
    pub(crate) image: String,
    /// What the loss of a node means.
    pub(crate) policy: &'static str,
}

/// The clients.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    apis: Vec<String>,
    history: PathBuf,
    policies: Vec<&'static str>,
    go: watch::Sender<bool>,
    busy: AtomicUsize,
    forgiving: AtomicBool,
    wishes: Mutex<BTreeMap<String, Wish>>,
    broken: Mutex<Vec<String>>,
    calls: AtomicUsize,
    unclear: AtomicUsize,
}

impl Clients {
    /// Starts clients that do nothing yet.
    pub(crate) async fn start(world: &World) -> Result<Clients> {
        let document = world.get("/openapi.json").await?.to_string();
        // Versions before do not know it.
        let policies = if document.contains("on_node_loss") && world.plan.old.is_none() {
            let all = ["replace", "stop-then-replace", "hold"];
            all[..if world.plan.hold { 3 } else { 2 }].to_vec()
        } else {
            Vec::new()
        };
        let shared = Arc::new(Shared {
            apis: CONTROLS.iter().map(|host| world.api(host)).collect(),
            history: world.plan.dir.join("history.jsonl"),
            policies,
            go: watch::Sender::new(false),
            busy: AtomicUsize::new(0),
            forgiving: AtomicBool::new(false),
            wishes: Mutex::default(),
            broken: Mutex::default(),
            calls: AtomicUsize::new(0),
            unclear: AtomicUsize::new(0),
        });
        let seed = world.plan.seed;
        let client =
            |number| tokio::spawn(live(shared.clone(), number, Dice::new(seed, 100 + number)));
        let tasks = (1..=CLIENTS).map(client).collect();
        Ok(Clients { shared, tasks })
    }

    /// They ask.
    pub(crate) fn resume(&self) {
        self.shared.go.send_replace(true);
    }

    /// They finish what they asked, and ask no more.
    pub(crate) async fn pause(&self, deadline: Instant) -> Result<()> {
        self.shared.go.send_replace(false);
        until(deadline, async || {
            let busy = self.shared.busy.load(Ordering::SeqCst);
            if busy > 0 {
                bail!("I3: {busy} clients have no clear answer yet");
            }
            Ok(())
        })
        .await
    }

    /// Whether an answer that something is absent is to be asked again: Redis was emptied.
    pub(crate) fn forgive(&self, absent: bool) {
        self.shared.forgiving.store(absent, Ordering::SeqCst);
    }

    /// What must be.
    pub(crate) fn wishes(&self) -> BTreeMap<String, Wish> {
        self.shared.wishes().clone()
    }

    /// How many calls there were, and how many without a clear answer.
    pub(crate) fn calls(&self) -> (usize, usize) {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (of(&self.shared.calls), of(&self.shared.unclear))
    }

    /// Which promises answers broke, since last asked.
    pub(crate) fn broken(&self) -> Vec<String> {
        let broken = &self.shared.broken;
        std::mem::take(&mut *broken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether all services are as they were asked for, by an API's word.
    pub(crate) async fn all_is_as_wished(&self, world: &World) -> Result<()> {
        let wishes = self.wishes();
        let answer = world.get("/v1/services?limit=1000").await?;
        let items = answer["items"].as_array().context("no list of services")?;
        for (name, wish) in &wishes {
            let item = items.iter().find(|item| item["name"] == name.as_str());
            let item = item.with_context(|| format!("I1: accepted service {name} is absent"))?;
            let replicas = item["replicas"].as_u64().unwrap_or(0);
            let image = item["spec"]["image"].as_str().unwrap_or("");
            if (replicas, image) != (wish.replicas, wish.image.as_str()) {
                bail!("I1: accepted {wish:?} of service {name} is lost: {replicas} of {image}");
            }
            let running = item["running"].as_u64().unwrap_or(0);
            if running != replicas {
                bail!("I3: service {name} runs {running} of {replicas}");
            }
        }
        let ours = |item: &&Value| {
            let name = item["name"].as_str().unwrap_or("");
            !wishes.contains_key(name)
        };
        if let Some(extra) = items.iter().find(ours) {
            let name = &extra["name"];
            if extra["deleting"] != true {
                bail!("I1: the accepted deletion of service {name} is lost");
            }
            bail!("I3: service {name} is deleted and does not end");
        }
        Ok(())
    }

    /// Makes a service that must run soon, and deletes it.
    pub(crate) async fn canary(&self, world: &World, round: u64, deadline: Instant) -> Result<()> {
        let name = format!("canary-{round}");
        let shared = &self.shared;
        let policy = shared.policies.first().copied().unwrap_or("");
        let made = shared.make(&name, 2, policy, 0, deadline).await;
        made.with_context(|| format!("I14: canary {name} was not accepted"))?;
        let path = format!("/v1/services/{name}");
        let runs = until(deadline, async || {
            let seen = world.get(&path).await?;
            if seen["running"] != 2 {
                let pods = world.get(&format!("/v1/pods?service={name}")).await;
                bail!("I14: canary {name} does not run: {seen} {pods:?}");
            }
            Ok(())
        });
        runs.await?;
        shared.remove(&name, deadline).await
    }

    /// Makes a service apart from the clients' own.
    pub(crate) async fn make(&self, name: &str, replicas: u64, deadline: Instant) -> Result<()> {
        let policy = self.shared.policies.first().copied().unwrap_or("");
        self.shared.make(name, replicas, policy, 0, deadline).await
    }

    /// The same, where the loss of a node means something certain.
    pub(crate) async fn make_with(
        &self,
        name: &str,
        replicas: u64,
        policy: &'static str,
        deadline: Instant,
    ) -> Result<()> {
        self.shared.make(name, replicas, policy, 0, deadline).await
    }

    /// Deletes one.
    pub(crate) async fn remove(&self, name: &str, deadline: Instant) -> Result<()> {
        self.shared.remove(name, deadline).await
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a client asks for.
struct Question<'a> {
    method: &'a str,
    path: &'a str,
    key: &'a str,
    body: &'a Value,
}

impl Shared {
    fn wishes(&self) -> MutexGuard<'_, BTreeMap<String, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until the answer is clear; gives it, and whether there was an unclear one before.
    async fn ask(&self, question: &Question<'_>, deadline: Option<Instant>) -> Result<(u16, bool)> {
        for tries in 0_usize.. {
            let api = &self.apis[(tries + question.path.len()) % self.apis.len()];
            let sent_ns = now_ns();
            let &Question {
                method,
                path,
                key,
                body,
            } = question;
            let answer = http::send(api, method, path, key, body).await;
            let (status, text) = match &answer {
                Ok(answer) => (Some(answer.status), answer.body.clone()),
                Err(error) => (None, Value::String(format!("{error:#}"))),
            };
            self.calls.fetch_add(1, Ordering::Relaxed);
            let line = Asked {
                sent_ns,
                done_ns: now_ns(),
                method: method.to_owned(),
                path: path.to_owned(),
                key: key.to_owned(),
                body: body.clone(),
                status,
                answer: text.clone(),
            };
            write_line(&self.history, &line).context("cannot write the history")?;
            if let Some(status) = status
                && status < 500
                && status != 408
                && status != 429
                && !(status == 404 && self.forgiving.load(Ordering::SeqCst))
            {
                return Ok((status, tries > 0));
            }
            self.unclear.fetch_add(1, Ordering::Relaxed);
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                bail!("no clear answer to {method} {path}: {status:?} {text}");
            }
            tokio::time::sleep(AGAIN).await;
        }
        unreachable!("tries without end")
    }

    fn spec(&self, name: &str, replicas: u64, policy: &str, version: usize) -> (Value, String) {
        let image = image(version);
        let mut body = json!({
            "name": name, "image": image, "replicas": replicas,
            "resources": {"cpu": 0.1, "memory": "16Mi"},
        });
        if !policy.is_empty() {
            body["on_node_loss"] = json!(policy);
        }
        (body, image)
    }

    async fn make(
        &self,
        name: &str,
        replicas: u64,
        policy: &'static str,
        version: usize,
        deadline: impl Into<Option<Instant>>,
    ) -> Result<()> {
        let (body, image) = self.spec(name, replicas, policy, version);
        let key = format!("key-{name}");
        let question = Question {
            method: "POST",
            path: "/service",
            key: &key,
            body: &body,
        };
        let (status, _) = self.ask(&question, deadline.into()).await?;
        if status >= 300 {
            bail!("POST of {name} was answered {status}");
        }
        let wish = Wish {
            replicas,
            image,
            policy,
        };
        self.wishes().insert(name.to_owned(), wish);
        Ok(())
    }

    async fn remove(&self, name: &str, deadline: impl Into<Option<Instant>>) -> Result<()> {
        let path = format!("/v1/services/{name}");
        let question = Question {
            method: "DELETE",
            path: &path,
            key: "",
            body: &Value::Null,
        };
        let (status, repeated) = self.ask(&question, deadline.into()).await?;
        self.wishes().remove(name);
        match status {
            200..300 => Ok(()),
            404 if repeated => Ok(()),
            _ => bail!("I1: DELETE of the accepted service {name} was answered {status}"),
        }
    }

    async fn change(&self, name: &str, mut wish: Wish, question: &Question<'_>) -> Result<()> {
        let (status, _) = self.ask(question, None).await?;
        if status >= 300 {
            bail!(
                "I1: {} of the accepted service {name} was answered {status}",
                question.method
            );
        }
        if let Some(replicas) = question.body["replicas"].as_u64() {
            wish.replicas = replicas;
        }
        if let Some(image) = question.body["image"].as_str() {
            image.clone_into(&mut wish.image);
        }
        self.wishes().insert(name.to_owned(), wish);
        Ok(())
    }
}

/// The life of a client.
async fn live(shared: Arc<Shared>, number: u64, mut dice: Dice) {
    let mut go = shared.go.subscribe();
    let mut made = 0;
    let prefix = format!("s{number}-");
    loop {
        if go.wait_for(|go| *go).await.is_err() {
            return;
        }
        shared.busy.fetch_add(1, Ordering::SeqCst);
        if *go.borrow() {
            let done = act(&shared, &prefix, &mut made, &mut dice).await;
            if let Err(error) = done {
                let mut broken = shared.broken.lock().unwrap_or_else(PoisonError::into_inner);
                broken.push(format!("{error:#}"));
            }
        }
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        tokio::time::sleep(dice.millis(200, 700)).await;
    }
}

/// One change of one service.
async fn act(shared: &Shared, prefix: &str, made: &mut u64, dice: &mut Dice) -> Result<()> {
    let mine: Vec<(String, Wish)> = shared
        .wishes()
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, wish)| (name.clone(), wish.clone()))
        .collect();
    let replicas = 1 + dice.below(REPLICAS_MAX) as u64;
    let version = dice.below(IMAGES);
    if mine.is_empty() || (mine.len() < SERVICES_MAX && dice.percent(40)) {
        *made += 1;
        let policy = match shared.policies.as_slice() {
            [] => "",
            policies => dice.one(policies),
        };
        let name = format!("{prefix}{made}");
        return shared.make(&name, replicas, policy, version, None).await;
    }
    let (name, wish) = mine[dice.below(mine.len())].clone();
    let path = format!("/v1/services/{name}");
    match dice.below(10) {
        0..4 => {
            let path = format!("{path}/scale");
            let body = json!({"replicas": replicas});
            let question = Question {
                method: "POST",
                path: &path,
                key: "",
                body: &body,
            };
            shared.change(&name, wish, &question).await
        }
        4..7 => {
            let (body, _) = shared.spec(&name, replicas, wish.policy, version);
            let question = Question {
                method: "PUT",
                path: &path,
                key: "",
                body: &body,
            };
            shared.change(&name, wish, &question).await
        }
        _ => shared.remove(&name, None).await,
    }
}
