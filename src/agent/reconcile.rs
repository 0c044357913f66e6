//! What to do next for one pod: a pure function of what Redis wants and what the engine has.
//!
//! One step at a time: after each the engine's new state is looked at again, so a step may fail,
//! or be repeated, anywhere.

use std::time::Duration;

use crate::container::{Container, ContainerState};
use crate::model::{Phase, Token};
use crate::store::Taken;

/// Grace of a container whose pod is someone else's by now: it is a double, and goes quickly.
pub const SUPERSEDED_GRACE: Duration = Duration::from_secs(2);

/// One step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Create the container.
    Create,
    /// Start the container.
    Start,
    /// Stop the container; `superseded` ones get [`SUPERSEDED_GRACE`], others their own.
    Stop {
        /// Another placement holds.
        superseded: bool,
    },
    /// Remove the container.
    Remove,
    /// Say where the pod is.
    Report {
        /// The placement it speaks of.
        token: Token,
        /// Where the pod is now.
        phase: Phase,
        /// Why, where that needs saying.
        reason: String,
        /// Exit code of an ended container.
        exit_code: Option<i64>,
    },
    /// All is as wanted.
    Done,
}

/// The next step for a pod.
pub fn next_step(wanted: &Taken, container: Option<&Container>) -> Step {
    match (wanted, container) {
        // Absence is never an order: Redis may have lost what it knew.
        (Taken::Absent | Taken::Hold, _) => Step::Done,
        // Its end is told by the engine; what is to be done then depends on what is wanted then.
        (_, Some(container)) if container.state == ContainerState::Removing => Step::Done,
        (Taken::Stale, Some(container)) => remove(container, true),
        (Taken::Stale, None) => Step::Done,
        (Taken::Stop(_), Some(container)) => remove(container, false),
        (Taken::Stop(token), None) => Step::Report {
            token: token.clone(),
            phase: Phase::Stopped,
            reason: String::new(),
            exit_code: None,
        },
        (Taken::Ended(token, _), Some(container)) if container.token != *token => {
            remove(container, true)
        }
        // It ended in Redis's eyes, so it must not run; what is left of it is kept to be looked at.
        (Taken::Ended(..), Some(container)) if container.state == ContainerState::Running => {
            Step::Stop { superseded: true }
        }
        (Taken::Ended(..), _) => Step::Done,
        (Taken::Run(_), None) => Step::Create,
        (Taken::Run(run), Some(container)) if container.token != run.token => {
            remove(container, true)
        }
        (Taken::Run(run), Some(container)) => match &container.state {
            ContainerState::Created => Step::Start,
            ContainerState::Running
                if run.phase == Phase::Running && run.container == container.id =>
            {
                Step::Done
            }
            // Told again where another container runs than was told: the first was lost.
            ContainerState::Running => Step::Report {
                token: run.token.clone(),
                phase: Phase::Running,
                reason: String::new(),
                exit_code: None,
            },
            ContainerState::Removing => Step::Done,
            ContainerState::Exited { exit_code, reason } => {
                let (phase, ended) = match exit_code {
                    0 => (Phase::Succeeded, "exited with code 0".to_owned()),
                    code => (Phase::Failed, format!("exited with code {code}")),
                };
                Step::Report {
                    token: run.token.clone(),
                    phase,
                    reason: match reason {
                        Some(reason) => format!("{ended}: {reason}"),
                        None => ended,
                    },
                    exit_code: Some(*exit_code),
                }
            }
        },
    }
}

