//! The built `leet apply`, `diff` and `delete` against a served API: files in, services out.

use std::path::PathBuf;
use std::process::Stdio;

use kubeleet::model::Phase;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::api::TestApi;
use crate::support::cluster::{Cluster, IMAGE, SOON};
use crate::support::eventually;

const LEET: &str = env!("CARGO_BIN_EXE_leet");

/// A folder named `shop` with files, and an API to apply them to.
struct Files {
    api: String,
    _folder: TempDir,
    path: PathBuf,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// That it ended so, and what it printed.
    fn out(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self.out
    }
}

impl Files {
    fn new(api: &str) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop");
        std::fs::create_dir(&path).unwrap();
        Files {
            api: api.to_owned(),
            _folder: folder,
            path,
        }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path.join(name), text).unwrap();
    }

    async fn leet(&self, line: &str) -> Ended {
        self.leet_with(line, "").await
    }

    async fn leet_with(&self, line: &str, stdin: &str) -> Ended {
        let mut child = Command::new(LEET)
            .args(line.split_whitespace())
            .current_dir(&self.path)
            .env("KUBELEET_API", &self.api)
            .env("TAG", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        // Commands that read no stdin may have ended already.
        let _ = pipe.write_all(stdin.as_bytes()).await;
        drop(pipe);
        let output = child.wait_with_output().await.unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test]
async fn files_are_applied_compared_pruned_and_deleted() {
    let api = TestApi::start("files").await;
    let files = Files::new(&api.url());
    files.write("compose.yaml", "services:\n  web: {image: 'app:${TAG}', restart: always, environment: {A: b}}\n  db: {image: redis, restart: always, deploy: {replicas: 2}}\n");
    let apply = "apply -f compose.yaml";

    let dry = files.leet(&format!("{apply} --dry-run")).await.out(0);
    assert_eq!(
        dry,
        "service web would be created\nservice db would be created\n"
    );
    assert_eq!(files.leet("services -o json").await.out, "[]\n");
    let new = files.leet("diff -f compose.yaml").await.out(1);
    assert!(
        new.starts_with("service web is new\n+ env.A: b\n+ image: app:2\n"),
        "{new}"
    );
    assert_eq!(
        files.leet(apply).await.out(0),
        "service web created\nservice db created\n"
    );
    assert_eq!(
        files.leet(apply).await.out(0),
        "service web unchanged\nservice db unchanged\n"
    );
    assert_eq!(files.leet("diff -f ../shop/compose.yaml").await.out(0), "");
    let services = files.leet("services -o json").await.json();
    assert_eq!(services[0]["name"], "db");
    assert_eq!(services[0]["replicas"], 2);
    assert_eq!(services[1]["spec"]["labels"], json!({"project": "shop"}));

    // What was scaled by hand stays where the file says no number.
    files.leet("scale web 3").await.out(0);
    assert_eq!(
        files.leet(apply).await.out(0),
        "service web unchanged\nservice db unchanged\n"
    );

    files.write(
        "compose.yaml",
        "services:\n  web: {image: 'app:3', restart: always, environment: {A: c}}\n",
    );
    let diff = files.leet("diff -f compose.yaml --prune").await.out(1);
    assert_eq!(
        diff,
        "service web would change\n- env.A: b\n+ env.A: c\n- image: app:2\n+ image: app:3\nservice db is not in the files, and would be deleted\n"
    );
    let changed = files.leet("apply -f compose.yaml -o json").await.json();
    assert_eq!(changed[0]["outcome"], "changed");
    assert_eq!(
        changed[0]["changes"][1],
        json!({"field": "image", "from": "app:2", "to": "app:3"})
    );
    assert_eq!(
        files.leet("apply -f compose.yaml --prune").await.out(0),
        "service web unchanged\nservice db deleted\n"
    );

    let deleted = files.leet("delete -f compose.yaml").await.out(0);
    assert_eq!(deleted, "service web is being deleted\n");
    let absent = files.leet("delete -f compose.yaml -o json").await;
    assert_eq!(
        (absent.code, absent.out.as_str()),
        (0, "[]\n"),
        "{}",
        absent.err
    );
    assert!(
        absent.err.contains("service web is not there"),
        "{}",
        absent.err
    );
}

#[tokio::test]
async fn service_files_come_from_folders_and_stdin() {
    let api = TestApi::start("filesin").await;
    let files = Files::new(&api.url());
    files.write("2.yml", "name: b\nimage: i\n---\nname: c\nimage: i\n");
    files.write("1.json", r#"{"name": "a", "image": "i", "replicas": 2}"#);
    files.write("notes.txt", "not read");
    files.write(".hidden.yaml", "not: read");
    assert_eq!(
        files.leet("apply -f .").await.out(0),
        "service a created\nservice b created\nservice c created\n"
    );
    let stdin = files
        .leet_with("apply -f - --namespace other", "{name: d, image: i}")
        .await;
    assert_eq!(stdin.out(0), "service other/d created\n");

    // Left-over services are found by a project alone.
    let prune = files.leet("apply -f . --prune").await;
    assert!(
        prune
            .err
            .contains("1.json:1: service a has no label project"),
        "{}",
        prune.err
    );
    prune.out(2);
    files.leet("apply -f . -p shop").await.out(0);
    std::fs::remove_file(files.path.join("2.yml")).unwrap();
    let pruned = files
        .leet("apply -f . -p shop --prune --dry-run")
        .await
        .out(0);
    assert_eq!(
        pruned,
        "service a unchanged\nservice b would be deleted\nservice c would be deleted\n"
    );
    let pruned = files.leet("apply -f . -p shop --prune").await.out(0);
    assert_eq!(
        pruned,
        "service a unchanged\nservice b deleted\nservice c deleted\n"
    );
    let other = files
        .leet("services --namespace other -o json")
        .await
        .json();
    assert_eq!(other[0]["name"], "d", "another namespace is left alone");
}

#[tokio::test]
async fn nothing_is_applied_while_anything_is_wrong() {
    let api = TestApi::start("fileswrong").await;
    let files = Files::new(&api.url());
    files.write("good.yaml", "name: good\nimage: i\n");
    files.write(
        "bad.yaml",
        "name: bad\nimage: i\nreplcas: 1\n---\nname: Bad\nimage: i\n",
    );
    files.write(
        "compose.yaml",
        "services:\n  web:\n    build: .\n    hostname: w\n    restart: always\n",
    );
    let refused = files
        .leet("apply -f good.yaml -f bad.yaml -f compose.yaml")
        .await;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (2, ""),
        "{}",
        refused.err
    );
    for part in [
        "leet: bad.yaml:3: replcas: \"replcas\" is given",
        "leet: bad.yaml:5: name: \"Bad\" is given",
        "leet: compose.yaml:3: services.web.build: nothing is built here",
        "leet: warning: compose.yaml:4: services.web.hostname: has no effect here",
        "leet: 3 problems: nothing is done",
    ] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    // The API has the last word, and is asked before anything is done.
    files.write("many.yaml", "name: many\nimage: i\nreplicas: 4000000000\n");
    let refused = files.leet("apply -f good.yaml -f many.yaml").await;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (1, ""),
        "{}",
        refused.err
    );
    assert!(
        refused.err.contains("many.yaml:1: many: "),
        "{}",
        refused.err
    );
    let diff = files.leet("diff -f good.yaml -f many.yaml").await;
    assert_eq!(diff.code, 2, "{}", diff.err);
    for (line, part) in [
        ("apply -f gone.yaml", "gone.yaml: No such file"),
        ("diff -f empty", "empty: the folder has no files"),
        ("delete -f tab.yaml", "tab.yaml:2: a tab cannot indent"),
        ("apply -f nothing.yaml", "name no services"),
    ] {
        files.write("tab.yaml", "a:\n\tb: 1\n");
        files.write("nothing.yaml", "# nothing\n");
        let _ = std::fs::create_dir(files.path.join("empty"));
        let ended = files.leet(line).await;
        assert_eq!(ended.code, 2, "{line}: {}", ended.err);
        assert!(ended.err.contains(part), "{line}: {}", ended.err);
    }
    assert_eq!(files.leet("services -o json").await.out, "[]\n");
}

