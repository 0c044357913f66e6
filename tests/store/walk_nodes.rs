//! The random walk's steps of nodes, agents, users of single pods, and whoever pushes by hand.

use kubeleet::model::{Phase, PodId, Token};
use kubeleet::store::{
    BeatOutcome, EvictOutcome, From, Mark, PodStopOutcome, RegisterOutcome, RemoveOutcome, Report,
    SweepOutcome, Taken,
};

use crate::cluster::{LEASE, beat, pod, report};
use crate::oracle::{OracleNode, OraclePod};
use crate::random_walk::Walk;

impl Walk {
    fn any_pod(&mut self) -> Option<PodId> {
        // Those that are gone are asked for too, but rarely.
        let gone = self.dice.roll(10) == 0;
        let pods = self.oracle.pods.iter().filter(|(_, pod)| pod.gone == gone);
        let ids: Vec<&String> = pods.map(|(id, _)| id).collect();
        self.dice.of(&ids).map(|id| pod(id))
    }

    pub(crate) async fn take(&mut self, node: &str) {
        let mut ids: Vec<PodId> = (0..4).filter_map(|_| self.any_pod()).collect();
        ids.push(pod("nobody"));
        let epoch = self.oracle.nodes[node].epoch;
        let asked: Vec<&PodId> = ids.iter().collect();
        for (taken, id) in self
            .cluster
            .take(node, epoch, &asked)
            .await
            .iter()
            .zip(&ids)
        {
            let wanted = self.oracle.take(node, id.as_str());
            let word = match taken {
                Taken::Absent => "absent",
                Taken::Stale => "stale",
                Taken::Unwanted => "unwanted",
                Taken::Hold => "hold",
                Taken::Stop(_) => "stop",
                Taken::Move(_) => "move",
                Taken::Ended(..) => "ended",
                Taken::Run(run) => {
                    let pod = &self.oracle.pods[id.as_str()];
                    assert_eq!((&run.token, run.phase), (&pod.token, pod.phase), "{id}");
                    "run"
                }
            };
            assert_eq!(word, wanted, "{id} by {node}");
        }
    }

    /// One whose container its agent was told to stop.
    fn any_leaving(&mut self) -> Option<PodId> {
        let leaves =
            |(_, pod): &(&String, &OraclePod)| pod.node.is_some() && (!pod.run || pod.moving);
        let ids: Vec<&String> = self
            .oracle
            .pods
            .iter()
            .filter(leaves)
            .map(|(id, _)| id)
            .collect();
        self.dice.of(&ids).map(|id| pod(id))
    }

    pub(crate) async fn report(&mut self) {
        let leaving = (self.dice.roll(3) == 0)
            .then(|| self.any_leaving())
            .flatten();
        let leaves = leaving.is_some();
        let Some(id) = leaving.or_else(|| self.any_pod()) else {
            return;
        };
        let known = self.oracle.pods[id.as_str()].clone();
        let mut node = known.node.unwrap_or_else(|| "a".to_owned());
        let mut token = known.token;
        match self.dice.roll(12) {
            0 => {
                token = Token {
                    nonce: "wrong".into(),
                    ..token
                }
            }
            1 => token.attempt += 1,
            2 => node = "b".to_owned(),
            _ => {}
        }
        let epoch = self.oracle.nodes[&node].epoch - u64::from(self.dice.roll(20) == 0);
        let to = match leaves {
            true => Phase::Stopped,
            false => *self.dice.of(&Phase::ALL).expect("there are some"),
        };
        let popped: Option<Vec<u8>> = self
            .cluster
            .ask(&format!("LMOVE @pq:{node} @rq:{node} RIGHT LEFT"))
            .await;
        let wanted = self.oracle.report(&node, epoch, id.as_str(), &token, to);
        let report = Report {
            entry: popped,
            ..report(&id, token, Some(to))
        };
        let outcome = self.cluster.report_as(&node, epoch, report).await;
        assert_eq!(outcome, wanted, "{id} to {to} by {node}");
    }

    pub(crate) async fn stop(&mut self) {
        let Some(id) = self.any_pod() else { return };
        let outcome = self
            .cluster
            .store
            .pods()
            .stop(&id)
            .await
            .expect("an answer");
        let known = &self.oracle.pods[id.as_str()];
        let wanted = match &known.service {
            _ if known.gone => PodStopOutcome::Absent,
            Some(service) => PodStopOutcome::Owned(format!("service:{service}")),
            None => PodStopOutcome::Stopping,
        };
        assert_eq!(outcome, wanted, "{id}");
        if wanted == PodStopOutcome::Stopping {
            self.oracle.stop(id.as_str());
        }
    }

    fn few(&mut self, sides: u64) -> usize {
        usize::try_from(self.dice.roll(sides)).expect("few")
    }

