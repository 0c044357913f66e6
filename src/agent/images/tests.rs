//! Pulls by a simulated engine, in a time that passes by itself.

use super::*;
use crate::container::Simulated;
use crate::settings::{RegistrySettings, Secret, SimulatedSettings};

struct Bench {
    engine: Simulated,
    images: Images,
}

fn bench() -> Bench {
    let engine = Simulated::new("engine1", SimulatedSettings::default());
    let settings = AgentSettings {
        registries: vec![RegistrySettings {
            host: "r.example".to_owned(),
            username: "node".to_owned(),
            password: Secret::from("hidden"),
        }],
        ..AgentSettings::default()
    };
    let runtime = Runtime::Simulated(engine.clone());
    let images = Images::new(runtime, settings, CancellationToken::new());
    Bench { engine, images }
}

fn login(username: &str) -> RegistryLogin {
    RegistryLogin {
        username: username.to_owned(),
        password: "hidden".to_owned(),
    }
}

/// All that is told until the end, and the end.
async fn follow(mut waiting: Waiting) -> (Vec<String>, PullState) {
    let mut told = Vec::new();
    loop {
        match waiting.borrow_and_update().clone() {
            PullState::Pulling(words) => told.push(words),
            end => return (told, end),
        }
        waiting.changed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_fails_is_tried_five_times_with_doubling_pauses() {
    let Bench { engine, images } = bench();
    for number in 1..=5 {
        engine.fail_next_pull(format!("no route, {number}"));
    }
    let began = Instant::now();
    let (told, end) = follow(images.pull("a:1", None)).await;
    let PullState::Failed(why) = end else {
        panic!("{end:?}");
    };
    assert!(
        why.starts_with("pulling image a:1 failed 5 times: "),
        "{why}"
    );
    assert!(why.contains("no route, 5"), "{why}");
    assert_eq!(engine.counts().pulls_begun, 5);
    assert_eq!(began.elapsed().as_secs(), 1 + 2 + 4 + 8);
    let paused = "pulling image a:1 failed, try 2 of 5, the next in 2s: ";
    assert!(
        told.iter().any(|words| words.starts_with(paused)),
        "{told:?}"
    );

    // The next begins anew, and passes.
    let (_, end) = follow(images.pull("a:1", None)).await;
    assert!(matches!(end, PullState::Pulled), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_registry_refuses_is_not_tried_again_and_no_password_is_told() {
    let Bench { engine, images } = bench();
    for (image, service, words) in [
        ("a:1", None, "(asked without a login: give `registry`"),
        (
            "r.example/a:1",
            None,
            "(asked as \"node\", the node's login)",
        ),
        (
            "r.example/a:1",
            Some(login("me")),
            "(asked as \"me\", the service's login)",
        ),
    ] {
        engine.deny_image(image);
        let (_, end) = follow(images.pull(image, service.as_ref())).await;
        let PullState::Failed(why) = end else {
            panic!("{end:?}");
        };
        assert!(
            why.contains("no registry has it") && why.ends_with(')'),
            "{why}"
        );
        assert!(why.contains(words) && !why.contains("hidden"), "{why}");
    }
    assert_eq!(engine.counts().pulls_begun, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_shared_by_those_of_one_login_only() {
    let Bench { engine, images } = bench();
    engine.hold_pulls();
    let first = images.pull("r.example/a", Some(&login("a")));
    let same = images.pull("r.example/a", Some(&login("a")));
    assert!(first.same_channel(&same));
    let other = images.pull("r.example/a", Some(&login("b")));
    let nodes = images.pull("r.example/a", None);
    assert!(!first.same_channel(&other) && !nodes.same_channel(&other));
    tokio::time::sleep(Duration::from_secs(1)).await;
    engine.release_pulls();
    for waiting in [first, other, nodes] {
        assert!(matches!(follow(waiting).await.1, PullState::Pulled));
    }
    assert_eq!(engine.counts().pulls, 3);
    assert!(lock(&images.pulls).is_empty());
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_at_most_once_a_second() {
    let Bench { engine, images } = bench();
    engine.hold_pulls();
    let waiting = images.pull("a", None);
    let telling = tokio::spawn(follow(waiting));
    for step in 1..=20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        engine.show_progress(PullProgress {
            bytes: step * 1_250_000,
            bytes_all: 45_600_000,
        });
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    engine.release_pulls();
    let (told, _) = telling.await.unwrap();
    let expected = [
        "",
        ": 6.2 of 45.6 MB",
        ": 12.5 of 45.6 MB",
        ": 18.7 of 45.6 MB",
        ": 25.0 of 45.6 MB",
    ];
    let expected = expected.map(|come| format!("pulling image a{come}"));
    let told: Vec<String> = told
        .into_iter()
        .filter(|words| words != "pulling image a")
        .collect();
    assert_eq!(told, expected[1..]);
}

#[tokio::test(start_paused = true)]
async fn pulls_beyond_the_bound_wait_and_say_so() {
    let Bench { engine, images } = bench();
    engine.hold_pulls();
    let waiting: Vec<Waiting> = (0..=PULLS_MAX)
        .map(|number| images.pull(&format!("a:{number}"), None))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waits = |waiting: &&Waiting| match &*waiting.borrow() {
        PullState::Pulling(words) => words.ends_with("waits for other pulls of its node"),
        _ => false,
    };
    assert_eq!(waiting.iter().filter(waits).count(), 1);
    engine.release_pulls();
    for waiting in waiting {
        assert!(matches!(follow(waiting).await.1, PullState::Pulled));
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_no_failure_of_the_image() {
    let Bench { engine, images } = bench();
    engine.set_down(true);
    let (_, end) = follow(images.pull("a", None)).await;
    assert!(matches!(end, PullState::EngineAway), "{end:?}");
}