#[tokio::test]
async fn services_of_another_project_are_left_alone() {
    let api = TestApi::start("filesother").await;
    let files = Files::new(&api.url());
    files.write(
        "compose.yaml",
        "services: {web: {image: i, restart: always}}\n",
    );
    files.leet("apply -f compose.yaml -p one").await.out(0);
    for line in [
        "apply -f compose.yaml -p two",
        "delete -f compose.yaml -p two",
    ] {
        let refused = files.leet(line).await;
        assert!(
            refused.err.contains("belongs to project one"),
            "{}",
            refused.err
        );
        refused.out(1);
    }
    let diff = files.leet("diff -f compose.yaml -p two").await;
    assert!(diff.err.contains("belongs to project one"), "{}", diff.err);
    diff.out(2);
    let apart = files
        .leet("apply -f compose.yaml -p two --namespace two")
        .await;
    assert_eq!(apart.out(0), "service two/web created\n");
}

#[tokio::test]
async fn services_of_profiles_that_are_off_are_not_left_over() {
    let api = TestApi::start("filesoff").await;
    let files = Files::new(&api.url());
    files.write("compose.yaml", "services:\n  web: {image: i, restart: always}\n  tool: {image: i, restart: always, profiles: [tools]}\n");
    let all = files.leet("apply -f compose.yaml --profile tools").await;
    assert_eq!(all.out(0), "service web created\nservice tool created\n");
    let pruned = files.leet("apply -f compose.yaml --prune").await;
    assert_eq!(pruned.out(0), "service web unchanged\n");
    let deleted = files.leet("delete -f compose.yaml").await;
    assert_eq!(
        deleted.out(0),
        "service tool is being deleted\nservice web is being deleted\n"
    );
}

