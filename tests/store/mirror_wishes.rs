//! Calls of users and controllers, of the functions and of the reference.

use std::time::Duration;

use kubeleet::model::service::OnNodeLoss;
use kubeleet::model::{PodId, Resources, ServiceSpec};
use kubeleet::store as real;
use kubeleet::store::{
    Comparison, NewPod, ScaleOutcome, ServiceStep, StepOutcome, Submit, SubmitMode, SubmitOutcome,
    View,
};

use crate::cluster::{service, spec};
use crate::mirror::{CONTROL, LOSSES, Mirror, key_of};
use crate::reference::{Call, Due, PodKey, Reply};

impl Mirror {
    fn wish(&mut self, number: u8) -> (ServiceSpec, u8) {
        let asks = number + 1;
        let replicas = 1 + self.few(3);
        let spec = ServiceSpec {
            resources: Resources {
                cpu_millis: u64::from(asks) * 1000,
                ..Resources::default()
            },
            on_node_loss: LOSSES[usize::from(number)],
            ..spec(&format!("s{number}"), replicas.into())
        };
        (spec, asks)
    }

    pub(crate) async fn submit(&mut self, number: u8) -> String {
        let (spec, asks) = self.wish(number);
        let (submission, replicas) = (self.step, u8::try_from(spec.replicas).expect("few"));
        let submit = Submit {
            spec: &spec,
            submission: &format!("w{submission}"),
            idempotency: None,
            mode: SubmitMode::Create,
        };
        let outcome = self.cluster.store.services().submit(&submit).await;
        let word = match outcome.expect("an answer") {
            SubmitOutcome::Created { .. } => "created",
            SubmitOutcome::Exists { .. } => "exists",
            SubmitOutcome::Conflict => "conflict",
            SubmitOutcome::Deleting => "deleting",
            other => panic!("{other:?}"),
        };
        let call = Call::ServiceSubmit {
            service: number,
            replicas,
            submission,
            asks,
            hold: spec.on_node_loss == OnNodeLoss::Hold,
        };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        self.name_pods(submission, replicas);
        format!("{call:?}")
    }

    pub(crate) async fn scale(&mut self, number: u8) -> String {
        let (replicas, submission) = (self.few(4), self.step);
        let key = service(&format!("s{number}"));
        let services = self.cluster.store.services();
        let name = format!("w{submission}");
        let outcome = services.scale(&key, replicas.into(), &name, None);
        let word = match outcome.await.expect("an answer") {
            ScaleOutcome::Done => "scaled",
            ScaleOutcome::Absent => "absent",
            ScaleOutcome::Deleting => "deleting",
            other => panic!("{other:?}"),
        };
        let call = Call::ServiceScale {
            service: number,
            replicas,
            submission,
        };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        self.name_pods(submission, replicas);
        format!("{call:?}")
    }

    pub(crate) async fn delete(&mut self, number: u8) -> String {
        let key = service(&format!("s{number}"));
        let outcome = self.cluster.store.services().delete(&key, None).await;
        let word = match outcome.expect("an answer") {
            ScaleOutcome::Done => "deleting",
            ScaleOutcome::Absent => "absent",
            other => panic!("{other:?}"),
        };
        let call = Call::ServiceDelete { service: number };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        format!("{call:?}")
    }

