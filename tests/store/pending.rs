//! Pending lists: what agents pop, take in hand and report, and the room that comes back.

use std::time::Duration;

use kubeleet::model::phase::Actor;
use kubeleet::model::service::RegistryLogin;
use kubeleet::model::{Phase, PodId, Token};
use kubeleet::store::{PodStopOutcome, Report, ReportOutcome, TakeOutcome, Taken};

use crate::cluster::{Cluster, asking, beat, pod, report, service, spec};

async fn placed(cluster: &Cluster) -> (u64, PodId) {
    let epoch = cluster.register("n", &beat(10)).await;
    let id = cluster
        .submit(&asking("web", 1, 100, 10 << 20))
        .await
        .remove(0);
    cluster.place("n").await;
    (epoch, id)
}

#[tokio::test]
async fn taking_a_pod_says_what_is_wanted_and_moves_a_scheduled_one_to_starting() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let token = Token {
        attempt: 1,
        nonce: "nonce".into(),
    };
    for _ in 0..2 {
        let Taken::Run(run) = cluster.take("n", epoch, &[&id]).await.remove(0) else {
            panic!("it is to run");
        };
        assert_eq!(
            (&run.token, run.phase, run.replica),
            (&token, Phase::Starting, 0)
        );
        assert_eq!(
            (run.owner.as_str(), run.revision),
            ("service:default/web", 1)
        );
        assert_eq!(run.spec, asking("web", 1, 100, 10 << 20).to_stored());
        assert_eq!(cluster.phase(&id).await, "starting");
    }
    cluster.report("n", epoch, &id, Phase::Running).await;
    let Taken::Run(run) = cluster.take("n", epoch, &[&id]).await.remove(0) else {
        panic!("it is to run on");
    };
    assert_eq!(run.phase, Phase::Running);
    cluster.report("n", epoch, &id, Phase::Failed).await;
    let ended = Taken::Ended(token.clone(), Phase::Failed);
    assert_eq!(cluster.take("n", epoch, &[&id]).await, [ended]);
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    assert_eq!(cluster.take("n", epoch, &[&id]).await, [Taken::Stop(token)]);
    cluster.report("n", epoch, &id, Phase::Stopped).await;
    let both = cluster.take("n", epoch, &[&id, &pod("nobody")]).await;
    assert_eq!(
        both,
        [Taken::Unwanted, Taken::Absent],
        "a tombstone is an order, absence is none"
    );
}

#[tokio::test]
async fn a_services_login_is_told_to_the_agent_beside_the_spec() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    let mut with_login = spec("web", 2);
    with_login.registry = Some(RegistryLogin {
        username: "u".into(),
        password: "hidden".into(),
    });
    let mut ids = cluster.submit(&with_login).await;
    ids.extend(cluster.submit(&spec("plain", 1)).await);
    cluster.place("n").await;
    let pods: Vec<&PodId> = ids.iter().collect();
    let taken = cluster.take("n", epoch, &pods).await;
    let logins: Vec<_> = taken
        .into_iter()
        .map(|taken| match taken {
            Taken::Run(run) => run.registry,
            other => panic!("it is to run: {other:?}"),
        })
        .collect();
    let login = with_login.registry;
    assert_eq!(logins, [login.clone(), login, None]);
    // What a person wrote there that is no login is none.
    let _: u64 = cluster.ask("HSET @service:default/web registry x").await;
    let Taken::Run(run) = cluster.take("n", epoch, &pods[..1]).await.remove(0) else {
        panic!("it is to run");
    };
    assert_eq!(run.registry, None);
}

#[tokio::test]
async fn only_the_newest_agent_of_its_node_takes_and_reports() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let other = cluster.register("other", &beat(10)).await;
    assert_eq!(cluster.take("other", other, &[&id]).await, [Taken::Stale]);
    let stale = cluster.report("other", other, &id, Phase::Running).await;
    assert_eq!(stale, ReportOutcome::Stale);
    cluster.register("n", &beat(10)).await;
    let pending = cluster.store.pending();
    let taken = pending.take("n", epoch, &[&id]).await.unwrap();
    assert_eq!(taken, TakeOutcome::Superseded);
    let reports = vec![report(&id, cluster.token(&id).await, Some(Phase::Running)); 2];
    let outcomes = pending.report("n", epoch, &reports).await.unwrap();
    assert_eq!(outcomes, [ReportOutcome::Superseded; 2]);
    let nowhere = pending.take("nowhere", 1, &[&id]).await.unwrap();
    assert_eq!(
        nowhere,
        TakeOutcome::Unknown,
        "Redis was emptied, nobody superseded it"
    );
    assert_eq!(cluster.phase(&id).await, "scheduled");
}

