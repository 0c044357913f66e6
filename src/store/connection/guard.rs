//! Follows the Sentinels: which address is the master's, by the word of their majority.
//!
//! One watcher for each Sentinel asks it over and over, and at once when it announces a switch; the
//! judge alone decides. An old master answers for seconds after it was replaced and its own word is
//! worth nothing, so an address counts only as long as a majority of *all* configured Sentinels
//! names it: whoever is cut off with a minority has no master.
//!
//! Nor does a Sentinel count that sees the master down, and one that is replacing it is a veto: when
//! a partition heals in the middle of a fail-over, the old master is still named by most, and finds
//! a replica that nobody told of the new one yet. What that confirms is lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Pipeline, RedisError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::address::Access;
use crate::telemetry::chain;

/// Time between two questions to a Sentinel; its announcement of a switch is usually faster.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait for a Sentinel's answer or connection: they do next to nothing, and are asked often.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// An answer older than this is none. It bounds how long writes go to a master that is cut off together
/// with this process: four questions in a row without an answer, and still well above a busy moment.
const ANSWER_VALID_FOR: Duration = Duration::from_millis(1250);
/// Room for answers on their way to the judge; a watcher waits when it is full.
const ANSWERS_WAITING: usize = 16;

/// What a Sentinel announces when it begins to replace the master, and when that is done.
const NEWS: [&str; 2] = ["+try-failover", "+switch-master"];

/// What a Sentinel last said of use, or why it said nothing.
type Answer = Result<Said, String>;

/// What a Sentinel says of a master's `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// It is the master.
    Named(String),
    /// It is just being replaced.
    Replaced(String),
}

/// One error for each step of asking a Sentinel.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("connecting")]
    Connect(#[source] RedisError),
    #[error("subscribing to its news")]
    Subscribe(#[source] RedisError),
    #[error("no answer within {ASK_TIMEOUT:?}")]
    TimedOut,
    #[error("asking for the master")]
    Ask(#[source] RedisError),
    #[error("it knows no master {0:?}")]
    Unknown(String),
    #[error("it sees {0} down")]
    Down(String),
}

/// Starts the judge and the watchers; they end with `ends`.
pub(super) fn start(shared: &Arc<Shared>, access: &Access, ends: &CancellationToken) {
    let (answers, answered) = mpsc::channel(ANSWERS_WAITING);
    for (index, sentinel) in access.sentinels.iter().enumerate() {
        let watcher = Watcher {
            index,
            sentinel: sentinel.clone(),
            master_name: access.master_name.clone(),
            ask: shared.ask.subscribe(),
            answers: answers.clone(),
        };
        tokio::spawn(ends.clone().run_until_cancelled_owned(watcher.run()));
    }
    let judge = Judge {
        shared: Arc::downgrade(shared),
        names: access
            .sentinels
            .iter()
            .map(|info| info.addr().to_string())
            .collect(),
        answers: access.sentinels.iter().map(|_| None).collect(),
    };
    tokio::spawn(ends.clone().run_until_cancelled_owned(judge.run(answered)));
}

struct Watcher {
    index: usize,
    sentinel: ConnectionInfo,
    master_name: String,
    /// Changes when the answer is wanted at once.
    ask: watch::Receiver<u64>,
    answers: mpsc::Sender<(usize, Answer)>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let error = match self.connect().await {
                Ok((asked, switches)) => match self.follow(asked, switches).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if self
                .answers
                .send((self.index, Err(chain(&error))))
                .await
                .is_err()
            {
                return;
            }
            sleep(ASK_INTERVAL).await;
        }
    }

    async fn connect(&self) -> Result<(MultiplexedConnection, PubSubStream), AskError> {
        let client = Client::open(self.sentinel.clone()).map_err(AskError::Connect)?;
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ASK_TIMEOUT))
            .set_response_timeout(Some(ASK_TIMEOUT));
        let asked = client.get_multiplexed_async_connection_with_config(&timeouts);
        let asked = asked.await.map_err(AskError::Connect)?;
        let subscribe = async {
            let mut switches = client.get_async_pubsub().await?;
            switches.subscribe(&NEWS).await?;
            Ok(switches.into_on_message())
        };
        let switches = timeout(ASK_TIMEOUT, subscribe).await;
        let switches = switches.map_err(|_| AskError::TimedOut)?;
        Ok((asked, switches.map_err(AskError::Subscribe)?))
    }

    /// Asks until the connection breaks; `Ok` when nobody listens to the answers any more.
    async fn follow(
        &mut self,
        mut asked: MultiplexedConnection,
        mut switches: PubSubStream,
    ) -> Result<(), AskError> {
        loop {
            self.ask.mark_unchanged();
            let answer = self.ask(&mut asked).await?;
            if self.answers.send((self.index, answer)).await.is_err() {
                return Ok(());
            }
            tokio::select! {
                () = sleep(ASK_INTERVAL) => {}
                changed = self.ask.changed() => if changed.is_err() { return Ok(()) },
                switch = switches.next() => if switch.is_none() {
                    let lost = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
                    return Err(AskError::Subscribe(lost.into()));
                },
            }
        }
    }

    async fn ask(&self, asked: &mut MultiplexedConnection) -> Result<Answer, AskError> {
        let mut questions = Pipeline::new();
        for word in ["GET-MASTER-ADDR-BY-NAME", "MASTER"] {
            let mut question = Cmd::new();
            question.arg("SENTINEL").arg(word).arg(&self.master_name);
            questions.add_command(question);
        }
        // An unknown name is nothing to the one and an error to the other: both are looked at apart.
        questions.ignore_errors();
        let answers = questions.query_async(asked).await;
        let (named, state): (Option<(String, u16)>, Result<State, RedisError>) =
            answers.map_err(AskError::Ask)?;
        let Some((host, port)) = named else {
            return Ok(Err(AskError::Unknown(self.master_name.clone()).to_string()));
        };
        let state = state.map_err(AskError::Ask)?;
        Ok(said(format!("{host}:{port}"), &state))
    }
}

