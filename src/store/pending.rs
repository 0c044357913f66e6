//! Pending lists in Redis: what agents pop, take in hand and report.

use std::time::Duration;

use super::call::command;
use super::connection::{Connection, is_full};
use super::{Store, StoreError};
use crate::model::amounts::device_names;
use crate::model::service::RegistryLogin;
use crate::model::{Phase, PodId, RawPod, ServiceKey, Token};
use crate::telemetry::chain;

/// Most pods in one take or report: keeps one call in the low milliseconds.
pub const PODS_PER_CALL: usize = 100;

/// Time between two looks at the inbox in a full Redis.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// The port of pending lists.
pub struct Pending<'a>(pub(super) &'a Store);

/// What is wanted of a pod that an agent takes in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Redis knows nothing of it. Never an order to stop anything.
    Absent,
    /// Redis lost writes, and what it says of the pod may be old: ask again later.
    Hold,
    /// It is another node's: a container of it is a double, and must go.
    Stale,
    /// It was stopped: a container of it must go.
    Unwanted,
    /// Its container must go, and that is to be reported.
    Stop(Token),
    /// Likewise, but only here: it leaves this node, which drains, and runs elsewhere after that.
    Move(Token),
    /// It has ended in this attempt.
    Ended(Token, Phase),
    /// Its container must run.
    Run(Box<ToRun>),
}

/// A pod whose container must run.
#[derive(Clone, PartialEq, Eq)]
pub struct ToRun {
    /// The placement's fence.
    pub token: Token,
    /// Where it stands in Redis now.
    pub phase: Phase,
    /// Its index among its siblings.
    pub replica: u32,
    /// Its owner's stored word.
    pub owner: String,
    /// Revision of its service; 0 without one.
    pub revision: u64,
    /// Its stored spec.
    pub spec: String,
    /// The engine's id of its container, as it was reported last; empty if none was.
    pub container: String,
    /// How often its container was started again, as it was reported last.
    pub restarts: u32,
    /// Login of its image's registry, if its service brought one.
    pub registry: Option<RegistryLogin>,
    /// Devices of the node that it was given, such as `gpu/0`.
    pub devices: Vec<String>,
    /// Grows from placement to placement, over all pods; empty if Redis knew none.
    pub fence: String,
}

impl std::fmt::Debug for ToRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The spec may hold secrets.
        f.debug_struct("ToRun")
            .field("token", &self.token)
            .field("phase", &self.phase)
            .field("replica", &self.replica)
            .field("owner", &self.owner)
            .field("revision", &self.revision)
            .field("container", &self.container)
            .field("registry", &self.registry)
            .field("devices", &self.devices)
            .finish_non_exhaustive()
    }
}

/// The wish behind a pod: what a node must know of its service should the store be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The service.
    pub service: ServiceKey,
    /// Name of the submission that made it.
    pub uid: String,
    /// Grows with each change of what is wanted.
    pub number: u64,
    /// How many pods are wanted.
    pub replicas: u32,
    /// The current revision.
    pub revision: u64,
    /// The service is being deleted.
    pub deleting: bool,
}

/// What became of taking pods in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeOutcome {
    /// What is wanted of each, in the order asked, and the wishes behind them.
    Taken(Vec<Taken>, Vec<Wish>),
    /// Another agent registered for this node.
    Superseded,
    /// Redis does not know this node: it lost what it held.
    Unknown,
}

/// What became of giving pods back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnOutcome {
    /// Whether each waits again, in the order given; the others stay on the node.
    Returned(Vec<bool>),
    /// Another agent registered for this node.
    Superseded,
    /// Redis does not know this node: it lost what it held.
    Unknown,
}

