//! Random calls of the real functions and of the reference that the proof walks through: each must answer
//! the same and leave the same behind, so that what is proved of one holds for the other.
//!
//! `MIRROR_SEED=<number>` makes the calls of that seed alone; a failing run prints its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kubeleet::model::PodId;
use kubeleet::model::service::OnNodeLoss;

use crate::cluster::Cluster;
use crate::mirror_look::look;
use crate::reference::{Call, PodKey, Reply, Store, Taken};
use crate::support::dice::Dice;

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];
const STEPS: u8 = 250;
pub(crate) const NODES: u8 = 3;
pub(crate) const SERVICES: u8 = 3;
pub(crate) const CAPACITY: u8 = 4;
/// What a lost node means for the pods of each service.
pub(crate) const LOSSES: [OnNodeLoss; 3] = [
    OnNodeLoss::Replace,
    OnNodeLoss::StopThenReplace,
    OnNodeLoss::Hold,
];
/// Longer than a test takes.
pub(crate) const CONTROL: Duration = Duration::from_secs(1000);

/// What must have been answered at least once, or the calls compare nothing.
const ANSWERS: [&str; 46] = [
    "ClaimExpire expired",
    "InboxPop none",
    "InboxPop some",
    "NodeCompare none",
    "NodeCompare some",
    "NodeHeartbeat beat",
    "NodeHeartbeat returned",
    "NodeHeartbeat superseded",
    "NodeHeartbeat unknown",
    "NodeRegister some",
    "NodeSweep none",
    "NodeSweep some",
    "PodAssign lapsed",
    "PodAssign none",
    "PodAssign some",
    "PodClaim none",
    "PodClaim some",
    "PodReport gone",
    "PodReport late",
    "PodReport ok",
    "PodReport stale",
    "PodReport superseded",
    "PodReport unknown",
    "PodTake ended",
    "PodTake run",
    "PodTake stale",
    "PodTake stop",
    "PodTake superseded",
    "PodTake unknown",
    "PodTake unwanted",
    "ServiceClaim none",
    "ServiceClaim some",
    "ServiceCompare none",
    "ServiceCompare some",
    "ServiceDelete absent",
    "ServiceDelete deleting",
    "ServiceScale absent",
    "ServiceScale deleting",
    "ServiceScale scaled",
    "ServiceStep absent",
    "ServiceStep moved",
    "ServiceStep stepped",
    "ServiceSubmit conflict",
    "ServiceSubmit created",
    "ServiceSubmit deleting",
    "ServiceSubmit exists",
];

/// Says how to make the same calls again, should they fail.
struct Named(u64);

impl Drop for Named {
    #[expect(clippy::print_stderr, reason = "the seed of a failed run must be seen")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("make the calls again with MIRROR_SEED={}", self.0);
        }
    }
}

/// The real functions, the reference, and who is who in both.
pub(crate) struct Mirror {
    pub(crate) cluster: Cluster,
    pub(crate) store: Store,
    pub(crate) dice: Dice,
    /// Number of the call, for all that must be new.
    pub(crate) step: u8,
    pub(crate) ids: BTreeMap<PodKey, PodId>,
    pub(crate) batches: BTreeMap<u8, String>,
    /// What controllers hold: number and service of a claim, its end, and the turn viewed.
    pub(crate) held: Vec<(u8, u8, String)>,
    /// Which call was answered with which word.
    answers: BTreeSet<String>,
}

pub(crate) fn name(node: u8) -> String {
    format!("node{node}")
}

pub(crate) fn key_of(number: u8) -> String {
    format!("default/s{number}")
}

#[expect(clippy::disallowed_methods, reason = "a seed is no setting")]
fn seeds() -> Vec<u64> {
    match std::env::var("MIRROR_SEED") {
        Ok(seed) => vec![seed.parse().expect("MIRROR_SEED is a number")],
        Err(_) => SEEDS.to_vec(),
    }
}