    /// A controller claims what is due, or carries out a step, some of which come too late.
    pub(crate) async fn control(&mut self, number: u8) -> String {
        if self.held.is_empty() || self.few(3) == 0 {
            let lease = CONTROL + Duration::from_secs(self.step.into()); // no two ends are one
            let due = self.cluster.store.wishes().claim(100, lease).await;
            let due = due.expect("an answer");
            let call = Call::ServiceClaim { claim: self.step };
            let Reply::Services(mut wanted) = self.apply(&call) else {
                panic!("{call:?}");
            };
            for found in due {
                let number = found.service.to_string();
                let number = number.trim_start_matches("default/s").parse();
                let number: u8 = number.expect("the number of a service");
                let at = wanted.iter().position(|it| *it == number);
                wanted.remove(at.unwrap_or_else(|| panic!("{number} is not due")));
                self.held.push((self.step, number, found.until));
            }
            assert_eq!(wanted, [0; 0], "due, but not claimed");
            return format!("{call:?}");
        }
        let at = usize::from(self.few(u8::try_from(self.held.len()).expect("few")));
        let (claim, number, until) = match self.few(4) {
            0 => (0, number, String::new()), // whoever holds no claim
            _ => self.held.swap_remove(at),
        };
        let key = service(&format!("s{number}"));
        let view = self.cluster.store.wishes().view(&key).await;
        let mut view = view.expect("an answer").unwrap_or(View {
            now_ms: 0,
            turn: 0,
            revision: 1,
            replicas: 0,
            split: 0,
            deleting: false,
            host_ports: Vec::new(),
            spec: None,
            pods: Vec::new(),
        });
        let stale = self.few(6) == 0;
        view.turn -= u64::from(stale && view.turn > 0);
        let new: Vec<u8> = (0..self.few(3)).collect();
        let mut stop: Vec<PodKey> = Vec::new();
        for pod in &view.pods {
            if self.few(3) == 0 {
                stop.push(self.key(&pod.id));
            }
        }
        let again = self.few(2) == 0;
        let step = ServiceStep {
            new: new.iter().map(|replica| new_pod(*replica)).collect(),
            stop: stop
                .iter()
                .map(|pod| (self.id(*pod), "so".to_owned()))
                .collect(),
            again: again.then_some(CONTROL),
        };
        let due = real::Due {
            service: key,
            until: until.clone(),
        };
        let stepped = self
            .cluster
            .store
            .wishes()
            .step(&due, &view, &step, 1)
            .await;
        let word = match stepped.expect("an answer") {
            StepOutcome::Stepped => "stepped",
            StepOutcome::Moved => "moved",
            StepOutcome::Absent => "absent",
        };
        let call = Call::ServiceStep {
            service: number,
            turn: u8::try_from(view.turn).expect("few"),
            due: (!until.is_empty()).then_some(Due::Claim(claim)),
            again,
            submission: self.step,
            new: new.clone(),
            stop,
        };
        assert_eq!(self.apply(&call), Reply::Word(word), "{call:?}");
        self.learn_new(number, &new).await;
        format!("{call:?}")
    }

    /// Learns the ids of what a step made.
    async fn learn_new(&mut self, number: u8, new: &[u8]) {
        let index: Vec<(String, u8)> = self
            .cluster
            .ask(&format!(
                "ZRANGE @service:{}:pods 0 -1 WITHSCORES",
                key_of(number)
            ))
            .await;
        for (id, replica) in index {
            let id = PodId::parse(&id).expect("the id of a pod");
            if new.contains(&replica) && !self.ids.values().any(|known| *known == id) {
                let key = PodKey {
                    submission: self.step,
                    replica,
                };
                assert!(self.ids.insert(key, id).is_none(), "{key:?} twice");
            }
        }
    }

    pub(crate) async fn compare(&mut self) -> String {
        let keep = Duration::from_secs(1000);
        let start = Comparison::default();
        let wishes = self.cluster.store.wishes();
        let compared = wishes.compare(&start, 1000, keep, 200);
        let compared = compared.await.expect("an answer");
        assert!(compared.done);
        let put_back = usize::try_from(compared.put_back).expect("few");
        let call = Call::ServiceCompare;
        assert_eq!(self.apply(&call), Reply::PutBack(put_back), "{call:?}");
        format!("{call:?}")
    }
}

fn new_pod(replica: u8) -> NewPod {
    NewPod {
        replica: replica.into(),
        reason: String::new(),
        avoid: Vec::new(),
        retries: 0,
    }
}
