//! How engines are broken on demand, each way until its time is over.

use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A way in which an engine breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Half of all calls about containers are answered 500, without effect.
    Error500,
    /// Calls hang until the fault is over, and are carried out then.
    Timeout,
    /// Creations hang until the fault is over, and are carried out then.
    CreateHang,
    /// Creations are answered that the name is taken, which it is not.
    Conflict409,
    /// Containers are created, and the answer is an error.
    CreatedButError,
    /// Containers are started, and the answer is an error.
    StartedButError,
    /// Containers are stopped or removed, and the answer is an error.
    StoppedButError,
    /// Lists fail.
    ListError,
    /// The engine is away; containers run on.
    Restart,
    /// The engine is away; containers end with it.
    RestartLost,
    /// Pulls are told that there is no such image.
    #[serde(rename = "pull_404")]
    Pull404,
    /// Pulls are told that there were too many.
    #[serde(rename = "pull_429")]
    Pull429,
    /// Pulls say nothing until the fault is over, and then break off.
    PullHang,
    /// A container that runs ends by itself, now.
    Exit,
    /// Each call takes so much longer.
    Slow,
}

/// What is broken at present.
#[derive(Default)]
pub(super) struct Faults(Vec<Active>);

struct Active {
    kind: Kind,
    until: Instant,
    ms: u64,
}

impl Faults {
    /// Breaks something for a time; `ms` is how slow it is.
    pub(super) fn begin(&mut self, kind: Kind, time: Duration, ms: u64) {
        let now = Instant::now();
        self.0.retain(|active| active.until > now);
        self.0.push(Active {
            kind,
            until: now + time,
            ms,
        });
    }

    /// Mends everything.
    pub(super) fn heal(&mut self) {
        self.0.clear();
    }

    /// Whether it is broken in this way just now.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.until(kind).is_some()
    }

    /// Until when it is broken in this way.
    pub(super) fn until(&self, kind: Kind) -> Option<Instant> {
        let now = Instant::now();
        let active = self.0.iter().filter(|active| active.kind == kind);
        active
            .map(|active| active.until)
            .filter(|until| *until > now)
            .max()
    }

    /// How much longer each call takes.
    pub(super) fn slow(&self) -> Duration {
        let now = Instant::now();
        let active = self.0.iter().filter(|active| active.kind == Kind::Slow);
        let ms = active
            .filter(|active| active.until > now)
            .map(|active| active.ms)
            .max();
        Duration::from_millis(ms.unwrap_or(0))
    }

    /// Whether this call is to fail.
    pub(super) fn fails(&self) -> bool {
        self.has(Kind::Error500) && rand::rng().random_bool(0.5)
    }
}
