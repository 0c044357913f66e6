//! Every state of the engine with every wish: it converges, and touches nothing it must not.

use proptest::prelude::*;

use super::*;
use crate::agent::life::Pace;
use crate::model::{Phase, PodId, Token};
use crate::store::ToRun;

const PACE: Pace = Pace {
    first: Duration::from_secs(1),
    max: Duration::from_secs(300),
    reset: Duration::from_secs(600),
};

fn token(attempt: u64) -> Token {
    Token {
        attempt,
        nonce: "n".into(),
    }
}

fn run(attempt: u64, policy: &str) -> Taken {
    Taken::Run(Box::new(ToRun {
        token: token(attempt),
        phase: Phase::Starting,
        replica: 0,
        owner: String::new(),
        revision: 0,
        spec: format!(r#"{{"name":"a","image":"b","restart":{{"policy":"{policy}"}}}}"#),
        container: "c".into(),
        restarts: 0,
        registry: None,
        devices: Vec::new(),
        fence: String::new(),
    }))
}

fn life(wanted: &Taken) -> Option<Life> {
    match wanted {
        Taken::Run(run) => Some(Life::of(run, PACE)),
        _ => None,
    }
}

fn container(attempt: u64, state: ContainerState) -> Container {
    Container {
        id: "c".into(),
        name: "web-0-abc".into(),
        pod: PodId::parse("abc-0").unwrap(),
        token: token(attempt),
        image: "nginx".into(),
        state,
        health: None,
        address: None,
        drifted: false,
        fenced: false,
        ports: Vec::new(),
        devices: Vec::new(),
    }
}

fn exited(exit_code: i64) -> ContainerState {
    ContainerState::Exited {
        exit_code,
        reason: None,
    }
}

fn step(wanted: &Taken, container: Option<&Container>) -> Step {
    next_step(wanted, container, life(wanted).as_ref(), Instant::now())
}

#[test]
fn what_is_being_removed_is_waited_for() {
    let container = container(1, ContainerState::Removing);
    for wanted in [
        run(1, "always"),
        Taken::Stop(token(1)),
        Taken::Move(token(1)),
        Taken::Stale,
        Taken::Unwanted,
        Taken::Ended(token(2), Phase::Failed),
    ] {
        assert_eq!(step(&wanted, Some(&container)), Step::Done);
    }
    assert_eq!(step(&run(1, "always"), None), Step::Create);
}

#[test]
fn a_double_goes_quickly_and_what_was_stopped_gets_its_grace() {
    let running = container(1, ContainerState::Running);
    let stop = |superseded| Step::Stop { superseded };
    assert_eq!(step(&Taken::Stale, Some(&running)), stop(true));
    assert_eq!(step(&run(2, "always"), Some(&running)), stop(true));
    assert_eq!(step(&Taken::Unwanted, Some(&running)), stop(false));
    assert_eq!(step(&Taken::Stop(token(1)), Some(&running)), stop(false));
    assert_eq!(step(&Taken::Move(token(1)), Some(&running)), stop(false));
    assert_eq!(step(&Taken::Move(token(1)), None), Step::ReportStopped);
    let ended = Taken::Ended(token(1), Phase::Failed);
    assert_eq!(step(&ended, Some(&running)), stop(false));
}

#[test]
fn an_ended_container_waits_for_its_time_and_is_started_again() {
    let now = Instant::now();
    let wanted = run(1, "always");
    let mut life = life(&wanted).unwrap();
    life.started(now);
    let ended = container(1, exited(1));
    life.see(Some(&ended), now);
    let Step::Wait(due) = run_step(&life, Some(&ended), now) else {
        panic!("it waits");
    };
    assert_eq!(run_step(&life, Some(&ended), due), Step::Start);
    // Taken away meanwhile, it is made again, no sooner.
    assert_eq!(run_step(&life, None, now), Step::Wait(due));
    assert_eq!(run_step(&life, None, due), Step::Create);

    let wanted = run(1, "never");
    let mut life = super::tests::life(&wanted).unwrap();
    life.see(Some(&ended), now);
    assert_eq!(run_step(&life, Some(&ended), now), Step::Done);
    assert_eq!(run_step(&life, None, now), Step::Done);
    let by_hand = container(1, ContainerState::Running);
    assert_eq!(run_step(&life, Some(&by_hand), now), Step::Done);
}

#[test]
fn what_was_changed_is_put_right() {
    let now = Instant::now();
    let mut life = life(&run(1, "always")).unwrap();
    let paused = container(1, ContainerState::Paused);
    assert_eq!(run_step(&life, Some(&paused), now), Step::Unpause);
    let mut drifted = container(1, ContainerState::Running);
    drifted.drifted = true;
    assert_eq!(run_step(&life, Some(&drifted), now), Step::Mend);
    life.refused(Some(&paused), "no".to_owned(), now);
    let Step::Wait(due) = run_step(&life, Some(&paused), now) else {
        panic!("what the engine refused is not asked at once again");
    };
    assert_eq!(run_step(&life, Some(&paused), due), Step::Unpause);
    life.unmendable = true;
    assert_eq!(run_step(&life, Some(&drifted), now), Step::Done);
    life.vitals.dead = Some("no answer".to_owned());
    let stop = Step::Stop { superseded: false };
    assert_eq!(run_step(&life, Some(&drifted), due), stop);
}

fn state() -> impl Strategy<Value = ContainerState> {
    prop_oneof![
        Just(ContainerState::Created),
        Just(ContainerState::Running),
        Just(ContainerState::Paused),
        (0..2i64).prop_map(exited),
    ]
}

fn wanted() -> impl Strategy<Value = Taken> {
    let policies = prop::sample::select(&["always", "on-failure", "never"][..]);
    prop_oneof![
        Just(Taken::Absent),
        Just(Taken::Hold),
        Just(Taken::Stale),
        Just(Taken::Unwanted),
        (1..3u64).prop_map(|attempt| Taken::Stop(token(attempt))),
        (1..3u64).prop_map(|attempt| Taken::Move(token(attempt))),
        (1..3u64).prop_map(|attempt| Taken::Ended(token(attempt), Phase::Failed)),
        (1..3u64, policies).prop_map(|(attempt, policy)| run(attempt, policy)),
    ]
}

/// What the engine has after a step that succeeds.
fn after(step: &Step, wanted: &Taken, before: Option<Container>) -> Option<Container> {
    let state = match step {
        Step::Create => {
            let Taken::Run(run) = wanted else {
                panic!("only what is to run is made");
            };
            return Some(container(run.token.attempt, ContainerState::Created));
        }
        Step::Remove => return None,
        Step::Start | Step::Unpause => ContainerState::Running,
        Step::Stop { .. } => exited(137),
        Step::Mend | Step::Wait(_) | Step::ReportStopped | Step::Done => return before,
    };
    before.map(|before| Container { state, ..before })
}

proptest! {
    #[test]
    fn every_start_ends_in_what_is_wanted(
        wanted in wanted(), existing in prop::option::of((1..3u64, state())),
    ) {
        let mut engine = existing.map(|(attempt, state)| container(attempt, state));
        let before = engine.clone();
        let mut life = life(&wanted);
        let mut now = Instant::now();
        let mut steps = 0;
        loop {
            if let Some(life) = &mut life {
                life.see(engine.as_ref(), now);
            }
            let step = next_step(&wanted, engine.as_ref(), life.as_ref(), now);
            engine = after(&step, &wanted, engine);
            match step {
                Step::Wait(due) => now = due,
                Step::Start => life.as_mut().unwrap().started(now),
                Step::Done | Step::ReportStopped => break,
                _ => {}
            }
            steps += 1;
            prop_assert!(steps <= 7, "it converges");
        }
        match &wanted {
            Taken::Absent | Taken::Hold => prop_assert_eq!(engine, before),
            Taken::Stale | Taken::Unwanted | Taken::Stop(_) | Taken::Move(_) => prop_assert_eq!(engine, None),
            Taken::Ended(..) => prop_assert!(engine.is_none_or(|it| !it.lives())),
            Taken::Run(run) => {
                prop_assert_eq!(engine.as_ref().map(|it| &it.token), Some(&run.token));
                let runs = engine.is_some_and(|it| it.state == ContainerState::Running);
                let ended = life.is_some_and(|life| life.restarts.end().is_some());
                prop_assert!(runs || ended, "it runs, or its rule says that it need not");
            }
        }
    }
}