/// What an agent says of one pod, and the inbox entry that is dropped with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The pod.
    pub pod: PodId,
    /// The placement it speaks of.
    pub token: Token,
    /// Where the pod is now; `None` leaves the phase as it is.
    pub phase: Option<Phase>,
    /// Why; empty if that needs no saying.
    pub reason: String,
    /// Exit code of an ended container.
    pub exit_code: Option<i64>,
    /// The engine's id of the container.
    pub container: String,
    /// Inbox entry to drop.
    pub entry: Option<Vec<u8>>,
    /// Whether it is ready for work; `None` leaves that as it is.
    pub ready: Option<bool>,
    /// How often its container was started again; `None` leaves that as it is.
    pub restarts: Option<u32>,
    /// The node's ports it was given, such as `32768:80/tcp`, with commas; empty leaves them.
    pub ports: String,
    /// Digest of its image; empty leaves it.
    pub digest: String,
}

impl Report {
    /// A report that says nothing yet.
    pub fn new(pod: PodId, token: Token) -> Report {
        Report {
            pod,
            token,
            phase: None,
            reason: String::new(),
            exit_code: None,
            container: String::new(),
            entry: None,
            ready: None,
            restarts: None,
            ports: String::new(),
            digest: String::new(),
        }
    }
}

/// What became of one report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportOutcome {
    /// It stands in Redis.
    Ok,
    /// Another placement holds: the container must go.
    Stale,
    /// There is no such pod.
    Gone,
    /// The pod is already there or further.
    Late,
    /// Another agent registered for this node.
    Superseded,
    /// Redis does not know this node: it lost what it held.
    Unknown,
}

/// A raw description to turn into a pod.
#[derive(Debug, Clone, Copy)]
pub struct Adopt<'a> {
    /// Where the entry lies.
    pub from: super::From<'a>,
    /// The entry itself.
    pub entry: &'a [u8],
    /// What it says.
    pub raw: &'a RawPod,
    /// Random word of the placement, for one pushed on a node's inbox.
    pub nonce: &'a str,
}

/// What became of a raw description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptOutcome {
    /// It is a pod now.
    Adopted,
    /// A pod of that id is there already; nothing new was made.
    Known,
    /// A pod of that id was stopped lately.
    Stopped,
    /// The node it was pushed to lacks this.
    Full(String),
}

