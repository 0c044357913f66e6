//! The plan, called again and again on a small model of a cluster, converges from any state.

use proptest::prelude::*;

use super::*;
use crate::model::service::{OnNodeLoss, RestartPolicy};
use crate::model::{PodId, ServiceSpec};

fn view(replicas: u32, revision: u64, pods: Vec<PodView>) -> View {
    View {
        now_ms: 1_000_000_000,
        turn: 1,
        revision,
        replicas,
        split: replicas,
        deleting: false,
        host_ports: Vec::new(),
        spec: Some(Box::new(ServiceSpec::new("web", "nginx"))),
        pods,
    }
}

fn pod(id: &str, replica: u32, revision: u64, phase: Phase) -> PodView {
    PodView {
        id: PodId::parse(id).unwrap(),
        replica,
        phase: Some(phase),
        desired: Desired::Run,
        revision,
        ready: phase == Phase::Running,
        node: (phase != Phase::Waiting).then(|| "node1".to_owned()),
        created_ms: 0,
        changed_ms: 0,
        exit_code: None,
        restarts: 0,
        retries: 0,
        host_ports: Vec::new(),
        device_kinds: Vec::new(),
        node_pods: 1,
        draining: false,
        leaves: None,
    }
}

fn ids(step: &ServiceStep) -> Vec<&str> {
    step.stop.iter().map(|(pod, _)| pod.as_str()).collect()
}

fn replicas(step: &ServiceStep) -> Vec<u32> {
    step.new.iter().map(|pod| pod.replica).collect()
}

#[test]
fn what_is_as_wanted_is_left_alone() {
    let running = |id, replica| pod(id, replica, 1, Phase::Running);
    let view = view(2, 1, vec![running("a", 0), running("b", 1)]);
    assert_eq!(plan(&view, 5), ServiceStep::default());
}

#[test]
fn missing_replicas_are_made_at_the_lowest_free_indexes() {
    let running = |id, replica| pod(id, replica, 1, Phase::Running);
    let view = view(4, 1, vec![running("a", 1), running("b", 4)]);
    let step = plan(&view, 5);
    assert_eq!(replicas(&step), [0, 2]);
    assert!(step.stop.is_empty());
}

#[test]
fn scaling_down_takes_the_unready_then_the_newest_then_those_on_loaded_nodes() {
    let mut pods = vec![
        pod("a", 0, 1, Phase::Running),
        pod("b", 1, 1, Phase::CrashLoop),
        pod("c", 2, 1, Phase::Running),
        pod("d", 3, 1, Phase::Running),
        pod("e", 4, 1, Phase::Running),
    ];
    pods[2].node_pods = 9;
    pods[4].created_ms = 7;
    let stopped = |wanted| {
        let step = plan(&view(wanted, 1, pods.clone()), 5);
        let mut stopped: Vec<String> = ids(&step).into_iter().map(str::to_owned).collect();
        stopped.sort();
        stopped.concat()
    };
    assert_eq!(stopped(4), "b");
    assert_eq!(stopped(3), "be");
    assert_eq!(stopped(2), "bce");
    assert_eq!(stopped(0), "abcde");
}

#[test]
fn a_change_replaces_one_after_another_new_before_old() {
    let mut pods = vec![
        pod("a", 0, 1, Phase::Running),
        pod("b", 1, 1, Phase::Running),
    ];
    let step = plan(&view(2, 2, pods.clone()), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![0], vec![]));
    pods.push(pod("n", 0, 2, Phase::Starting));
    let step = plan(&view(2, 2, pods.clone()), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec![]));
    assert!(step.again.is_some());
    pods[2] = pod("n", 0, 2, Phase::Running);
    let step = plan(&view(2, 2, pods), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![1], vec!["a"]));
}

#[test]
fn a_revision_that_never_gets_ready_stops_the_change() {
    let pods = vec![
        pod("a", 0, 1, Phase::Running),
        pod("b", 1, 1, Phase::Running),
        pod("n", 0, 2, Phase::CrashLoop),
    ];
    let step = plan(&view(2, 2, pods.clone()), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec![]));
    // The next revision takes the broken pod's place at once.
    let step = plan(&view(2, 3, pods), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![0], vec!["n"]));
}

