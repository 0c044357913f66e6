//! The engine of one node: its containers, its images, its events and what is broken about it.
//!
//! Every change goes through [`Machine::change`]: journal, truth log, event, then the answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::{mpsc, watch};

use super::clock::wall_ns;
use super::events::Event;
use super::faults::Faults;
use super::journal::{self, Entry, Made, State};
use super::{Options, images};
use crate::logs::{Deed, Did, now_ns, write_line};

/// Events that are told again to who subscribes late.
const EVENTS_KEPT: usize = 256;

/// The engine of one node.
pub(super) struct Machine {
    pub(super) node: String,
    /// Stable for ever, as Docker's is.
    pub(super) id: String,
    pub(super) options: Options,
    /// Told when the engine goes away and comes back: true while it is away.
    pub(super) away: watch::Sender<bool>,
    inner: Mutex<Inner>,
}

/// What changes.
pub(super) struct Inner {
    journal: PathBuf,
    truth: PathBuf,
    node: String,
    pub(super) containers: BTreeMap<String, Made>,
    pub(super) images: BTreeSet<String>,
    pub(super) faults: Faults,
    pub(super) events: VecDeque<Arc<Event>>,
    pub(super) listeners: Vec<mpsc::UnboundedSender<Arc<Event>>>,
    next_number: u16,
}

impl Machine {
    /// Opens the engine of a node, with what its journal says.
    pub(super) fn open(node: &str, options: &Options) -> anyhow::Result<Arc<Machine>> {
        let place = |name: String| options.dir.join(name);
        let journal = place(format!("{node}.journal"));
        let truth = place(format!("engine-{node}.jsonl"));
        let kept = journal::open(&journal)?;
        for deed in journal::lagging(&truth, &kept, node, now_ns()) {
            write_line(&truth, &deed)?;
        }
        let numbers = kept.containers.values().map(|made| made.number);
        let mut inner = Inner {
            next_number: numbers.max().unwrap_or(1),
            journal,
            truth,
            node: node.to_owned(),
            containers: kept.containers,
            images: kept.images.into_iter().collect(),
            faults: Faults::default(),
            events: VecDeque::new(),
            listeners: Vec::new(),
        };
        if kept.is_new {
            for image in &options.images {
                inner.add_image(&images::full_name(image))?;
            }
            for _ in 0..options.foreign {
                inner.add_foreign()?;
            }
        }
        if options.lost {
            inner.end_all(137)?;
        }
        Ok(Arc::new(Machine {
            node: node.to_owned(),
            id: engine_id(&place(format!("{node}.id")))?,
            options: options.clone(),
            away: watch::Sender::new(false),
            inner: Mutex::new(inner),
        }))
    }

    /// What changes; never hold it across an await.
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is one assignment of a whole record, so a panic elsewhere leaves it sound.
        let inner = self.inner.lock();
        inner.unwrap_or_else(PoisonError::into_inner)
    }

    /// A random pause of up to `most_ms`: without it races would always go the same way.
    pub(super) async fn dawdle(&self, most_ms: u64) {
        let ms = rand::rng().random_range(0..=most_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl Inner {
    /// A container by its id, the beginning of it, or its name.
    pub(super) fn find(&self, wanted: &str) -> Option<&Made> {
        let wanted = wanted.trim_start_matches('/');
        let by_id = self.containers.get(wanted);
        let named = || self.containers.values().find(|made| made.name == wanted);
        let short = || {
            let mut alike = self
                .containers
                .values()
                .filter(|made| made.id.starts_with(wanted));
            alike.next().filter(|_| wanted.len() >= 12)
        };
        by_id.or_else(named).or_else(short)
    }

    /// A number that no container has had since the start.
    pub(super) fn number(&mut self) -> u16 {
        self.next_number = self.next_number.wrapping_add(1).max(2);
        self.next_number
    }

    /// Makes a container what `made` says it is by now.
    pub(super) fn change(&mut self, made: Made, did: Did) -> anyhow::Result<()> {
        let deed = Deed {
            at_ns: now_ns(),
            node: self.node.clone(),
            did,
            container: made.id.clone(),
            labels: made.labels(),
            env: made.env(),
        };
        self.keep(made)?;
        write_line(&self.truth, &deed)?;
        Ok(())
    }

    /// The same where the truth log has no word for it.
    pub(super) fn keep(&mut self, made: Made) -> anyhow::Result<()> {
        write_line(&self.journal, &Entry::Container(Box::new(made.clone())))?;
        if made.removed {
            self.containers.remove(&made.id);
        } else {
            self.containers.insert(made.id.clone(), made);
        }
        Ok(())
    }

    /// Ends a container that lives.
    pub(super) fn end(&mut self, mut made: Made, exit_code: i64) -> anyhow::Result<()> {
        made.state = State::Exited;
        made.exit_code = exit_code;
        made.ended_ns = wall_ns();
        let attributes = [("exitCode".to_owned(), exit_code.to_string())];
        let event = Event::of(&made, "die", attributes);
        self.change(made, Did::Ended)?;
        self.tell(event);
        Ok(())
    }

    /// A container of somebody else, which nothing of kubeleet's may touch.
    fn add_foreign(&mut self) -> anyhow::Result<()> {
        let number = self.number();
        let made = Made {
            id: random_hex(32),
            name: format!("foreign-{number}"),
            body: serde_json::json!({"Image": "somebody/else", "Labels": {"owner": "somebody"}}),
            state: State::Running,
            exit_code: 0,
            number,
            created_ns: wall_ns(),
            started_ns: wall_ns(),
            ended_ns: 0,
            starts: 1,
            removed: false,
        };
        self.change(made, Did::Started)
    }

    /// Ends all that lives and is kubeleet's, as when a machine loses power: others come back by themselves.
    pub(super) fn end_all(&mut self, exit_code: i64) -> anyhow::Result<()> {
        let ours = |made: &&Made| made.lives() && made.is_ours();
        let lives = self.containers.values().filter(ours);
        let lives: Vec<Made> = lives.cloned().collect();
        for made in lives {
            self.end(made, exit_code)?;
        }
        Ok(())
    }

    /// An image is there from now on.
    pub(super) fn add_image(&mut self, image: &str) -> anyhow::Result<()> {
        if self.images.insert(image.to_owned()) {
            write_line(&self.journal, &Entry::Image(image.to_owned()))?;
        }
        Ok(())
    }

    /// An image is gone from now on.
    pub(super) fn drop_image(&mut self, image: &str) -> anyhow::Result<()> {
        if self.images.remove(image) {
            write_line(&self.journal, &Entry::NoImage(image.to_owned()))?;
        }
        Ok(())
    }

    /// Tells an event to all who listen, and keeps it for those who come late.
    pub(super) fn tell(&mut self, event: Event) {
        let event = Arc::new(event);
        self.listeners
            .retain(|listener| listener.send(event.clone()).is_ok());
        self.events.push_back(event);
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
    }
}

fn engine_id(path: &std::path::Path) -> anyhow::Result<String> {
    if let Ok(id) = std::fs::read_to_string(path) {
        return Ok(id);
    }
    let id = random_hex(16);
    std::fs::write(path, &id)?;
    Ok(id)
}

/// Random hexadecimal digits, two for each of so many bytes.
pub(super) fn random_hex(bytes: usize) -> String {
    let mut rng = rand::rng();
    let digits = (0..bytes).map(|_| format!("{:02x}", rng.random::<u8>()));
    digits.collect()
}
