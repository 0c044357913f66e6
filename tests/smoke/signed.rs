//! A node that starts only what is signed, and somebody who may write anything to Redis.

use std::path::Path;
use std::process::Command;

use kubeleet::model::{Phase, Pod, PodId, ServiceKey};
use kubeleet::settings::{RedisSettings, Secret};
use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, LEET, SOON, Timing, any_name, build_images, get, post};
use crate::support::{RedisServer, eventually};

/// Runs `leet key` and gives what it prints.
fn leet_key(verb: &str, file: &Path) -> Result<String, String> {
    let output = Command::new(LEET).args(["key", verb]).arg(file).output();
    let output = output.expect("leet runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

#[tokio::test]
async fn who_can_write_to_redis_can_start_nothing_that_is_not_signed() {
    build_images().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let key = leet_key("generate", &file("key")).expect("a key");
    assert_eq!(leet_key("show", &file("key")), Ok(key.clone()));
    leet_key("generate", &file("key")).expect_err("never over another key");
    let older = leet_key("generate", &file("older")).expect("a key");
    let keys = file("trusted");
    std::fs::write(
        &keys,
        format!("# both, while keys change\n{older}\n{key}\n"),
    )
    .expect("a file");
    let keys = keys.display().to_string();

    let redis = RedisServer::start().await;
    let settings = RedisSettings {
        url: Secret(redis.url()),
        ..RedisSettings::default()
    };
    let variables = vec![
        ("KUBELEET_REDIS__URL", redis.url()),
        (
            "KUBELEET_API__SIGNING_KEY_FILE",
            file("key").display().to_string(),
        ),
    ];
    let cluster = Cluster::open(&settings, Timing::REAL, variables).await;
    let (_api, address) = cluster.api().await;
    let _scheduler = cluster.scheduler();
    let trusted = [
        ("KUBELEET_AGENT__REQUIRE_SIGNED", "true"),
        ("KUBELEET_AGENT__TRUSTED_KEYS", keys.as_str()),
        ("KUBELEET_AGENT__ALLOW__PRIVILEGED", "true"),
    ];
    let _agent = cluster.agent("strict", &trusted).await;
    let submit = async |name: &str| {
        let body = json!({"name": name, "image": IMAGE});
        let answer = post(&address, "/service", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    };

    // What the API accepted runs, and shows nothing of its signature.
    let signed = any_name();
    submit(&signed).await;
    let running = cluster.all_run(1, SOON).await.remove(0);
    let shown = get(&address, &format!("/v1/services/{signed}")).await;
    assert!(!shown.body.to_string().contains("signature"), "{shown:?}");
    let given = json!({"name": "other", "image": IMAGE, "signature": "x"});
    assert_eq!(post(&address, "/service", &given).await.status, 400);

    // A pod pushed by hand, with all rights on the machine.
    let raw = json!({"name": any_name(), "uuid": "raw", "image": IMAGE, "privileged": true});
    redis.must(&["LPUSH", "pq:strict", &raw.to_string()]).await;
    let failed = cluster.pod_in("raw", Phase::Failed).await;
    refused(&failed, "a pod pushed by hand never is");

    // Specs of services, changed in Redis before another pod of them is made.
    let other = spec_of(&redis, &signed).await;
    let bare = json!({"namespace": "default", "image": IMAGE});
    let mut run = vec![running.id.clone()];
    for (forge, words) in [
        (
            &(|own: &str| own.replacen('{', r#"{"privileged":true,"#, 1))
                as &dyn Fn(&str) -> String,
            "changed after it was signed",
        ),
        (
            &|own: &str| {
                let own: Value = serde_json::from_str(own).expect("JSON");
                let mut bare = bare.clone();
                bare["name"] = own["name"].clone();
                bare.to_string()
            },
            "its spec is not",
        ),
        (&|_: &str| other.clone(), "was signed for service:default/"),
    ] {
        let name = any_name();
        submit(&name).await;
        let key = ServiceKey::parse(&format!("default/{name}")).expect("a key");
        run.push(pod_of(&cluster, &key, Phase::Running).await.id);
        let forged = forge(&spec_of(&redis, &name).await);
        let service = format!("service:{key}");
        redis.must(&["HSET", &service, "spec:1", &forged]).await;
        let submission = PodId::new_submission();
        let scaled = cluster.store.services();
        let scaled = scaled.scale(&key, 2, &submission, None).await;
        scaled.expect("it is scaled");
        let failed = pod_of(&cluster, &key, Phase::Failed).await;
        refused(&failed, words);
    }

    // Nor are commands run in what is signed.
    let exec = Command::new(LEET)
        .args(["--api", &format!("http://{address}"), "exec"])
        .args([running.id.as_str(), "--", "true"])
        .output()
        .expect("leet runs");
    let said = String::from_utf8_lossy(&exec.stderr);
    assert!(
        !exec.status.success() && said.contains("agent.require_signed"),
        "{said}"
    );

    let all = cluster.containers.all().await;
    let of = |it: &Value| {
        it["Config"]["Labels"]["kubeleet.pod"]
            .as_str()
            .map(str::to_owned)
    };
    let mut made: Vec<String> = all.iter().filter_map(of).collect();
    let mut run: Vec<String> = run.iter().map(PodId::to_string).collect();
    made.sort();
    run.sort();
    assert_eq!(made, run, "nothing else was even created");
}

/// What stands in Redis as the spec of a service.
async fn spec_of(redis: &RedisServer, name: &str) -> String {
    let service = format!("service:default/{name}");
    match redis.must(&["HGET", &service, "spec:1"]).await {
        redis::Value::BulkString(bytes) => String::from_utf8(bytes).expect("text"),
        other => panic!("{other:?}"),
    }
}

/// Waits until a service has a pod in `phase`, and gives it.
async fn pod_of(cluster: &Cluster, service: &ServiceKey, phase: Phase) -> Pod {
    eventually(
        SOON,
        &format!("a pod of {service} is {phase}"),
        async || {
            let pods = cluster.pods().await;
            let name = service.to_string();
            let of = |pod: &&Pod| pod.service.as_ref() == Some(&name) && pod.phase == phase;
            pods.iter()
                .find(of)
                .cloned()
                .ok_or_else(|| format!("{pods:?}"))
        },
    )
    .await
}

/// A pod failed for a reason with these words.
fn refused(failed: &Pod, words: &str) {
    let reason = failed.reason.as_deref().unwrap_or_default();
    let told = reason.contains("agent.require_signed") && reason.contains(words);
    assert!(told, "{}: {reason}", failed.id);
}
