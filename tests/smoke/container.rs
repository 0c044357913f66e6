//! The runtime port: one set of checks for both engines.

mod attach;
mod bench;
mod docker;

use kubeleet::container::{Container, ContainerState, RuntimeError};
use kubeleet::model::Port;

use self::bench::{Bench, GRACE, IMAGE, IMAGE_ABSENT, end_of, notice, token};

#[tokio::test]
async fn simulated_conforms() {
    conformance(&Bench::simulated()).await;
}

#[tokio::test]
async fn docker_conforms() {
    conformance(&Bench::docker().await).await;
}

/// What every engine does.
async fn conformance(bench: &Bench) {
    a_container_lives_and_ends(bench).await;
    create_adopts_its_own_and_only_its_own(bench).await;
    strangers_are_left_alone(bench).await;
    other_nodes_and_clusters_are_not_listed(bench).await;
    an_end_is_noticed(bench).await;
    ports_are_told_once_they_are_bound(bench).await;
    files_are_put_before_the_start(bench).await;
    an_image_has_users_and_names(bench).await;
    what_is_missing_is_named(bench).await;
    attach::what_runs_can_be_seen_into(bench).await;
    assert_eq!(bench.list().await, [], "each check cleans up");
}

async fn a_container_lives_and_ends(bench: &Bench) {
    let info = bench.runtime.info().await.unwrap();
    assert!(!info.id.is_empty() && !info.version.is_empty());
    assert!(info.cpu_millis >= 1000 && info.memory_bytes > 1 << 20);
    assert_eq!(bench.list().await, []);

    let spec = bench.spec();
    let id = bench.create(&spec).await;
    let mut container = Container {
        id: id.clone(),
        name: format!("web-2-{}", spec.pod.short()),
        pod: spec.pod.clone(),
        token: spec.token.clone(),
        image: IMAGE.to_owned(),
        state: ContainerState::Created,
        ports: Vec::new(),
        health: None,
        address: None,
        drifted: false,
        fenced: false,
        devices: Vec::new(),
    };
    assert_eq!(bench.list().await, [container.clone()]);
    bench.runtime.stop(&id, GRACE).await.unwrap();
    assert_eq!(bench.inspect(&id).await, Some(container.clone()));

    bench.runtime.start(&id).await.unwrap();
    bench.runtime.start(&id).await.unwrap();
    container.state = ContainerState::Running;
    assert_eq!(bench.list().await, [container.clone()]);
    assert_eq!(bench.inspect(&id).await, Some(container.clone()));
    let reached = bench.runtime.inspect(&id).await.unwrap().unwrap().address;
    assert!(reached.is_some(), "it has an address while it runs");
    assert_eq!(bench.runtime.describe(&id).await.unwrap(), Some(spec));

    bench.runtime.stop(&id, GRACE).await.unwrap();
    bench.runtime.stop(&id, GRACE).await.unwrap();
    container.state = ContainerState::Exited {
        exit_code: 143,
        reason: None,
    };
    assert_eq!(bench.list().await, [container.clone()]);

    bench.runtime.remove(&id).await.unwrap();
    bench.runtime.remove(&id).await.unwrap();
    bench.runtime.stop(&id, GRACE).await.unwrap();
    assert_eq!(bench.inspect(&id).await, None);
    assert_eq!(bench.runtime.describe(&id).await.unwrap(), None);
    let start = bench.runtime.start(&id).await;
    assert!(matches!(start, Err(RuntimeError::ContainerMissing { id: gone }) if gone == id));
}

async fn create_adopts_its_own_and_only_its_own(bench: &Bench) {
    let mut spec = bench.spec();
    let id = bench.create(&spec).await;
    assert_eq!(bench.create(&spec).await, id);
    bench.runtime.start(&id).await.unwrap();
    assert_eq!(bench.create(&spec).await, id);
    assert_eq!(bench.list().await.len(), 1);

    for other in [token(2, "first"), token(1, "second")] {
        spec.token = other;
        let create = bench.runtime.create(&spec).await;
        assert!(matches!(create, Err(RuntimeError::Superseded { id: held }) if held == id));
    }
    bench.runtime.remove(&id).await.unwrap();
    let next = bench.create(&spec).await;
    assert_ne!(next, id);
    assert_eq!(bench.inspect(&next).await.unwrap().token, spec.token);
    bench.runtime.remove(&next).await.unwrap();
}

async fn strangers_are_left_alone(bench: &Bench) {
    let spec = bench.spec();
    let stranger = bench.add_stranger(&spec.name());
    let id = bench.create(&spec).await;
    assert_eq!(bench.create(&spec).await, id, "adopted by its second name");
    assert_eq!(bench.inspect(&id).await.unwrap().name, spec.long_name());
    assert_eq!(bench.inspect(&stranger).await, None);

    let crowded = bench.spec();
    bench.add_stranger(&crowded.name());
    bench.add_stranger(&crowded.long_name());
    let create = bench.runtime.create(&crowded).await;
    let name = crowded.long_name();
    assert!(matches!(create, Err(RuntimeError::NameTaken { name: taken }) if taken == name));

    let listed = bench.list().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, id);
    bench.runtime.remove(&id).await.unwrap();
    assert_eq!(bench.strangers().len(), 3);
}

