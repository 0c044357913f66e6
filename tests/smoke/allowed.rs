//! What a node allows: each kind is refused by a node whose settings are silent, and runs on one
//! whose settings allow it.

use kubeleet::model::{Phase, PodId};
use serde_json::{Value, json};

use crate::harness::{Cluster, IMAGE, SOON, Timing, any_name, build_images, docker};
use crate::support::{RedisServer, eventually};

#[tokio::test]
async fn a_node_runs_only_what_its_settings_allow() {
    build_images().await;
    let folder = tempfile::tempdir().expect("a folder");
    let allowed = folder.path().join("allowed");
    std::fs::create_dir(&allowed).expect("a folder");
    let bind = allowed.display().to_string();
    let redis = RedisServer::start().await;
    let cluster = Cluster::on(&redis, Timing::REAL).await;
    let _strict = cluster.agent("strict", &[]).await;
    let settings = [
        ("KUBELEET_AGENT__ALLOW__PRIVILEGED", "true"),
        ("KUBELEET_AGENT__ALLOW__HOST_NETWORK", "true"),
        ("KUBELEET_AGENT__ALLOW__DEVICES", "/dev/nul*"),
        ("KUBELEET_AGENT__ALLOW__CAPABILITIES", "NET_ADMIN"),
        ("KUBELEET_AGENT__ALLOW__BINDS", bind.as_str()),
    ];
    let _open = cluster.agent("open", &settings).await;
    let bind_of =
        |source: &str| json!({"mounts": [{"type": "bind", "source": source, "target": "/a"}]});
    let push = async |node: &str, id: &str, fields: &Value| {
        let mut pod = json!({"name": any_name(), "uuid": id, "image": IMAGE});
        let fields = fields.as_object().expect("an object").clone();
        pod.as_object_mut().expect("an object").extend(fields);
        let list = format!("pq:{node}");
        redis.must(&["LPUSH", &list, &pod.to_string()]).await;
    };
    let kinds = [
        (
            "privileged",
            json!({"privileged": true}),
            "privileged containers: set agent.allow.privileged",
        ),
        (
            "network",
            json!({"network": "host"}),
            "its own network to containers: set agent.allow.host_network",
        ),
        (
            "devices",
            json!({"devices": [{"host": "/dev/null", "container": "/dev/x"}]}),
            "the device /dev/null: add it to agent.allow.devices",
        ),
        ("binds", bind_of(&bind), "add a folder to agent.allow.binds"),
        (
            "capabilities",
            json!({"capabilities": {"add": ["NET_ADMIN"]}}),
            "the capability NET_ADMIN: add it to agent.allow.capabilities",
        ),
    ];
    for (kind, fields, words) in &kinds {
        push("strict", &format!("strict-{kind}"), fields).await;
        push("open", &format!("open-{kind}"), fields).await;
        let refused = cluster
            .pod_in(&format!("strict-{kind}"), Phase::Failed)
            .await;
        let reason = refused.reason.unwrap_or_default();
        assert!(
            reason.starts_with("node strict does not allow "),
            "{reason}"
        );
        assert!(reason.contains(words), "{reason}");
        let pod = format!("open-{kind}");
        let made = eventually(SOON, &format!("{pod} has a container"), async || {
            let all = cluster.containers.all().await;
            let of = |it: &&Value| it["Config"]["Labels"]["kubeleet.pod"] == pod.as_str();
            all.iter()
                .find(of)
                .cloned()
                .ok_or_else(|| format!("{all:?}"))
        })
        .await;
        // A machine that has not all rights itself can give none to a privileged container: its
        // engine is asked for one, and cannot start it.
        if *kind == "privileged" {
            assert_eq!(made["HostConfig"]["Privileged"], true);
        } else {
            cluster.pod_in(&pod, Phase::Running).await;
        }
    }

    // Ways around, by whoever writes to Redis past the API.
    let beside = folder.path().display().to_string();
    for (id, fields, words) in [
        ("beside", bind_of(&beside), "does not allow binds of"),
        (
            "other-device",
            json!({"devices": [{"host": "/dev/zero"}]}),
            "does not allow the device /dev/zero",
        ),
    ] {
        push("open", id, &fields).await;
        let failed = cluster.pod_in(id, Phase::Failed).await;
        let reason = failed.reason.unwrap_or_default();
        assert!(reason.contains(words), "{id}: {reason}");
    }
    // By its id, the engine takes the host's network for another: it is refused, or leads nowhere.
    let host_network = docker(&["network", "inspect", "-f", "{{.Id}}", "host"]);
    push("strict", "by-id", &json!({"network": host_network})).await;
    eventually(SOON, "it runs apart, or fails", async || {
        let id = PodId::parse("by-id").expect("an id");
        match cluster.store.pods().get(&id).await {
            Ok(Some(pod)) if pod.phase == Phase::Failed => Ok(()),
            Ok(Some(pod)) if pod.phase == Phase::Running => {
                let id = pod.container.unwrap_or_default();
                assert_eq!(docker(&["exec", &id, "ls", "/sys/class/net"]), "lo");
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let lost = json!({"name": "web", "namespace": "default", "image": IMAGE,
        "files": [{"path": "/key", "secret": true}]});
    // What no API would take: straight into the record of a pod that is to be looked at again.
    for (spec, words) in [
        (
            json!({"name": "web", "namespace": "default", "image": IMAGE, "network": "container:x"}),
            "its stored spec breaks a rule: network",
        ),
        (
            lost,
            "the content of its secret file /key was lost with the store",
        ),
        (
            json!({"name": "web", "namespace": "default", "image": IMAGE,
                "mounts": [{"type": "bind", "source": format!("{bind}/../.."), "target": "/a"}]}),
            "its stored spec breaks a rule: mounts[0].source",
        ),
    ] {
        let id = format!("forged-{}", words.len());
        let key = format!("pod:{id}");
        let spec = spec.to_string();
        for field in [
            ["owner", ""],
            ["desired", "run"],
            ["phase", "scheduled"],
            ["node", "open"],
            ["attempt", "1"],
            ["nonce", "n"],
            ["replica", "0"],
            ["revision", "0"],
            ["spec", &spec],
        ] {
            redis.must(&["HSET", &key, field[0], field[1]]).await;
        }
        redis.must(&["SADD", "cs:open", &id]).await;
        redis.must(&["LPUSH", "pq:open", &id]).await;
        let failed = cluster.pod_in(&id, Phase::Failed).await;
        let reason = failed.reason.unwrap_or_default();
        assert!(reason.contains(words), "{id}: {reason}");
    }
    let all = cluster.containers.all().await;
    let strict = |it: &&Value| {
        let labels = &it["Config"]["Labels"];
        labels["kubeleet.node"] == "strict" && labels["kubeleet.pod"] != "by-id"
    };
    assert_eq!(
        all.iter().filter(strict).count(),
        0,
        "nothing was even created there"
    );
}