impl Pending<'_> {
    /// A node's inbox, on a connection of its own.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn inbox(&self, node: &str, longest: Duration) -> Result<Inbox, StoreError> {
        let dedicated = self.0.redis.dedicated(longest).await;
        let connection = dedicated.map_err(StoreError::Unreachable)?;
        Ok(Inbox {
            store: self.0.clone(),
            connection,
            node: node.to_owned(),
            from: self.0.keys.inbox(node),
            to: self.0.keys.handling(node),
            longest,
        })
    }

    /// Clears the node's lists of what is no list.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn mend(&self, node: &str) -> Result<(), StoreError> {
        let call = self.0.function("kl_inbox_mend").arg(node);
        self.0.call(call).await?.expect_word("mended")
    }

    /// Entries the node's agent has popped and not dropped yet, oldest first.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn handling(&self, node: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut range = command("LRANGE");
        range.arg(self.0.keys.handling(node)).arg(0).arg(-1);
        let mut pipeline = redis::pipe();
        pipeline.add_command(range);
        let (mut entries,): (Vec<Vec<u8>>,) = self.0.read("LRANGE", &pipeline).await?;
        entries.reverse();
        Ok(entries)
    }

    /// Ids of all pods assigned to the node.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn assigned(&self, node: &str) -> Result<Vec<PodId>, StoreError> {
        let mut members = command("SMEMBERS");
        members.arg(self.0.keys.assigned(node));
        let mut pipeline = redis::pipe();
        pipeline.add_command(members);
        let (ids,): (Vec<String>,) = self.0.read("SMEMBERS", &pipeline).await?;
        Ok(ids.iter().filter_map(|id| PodId::parse(id)).collect())
    }

    /// The same for the node's agent, after the node's set and sums were set right where somebody
    /// changed them.
    ///
    /// # Errors
    /// Redis cannot be reached.
    pub async fn compare(&self, node: &str) -> Result<Vec<PodId>, StoreError> {
        let call = self.0.function("kl_node_compare").arg(node);
        let mut reply = self.0.call(call).await?;
        reply.expect_word("compared")?;
        let mut ids = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            ids.extend(PodId::parse(&reply.text_by_hand()?));
        }
        Ok(ids)
    }

    /// Takes pods in hand, at most [`PODS_PER_CALL`]. The answer is confirmed by replicas as any
    /// commit, so a placement that a fail-over could take back starts nothing.
    ///
    /// # Errors
    /// Nothing may be started on an error.
    pub async fn take(
        &self,
        node: &str,
        epoch: u64,
        pods: &[&PodId],
    ) -> Result<TakeOutcome, StoreError> {
        let mut call = self.0.function("kl_pod_take").arg(node).arg(epoch);
        for pod in pods {
            call.command.arg(pod.as_str());
        }
        let mut reply = self.0.commit(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "superseded" => return Ok(TakeOutcome::Superseded),
            "unknown" => return Ok(TakeOutcome::Unknown),
            "taken" => {}
            _ => return Err(reply.unknown(word)),
        }
        let mut given = reply.list()?;
        let mut wishes = Vec::with_capacity(given.left());
        while !given.is_empty() {
            wishes.extend(read_wish(&mut given.list()?)?);
        }
        let mut taken = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            let answer = read_taken(&mut reply.list()?);
            // One record that a person damaged must not hold up the others.
            taken.push(answer.unwrap_or_else(|error| {
                tracing::error!(
                    node.id = node,
                    error = chain(&error),
                    "a pod's record cannot be read"
                );
                Taken::Absent
            }));
        }
        Ok(TakeOutcome::Taken(taken, wishes))
    }

    /// Gives pods back of which no container was started here, at most [`PODS_PER_CALL`]: they wait for another
    /// node, unless they ran already or are wanted on this very one.
    ///
    /// # Errors
    /// Who was given back is not known; may be tried again.
    pub async fn give_back(
        &self,
        node: &str,
        epoch: u64,
        why: &str,
        pods: &[&PodId],
    ) -> Result<ReturnOutcome, StoreError> {
        let call = self.0.function("kl_pod_return");
        let mut call = call.arg(node).arg(epoch).arg(why);
        for pod in pods {
            call.command.arg(pod.as_str());
        }
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "superseded" => return Ok(ReturnOutcome::Superseded),
            "unknown" => return Ok(ReturnOutcome::Unknown),
            "returned" => {}
            _ => return Err(reply.unknown(word)),
        }
        let mut back = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            let word = reply.text()?;
            back.push(match word.as_str() {
                "back" => true,
                "kept" => false,
                _ => return Err(reply.unknown(word)),
            });
        }
        Ok(ReturnOutcome::Returned(back))
    }

    /// Reports what became of pods, at most [`PODS_PER_CALL`]; one outcome for each.
    ///
    /// # Errors
    /// The same reports may be made again.
    pub async fn report(
        &self,
        node: &str,
        epoch: u64,
        reports: &[Report],
    ) -> Result<Vec<ReportOutcome>, StoreError> {
        let mut call = self.0.function("kl_pod_report").arg(node).arg(epoch);
        for report in reports {
            call.command
                .arg(report.pod.as_str())
                .arg(report.token.attempt)
                .arg(&report.token.nonce)
                .arg(report.phase.map_or("", Phase::as_str))
                .arg(&report.reason)
                .arg(
                    report
                        .exit_code
                        .map_or_else(String::new, |code| code.to_string()),
                )
                .arg(&report.container)
                .arg(report.entry.as_deref().unwrap_or_default())
                .arg(
                    report
                        .ready
                        .map_or("", |ready| if ready { "1" } else { "0" }),
                )
                .arg(
                    report
                        .restarts
                        .map_or_else(String::new, |count| count.to_string()),
                )
                .arg(&report.ports)
                .arg(&report.digest);
        }
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "superseded" => return Ok(vec![ReportOutcome::Superseded; reports.len()]),
            "unknown" => return Ok(vec![ReportOutcome::Unknown; reports.len()]),
            "reported" => {}
            _ => return Err(reply.unknown(word)),
        }
        let mut outcomes = Vec::with_capacity(reports.len());
        while !reply.is_empty() {
            let word = reply.text()?;
            outcomes.push(match word.as_str() {
                "ok" => ReportOutcome::Ok,
                "stale" => ReportOutcome::Stale,
                "gone" => ReportOutcome::Gone,
                "late" => ReportOutcome::Late,
                _ => return Err(reply.unknown(word)),
            });
        }
        Ok(outcomes)
    }

    /// Turns a raw description into a pod, wherever it was pushed.
    ///
    /// # Errors
    /// The entry stays where it is.
    pub async fn adopt(&self, adopt: Adopt<'_>) -> Result<AdoptOutcome, StoreError> {
        let (kind, place) = adopt.from.words();
        let raw = adopt.raw;
        let call = self.0.function("kl_pod_adopt");
        let call = call
            .arg(kind)
            .arg(place)
            .arg(adopt.entry)
            .arg(raw.id.as_str())
            .arg(raw.replica)
            .arg(raw.spec.to_stored())
            .arg(raw.spec.resources.cpu_asked())
            .arg(raw.spec.resources.memory_asked())
            .arg(raw.spec.priority.as_str())
            .arg(adopt.nonce)
            .arg(stored_login(raw.spec.registry.as_ref()))
            .arg(raw.spec.host_ports().join(","))
            .arg(raw.spec.wishes())
            .arg(raw.spec.resources.asks().to_string())
            .arg(raw.spec.on_node_loss.held());
        let mut reply = self.0.call(call).await?;
        let word = reply.text()?;
        match word.as_str() {
            "adopted" => Ok(AdoptOutcome::Adopted),
            "known" => Ok(AdoptOutcome::Known),
            "stopped" => Ok(AdoptOutcome::Stopped),
            "full" => Ok(AdoptOutcome::Full(reply.text()?)),
            _ => Err(reply.unknown(word)),
        }
    }
}