fn remove(container: &Container, superseded: bool) -> Step {
    match container.state {
        ContainerState::Running => Step::Stop { superseded },
        ContainerState::Removing => Step::Done,
        ContainerState::Created | ContainerState::Exited { .. } => Step::Remove,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::PodId;
    use crate::store::ToRun;

    fn token(attempt: u64) -> Token {
        Token {
            attempt,
            nonce: "n".into(),
        }
    }

    fn run(attempt: u64, phase: Phase) -> Taken {
        Taken::Run(Box::new(ToRun {
            token: token(attempt),
            phase,
            replica: 0,
            owner: String::new(),
            revision: 0,
            spec: String::new(),
            container: "c".into(),
            registry: None,
        }))
    }

    fn container(attempt: u64, state: ContainerState) -> Container {
        Container {
            id: "c".into(),
            name: "web-0-abc".into(),
            pod: PodId::parse("abc-0").unwrap(),
            token: token(attempt),
            image: "nginx".into(),
            state,
            ports: Vec::new(),
        }
    }

    fn exited(exit_code: i64) -> ContainerState {
        ContainerState::Exited {
            exit_code,
            reason: None,
        }
    }

    #[test]
    fn a_new_pod_is_created_started_and_reported() {
        let wanted = run(1, Phase::Starting);
        assert_eq!(next_step(&wanted, None), Step::Create);
        assert_eq!(
            next_step(&wanted, Some(&container(1, ContainerState::Created))),
            Step::Start
        );
        let Step::Report { phase, .. } =
            next_step(&wanted, Some(&container(1, ContainerState::Running)))
        else {
            panic!("a running container is reported");
        };
        assert_eq!(phase, Phase::Running);
        let told = run(1, Phase::Running);
        assert_eq!(
            next_step(&told, Some(&container(1, ContainerState::Running))),
            Step::Done
        );
        let mut another = container(1, ContainerState::Running);
        another.id = "d".into();
        assert!(
            matches!(next_step(&told, Some(&another)), Step::Report { .. }),
            "another container than was told of is told of"
        );
    }

    #[test]
    fn an_exit_is_reported_with_its_code() {
        for (code, expected) in [(0, Phase::Succeeded), (137, Phase::Failed)] {
            let step = next_step(&run(1, Phase::Running), Some(&container(1, exited(code))));
            let Step::Report {
                phase,
                exit_code,
                reason,
                ..
            } = step
            else {
                panic!("an exit is reported");
            };
            assert_eq!((phase, exit_code), (expected, Some(code)));
            assert!(reason.contains(&code.to_string()));
        }
    }

    #[test]
    fn what_is_being_removed_is_waited_for() {
        let container = container(1, ContainerState::Removing);
        for wanted in [
            run(1, Phase::Running),
            Taken::Stop(token(1)),
            Taken::Stale,
            Taken::Ended(token(2), Phase::Failed),
        ] {
            assert_eq!(next_step(&wanted, Some(&container)), Step::Done);
        }
        let wanted = run(1, Phase::Running);
        assert_eq!(next_step(&wanted, None), Step::Create);
    }

    fn state() -> impl Strategy<Value = ContainerState> {
        prop_oneof![
            Just(ContainerState::Created),
            Just(ContainerState::Running),
            (0..2i64).prop_map(exited),
        ]
    }

    fn wanted() -> impl Strategy<Value = Taken> {
        let phases = prop::sample::select(&[Phase::Starting, Phase::Running][..]);
        prop_oneof![
            Just(Taken::Absent),
            Just(Taken::Hold),
            Just(Taken::Stale),
            (1..3u64).prop_map(|attempt| Taken::Stop(token(attempt))),
            (1..3u64).prop_map(|attempt| Taken::Ended(token(attempt), Phase::Failed)),
            (1..3u64, phases).prop_map(|(attempt, phase)| run(attempt, phase)),
        ]
    }

    /// What the engine has after a step that succeeds.
    fn after(step: &Step, wanted: &Taken, before: Option<Container>) -> Option<Container> {
        match (step, wanted) {
            (Step::Create, Taken::Run(run)) => {
                Some(container(run.token.attempt, ContainerState::Created))
            }
            (Step::Start, _) => before.map(|before| Container {
                state: ContainerState::Running,
                ..before
            }),
            (Step::Stop { .. }, _) => before.map(|before| Container {
                state: exited(137),
                ..before
            }),
            (Step::Remove, _) => None,
            _ => before,
        }
    }

    proptest! {
        #[test]
        fn every_start_ends_in_what_is_wanted(
            wanted in wanted(), existing in prop::option::of((1..3u64, state())),
        ) {
            let mut engine = existing.map(|(attempt, state)| container(attempt, state));
            let before = engine.clone();
            let mut steps = 0;
            loop {
                let step = next_step(&wanted, engine.as_ref());
                engine = after(&step, &wanted, engine);
                steps += 1;
                prop_assert!(steps <= 6, "it converges");
                if matches!(step, Step::Done | Step::Report { .. }) {
                    break;
                }
            }
            match &wanted {
                Taken::Absent | Taken::Hold => prop_assert_eq!(engine, before),
                Taken::Stale | Taken::Stop(_) => prop_assert_eq!(engine, None),
                Taken::Ended(..) => prop_assert!(engine.is_none_or(|it| it.state != ContainerState::Running)),
                Taken::Run(run) => prop_assert_eq!(engine.map(|it| it.token), Some(run.token.clone())),
            }
        }
    }
}
