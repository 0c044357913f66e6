//! Calls of agents and of the sweep, of the functions and of the reference.

use kubeleet::model::{Phase, PodId};
use kubeleet::store as real;
use kubeleet::store::{BeatOutcome, ReportOutcome, SweepOutcome, TakeOutcome};

use crate::cluster::{LEASE, LONG, beat};
use crate::mirror::{CAPACITY, Mirror, name};
use crate::reference::{Call, PodKey, Reply, Taken, Token};

impl Mirror {
    pub(crate) async fn pop(&mut self, node: u8) -> String {
        let name = name(node);
        let line = format!("LMOVE @pq:{name} @rq:{name} RIGHT LEFT");
        let popped: Option<String> = self.cluster.ask(&line).await;
        let popped = popped.map(|id| self.key(&PodId::parse(&id).expect("the id of a pod")));
        let call = Call::InboxPop { node };
        let real = Reply::Pods(popped.into_iter().collect());
        assert_eq!(self.apply(&call), real, "{call:?}");
        format!("{call:?}")
    }

    fn any_pod(&mut self) -> PodKey {
        let gone = self.few(8) == 0;
        let stands = |key: &&PodKey| gone || self.store.pod(**key).is_some_and(|pod| !pod.gone);
        let known: Vec<PodKey> = self.ids.keys().filter(stands).copied().collect();
        let nobody = PodKey {
            submission: 0,
            replica: 0,
        };
        self.dice.of(&known).copied().unwrap_or(nobody)
    }

    /// Mostly the epoch that counts; never that of nobody.
    fn any_epoch(&mut self, node: u8) -> u8 {
        match (self.store.node(node).epoch, self.few(12)) {
            (known, 0) => known + 1,
            (known, 1) => known.saturating_sub(1).max(1),
            (known, _) => known.max(1),
        }
    }

