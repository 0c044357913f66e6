//! Pods pushed by hand, as DESIGN.md section 4 shows it: `redis-cli` is all it takes.

use std::process::Command;
use std::time::{Duration, Instant};

use kubeleet::model::Phase;
use kubeleet::store::DeadLetter;
use serde_json::json;

use crate::harness::{Cluster, IMAGE, Process, SOON, Timing, any_name, build_images, run, show};
use crate::support::{RedisServer, eventually};

/// The line of the design, word for word.
const LINE: &str = r#"redis-cli LPUSH pq:worker1 "{\"name\":\"test\",\"uuid\":\"djkfghsdjkfhjksdghfjksdjkfhsd\",\"image\":\"spaster/alpine-sleep\",\"replica\":3}""#;
/// From the push to the running container.
const STARTED_LIMIT: Duration = Duration::from_secs(2);

/// An agent named worker1 on a plain Redis, and nothing else.
pub(crate) struct Worker {
    // Dropped in this order: nothing may be made again after the containers are removed.
    pub(crate) _agent: Process,
    pub(crate) cluster: Cluster,
    pub(crate) redis: RedisServer,
}

impl Worker {
    pub(crate) async fn start() -> Worker {
        Worker::start_with(&[]).await
    }

    /// One with these variables.
    pub(crate) async fn start_with(variables: &[(&str, &str)]) -> Worker {
        build_images().await;
        let redis = RedisServer::start().await;
        let cluster = Cluster::on(&redis, Timing::REAL).await;
        Worker {
            _agent: cluster.agent("worker1", variables).await,
            cluster,
            redis,
        }
    }

    /// Types a line; it is this test's Redis that it speaks to.
    fn type_in(&self, line: &str) {
        let to = format!("redis-cli -p {} LPUSH", self.redis.port());
        run(Command::new("sh")
            .arg("-c")
            .arg(line.replace("redis-cli LPUSH", &to)));
    }

    /// Pushes a pod of the sample image with these fields.
    pub(crate) async fn push_wish(&self, id: &str, fields: serde_json::Value) {
        let mut pod = json!({"name": any_name(), "uuid": id, "image": IMAGE});
        let fields = fields.as_object().expect("an object").clone();
        pod.as_object_mut().expect("an object").extend(fields);
        self.push("pq:worker1", &pod.to_string()).await;
    }

    pub(crate) async fn push(&self, list: &str, entry: &str) {
        self.redis.must(&["LPUSH", list, entry]).await;
    }

    /// Pushes a pod of the sample image with these fields.
    pub(crate) async fn push_with(&self, id: &str, fields: serde_json::Value) {
        let mut pod = json!({"name": id, "uuid": id, "image": IMAGE});
        let fields = fields.as_object().expect("fields").clone();
        pod.as_object_mut().expect("an object").extend(fields);
        self.push("pq:worker1", &pod.to_string()).await;
    }

    /// Pushes a pod of this image and command.
    pub(crate) async fn push_pod(&self, id: &str, image: &str, command: &[&str]) {
        let once = json!({"policy": "never"});
        let pod = json!({
            "name": id, "uuid": id, "image": image, "command": command, "restart": once,
        });
        self.push("pq:worker1", &pod.to_string()).await;
    }
}

#[tokio::test]
async fn the_line_of_the_design_starts_a_container_within_two_seconds() {
    let worker = Worker::start().await;
    let pushed = Instant::now();
    worker.type_in(LINE);
    let containers = worker.cluster.containers.settle(1, SOON).await;
    let took = pushed.elapsed();
    show(format_args!(
        "from redis-cli LPUSH pq:worker1 to running: {took:?}"
    ));
    assert!(took <= STARTED_LIMIT, "it took {took:?}");
    // Where another's container has that name, ours ends in the whole id.
    let name = containers[0]["Name"].as_str().unwrap_or_default();
    assert!(name.starts_with("/test-3-djkfghsd"), "{name}");
    assert_eq!(containers[0]["Config"]["Image"], "spaster/alpine-sleep");
    assert_eq!(containers[0]["Config"]["Labels"]["kubeleet.replica"], "3");
    let pod = worker
        .cluster
        .pod_in("djkfghsdjkfhjksdghfjksdjkfhsd", Phase::Running)
        .await;
    assert_eq!((pod.node.as_deref(), pod.service), (Some("worker1"), None));

    // The same on the queue, under another id: a scheduler places it.
    let line = LINE.replace("pq:worker1", "sq");
    worker.type_in(&line.replace("djkfghsdjkfhjksdghfjksdjkfhsd", "another-1"));
    let _scheduler = worker.cluster.scheduler();
    let pod = worker.cluster.pod_in("another-1", Phase::Running).await;
    assert_eq!(pod.node.as_deref(), Some("worker1"));
    worker.cluster.containers.settle(2, SOON).await;
}

