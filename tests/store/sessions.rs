//! Sessions between the API and agents, and the last lines of containers.

use std::time::Duration;

use kubeleet::model::{EngineState, LogWish, NodeRequest};
use kubeleet::store::{
    Beat, Frame, Heard, Kept, OpenOutcome, SessionId, SessionTakeOutcome, Side, UNREAD_MAX,
    WriteOutcome,
};

use crate::cluster::{Cluster, LEASE, LONG, beat, pod};

/// Longest wait for what is there already.
const SOON: Duration = Duration::from_secs(5);
/// Short wait for what does not come.
const MOMENT: Duration = Duration::from_millis(50);

fn request() -> NodeRequest {
    NodeRequest::Logs {
        pod: pod("p-0"),
        wish: LogWish::default(),
        unread_max: None,
    }
}

impl Cluster {
    async fn open_session(&self, node: &str) -> (SessionId, OpenOutcome) {
        let session = SessionId::with(node);
        let port = self.store.sessions();
        let opened = port.open(&session, node, &request(), LEASE).await;
        (session, opened.expect("an answer"))
    }

    async fn opened(&self, node: &str) -> SessionId {
        let (session, outcome) = self.open_session(node).await;
        assert_eq!(outcome, OpenOutcome::Opened);
        session
    }

    /// A session that the node's agent has in hand.
    async fn talk(&self, node: &str) -> SessionId {
        let session = self.opened(node).await;
        let taken = self.store.sessions().take(&session, node).await;
        assert_eq!(taken.expect("an answer"), SessionTakeOutcome::Taken);
        session
    }

    async fn say(&self, session: &SessionId, side: Side, frames: &[Frame]) -> WriteOutcome {
        let port = self.store.sessions();
        let written = port.write(session, side, frames, UNREAD_MAX).await;
        written.expect("an answer")
    }

    async fn keep_one(&self, side: Side, session: &SessionId) -> Kept {
        let port = self.store.sessions();
        let kept = port.keep(side, std::slice::from_ref(session)).await;
        kept.expect("an answer")[0]
    }
}

fn frames(heard: Vec<Heard>) -> Vec<Frame> {
    let said = heard.into_iter().filter_map(|heard| match heard {
        Heard::Said(_, _, frame) => frame,
        _ => None,
    });
    said.collect()
}

#[tokio::test]
async fn a_node_is_asked_only_while_it_can_answer() {
    let cluster = Cluster::new().await;
    assert_eq!(cluster.open_session("n").await.1, OpenOutcome::Unknown);
    let down = Beat {
        engine: EngineState::Down,
        ..beat(1)
    };
    cluster.register("n", &down).await;
    assert_eq!(cluster.open_session("n").await.1, OpenOutcome::EngineDown);
    cluster.register("n", &beat(1)).await;
    cluster.opened("n").await;
    cluster.age("n", 60_000).await;
    let (_, lost) = cluster.open_session("n").await;
    assert!(
        matches!(lost, OpenOutcome::Lost { age } if age >= Duration::from_secs(60)),
        "{lost:?}"
    );
}

#[tokio::test]
async fn a_session_is_taken_once_and_by_its_node() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1)).await;
    let session = cluster.opened("n").await;
    let port = cluster.store.sessions();
    let take = async |node: &str| port.take(&session, node).await.unwrap();
    assert_eq!(take("other").await, SessionTakeOutcome::Gone);
    assert_eq!(take("n").await, SessionTakeOutcome::Taken);
    assert_eq!(take("n").await, SessionTakeOutcome::Gone);
    port.end(std::slice::from_ref(&session)).await.unwrap();
    assert_eq!(take("n").await, SessionTakeOutcome::Gone);

    let session = cluster.opened("n").await;
    let key = format!("session:{session}");
    let opened = cluster.number(&key, "opened_ms").await - LONG;
    let _: u64 = cluster
        .ask(&format!("HSET @{key} opened_ms {opened}"))
        .await;
    let stale = cluster.store.sessions().take(&session, "n").await;
    assert_eq!(stale.unwrap(), SessionTakeOutcome::Stale);
}