/// A login as it is stored; empty for none.
fn stored_login(login: Option<&RegistryLogin>) -> String {
    let json = login.map(serde_json::to_string);
    json.and_then(Result::ok).unwrap_or_default()
}

pub(super) fn read_taken(answer: &mut super::call::Reply) -> Result<Taken, StoreError> {
    let word = answer.text()?;
    Ok(match word.as_str() {
        "absent" => Taken::Absent,
        "stale" => Taken::Stale,
        "unwanted" => Taken::Unwanted,
        "hold" => Taken::Hold,
        "stop" => {
            let token = read_token(answer)?;
            if answer.is_empty() {
                Taken::Stop(token)
            } else {
                Taken::Move(token)
            }
        }
        "ended" => Taken::Ended(read_token(answer)?, read_phase(answer)?),
        "run" => Taken::Run(Box::new(ToRun {
            token: read_token(answer)?,
            phase: read_phase(answer)?,
            replica: answer.number()?,
            owner: answer.text_by_hand()?,
            revision: answer.number()?,
            spec: answer.text_by_hand()?,
            container: answer.text_by_hand()?,
            restarts: u32::try_from(answer.number::<u64>()?).unwrap_or(u32::MAX),
            // One that cannot be read is none: the registry will say what is missing.
            registry: serde_json::from_str(&answer.text_by_hand()?).ok(),
            devices: if answer.is_empty() {
                Vec::new()
            } else {
                device_names(&answer.text_by_hand()?)
            },
            fence: if answer.is_empty() {
                String::new()
            } else {
                answer.text_by_hand()?
            },
        })),
        _ => return Err(answer.unknown(word)),
    })
}

fn read_token(answer: &mut super::call::Reply) -> Result<Token, StoreError> {
    Ok(Token {
        attempt: answer.number()?,
        nonce: answer.text_by_hand()?,
    })
}