#[test]
fn pods_with_one_fixed_port_are_replaced_old_first() {
    let mut old = pod("a", 0, 1, Phase::Running);
    old.host_ports = vec!["80/tcp".into()];
    let mut view = view(1, 2, vec![old.clone()]);
    view.host_ports = vec!["80/tcp".into()];
    let step = plan(&view, 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec!["a"]));
    view.pods[0].desired = Desired::Stop;
    let step = plan(&view, 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec![]));
    view.pods.clear();
    assert_eq!(replicas(&plan(&view, 5)), [0]);
}

#[test]
fn pods_with_devices_that_the_next_revision_needs_are_replaced_old_first() {
    let mut old = pod("a", 0, 1, Phase::Running);
    old.device_kinds = vec!["gpu".into()];
    let mut view = view(1, 2, vec![old]);
    assert_eq!(
        replicas(&plan(&view, 5)),
        [0],
        "the new one needs none of them"
    );
    let mut spec = ServiceSpec::new("web", "nginx");
    spec.resources.devices.insert("gpu".to_owned(), 1);
    view.spec = Some(Box::new(spec));
    let step = plan(&view, 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec!["a"]));
}

#[test]
fn ended_pods_are_replaced_by_their_policy_and_with_growing_pauses() {
    let mut failed = pod("a", 0, 1, Phase::Failed);
    failed.changed_ms = 1_000_000_000 - 3_000;
    failed.created_ms = failed.changed_ms - 1_000;
    failed.retries = 1;
    let step = plan(&view(1, 1, vec![failed.clone()]), 5);
    assert_eq!(step.new[0].retries, 2);
    assert_eq!(step.new[0].avoid, ["node1"]);
    failed.retries = 2;
    let step = plan(&view(1, 1, vec![failed.clone()]), 5);
    assert!(step.new.is_empty());
    assert_eq!(step.again, Some(Duration::from_secs(1)));
    let mut never = view(1, 1, vec![failed.clone()]);
    never.spec.as_mut().unwrap().restart.policy = RestartPolicy::Never;
    assert_eq!(plan(&never, 0), ServiceStep::default());
    let mut done = view(1, 1, vec![pod("a", 0, 1, Phase::Succeeded)]);
    done.spec.as_mut().unwrap().restart.policy = RestartPolicy::OnFailure;
    assert_eq!(plan(&done, 0), ServiceStep::default());
}

#[test]
fn ended_pods_are_kept_up_to_the_bound() {
    let mut pods = vec![pod("a", 0, 1, Phase::Running)];
    for (id, changed_ms) in [("x", 3), ("y", 1), ("z", 2)] {
        let mut ended = pod(id, 0, 1, Phase::Failed);
        ended.changed_ms = changed_ms;
        pods.push(ended);
    }
    let step = plan(&view(1, 1, pods), 2);
    assert_eq!(ids(&step), ["y"]);
}

#[test]
fn a_drained_node_is_left_new_before_old() {
    let mut moving = pod("a", 0, 1, Phase::Running);
    moving.draining = true;
    let crashing = pod("b", 1, 1, Phase::CrashLoop);
    let step = plan(&view(2, 1, vec![moving.clone(), crashing.clone()]), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![0], vec![]));
    let new = pod("n", 0, 1, Phase::Running);
    let step = plan(&view(2, 1, vec![moving, crashing, new]), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec!["a"]));
}