#[tokio::test]
async fn an_agent_hears_requests_what_is_said_and_the_end() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1)).await;
    let early = cluster.opened("n").await;
    let port = cluster.store.sessions();
    let mut agent = port.listen_at("n", SOON).await.unwrap();
    let heard = agent.hear(SOON).await.unwrap();
    assert_eq!(
        heard,
        [Heard::Request(early.clone(), Some(request()))],
        "also what was asked before"
    );
    let late = cluster.talk("n").await;
    assert_eq!(
        agent.hear(SOON).await.unwrap(),
        [Heard::Request(late.clone(), Some(request()))]
    );
    agent.add(late.clone());
    cluster
        .say(
            &late,
            Side::Api,
            &[Frame::Stdin(b"x".to_vec()), Frame::StdinEnd],
        )
        .await;
    let heard = frames(agent.hear(SOON).await.unwrap());
    assert_eq!(heard, [Frame::Stdin(b"x".to_vec()), Frame::StdinEnd]);
    assert_eq!(agent.hear(MOMENT).await.unwrap(), []);

    port.end(&[early, late.clone()]).await.unwrap();
    let over = agent.hear(SOON).await.unwrap();
    assert_eq!(over, [Heard::Over(late)], "nobody has the other in hand");
    let left: Vec<String> = cluster.ask("KEYS @session:*").await;
    assert_eq!(left, [""; 0]);

    // A newer API asks for what this version does not know.
    let odd = cluster.opened("n").await;
    agent.hear(SOON).await.unwrap();
    let _: String = cluster
        .ask(&format!("XADD @nq:n * session {odd} request {{}}"))
        .await;
    assert_eq!(agent.hear(SOON).await.unwrap(), [Heard::Request(odd, None)]);
}

#[tokio::test]
async fn a_writer_waits_for_the_reader_and_is_told_of_room() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1)).await;
    let session = cluster.talk("n").await;
    let port = cluster.store.sessions();
    let mut api = port.listen(SOON).await.unwrap();
    let mut agent = port.listen_at("n", SOON).await.unwrap();
    for listener in [&mut api, &mut agent] {
        listener.add(session.clone());
    }
    let lines: Vec<Frame> = (0..40_u8).map(|line| Frame::Lines(vec![line])).collect();
    // One place is taken by the word that the session is taken.
    let written = cluster.say(&session, Side::Agent, &lines).await;
    assert_eq!(written, WriteOutcome::Written(UNREAD_MAX - 1));
    assert_eq!(
        cluster.say(&session, Side::Agent, &lines).await,
        WriteOutcome::Written(0)
    );
    let last = [Frame::Error("why".to_owned())];
    assert_eq!(
        cluster.say(&session, Side::Agent, &last).await,
        WriteOutcome::Written(1),
        "always"
    );
    let stream = format!("@session:{session}:out");
    let unread: usize = cluster.ask(&format!("XLEN {stream}")).await;
    assert_eq!(unread, UNREAD_MAX + 1);

    let heard = api.hear(SOON).await.unwrap();
    assert_eq!(
        frames(heard.clone())[..2],
        [Frame::Taken, Frame::Lines(vec![0])]
    );
    assert_eq!(frames(heard.clone()).len(), 16, "some at once");
    let Heard::Said(_, entry, _) = &heard[9] else {
        panic!("{heard:?}");
    };
    api.has_read(&session, entry.clone());
    assert_eq!(frames(api.hear(SOON).await.unwrap()), last);
    let unread: usize = cluster.ask(&format!("XLEN {stream}")).await;
    assert_eq!(unread, UNREAD_MAX + 1 - 10);
    let told = agent.hear(SOON).await.unwrap();
    assert_eq!(frames(told), [Frame::Room], "once, and only who waited");
    api.has_read(&session, entry.clone());
    api.hear(MOMENT).await.unwrap();
    assert_eq!(agent.hear(MOMENT).await.unwrap(), []);
}