/// A wish; `None` if a person damaged its record.
pub(super) fn read_wish(answer: &mut super::call::Reply) -> Result<Option<Wish>, StoreError> {
    let service = answer.text_by_hand()?;
    let uid = answer.text_by_hand()?;
    let mut number = || answer.text_by_hand().map(|text| text.parse::<u64>().ok());
    let (wish, replicas, revision) = (number()?, number()?, number()?);
    let deleting = !answer.text_by_hand()?.is_empty();
    let read = || {
        Some(Wish {
            service: ServiceKey::parse(&service)?,
            uid,
            number: wish?,
            replicas: u32::try_from(replicas?).ok()?,
            revision: revision?,
            deleting,
        })
    };
    Ok(read())
}

fn read_phase(answer: &mut super::call::Reply) -> Result<Phase, StoreError> {
    let word = answer.text()?;
    Phase::parse(&word).ok_or_else(|| answer.unknown(word))
}

/// A node's inbox: the reliable queue from `pq:<node>` to `rq:<node>`.
pub struct Inbox {
    store: Store,
    connection: Connection,
    node: String,
    from: String,
    to: String,
    longest: Duration,
}

impl Inbox {
    /// The same from a full Redis, where nothing blocks: it is asked again after a pause.
    async fn pop_from_full(&self, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let call = self.store.function("kl_inbox_pop");
        let mut reply = self.store.call(call.arg(&self.node).arg(max)).await?;
        reply.expect_word("popped")?;
        let mut entries = Vec::with_capacity(reply.left());
        while !reply.is_empty() {
            entries.push(reply.bytes()?);
        }
        if entries.is_empty() {
            tokio::time::sleep(FULL_PAUSE).await;
        }
        Ok(entries)
    }

    async fn failed(&self, name: &'static str, source: redis::RedisError) -> StoreError {
        let keys = [self.from.as_str(), self.to.as_str()];
        let generation = self.connection.generation();
        self.store.failed_at(&keys, generation, name, source).await
    }

    /// Pops the next entry, waiting at most the time given at the start; then up to `more` that
    /// lie there already. What was popped stays in `rq:<node>` until it is dropped by a report.
    ///
    /// # Errors
    /// The connection is of no use any more: make another inbox, and look at
    /// [`Pending::handling`], for an entry may have been moved although its answer was lost.
    /// Not cancel-safe, for the same reason.
    pub async fn pop(&mut self, more: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut first = command("BLMOVE");
        first
            .arg(&self.from)
            .arg(&self.to)
            .arg("RIGHT")
            .arg("LEFT")
            .arg(self.longest.as_secs_f64());
        // How many more lie there is asked with it: most often none, and each question costs Redis.
        let mut left = command("LLEN");
        left.arg(&self.from);
        let mut pipeline = redis::pipe();
        pipeline.add_command(first).add_command(left);
        let popped: Result<(Option<Vec<u8>>, usize), _> =
            pipeline.query_async(&mut self.connection).await;
        let (first, left) = match popped {
            Ok(popped) => popped,
            Err(source) if is_full(&source) => return self.pop_from_full(more + 1).await,
            Err(source) => return Err(self.failed("BLMOVE", source).await),
        };
        let Some(first) = first else {
            return Ok(Vec::new());
        };
        let mut entries = vec![first];
        let more = more.min(left);
        if more > 0 {
            let mut pipeline = redis::pipe();
            for _ in 0..more {
                let mut next = command("LMOVE");
                next.arg(&self.from).arg(&self.to).arg("RIGHT").arg("LEFT");
                pipeline.add_command(next);
            }
            let rest: Result<Vec<Option<Vec<u8>>>, _> =
                pipeline.query_async(&mut self.connection).await;
            let rest = match rest {
                Ok(rest) => rest,
                Err(source) => return Err(self.failed("LMOVE", source).await),
            };
            entries.extend(rest.into_iter().flatten());
        }
        Ok(entries)
    }
}
