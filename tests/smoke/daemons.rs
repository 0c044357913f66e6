//! The three daemons as programs: their arguments, waiting for Redis, and ending in order.

use kubeleet::model::Phase;
use kubeleet::settings::{RedisSettings, Secret};
use kubeleet::store::Store;
use kubeleet::store::connection::Redis;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    AGENT, API, END_LIMIT, IMAGE, LEET, Process, SCHEDULER, SOON, get, post, send,
};
use crate::support::{RedisOptions, RedisServer, eventually, free_port};

const DAEMONS: [&str; 3] = [API, SCHEDULER, AGENT];

#[tokio::test]
async fn help_and_version_tell_and_check_judges() {
    for program in DAEMONS {
        let help = Process::run(program, &["--help"], &[]).await;
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.out.contains("KUBELEET_REDIS__URL"), "{help:?}");
        let version = Process::run(program, &["--version"], &[]).await;
        let name = program.rsplit('/').next().unwrap_or_default();
        let expected = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((version.code, version.out), (Some(0), expected));
        let check = Process::run(program, &["--check"], &[]).await;
        assert_eq!(
            (check.code, check.out.as_str()),
            (Some(0), "settings are valid\n")
        );
        let wrong = Process::run(program, &["--no-such-thing"], &[]).await;
        assert_eq!(wrong.code, Some(2), "{wrong:?}");
    }
    let version = Process::run(LEET, &["--version"], &[]).await;
    assert_eq!(version.code, Some(0), "{version:?}");
}

#[tokio::test]
async fn wrong_settings_are_all_told_at_once() {
    let wrong = [
        ("KUBELEET_HEARTBEAT__LEASE", "soon"),
        ("KUBELEET_REDIS__URL", "ftp://somewhere"),
        ("KUBELEET_NODE__NAM", "worker1"),
    ];
    for program in DAEMONS {
        for arguments in [&[][..], &["--check"]] {
            let ended = Process::run(program, arguments, &wrong).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            for words in [
                "KUBELEET_HEARTBEAT__LEASE",
                "soon",
                "KUBELEET_REDIS__URL",
                "KUBELEET_NODE__NAM: no such setting, the nearest is KUBELEET_NODE__NAME",
            ] {
                assert!(ended.err.contains(words), "{words}: {}", ended.err);
            }
            assert_eq!(ended.out, "");
        }
    }
    let leet = Process::run(LEET, &["dev"], &wrong).await;
    assert_eq!(leet.code, Some(2), "{leet:?}");
    let leet = Process::run(LEET, &["dev", "--redis", "bogus://x"], &[]).await;
    assert_eq!(leet.code, Some(2), "{leet:?}");
    assert!(
        leet.err.contains("redis://"),
        "it says what is allowed: {leet:?}"
    );
}

#[tokio::test]
async fn a_busy_address_of_the_api_is_named() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = busy.local_addr().expect("its address").to_string();
    let ended = Process::run(API, &[], &[("KUBELEET_API__LISTEN", &address)]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains(&address) && ended.err.contains("api.listen"),
        "{ended:?}"
    );
}

/// The three daemons on a Redis that may not be there.
struct Daemons {
    processes: Vec<Process>,
    api: String,
}

impl Daemons {
    fn start(redis: u16) -> Daemons {
        let api = format!("127.0.0.1:{}", free_port());
        let url = format!("redis://127.0.0.1:{redis}");
        let variables = [
            ("KUBELEET_REDIS__URL", url.as_str()),
            ("KUBELEET_API__LISTEN", &api),
            ("KUBELEET_NODE__NAME", "worker1"),
            ("KUBELEET_NODE__RUNTIME", "simulated"),
            ("KUBELEET_LOG__FORMAT", "human"),
        ];
        let start = |program: &&str| Process::start(program, &[], &variables);
        Daemons {
            processes: DAEMONS.iter().map(start).collect(),
            api,
        }
    }

    /// Waits until the API answers, and tells that Redis is away.
    async fn wait_for_redis(&self) {
        self.processes[0].logged("API is listening").await;
        let ready = get(&self.api, "/readyz").await;
        assert_eq!(ready.status, 503, "{ready:?}");
        assert_eq!(get(&self.api, "/healthz").await.status, 200);
        for waiting in &self.processes[1..] {
            waiting.logged("trying again").await;
        }
    }

    /// Submits a service and waits until it runs.
    async fn serve(&self, name: &str) {
        eventually(SOON, "the API is ready", async || {
            match send(&self.api, "GET", "/readyz", None).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let body = json!({"name": name, "image": IMAGE, "replicas": 2});
        let answer = post(&self.api, "/service", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let path = format!("/v1/services/{name}");
        eventually(SOON, "it runs", async || {
            let answer = get(&self.api, &path).await;
            if answer.body["running"] == 2 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    }

    /// SIGTERM to all; each has to end in order.
    async fn end(mut self) {
        for process in &self.processes {
            process.signal("TERM");
        }
        for process in &mut self.processes {
            let status = process.ended(END_LIMIT).await;
            assert_eq!(status.code(), Some(0), "{process}");
        }
    }
}

#[tokio::test]
async fn daemons_wait_for_redis_and_end_in_order_with_it() {
    let port = free_port();
    let daemons = Daemons::start(port);
    daemons.wait_for_redis().await;
    let redis = RedisOptions::default().port(port).start().await;
    daemons.serve("web").await;
    daemons.end().await;

    // What they left is whole: pods are where they were.
    let settings = RedisSettings {
        url: Secret(redis.url()),
        ..RedisSettings::default()
    };
    let store = Store::new(Redis::connect(&settings, CancellationToken::new()), "");
    let pods = store
        .pods()
        .list(&kubeleet::store::PodFilter::default(), None, 10)
        .await;
    let pods = pods.expect("pods are listed").pods;
    assert!(
        pods.iter().all(|pod| pod.phase == Phase::Running),
        "{pods:?}"
    );
}

#[tokio::test]
async fn daemons_end_in_order_where_redis_never_was() {
    let daemons = Daemons::start(free_port());
    daemons.wait_for_redis().await;
    daemons.end().await;
}

#[tokio::test]
async fn daemons_end_in_order_where_redis_went_away() {
    let mut redis = RedisServer::start().await;
    let daemons = Daemons::start(redis.port());
    daemons.serve("web").await;
    redis.kill9();
    for waiting in &daemons.processes[1..] {
        waiting.logged("trying again").await;
    }
    daemons.end().await;
}