    /// A user opens, closes or drains a node, or removes it; a drain goes on.
    pub(crate) async fn mark(&mut self, node: &str) {
        let nodes = self.cluster.store.nodes();
        let known = self.oracle.nodes.get_mut(node).expect("it is there");
        match self.dice.roll(8) {
            0 => {
                let removed = nodes.remove(node, LEASE, true).await.expect("an answer");
                let pods = self.oracle.remove(node);
                assert_eq!(removed, RemoveOutcome::Removed { pods }, "{node}");
                self.register(node).await;
            }
            1..4 => {
                let outcome = nodes.evict(node, 0, 1000, true).await.expect("an answer");
                let wanted = if known.mark == Mark::Drain {
                    let pods = self.oracle.evict(node);
                    EvictOutcome::Moving { pods, cursor: 0 }
                } else {
                    EvictOutcome::Rests
                };
                assert_eq!(outcome, wanted, "{node}");
            }
            roll => {
                let mark = match roll {
                    4 => Mark::Cordon,
                    5 => Mark::Drain,
                    _ => Mark::Open,
                };
                known.mark = mark;
                assert!(nodes.mark(node, mark).await.expect("an answer"));
            }
        }
    }

    pub(crate) async fn register(&mut self, node: &str) {
        let beat = beat(5);
        let registered = self
            .cluster
            .store
            .nodes()
            .register(node, node, LEASE, &beat)
            .await;
        let known = self.oracle.nodes.entry(node.to_owned()).or_default();
        let epoch = known.epoch + 1;
        *known = OracleNode {
            epoch,
            capacity: beat.capacity,
            living: true,
            mark: known.mark,
            ..OracleNode::default()
        };
        let registered = registered.expect("an answer");
        let same =
            matches!(registered, RegisterOutcome::Registered { epoch: now, .. } if now == epoch);
        assert!(same, "{registered:?} of {epoch}");
    }

    pub(crate) async fn heartbeat(&mut self, node: &str) {
        let known = self.oracle.nodes.get_mut(node).expect("it is there");
        let outcome = self
            .cluster
            .store
            .nodes()
            .heartbeat(node, known.epoch, &beat(5))
            .await;
        let BeatOutcome::Renewed { returned, .. } = outcome.expect("an answer") else {
            panic!("{node} is known");
        };
        assert_eq!(returned, known.lost, "{node}");
        (known.lost, known.overdue, known.living) = (false, false, true);
    }

    pub(crate) async fn sweep(&mut self) {
        let max = 1 + usize::try_from(self.dice.roll(4)).expect("few");
        let outcome = self
            .cluster
            .store
            .nodes()
            .sweep(LEASE, max)
            .await
            .expect("an answer");
        let due = |node: &OracleNode| node.living && node.overdue;
        let SweepOutcome::Swept { node, pods, done } = outcome else {
            assert_eq!(outcome, SweepOutcome::None);
            assert!(!self.oracle.nodes.values().any(due));
            return;
        };
        let known = self.oracle.nodes.get_mut(&node).expect("it is there");
        assert!(due(known), "{node}: {known:?}");
        (known.lost, known.living) = (true, !done);
        // Which of its pods a bounded step takes is Redis's choice.
        let here = self
            .oracle
            .pods
            .iter()
            .filter(|(_, pod)| pod.node.as_ref() == Some(&node));
        let mut moved = 0;
        for id in here.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            if self
                .cluster
                .field(&format!("pod:{id}"), "node")
                .await
                .is_empty()
            {
                moved += u64::from(self.oracle.sweep(&id));
            }
        }
        assert_eq!(pods, moved, "pods of {node}");
        assert!(
            !done || self.oracle.room(&node).0 == 0,
            "{node} is not done"
        );
    }

    pub(crate) async fn release(&mut self) {
        let parked: Vec<String> = self.cluster.ask("ZRANGE @sq:parked 0 -1").await;
        if let Some(id) = self.dice.of(&parked) {
            let _: u64 = self.cluster.ask(&format!("ZADD @sq:parked 1 {id}")).await;
        }
        self.cluster
            .store
            .queue()
            .release_parked(10)
            .await
            .expect("an answer");
    }

    pub(crate) async fn push_raw(&mut self, node: &str) {
        let entry = match self.dice.roll(3) {
            0 => b"\xffrubbish".to_vec(),
            _ => {
                let id = self.dice.roll(12);
                let ports = ["", r#""1:1""#, r#""1:1","2:2/udp""#][self.few(3)];
                format!(
                    r#"{{"uuid":"h{id}","name":"hand","image":"i","resources":{{"cpu":0.7}},"ports":[{ports}]}}"#
                )
                .into_bytes()
            }
        };
        if self.dice.roll(2) == 0 {
            self.cluster.push("sq", &entry).await;
        } else {
            self.cluster.push(&format!("rq:{node}"), &entry).await;
            self.read_raw(From::Inbox(node), &entry).await;
        }
    }

    /// An entry once more, of a pod in whatever phase.
    pub(crate) async fn push_again(&mut self, node: &str) {
        let Some(id) = self.any_pod() else { return };
        if self.dice.roll(2) == 0 {
            self.cluster.push("sq", id.as_str().as_bytes()).await;
            self.doubled.insert(id.to_string());
        } else {
            self.cluster
                .push(&format!("pq:{node}"), id.as_str().as_bytes())
                .await;
        }
    }
}