    pub(crate) async fn take(&mut self, node: u8) -> String {
        let pod = self.any_pod();
        let of = self.store.pod(pod).and_then(|pod| pod.node);
        let node = of.filter(|_| self.few(5) > 0).unwrap_or(node);
        let epoch = self.any_epoch(node);
        let id = self.id(pod);
        let taken = self.cluster.store.pending();
        let taken = taken.take(&name(node), epoch.into(), &[&id]).await;
        let read = |token: &kubeleet::model::Token| Token {
            attempt: u8::try_from(token.attempt).expect("few"),
            nonce: token
                .nonce
                .trim_start_matches('n')
                .parse()
                .expect("a number"),
        };
        let real = match taken.expect("an answer") {
            TakeOutcome::Superseded => Reply::Word("superseded"),
            TakeOutcome::Unknown => Reply::Word("unknown"),
            TakeOutcome::Taken(taken, _) => Reply::Taken(match &taken[0] {
                real::Taken::Absent => Taken::Absent,
                real::Taken::Stale => Taken::Stale,
                real::Taken::Unwanted => Taken::Unwanted,
                real::Taken::Stop(token) => Taken::Stop(read(token)),
                real::Taken::Ended(token, phase) => Taken::Ended(read(token), *phase),
                real::Taken::Run(run) => Taken::Run(read(&run.token), run.phase),
                other => panic!("{other:?}"),
            }),
        };
        let call = Call::PodTake { node, epoch, pod };
        assert_eq!(self.apply(&call), real, "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn report(&mut self, node: u8) -> String {
        let pod = self.any_pod();
        let placed = self.store.pod(pod).map(|it| (it.node, it.token));
        let (of, mut token) = placed.unwrap_or_default();
        let node = of.filter(|_| self.few(10) > 0).unwrap_or(node);
        if self.few(10) == 0 {
            token.attempt += 1;
        }
        let epoch = self.any_epoch(node);
        let phase = *self.dice.of(&Phase::ALL).expect("there are some");
        let phase = match self.few(4) {
            0 => None,
            1 => Some(Phase::Stopped),
            2 => Some(Phase::Running),
            _ => Some(phase),
        };
        let entry = (self.few(2) == 0).then(|| self.any_pod());
        let nonce = match token.nonce {
            0 => String::new(),
            nonce => format!("n{nonce}"),
        };
        let told = kubeleet::model::Token {
            attempt: token.attempt.into(),
            nonce,
        };
        let entry_text = entry.map(|key| self.id(key).as_str().as_bytes().to_vec());
        let report = real::Report {
            phase,
            entry: entry_text,
            ..real::Report::new(self.id(pod), told)
        };
        let reported = self.cluster.store.pending();
        let reported = reported.report(&name(node), epoch.into(), &[report]).await;
        let word = match reported.expect("an answer")[0] {
            ReportOutcome::Ok => "ok",
            ReportOutcome::Stale => "stale",
            ReportOutcome::Gone => "gone",
            ReportOutcome::Late => "late",
            ReportOutcome::Superseded => "superseded",
            ReportOutcome::Unknown => "unknown",
        };
        let call = Call::PodReport {
            node,
            epoch,
            pod,
            token,
            phase,
            entry,
        };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn compare_node(&mut self, node: u8) -> String {
        let pods = self.cluster.store.pending().compare(&name(node)).await;
        let mut pods: Vec<PodKey> = pods.expect("pods").iter().map(|id| self.key(id)).collect();
        pods.sort();
        let call = Call::NodeCompare { node };
        assert_eq!(self.apply(&call), Reply::Pods(pods), "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn register(&mut self, node: u8) -> String {
        let mut beat = beat(100);
        beat.capacity.cpu_millis = u64::from(CAPACITY) * 1000;
        let epoch = self.cluster.register(&name(node), &beat).await;
        let call = Call::NodeRegister {
            node,
            capacity: CAPACITY,
        };
        let real = Reply::Epoch(u8::try_from(epoch).expect("few"));
        assert_eq!(self.apply(&call), real, "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn beat(&mut self, node: u8) -> String {
        let epoch = self.any_epoch(node);
        let mut beat = beat(100);
        beat.capacity.cpu_millis = u64::from(CAPACITY) * 1000;
        let beaten = self.cluster.store.nodes();
        let beaten = beaten.heartbeat(&name(node), epoch.into(), &beat).await;
        let word = match beaten {
            Ok(BeatOutcome::Renewed { returned: true, .. }) => "returned",
            Ok(BeatOutcome::Renewed { .. }) => "beat",
            Ok(BeatOutcome::Unknown) => "unknown",
            Ok(BeatOutcome::Superseded) => "superseded",
            Err(error) => panic!("{error}"),
        };
        let call = Call::NodeHeartbeat { node, epoch };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        format!("{call:?}")
    }

    pub(crate) async fn age(&mut self, node: u8) -> String {
        if self.store.node(node).living {
            self.store.lease_ends(node);
            self.cluster.age(&name(node), LONG).await;
        }
        format!("the lease of node {node} ends")
    }

    pub(crate) async fn sweep(&mut self) -> String {
        // However slow the machine: nothing says that the clock jumped.
        let now = self.cluster.now_ms().await;
        let line = format!("HSET @cluster swept_ms {now}");
        let _: u64 = self.cluster.ask(&line).await;
        let swept = self.cluster.store.nodes().sweep(LEASE, 1000).await;
        let (node, real) = match swept.expect("an answer") {
            SweepOutcome::None => (0, Reply::Word("none")),
            SweepOutcome::Swept { node, pods, done } => {
                assert!(done, "all at once");
                let node = node.trim_start_matches("node").parse();
                let pods = usize::try_from(pods).expect("few");
                (node.expect("the number of a node"), Reply::Swept(pods))
            }
            other => panic!("{other:?}"),
        };
        let call = Call::NodeSweep { node };
        assert_eq!(self.apply(&call), real, "{call:?}");
        format!("{call:?}")
    }
}