/// The fields of `SENTINEL MASTER`.
type State = HashMap<String, String>;

/// What the answers of a Sentinel mean: the address it names, and the state of the one it watches.
fn said(named: String, state: &State) -> Answer {
    let of = |name: &str| state.get(name).map_or("", String::as_str);
    let is = |flag: &str| of("flags").split(',').any(|one| one == flag);
    if named != format!("{}:{}", of("ip"), of("port")) {
        return Ok(Said::Named(named)); // the next one, whose replicas are being told
    }
    if is("failover_in_progress") {
        return Ok(Said::Replaced(named));
    }
    if is("s_down") {
        return Err(AskError::Down(named).to_string());
    }
    Ok(Said::Named(named))
}

struct Judge {
    /// Weak, or the guard would keep itself alive.
    shared: Weak<Shared>,
    names: Vec<String>,
    answers: Vec<Option<(Answer, Instant)>>,
}

impl Judge {
    async fn run(mut self, mut answered: mpsc::Receiver<(usize, Answer)>) {
        let began = Instant::now();
        loop {
            let oldest = self.answers.iter().flatten().map(|(_, at)| *at).min();
            let expires = oldest.unwrap_or_else(Instant::now) + ANSWER_VALID_FOR;
            tokio::select! {
                answer = answered.recv() => match answer {
                    Some((index, answer)) => self.answers[index] = Some((answer, Instant::now())),
                    None => return,
                },
                () = sleep_until(expires) => {}
            }
            let Some(shared) = self.shared.upgrade() else {
                return;
            };
            for answer in &mut self.answers {
                answer.take_if(|(_, at)| at.elapsed() >= ANSWER_VALID_FOR);
            }
            match self.majority() {
                Some(address) => shared.arrive(address),
                // Before all had the time to answer, silence says nothing.
                None if self.could_agree() && began.elapsed() < ANSWER_VALID_FOR => {}
                None => shared.lose(self.said()),
            }
        }
    }

