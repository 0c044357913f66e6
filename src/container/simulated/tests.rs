//! The script: what only a simulated engine can be told to do. The rest is in the smoke tests.

use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::container::{ContainerState, GivenDevices, Runtime};
use crate::model::{PodId, ServiceSpec, Token};

const IMAGE: &str = "nginx";

fn engine() -> (Simulated, Runtime) {
    let settings = SimulatedSettings {
        start_time: Duration::ZERO,
        stop_time: Duration::ZERO,
        ..SimulatedSettings::default()
    };
    let simulated = Simulated::new("engine1", settings);
    simulated.add_image(IMAGE);
    (simulated.clone(), Runtime::Simulated(simulated))
}

fn spec(pod: &str) -> ContainerSpec {
    ContainerSpec {
        node: "worker1".to_owned(),
        cluster: "cluster1".to_owned(),
        pod: PodId::parse(pod).unwrap(),
        token: Token::default(),
        replica: 0,
        spec: Box::new(ServiceSpec::new("web", IMAGE)),
        revision: 1,
        service: None,
        wish: None,
        given: GivenDevices::default(),
    }
}

async fn pull(runtime: &Runtime, image: &str) -> Result<(), RuntimeError> {
    runtime.pull(image, None, &|_| ()).await
}

#[tokio::test]
async fn starts_fail_as_told_and_then_succeed() {
    let (simulated, runtime) = engine();
    let id = runtime.create(&spec("a")).await.unwrap().id;
    simulated.fail_next_start("no space left on device");
    let error = runtime.start(&id).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the container engine could not start the container: no space left on device"
    );
    assert!(!error.is_unreachable());
    assert_eq!(simulated.live(), []);
    runtime.start(&id).await.unwrap();
    assert_eq!(simulated.live().len(), 1);
}

#[tokio::test]
async fn all_starts_fail_at_a_rate_of_one() {
    let settings = SimulatedSettings {
        failure_rate: 1.0,
        start_time: Duration::ZERO,
        ..SimulatedSettings::default()
    };
    let simulated = Simulated::new("engine1", settings);
    simulated.add_image(IMAGE);
    let id = simulated.create(&spec("a")).await.unwrap().id;
    assert!(simulated.start(&id).await.is_err());
}

#[tokio::test]
async fn images_are_pulled_once_denied_or_held() {
    let (simulated, runtime) = engine();
    let mut wish = spec("a");
    wish.spec.image = "redis".to_owned();
    assert!(matches!(
        runtime.create(&wish).await,
        Err(RuntimeError::ImageMissing { .. })
    ));
    simulated.deny_image("redis");
    assert!(matches!(
        pull(&runtime, "redis").await,
        Err(RuntimeError::ImageDenied { .. })
    ));

    simulated.hold_pulls();
    let mut pull = Box::pin(pull(&runtime, "valkey"));
    assert!(pull.as_mut().now_or_never().is_none());
    assert_eq!(simulated.counts().pulls, 0);
    simulated.release_pulls();
    pull.await.unwrap();
    assert_eq!(simulated.counts().pulls, 1);
    wish.spec.image = "valkey".to_owned();
    runtime.create(&wish).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_is_down_answers_nothing_and_keeps_its_containers() {
    let (simulated, runtime) = engine();
    let id = runtime.create(&spec("a")).await.unwrap().id;
    runtime.start(&id).await.unwrap();
    let mut changes = runtime.ended("worker1", "cluster1").await.unwrap();
    simulated.set_down(true);

    assert!(changes.next().await.unwrap().unwrap_err().is_unreachable());
    assert!(changes.next().await.is_none());
    let second = spec("b");
    for error in [
        runtime.info().await.err(),
        runtime.list("worker1", "cluster1").await.err(),
        runtime.create(&second).await.err(),
        pull(&runtime, IMAGE).await.err(),
        runtime.start(&id).await.err(),
        runtime.stop(&id, Duration::ZERO).await.err(),
        runtime.remove(&id).await.err(),
        runtime.inspect(&id).await.err(),
        runtime.ended("worker1", "cluster1").await.err(),
    ] {
        assert!(error.unwrap().is_unreachable());
    }
    assert_eq!(simulated.live().len(), 1);
    simulated.set_down(false);
    assert_eq!(runtime.list("worker1", "cluster1").await.unwrap().len(), 1);
}

#[tokio::test]
async fn ends_and_removals_are_told_and_counted() {
    let (simulated, runtime) = engine();
    let mut changes = runtime.ended("worker1", "cluster1").await.unwrap();
    let wish = spec("a");
    let id = runtime.create(&wish).await.unwrap().id;
    runtime.create(&wish).await.unwrap();
    runtime.start(&id).await.unwrap();
    runtime.start(&id).await.unwrap();
    assert!(changes.next().now_or_never().is_none(), "nothing ended yet");

    assert!(simulated.end_pod(&wish.pod, 137, Some("out of memory")));
    assert!(!simulated.end_pod(&wish.pod, 137, None), "it ended before");
    assert_eq!(changes.next().await.unwrap().unwrap(), wish.pod);
    let state = ContainerState::Exited {
        exit_code: 137,
        reason: Some("out of memory".to_owned()),
    };
    assert_eq!(runtime.inspect(&id).await.unwrap().unwrap().state, state);

    runtime.start(&id).await.unwrap();
    runtime.remove(&id).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap(), wish.pod);
    let counts = Counts {
        creates: 1,
        starts: 2,
        removes: 1,
        subscriptions: 1,
        ..Counts::default()
    };
    assert_eq!(simulated.counts(), counts);
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_cut_off() {
    let (simulated, runtime) = engine();
    let changes = runtime.ended("worker1", "cluster1").await.unwrap();
    let id = runtime.create(&spec("a")).await.unwrap().id;
    for _ in 0..=UNREAD_MAX {
        runtime.start(&id).await.unwrap();
        simulated.end(&id, 0, None);
    }
    let read: Vec<_> = changes.collect().await;
    assert_eq!(read.len(), UNREAD_MAX + 1);
    assert!(read.last().unwrap().is_err());
}

#[tokio::test]
async fn the_machine_has_the_size_that_is_given() {
    let (simulated, runtime) = engine();
    let info = runtime.info().await.unwrap();
    assert_eq!((info.cpu_millis, info.memory_bytes), (64_000, 256 << 30));
    simulated.set_capacity(500, 1 << 20);
    let info = runtime.info().await.unwrap();
    assert_eq!((info.cpu_millis, info.memory_bytes), (500, 1 << 20));
    assert_eq!(info.id, "engine1");
}

#[tokio::test]
async fn an_image_goes_unless_a_container_is_made_from_it() {
    let (simulated, runtime) = engine();
    simulated.add_image("other");
    runtime.create(&spec("a")).await.unwrap();
    for image in runtime.images().await.unwrap() {
        assert_eq!(image.is_used, image.id == IMAGE);
        let removed = runtime.remove_image(&image).await;
        assert_eq!(removed.is_ok(), !image.is_used, "{image:?}");
    }
    assert_eq!(runtime.images().await.unwrap().len(), 1);
    assert!(runtime.digest(IMAGE).await.unwrap().is_some());
    assert_eq!(runtime.digest("other").await.unwrap(), None);
}