#[tokio::test]
async fn reports_move_pods_as_the_table_of_transitions_says() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    for from in Phase::ALL {
        for to in Phase::ALL {
            let _: u64 = cluster.ask(&format!("HSET @pod:{id} phase {from}")).await;
            let _: u64 = cluster.ask("HSET @node:n pods 5 cpu_requested 900").await;
            let outcome = cluster.report("n", epoch, &id, to).await;
            let may = from.may_become(to, Actor::Agent);
            let (wanted, then) = match () {
                () if may => (ReportOutcome::Ok, to),
                () if from == to => (ReportOutcome::Ok, from),
                () => (ReportOutcome::Late, from),
            };
            assert_eq!(outcome, wanted, "{from} to {to}");
            assert_eq!(cluster.phase(&id).await, then.as_str(), "{from} to {to}");
            let room = cluster.taken_room("n").await;
            let left = if may && to.is_ended() {
                (4, 800)
            } else {
                (5, 900)
            };
            assert_eq!((room.0, room.1), left, "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn a_report_with_another_token_or_of_no_pod_changes_nothing() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let right = cluster.token(&id).await;
    for token in [
        Token {
            attempt: 2,
            ..right.clone()
        },
        Token {
            attempt: 0,
            ..right.clone()
        },
        Token {
            nonce: "another".into(),
            ..right.clone()
        },
        Token {
            nonce: String::new(),
            ..right.clone()
        },
    ] {
        let stale = report(&id, token, Some(Phase::Running));
        assert_eq!(
            cluster.report_as("n", epoch, stale).await,
            ReportOutcome::Stale
        );
    }
    let gone = report(&pod("nobody"), right, Some(Phase::Running));
    assert_eq!(
        cluster.report_as("n", epoch, gone).await,
        ReportOutcome::Gone
    );
    assert_eq!(cluster.phase(&id).await, "scheduled");
    let made: u64 = cluster.ask("EXISTS @pod:nobody").await;
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_report_keeps_reason_exit_code_and_container() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let token = cluster.token(&id).await;
    let shown = async || cluster.store.pods().get(&id).await.unwrap().unwrap();
    let pulling = Report {
        reason: "pulling".into(),
        ..report(&id, token.clone(), None)
    };
    assert_eq!(
        cluster.report_as("n", epoch, pulling).await,
        ReportOutcome::Ok
    );
    assert_eq!(shown().await.reason.as_deref(), Some("pulling"));
    assert_eq!(shown().await.phase, Phase::Scheduled);
    let running = Report {
        container: "c1".into(),
        ..report(&id, token.clone(), Some(Phase::Running))
    };
    cluster.report_as("n", epoch, running).await;
    assert_eq!(
        (shown().await.reason, shown().await.container),
        (None, Some("c1".into()))
    );
    let failed = Report {
        reason: "x".repeat(5000),
        exit_code: Some(-137),
        ..report(&id, token, Some(Phase::Failed))
    };
    cluster.report_as("n", epoch, failed).await;
    assert_eq!(
        (shown().await.exit_code, shown().await.container),
        (Some(-137), Some("c1".into()))
    );
    assert_eq!(shown().await.reason.map(|reason| reason.len()), Some(1000));
}

#[tokio::test]
async fn the_room_of_a_pod_comes_back_exactly_once() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    cluster.submit(&asking("other", 1, 200, 20 << 20)).await;
    cluster.place("n").await;
    assert_eq!(cluster.taken_room("n").await, (2, 300, 30 << 20));
    for phase in [
        Phase::Running,
        Phase::Succeeded,
        Phase::Succeeded,
        Phase::Failed,
        Phase::Stopped,
    ] {
        cluster.report("n", epoch, &id, phase).await;
    }
    assert_eq!(cluster.taken_room("n").await, (1, 200, 20 << 20));
    let token = cluster.token(&id).await;
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    for wanted in [ReportOutcome::Ok, ReportOutcome::Stale] {
        let stopped = report(&id, token.clone(), Some(Phase::Stopped));
        assert_eq!(cluster.report_as("n", epoch, stopped).await, wanted);
    }
    assert_eq!(cluster.taken_room("n").await, (1, 200, 20 << 20));
}

#[tokio::test]
async fn entries_are_popped_in_order_and_kept_until_a_report_drops_them() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let entries: [&[u8]; 4] = [id.as_str().as_bytes(), b"\xff\x00", b"third", b"fourth"];
    for entry in &entries[1..] {
        cluster.push("pq:n", entry).await;
    }
    let pending = cluster.store.pending();
    let mut inbox = pending.inbox("n", Duration::from_millis(20)).await.unwrap();
    assert_eq!(inbox.pop(2).await.unwrap(), entries[..3]);
    assert_eq!(pending.handling("n").await.unwrap(), entries[..3]);
    assert_eq!(inbox.pop(0).await.unwrap(), entries[3..]);
    assert!(
        inbox.pop(5).await.unwrap().is_empty(),
        "nothing came in time"
    );
    assert_eq!(pending.handling("n").await.unwrap(), entries);

    // Whatever became of the report, its entry was handled.
    let right = cluster.token(&id).await;
    let wrong = Token {
        attempt: 9,
        ..right.clone()
    };
    let dropping = |entry: &[u8], id: &PodId, token: &Token, phase| Report {
        entry: Some(entry.to_vec()),
        ..report(id, token.clone(), phase)
    };
    let nobody = pod("nobody");
    let reports = [
        dropping(entries[0], &id, &right, None),
        dropping(entries[1], &id, &wrong, Some(Phase::Running)),
        dropping(entries[2], &nobody, &right, Some(Phase::Running)),
        dropping(entries[3], &id, &right, Some(Phase::Waiting)),
    ];
    for (left, one) in reports.into_iter().enumerate() {
        cluster.report_as("n", epoch, one).await;
        assert_eq!(pending.handling("n").await.unwrap(), entries[left + 1..]);
    }
}