    /// The address that more than half of all Sentinels name, unless one is replacing it.
    fn majority(&self) -> Option<&str> {
        let mut votes: HashMap<&str, usize> = HashMap::new();
        let mut replaced: HashSet<&str> = HashSet::new();
        for (answer, _) in self.answers.iter().flatten() {
            match answer {
                Ok(Said::Named(address)) => *votes.entry(address).or_default() += 1,
                Ok(Said::Replaced(address)) => _ = replaced.insert(address),
                Err(_) => {}
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.filter(|(address, votes)| {
            votes * 2 > self.answers.len() && !replaced.contains(address)
        })
        .map(|(address, _)| address)
    }

    /// False once so many failed that the silent ones can make no majority.
    fn could_agree(&self) -> bool {
        let failed = self
            .answers
            .iter()
            .flatten()
            .filter(|(answer, _)| answer.is_err())
            .count();
        (self.answers.len() - failed) * 2 > self.answers.len()
    }

    /// What each Sentinel said, for the error that `get` answers with.
    fn said(&self) -> String {
        let said = self
            .names
            .iter()
            .zip(&self.answers)
            .map(|(name, answer)| match answer {
                Some((Ok(Said::Named(address)), _)) => format!("{name} says {address}"),
                Some((Ok(Said::Replaced(address)), _)) => format!("{name} replaces {address}"),
                Some((Err(reason), _)) => format!("{name}: {reason}"),
                None => format!("{name} is silent"),
            });
        let said: Vec<_> = said.collect();
        format!("no majority of the Sentinels agrees: {}", said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `-a` is what a Sentinel says that replaces a.
    fn check(answers: &[Option<Result<&str, &str>>], expected: Option<&str>) {
        let one = |address: &str| match address.strip_prefix('-') {
            Some(address) => Said::Replaced(address.to_owned()),
            None => Said::Named(address.to_owned()),
        };
        let judge = Judge {
            shared: Weak::new(),
            names: answers.iter().map(|_| "s".to_owned()).collect(),
            answers: answers
                .iter()
                .map(|answer| {
                    let answer = (*answer)?;
                    Some((answer.map(one).map_err(str::to_owned), Instant::now()))
                })
                .collect(),
        };
        assert_eq!(judge.majority(), expected, "{answers:?}");
    }

    #[test]
    fn only_a_majority_of_all_sentinels_counts() {
        check(&[], None);
        check(&[Some(Ok("a"))], Some("a"));
        check(&[Some(Ok("a")), None, None], None);
        check(&[Some(Ok("a")), Some(Ok("a")), None], Some("a"));
        check(&[Some(Ok("a")), Some(Ok("b")), Some(Err("x"))], None);
        check(&[Some(Ok("a")), Some(Ok("b")), Some(Ok("b"))], Some("b"));
        check(&[Some(Ok("a")), Some(Ok("a")), None, None], None);
    }

    #[test]
    fn one_that_replaces_the_master_is_a_veto() {
        check(&[Some(Ok("a")), Some(Ok("a")), Some(Ok("-a"))], None);
        check(&[Some(Ok("b")), Some(Ok("b")), Some(Ok("-a"))], Some("b"));
        check(&[Some(Ok("-a"))], None);
    }

    #[test]
    fn a_sentinel_that_sees_the_master_down_does_not_count() {
        let state = |flags: &str| {
            let pairs = [("ip", "10.0.0.1"), ("port", "6379"), ("flags", flags)];
            HashMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        let (old, new) = ("10.0.0.1:6379".to_owned(), "10.0.0.2:6379".to_owned());
        let named = |address: &String| Ok(Said::Named(address.clone()));
        assert_eq!(said(old.clone(), &state("master")), named(&old));
        assert!(said(old.clone(), &state("s_down,master,disconnected")).is_err());
        let replaces = "s_down,o_down,master,failover_in_progress";
        assert_eq!(said(old.clone(), &state(replaces)), Ok(Said::Replaced(old)));
        assert_eq!(said(new.clone(), &state(replaces)), named(&new));
    }
}