#[test]
fn a_pod_that_leaves_is_made_elsewhere_first_and_others_stay() {
    let mut leaving = pod("a", 0, 1, Phase::Running);
    leaving.leaves = Some("node node1 is pressed".to_owned());
    let other = pod("b", 1, 1, Phase::Running);
    let step = plan(&view(2, 1, vec![leaving.clone(), other.clone()]), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![0], vec![]));
    assert_eq!(step.new[0].avoid, ["node1"]);
    assert_eq!(step.new[0].reason, "a moves: node node1 is pressed");
    let mut new = pod("n", 0, 1, Phase::Starting);
    let with = |new: &PodView| view(2, 1, vec![leaving.clone(), other.clone(), new.clone()]);
    let step = plan(&with(&new), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec![]));
    new = pod("n", 0, 1, Phase::Running);
    let step = plan(&with(&new), 5);
    assert_eq!((replicas(&step), ids(&step)), (vec![], vec!["a"]));
    // It stays after all: the other one goes, whether it got on or not.
    let stays = PodView {
        leaves: None,
        ..leaving.clone()
    };
    for mut other in [new, pod("n", 0, 1, Phase::Waiting)] {
        other.created_ms = 5;
        let step = plan(&view(1, 1, vec![stays.clone(), other]), 5);
        assert_eq!((replicas(&step), ids(&step)), (vec![], vec!["n"]));
    }
}

#[test]
fn a_deleted_service_leaves_nothing() {
    let mut view = view(
        2,
        1,
        vec![
            pod("a", 0, 1, Phase::Running),
            pod("b", 0, 1, Phase::Failed),
        ],
    );
    view.deleting = true;
    assert_eq!(ids(&plan(&view, 5)), ["a", "b"]);
}

fn phases() -> impl Strategy<Value = Phase> {
    prop::sample::select(
        &[
            Phase::Waiting,
            Phase::Scheduled,
            Phase::Starting,
            Phase::Running,
            Phase::Unhealthy,
            Phase::CrashLoop,
            Phase::Failed,
            Phase::Succeeded,
        ][..],
    )
}

fn pods() -> impl Strategy<Value = Vec<PodView>> {
    let one = (0..6u32, 1..4u64, phases(), any::<bool>(), 0..3u8, 0..5u64);
    prop::collection::vec(one, 0..12).prop_map(|pods| {
        let made = pods.into_iter().enumerate();
        made.map(
            |(number, (replica, revision, phase, stops, evicted, created_ms))| {
                let mut made = pod(&format!("p{number}"), replica, revision, phase);
                if stops {
                    made.desired = Desired::Stop;
                }
                made.draining = evicted == 1 && made.node.is_some();
                made.leaves = (evicted == 2 && made.node.is_some()).then(String::new);
                made.created_ms = created_ms;
                made
            },
        )
        .collect()
    })
}

/// Carries a step out as Redis and the agents would: what is stopped goes, what is new runs later.
fn carry_out(view: &mut View, step: &ServiceStep, made: &mut u32) {
    let stopped = |pod: &PodView| step.stop.iter().any(|(id, _)| *id == pod.id);
    view.pods.retain(|pod| !stopped(pod));
    for pod in &mut view.pods {
        let live = pod.phase.is_some_and(|phase| !phase.is_ended());
        if live && pod.revision == view.revision && !is_evicted(pod) {
            pod.phase = Some(Phase::Running);
            pod.ready = pod.desired == Desired::Run;
        }
    }
    view.pods.retain(|pod| pod.desired == Desired::Run);
    for new in &step.new {
        *made += 1;
        let mut pod = pod(
            &format!("new{made}"),
            new.replica,
            view.revision,
            Phase::Waiting,
        );
        pod.created_ms = 100 + u64::from(*made);
        view.pods.push(pod);
    }
    view.now_ms += 400_000; // longer than any pause
}

fn serving(view: &View) -> usize {
    let ready = view
        .pods
        .iter()
        .filter(|pod| pod.ready && pod.desired == Desired::Run);
    let slots: std::collections::BTreeSet<u32> = ready.map(|pod| pod.replica).collect();
    slots.len()
}