#[tokio::test]
async fn what_cannot_be_read_becomes_a_dead_letter_and_the_next_is_served() {
    let worker = Worker::start().await;
    let _scheduler = worker.cluster.scheduler();
    let unreadable = [
        ("not even JSON", "neither"),
        (r#"{"name":"test","image":"alpine"}"#, "uuid"),
        (
            r#"{"name":"Not A Name","uuid":"u1","image":"alpine"}"#,
            "name",
        ),
        (
            r#"{"name":"test","uuid":"u2","image":"alpine","replica":-1}"#,
            "replica",
        ),
        (
            r#"{"name":"test","uuid":"u3","image":"alpine","colour":"red"}"#,
            "colour",
        ),
    ];
    for list in ["pq:worker1", "sq"] {
        for (entry, _) in unreadable {
            worker.push(list, entry).await;
        }
    }
    worker.push_pod("next-1", IMAGE, &[]).await;
    let pod = json!({"name": "next-2", "uuid": "next-2", "image": IMAGE});
    worker.push("sq", &pod.to_string()).await;
    worker.cluster.all_run(2, SOON).await;

    let wanted = 2 * unreadable.len();
    let letters: Vec<DeadLetter> = eventually(SOON, "all are dead letters", async || {
        let letters = worker.cluster.store.dead_letters(100).await;
        let letters = letters.map_err(|error| error.to_string())?;
        if letters.len() == wanted {
            Ok(letters)
        } else {
            Err(format!("{letters:?}"))
        }
    })
    .await;
    let now: (u64, u64) = redis::from_redis_value(worker.redis.must(&["TIME"]).await).unwrap();
    for list in ["pq:worker1", "sq"] {
        for (entry, why) in unreadable {
            let letter = letters
                .iter()
                .find(|it| it.r#where == list && it.entry == entry);
            let letter = letter.unwrap_or_else(|| panic!("{entry} of {list}: {letters:?}"));
            assert!(letter.why.contains(why), "{letter:?}");
            let age_ms = (now.0 * 1000).abs_diff(letter.when_ms);
            assert!(age_ms < 60_000, "{letter:?}");
        }
    }
    let raw: Vec<String> =
        redis::from_redis_value(worker.redis.must(&["LRANGE", "dead", "0", "-1"]).await).unwrap();
    assert_eq!(raw.len(), wanted, "redis-cli shows the same");
}

#[tokio::test]
async fn an_end_is_told_with_its_exit_code() {
    let worker = Worker::start().await;
    worker.push_pod("bad", IMAGE, &["false"]).await;
    worker.push_pod("good", IMAGE, &["true"]).await;
    worker.push_pod("absent", IMAGE, &["no-such-program"]).await;
    let failed = worker.cluster.pod_in("bad", Phase::Failed).await;
    assert_eq!(failed.exit_code, Some(1), "{failed:?}");
    assert_eq!(failed.reason.as_deref(), Some("exited with code 1"));
    let succeeded = worker.cluster.pod_in("good", Phase::Succeeded).await;
    assert_eq!(succeeded.exit_code, Some(0), "{succeeded:?}");
    let failed = worker.cluster.pod_in("absent", Phase::Failed).await;
    let reason = failed.reason.unwrap_or_default();
    assert!(reason.contains("not found"), "{reason}");
}