#[tokio::test]
async fn each_side_learns_when_the_other_is_silent_or_the_session_is_over() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1)).await;
    let session = cluster.talk("n").await;
    let key = format!("session:{session}");
    for (side, other) in [(Side::Api, "agent_ms"), (Side::Agent, "api_ms")] {
        assert_eq!(cluster.keep_one(side, &session).await, Kept::Ok);
        let heard = cluster.number(&key, other).await - LONG;
        let _: u64 = cluster.ask(&format!("HSET @{key} {other} {heard}")).await;
        assert_eq!(cluster.keep_one(side, &session).await, Kept::Silent);
    }
    // The renewal of a side is seen by the other.
    assert_eq!(cluster.keep_one(Side::Api, &session).await, Kept::Ok);
    for key in cluster.ask::<Vec<String>>("KEYS @session*").await {
        let left: i64 = cluster.send(&[b"PTTL", key.as_bytes()]).await;
        assert!(left > 15_000, "{key} is kept for {left} ms");
    }
    let sessions = std::slice::from_ref(&session);
    cluster.store.sessions().end(sessions).await.unwrap();
    assert_eq!(cluster.keep_one(Side::Agent, &session).await, Kept::Gone);
    let gone = cluster.say(&session, Side::Agent, &[Frame::End]).await;
    assert_eq!(gone, WriteOutcome::Gone);
    let left: Vec<String> = cluster.ask("KEYS @session*").await;
    assert_eq!(left, [""; 0], "what is said too late makes no key");
}

#[tokio::test]
async fn sessions_of_a_node_are_bounded_and_dead_ones_do_not_count() {
    let cluster = Cluster::new().await;
    for node in ["n", "other"] {
        cluster.register(node, &beat(1)).await;
    }
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(cluster.opened("n").await);
    }
    let busy = OpenOutcome::Busy { sessions_max: 64 };
    assert_eq!(cluster.open_session("n").await.1, busy);
    cluster.opened("other").await;
    cluster.store.sessions().end(&open[..1]).await.unwrap();
    cluster.opened("n").await;
    assert_eq!(cluster.open_session("n").await.1, busy);
    let _: u64 = cluster
        .ask(&format!("ZADD @sessions:n 1 {}", open[1]))
        .await;
    cluster.opened("n").await;
    // Requests that no agent reads are bounded too.
    let unread: u64 = cluster.ask("XLEN @nq:n").await;
    assert!(unread <= 256, "{unread}");
    let left: i64 = cluster.ask("TTL @nq:n").await;
    assert!(left > 0);
}

#[tokio::test]
async fn keys_of_a_wrong_type_do_not_stand_in_the_way() {
    let cluster = Cluster::new().await;
    cluster.register("n", &beat(1)).await;
    for key in ["nq:n", "sessions:n", "logs", "logs:p-0"] {
        let _: String = cluster.ask(&format!("SET @{key} x")).await;
    }
    cluster.talk("n").await;
    cluster
        .store
        .keep_logs(&pod("p-0"), "n", b"o 1 x\n")
        .await
        .unwrap();
    assert!(
        cluster
            .store
            .kept_logs(&pod("p-0"))
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn the_last_lines_of_the_latest_thousand_pods_are_kept_for_a_day() {
    let cluster = Cluster::new().await;
    let id = |number: usize| pod(&format!("p-{number}"));
    assert_eq!(cluster.store.kept_logs(&id(0)).await.unwrap(), None);
    for number in 0..1000 {
        // Older each, so that the order is certain.
        cluster
            .store
            .keep_logs(&id(number), "n", b"o 1 \xff\n")
            .await
            .unwrap();
        let _: u64 = cluster
            .ask(&format!(
                "ZADD @logs XX {} p-{number}",
                cluster.now_ms().await - 5000 + number as u64
            ))
            .await;
    }
    cluster
        .store
        .keep_logs(&id(1000), "n", b"o 1 first\n")
        .await
        .unwrap();
    cluster
        .store
        .keep_logs(&id(1000), "m", b"o 1 second\n")
        .await
        .unwrap();
    let kept = cluster.store.kept_logs(&id(1000)).await.unwrap().unwrap();
    assert_eq!(
        (kept.node.as_str(), &kept.lines[..]),
        ("m", &b"o 1 second\n"[..])
    );
    assert_eq!(
        cluster.store.kept_logs(&id(0)).await.unwrap(),
        None,
        "the oldest is dropped"
    );
    assert!(cluster.store.kept_logs(&id(1)).await.unwrap().is_some());
    let left: i64 = cluster.ask("TTL @logs:p-1000").await;
    assert!((86_000..=86_400).contains(&left), "{left}");
    let index: u64 = cluster.ask("ZCARD @logs").await;
    assert_eq!(index, 1000);
}