proptest! {
    #[test]
    fn any_state_converges(wanted in 0..6u32, pods in pods()) {
        let mut view = view(wanted, 3, pods);
        let mut made = 0;
        for round in 0.. {
            prop_assert!(round < 60, "it converges: {view:?}");
            let step = plan(&view, 2);
            prop_assert_eq!(&step, &plan(&view, 2), "same input, same plan");
            let done = step == ServiceStep::default()
                && view.pods.iter().all(|pod| {
                    pod.desired == Desired::Run && (pod.ready || pod.phase.unwrap().is_ended())
                });
            if done {
                break;
            }
            carry_out(&mut view, &step, &mut made);
        }
        let live: Vec<&PodView> =
            view.pods.iter().filter(|pod| !pod.phase.unwrap().is_ended()).collect();
        let slots: std::collections::BTreeSet<u32> = live.iter().map(|pod| pod.replica).collect();
        prop_assert_eq!(live.len(), usize::try_from(wanted).unwrap());
        prop_assert_eq!(slots.len(), live.len(), "one pod a slot");
        prop_assert!(live.iter().all(|pod| pod.revision == 3 && !is_evicted(pod)));
        prop_assert!(view.pods.len() - live.len() <= 2, "ended pods are bounded");
    }

    #[test]
    fn a_change_never_takes_a_serving_slot_down(wanted in 1..6u32, pods in pods()) {
        let mut view = view(wanted, 3, pods);
        view.pods.retain(|pod| pod.desired == Desired::Run);
        let mut made = 0;
        for _ in 0..60 {
            let before = serving(&view).min(usize::try_from(wanted).unwrap());
            let step = plan(&view, 2);
            carry_out(&mut view, &step, &mut made);
            prop_assert!(serving(&view) >= before, "{} of {before}", serving(&view));
        }
    }
}

proptest! {
    #[test]
    fn an_exclusive_slot_never_has_two(
        steps in prop::collection::vec((0..5u32, 0..2u64, any::<u64>(), any::<bool>()), 1..30),
    ) {
        let mut view = view(3, 1, Vec::new());
        view.spec.as_mut().unwrap().on_node_loss = OnNodeLoss::StopThenReplace;
        let mut made = 0;
        let calm = std::iter::repeat_n((3, 0, u64::MAX, false), 30);
        for (wanted, change, gone, drains) in steps.into_iter().chain(calm) {
            (view.replicas, view.revision) = (wanted, view.revision + change);
            for pod in &mut view.pods {
                pod.draining = drains && pod.node.is_some();
            }
            let step = plan(&view, 2);
            for pod in &mut view.pods {
                if step.stop.iter().any(|(id, _)| *id == pod.id) {
                    (pod.desired, pod.ready) = (Desired::Stop, false);
                }
            }
            // Some of those that stop are gone by now, others are not.
            let mut bits = gone;
            view.pods.retain(|pod| {
                bits = bits.rotate_right(1);
                pod.desired == Desired::Run || bits & 1 == 0
            });
            for new in &step.new {
                made += 1;
                let id = format!("new{made}");
                view.pods.push(pod(&id, new.replica, view.revision, Phase::Running));
            }
            for replica in 0..5 {
                let there = view.pods.iter().filter(|pod| pod.replica == replica).count();
                prop_assert!(there <= 1, "slot {replica} has {there}");
            }
        }
        let there: Vec<u32> = view.pods.iter().map(|pod| pod.replica).collect();
        prop_assert_eq!(there.len(), 3, "it converges");
        prop_assert!(view.pods.iter().all(|pod| pod.revision == view.revision));
    }
}

#[test]
fn scaling_down_takes_those_that_wait_before_those_that_start() {
    let pods = vec![
        pod("a", 0, 1, Phase::Starting),
        pod("b", 1, 1, Phase::Waiting),
        pod("c", 2, 1, Phase::Starting),
    ];
    let step = plan(&view(2, 1, pods), 5);
    assert_eq!(ids(&step), ["b"], "all made at the same moment");
}

#[test]
fn a_tombstone_that_something_leads_to_is_let_go() {
    let mut gone = pod("gone", 0, 1, Phase::Stopped);
    gone.desired = Desired::Stop;
    let step = plan(&view(1, 1, vec![gone]), 5);
    assert_eq!(ids(&step), ["gone"]);
    assert_eq!(replicas(&step), [0]);
}