#[tokio::test]
async fn the_functions_do_as_the_reference_that_is_proved() {
    let mut answers = BTreeSet::new();
    let seeds = seeds();
    for &seed in &seeds {
        let _named = Named(seed);
        let mut mirror = Mirror {
            cluster: Cluster::new().await,
            store: Store::new(usize::from(NODES), usize::from(SERVICES)),
            dice: Dice(seed),
            step: 0,
            ids: BTreeMap::new(),
            batches: BTreeMap::new(),
            held: Vec::new(),
            answers: std::mem::take(&mut answers),
        };
        mirror.cluster.end_grace().await;
        for node in 0..NODES {
            mirror.register(node).await;
        }
        for step in 1..=STEPS {
            mirror.step = step;
            let what = mirror.go().await;
            look(&mut mirror, &format!("{what} in step {step}")).await;
        }
        answers = mirror.answers;
    }
    let mut never = ANSWERS.to_vec();
    never.retain(|answer| !answers.contains(*answer));
    assert!(
        seeds.len() == 1 || never.is_empty(),
        "never answered: {never:?}"
    );
}

impl Mirror {
    pub(crate) fn few(&mut self, sides: u8) -> u8 {
        u8::try_from(self.dice.roll(u64::from(sides))).expect("few")
    }

    /// Makes one call of each, and compares what they answer.
    async fn go(&mut self) -> String {
        let node = self.few(NODES);
        let service = self.few(SERVICES);
        match self.few(100) {
            0..10 => self.submit(service).await,
            10..14 => self.scale(service).await,
            14..18 => self.delete(service).await,
            18..28 => self.control(service).await,
            28..31 => self.compare().await,
            31..46 => self.place().await,
            46..48 => self.expire().await,
            48 => self.lose().await,
            49..57 => self.pop(node).await,
            57..67 => self.take(node).await,
            67..84 => self.report(node).await,
            84..86 => self.compare_node(node).await,
            86..88 => self.register(node).await,
            88..92 => self.beat(node).await,
            92..95 => self.age(node).await,
            _ => self.sweep().await,
        }
    }

    /// Applies a call to the reference.
    pub(crate) fn apply(&mut self, call: &Call) -> Reply {
        let reply = self.store.apply(call);
        let call = format!("{call:?}");
        let name = call.split(' ').next().unwrap_or_default();
        let word = match &reply {
            Reply::Word(word) => *word,
            Reply::Pods(pods) if pods.is_empty() => "none",
            Reply::Services(services) if services.is_empty() => "none",
            Reply::Assigned(0, _) | Reply::PutBack(0) | Reply::Swept(0) => "none",
            Reply::Taken(Taken::Absent) => "absent",
            Reply::Taken(Taken::Stale) => "stale",
            Reply::Taken(Taken::Unwanted) => "unwanted",
            Reply::Taken(Taken::Stop(_)) => "stop",
            Reply::Taken(Taken::Ended(..)) => "ended",
            Reply::Taken(Taken::Run(..)) => "run",
            _ => "some",
        };
        self.answers.insert(format!("{name} {word}"));
        reply
    }

    pub(crate) fn id(&self, key: PodKey) -> PodId {
        let unknown = || PodId::parse("nobody").expect("the id of a pod");
        self.ids.get(&key).cloned().unwrap_or_else(unknown)
    }

    pub(crate) fn key(&self, id: &PodId) -> PodKey {
        let found = self.ids.iter().find(|(_, known)| *known == id);
        *found.unwrap_or_else(|| panic!("{id} is known")).0
    }

    /// Notes the ids of pods that a call may have made.
    pub(crate) fn name_pods(&mut self, submission: u8, replicas: u8) {
        for replica in 0..replicas {
            let key = PodKey {
                submission,
                replica,
            };
            let id = PodId::of_submission(&format!("w{submission}"), replica.into());
            if self.store.pod(key).is_some() {
                self.ids.insert(key, id);
            }
        }
    }
}