#[tokio::test]
async fn of_two_equal_entries_a_report_drops_one() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    cluster.push("pq:n", id.as_str().as_bytes()).await;
    let pending = cluster.store.pending();
    let mut inbox = pending.inbox("n", Duration::from_millis(20)).await.unwrap();
    assert_eq!(inbox.pop(9).await.unwrap().len(), 2);
    let entry = Some(id.as_str().as_bytes().to_vec());
    let one = Report {
        entry,
        ..report(&id, cluster.token(&id).await, None)
    };
    cluster.report_as("n", epoch, one).await;
    assert_eq!(pending.handling("n").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_pod_with_an_owner_is_not_stopped_by_itself() {
    let cluster = Cluster::new().await;
    let id = cluster.submit(&spec("web", 1)).await.remove(0);
    let pods = cluster.store.pods();
    let owned = PodStopOutcome::Owned("service:default/web".into());
    assert_eq!(pods.stop(&id).await.unwrap(), owned);
    assert_eq!(
        pods.stop(&pod("nobody")).await.unwrap(),
        PodStopOutcome::Absent
    );
    cluster
        .store
        .services()
        .delete(&service("web"), None)
        .await
        .unwrap();
    assert_eq!(pods.stop(&id).await.unwrap(), PodStopOutcome::Absent);
}

#[tokio::test]
async fn a_take_tells_how_often_a_pod_was_restarted_and_mends_its_nodes_set() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let looping = Report {
        restarts: Some(3),
        exit_code: Some(1),
        reason: "exited with code 1; restart 4 in 8s".into(),
        ..report(&id, cluster.token(&id).await, Some(Phase::CrashLoop))
    };
    cluster.report_as("n", epoch, looping).await;
    let _: u64 = cluster.ask("DEL @cs:n").await;
    let Taken::Run(run) = cluster.take("n", epoch, &[&id]).await.remove(0) else {
        panic!("it is to run");
    };
    assert_eq!((run.phase, run.restarts), (Phase::CrashLoop, 3));
    let members: Vec<String> = cluster.ask("SMEMBERS @cs:n").await;
    assert_eq!(members, [id.to_string()]);
    // Neither of another node's pod, nor of one that is nobody's.
    let other = cluster.register("other", &beat(10)).await;
    cluster.take("other", other, &[&id, &pod("nobody")]).await;
    let made: u64 = cluster.ask("EXISTS @cs:other").await;
    assert_eq!(made, 0);
}

#[tokio::test]
async fn a_report_with_the_same_phase_says_its_reason_even_an_empty_one() {
    let cluster = Cluster::new().await;
    let (epoch, id) = placed(&cluster).await;
    let token = cluster.token(&id).await;
    let shown = async || cluster.store.pods().get(&id).await.unwrap().unwrap();
    for (ready, reason) in [(false, "not ready: no database"), (true, "")] {
        let told = Report {
            ready: Some(ready),
            reason: reason.to_owned(),
            ..report(&id, token.clone(), Some(Phase::Running))
        };
        cluster.report_as("n", epoch, told).await;
        let now = shown().await;
        assert_eq!(
            (now.ready, now.reason.unwrap_or_default()),
            (ready, reason.to_owned())
        );
    }
    // Without a phase nothing is said of the reason.
    let told = Report {
        reason: "pulling".to_owned(),
        ..report(&id, token.clone(), None)
    };
    cluster.report_as("n", epoch, told).await;
    cluster
        .report_as("n", epoch, report(&id, token, None))
        .await;
    assert_eq!(shown().await.reason.as_deref(), Some("pulling"));
}

#[tokio::test]
async fn a_digest_that_pods_share_stands_once() {
    let cluster = Cluster::new().await;
    let epoch = cluster.register("n", &beat(10)).await;
    cluster.submit(&spec("web", 3)).await;
    cluster.place("n").await;
    let ids: Vec<String> = cluster.ask("ZRANGE @service:default/web:pods 0 -1").await;
    let digests = ["sha256:aa", "sha256:aa", "sha256:bb"];
    for (id, digest) in ids.iter().zip(digests) {
        let id = pod(id);
        let told = Report {
            digest: digest.to_owned(),
            ..report(&id, cluster.token(&id).await, Some(Phase::Starting))
        };
        cluster.report_as("n", epoch, told).await;
    }
    let mut held = Vec::new();
    let mut shown = Vec::new();
    for id in &ids {
        held.push(cluster.field(&format!("pod:{id}"), "digest").await);
        let pod = cluster.store.pods().get(&pod(id)).await.unwrap();
        shown.extend(pod.and_then(|pod| pod.digest));
    }
    assert_eq!(held, ["=", "=", "sha256:bb"]);
    assert_eq!(shown, digests);
}