/// Serves the API of a cluster until the guard goes.
async fn serve(cluster: &Cluster) -> (String, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shutdown = CancellationToken::new();
    let guard = shutdown.clone().drop_guard();
    let (store, settings) = (cluster.store.clone(), cluster.settings.api.clone());
    let settings = kubeleet::settings::Settings {
        api: settings,
        ..cluster.settings.clone()
    };
    tokio::spawn(async move {
        kubeleet::api::run(listener, store, &settings, shutdown)
            .await
            .unwrap();
    });
    (address, guard)
}

#[tokio::test]
async fn dependents_wait_for_what_they_depend_on() {
    let mut cluster = Cluster::start(1).await;
    let (api, _served) = serve(&cluster).await;
    let files = Files::new(&api);
    files.write("compose.yaml", &format!(
        "x-app: &app {{image: '{IMAGE}', restart: always}}\nservices:\n  web:\n    <<: *app\n    depends_on:\n      db: {{condition: service_healthy}}\n      init: {{condition: service_completed_successfully}}\n  init: {{image: '{IMAGE}', restart: 'no', depends_on: [db]}}\n  db:\n    <<: *app\n"
    ));
    // Nothing can run: the wait ends, and what depends on it is not made.
    let agent = cluster.take_agent("worker1");
    agent.stop().await.unwrap();
    let waited = files.leet("apply -f compose.yaml --timeout 1s").await;
    assert!(
        waited.err.contains("waiting for db to be started: 0 of 1"),
        "{}",
        waited.err
    );
    assert!(
        waited
            .err
            .contains("db is not started after 1s (--timeout)"),
        "{}",
        waited.err
    );
    assert_eq!(waited.out(1), "service db created\n");

    cluster.start_agent("worker1");
    let apply = files.leet("apply -f compose.yaml");
    let end_init = async {
        // The one-shot runs; only its good end lets the last one be made.
        let pod = eventually(SOON, "init runs", async || {
            let pods = cluster.pods(None).await;
            let of_init = pods
                .iter()
                .find(|pod| pod.name == "init" && pod.phase == Phase::Running);
            of_init
                .map(|pod| pod.id.clone())
                .ok_or_else(|| format!("{pods:?}"))
        })
        .await;
        assert!(cluster.engine("worker1").end_pod(&pod, 0, None));
    };
    let (applied, ()) = tokio::join!(apply, end_init);
    assert_eq!(
        applied.out(0),
        "service db unchanged\nservice init created\nservice web created\n"
    );

    // The other way round, and to its end.
    let deleted = files.leet("delete -f compose.yaml --wait").await.out(0);
    assert_eq!(
        deleted,
        "service web is gone\nservice init is gone\nservice db is gone\n"
    );
    cluster.end().await;
}
