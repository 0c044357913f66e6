//! A real registry with a password: who may pull, what is fetched anew, and what is told meanwhile.

use std::time::Duration;

use kubeleet::model::{Phase, Pod, PodId};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::by_hand::Worker;
use crate::harness::{
    Cluster, IMAGE, PASSWORD, Registry, SOON, Tag, Timing, USER, any_name, build_images, docker,
    post,
};
use crate::support::{RedisServer, eventually};

/// A password that is not the user's.
const WRONG: &str = "Wrong-9Word";

/// An image like the sample, with this word in it; taken from the engine on drop.
fn variant(name: &str, word: &str) -> Tag {
    let container = docker(&["create", IMAGE]);
    let change = format!("ENV WORD={word}");
    docker(&["commit", "--change", &change, &container, name]);
    docker(&["rm", &container]);
    Tag(name.to_owned())
}

fn digest_of(image: &str) -> String {
    let digest = docker(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", image]);
    let (_, digest) = digest.split_once('@').expect("a digest");
    digest.to_owned()
}

fn word_of(pod: &Pod) -> String {
    let container = pod.container.as_deref().expect("a container");
    docker(&["exec", container, "sh", "-c", "echo $WORD"])
}

/// Waits until a pod's reason holds these words.
async fn told(cluster: &Cluster, id: &str, words: &str) -> Pod {
    let id = PodId::parse(id).expect("an id");
    eventually(
        SOON,
        &format!("{id} says {words:?}"),
        async || match cluster.store.pods().get(&id).await {
            Ok(Some(pod)) if pod.reason.as_ref().is_some_and(|it| it.contains(words)) => Ok(pod),
            other => Err(format!("{other:?}")),
        },
    )
    .await
}

#[tokio::test]
async fn a_private_image_is_had_by_the_right_login_alone() {
    build_images().await;
    let registry = Registry::start_with_password().await;
    let image = registry.push(IMAGE, "team/private:1");
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let agent = cluster
        .agent("worker1", &[("KUBELEET_LOG__FILTER", "debug")])
        .await;
    let push = async |id: &str, password: Option<&str>| {
        let mut pod = json!({"name": any_name(), "uuid": id, "image": image.0});
        if let Some(password) = password {
            pod["registry"] = json!({"username": USER, "password": password});
        }
        redis.must(&["LPUSH", "pq:worker1", &pod.to_string()]).await;
    };
    push("nobody", None).await;
    let failed = cluster.pod_in("nobody", Phase::Failed).await;
    let reason = failed.reason.unwrap_or_default();
    assert!(reason.contains(&image.0), "{reason}");
    assert!(reason.contains("asked without a login"), "{reason}");
    push("stranger", Some(WRONG)).await;
    let failed = cluster.pod_in("stranger", Phase::Failed).await;
    let reason = failed.reason.unwrap_or_default();
    let words = "asked as \"reader\", the service's login";
    assert!(
        reason.contains(words) && !reason.contains(WRONG),
        "{reason}"
    );

    // The same through the API: what it stores reaches the agent.
    let _scheduler = cluster.scheduler();
    let (api, address) = cluster.api().await;
    let wish = json!({"name": "web", "image": image.0,
        "registry": {"username": USER, "password": PASSWORD}});
    let submitted = post(&address, "/service", &wish).await;
    assert_eq!(submitted.status, 201, "{submitted:?}");
    let id = submitted.body["pods"][0]
        .as_str()
        .expect("a pod")
        .to_owned();
    let pod = cluster.pod_in(&id, Phase::Running).await;
    assert_eq!(pod.digest, Some(digest_of(&image.0)));

    let seen = cluster.containers.all().await;
    let events = redis.must(&["XRANGE", "events", "-", "+"]).await;
    for (place, text) in [
        ("agent's log", agent.err()),
        ("API's log", api.err()),
        ("docker inspect", json!(seen).to_string()),
        ("events", format!("{events:?}")),
        ("answer", submitted.body.to_string()),
    ] {
        for secret in [PASSWORD, WRONG] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
    drop(cluster); // the container holds the image
}

#[tokio::test]
async fn a_nodes_own_login_serves_who_brings_none() {
    build_images().await;
    let registry = Registry::start_with_password().await;
    let image = registry.push(IMAGE, "private:1");
    let login = format!("{USER}:{PASSWORD}@{}", registry.address);
    let worker = Worker::start_with(&[("KUBELEET_AGENT__REGISTRIES", &login)]).await;
    worker.push_wish("pulled", json!({"image": image.0})).await;
    worker.cluster.pod_in("pulled", Phase::Running).await;
    drop(worker);
}

#[tokio::test]
async fn only_always_fetches_a_tag_that_has_moved() {
    build_images().await;
    let registry = Registry::start().await;
    let name = |word: &str| {
        format!(
            "kubeleet/{word}:{}",
            registry.address.replace([':', '.'], "-")
        )
    };
    let (old, new) = (variant(&name("old"), "old"), variant(&name("new"), "new"));
    let image = registry.push(&new.0, "moving:1");
    docker(&["tag", &old.0, &image.0]); // as it was before it moved
    let worker = Worker::start().await;
    for (id, pull) in [
        ("here", "never"),
        ("missing", "missing"),
        ("always", "always"),
    ] {
        worker
            .push_wish(id, json!({"image": image.0, "pull": pull}))
            .await;
        let pod = worker.cluster.pod_in(id, Phase::Running).await;
        let word = if id == "always" { "new" } else { "old" };
        assert_eq!(word_of(&pod), word, "{id}");
        let digest = (id == "always").then(|| digest_of(&image.0));
        assert_eq!(
            pod.digest, digest,
            "{id}: one that came from nowhere has none"
        );
    }
    drop(worker);
}

#[tokio::test]
async fn a_registry_that_comes_back_is_asked_again() {
    build_images().await;
    let mut registry = Registry::start().await;
    let image = registry.push(IMAGE, "sample:1");
    registry.stop();
    let worker = Worker::start().await;
    worker.push_wish("patient", json!({"image": image.0})).await;
    let waiting = told(
        &worker.cluster,
        "patient",
        "failed, try 1 of 5, the next in 1s",
    )
    .await;
    assert_eq!(waiting.phase, Phase::Starting);
    registry.go_on().await;
    worker.cluster.pod_in("patient", Phase::Running).await;
    drop(worker);
}

#[tokio::test]
async fn a_slow_pull_says_how_far_it_has_come() {
    build_images().await;
    let registry = Registry::start().await;
    let mut noise = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    })
    .take(LARGE_BYTES)
    .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("noise").display().to_string();
    std::fs::write(&file, noise).expect("a file");
    let container = docker(&["create", IMAGE]);
    docker(&["cp", &file, &format!("{container}:/noise")]);
    let large = Tag(format!(
        "kubeleet/large:{}",
        registry.address.replace([':', '.'], "-")
    ));
    docker(&["commit", &container, &large.0]);
    docker(&["rm", &container]);
    drop(registry.push(&large.0, "large:1"));
    drop(large); // the engine must not have its layers

    let narrow = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let image = Tag(format!(
        "{}/large:1",
        narrow.local_addr().expect("its address")
    ));
    let passing = tokio::spawn(pass_slowly(narrow, registry.address.clone()));
    let worker = Worker::start().await;
    worker.push_wish("slow", json!({"image": image.0})).await;
    let pod = told(&worker.cluster, "slow", " of ").await;
    let reason = pod.reason.unwrap_or_default();
    let (come, all) = reason
        .strip_prefix(&format!("pulling image {}: ", image.0))
        .and_then(|rest| rest.strip_suffix(" MB")?.split_once(" of "))
        .unwrap_or_else(|| panic!("{reason}"));
    let (come, all): (f64, f64) = (come.parse().expect("MB"), all.parse().expect("MB"));
    assert!(come < all && (4.0..9.0).contains(&all), "{reason}");
    worker.cluster.pod_in("slow", Phase::Running).await;
    passing.abort();
    drop(worker);
}

/// Bytes of a layer that cannot be pressed together.
const LARGE_BYTES: usize = 6_000_000;
/// Bytes a second that come through: two to three seconds for such a layer.
const NARROW_BYTES_PER_S: u32 = 2_500_000;

/// Passes connections on, and what comes back as a narrow line would.
async fn pass_slowly(listener: TcpListener, to: String) -> std::io::Result<()> {
    loop {
        let (visitor, _) = listener.accept().await?;
        let registry = TcpStream::connect(&to).await?;
        let (mut from_visitor, mut to_visitor) = visitor.into_split();
        let (mut from_registry, mut to_registry) = registry.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_visitor, &mut to_registry).await });
        tokio::spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(bytes @ 1..) = from_registry.read(&mut piece).await {
                to_visitor.write_all(&piece[..bytes]).await?;
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                let pause = Duration::from_secs(1) * bytes / NARROW_BYTES_PER_S;
                tokio::time::sleep(pause).await;
            }
            Ok::<_, std::io::Error>(())
        });
    }
}