async fn other_nodes_and_clusters_are_not_listed(bench: &Bench) {
    let ours = bench.spec();
    let mut elsewhere = bench.spec();
    elsewhere.node = format!("{}-b", bench.node);
    let mut foreign = bench.spec();
    foreign.cluster = bench.other_cluster();
    // The same pod id in another cluster is another pod.
    foreign.pod = ours.pod.clone();
    let mut ids = Vec::new();
    for spec in [&ours, &elsewhere, &foreign] {
        ids.push(bench.create(spec).await);
    }
    let listed: Vec<String> = bench.list().await.into_iter().map(|c| c.id).collect();
    assert_eq!(listed, ids[..1]);
    for id in ids {
        bench.runtime.remove(&id).await.unwrap();
    }
}

async fn an_end_is_noticed(bench: &Bench) {
    let mut changes = bench.watch().await;
    let mut spec = bench.spec();
    spec.spec.command = vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()];
    let id = bench.create(&spec).await;
    bench.runtime.start(&id).await.unwrap();
    bench.act(&id, 7);
    let ended = end_of(bench, &mut changes, &spec, &id).await;
    let state = ContainerState::Exited {
        exit_code: 7,
        reason: None,
    };
    assert_eq!(ended.state, state);
    assert_eq!(bench.list().await, [ended]);

    bench.runtime.remove(&id).await.unwrap();
    while bench.inspect(&id).await.is_some() {
        notice(&mut changes, &spec.pod).await;
    }
}

async fn ports_are_told_once_they_are_bound(bench: &Bench) {
    let fixed = crate::support::free_port();
    let mut spec = bench.spec();
    spec.spec.ports = [
        "8000".to_owned(),
        format!("{fixed}:81"),
        "53/udp".to_owned(),
    ]
    .map(|port| Port::parse(&port).unwrap())
    .to_vec();
    let id = bench.create(&spec).await;
    let ports = async |bench: &Bench| bench.inspect(&id).await.unwrap().ports;
    assert_eq!(ports(bench).await, spec.spec.ports);
    bench.runtime.start(&id).await.unwrap();
    let bound = ports(bench).await;
    assert_eq!(bench.list().await[0].ports, bound);
    assert_eq!(bound[1].to_string(), format!("{fixed}:81/tcp"));
    for (bound, wanted) in bound.iter().zip(&spec.spec.ports) {
        assert!(bound.host.is_some(), "{bound}");
        assert_eq!(
            (bound.container, bound.protocol),
            (wanted.container, wanted.protocol)
        );
    }
    bench.runtime.stop(&id, GRACE).await.unwrap();
    assert_eq!(ports(bench).await, spec.spec.ports, "they are free again");
    bench.runtime.remove(&id).await.unwrap();
}

async fn files_are_put_before_the_start(bench: &Bench) {
    let mut spec = bench.spec();
    let file = r#"{"path": "/a/b", "content": "x", "secret": true}"#;
    spec.spec.files = vec![serde_json::from_str(file).unwrap()];
    let id = bench.create(&spec).await;
    for _ in 0..2 {
        bench.runtime.put_files(&id, &spec.spec).await.unwrap();
    }
    let described = bench.runtime.describe(&id).await.unwrap().unwrap();
    assert_eq!(*described.spec, spec.spec.without_secrets());
    bench.runtime.remove(&id).await.unwrap();
    let put = bench.runtime.put_files(&id, &spec.spec).await;
    assert!(matches!(put, Err(RuntimeError::ContainerMissing { id: gone }) if gone == id));
}

async fn an_image_has_users_and_names(bench: &Bench) {
    let spec = bench.spec();
    let id = bench.create(&spec).await;
    let images = bench.runtime.images().await.unwrap();
    let image = images
        .iter()
        .find(|it| it.names.iter().any(|name| name == IMAGE));
    let image = image.unwrap();
    assert!(image.is_used && !image.is_kept, "{image:?}");
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = format!("{IMAGE}@{digest}");
    assert_eq!(bench.runtime.digest(&pinned).await.unwrap(), Some(digest));
    assert_eq!(bench.runtime.digest(IMAGE_ABSENT).await.unwrap(), None);
    bench.runtime.remove(&id).await.unwrap();
}

async fn what_is_missing_is_named(bench: &Bench) {
    let mut spec = bench.spec();
    spec.spec.image = IMAGE_ABSENT.to_owned();
    let create = bench.runtime.create(&spec).await;
    assert!(
        matches!(&create, Err(RuntimeError::ImageMissing { image }) if image == IMAGE_ABSENT),
        "{create:?}"
    );
    assert!(!create.unwrap_err().is_unreachable());
}
