//! What is told of a container, by what is seen of it.

use super::*;
use crate::container::EngineHealth;
use crate::model::PodId;

const PACE: Pace = Pace {
    first: Duration::from_secs(1),
    max: Duration::from_secs(300),
    reset: Duration::from_secs(600),
};

fn life(spec: &str) -> Life {
    Life::of(&run(Phase::Starting, "", spec), PACE)
}

fn run(phase: Phase, container: &str, spec: &str) -> ToRun {
    ToRun {
        token: Token::default(),
        phase,
        replica: 0,
        owner: String::new(),
        revision: 0,
        spec: format!(r#"{{"name":"web","image":"nginx"{spec}}}"#),
        container: container.to_owned(),
        restarts: 0,
        registry: None,
        devices: Vec::new(),
        fence: String::new(),
    }
}

fn container(state: ContainerState) -> Container {
    Container {
        id: "c".to_owned(),
        name: "web-0-abc".to_owned(),
        pod: PodId::parse("abc-0").unwrap(),
        token: Token::default(),
        image: "nginx".to_owned(),
        state,
        health: None,
        address: None,
        drifted: false,
        fenced: false,
        ports: Vec::new(),
        devices: Vec::new(),
    }
}

fn checked(state: HealthState, said: &str) -> Container {
    Container {
        health: Some(EngineHealth {
            state,
            said: said.to_owned(),
        }),
        ..container(ContainerState::Running)
    }
}

const PROBED: &str = r#","health":{"liveness":{"tcp":{"port":1}},"readiness":{"tcp":{"port":2}}}"#;

fn told(life: &Life, container: &Container) -> (Option<Phase>, Option<bool>, String) {
    let status = life.status(Some(container)).unwrap();
    (status.phase, status.ready, status.reason)
}

#[test]
fn without_probes_what_runs_is_ready() {
    let now = Instant::now();
    let mut life = life("");
    assert_eq!(life.status(None), None, "nothing to tell before it runs");
    let running = container(ContainerState::Running);
    life.started(now);
    life.see(Some(&running), now);
    let ready = (Some(Phase::Running), Some(true), String::new());
    assert_eq!(told(&life, &running), ready);
    assert!(life.news(Some(&running)).is_some());
    assert_eq!(life.news(Some(&running)), None, "told once");
    life.heard(&run(Phase::Running, "c", ""));
    assert_eq!(life.news(Some(&running)), None, "Redis has it");
    life.heard(&run(Phase::Running, "another", ""));
    assert!(life.news(Some(&running)).is_some(), "Redis has another");
}

#[test]
fn probes_say_what_is_ready_and_what_is_dead() {
    let now = Instant::now();
    let mut life = life(PROBED);
    let running = container(ContainerState::Running);
    life.see(Some(&running), now);
    let (_, ready, _) = told(&life, &running);
    assert_eq!(ready, None, "one that ran before keeps what Redis has");
    life.started(now);
    assert_eq!(told(&life, &running).1, Some(false));
    life.vitals.ready = Some(true);
    assert_eq!(told(&life, &running).1, Some(true));
    life.vitals.ready = Some(false);
    life.vitals.said = "port 2: refused".to_owned();
    let words = "not ready: port 2: refused".to_owned();
    let not_ready = (Some(Phase::Running), Some(false), words);
    assert_eq!(told(&life, &running), not_ready);
    life.vitals.dead = Some("port 1: refused".to_owned());
    let words = "unhealthy: port 1: refused".to_owned();
    let dead = (Some(Phase::Unhealthy), Some(false), words);
    assert_eq!(told(&life, &running), dead);

    life.see(Some(&running), now);
    let exited = container(ContainerState::Exited {
        exit_code: 143,
        reason: None,
    });
    life.see(Some(&exited), now);
    let words = "unhealthy: port 1: refused; restart 1 in 1s".to_owned();
    assert_eq!(told(&life, &exited), (Some(Phase::CrashLoop), None, words));
    life.started(now);
    assert!(life.dead(&running).is_none(), "it begins anew");
}

#[test]
fn the_images_own_check_counts_unless_the_spec_says_otherwise() {
    let cases = [
        ("", true),
        (r#","health":{}"#, true),
        (r#","health":{"engine":false}"#, false),
        (PROBED, false),
    ];
    for (spec, heeded) in cases {
        let mut life = life(spec);
        life.started(Instant::now());
        life.vitals.ready = life.vitals.ready.map(|_| true);
        let starting = checked(HealthState::Starting, "");
        assert_eq!(told(&life, &starting).1, Some(!heeded), "{spec}");
        assert_eq!(
            told(&life, &checked(HealthState::Healthy, "")).1,
            Some(true)
        );
        let bad = checked(HealthState::Unhealthy, "no answer");
        let dead = heeded.then(|| "no answer".to_owned());
        assert_eq!(life.dead(&bad), dead, "{spec}");
    }
    let silent = checked(HealthState::Unhealthy, "");
    let words = "the image's HEALTHCHECK failed".to_owned();
    assert_eq!(life("").dead(&silent), Some(words));
}

#[test]
fn a_container_of_another_placement_says_nothing_of_this_one() {
    let mut life = life("");
    let mut other = container(ContainerState::Exited {
        exit_code: 1,
        reason: None,
    });
    other.token.attempt = 7;
    life.see(Some(&other), Instant::now());
    assert_eq!(life.status(Some(&other)), None);
    assert_eq!(life.restarts.waiting(), None);
}
